"""Commit records rolled up into parts: Parquet objects of some thousand records, by columns, so that nobody decodes what he does not need.

A part tells the sum of its records' stats, so that a report over millions of notes adds up parts. It knows no store.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.commit import CommitRecord, DataFile, RunStats, Shard, without_defaults
from transforms.parquet import from_parquet, to_parquet

PART_RECORDS = 4096
# Smaller parts are put together whenever commits are rolled up: a night adds few, and a year of nights must not be 365 parts.
SMALL_PART = 512

# What is nested is JSON: `shard` (its cut, pieces, duplicates), `files` and `stats` as in the commit record.
PART_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.string()),
        pa.field("run_id", pa.string()),
        pa.field("notes", pa.int64()),
        pa.field("revised", pa.bool_()),
        pa.field("code_version", pa.string()),
        pa.field("committed_at", pa.string()),
        pa.field("definition", pa.string()),
        pa.field("files", pa.string()),
        pa.field("stats", pa.string()),
    ]
)
_STATS = b"chartmill.stats"
_STANDING = ("shard", "run_id", "notes", "revised", "files")


@dataclass(frozen=True, slots=True)
class Standing:
    """What publishing needs of a commit record. `notes`: rows of its shard; `files`: path by kind."""

    notes: int
    run_id: str
    revised: bool
    files: dict[str, str] = field(repr=False)


@dataclass(frozen=True)
class Part:
    """Some commit records. `key`: where they are stored rolled up, empty while they are single records. `data`: the part as Parquet."""

    key: str
    data: bytes = field(repr=False)

    @cached_property
    def ids(self) -> list[str]:
        return self._column("shard")

    @cached_property
    def stats(self) -> RunStats:
        """The sum over all its records."""
        return RunStats.from_json(json.loads(from_parquet(self.data, ["shard"]).schema.metadata[_STATS]))

    @property
    def name(self) -> str:
        """By its content."""
        return hashlib.sha256(self.data).hexdigest()[:12]

    def shards(self) -> Iterator[Shard]:
        for shard, definition in zip(self.ids, self._column("definition"), strict=True):
            yield Shard.from_json({"id": shard, **json.loads(definition)})

    def standing(self) -> Iterator[tuple[str, Standing]]:
        """By shard id."""
        table = from_parquet(self.data, _STANDING)
        for shard, run_id, notes, revised, files in zip(*(table.column(name).to_pylist() for name in _STANDING), strict=True):
            yield shard, Standing(notes, run_id, revised, {kind: file["path"] for kind, file in json.loads(files).items()})

    def stats_of(self, wanted: Set[str]) -> Iterator[RunStats]:
        """The stats of those of its records whose shard is wanted."""
        for shard, stats in zip(self.ids, self._column("stats"), strict=True):
            if shard in wanted:
                yield RunStats.from_json(json.loads(stats))

    def records(self, version: str, wanted: Iterable[str] | None = None) -> Iterator[CommitRecord]:
        """Its records as they were committed; by default all, else those of the wanted shards."""
        for row in self.table(self.ids if wanted is None else wanted).to_pylist():
            yield _record(row, version)

    def table(self, wanted: Iterable[str]) -> pa.Table:
        """The rows of the wanted shards."""
        table = from_parquet(self.data)
        return table.filter(pc.is_in(table.column("shard"), pa.array(list(wanted), pa.string())))

    def _column(self, name: str) -> list[Any]:
        return list(from_parquet(self.data, [name]).column(name).to_pylist())


def part_of(records: Iterable[CommitRecord]) -> Part:
    """Records that are not stored rolled up yet, as a part."""
    ordered = sorted(records, key=lambda record: record.shard.id)
    rows = pa.Table.from_pylist([_row(record) for record in ordered], PART_SCHEMA)
    return _part(rows, RunStats.sum(record.stats for record in ordered))


def parts_of(tables: Sequence[pa.Table]) -> Iterator[Part]:
    """Rows of other parts put together and cut anew, in the order of their shards; each shard once in all."""
    joined = pa.concat_tables([table.replace_schema_metadata() for table in tables]).sort_by("shard")
    for start in range(0, joined.num_rows, PART_RECORDS):
        rows = joined.slice(start, PART_RECORDS)
        yield _part(rows, RunStats.sum(RunStats.from_json(json.loads(stats)) for stats in rows.column("stats").to_pylist()))


def _part(table: pa.Table, total: RunStats) -> Part:
    return Part("", to_parquet(table.replace_schema_metadata({_STATS: json.dumps(total.figures(), sort_keys=True)})))


def _row(record: CommitRecord) -> dict[str, Any]:
    shard = record.shard
    definition = {"cut": shard.cut, "pieces": [without_defaults(p) for p in shard.pieces], "duplicates": dict(shard.duplicates)}
    return {
        "shard": shard.id,
        "run_id": record.run_id,
        "notes": record.stats.notes_in,
        "revised": record.revised,
        "code_version": record.code_version,
        "committed_at": record.committed_at,
        "definition": json.dumps(definition, sort_keys=True),
        "files": json.dumps({kind: asdict(file) for kind, file in record.files.items()}, sort_keys=True),
        "stats": json.dumps(record.stats.figures(), sort_keys=True),
    }


def _record(row: dict[str, Any], version: str) -> CommitRecord:
    shard = Shard.from_json({"id": row["shard"], **json.loads(row["definition"])})
    files = {kind: DataFile(**file) for kind, file in json.loads(row["files"]).items()}
    stats = RunStats.from_json(json.loads(row["stats"]))
    return CommitRecord(shard, version, row["run_id"], files, stats, row["code_version"], row["committed_at"], row["revised"])
