"""One export from beginning to end: find the release, convert shard by shard what is not done yet, then manifest and sweep."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.exporting.ledger import ExportRecord, load_records, put_devices, put_manifest, put_shard, sweep
from pipeline.exporting.release import Release, find_release, shard_notes
from schemas.commit import CommitRecord, DataFile
from schemas.errors import ConfigurationError
from transforms.batch import guarded
from transforms.exports.shard import ExportSettings, export_shard
from transforms.store import LocalStore, Store

# Files of an export that was killed, or of one that is still at work, are left alone for so long.
GRACE_S = 3600.0


@dataclass(frozen=True, slots=True)
class ExportOutcome:
    """What stands in the destination. `resumed`: shards that were exported before. `files`: (table, file) in the manifest's order."""

    release: Release
    records: tuple[ExportRecord, ...] = field(repr=False)
    files: tuple[tuple[str, DataFile], ...] = field(repr=False)
    resumed: int
    swept: int
    seconds: float

    def figures(self) -> dict[str, Any]:
        """Counts only."""
        rows: Counter[str] = Counter()
        for table, file in self.files:
            rows[table] += file.rows
        return {
            "version": self.release.version,
            "shards": len(self.records),
            "shards_resumed": self.resumed,
            **_totals(self.records),
            "files": len(self.files),
            "bytes": sum(file.size for _, file in self.files),
            "rows": dict(sorted(rows.items())),
            "swept": self.swept,
            "seconds": round(self.seconds, 3),
        }


def run_export(
    store: Store,
    destination: Store,
    settings: ExportSettings,
    version: str | None = None,
    on_shard: Callable[[int, int], None] | None = None,
    grace_s: float = GRACE_S,
) -> ExportOutcome:
    """Export what is released. Run again, it goes on where it was stopped; the files are the same. One export per target at a time.

    `on_shard`: told shards done and in all. Raises ConfigurationError when nothing is released, or when the destination lies in the run.
    """
    check_apart(store, destination)
    started = time.monotonic()
    with guarded("export"):
        release = find_release(store, version)
        records = load_records(destination, settings, release)
        resumed = len(records)
        for commit in release.commits:
            if commit.shard.id not in records:
                records[commit.shard.id] = _export(store, destination, settings, release, commit)
            if on_shard:
                on_shard(len(records), len(release.commits))
        ordered = tuple(records[commit.shard.id] for commit in release.commits)
        devices = put_devices(destination, settings, release, ordered)
        files = tuple(pair for record in ordered for pair in zip(record.tables, record.files, strict=True))
        files = (*files, *((("Device", devices),) if devices else ()))
        put_manifest(destination, settings, release, files, _totals(ordered))
        swept = sweep(destination, settings, release, [file for _, file in files], grace_s)
    return ExportOutcome(release, ordered, files, resumed, swept, time.monotonic() - started)


def _export(store: Store, destination: Store, settings: ExportSettings, release: Release, commit: CommitRecord) -> ExportRecord:
    notes = shard_notes(store, release, commit)
    return put_shard(destination, settings, release, commit.shard.id, len(notes), export_shard(notes, settings))


def _totals(records: Iterable[ExportRecord]) -> dict[str, Any]:
    records = list(records)
    return {
        "notes": sum(record.notes for record in records),
        "left_out": _summed(record.left_out for record in records),
        "altered": _summed(record.altered for record in records),
    }


def _summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for some in counts:
        total.update(some)
    return dict(sorted(total.items()))


def check_apart(store: Store, destination: Store) -> None:
    """An export inside the run's own folder would count as a leak there, and be in the way of its readers."""
    run, own = (_resolved(one).rstrip("/") + "/" for one in (store, destination))
    if own.startswith(run) or run.startswith(own):
        raise ConfigurationError("--output: the destination and the run's folder must not lie within each other; choose another folder")


def _resolved(store: Store) -> str:
    return str(store.root.resolve()) if isinstance(store, LocalStore) else store.uri
