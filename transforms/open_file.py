"""One open input file, streamed: its rows in order as tables of BATCH_SCHEMA with pass-through columns, and rejections for the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.commit import InputFile, Piece
from schemas.note import BATCH_SCHEMA, NOTE_SCHEMA, PASSTHROUGH_PREFIX
from schemas.rejection import Reason, Rejection, Stage
from transforms.columns import ColumnMap, LocatedColumns, as_strings, column_of, nested_paths, readable, value_at
from transforms.formats import Row, json_text, stem_of
from transforms.formats.layout import is_named_by_format, is_sparse, rows
from transforms.formats.stream import chunks
from transforms.inputs import partition_values

ROWS_PER_READ = 1024


@dataclass(frozen=True, slots=True)
class FileRows:
    """Some consecutive rows of one file: those that could be read, and rejections for those that could not."""

    table: pa.Table = field(repr=False)
    rejections: tuple[Rejection, ...] = field(repr=False)

    def __len__(self) -> int:
        return int(self.table.num_rows) + len(self.rejections)


def locate_columns(file: InputFile, columns: ColumnMap, names: Sequence[str], paths: Sequence[str] | None) -> LocatedColumns:
    """Where this file keeps what. Raises ColumnsMissing."""
    return columns.locate(
        names,
        partition_values(file.path),
        file.number,
        paths,
        is_named_by_format(file.layout),
        is_sparse(file.layout),
        stem_of(file.path) if file.layout.format == "text" else None,
    )


class OpenParquet:
    """Some neighbouring row groups of one Parquet file: rows [first_row, end_row)."""

    def __init__(self, file: InputFile, parquet: pq.ParquetFile, columns: ColumnMap, groups: range) -> None:
        self.file = file
        metadata = parquet.metadata
        schema = parquet.schema_arrow
        self._located = locate_columns(file, columns, schema.names, nested_paths(schema))
        self.first_row = self._position = sum(metadata.row_group(i).num_rows for i in range(groups.start))
        self.end_row = self.first_row + sum(metadata.row_group(i).num_rows for i in groups)
        wanted = [*dict.fromkeys(self._located.read.values()), *self._located.passthrough]
        self._batches = parquet.iter_batches(batch_size=ROWS_PER_READ, row_groups=list(groups), columns=wanted)
        self._ahead: pa.RecordBatch | None = None

    def can_reach(self, position: int) -> bool:
        return position >= self._position

    def read(self, start: int, stop: int) -> FileRows:
        """Rows from `start` on, up to `stop` and to the end of what one read gives; at least one."""
        while True:
            if self._ahead is None or not self._ahead.num_rows:
                self._ahead = next(self._batches, None)
                if self._ahead is None:
                    raise EOFError("fewer rows than the file's own footer says")
            skip = start - self._position
            if skip < self._ahead.num_rows:
                break
            self._position += self._ahead.num_rows
            self._ahead = None
        taken = self._ahead.slice(skip, stop - start)
        self._ahead = self._ahead.slice(skip + taken.num_rows)
        self._position = start + taken.num_rows
        return _from_arrow(taken, self._located, self.file.number, start)


def _from_arrow(batch: pa.RecordBatch, located: LocatedColumns, file: int, first_row: int) -> FileRows:
    """Rows [first_row, first_row + batch.num_rows) of a Parquet file."""
    count = batch.num_rows
    values: dict[str, list[Any]] = {}
    unreadable: set[int] = set()
    for target in NOTE_SCHEMA.names:
        if target in located.read:
            values[target], bad = as_strings(column_of(batch, located.read[target]), target)
            unreadable.update(bad)
        else:
            values[target] = [located.constant.get(target)] * count
    keep = [i for i in range(count) if i not in unreadable]
    places = [(file, first_row + i, None) for i in keep]
    columns = _note_columns({name: [column[i] for i in keep] for name, column in values.items()}, places)
    positions = pa.array(keep, pa.int64())
    for name in located.passthrough:
        # take copies, so that nothing pins the decoded row group.
        columns[PASSTHROUGH_PREFIX + name] = readable(batch.column(name)).take(positions)
    columns |= _constant_columns(located, len(keep))
    rejected = (Rejection(file, first_row + i, Stage.READ, Reason.ROW_UNREADABLE, values["note_id"][i]) for i in sorted(unreadable))
    return FileRows(pa.table(columns), tuple(rejected))


def _note_columns(values: Mapping[str, Sequence[str | None]], places: Sequence[tuple[int, int, int | None]]) -> dict[str, pa.Array]:
    columns = {f.name: pa.array(values[f.name], type=f.type) for f in NOTE_SCHEMA}
    for position, name in enumerate(("source_file", "source_row", "source_line")):
        columns[name] = pa.array([place[position] for place in places], BATCH_SCHEMA.field(name).type)
    return columns


def _constant_columns(located: LocatedColumns, count: int) -> dict[str, pa.Array]:
    return {PASSTHROUGH_PREFIX + name: pa.array([value] * count, pa.string()) for name, value in located.passthrough_constant.items()}


class OpenText:
    """One file of any other format, entered at a piece."""

    def __init__(self, file: InputFile, opened: Callable[[], BinaryIO], columns: ColumnMap, piece: Piece) -> None:
        self.file = file
        self._located = locate_columns(file, columns, file.layout.columns, None)
        # A file that is read whole begins at its first row, whatever the piece.
        self._position = 0 if file.layout.whole else piece.start
        self._rows = _file_rows(opened, file, piece)

    def can_reach(self, position: int) -> bool:
        return position >= self._position

    def read(self, start: int, stop: int) -> FileRows:
        """Rows from `start` on, up to `stop`; at least one."""
        found = list(islice(self._rows, start - self._position, min(stop, start + ROWS_PER_READ) - self._position))
        self._position = start + len(found)
        if not found:
            raise EOFError("fewer rows than when the file was planned")
        return _from_rows(found, self._located, self.file.number, start)


def _file_rows(opened: Callable[[], BinaryIO], file: InputFile, piece: Piece) -> Iterator[Row]:
    with opened() as handle:
        yield from rows(chunks(handle, file.layout, piece.offset), file.layout, piece.offset, piece.line)


def _from_rows(found: Sequence[Row], located: LocatedColumns, file: int, first_row: int) -> FileRows:
    """Rows [first_row, first_row + len(found)) of a file."""
    kept: list[Row] = []
    notes: list[dict[str, str | None]] = []
    places: list[tuple[int, int, int | None]] = []
    rejections: list[Rejection] = []
    for number, row in enumerate(found, start=first_row):
        values, problem = note_values(row, located)
        if problem is not None:
            rejections.append(Rejection(file, number, Stage.READ, problem, values.get("note_id"), source_line=row.line))
            continue
        kept.append(row)
        notes.append(values)
        places.append((file, number, row.line))
    columns = _note_columns({name: [note.get(name) for note in notes] for name in NOTE_SCHEMA.names}, places)
    for name in located.passthrough:
        columns[PASSTHROUGH_PREFIX + name] = pa.array([_passed((row.values or {}).get(name)) for row in kept], pa.large_string())
    columns |= _constant_columns(located, len(kept))
    return FileRows(pa.table(columns), tuple(rejections))


def note_values(row: Row, located: LocatedColumns) -> tuple[dict[str, str | None], Reason | None]:
    """The note's fields as text, and why the row cannot be used, if it cannot."""
    if row.values is None:
        return {}, row.problem or Reason.ROW_UNREADABLE
    values: dict[str, str | None] = dict(located.constant)
    problem = row.problem
    for target, source in located.read.items():
        try:
            values[target] = text_value(value_at(row.values, source))
        except ValueError:
            problem = problem or Reason.ROW_UNREADABLE
    return values, problem


def text_value(value: Any) -> str | None:
    """A value as text: numbers and truth values as JSON, a list of strings joined by line ends.

    Raises ValueError for what makes no text: objects, mixed lists, lone surrogates.
    """
    if isinstance(value, list):
        if not all(isinstance(part, str) for part in value):
            raise ValueError("makes no text")
        value = "\n".join(value)
    if value is None:
        return None
    if isinstance(value, Mapping):
        raise ValueError("makes no text")
    text = json_text(value)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half a character") from None
    return text


def _passed(value: Any) -> str | None:
    """A pass-through value as text, with U+FFFD for what no reader could show. The types of columns never depend on the file."""
    if value is None:
        return None
    return json_text(value).encode("utf-8", "surrogatepass").decode("utf-8", "replace")
