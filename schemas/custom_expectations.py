"""Expectations that Great Expectations lacks and notes need: map expectations over one column, computed a column at a time.

Importing this module imports Great Expectations (2-5 s): use schemas.expectations.register_expectations(). Null values are not judged.
A value that is no string is judged by what `str` makes of it. Patterns are RE2 (pyarrow), which is linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.compute as pc

from schemas.stand_ins import standing_in

# What Great Expectations imports for column statistics and their charts, no part of a suite here: 1 s of CPU.
with standing_in("scipy.stats", "altair"):
    from great_expectations.execution_engine import PandasExecutionEngine
    from great_expectations.expectations.expectation import ColumnMapExpectation
    from great_expectations.expectations.metrics import ColumnMapMetricProvider, column_condition_partial

# Controls other than white space, and private-use characters. C1 controls (U+0080-9F) count as encoding damage instead.
UNPRINTABLE = r"[\x00-\x08\x0e-\x1f\x7f\p{Co}]"

# What bytes 0x80-0xBF, the tails of UTF-8 sequences, look like once they have been read as windows-1252 or latin-1.
_TAIL = (
    "[\u0080-\u00bf\u20ac\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152\u017d\u2018\u2019\u201c\u201d"
    "\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\u017e\u0178]"
)
# Characters that were lost (U+FFFD), C1 controls (windows-1252 read as latin-1), and the mojibake of Latin, Greek, punctuation, the
# byte order mark and emoji. Telling mojibake by its byte patterns is ftfy's idea (Speer 2019, doi 10.5281/zenodo.2591652); the
# patterns are ours.
ENCODING_DAMAGE = (
    f"\ufffd|[\u00c2\u00c3\u00ce\u00cf]{_TAIL}|\u00e2{_TAIL}{{2}}|\u00ef[\u00bb\u00bf]{_TAIL}"
    f"|\u00f0[\u0178\u009f]{_TAIL}{{2}}|[\u0080-\u009f]"
)

_CLOSED = r"[.!?:;)\]>\"'\x{201d}\x{2019}]\s*\z"
_TYPE_SUFFIX = re.compile(r" (?:notes?|reports?)$")


def _strings(column: pd.Series) -> pa.Array:
    """The column's values as an Arrow array of strings; no copy when that is how pandas holds them."""
    strings = pa.array(column.astype(str), type=pa.large_string())
    return strings.combine_chunks() if isinstance(strings, pa.ChunkedArray) else strings


def _numbers(array: pa.Array) -> npt.NDArray[Any]:
    numbers: npt.NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return numbers


def matching_share(strings: pa.Array, pattern: str) -> npt.NDArray[np.float64]:
    """Per string: matches of the pattern per character (0 for an empty string)."""
    share = np.zeros(len(strings))
    hit = np.flatnonzero(_numbers(pc.match_substring_regex(strings, pattern)))
    found = strings.take(pa.array(hit))
    share[hit] = _numbers(pc.count_substring_regex(found, pattern)) / _numbers(pc.utf8_length(found))
    return share


def damaged_share(strings: pa.Array) -> npt.NDArray[np.float64]:
    """Per string: damaged places per character. Pure ASCII, the common case, is not scanned."""
    share = np.zeros(len(strings))
    beyond_ascii = np.flatnonzero(~_numbers(pc.string_is_ascii(strings)))
    share[beyond_ascii] = matching_share(strings.take(pa.array(beyond_ascii)), ENCODING_DAMAGE)
    return share


def stops_at_limit(strings: pa.Array, length_limits: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Per string: it has one of these lengths, or one character less (trimmed white space), and no closing punctuation."""
    lengths = _numbers(pc.utf8_length(strings))
    full = np.isin(lengths, [limit - trimmed for limit in length_limits for trimmed in (0, 1)])
    closed: npt.NDArray[np.bool_] = _numbers(pc.match_substring_regex(strings, _CLOSED))
    return np.logical_and(full, np.logical_not(closed))


def plain_term(value: object) -> str:
    """A term without case, punctuation and a closing "note" or "report": "Progress_Notes" and "PROGRESS NOTE" are "progress"."""
    words = re.sub(r"[\W_]+", " ", str(value)).strip().casefold()
    return _TYPE_SUFFIX.sub("", words)


class ColumnValuesPrintable(ColumnMapMetricProvider):  # type: ignore[misc]
    condition_metric_name = "column_values.printable"
    condition_value_keys = ("min_share",)

    @column_condition_partial(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]
    def _pandas(cls, column: pd.Series, min_share: float, **_: Any) -> pd.Series:
        return pd.Series(1 - matching_share(_strings(column), UNPRINTABLE) >= min_share, index=column.index)


class ExpectColumnValuesToBePrintable(ColumnMapExpectation):  # type: ignore[misc]
    """At least `min_share` (0-1) of each value's characters are neither control characters (white space aside) nor private use."""

    min_share: float
    map_metric = "column_values.printable"
    success_keys = ("min_share", "mostly")


class ColumnValuesFreeOfEncodingDamage(ColumnMapMetricProvider):  # type: ignore[misc]
    condition_metric_name = "column_values.free_of_encoding_damage"
    condition_value_keys = ("max_share",)

    @column_condition_partial(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]
    def _pandas(cls, column: pd.Series, max_share: float, **_: Any) -> pd.Series:
        return pd.Series(damaged_share(_strings(column)) <= max_share, index=column.index)


class ExpectColumnValuesToBeFreeOfEncodingDamage(ColumnMapExpectation):  # type: ignore[misc]
    """Each value has at most `max_share` (0-1) damaged places (replacement characters, mojibake sequences) per character."""

    max_share: float
    map_metric = "column_values.free_of_encoding_damage"
    success_keys = ("max_share", "mostly")


class ColumnValuesNotTruncated(ColumnMapMetricProvider):  # type: ignore[misc]
    condition_metric_name = "column_values.not_truncated"
    condition_value_keys = ("marks", "length_limits")

    @column_condition_partial(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]
    def _pandas(cls, column: pd.Series, marks: str, length_limits: Sequence[int] | None, **_: Any) -> pd.Series:
        strings = _strings(column)
        # Not pandas' str.contains: it hands many patterns to Python's re, which took 40 times as long for ours.
        marked = _numbers(pc.match_substring_regex(strings, marks))
        return pd.Series(~(marked | stops_at_limit(strings, length_limits or ())), index=column.index)


class ExpectColumnValuesToNotBeTruncated(ColumnMapExpectation):  # type: ignore[misc]
    """No value matches `marks` (RE2), and none has one of the `length_limits` (characters) without closing punctuation."""

    marks: str
    length_limits: Sequence[int] = ()
    map_metric = "column_values.not_truncated"
    success_keys = ("marks", "length_limits", "mostly")


class ColumnValuesIsoDates(ColumnMapMetricProvider):  # type: ignore[misc]
    condition_metric_name = "column_values.iso_dates"
    condition_value_keys = ("min_value", "max_value")

    @column_condition_partial(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]
    def _pandas(cls, column: pd.Series, min_value: str, max_value: str, **_: Any) -> pd.Series:
        strings = column.astype(str)
        # pandas takes words such as "now" and "today" for dates too.
        dates = pd.to_datetime(strings.where(strings.str.match(r"\d")), format="ISO8601", errors="coerce", utc=True)
        return (dates >= pd.Timestamp(min_value, tz="UTC")) & (dates < pd.Timestamp(max_value, tz="UTC"))


class ExpectColumnValuesToBeIsoDates(ColumnMapExpectation):  # type: ignore[misc]
    """Each value is an ISO 8601 date or date-time (UTC unless it says otherwise) in [min_value, max_value)."""

    min_value: str
    max_value: str
    map_metric = "column_values.iso_dates"
    success_keys = ("min_value", "max_value", "mostly")


class ColumnValuesInVocabulary(ColumnMapMetricProvider):  # type: ignore[misc]
    condition_metric_name = "column_values.in_vocabulary"
    condition_value_keys = ("value_set",)

    @column_condition_partial(engine=PandasExecutionEngine)  # type: ignore[untyped-decorator]
    def _pandas(cls, column: pd.Series, value_set: Sequence[str], **_: Any) -> pd.Series:
        allowed = {plain_term(value) for value in value_set}
        known = {value for value in column.unique() if plain_term(value) in allowed}
        return column.isin(known)


class ExpectColumnValuesToBeInVocabulary(ColumnMapExpectation):  # type: ignore[misc]
    """Each value equals one of `value_set`, whatever its case and punctuation, with or without a closing "note" or "report"."""

    value_set: list[str]
    map_metric = "column_values.in_vocabulary"
    success_keys = ("value_set", "mostly")
