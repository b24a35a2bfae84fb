"""What is released, and the notes of one of its shards. Follows `_CURRENT.json`, `live.json` and commit records, never listings of data."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import pyarrow as pa

from schemas.commit import CommitRecord, digest
from schemas.errors import AccountingError, ChartmillError, ConfigurationError
from transforms.exports.shard import ExportNote
from transforms.ledger import load_commits, load_ledger, runs_folder
from transforms.parquet import from_parquet
from transforms.store import NotFound, Store

# As pipeline.publish writes it; importing that would load Beam.
CURRENT = "_CURRENT.json"
_OVERTAKEN = "the run was published again while it was exported; export again"


@dataclass(frozen=True, slots=True)
class Release:
    """The released shards of a version, in the order of their ids.

    `first_rows`: by file number, how many rows were planned in the files before it. Files are only ever added, so a note's number stays.
    """

    version: str
    released_at: str
    commits: tuple[CommitRecord, ...] = field(repr=False)
    first_rows: Mapping[int, int] = field(repr=False)

    @property
    def shards(self) -> set[str]:
        return {commit.shard.id for commit in self.commits}


def find_release(store: Store, version: str | None = None) -> Release:
    """What is released of a version, by default of the current one. Raises ConfigurationError when nothing is."""
    try:
        version = version or json.loads(store.get(CURRENT))["version"]
    except NotFound:
        raise ConfigurationError(
            "export: nothing is released in this output folder; `chartmill run` makes a release, "
            "`chartmill report OUT --accept` releases a run that the gate held"
        ) from None
    try:
        live = json.loads(store.get(f"{runs_folder(version)}/live.json"))
    except NotFound:
        raise ConfigurationError(f"--version {version}: nothing of it is released in this output folder") from None
    commits = load_commits(store, version)
    if not live["shards"].keys() <= commits.keys():
        raise ChartmillError(_OVERTAKEN)
    files = sorted(load_ledger(store, version).files, key=lambda file: file.number)
    before = accumulate((file.rows for file in files), initial=0)
    first_rows = {file.number: rows for file, rows in zip(files, before, strict=False)}
    return Release(version, live["released_at"], tuple(commits[shard] for shard in sorted(live["shards"])), first_rows)


def shard_notes(store: Store, release: Release, commit: CommitRecord) -> list[ExportNote]:
    """The summarized notes of a shard, each with its record. Raises AccountingError when the two do not match."""
    summaries, records = (_rows(store, commit, kind) for kind in ("summaries", "records"))
    if summaries and "records" not in commit.files:
        raise ConfigurationError("export: this run wrote summaries only (tasks.record.reader: off); an export needs records too")
    if [_place(row) for row in summaries] != [_place(row) for row in records]:
        raise AccountingError(f"shard {commit.shard.id}: its records are not those of its summaries")
    return [_note(release, commit, *rows) for rows in zip(summaries, records, strict=True)]


def _rows(store: Store, commit: CommitRecord, kind: str) -> list[dict[str, Any]]:
    if kind not in commit.files:
        return []
    try:
        table: pa.Table = from_parquet(store.get(commit.files[kind].path))
    except NotFound:
        raise ChartmillError(_OVERTAKEN) from None
    return sorted(table.to_pylist(), key=_place)


def _place(row: Mapping[str, Any]) -> tuple[int, int]:
    return row["source_file"], row["source_row"]


def _note(release: Release, commit: CommitRecord, summary: Mapping[str, Any], record: Mapping[str, Any]) -> ExportNote:
    file, row = _place(summary)
    # By where the note stands: a hash of its id could be found again by trying ids.
    place = digest("export", release.version, commit.shard.cut, file, row, length=32)
    return ExportNote(place, 1 + release.first_rows[file] + row, commit.committed_at, summary, record)
