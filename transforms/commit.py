"""Committing a shard: its Parquet files first, each in one request under a content-hash key, then its commit record, put once.

Until the record stands nothing counts; once it stands nothing changes. Whoever loses the race for the record deletes
what the record does not name.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import apache_beam as beam
import pyarrow as pa

from schemas.commit import CommitRecord, DataFile, RunStats, Shard
from schemas.errors import AccountingError
from schemas.note import PASSTHROUGH_PREFIX
from schemas.record import RECORD_FIELDS, RECORD_SCHEMA
from schemas.rejection import REJECTED_TEXT_FIELD, REJECTION_SCHEMA, Rejection
from schemas.summary import PROVENANCE_FIELDS, SUMMARY_SCHEMA
from transforms.audit import log_commit
from transforms.batch import NoteBatch, guarded
from transforms.ledger import commit_key, forget_attempts, rolled_record
from transforms.parquet import to_parquet
from transforms.store import NotFound, Store
from transforms.store_retries import take_retries

SCHEMAS = {"summaries": SUMMARY_SCHEMA, "records": RECORD_SCHEMA, "rejections": REJECTION_SCHEMA}
KINDS = tuple(SCHEMAS)


@dataclass(frozen=True, slots=True)
class Provenance:
    """What every output row says of its making. `decode` is JSON."""

    model_id: str
    model_sha256: str
    backend: str
    dtype: str
    decode: str = "{}"

    def columns(self, rows: int, version: str, code_version: str) -> dict[str, pa.Array]:
        said = {
            "ai_generated": True,
            "review_status": "unreviewed",
            **asdict(self),
            "version": version,
            "code_version": code_version,
        }
        return {f.name: pa.repeat(pa.scalar(said[f.name], f.type), rows) for f in PROVENANCE_FIELDS}


@dataclass(frozen=True, slots=True)
class CommitSettings:
    """Who commits, and what the rows say of their making. `record`: None where no records are written."""

    version: str
    run_id: str
    code_version: str
    summary: Provenance
    record: Provenance | None
    keep_rejected_text: bool = False


def output_tables(batch: NoteBatch, settings: CommitSettings) -> dict[str, pa.Table]:
    """The three tables of a finished batch, by kind; that of the records is empty where none are written."""
    notes = batch.notes.append_column("note_sha256", pa.array([_sha256(text) for text in batch.column("text")], pa.string()))
    summary_said = settings.summary.columns(notes.num_rows, settings.version, settings.code_version)
    summaries = _select(notes, SUMMARY_SCHEMA, summary_said)
    for name in notes.column_names:
        if name.startswith(PASSTHROUGH_PREFIX):
            plain = name.removeprefix(PASSTHROUGH_PREFIX)
            free = plain
            while free in summaries.column_names:
                free = f"input_{free}"
            summaries = summaries.append_column(free, notes.column(name))
    rejections = _rejections(batch.rejections, settings.keep_rejected_text)
    return {"summaries": summaries, "records": _records(notes, settings), "rejections": rejections}


def _records(notes: pa.Table, settings: CommitSettings) -> pa.Table:
    if settings.record is None:
        return RECORD_SCHEMA.empty_table()
    struct = notes.column("record").combine_chunks()
    leaves = {f.name: struct.field(f.name) for f in RECORD_FIELDS}
    return _select(notes, RECORD_SCHEMA, {**leaves, **settings.record.columns(notes.num_rows, settings.version, settings.code_version)})


def _sha256(text: str) -> str:
    # surrogatepass: a lone surrogate is kept as it was read rather than stopping the shard.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _select(notes: pa.Table, schema: pa.Schema, more: Mapping[str, pa.Array]) -> pa.Table:
    columns = [more[f.name] if f.name in more else notes.column(f.name) for f in schema]
    return pa.table(columns, schema=schema)


def _rejections(rejections: Sequence[Rejection], keep_text: bool) -> pa.Table:
    schema = REJECTION_SCHEMA.append(REJECTED_TEXT_FIELD) if keep_text else REJECTION_SCHEMA
    ordered = sorted(rejections, key=lambda r: (r.source_file, -1 if r.source_row is None else r.source_row))
    rows = [{**r.as_row(), **({"text": r.text} if keep_text else {})} for r in ordered]
    return pa.Table.from_pylist(rows, schema=schema)


def commit_batch(batch: NoteBatch, store: Store, settings: CommitSettings) -> CommitRecord:
    """Write a finished batch. Returns the record that stands: this one, or that of whoever was quicker.

    Raises AccountingError when a planned row is neither summarized nor rejected.
    """
    started = time.perf_counter()
    tables = output_tables(batch, settings)
    stats = batch.stats.plus(row_counts(tables))
    recorded = stats.notes_summarized if settings.record else 0
    if stats.notes_in != stats.notes_summarized + stats.notes_quarantined or tables["records"].num_rows != recorded:
        raise AccountingError(
            f"shard {batch.shard.id}: {stats.notes_in} notes in, {stats.notes_summarized} summarized, "
            f"{tables['records'].num_rows} records, {stats.notes_quarantined} quarantined"
        )
    files = write_tables(tables, batch.shard, store, settings.version)
    # Of this process since its last commit, whatever they were for: threads share the client.
    stats = stats.plus(RunStats(seconds={"commit": time.perf_counter() - started}, retries=take_retries()))
    record = CommitRecord(batch.shard, settings.version, settings.run_id, files, stats, settings.code_version, utc_now())
    return put_record(record, store, settings.summary.model_sha256)


def row_counts(tables: Mapping[str, pa.Table]) -> RunStats:
    """Notes summarized and set aside, by what the tables hold."""
    rejections = tables["rejections"]
    whole_files = rejections.column("source_row").null_count
    return RunStats(
        notes_summarized=tables["summaries"].num_rows,
        notes_quarantined=rejections.num_rows - whole_files,
        files_quarantined=whole_files,
        reasons=dict(Counter(rejections.column("reason").to_pylist())),
    )


def write_tables(tables: Mapping[str, pa.Table], shard: Shard, store: Store, version: str) -> dict[str, DataFile]:
    """Put each table that has rows under `<kind>/version=<version>/<shard>-<sha12>.parquet`."""
    files = {}
    for kind in KINDS:
        if tables[kind].num_rows:
            data = to_parquet(tables[kind])
            sha256 = hashlib.sha256(data).hexdigest()
            path = f"{data_folder(kind, version)}{shard.id}-{sha256[:12]}.parquet"
            store.put(path, data)
            files[kind] = DataFile(path, tables[kind].num_rows, len(data), sha256)
    return files


def data_folder(kind: str, version: str) -> str:
    return f"{kind}/version={version}/"


def put_record(record: CommitRecord, store: Store, model_sha256: str = "") -> CommitRecord:
    """Put the shard's audit line, then the commit record once; whoever loses deletes the data files that the standing record does not name.

    `model_sha256` is empty where no model was asked.
    """
    log_commit(store, record, model_sha256)
    key = commit_key(record.version, record.shard.id)
    won = store.put_once(key, record.to_bytes())
    standing = rolled_record(store, record.version, record.shard.id)
    if standing is not None and won:
        # Another run has finished and rolled up this shard between our check and our put: its record is the truth.
        store.delete(key)
    elif standing is None:
        standing = record if won else _read_record(record, key, store)
    kept = {file.path for file in standing.files.values()}
    for file in record.files.values():
        if file.path not in kept:
            store.delete(file.path)
    forget_attempts(store, record.version, record.shard.id)
    return standing


def _read_record(record: CommitRecord, key: str, store: Store) -> CommitRecord:
    try:
        return CommitRecord.from_bytes(store.get(key))
    except NotFound:  # rolled up since
        return rolled_record(store, record.version, record.shard.id) or record


def utc_now() -> str:
    """ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class CommitShard(beam.PTransform):  # type: ignore[misc]
    """NoteBatch -> the CommitRecord that stands for its shard."""

    def __init__(self, store: Store, settings: CommitSettings) -> None:
        super().__init__()
        self._do = _Commit(store, settings)

    def expand(self, batches: Any) -> Any:
        return batches | beam.ParDo(self._do)


class _Commit(beam.DoFn):  # type: ignore[misc]
    def __init__(self, store: Store, settings: CommitSettings) -> None:
        self._store = store
        self._settings = settings

    def process(self, batch: NoteBatch) -> list[CommitRecord]:
        with guarded("commit"):
            return [commit_batch(batch, self._store, self._settings)]
