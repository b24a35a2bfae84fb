"""Planning a run: list the inputs, read the ids of what is new, agree on cuts, and say what is to do.

No model is loaded. Runs agree through the ledger, which is also where a file's cuts stay for good.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from schemas.commit import CommitRecord, InputFile, Piece, Plan, PlannedShard, Segment, Shard
from schemas.errors import ChartmillError, ConfigurationError
from schemas.rejection import Reason
from transforms.batch import guarded
from transforms.columns import ColumnMap
from transforms.formats.layout import ReadOptions, layout_name
from transforms.inputs import FoundFile, Listing, list_inputs
from transforms.ledger import Ledger, append_entry, load_commits, load_ids, load_ledger, load_shards, put_plan
from transforms.plan import (
    NO_IDS,
    Cut,
    NoteIds,
    RowPlaces,
    current_shards,
    cut_files,
    cut_segments,
    decide_duplicates,
    limit_shards,
    superseded_files,
)
from transforms.revise import can_revise
from transforms.scan import ScannedFile, scan_file
from transforms.store import Store

_SCAN_THREADS = 8
_FILES_PER_PAGE = 4096
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
    reading: ReadOptions = field(default_factory=ReadOptions)


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
    listing = list_inputs(settings.uris, settings.reading.format)
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
    before = {(file.path, file.identity): file for file in ledger.files}
    unknown = [file for file in listing.files if (file.path, file.identity) not in known]
    # A file that is again what it once was is listed again under its number: its cuts, ids and commits are known by that.
    back = tuple(before[file.path, file.identity] for file in unknown if (file.path, file.identity) in before)
    new = [file for file in unknown if (file.path, file.identity) not in before]
    if not unknown:
        return ledger, load_ids(store, ledger), True
    first = len(ledger.files)
    # Ids are read here: whatever goes wrong must not quote them.
    with guarded("plan"):
        scans, ids = _scanned(new, first, settings)
    readable = [scan for scan in scans if not scan.file.problem]
    lacking = next((scan.missing for scan in scans if scan.missing), "")
    # One odd file must not stop a night's run; no file at all that can be read is a mistake in the job.
    if lacking and not readable and all(file.problem for file in ledger.files):
        raise ConfigurationError(lacking)
    if settings.duplicates == "latest" and readable and not any(scan.dated for scan in readable) and not ledger.ids:
        raise ConfigurationError("input.duplicates: latest goes by written_at, which no new file has; map it with input.columns.written_at")
    planned = tuple(scan.file for scan in scans)
    files = (*back, *planned)
    places = {scan.file.number: RowPlaces(scan.row_groups, scan.offsets, scan.lines) for scan in scans}
    cuts = tuple(cut_files(planned, places, settings.shard_notes))
    if save and not append_entry(store, version, ledger, files, cuts, ids):
        return ledger, ids, False
    grown = Ledger(ledger.entry + 1, ledger.files + files, ledger.cuts + cuts, ledger.ids)
    return grown, NoteIds.concatenate([load_ids(store, ledger), ids]), True


def _scanned(new: Sequence[FoundFile], first: int, settings: PlanSettings) -> tuple[list[ScannedFile], NoteIds]:
    """The new files, numbered from `first` on, and all their ids; page by page, for there may be 400,000 files of one note each."""
    scans: list[ScannedFile] = []
    ids: list[NoteIds] = []
    with ThreadPoolExecutor(_SCAN_THREADS) as pool:
        for start in range(0, len(new), _FILES_PER_PAGE):
            page = enumerate(new[start : start + _FILES_PER_PAGE], start=first + start)
            found = list(pool.map(lambda pair: scan_file(pair[1], pair[0], settings.columns, settings.reading), page))
            ids.append(NoteIds.concatenate([scan.ids for scan in found]))
            scans += [replace(scan, ids=NO_IDS) for scan in found]
    return scans, NoteIds.concatenate(ids)


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
    locations = _locations(ledger.files, superseded, listing)
    committed = load_shards(store, version)
    standing = _Standing(ledger, superseded, set(locations), committed)
    duplicates = decide_duplicates(ids, settings.duplicates, superseded, standing.lost)
    standing.decide(duplicates)
    current = [decision.shard for decision in standing.decisions]
    chosen = {shard.id for shard in limit_shards(current, settings.limit)}
    to_do = [d.shard for d in standing.decisions if d.shard.id in chosen and d.base is None and d.shard.id not in committed]
    plan = Plan(
        run_id=run_id,
        version=version,
        created_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        ledger=ledger.entry,
        duplicates=settings.duplicates,
        current=tuple(PlannedShard(s.id, s.rows, s.id in chosen) for s in current),
        files=_file_counts(ledger, listing, locations),
        settings={**provenance, "formats": _formats(ledger.files, locations)},
    )
    # Also beyond the limit: they generate nothing, and what is not revised now would leave the release and, its input gone, be lost.
    revisions = _with_records(store, version, [(d.base, d.shard) for d in standing.decisions if d.base is not None])
    by_number = {file.number: file for file in ledger.files}
    lost = sum(len(rows) for rows in duplicates.values())
    return RunPlan(plan, tuple(cut_segments(to_do, by_number, locations)), revisions, lost)


def _with_records(store: Store, version: str, pairs: Sequence[tuple[Shard, Shard]]) -> tuple[tuple[CommitRecord, Shard], ...]:
    """(committed shard, shard to make of it) with the record in place of the first."""
    records = load_commits(store, version, {base.id for base, _ in pairs}) if pairs else {}
    if any(base.id not in records for base, _ in pairs):
        raise ChartmillError("another run has released meanwhile, and a commit that was to be revised is gone; run again")
    return tuple((records[base.id], shard) for base, shard in pairs)


def _locations(files: Sequence[InputFile], superseded: set[int], listing: Listing) -> dict[int, str]:
    found = {(file.path, file.identity): file.location for file in listing.files}
    return {
        file.number: found[file.path, file.identity]
        for file in files
        if file.number not in superseded and (file.path, file.identity) in found
    }


def _formats(files: Sequence[InputFile], locations: Mapping[int, str]) -> dict[str, int]:
    """Readable files by how they are read."""
    return dict(sorted(Counter(layout_name(file.layout) for file in files if file.number in locations and not file.problem).items()))


def _file_counts(ledger: Ledger, listing: Listing, locations: Mapping[int, str]) -> dict[str, int]:
    problems = {file.number: file.problem for file in ledger.files if file.problem and file.number in locations}
    without_notes = sum(1 for problem in problems.values() if problem is Reason.NO_NOTES)
    return {
        "listed": len(listing.files),
        "planned": len(ledger.files),
        "unreadable": len(problems) - without_notes,
        "without_notes": without_notes,
        "ignored": sum(listing.ignored.values()),
    }


@dataclass(frozen=True, slots=True)
class _Decision:
    """A current shard; `base` is the committed one to revise it from, if it needs that."""

    shard: Shard
    base: Shard | None = None


class _Standing:
    """How each cut stands today: which shards it is, and whether they are committed, can be revised, or are to be done.

    Rows of files that are gone can only come from commits. `lost`: file number -> its rows that none has, which must not win over a
    duplicate that can be done.
    """

    def __init__(self, ledger: Ledger, superseded: set[int], present: set[int], committed: Mapping[str, Shard]) -> None:
        self._cuts = ledger.cuts
        self._superseded = superseded
        self._gone = {file.number for file in ledger.files} - present - superseded
        self._committed = committed
        self._of_cut: dict[str, list[Shard]] = {}
        for shard in committed.values():
            self._of_cut.setdefault(shard.cut, []).append(shard)
        self.lost: dict[int, set[int]] = {}
        self._undone: dict[str, set[int]] = {}
        self._kept: dict[int, set[int]] = {}
        for cut in ledger.cuts:
            self._find_lost(cut)
        self.decisions: list[_Decision] = []

    def _find_lost(self, cut: Cut) -> None:
        for piece in cut.pieces:
            if piece.file not in self._gone:
                continue
            base = self._base(cut, piece)
            if base is None:
                self._undone.setdefault(cut.id, set()).add(piece.file)
                self.lost.setdefault(piece.file, set()).update(range(piece.start, piece.stop))
            else:
                rejected = base.duplicates.get(piece.file, ())
                self.lost.setdefault(piece.file, set()).update(rejected)
                self._kept.setdefault(piece.file, set()).update(rejected)

    def _base(self, cut: Cut, piece: Piece) -> Shard | None:
        """The committed shard that holds most of a piece whose file is gone."""
        having = [done for done in self._of_cut.get(cut.id, ()) if piece in done.pieces]
        return min(having, key=lambda done: (len(done.duplicates.get(piece.file, ())), done.id), default=None)

    def decide(self, duplicates: Mapping[int, tuple[int, ...]]) -> None:
        """Fill `decisions`; `duplicates` were decided without the lost rows."""
        extra = {file: tuple(sorted({*duplicates.get(file, ()), *rows})) for file, rows in self._kept.items() if rows}
        merged = {**duplicates, **extra}
        self.decisions = [decision for cut in self._cuts for decision in self._decide(cut, merged)]

    def _decide(self, cut: Cut, duplicates: Mapping[int, tuple[int, ...]]) -> list[_Decision]:
        done = [piece for piece in cut.pieces if piece.file not in self._undone.get(cut.id, ())]
        whole = self._decided(cut, done, duplicates)
        if whole is not None:
            return whole
        # Part of the input is gone: that part is taken from its commit, the rest is done anew.
        parts = [[p for p in done if p.file not in self._gone], *([p] for p in done if p.file in self._gone)]
        return [decision for part in parts for decision in self._decided(cut, part, duplicates) or ()]

    def _decided(self, cut: Cut, pieces: Sequence[Piece], duplicates: Mapping[int, tuple[int, ...]]) -> list[_Decision] | None:
        """None: it would have to be done, and cannot be, because a file is gone."""
        keep = {piece.file for piece in pieces}
        shards = current_shards([cut], {p.file for p in cut.pieces if p.file in self._superseded or p.file not in keep}, duplicates)
        if not shards:
            return []
        [shard] = shards
        if shard.id in self._committed:
            return [_Decision(shard)]
        ancestors = [done for done in self._of_cut.get(cut.id, ()) if can_revise(done, shard)]
        if ancestors:
            # The nearest: an older one may be about to be deleted by another run's release.
            return [_Decision(shard, max(ancestors, key=lambda done: (sum(map(len, done.duplicates.values())), done.id)))]
        return None if self._gone & keep else [_Decision(shard)]
