"""The checks on a summary: each finds what it is for, and copies of the note are never accused."""

from __future__ import annotations

from typing import Any

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.commit import Piece, Shard
from schemas.histogram import EDGES
from schemas.note import BATCH_SCHEMA
from schemas.rejection import Reason, Stage
from schemas.summary import GENERATE_FIELDS, VERIFY_FIELDS
from transforms.batch import NoteBatch
from transforms.quantities import normal_number, quantities
from transforms.sentences import split_sentences
from transforms.verify import CHECKS, INFORMATIVE, VerifySummaries, check_summary, extractiveness, verify_batch, words

NOTE = (
    "He took ramipril 5.0 mg twice daily for three weeks. Weight 1,200 g at birth. BP 140/90 mmHg. Creatinine 95 mg/dL, heparin 10 mg/kg."
)


def codes(text: str, summary: str, *checks: str, finish: str = "stop", cut: int = 0) -> list[str]:
    return [flag.code for flag in check_summary(text, summary, None, checks, finish, cut).flags]


@pytest.mark.parametrize("written", ["1,000", "1000", "01000", "1000.0", "1,000.00"])
def test_equal_numbers_are_equal(written: str) -> None:
    assert normal_number(written) == "1000"


def test_numbers_inside_words_are_not_numbers() -> None:
    assert [q.number for q in quantities("B12 and T2 but 5mg and .5 ml, twelve")] == ["5", "0.5", "12"]


@pytest.mark.parametrize(
    "summary",
    ["Ramipril 5 mg 2 times a day.", "3 weeks of ramipril.", "1200 g at birth.", "BP 140/90.", "One of his drugs.", "1. BP 140\n2. Weight"],
)
def test_supported_numbers(summary: str) -> None:
    assert codes(NOTE, summary, "numbers") == []


@pytest.mark.parametrize(("summary", "wrong"), [("Ramipril 50 mg.", "50 mg"), ("For four weeks.", "four weeks"), ("BP 145/90.", "145")])
def test_unsupported_numbers(summary: str, wrong: str) -> None:
    (flag,) = check_summary(NOTE, summary, None, ["numbers"], "stop", 0).flags
    assert flag.code == "UNSUPPORTED_NUMBER" and summary[flag.start : flag.end] == wrong


@pytest.mark.parametrize(
    ("summary", "wrong"),
    [("Ramipril 5 mcg.", "5 mcg"), ("For three days.", "three days"), ("Heparin 10 mg.", "10 mg"), ("1200 mg", "1200 mg")],
)
def test_unsupported_units(summary: str, wrong: str) -> None:
    (flag,) = check_summary(NOTE, summary, None, ["units"], "stop", 0).flags
    assert flag.code == "UNSUPPORTED_UNIT" and summary[flag.start : flag.end] == wrong


@pytest.mark.parametrize(
    ("note", "summary"),
    [
        ("500 mcg daily", "500 \u00b5g daily"),
        ("500 ug daily", "500 micrograms"),
        ("glucose 95 mg/dL", "glucose 95 mg"),
        ("24 hrs", "24 hours"),
        ("BP 120/80 mm Hg", "BP 120/80 mmHg"),
        ("a score of 5; 5 mg", "5 g"),
        ("a 3-week course", "3 weeks"),
    ],
)
def test_supported_units(note: str, summary: str) -> None:
    assert codes(note, summary, "units", "numbers") == []


def test_exact_copies_by_evidence_are_not_judged() -> None:
    evidence = [{"summary_start": 0, "summary_end": 8, "source_start": 3, "source_end": 11, "score": 1.0, "kind": "exact"}]
    true, false = "of 500 mg", "xx 700 mg"
    assert check_summary("of 500 mg", "500 mg; ", None, ["numbers"], "stop", 0).flags == ()
    assert check_summary(f"x {true} y", "500 mg y", [evidence[0] | {"source_start": 5, "source_end": 13}], CHECKS, "stop", 0).flags == ()
    # Evidence that does not say the truth protects nothing.
    lying = check_summary(f"x {true} y", false, [evidence[0]], ["numbers"], "stop", 0)
    assert [flag.code for flag in lying.flags] == ["UNSUPPORTED_NUMBER"]


_PARTS = [
    "He took 500",
    "mg of aspirin.",
    "BP 120/80 mmHg",
    "for two days",
    "1,000 units",
    "on 12/05/2019.",
    "g",
    "Dose 5.5 mg/kg.",
    "12.",
    "1. Gout",
    "one",
    ".5 ml",
]
_PARTS += [
    "7 of 10",
    "-3",
    "weeks later",
    "5",
    "%",
    "3-week course.",
    "T 98.6 F",
    "hours",
    "B12 low.",
    "units/day",
    "10^9/L",
    "twelve",
    "/ 20",
]


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.sampled_from(_PARTS), min_size=1, max_size=14),
    st.lists(st.sampled_from([" ", "\n", ". ", "\n\n"]), min_size=14, max_size=14),
    st.data(),
)
def test_copied_sentences_are_never_accused(parts: list[str], gaps: list[str], data: st.DataObject) -> None:
    note = "".join(part + gap for part, gap in zip(parts, gaps, strict=False))
    sentences = [note[start:end] for start, end in split_sentences(note)]
    chosen = data.draw(st.lists(st.sampled_from(range(len(sentences))), unique=True).map(sorted)) if sentences else []
    for joint in (" ", "\n"):
        assert codes(note, joint.join(sentences[i] for i in chosen), "numbers", "units") == []


@pytest.mark.parametrize(
    "summary",
    [
        "He was given oxygen today. He slept. He was given oxygen today.",
        "the pain in the left knee and the pain in the left knee and the pain in the left knee and",
    ],
)
def test_repetition(summary: str) -> None:
    flags = check_summary("", summary, None, ["repetition"], "stop", 0).flags
    assert {flag.code for flag in flags} == {"REPEATED_TEXT"}
    assert all(0 < (flag.start or 0) < (flag.end or 0) <= len(summary) for flag in flags)


def test_a_repeated_phrase_is_not_a_repeated_text() -> None:
    assert codes("", "He was admitted to the ward. Later she was admitted to the clinic. Normal. Normal.", "repetition") == []


def test_truncation() -> None:
    assert codes("n/a", "He was given", "truncation") == ["TRUNCATED_SUMMARY"]
    assert codes("n/a", "He was given oxygen.", "truncation", finish="length") == ["TRUNCATED_SUMMARY"]
    assert codes("n/a", "He was given oxygen.", "truncation", cut=10) == ["SOURCE_CUT"]
    assert codes("n/a", 'He said "fine."', "truncation") == []
    assert codes("Diagnoses\nGout\nMigraine", "Gout", "truncation") == []


def test_coverage_and_compression() -> None:
    long_note = " ".join(f"word{i}" for i in range(200)) + "."
    assert codes(long_note, long_note, "coverage") == ["NO_COMPRESSION"]
    assert codes("gout", "gout", "coverage") == []
    assert codes(long_note, "Nothing of this stands there.", "coverage") == ["LOW_COVERAGE"]


def test_extractiveness_by_hand() -> None:
    # Fragments "b c" and "a": coverage 3 of 4 words, density (2 squared + 1 squared) / 4.
    assert extractiveness(["a", "b", "c", "d"], ["b", "c", "x", "a"]) == (0.75, 1.25)
    assert extractiveness(["a"], []) == (None, None)
    # The longest match counts, not the first.
    assert extractiveness(words("a b x a b c"), words("a b c")) == (1.0, 3.0)


@given(st.lists(st.sampled_from("abc"), max_size=12), st.lists(st.sampled_from("abcd"), min_size=1, max_size=8))
def test_extractiveness_bounds(source: list[str], summary: list[str]) -> None:
    coverage, density = extractiveness(source, summary)
    assert coverage is not None and density is not None
    assert coverage == sum(word in source for word in summary) / len(summary)
    assert coverage <= density <= len(summary)


def test_unknown_check_names_the_value_and_the_choices() -> None:
    with pytest.raises(ValueError, match=r"'speling'.*numbers, units, repetition, truncation, coverage"):
        VerifySummaries(["numbers", "speling"])


def batch_of(*rows: dict[str, Any]) -> NoteBatch:
    schema = pa.schema([*BATCH_SCHEMA, *GENERATE_FIELDS])
    filled = [
        dict.fromkeys(schema.names)
        | {"note_id": f"n{i}", "source_file": 0, "source_row": i, "finish": "stop", "source_characters_cut": 0}
        | row
        for i, row in enumerate(rows)
    ]
    return NoteBatch(Shard("s", "s", (Piece(0, 0, len(rows)),)), pa.Table.from_pylist(filled, schema=schema))


GOOD = {"text": NOTE, "summary": "BP 140/90 mmHg."}
BAD = {"text": NOTE, "summary": "BP 190/90 mmHg and BP 180/90 mmHg."}
CUT = {"text": NOTE, "summary": "BP 140/90 mmHg.", "source_characters_cut": 7}


def test_batch_columns_and_figures() -> None:
    done = verify_batch(batch_of(GOOD, BAD, CUT), CHECKS)
    assert [done.notes.schema.field(field.name) for field in VERIFY_FIELDS] == VERIFY_FIELDS
    assert [[flag["code"] for flag in flags] for flags in done.column("flags")] == [[], ["UNSUPPORTED_NUMBER"] * 2, ["SOURCE_CUT"]]
    assert done.stats.flags == {"UNSUPPORTED_NUMBER": 1, "SOURCE_CUT": 1}
    assert done.stats.notes_flagged == 1 and "SOURCE_CUT" in INFORMATIVE
    for name in ("note_words", "summary_words", "coverage", "compression"):
        assert sum(done.stats.histograms[name]) == 3 and len(done.stats.histograms[name]) == len(EDGES[name]) + 1


def test_a_note_that_fails_is_rejected_alone() -> None:
    done = verify_batch(batch_of(GOOD, {"text": NOTE, "summary": None}, CUT), CHECKS)
    (rejection,) = done.rejections
    assert (rejection.stage, rejection.reason, rejection.source_row) == (Stage.VERIFY, Reason.VERIFY_FAILED, 1)
    assert done.column("note_id") == ["n0", "n2"]


def test_transform_equals_function() -> None:
    batch = batch_of(GOOD, BAD)

    def check(found: list[NoteBatch]) -> None:
        (done,) = found
        assert done.notes.equals(verify_batch(batch, ["numbers"]).notes)
        assert set(done.stats.seconds) == {"verify"}

    with beam.Pipeline("FnApiRunner") as pipeline:
        assert_that(pipeline | beam.Create([batch]) | VerifySummaries(["numbers"]), check)
