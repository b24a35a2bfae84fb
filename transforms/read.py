"""Reading: a segment of the plan becomes its shards' notes, streamed once, in row order.

What cannot be read is never lost: a file that cannot be opened is one rejection row, a planned row that cannot be read
is one rejection row each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import apache_beam as beam
import pyarrow as pa

from schemas.commit import Piece, RunStats, Segment, Shard
from schemas.errors import ChartmillError
from schemas.note import BATCH_SCHEMA, PASSTHROUGH_PREFIX
from schemas.rejection import Reason, Rejection, Stage
from transforms.batch import NoteBatch, StorageFailure, guarded
from transforms.columns import ColumnMap
from transforms.inputs import CORRUPT_FILE_ERRORS, current_identity, is_storage_failure, open_bytes, open_parquet
from transforms.ledger import commit_key, mark_attempt
from transforms.open_file import ROWS_PER_READ, FileRows, OpenParquet, OpenText
from transforms.store import Store


def read_segment(segment: Segment, columns: ColumnMap, wanted: Callable[[Shard], bool] = lambda shard: True) -> Iterator[NoteBatch]:
    """The segment's shards in order, but for those not `wanted` (asked just before each is read) and those whose file
    is not what was planned.

    Raises ChartmillError when the storage itself fails: the shard stays to be done by the next run.
    """
    stream = _RowStream(segment, columns)
    for shard in segment.shards:
        if wanted(shard) and all(stream.is_as_planned(piece.file) for piece in shard.pieces):
            started = time.perf_counter()
            batch = _read_shard(shard, stream)
            yield batch.counted(seconds={"read": time.perf_counter() - started})


def _read_shard(shard: Shard, stream: _RowStream) -> NoteBatch:
    tables: list[pa.Table] = []
    rejections: list[Rejection] = []
    for piece in shard.pieces:
        problem = stream.files[piece.file].problem
        if problem:
            rejections.append(Rejection(piece.file, None, Stage.PLAN, problem))
            continue
        for rows in stream.rows(piece):
            kept, duplicates = _without_duplicates(rows, shard.duplicates.get(piece.file, ()))
            tables.append(kept)
            rejections += [*rows.rejections, *duplicates]
    return NoteBatch(shard, _joined(tables), tuple(rejections), RunStats(shards=1, notes_in=shard.rows))


def _joined(tables: Sequence[pa.Table]) -> pa.Table:
    """All rows as one contiguous table; pass-through columns whose types differ between small files become strings."""
    if not tables:
        return BATCH_SCHEMA.empty_table()
    try:
        return pa.concat_tables(tables, promote_options="permissive").combine_chunks()
    except (pa.ArrowTypeError, pa.ArrowInvalid):
        return pa.concat_tables([_stringly(t) for t in tables], promote_options="permissive").combine_chunks()


def _stringly(table: pa.Table) -> pa.Table:
    for position, column in enumerate(table.schema):
        if column.name.startswith(PASSTHROUGH_PREFIX):
            values = [None if v is None else str(v) for v in table.column(position).to_pylist()]
            table = table.set_column(position, column.name, pa.array(values, pa.string()))
    return table


def _without_duplicates(rows: FileRows, duplicates: Sequence[int]) -> tuple[pa.Table, list[Rejection]]:
    if not duplicates:
        return rows.table, []
    lost = set(duplicates)
    places = rows.table.column("source_row").to_pylist()
    doubles = [i for i, row in enumerate(places) if row in lost]
    if not doubles:
        return rows.table, []
    columns = ("source_file", "source_row", "note_id", "source_line")
    found = [{name: rows.table.column(name)[i].as_py() for name in columns} for i in doubles]
    rejected = [Rejection(**row, stage=Stage.PLAN, reason=Reason.DUPLICATE_ID) for row in found]
    return rows.table.take(pa.array([i for i, row in enumerate(places) if row not in lost], pa.int64())), rejected


class _RowStream:
    """Rows of the segment's files, read forward; going back within a file opens it again."""

    def __init__(self, segment: Segment, columns: ColumnMap) -> None:
        self.files = {file.number: file for file in segment.files}
        self._locations = segment.locations
        self._columns = columns
        self._as_planned: dict[int, bool] = {}
        self._open: OpenParquet | OpenText | None = None
        # Per file, the last row group that any shard of this segment needs: nothing behind it is decoded.
        self._last_groups: dict[int, int] = {}
        for piece in (p for shard in segment.shards for p in shard.pieces if p.row_groups):
            self._last_groups[piece.file] = max(self._last_groups.get(piece.file, 0), piece.row_groups[-1])

    def is_as_planned(self, number: int) -> bool:
        """Whether the file still is what was planned (or was unreadable already then); asked of the storage once."""
        if number not in self._as_planned:
            file = self.files[number]
            location = self._locations.get(number)
            self._as_planned[number] = bool(file.problem) or (location is not None and current_identity(location) == file.identity)
        return self._as_planned[number]

    def rows(self, piece: Piece) -> Iterator[FileRows]:
        """The piece's rows; those that cannot be read come as rejections.

        After damage is met the rest of a piece of Parquet is read row group by row group, since one read may have spanned several.
        """
        position = piece.start
        try:
            while position < piece.stop:
                rows = self._opened(piece, position).read(position, min(piece.stop, position + ROWS_PER_READ))
                position += len(rows)
                yield rows
        except CORRUPT_FILE_ERRORS as error:
            self._open = None
            _refuse_storage_failure(error, piece.file)
            if self.files[piece.file].layout.format != "parquet":
                yield _lost(piece.file, range(position, piece.stop))
            for group in piece.row_groups:
                yield from self._salvaged(piece, position, group)

    def _opened(self, piece: Piece, position: int) -> OpenParquet | OpenText:
        if self._open is None or self._open.file.number != piece.file or not self._open.can_reach(position):
            file, location = self.files[piece.file], self._locations[piece.file]
            if file.layout.format == "parquet":
                groups = range(piece.row_groups[0], self._last_groups[piece.file] + 1)
                self._open = OpenParquet(file, open_parquet(location, file.size), self._columns, groups)
            else:
                self._open = OpenText(file, partial(open_bytes, location, file.size), self._columns, piece)
        return self._open

    def _salvaged(self, piece: Piece, start: int, group: int) -> Iterator[FileRows]:
        """What one row group still gives of the piece's rows from `start` on; the others as rejections."""
        try:
            parquet = open_parquet(self._locations[piece.file], self.files[piece.file].size)
            file = OpenParquet(self.files[piece.file], parquet, self._columns, range(group, group + 1))
        except CORRUPT_FILE_ERRORS as error:
            kind = type(error).__name__
            raise ChartmillError(f"file {piece.file} could be opened before and cannot be now ({kind}); run again") from None
        position, stop = max(start, file.first_row), min(piece.stop, file.end_row)
        try:
            while position < stop:
                rows = file.read(position, min(stop, position + ROWS_PER_READ))
                position += len(rows)
                yield rows
        except CORRUPT_FILE_ERRORS as error:
            _refuse_storage_failure(error, piece.file)
            yield _lost(piece.file, range(position, stop))


def _lost(file: int, places: range) -> FileRows:
    return FileRows(BATCH_SCHEMA.empty_table(), tuple(Rejection(file, row, Stage.READ, Reason.FILE_CORRUPT) for row in places))


def _refuse_storage_failure(error: Exception, file: int) -> None:
    if is_storage_failure(error):
        raise StorageFailure(f"file {file} cannot be read now: the storage failed ({type(error).__name__})") from None


def is_to_do(shard: Shard, store: Store, version: str, deadline: float | None) -> bool:
    """Whether nobody has committed the shard yet and there is still time. `deadline`: seconds since the epoch."""
    return (deadline is None or time.time() < deadline) and not store.exists(commit_key(version, shard.id))


def read_to_do(segment: Segment, columns: ColumnMap, store: Store, version: str, wanted: Callable[[Shard], bool]) -> Iterator[NoteBatch]:
    """`read_segment`, each shard marked as begun. Raises ChartmillError, which quotes nothing."""
    batches = read_segment(segment, columns, wanted)
    while True:
        # Only the reading is guarded: what is done with a batch happens inside the yield.
        with guarded("read"):
            batch = next(batches, None)
            if batch is not None:
                mark_attempt(store, version, batch.shard.id)
        if batch is None:
            return
        yield batch


class ReadNotes(beam.PTransform):  # type: ignore[misc]
    """Segment -> one NoteBatch per shard that is still to be done, in row order.

    The store is asked again for every shard, because runners repeat bundles and other runs may be at work. After `deadline` (seconds since
    the epoch) no further shard is started. Shards of a file that changed or vanished since the plan are left for the next run's plan.
    """

    def __init__(self, columns: ColumnMap, store: Store, version: str, deadline: float | None = None) -> None:
        super().__init__()
        self._do = _Read(columns, store, version, deadline)

    def expand(self, segments: Any) -> Any:
        return segments | beam.ParDo(self._do)


class _Read(beam.DoFn):  # type: ignore[misc]
    def __init__(self, columns: ColumnMap, store: Store, version: str, deadline: float | None) -> None:
        self._columns = columns
        self._store = store
        self._version = version
        self._deadline = deadline

    def process(self, segment: Segment) -> Iterator[NoteBatch]:
        yield from read_to_do(segment, self._columns, self._store, self._version, self._is_to_do)

    def _is_to_do(self, shard: Shard) -> bool:
        return is_to_do(shard, self._store, self._version, self._deadline)
