"""Which input column becomes which field of a note, and how its values become strings."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import ConfigurationError
from schemas.note import NOTE_SCHEMA, REQUIRED_COLUMNS
from transforms.column_words import said_names


class ColumnsMissing(ConfigurationError):
    """A file lacks a column that the job needs, or has it in a form that makes no text."""


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

    def locate(
        self,
        names: Collection[str],
        partitions: Mapping[str, str | None],
        file: int,
        paths: Collection[str] | None = None,
        named_by_format: bool = False,
        sparse: bool = False,
        note_id: str | None = None,
    ) -> LocatedColumns:
        """Find the columns of file number `file`. Raises ColumnsMissing, saying what was found, when one is missing.

        A column may be named by a dotted path into a nested one; an exact name goes first. `paths`: the nested paths there are, None where
        only rows can tell. `named_by_format`: the file's format names the fields itself, so that the job's names may be absent. `sparse`:
        rows leave out what is null. `note_id`: what a file without ids is called by.
        """

        def has(source: str) -> bool:
            nested = source.split(".", 1)[0] in names if paths is None else source in paths
            return source in names or ("." in source and nested)

        read: dict[str, str] = {}
        constant: dict[str, str | None] = {}
        used: set[str] = set()
        for target in NOTE_SCHEMA.names:
            source = self.columns.get(target, target)
            if named_by_format and not has(source) and source not in partitions:
                source = target
            if has(source):
                read[target] = source
                # The whole of a nested column would carry the note's text along.
                used |= {source} if source in names else {source.split(".", 1)[0]}
            elif source in partitions:
                constant[target] = partitions[source]
                used.add(source)
            elif target == "note_id" and note_id is not None:
                constant[target] = note_id
            elif target in REQUIRED_COLUMNS or (target in self.columns and not (sparse or named_by_format)):
                raise ColumnsMissing(
                    f"input.columns: file {file} has no column {source!r} for {target}; found: {said_names([*names, *partitions])}. "
                    f"Map it with --set input.columns.{target}=NAME"
                )
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
    A list of strings is joined by line ends. Raises ColumnsMissing for other nested types.
    """
    kind = array.type
    if pa.types.is_dictionary(kind):
        return as_strings(array.dictionary_decode(), field_name)
    if pa.types.is_null(kind):
        return [None] * len(array), []
    if _is_list_of_text(kind):
        return _joined_lists(array, field_name)
    if pa.types.is_nested(kind):
        # Without what is within: the names of its fields may be data.
        shape = str(kind).partition("<")[0]
        raise ColumnsMissing(f"input.columns: the column for {field_name} has the nested type {shape}; a plain column is needed")
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


def _is_list_of_text(kind: pa.DataType) -> bool:
    return (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and (_is_text(kind.value_type) or pa.types.is_null(kind.value_type))


def _joined_lists(array: pa.Array, field_name: str) -> tuple[list[str | None], list[int]]:
    values, bad = as_strings(array.flatten(), field_name)
    lost = set(bad)
    lengths = pc.list_value_length(array).to_pylist()
    joined: list[str | None] = []
    unreadable: list[int] = []
    start = 0
    for position, length in enumerate(lengths):
        stop = start + (length or 0)
        if any(i in lost for i in range(start, stop)):
            unreadable.append(position)
        joined.append(None if length is None or position in unreadable[-1:] else "\n".join(v or "" for v in values[start:stop]))
        start = stop
    return joined, unreadable


def check_makes_text(kind: pa.DataType, field_name: str) -> None:
    """Raises ColumnsMissing when `as_strings` would refuse values of this type."""
    as_strings(pa.array([], kind), field_name)


def nested_paths(schema: pa.Schema) -> tuple[str, ...]:
    """The dotted path of every field inside a struct column, at any depth."""
    return tuple(path for column in schema for path in _paths(column, column.name))


def _paths(column: pa.Field, path: str) -> list[str]:
    if not pa.types.is_struct(column.type):
        return []
    inner = [column.type.field(i) for i in range(column.type.num_fields)]
    return [found for f in inner for found in (f"{path}.{f.name}", *_paths(f, f"{path}.{f.name}"))]


def column_of(batch: pa.RecordBatch | pa.Table, source: str) -> pa.Array:
    """The column of that name, else the field at that dotted path."""
    if source in batch.schema.names:
        return batch.column(source)
    root, *inner = source.split(".")
    return pc.struct_field(batch.column(root), inner)


def value_at(values: Mapping[str, Any], source: str) -> Any:
    """The value of that name in an object, else at that dotted path; None when there is none."""
    if source in values or "." not in source:
        return values.get(source)
    found: Any = values
    for key in source.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(key)
    return found


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
