"""Scanning a new input file before it is planned: how it is to be read, its ids and its dates. No text is kept."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.commit import InputFile, Layout
from schemas.errors import ChartmillError, ConfigurationError
from schemas.note import NOTE_SCHEMA
from schemas.rejection import Reason
from transforms.columns import ColumnMap, ColumnsMissing, as_strings, check_makes_text, column_of, nested_paths, value_at
from transforms.formats import Row
from transforms.formats.layout import ReadOptions, find_layout, format_of, is_named_by_format, rows
from transforms.formats.stream import chunks
from transforms.inputs import CORRUPT_FILE_ERRORS, FoundFile, is_storage_failure, open_bytes, open_parquet
from transforms.open_file import locate_columns, text_value
from transforms.plan import NEVER_WRITTEN, NO_IDS, NO_PLACES, NoteIds

# Keys of JSON objects that become columns.
_MOST_COLUMNS = 1000
_PARTIAL_DATE = re.compile(r"\d{4}(-\d\d)?")


@dataclass(frozen=True, slots=True)
class ScannedFile:
    """A file as planned, and its ids. `dated`: it has a column for written_at.

    `row_groups`: the rows of each, of Parquet. `offsets` and `lines`: (rows,) int64, where each row of a text file begins; empty for files
    that are read whole. `missing`: what to tell the user when a column is missing.
    """

    file: InputFile
    row_groups: tuple[int, ...]
    ids: NoteIds = field(repr=False)
    dated: bool = False
    offsets: npt.NDArray[np.int64] = field(default_factory=lambda: NO_PLACES, repr=False)
    lines: npt.NDArray[np.int64] = field(default_factory=lambda: NO_PLACES, repr=False)
    missing: str = field(default="", repr=False)


def scan_file(found: FoundFile, number: int, columns: ColumnMap, options: ReadOptions = ReadOptions()) -> ScannedFile:  # noqa: B008 - frozen
    """Find out how a file is to be read; read its ids and dates, and of a text file where each row begins.

    A damaged or empty file, or one that lacks a column, comes back with a problem instead. Raises ConfigurationError for a file that may
    not be opened, ChartmillError when the storage fails.
    """
    try:
        if found.size == 0:
            return _unreadable(found, number, Reason.FILE_EMPTY)
        return (
            _scan_parquet(found, number, columns) if format_of(found.path, options) == "parquet" else _scan(found, number, columns, options)
        )
    except ColumnsMissing as error:
        return replace(_unreadable(found, number, Reason.COLUMNS_MISSING), missing=str(error))
    except PermissionError:
        raise ConfigurationError(f"input.uris: file {number} cannot be opened: permission denied") from None
    except CORRUPT_FILE_ERRORS as error:
        if is_storage_failure(error):
            raise ChartmillError(f"file {number} cannot be read now: the storage failed ({type(error).__name__})") from None
        return _unreadable(found, number, Reason.FILE_CORRUPT)


def _unreadable(found: FoundFile, number: int, problem: Reason) -> ScannedFile:
    return ScannedFile(InputFile(number, found.path, found.identity, 0, found.size, problem), (), NO_IDS)


def _scan_parquet(found: FoundFile, number: int, columns: ColumnMap) -> ScannedFile:
    parquet = open_parquet(found.location, found.size)
    metadata, schema = parquet.metadata, parquet.schema_arrow
    file = InputFile(number, found.path, found.identity, metadata.num_rows, found.size)
    located = locate_columns(file, columns, schema.names, nested_paths(schema))
    for target, source in located.read.items():
        check_makes_text(column_of(schema.empty_table(), source).type, target)
    if not metadata.num_rows:
        return _unreadable(found, number, Reason.FILE_EMPTY)
    wanted = {target: located.read[target] for target in ("note_id", "written_at") if target in located.read}
    constant_id, constant_date = located.constant.get("note_id"), located.constant.get("written_at")
    parts, start = [], 0
    for batch in parquet.iter_batches(batch_size=65536, columns=sorted(set(wanted.values()))) if wanted else ():
        ids = as_strings(column_of(batch, wanted["note_id"]), "note_id")[0] if "note_id" in wanted else [constant_id] * batch.num_rows
        dates = (
            _milliseconds(column_of(batch, wanted["written_at"]))
            if "written_at" in wanted
            else np.full(len(ids), _parse_date(constant_date))
        )
        parts.append(_note_ids(ids, dates, number, start))
        start += batch.num_rows
    if not wanted:
        dates = np.full(metadata.num_rows, _parse_date(constant_date))
        parts.append(_note_ids([constant_id] * metadata.num_rows, dates, number, 0))
    rows = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
    return ScannedFile(file, rows, NoteIds.concatenate(parts), "written_at" in wanted or "written_at" in located.constant)


def _scan(found: FoundFile, number: int, columns: ColumnMap, options: ReadOptions) -> ScannedFile:
    wanted = {columns.columns.get(name, name) for name in NOTE_SCHEMA.names}
    with open_bytes(found.location, found.size) as handle:
        layout = find_layout(handle, found.path, options, wanted)
        file = InputFile(number, found.path, found.identity, 0, found.size, layout=layout)
        if layout.format == "csv":
            if not layout.columns and not _has_rows(handle, layout):
                return _unreadable(found, number, Reason.FILE_EMPTY)
            locate_columns(file, columns, layout.columns, None)  # says what is missing before the whole file is read
        read = _RowScan(columns, layout)
        handle.seek(0)
        for row in rows(chunks(handle, layout), layout):
            read.take(row)
    if not read.count:
        # A bulk export has a file per kind of resource, and most kinds are no notes.
        return _unreadable(found, number, Reason.NO_NOTES if layout.format in ("fhir", "hl7") else Reason.FILE_EMPTY)
    if (problem := read.common_problem()) is not None:
        return _unreadable(found, number, problem)
    return _scanned(replace(file, rows=read.count, layout=replace(layout, columns=read.columns())), read, columns)


def _has_rows(handle: BinaryIO, layout: Layout) -> bool:
    handle.seek(0)
    return next(rows(chunks(handle, layout), layout), None) is not None


def _scanned(file: InputFile, read: _RowScan, columns: ColumnMap) -> ScannedFile:
    located = locate_columns(file, columns, file.layout.columns, None)
    # Where no row has a text at all, the contract sets each row aside.
    if "text" in located.read and read.has_no_text and not read.makes_text:
        raise ColumnsMissing(f"input.columns: file {file.number} has no row whose {located.read['text']!r} makes a text")
    constant_id, constant_date = located.constant.get("note_id"), located.constant.get("written_at")
    ids = _note_ids([constant_id] * file.rows, read.dates(), file.number, 0) if "note_id" in located.constant else read.ids(file.number)
    if "written_at" in located.constant:
        ids = replace(ids, written_at=np.full(len(ids), _parse_date(constant_date)))
    dated = "written_at" in located.read or "written_at" in located.constant
    scan = ScannedFile(file, (), ids, dated)
    if file.layout.whole:
        return scan
    return replace(scan, offsets=np.frombuffer(read.offsets, np.int64), lines=np.frombuffer(read.lines, np.int64))


class _RowScan:
    """Gathers what the plan needs of a text file, row by row."""

    def __init__(self, columns: ColumnMap, layout: Layout) -> None:
        self._sources = {target: columns.columns.get(target, target) for target in ("note_id", "text", "written_at")}
        self._named_by_format = is_named_by_format(layout)
        self._keys = dict.fromkeys(layout.columns)
        self._fixed = bool(layout.columns)
        self._roots = frozenset(name for source in columns.columns.values() for name in (source, source.split(".", 1)[0]))
        self._keeps_places = not layout.whole
        self._hashes = bytearray()
        self._positions = array("q")
        self._written = array("q")
        self._problems: Counter[Reason] = Counter()
        self.offsets = array("q")
        self.lines = array("q")
        self.count = 0
        # Of some row; and whether some row has an object or the like in its place.
        self.makes_text = False
        self.has_no_text = False

    def take(self, row: Row) -> None:
        if self._keeps_places:
            self.offsets.append(row.offset)
            self.lines.append(row.line or 0)
        written = int(NEVER_WRITTEN)
        if row.values is None or row.problem is not None:
            self._problems[row.problem or Reason.ROW_UNREADABLE] += 1
        if row.values is not None:
            if not self._fixed:
                self._add_keys(row.values)
            written = _parse_date(self._value(row.values, "written_at"))
            note_id = self._value(row.values, "note_id")
            if note_id is not None and row.problem is None:
                self._hashes += _id_hash(note_id)
                self._positions.append(self.count)
            self._look_at_text(row)
        self._written.append(written)
        self.count += 1

    def _add_keys(self, values: Mapping[str, Any]) -> None:
        for key in values:
            # What the job names is always kept; beyond that a file whose rows all have keys of their own must not fill the memory.
            wanted = len(self._keys) < _MOST_COLUMNS or key in self._roots or key in NOTE_SCHEMA.names
            if key not in self._keys and wanted and key.isprintable():  # half a character makes no name of a column
                self._keys[key] = None

    def _look_at_text(self, row: Row) -> None:
        values = row.values or {}
        if row.problem is not None or self._value(values, "text") is not None:
            self.makes_text = True
        elif value_at(values, self._source(values, "text")) is not None:
            self.has_no_text = True

    def _value(self, values: Mapping[str, Any], target: str) -> str | None:
        try:
            return text_value(value_at(values, self._source(values, target)))
        except ValueError:
            return None

    def _source(self, values: Mapping[str, Any], target: str) -> str:
        """Documents name their fields themselves; a name that the job gives goes first."""
        source = self._sources[target]
        return target if self._named_by_format and source.split(".", 1)[0] not in values else source

    def common_problem(self) -> Reason | None:
        """Why nothing of the file can be used, if nothing can and nothing is known of its rows."""
        if self._keys or self._problems.total() < self.count:
            return None
        return next(iter(self._problems)) if len(self._problems) == 1 else Reason.FILE_CORRUPT

    def columns(self) -> tuple[str, ...]:
        return tuple(self._keys)

    def dates(self) -> npt.NDArray[np.int64]:
        return np.frombuffer(self._written, np.int64)

    def ids(self, file: int) -> NoteIds:
        positions = np.frombuffer(self._positions, np.int64)
        hashes = np.frombuffer(bytes(self._hashes), np.uint64).reshape(-1, 2)
        return NoteIds(hashes, self.dates()[positions], np.full(len(positions), file, np.int32), positions)


def _note_ids(ids: Sequence[str | None], dates: Any, file: int, start: int) -> NoteIds:
    """Hash the ids of rows [start, start + len(ids)); null ids are left out (the contract judges them)."""
    present = [i for i, value in enumerate(ids) if value is not None]
    raw = b"".join(_id_hash(str(ids[i])) for i in present)
    positions = np.asarray(present, dtype=np.int64)
    return NoteIds(
        np.frombuffer(raw, dtype=np.uint64).reshape(-1, 2),
        dates[positions],
        np.full(len(present), file, np.int32),
        positions + start,
    )


def _id_hash(note_id: str) -> bytes:
    return hashlib.blake2b(note_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _milliseconds(array: pa.Array) -> Any:
    """(n,) int64 milliseconds since 1970 of dates, timestamps or ISO strings; NEVER_WRITTEN for null or unreadable values."""
    if pa.types.is_timestamp(array.type) or pa.types.is_date(array.type):
        times = array.cast(pa.timestamp("ms"), safe=False).cast(pa.int64())
        return pc.fill_null(times, NEVER_WRITTEN).to_numpy(zero_copy_only=False)
    return np.asarray([_parse_date(value) for value in as_strings(array, "written_at")[0]], dtype=np.int64)


def _parse_date(value: str | None) -> int:
    """Milliseconds since 1970 of an ISO 8601 date or time, which may lack its day and month (FHIR R4, dateTime); UTC without a zone."""
    text = (value or "").strip()
    if _PARTIAL_DATE.fullmatch(text):
        text += "-01-01"[len(text) - 4 :]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return int(NEVER_WRITTEN)
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(aware.timestamp() * 1000)
