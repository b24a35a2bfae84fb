"""Scanning a new input file before it is planned: its footer, its ids and its dates; the text is not read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.commit import InputFile
from schemas.errors import ChartmillError, ConfigurationError
from schemas.rejection import Reason
from transforms.columns import ColumnMap, as_strings
from transforms.inputs import CORRUPT_FILE_ERRORS, FoundFile, is_storage_failure, open_input, partition_values
from transforms.plan import NEVER_WRITTEN, NoteIds


@dataclass(frozen=True, slots=True)
class ScannedFile:
    """A file as planned, the rows of each of its row groups, and its ids. `dated`: it has a column for written_at."""

    file: InputFile
    row_groups: tuple[int, ...]
    ids: NoteIds = field(repr=False)
    dated: bool = False


def scan_file(found: FoundFile, number: int, columns: ColumnMap) -> ScannedFile:
    """Read a file's footer, ids and dates. A damaged or empty file comes back with a problem instead.

    Raises ConfigurationError for a missing column or a file that may not be opened, ChartmillError when the storage fails.
    """
    try:
        if found.size == 0:
            return _unreadable(found, number, Reason.FILE_EMPTY)
        return _scan(found, number, columns)
    except PermissionError:
        raise ConfigurationError(f"input.uris: file {number} cannot be opened: permission denied") from None
    except CORRUPT_FILE_ERRORS as error:
        if is_storage_failure(error):
            raise ChartmillError(f"file {number} cannot be read now: the storage failed ({type(error).__name__})") from None
        return _unreadable(found, number, Reason.FILE_CORRUPT)


def _unreadable(found: FoundFile, number: int, problem: Reason) -> ScannedFile:
    return ScannedFile(InputFile(number, found.path, found.identity, 0, found.size, problem), (), NoteIds.concatenate([]))


def _scan(found: FoundFile, number: int, columns: ColumnMap) -> ScannedFile:
    parquet = open_input(found.location)
    metadata = parquet.metadata
    located = columns.locate(parquet.schema_arrow.names, partition_values(found.path), number)
    if not metadata.num_rows:
        return _unreadable(found, number, Reason.FILE_EMPTY)
    wanted = {target: located.read[target] for target in ("note_id", "written_at") if target in located.read}
    constant_id, constant_date = located.constant.get("note_id"), located.constant.get("written_at")
    parts, start = [], 0
    for batch in parquet.iter_batches(batch_size=65536, columns=sorted(set(wanted.values()))) if wanted else ():
        ids = as_strings(batch.column(wanted["note_id"]), "note_id")[0] if "note_id" in wanted else [constant_id] * batch.num_rows
        dates = (
            _milliseconds(batch.column(wanted["written_at"])) if "written_at" in wanted else np.full(len(ids), _parse_date(constant_date))
        )
        parts.append(_note_ids(ids, dates, number, start))
        start += batch.num_rows
    if not wanted:
        dates = np.full(metadata.num_rows, _parse_date(constant_date))
        parts.append(_note_ids([constant_id] * metadata.num_rows, dates, number, 0))
    rows = tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
    file = InputFile(number, found.path, found.identity, metadata.num_rows, found.size)
    return ScannedFile(file, rows, NoteIds.concatenate(parts), "written_at" in wanted or "written_at" in located.constant)


def _note_ids(ids: Sequence[str | None], dates: Any, file: int, start: int) -> NoteIds:
    """Hash the ids of rows [start, start + len(ids)); null ids are left out (the contract judges them)."""
    present = [i for i, value in enumerate(ids) if value is not None]
    raw = b"".join(hashlib.blake2b(str(ids[i]).encode("utf-8", "surrogatepass"), digest_size=16).digest() for i in present)
    positions = np.asarray(present, dtype=np.int64)
    return NoteIds(
        np.frombuffer(raw, dtype=np.uint64).reshape(-1, 2),
        dates[positions],
        np.full(len(present), file, np.int32),
        positions + start,
    )


def _milliseconds(array: pa.Array) -> Any:
    """(n,) int64 milliseconds since 1970 of dates, timestamps or ISO strings; NEVER_WRITTEN for null or unreadable values."""
    if pa.types.is_timestamp(array.type) or pa.types.is_date(array.type):
        times = array.cast(pa.timestamp("ms"), safe=False).cast(pa.int64())
        return pc.fill_null(times, NEVER_WRITTEN).to_numpy(zero_copy_only=False)
    return np.asarray([_parse_date(value) for value in as_strings(array, "written_at")[0]], dtype=np.int64)


def _parse_date(value: str | None) -> int:
    try:
        moment = datetime.fromisoformat(value or "")
    except ValueError:
        return int(NEVER_WRITTEN)
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(aware.timestamp() * 1000)
