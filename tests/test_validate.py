"""The contract at work: each rule bites, counts merge, crashes do not pass for success, nothing leaks."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cache, reduce
from itertools import pairwise
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that, equal_to
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.commit import RunStats, Shard
from schemas.expectations import Rule, Suite, load_suite, merge_expectations, parse_suite
from schemas.note import BATCH_SCHEMA
from schemas.rejection import Reason, Stage
from transforms.batch import NoteBatch
from transforms.validate import ValidateNotes, Validator, validate_batch

GOOD = {
    "note_id": "n-1",
    "text": "Seen in clinic today. Blood pressure 128/76, feels well.",
    "patient_id": "p-1",
    "encounter_id": None,
    "note_type": "Progress Note",
    "written_at": "2024-03-05T10:15:00+01:00",
}
CANARY = "Zyxwv Quetzalcoatlus 55501"


def batch_of(rows: Sequence[dict[str, Any]], **extra: pa.Array) -> NoteBatch:
    """A shard of notes: GOOD with these changes."""
    filled = [{**GOOD, **row, "source_file": 3, "source_row": 100 + i} for i, row in enumerate(rows)]
    notes = pa.Table.from_pylist(filled, schema=BATCH_SCHEMA)
    for name, values in extra.items():
        notes = notes.append_column(f"in:{name}", values)
    return NoteBatch(Shard("shard-1", "cut-1", ()), notes)


@pytest.fixture(scope="module")
def suite() -> Suite:
    return load_suite()


@pytest.fixture(scope="module")
def validator(suite: Suite) -> Validator:
    return Validator(suite)


def user_suite(*expectations: dict[str, Any]) -> Suite:
    return parse_suite(json.dumps({"name": "ours", "expectations": list(expectations)}), "ours.json")


QUARANTINED = [
    ({"note_id": None}, "note_id_present", Reason.MISSING_ID),
    ({"note_id": " \t"}, "note_id_not_blank", Reason.MISSING_ID),
    ({"note_id": None, "text": None}, "note_id_present", Reason.MISSING_ID),
    ({"text": None}, "text_present", Reason.MISSING_TEXT),
    ({"text": ""}, "text_not_blank", Reason.MISSING_TEXT),
    ({"text": " \n\u00a0 "}, "text_not_blank", Reason.MISSING_TEXT),
    ({"text": "- See scanned document."}, "text_not_placeholder", Reason.MISSING_TEXT),
    ({"text": "No information provided"}, "text_not_placeholder", Reason.MISSING_TEXT),
    ({"text": "Headache."}, "text_long_enough", Reason.TEXT_TOO_SHORT),
    ({"text": "w" * 5_000_001}, "text_not_too_long", Reason.TEXT_TOO_LONG),
    ({"text": "W\x00e\x00l\x00l\x00 \x00t\x00o\x00d\x00a\x00y\x00"}, "text_printable", Reason.UNPRINTABLE),
    ({"text": "\ue000\ue001 knee pain"}, "text_printable", Reason.UNPRINTABLE),
    ({"text": "\ufffd\ufffd\ufffd knee pain"}, "text_encoding_usable", Reason.ENCODING_DAMAGE),
    ({"text": "Fièvre élevée".encode().decode("latin-1")}, "text_encoding_usable", Reason.ENCODING_DAMAGE),
]
LONG_NOTE = "The patient was seen and examined at the bedside this morning. " * 20
WARNED = [
    ({"note_id": "n" * 257}, "note_id_well_formed"),
    ({"note_id": " n-1"}, "note_id_well_formed"),
    ({"note_id": "n-1\n"}, "note_id_well_formed"),
    ({"text": "w" * 200_001}, "text_of_usual_length"),
    ({"text": LONG_NOTE + "Give 5 \ufffdg twice daily."}, "text_encoding_clean"),
    ({"text": LONG_NOTE + "Give 5 μg – “today”.".encode().decode("cp1252", "replace")}, "text_encoding_clean"),
    ({"text": LONG_NOTE + "\x93Better\x94 today."}, "text_encoding_clean"),
    ({"text": "Seen in clinic today. Pain is [truncated]"}, "text_complete"),
    ({"text": "Seen in clinic today. *** Message Truncated *** 14 lines"}, "text_complete"),
    ({"text": "Seen in clinic today. Blood pressure was...\n"}, "text_complete"),
    ({"text": "Seen in clinic today. Blood pressure was…"}, "text_complete"),
    ({"text": ("word " * 801)[:4000].strip()}, "text_complete"),
    ({"written_at": "05/03/2024"}, "written_at_plausible"),
    ({"written_at": "2024-02-30"}, "written_at_plausible"),
    ({"written_at": "1824-02-03"}, "written_at_plausible"),
    ({"written_at": "2100-01-01"}, "written_at_plausible"),
    ({"written_at": "today"}, "written_at_plausible"),
    ({"written_at": ""}, "written_at_plausible"),
    ({"note_type": "Invoice"}, "note_type_known"),
    ({"note_type": ""}, "note_type_known"),
]
CLEAN = [
    {},
    {"written_at": None, "note_type": None, "patient_id": None},
    {"text": "Rash on arm"},
    {"text": "None of the symptoms came back."},
    {"text": "w" * 4000 + "."},
    {"text": ("word " * 799) + "end."},
    {"text": "Fièvre élevée, 37,5 µg/l – “très bien”, NÃO, größer als 5 °C"},
    {"text": "Tabs\tand\r\nlines\x0cand pages."},
    {"text": "Pain ... then none. Wound cut (see plan)."},
    {"written_at": "2024"},
    {"written_at": "20240305"},
    {"written_at": "2024-03-05 10:15"},
    {"written_at": "1900-01-01"},
    {"note_type": "DISCHARGE_SUMMARY"},
    {"note_type": "18842-5"},
    {"note_type": "H&P"},
    {"note_type": "ED provider notes"},
    {"note_id": "urn:uuid:6f1e / 7"},
]


@pytest.fixture(scope="module")
def set_aside(validator: Validator) -> NoteBatch:
    """What the critical rules are there for, one row each, with a good row before and one after them."""
    return validate_batch(batch_of([{}, *(row for row, *_ in QUARANTINED), {}]), validator)


@pytest.mark.parametrize("number", range(len(QUARANTINED)), ids=[key for _, key, _ in QUARANTINED])
def test_a_critical_rule_sets_the_row_aside(set_aside: NoteBatch, number: int) -> None:
    row, key, reason = QUARANTINED[number]
    rejection = set_aside.rejections[number]
    assert (rejection.expectation, rejection.reason, rejection.stage) == (key, reason, Stage.VALIDATE)
    assert (rejection.note_id, rejection.source_file, rejection.source_row) == ({**GOOD, **row}["note_id"], 3, 101 + number)
    assert rejection.text is None


def test_what_breaks_no_critical_rule_stays(set_aside: NoteBatch) -> None:
    assert set_aside.column("source_row") == [100, 101 + len(set_aside.rejections)]


def test_a_warning_keeps_the_row_and_flags_it(validator: Validator) -> None:
    done = validate_batch(batch_of([{}, *(row for row, _ in WARNED)]), validator)
    assert done.rejections == ()
    assert done.column("contract_warnings") == [[], *([key] for _, key in WARNED)]
    assert done.stats.notes_warned == len(WARNED)


def test_good_rows_pass_every_rule(validator: Validator) -> None:
    done = validate_batch(batch_of(CLEAN), validator)
    assert {key: count["unexpected"] for key, count in done.stats.expectations.items() if count["unexpected"]} == {}
    assert done.notes.drop_columns("contract_warnings").equals(batch_of(CLEAN).notes)


def test_every_rule_of_the_suite_is_seen_to_bite(suite: Suite) -> None:
    assert {key for _, key, _ in QUARANTINED} | {key for _, key in WARNED} == {rule.key for rule in suite.rules}


def test_several_warnings_stand_in_suite_order_and_do_not_count_for_rejected_rows(validator: Validator) -> None:
    both = {"note_type": "Invoice", "written_at": "soon"}
    done = validate_batch(batch_of([both, {**both, "text": None}]), validator)
    assert done.column("contract_warnings") == [["written_at_plausible", "note_type_known"]]
    assert done.stats.notes_warned == 1
    assert done.stats.expectations["note_type_known"]["unexpected"] == 2


def test_text_is_kept_only_when_asked(validator: Validator) -> None:
    (rejection,) = validate_batch(batch_of([{"text": "short"}]), validator, keep_rejected_text=True).rejections
    assert rejection.text == "short"


def test_an_empty_batch_gains_the_column_and_zero_counts(suite: Suite, validator: Validator) -> None:
    done = validate_batch(batch_of([]), validator)
    assert done.notes.num_rows == 0
    assert done.notes.schema.field("contract_warnings").type == pa.list_(pa.string())
    assert set(done.stats.expectations) == {rule.key for rule in suite.rules}


def test_an_all_null_column_of_arrow_type_null_is_no_crash(validator: Validator) -> None:
    batch = batch_of([{}, {}])
    notes = batch.notes.set_column(4, "note_type", pa.nulls(2)).set_column(5, "written_at", pa.nulls(2))
    counts = validate_batch(NoteBatch(batch.shard, notes), validator).stats.expectations
    assert counts["note_type_known"] == {"evaluated": 0, "unexpected": 0, "crashed": 0, "missing": 2}


def dirty_rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Good, bad and null rows, mixed."""
    chosen = random.Random(seed)
    pool = [row for row, *_ in QUARANTINED + WARNED if len(row.get("text") or "") < 10_000] + CLEAN
    return [{**chosen.choice(pool), **chosen.choice(pool)} for _ in range(count)]


@cache
def great_expectations_asset() -> Any:
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    return context.data_sources.add_pandas("notes").add_dataframe_asset("notes").add_batch_definition_whole_dataframe("all")


def one_shot(suite: Suite, rows: Sequence[dict[str, Any]]) -> dict[str, tuple[int, int, list[int]]]:
    """Great Expectations' own public validation of the whole table: per key, rows evaluated, rows unexpected and their positions."""
    import great_expectations as gx

    batch = great_expectations_asset().get_batch({"dataframe": batch_of(rows).notes.to_pandas()})
    form = {"result_format": "COMPLETE", "exclude_unexpected_values": True, "partial_unexpected_count": 0}
    expectations = [dict(entry) for entry in suite.raw["expectations"]]
    results = batch.validate(gx.ExpectationSuite(name=suite.name, expectations=expectations), result_format=form).results
    return {
        found.expectation_config.meta["key"]: (
            found.result["element_count"] - found.result.get("missing_count", 0),
            found.result["unexpected_count"],
            found.result["unexpected_index_list"],
        )
        for found in results
    }


def merged(validator: Validator, rows: Sequence[dict[str, Any]], cuts: Sequence[int]) -> RunStats:
    bounds = [0, *sorted(cuts), len(rows)]
    parts = (validate_batch(batch_of(rows[start:stop]), validator).stats for start, stop in pairwise(bounds))
    return reduce(RunStats.plus, parts)


def summed(stats: RunStats) -> dict[str, tuple[int, int]]:
    return {key: (count["evaluated"], count["unexpected"]) for key, count in stats.expectations.items()}


@pytest.mark.parametrize("size", [pytest.param(1, marks=pytest.mark.slow), 17, pytest.param(64, marks=pytest.mark.slow), 400])
def test_counts_merged_over_shards_equal_one_validation_of_the_whole_table(suite: Suite, validator: Validator, size: int) -> None:
    rows = dirty_rows(60 if size == 1 else 400, seed=size)
    stats = merged(validator, rows, range(size, len(rows), size))
    whole = one_shot(suite, rows)
    assert summed(stats) == {key: (evaluated, unexpected) for key, (evaluated, unexpected, _) in whole.items()}
    assert all(sum(count.values()) - count["unexpected"] == len(rows) for count in stats.expectations.values())
    assert {o.rule.key: o.unexpected.tolist() for o in validator.judge(batch_of(rows).notes)} == {k: v[2] for k, v in whole.items()}
    assert any(not outcome["success"] for outcome in merge_expectations(suite, stats.expectations))


TEXTS = st.none() | st.text(max_size=30) | st.sampled_from(["none", "abc...", "\x00" * 9, "â€™s fine today", "Ordinary short note."])
ROWS = st.lists(st.fixed_dictionaries({"note_id": TEXTS, "text": TEXTS, "note_type": TEXTS, "written_at": TEXTS}), min_size=1, max_size=12)


@settings(max_examples=4, deadline=None, derandomize=True)
@given(rows=ROWS, cut=st.integers(0, 12))
def test_any_rows_cut_anywhere_count_alike(suite: Suite, validator: Validator, rows: list[dict[str, Any]], cut: int) -> None:
    whole = one_shot(suite, rows)
    assert summed(merged(validator, rows, [min(cut, len(rows))])) == {key: found[:2] for key, found in whole.items()}


def exploding_rule(severity: str) -> Rule:
    """A rule whose check fails with an error that quotes the text."""
    from great_expectations.execution_engine import PandasExecutionEngine
    from great_expectations.expectations.expectation import ColumnMapExpectation
    from great_expectations.expectations.metrics import ColumnMapMetricProvider, column_condition_partial

    class ColumnValuesExplode(ColumnMapMetricProvider):  # type: ignore[misc]
        condition_metric_name = "column_values.explode"

        @column_condition_partial(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]
        def _pandas(cls, column: Any, **_: Any) -> Any:
            raise ValueError(f"cannot judge {column.iloc[0]}")

    class ExpectColumnValuesToExplode(ColumnMapExpectation):  # type: ignore[misc]
        map_metric = "column_values.explode"

    return Rule("explodes", "expect_column_values_to_explode", {"column": "text"}, severity, Reason.CONTRACT, "It explodes")


def with_rule(suite: Suite, rule: Rule, at: int) -> Suite:
    return Suite(suite.name, (*suite.rules[:at], rule, *suite.rules[at:]), suite.raw)


@pytest.mark.usefixtures("validator")
def test_a_crashed_critical_rule_sets_the_rest_aside_and_is_no_success(suite: Suite) -> None:
    crashing = with_rule(suite, exploding_rule("critical"), 2)
    done = validate_batch(batch_of([{}, {"note_id": None}, {"text": None}]), Validator(crashing))
    assert [(r.reason, r.expectation) for r in done.rejections] == [
        (Reason.CONTRACT_CRASHED, "explodes"),
        (Reason.MISSING_ID, "note_id_present"),
        (Reason.CONTRACT_CRASHED, "explodes"),
    ]
    assert done.stats.expectations["explodes"] == {"evaluated": 0, "unexpected": 0, "crashed": 3, "missing": 0}
    outcomes = {outcome["key"]: outcome for outcome in merge_expectations(crashing, done.stats.expectations)}
    assert not outcomes["explodes"]["success"]


def test_a_crashed_warning_rule_keeps_the_rows_and_spoils_no_other_rule(suite: Suite, validator: Validator) -> None:
    rows = dirty_rows(40, seed=5)
    plain = validate_batch(batch_of(rows), validator)
    crashing = with_rule(suite, exploding_rule("warning"), 0)
    done = validate_batch(batch_of(rows), Validator(crashing))
    assert done.rejections == plain.rejections
    assert done.notes.equals(plain.notes)
    assert {k: v for k, v in done.stats.expectations.items() if k != "explodes"} == plain.stats.expectations
    assert not merge_expectations(crashing, done.stats.expectations)[0]["success"]


@pytest.mark.parametrize("column", ["ward", "note_id"])
def test_a_missing_column_or_a_wrong_type_is_a_crash_not_a_success(column: str) -> None:
    ours = user_suite({"type": "expect_column_values_to_be_between", "kwargs": {"column": column, "min_value": 5}})
    done = validate_batch(batch_of([{}, {}]), Validator(ours))
    assert [r.reason for r in done.rejections] == [Reason.CONTRACT_CRASHED] * 2


def test_a_user_suite_judges_pass_through_columns_pairs_and_conditions() -> None:
    ours = user_suite(
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "age", "min_value": 18}, "meta": {"key": "adult"}},
        {
            "type": "expect_column_pair_values_to_be_equal",
            "kwargs": {"column_A": "ward", "column_B": "in:unit"},
            "severity": "warning",
            "meta": {"key": "ward_is_unit"},
        },
        {
            "type": "expect_column_value_lengths_to_be_between",
            "kwargs": {
                "column": "text",
                "min_value": 100,
                "row_condition": {
                    "type": "comparison",
                    "column": {"name": "note_type"},
                    "operator": "==",
                    "parameter": "Discharge summary",
                },
            },
            "meta": {"key": "discharge_long", "reason": "TEXT_TOO_SHORT"},
        },
    )
    rows = [{}, {}, {}, {"note_type": "Discharge summary"}]
    passing = {"age": pa.array([44, 3, None, 60]), "ward": pa.array(["A", "A", "B", None]), "unit": pa.array(["A", "A", "C", None])}
    done = validate_batch(batch_of(rows, **passing), Validator(ours))
    assert [(r.source_row, r.reason, r.expectation) for r in done.rejections] == [
        (101, Reason.CONTRACT, "adult"),
        (103, Reason.TEXT_TOO_SHORT, "discharge_long"),
    ]
    assert done.column("contract_warnings") == [[], ["ward_is_unit"]]
    assert done.stats.expectations == {
        "adult": {"evaluated": 3, "unexpected": 1, "crashed": 0, "missing": 1},
        "ward_is_unit": {"evaluated": 3, "unexpected": 1, "crashed": 0, "missing": 1},
        "discharge_long": {"evaluated": 1, "unexpected": 1, "crashed": 0, "missing": 3},
    }


def comparable(batch: NoteBatch) -> tuple[str, str, str, str]:
    stats = {name: value for name, value in asdict(batch.stats).items() if name != "seconds"}
    rejections = [{**rejection.as_row(), "text": rejection.text} for rejection in batch.rejections]
    return batch.shard.id, json.dumps(batch.notes.to_pylist()), json.dumps(rejections), json.dumps(stats, sort_keys=True)


def test_beam_gives_what_the_plain_function_gives(suite: Suite, validator: Validator) -> None:
    batches = [batch_of(dirty_rows(30, seed)) for seed in range(3)]
    expected = [comparable(validate_batch(batch, validator, keep_rejected_text=True)) for batch in batches]
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        done = pipeline | beam.Create(batches) | ValidateNotes(suite, keep_rejected_text=True)
        assert_that(done | beam.Map(comparable), equal_to(expected))
        timed_stages = done | "stages" >> beam.Map(lambda batch: sorted(batch.stats.seconds))
        assert_that(timed_stages, equal_to([["validate"]] * 3), label="timed")


def test_threads_with_a_validator_each_agree_with_one_thread(suite: Suite, validator: Validator) -> None:
    batches = [batch_of(dirty_rows(25, seed)) for seed in range(24)]
    expected = [comparable(validate_batch(batch, validator)) for batch in batches]

    def work(mine: Sequence[NoteBatch]) -> list[tuple[str, str, str, str]]:
        own = Validator(suite)
        return [comparable(validate_batch(batch, own)) for batch in mine]

    with ThreadPoolExecutor(2) as pool:
        done = [result for results in pool.map(work, [batches[:12], batches[12:]]) for result in results]
    assert done == expected


def test_no_text_and_no_id_leave_the_data(
    suite: Suite, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    caplog.set_level(logging.DEBUG)
    rows = [{"text": f"{CANARY} came in with a cough."}, {"text": CANARY[:9]}, {"note_id": CANARY}, {"note_id": CANARY, "text": None}]
    own = Validator(with_rule(suite, exploding_rule("critical"), 6))
    batch = batch_of(rows)
    done = validate_batch(batch, own)
    said = capfd.readouterr()
    places = {
        "log": caplog.text,
        "stdout": said.out,
        "stderr": said.err,
        "warnings": " ".join(str(warning.message) for warning in recwarn),
        "repr": repr((batch, done, done.rejections, own, own.judge(batch.notes))),
        "stats": json.dumps(asdict(done.stats)),
        "report": json.dumps(merge_expectations(suite, done.stats.expectations)),
    }
    assert len(done.rejections) == 4
    assert [place for place, text in places.items() if CANARY[:9] in text] == []


def test_great_expectations_leaves_the_processes_warnings_alone(validator: Validator) -> None:
    assert logging._warnings_showwarning is None  # type: ignore[attr-defined]
