"""The contract as data: reading, refusing, hashing, merging."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from schemas.expectations import ROW_EXPECTATIONS, Suite, SuiteError, load_suite, merge_expectations, parse_suite, register_expectations
from schemas.rejection import Reason

LENGTH = {"type": "expect_column_value_lengths_to_be_between", "kwargs": {"column": "text", "min_value": 3}}


def suite_text(*expectations: dict[str, Any], **more: Any) -> str:
    return json.dumps({"name": "ours", "expectations": list(expectations), **more})


def test_the_packaged_suite_stands_up_to_the_checks_of_a_user_suite() -> None:
    packaged = load_suite("default")
    again = parse_suite(json.dumps(packaged.raw), "notes.json")
    assert again == packaged
    assert [rule.key for rule in packaged.rules][:2] == ["note_id_present", "note_id_not_blank"]
    assert all(rule.description and rule.reason in set(Reason) for rule in packaged.rules)


def test_reading_the_packaged_suite_imports_no_great_expectations() -> None:
    code = "import sys; from schemas.expectations import load_suite; load_suite(); sys.exit('great_expectations' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], check=False).returncode == 0


def test_row_expectations_are_all_that_judge_row_by_row_on_pandas() -> None:
    register_expectations()
    from great_expectations.exceptions import MetricProviderError
    from great_expectations.execution_engine import PandasExecutionEngine
    from great_expectations.expectations import registry
    from great_expectations.expectations.expectation import ColumnMapExpectation, ColumnPairMapExpectation, MulticolumnMapExpectation

    def runs_on_pandas(kind: str) -> bool:
        try:
            registry.get_metric_provider(f"{registry.get_expectation_impl(kind).map_metric}.condition", PandasExecutionEngine())
        except MetricProviderError:
            return False
        return True

    maps = (ColumnMapExpectation, ColumnPairMapExpectation, MulticolumnMapExpectation)
    registered = {k for k in registry.list_registered_expectation_implementations() if issubclass(registry.get_expectation_impl(k), maps)}
    whole_column = {
        "expect_column_value_z_scores_to_be_less_than",
        "expect_column_values_to_be_decreasing",
        "expect_column_values_to_be_in_type_list",
        "expect_column_values_to_be_increasing",
        "expect_column_values_to_be_of_type",
        "expect_column_values_to_be_unique",
        "expect_column_values_to_not_be_outliers",
        "expect_compound_columns_to_be_unique",
    }
    # Other tests may have registered expectations of their own; Great Expectations' and ours are what is meant.
    known = {k for k in registered if registry.get_expectation_impl(k).__module__.startswith(("great_expectations.", "schemas."))}
    assert {k for k in known if runs_on_pandas(k)} - whole_column == set(ROW_EXPECTATIONS)


def test_a_user_suite_is_read_from_its_path_with_defaults(tmp_path: Path) -> None:
    path = tmp_path / "suite.json"
    path.write_text(suite_text(LENGTH, {**LENGTH, "kwargs": {"column": "note_id", "max_value": 9}, "severity": "warning"}))
    first, second = load_suite(str(path)).rules
    assert (first.key, first.severity, first.reason) == ("text_value_lengths_to_be_between", "critical", Reason.CONTRACT)
    assert (second.key, second.severity, second.columns) == ("note_id_value_lengths_to_be_between", "warning", ("note_id",))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no JSON"),
        ("[]", "expected"),
        (suite_text(), "holds no expectation"),
        (suite_text(LENGTH, expectation=[]), "unknown key 'expectation'"),
        (suite_text(LENGTH, suite_parameters={"a": 1}), "suite_parameters"),
        (suite_text({**LENGTH, "reason": "CONTRACT"}), "unknown key 'reason'; known are type"),
        (suite_text({**LENGTH, "type": "expect_column_values_to_be_nice"}), "'expect_column_values_to_be_nice' is unknown"),
        (suite_text({**LENGTH, "type": "expect_column_values_to_be_unique"}), "duplicate ids are handled by the plan"),
        (suite_text({**LENGTH, "type": "expect_column_mean_to_be_between"}), "expect_column_values_to_be_printable"),
        (suite_text({**LENGTH, "severity": "fatal"}), "severity 'fatal' is unknown; choices are critical, warning"),
        (suite_text({**LENGTH, "severity": "info"}), "choices are critical, warning"),
        (suite_text({**LENGTH, "meta": {"reason": "UGLY"}}), "reason 'UGLY' is unknown; choices are FILE_EMPTY"),
        (suite_text({**LENGTH, "meta": {"key": "Über"}}), "must be 1 to 64 of a-z"),
        (suite_text({**LENGTH, "kwargs": {"column": "text", "min_value": 3, "mostly": 2}}), "mostly 2 is no share"),
        (suite_text({**LENGTH, "kwargs": {"column": "text", "least": 3}}), "least: extra fields not permitted"),
        (suite_text({**LENGTH, "kwargs": {"min_value": 3}}), "column: field required"),
        (suite_text(LENGTH, {**LENGTH, "kwargs": {"column": "text", "min_value": 4}}), "'text_value_lengths_to_be_between' is taken"),
        (suite_text(LENGTH, {**LENGTH, "meta": {"key": "again"}}), "repeats 'text_value_lengths_to_be_between'"),
        (suite_text({"type": "expect_column_values_to_match_regex", "kwargs": {"column": "text", "regex": "("}}), "pattern '('"),
        (suite_text({"type": "expect_column_values_to_not_be_truncated", "kwargs": {"column": "text", "marks": "(?=a)"}}), "marks '(?=a)'"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(SuiteError) as caught:
        load_suite(str(path))
    assert str(path) in str(caught.value)
    assert said in str(caught.value)


def test_a_missing_file_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"FileNotFoundError.*expected 'default' or the path"):
        load_suite(str(tmp_path / "none.json"))


def changed(**meta: Any) -> Suite:
    return parse_suite(suite_text({**LENGTH, **meta}), "ours")


def test_the_digest_follows_what_changes_rows_and_nothing_else() -> None:
    base = changed().digest()
    assert base == changed(meta={"description": "another sentence", "why": "so"}).digest()
    assert base == changed(kwargs={**LENGTH["kwargs"], "mostly": 0.5}).digest()
    others = [
        changed(kwargs={"column": "text", "min_value": 4}),
        changed(severity="warning"),
        changed(meta={"reason": "TEXT_TOO_SHORT"}),
        changed(meta={"key": "short"}),
    ]
    assert len({base, *(suite.digest() for suite in others)}) == 5


def test_a_suite_travels_by_pickle() -> None:
    suite = load_suite()
    assert pickle.loads(pickle.dumps(suite)) == suite


@pytest.mark.parametrize(
    ("counts", "share", "success"),
    [
        ({"evaluated": 100, "unexpected": 10, "crashed": 0, "missing": 5}, 0.1, True),
        ({"evaluated": 100, "unexpected": 11, "crashed": 0, "missing": 5}, 0.11, False),
        ({"evaluated": 100, "unexpected": 0, "crashed": 1, "missing": 0}, 0.0, False),
        ({"evaluated": 0, "unexpected": 0, "crashed": 7, "missing": 0}, 0.0, False),
        ({"evaluated": 0, "unexpected": 0, "crashed": 0, "missing": 7}, 0.0, True),
        ({}, 0.0, True),
    ],
)
def test_mostly_is_recomputed_on_the_merged_counts(counts: dict[str, int], share: float, success: bool) -> None:
    suite = changed(kwargs={**LENGTH["kwargs"], "mostly": 0.9})
    (outcome,) = merge_expectations(suite, {suite.rules[0].key: counts})
    assert (outcome["unexpected_share"], outcome["success"], outcome["mostly"]) == (pytest.approx(share), success, 0.9)
    assert (outcome["column"], outcome["severity"], outcome["reason"]) == ("text", "critical", "CONTRACT")
