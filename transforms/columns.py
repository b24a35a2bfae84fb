"""Which input column becomes which field of a note, and how its values become strings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import ConfigurationError
from schemas.note import NOTE_SCHEMA, REQUIRED_COLUMNS


@dataclass(frozen=True, slots=True)
class LocatedColumns:
    """Where one file keeps what: `read` maps note fields to file columns, `constant` to hive partition values,
    `passthrough` names the rest.
    """

    read: Mapping[str, str]
    constant: Mapping[str, str | None] = field(repr=False)
    passthrough: tuple[str, ...]
    passthrough_constant: Mapping[str, str | None] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ColumnMap:
    """`columns` maps note fields (NOTE_SCHEMA) to input column names; fields not named are looked for under their own name.

    `passthrough` is `all`, `none`, or the names of input columns that travel unchanged to the summaries.
    Raises ConfigurationError for an unknown field.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    passthrough: str | tuple[str, ...] = "all"

    def __post_init__(self) -> None:
        for name in self.columns:
            if name not in NOTE_SCHEMA.names:
                raise ConfigurationError(f"input.columns: unknown field {name!r}; choices: {', '.join(NOTE_SCHEMA.names)}")
        if isinstance(self.passthrough, str) and self.passthrough not in ("all", "none"):
            raise ConfigurationError(f"input.passthrough: {self.passthrough!r}; choices: all, none, or a list of column names")

    def locate(self, names: Sequence[str], partitions: Mapping[str, str | None], file: int) -> LocatedColumns:
        """Find the columns of file number `file`. Raises ConfigurationError, saying what was found, when one is missing."""
        read: dict[str, str] = {}
        constant: dict[str, str | None] = {}
        for target in NOTE_SCHEMA.names:
            source = self.columns.get(target, target)
            if source in names:
                read[target] = source
            elif source in partitions:
                constant[target] = partitions[source]
            elif target in REQUIRED_COLUMNS or target in self.columns:
                found = ", ".join([*names, *partitions]) or "none"
                raise ConfigurationError(
                    f"input.columns: file {file} has no column {source!r} for {target}; found: {found}. "
                    f"Map it with --set input.columns.{target}=NAME"
                )
        used = {*read.values(), *(self.columns.get(t, t) for t in constant)}
        return LocatedColumns(
            read,
            constant,
            tuple(n for n in names if n not in used and self._passes(n)),
            {k: v for k, v in partitions.items() if k not in used and k not in names and self._passes(k)},
        )

    def _passes(self, name: str) -> bool:
        return self.passthrough == "all" or (self.passthrough != "none" and name in self.passthrough)


def as_strings(array: pa.Array, field_name: str) -> tuple[list[str | None], list[int]]:
    """The values as Python strings, and the positions of values that are not valid UTF-8 (given as None).

    Dates and timestamps become ISO 8601 (UTC with `Z` when they carry a zone), numbers their decimal form.
    Raises ConfigurationError for nested types.
    """
    kind = array.type
    if pa.types.is_dictionary(kind):
        return as_strings(array.dictionary_decode(), field_name)
    if pa.types.is_null(kind):
        return [None] * len(array), []
    if pa.types.is_nested(kind):
        raise ConfigurationError(f"input.columns: the column for {field_name} has the type {kind}; a plain column is needed")
    if _is_bytes(kind):
        return _decoded(array)
    if _is_text(kind):
        try:
            array.validate(full=True)
        except pa.ArrowInvalid:
            return _decoded(array.cast(pa.large_binary()))
        return array.to_pylist(), []
    if pa.types.is_timestamp(kind):
        return _iso(array).to_pylist(), []
    return array.cast(pa.string()).to_pylist(), []


def readable(array: pa.Array) -> pa.Array:
    """A pass-through column as it is, but text with U+FFFD for bytes that are not UTF-8: no reader could show it."""
    if pa.types.is_string_view(array.type):
        array = array.cast(pa.large_string())  # Arrow cannot take rows of views yet
    if not _is_text(array.type):
        return array
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        raw = array.cast(pa.large_binary()).to_pylist()
        return pa.array([None if value is None else value.decode("utf-8", "replace") for value in raw], array.type)
    return array


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return (
        pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind) or pa.types.is_binary_view(kind)
    )


def _decoded(array: pa.Array) -> tuple[list[str | None], list[int]]:
    values: list[str | None] = []
    bad: list[int] = []
    for position, raw in enumerate(array.to_pylist()):
        try:
            values.append(None if raw is None else raw.decode("utf-8"))
        except UnicodeDecodeError:
            values.append(None)
            bad.append(position)
    return values, bad


def _iso(array: pa.Array) -> pa.Array:
    if array.type.tz is None:
        return pc.strftime(array.cast(pa.timestamp("s"), safe=False), format="%Y-%m-%dT%H:%M:%S")
    return pc.strftime(array.cast(pa.timestamp("s", "UTC"), safe=False), format="%Y-%m-%dT%H:%M:%SZ")
