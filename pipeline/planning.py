"""Planning a run: list the inputs, read the ids of what is new, agree on cuts, and say what is to do.

No model is loaded. Runs agree through the ledger, which is also where a file's cuts stay for good.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from schemas.commit import CommitRecord, InputFile, Plan, PlannedShard, Segment, Shard
from schemas.errors import ChartmillError, ConfigurationError
from transforms.batch import guarded
from transforms.columns import ColumnMap
from transforms.inputs import Listing, list_inputs
from transforms.ledger import Ledger, append_entry, load_commits, load_ids, load_ledger, put_plan
from transforms.plan import Cut, NoteIds, current_shards, cut_files, cut_segments, decide_duplicates, limit_shards, superseded_files
from transforms.revise import can_revise
from transforms.scan import scan_file
from transforms.store import Store

_SCAN_THREADS = 8
# Every lost race means that another run has planned; more than this many in a row is not a race.
_PLANNING_ATTEMPTS = 50


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """What planning needs from the job. `limit`: notes, rounded up to whole shards."""

    uris: tuple[str, ...] = field(repr=False)
    columns: ColumnMap
    duplicates: str
    shard_notes: int
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class RunPlan:
    """A plan and what follows from it for this run.

    `to_do`: segments of shards without a commit. `revisions`: (committed record, shard) pairs that need no generation.
    `duplicates`: rows set aside as DUPLICATE_ID.
    """

    plan: Plan
    to_do: tuple[Segment, ...] = field(repr=False)
    revisions: tuple[tuple[CommitRecord, Shard], ...] = field(repr=False)
    duplicates: int = 0

    @property
    def shards_to_do(self) -> int:
        return sum(len(segment.shards) for segment in self.to_do)

    @property
    def notes_to_do(self) -> int:
        return sum(shard.rows for segment in self.to_do for shard in segment.shards)


def plan_run(store: Store, version: str, run_id: str, settings: PlanSettings, provenance: Mapping[str, Any], save: bool = True) -> RunPlan:
    """Plan a run against what is already planned and committed.

    With `save` false nothing is written: the plan is what a run started now would get. Raises ConfigurationError for unusable inputs.
    """
    listing = list_inputs(settings.uris)
    for _ in range(_PLANNING_ATTEMPTS):
        ledger = load_ledger(store, version)
        ledger, ids, agreed = _with_new_files(store, version, ledger, listing, settings, save)
        if agreed:
            run_plan = _decide(store, version, run_id, ledger, ids, listing, settings, provenance)
            if save and not put_plan(store, run_plan.plan):
                raise ConfigurationError(f"--run-id {run_id}: a run of that name exists; choose another")
            return run_plan
    raise ChartmillError("planning lost every race for the next ledger entry; is something else writing to _runs/?")


def _with_new_files(
    store: Store, version: str, ledger: Ledger, listing: Listing, settings: PlanSettings, save: bool
) -> tuple[Ledger, NoteIds, bool]:
    """The ledger with every listed file in it and all ids; the last value is False when another run added an entry first."""
    known = {(file.path, file.identity) for file in _newest(ledger.files)}
    new = [file for file in listing.files if (file.path, file.identity) not in known]
    if not new:
        return ledger, load_ids(store, ledger), True
    first = len(ledger.files)
    # Ids are read here: whatever goes wrong must not quote them.
    with guarded("plan"), ThreadPoolExecutor(_SCAN_THREADS) as pool:
        scans = list(pool.map(lambda pair: scan_file(pair[1], pair[0], settings.columns), enumerate(new, start=first)))
    readable = [scan for scan in scans if not scan.file.problem]
    if settings.duplicates == "latest" and readable and not any(scan.dated for scan in readable):
        raise ConfigurationError("input.duplicates: latest goes by written_at, which no new file has; map it with input.columns.written_at")
    files = tuple(scan.file for scan in scans)
    cuts = tuple(cut_files(files, {scan.file.number: scan.row_groups for scan in scans}, settings.shard_notes))
    ids = NoteIds.concatenate([scan.ids for scan in scans])
    if save and not append_entry(store, version, ledger, files, cuts, ids):
        return ledger, ids, False
    grown = Ledger(ledger.entry + 1, ledger.files + files, ledger.cuts + cuts, ledger.ids)
    return grown, NoteIds.concatenate([load_ids(store, ledger), ids]), True


def _newest(files: Sequence[InputFile]) -> list[InputFile]:
    gone = superseded_files(files)
    return [file for file in files if file.number not in gone]


def _decide(
    store: Store,
    version: str,
    run_id: str,
    ledger: Ledger,
    ids: NoteIds,
    listing: Listing,
    settings: PlanSettings,
    provenance: Mapping[str, Any],
) -> RunPlan:
    superseded = superseded_files(ledger.files)
    duplicates = decide_duplicates(ids, settings.duplicates, superseded)
    locations = _locations(ledger.files, superseded, listing)
    commits = load_commits(store, version)
    standing = _Standing(ledger, superseded, duplicates, set(locations), commits)
    current = [decision.shard for decision in standing.decisions]
    chosen = {shard.id for shard in limit_shards(current, settings.limit)}
    to_do = [d.shard for d in standing.decisions if d.shard.id in chosen and d.record is None and d.shard.id not in commits]
    plan = Plan(
        run_id=run_id,
        version=version,
        created_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        ledger=ledger.entry,
        duplicates=settings.duplicates,
        current=tuple(PlannedShard(s.id, s.rows, s.id in chosen) for s in current),
        files=_file_counts(ledger, listing),
        settings=dict(provenance),
    )
    revisions = tuple((d.record, d.shard) for d in standing.decisions if d.record is not None and d.shard.id in chosen)
    by_number = {file.number: file for file in ledger.files}
    lost = sum(len(rows) for rows in duplicates.values())
    return RunPlan(plan, tuple(cut_segments(to_do, by_number, locations)), revisions, lost)


def _locations(files: Sequence[InputFile], superseded: set[int], listing: Listing) -> dict[int, str]:
    found = {(file.path, file.identity): file.location for file in listing.files}
    return {
        file.number: found[file.path, file.identity]
        for file in files
        if file.number not in superseded and (file.path, file.identity) in found
    }


def _file_counts(ledger: Ledger, listing: Listing) -> dict[str, int]:
    return {
        "listed": len(listing.files),
        "planned": len(ledger.files),
        "unreadable": sum(1 for file in _newest(ledger.files) if file.problem),
        "ignored": sum(listing.ignored.values()),
    }


@dataclass(frozen=True, slots=True)
class _Decision:
    """A current shard; `record` is the commit to revise it from, if it needs that."""

    shard: Shard
    record: CommitRecord | None = None


class _Standing:
    """How each cut stands today: which shard it is, and whether that is committed, can be revised, or is to be done."""

    def __init__(
        self,
        ledger: Ledger,
        superseded: set[int],
        duplicates: Mapping[int, tuple[int, ...]],
        present: set[int],
        commits: Mapping[str, CommitRecord],
    ) -> None:
        self._superseded = superseded
        self._duplicates = duplicates
        self._gone = {file.number for file in ledger.files} - present
        self._commits = commits
        self._of_cut: dict[str, list[CommitRecord]] = {}
        for record in commits.values():
            self._of_cut.setdefault(record.shard.cut, []).append(record)
        self.decisions = [d for cut in ledger.cuts for d in self._decide(cut)]

    def _decide(self, cut: Cut) -> list[_Decision]:
        for left_out in (self._superseded, self._superseded | self._gone):
            shards = current_shards([cut], left_out, self._duplicates)
            if not shards:
                return []
            [shard] = shards
            if shard.id in self._commits:
                return [_Decision(shard)]
            ancestor = next((r for r in self._of_cut.get(cut.id, ()) if can_revise(r, shard)), None)
            if ancestor is not None:
                return [_Decision(shard, ancestor)]
            if not self._gone & {piece.file for piece in shard.pieces}:
                return [_Decision(shard)]
            # Part of the input is gone: what was made of it stays, even where the duplicates would be decided otherwise today.
            kept = next((r for r in self._of_cut.get(cut.id, ()) if {p.file for p in r.shard.pieces} & self._gone - self._superseded), None)
            if kept is not None:
                return [_Decision(kept.shard)]
        return []
