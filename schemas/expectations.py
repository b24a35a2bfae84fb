"""The declared contract of rows in: a Great Expectations suite as JSON, read, checked and made small enough to ship to workers.

A suite here judges rows. So it holds map expectations only, those that answer yes or no for each row by itself: their counts over
shards add up to the counts over the whole table. Aggregates, uniqueness and order do not, and are refused (duplicate ids are the
plan's business).

Each expectation of the file may say in its `meta`: `key` (short, stable; names the rule in reports and rejections), `reason` (a
Reason code; CONTRACT if absent) and `description` (one line for the report). Severity `critical`, Great Expectations' default, sets
the row aside; `warning` keeps and flags it. Null values pass every rule but the null rules themselves.

Importing Great Expectations takes 2-5 s, so it is imported inside functions.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.commit import digest
from schemas.errors import ConfigurationError
from schemas.rejection import Reason

DEFAULT_SUITE = "default"
SEVERITIES = ("critical", "warning")

# Map expectations that run on pandas and judge each row by itself. Left out of Great Expectations' own: unique, compound unique (whole
# column), increasing and decreasing (order), z-scores and outliers (column statistics), of type and in type list (column types).
ROW_EXPECTATIONS = (
    "expect_column_pair_values_a_to_be_greater_than_b",
    "expect_column_pair_values_to_be_equal",
    "expect_column_pair_values_to_be_in_set",
    "expect_column_value_lengths_to_be_between",
    "expect_column_value_lengths_to_equal",
    "expect_column_values_to_be_between",
    "expect_column_values_to_be_dateutil_parseable",
    "expect_column_values_to_be_free_of_encoding_damage",
    "expect_column_values_to_be_in_set",
    "expect_column_values_to_be_in_vocabulary",
    "expect_column_values_to_be_iso_dates",
    "expect_column_values_to_be_json_parseable",
    "expect_column_values_to_be_null",
    "expect_column_values_to_be_printable",
    "expect_column_values_to_match_json_schema",
    "expect_column_values_to_match_regex",
    "expect_column_values_to_match_regex_list",
    "expect_column_values_to_match_strftime_format",
    "expect_column_values_to_not_be_in_set",
    "expect_column_values_to_not_be_null",
    "expect_column_values_to_not_be_truncated",
    "expect_column_values_to_not_match_regex",
    "expect_column_values_to_not_match_regex_list",
    "expect_multicolumn_sum_to_equal",
    "expect_multicolumn_values_to_be_equal",
    "expect_select_column_values_to_be_unique_within_record",
)

_SUITE_KEYS = ("name", "expectations", "meta", "notes", "id", "suite_parameters")
_RULE_KEYS = ("type", "kwargs", "severity", "meta", "description", "id", "notes", "rendered_content")
_KEY = re.compile(r"[a-z0-9_]{1,64}")


class SuiteError(ConfigurationError, ValueError):
    """A suite file that cannot be used. The message names the file, what was found and the choices."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One expectation of the contract. `kwargs` are Great Expectations' own, `mostly` included."""

    key: str
    type: str
    kwargs: Mapping[str, Any]
    severity: str
    reason: Reason
    description: str

    @property
    def critical(self) -> bool:
        return self.severity == "critical"

    @property
    def columns(self) -> tuple[str, ...]:
        named = [self.kwargs[name] for name in ("column", "column_A", "column_B") if name in self.kwargs]
        return (*named, *self.kwargs.get("column_list", ()))

    @property
    def mostly(self) -> float:
        return float(self.kwargs.get("mostly", 1.0))


@dataclass(frozen=True, slots=True)
class Suite:
    """The contract, as data: rules in the order in which they are asked, and the JSON that they came from."""

    name: str
    rules: tuple[Rule, ...]
    raw: Mapping[str, Any]

    def digest(self) -> str:
        """Hash of what changes rows: each rule's key, check, severity and reason. Not names, descriptions or `mostly`."""
        checks = [{name: value for name, value in rule.kwargs.items() if name != "mostly"} for rule in self.rules]
        return digest([[rule.key, rule.type, check, rule.severity, rule.reason] for rule, check in zip(self.rules, checks, strict=True)])


def load_suite(name_or_path: str = DEFAULT_SUITE) -> Suite:
    """The packaged suite ("default") or the one in a JSON file. Raises SuiteError."""
    if name_or_path == DEFAULT_SUITE:
        return read_suite(resources.files("schemas").joinpath("suites/notes.json").read_text("utf-8"), "notes.json")
    try:
        text = Path(name_or_path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SuiteError(
            f"suite {name_or_path}: cannot be read ({type(error).__name__}); expected {DEFAULT_SUITE!r} or the path of a JSON file"
        ) from None
    return parse_suite(text, name_or_path)


def parse_suite(text: str, origin: str) -> Suite:
    """A user's suite from JSON text; `origin` names it in errors. Imports Great Expectations to check the arguments. Raises SuiteError."""
    suite = read_suite(text, origin)
    for rule in suite.rules:
        _check_arguments(rule, origin)
    return suite


def read_suite(text: str, origin: str) -> Suite:
    """A suite from JSON text, its form checked but not its expectations' arguments: needs no Great Expectations. Raises SuiteError."""
    try:
        raw = json.loads(text)
    except json.JSONDecodeError as error:
        raise SuiteError(f"suite {origin}: no JSON: {error}") from None
    _check_form(raw, origin)
    rules: list[Rule] = []
    for number, entry in enumerate(raw["expectations"], start=1):
        rule = _read_rule(entry, f"suite {origin}: expectation {number}")
        _check_distinct(rule, rules, f"suite {origin}: expectation {number}")
        rules.append(rule)
    return Suite(name=raw["name"], rules=tuple(rules), raw=raw)


def _check_form(raw: object, origin: str) -> None:
    if not isinstance(raw, dict) or not isinstance(raw.get("name"), str) or not isinstance(raw.get("expectations"), list):
        raise SuiteError(f'suite {origin}: expected {{"name": "...", "expectations": [...]}}')
    _check_keys(raw, _SUITE_KEYS, f"suite {origin}")
    if not raw["expectations"]:
        raise SuiteError(f"suite {origin}: holds no expectation")
    if raw.get("suite_parameters"):
        raise SuiteError(f"suite {origin}: suite_parameters are not supported; write the values into the kwargs")


def _check_keys(entry: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    unknown = sorted(set(entry) - set(known))
    if unknown:
        raise SuiteError(f"{where}: unknown key {unknown[0]!r}; known are {', '.join(known)}")


def _read_rule(entry: object, where: str) -> Rule:
    if not isinstance(entry, dict) or not isinstance(entry.get("kwargs"), dict) or not isinstance(entry.get("meta") or {}, dict):
        raise SuiteError(f'{where}: expected {{"type": "...", "kwargs": {{...}}, "severity": "...", "meta": {{...}}}}')
    _check_keys(entry, _RULE_KEYS, where)
    meta, kwargs, kind = entry.get("meta") or {}, entry["kwargs"], _checked_type(entry.get("type"), where)
    rule = Rule(
        key=str(meta.get("key") or _default_key(kind, kwargs)),
        type=kind,
        kwargs=kwargs,
        severity=_checked_severity(entry.get("severity") or "critical", where),
        reason=_checked_reason(meta.get("reason", Reason.CONTRACT), where),
        description=str(meta.get("description") or entry.get("description") or kind.replace("_", " ")),
    )
    _check_mostly(kwargs.get("mostly", 1.0), where)
    return rule


def _checked_type(kind: object, where: str) -> str:
    if kind not in ROW_EXPECTATIONS:
        raise SuiteError(
            f"{where}: type {kind!r} is unknown or does not judge row by row (aggregates, uniqueness and order do not add up over"
            f" shards; duplicate ids are handled by the plan); choices are {', '.join(ROW_EXPECTATIONS)}"
        )
    return str(kind)


def _checked_severity(severity: object, where: str) -> str:
    if severity not in SEVERITIES:
        raise SuiteError(f"{where}: severity {severity!r} is unknown; choices are {', '.join(SEVERITIES)}")
    return str(severity)


def _checked_reason(reason: object, where: str) -> Reason:
    if reason not in tuple(Reason):
        raise SuiteError(f"{where}: reason {reason!r} is unknown; choices are {', '.join(Reason)}")
    return Reason(str(reason))


def _check_mostly(mostly: object, where: str) -> None:
    if isinstance(mostly, bool) or not isinstance(mostly, int | float) or not 0 <= mostly <= 1:
        raise SuiteError(f"{where}: mostly {mostly!r} is no share between 0 and 1")


def _default_key(kind: str, kwargs: Mapping[str, Any]) -> str:
    column = kwargs.get("column") or kwargs.get("column_A") or "row"
    short = kind.removeprefix("expect_").replace("column_values_", "").replace("column_", "")
    return re.sub(r"[^a-z0-9_]+", "_", f"{column}_{short}".lower())[:64]


def _check_distinct(rule: Rule, earlier: Iterable[Rule], where: str) -> None:
    if not _KEY.fullmatch(rule.key):
        raise SuiteError(f"{where}: key {rule.key!r} must be 1 to 64 of a-z, 0-9 and _")
    for other in earlier:
        if other.key == rule.key:
            raise SuiteError(f"{where}: key {rule.key!r} is taken; give each expectation its own meta.key")
        # Great Expectations, too, takes two such expectations for one.
        if (other.type, other.kwargs) == (rule.type, rule.kwargs):
            raise SuiteError(f"{where}: repeats {other.key!r}")


def _check_arguments(rule: Rule, origin: str) -> None:
    """Raises SuiteError when Great Expectations does not accept the arguments or a pattern does not compile."""
    register_expectations()
    from great_expectations.compatibility.pydantic import ValidationError

    where = f"suite {origin}: {rule.key}"
    try:
        build_expectation(rule)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
        raise SuiteError(f"{where}: {'; '.join(problems)}") from None
    _check_patterns(rule.kwargs, where)


def _check_patterns(kwargs: Mapping[str, Any], where: str) -> None:
    """Great Expectations' own patterns are Python's; `marks` is RE2."""
    for pattern in [*([kwargs["regex"]] if "regex" in kwargs else []), *kwargs.get("regex_list", ())]:
        try:
            re.compile(pattern)
        except re.error as error:
            raise SuiteError(f"{where}: pattern {pattern!r}: {error}") from None
    try:
        pc.match_substring_regex(pa.array([""]), kwargs.get("marks", ""))
    except pa.ArrowInvalid as error:
        raise SuiteError(f"{where}: marks {kwargs['marks']!r}: {error}") from None


def build_expectation(rule: Rule) -> Any:
    """The Great Expectations object of a rule. Call register_expectations() first."""
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    return ExpectationConfiguration(type=rule.type, kwargs=dict(rule.kwargs), severity=rule.severity).to_domain_obj()


def register_expectations() -> None:
    """Import Great Expectations and register our own expectations (schemas.custom_expectations). May be called again and again.

    Great Expectations stays silent afterwards: its usage statistics are off, and so are its log lines, which quote values.
    """
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    logging.getLogger("great_expectations").setLevel(logging.CRITICAL + 1)
    show_before = warnings.showwarning
    importlib.import_module("schemas.custom_expectations")
    if warnings.showwarning is not show_before:  # it calls logging.captureWarnings(True) for the whole process
        logging.captureWarnings(False)


def merge_expectations(suite: Suite, counts: Mapping[str, Mapping[str, int]]) -> list[dict[str, Any]]:
    """Each rule's outcome over all rows, from added counts (RunStats.expectations), in suite order.

    `evaluated + missing + crashed` are the rows that met the rule: judged; null, so not judged; not judged because the check itself
    failed. `unexpected_share` (0-1) is of the evaluated rows, as in Great Expectations. `success`: no row crashed, and the share
    of expected rows is at least `mostly`, recomputed here because a share per shard would not merge.
    """
    return [_outcome(rule, counts.get(rule.key, {})) for rule in suite.rules]


def _outcome(rule: Rule, counts: Mapping[str, int]) -> dict[str, Any]:
    evaluated, unexpected, crashed = (counts.get(name, 0) for name in ("evaluated", "unexpected", "crashed"))
    expected_share = (evaluated - unexpected) / evaluated if evaluated else 1.0
    return {
        "key": rule.key,
        "expectation": rule.type,
        "column": ", ".join(rule.columns),
        "severity": rule.severity,
        "reason": str(rule.reason),
        "description": rule.description,
        "evaluated": evaluated,
        "unexpected": unexpected,
        "crashed": crashed,
        "missing": counts.get("missing", 0),
        "unexpected_share": unexpected / evaluated if evaluated else 0.0,
        "mostly": rule.mostly,
        "success": crashed == 0 and expected_share >= rule.mostly,
    }
