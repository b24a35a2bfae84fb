"""Revising a committed shard without its input: rows that lost to an amended note, or whose file was superseded, leave its output.

Nothing is generated again; the texts of the other rows are taken over as they are. That also works when the input is long gone.
Contract counts keep describing the rows as they were when they were validated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

import pyarrow as pa

from schemas.commit import CommitRecord, RunStats, Shard
from schemas.rejection import REJECTION_SCHEMA, Reason, Rejection, Stage
from transforms.commit import KINDS, SCHEMAS, put_record, row_counts, utc_now, write_tables
from transforms.parquet import from_parquet
from transforms.stats import output_stats
from transforms.store import Store


def can_revise(old: Shard, shard: Shard) -> bool:
    """Whether `shard` is the committed one less some rows, so that nothing has to be generated."""
    if old.cut != shard.cut or not set(shard.pieces) <= set(old.pieces):
        return False
    files = {piece.file for piece in shard.pieces}
    return all(set(rows) <= set(shard.duplicates.get(file, ())) for file, rows in old.duplicates.items() if file in files)


def revise_commit(record: CommitRecord, shard: Shard, store: Store, run_id: str, keep_rejected_text: bool = False) -> CommitRecord:
    """Commit `shard` from the output of the committed shard it descends from; returns the record that stands."""
    old = {kind: _read(record, kind, store) for kind in KINDS}
    if not keep_rejected_text:
        old["rejections"] = old["rejections"].select(REJECTION_SCHEMA.names)
    files = {piece.file for piece in shard.pieces}
    lost = {(file, row) for file, rows in shard.duplicates.items() for row in rows}
    new = {kind: _without(table, files, lost) for kind, table in old.items()}
    new["rejections"] = _with_duplicates(new["rejections"], lost, [old["summaries"], old["rejections"]])
    stats = _revised(record.stats, shard, old, new)
    written = write_tables(new, shard, store, record.version)
    return put_record(replace(record, shard=shard, files=written, stats=stats, run_id=run_id, committed_at=utc_now(), revised=True), store)


def _read(record: CommitRecord, kind: str, store: Store) -> pa.Table:
    file = record.files.get(kind)
    return from_parquet(store.get(file.path)) if file else SCHEMAS[kind].empty_table()


def _places(table: pa.Table) -> list[tuple[int, int | None]]:
    return list(zip(table.column("source_file").to_pylist(), table.column("source_row").to_pylist(), strict=True))


def _without(table: pa.Table, files: Set[int], lost: Set[tuple[int, int]]) -> pa.Table:
    keep = [i for i, place in enumerate(_places(table)) if place[0] in files and place not in lost]
    return table.take(pa.array(keep, pa.int64()))


def _with_duplicates(rejections: pa.Table, lost: Set[tuple[int, int]], known: Sequence[pa.Table]) -> pa.Table:
    note_ids = {p: note for table in known for p, note in zip(_places(table), table.column("note_id").to_pylist(), strict=True)}
    rows = [Rejection(*place, Stage.PLAN, Reason.DUPLICATE_ID, note_ids.get(place)).as_row() for place in sorted(lost)]
    joined = pa.concat_tables([rejections, pa.Table.from_pylist(rows, schema=REJECTION_SCHEMA)], promote_options="default")
    return joined.sort_by([("source_file", "ascending"), ("source_row", "ascending")])


def _revised(stats: RunStats, shard: Shard, old: Mapping[str, pa.Table], new: Mapping[str, pa.Table]) -> RunStats:
    figures = stats.plus(_figures(old).times(-1)).plus(_figures(new))
    reasons, flags, filled, sentences = (
        {key: n for key, n in counts.items() if n} for counts in (figures.reasons, figures.flags, figures.fields, figures.sentences)
    )
    return replace(figures, notes_in=shard.rows, reasons=reasons, flags=flags, fields=filled, sentences=sentences)


def _figures(tables: Mapping[str, pa.Table]) -> RunStats:
    """What can be counted again from the output tables alone."""
    return output_stats(tables["summaries"], tables["records"]).plus(row_counts(tables))
