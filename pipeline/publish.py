"""Publishing: what is committed becomes a report and, when the gate lets it pass, a release. A plain function of the store, safe to repeat.

Nothing that is released is deleted before its replacement is released. Order: report, then (only for a complete run
that passes) `live.json`, the rolled-up commits, removal of what is no longer live, `_SUCCESS` and `_CURRENT.json`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.gate import check_gate
from pipeline.report import render_report
from schemas.commit import Plan, PlannedShard, RunStats, digest
from schemas.errors import AccountingError, ConfigurationError
from schemas.expectations import read_suite
from schemas.histogram import EDGES
from transforms.audit import open_chain
from transforms.commit import KINDS, SCHEMAS, data_folder, utc_now
from transforms.ledger import (
    attempts,
    commit_key,
    delete_many,
    forget_attempts,
    load_parts,
    newest_header,
    newest_plan,
    roll_commits,
    runs_folder,
)
from transforms.parquet import to_parquet
from transforms.rolled import Part, Standing
from transforms.store import Entry, LocalStore, NotFound, Store
from transforms.store_retries import take_retries
from transforms.validate import merge_expectations

SUCCESS = "_SUCCESS"
CURRENT = "_CURRENT.json"
REPORT_JSON = "report.json"
REPORT_HTML = "report.html"
# The output's one empty file per kind, so that every kind can be read when nothing was rejected.
_EMPTY = "0" * 16


@dataclass(frozen=True, slots=True)
class Published:
    """`report` is the content of report.json. `released`: `_SUCCESS` stands and `_CURRENT.json` names this version."""

    report: Mapping[str, Any] = field(repr=False)
    complete: bool
    released: bool


@dataclass(frozen=True, slots=True)
class _Live:
    """The current shards of the newest plan, each with its commit where it has one.

    `commits`: by shard id, also of shards that are not current any more. `stats`: of the plan's scope; `total`: of all that is current.
    """

    plan: Plan
    parts: Sequence[Part] = field(repr=False)
    commits: Mapping[str, Standing] = field(repr=False)
    stats: RunStats = field(repr=False)
    total: RunStats = field(repr=False)

    def done(self, shards: Iterable[PlannedShard]) -> dict[str, Standing]:
        return {shard.id: self.commits[shard.id] for shard in shards if shard.id in self.commits}

    @property
    def remaining(self) -> list[PlannedShard]:
        return [shard for shard in self.plan.scope if shard.id not in self.commits]

    def fingerprint(self) -> str:
        """Names exactly this set of committed shards: what an acceptance is given for."""
        return digest(sorted(self.done(self.plan.current)))


def publish(
    store: Store,
    version: str | None = None,
    *,
    accept: str | None = None,
    sweep_after_s: float = 3600.0,
    run_seconds: float | None = None,
    model_loads: int | None = None,
) -> Published:
    """Report on, and if possible release, the newest plan of a version (by default: of the output folder).

    `accept`: release although the gate holds, for this reason, on record. Raises ConfigurationError when nothing was
    ever planned, AccountingError when a figure does not add up (then nothing is published).
    """
    plan = newest_plan(store, version)
    if plan is None:
        raise ConfigurationError("no run has been planned in this output folder; `chartmill run` makes one")
    live = _live(plan, load_parts(store, plan.version))
    _assert_accounted(live)
    contract = merge_expectations(_suite(plan), live.stats.expectations)
    gate = check_gate(live.stats, contract, plan.files, plan.settings["gate"])
    complete = not live.remaining
    gate["accepted"] = _acceptance(store, live, accept if complete and not gate["passed"] else None)
    report = _report(live, contract, gate, _run_figures(store, live, run_seconds, model_loads))
    store.put(REPORT_JSON, json.dumps(report, indent=1, sort_keys=True).encode())
    store.put(REPORT_HTML, render_report(report).encode())
    released = complete and (gate["passed"] or gate["accepted"] is not None)
    if released:
        released = _release(store, live, report, sweep_after_s)
        # Overtaken by another run's plan: neither held nor complete.
        complete = released
    return Published(report, complete, released)


def _suite(plan: Plan) -> Any:
    return read_suite(json.dumps(plan.settings["suite"]), "the plan's contract")


def _live(plan: Plan, parts: Sequence[Part]) -> _Live:
    """What the plan's shards have come to."""
    commits: dict[str, Standing] = {}
    for part in parts:
        commits.update(part.standing())
    current, scope = ({shard.id for shard in shards} for shards in (plan.current, plan.scope))
    stats = RunStats.sum(_stats_of(parts, scope))
    # Without a limit the run's scope is everything, and what was added up for it need not be added up again.
    total = stats if scope == current else RunStats.sum(_stats_of(parts, current))
    return _Live(plan, parts, commits, stats, total)


def _stats_of(parts: Iterable[Part], shards: Set[str]) -> Iterator[RunStats]:
    """The stats of these shards, each once, in sums as large as can be had."""
    left = set(shards)
    for part in parts:
        mine = left.intersection(part.ids)
        left -= mine
        if len(mine) == len(part.ids):
            yield part.stats
        elif mine:
            yield from part.stats_of(mine)


def _assert_accounted(live: _Live) -> None:
    """Notes in = summarized + quarantined, and notes in = the rows that were planned, shard by shard."""
    for shard in live.plan.current:
        commit = live.commits.get(shard.id)
        if commit and commit.notes != shard.rows:
            raise AccountingError(f"shard {shard.id}: {shard.rows} notes planned, {commit.notes} committed")
    stats = live.stats
    if stats.notes_in != stats.notes_summarized + stats.notes_quarantined:
        raise AccountingError(
            f"{stats.notes_in} notes in, but {stats.notes_summarized} summarized and {stats.notes_quarantined} quarantined"
        )


def _acceptance(store: Store, live: _Live, reason: str | None) -> dict[str, Any] | None:
    """The recorded acceptance of exactly these shards, if there is one; put on record first when a reason is given."""
    key = f"{runs_folder(live.plan.version)}/accepted/{live.fingerprint()}.json"
    if reason is not None:
        open_chain(store, live.plan.version, live.plan.run_id).append("run-accepted", utc_now(), {"shards": live.fingerprint()})
        store.put_once(key, json.dumps({"at": utc_now(), "run_id": live.plan.run_id, "reason": reason}).encode())
    try:
        return dict(json.loads(store.get(key)))
    except NotFound:
        return None


def _run_figures(store: Store, live: _Live, seconds: float | None, loads: int | None) -> dict[str, Any]:
    """What this run itself did. Wall-clock is known to the run alone, so publishing again takes it from the report that stands."""
    mine = [c for c in live.done(live.plan.scope).values() if c.run_id == live.plan.run_id and not c.revised]
    notes = sum(commit.notes for commit in mine)
    retries = take_retries()
    if seconds is None:
        earlier = _standing_report(store)
        if earlier.get("run_id") == live.plan.run_id:
            seconds, loads = earlier["run"]["seconds"], earlier["run"]["model_loads"]
            retries = earlier["run"].get("retries", {})
    rate = round(notes / seconds, 3) if seconds and notes else None
    figures = {"shards": len(mine), "notes": notes, "seconds": seconds, "notes_per_second": rate, "model_loads": loads}
    # What no commit has told: requests of this process since its last one.
    return {**figures, "retries": retries}


def _standing_report(store: Store) -> dict[str, Any]:
    try:
        return dict(json.loads(store.get(REPORT_JSON)))
    except NotFound:
        return {}


def _report(live: _Live, contract: Sequence[Mapping[str, Any]], gate: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    plan, stats, total = live.plan, live.stats, live.total
    figures = asdict(stats)
    histograms = {name: {"edges": list(EDGES[name]), "counts": counts} for name, counts in stats.histograms.items()}
    return {
        "run_id": plan.run_id,
        "version": plan.version,
        "created_at": utc_now(),
        "complete": not live.remaining,
        "remaining_shards": len(live.remaining),
        "remaining_notes": sum(shard.rows for shard in live.remaining),
        **{key: figures[key] for key in ("notes_in", "notes_summarized", "notes_quarantined", "files_quarantined")},
        **{key: figures[key] for key in ("notes_flagged", "notes_warned", "reasons", "flags", "fields", "sentences", "tokens", "shards")},
        "records": figures["records"],
        "shards_resumed": stats.shards - run["shards"],
        "retries": dict(sorted((Counter(stats.retries) + Counter(run["retries"])).items())),
        "files": plan.files,
        "formats": plan.settings.get("formats", {}),
        "expectations": list(contract),
        "seconds": {stage: round(seconds, 3) for stage, seconds in stats.seconds.items()},
        "notes_per_second": run["notes_per_second"],
        "histograms": histograms,
        "gate": dict(gate),
        **{key: plan.settings[key] for key in ("model", "versions", "settings")},
        "total": {key: getattr(total, key) for key in ("shards", "notes_in", "notes_summarized", "notes_quarantined", "files_quarantined")},
        "run": dict(run),
    }


def _release(store: Store, live: _Live, report: Mapping[str, Any], sweep_after_s: float) -> bool:
    """False, changing nothing, when another run has planned since: its publishing, which knows more, releases."""
    version, files = live.plan.version, {shard: commit.files for shard, commit in live.done(live.plan.current).items()}
    folder = runs_folder(version)
    empties = _put_empties(store, version, files.values())
    others, missing = _compared(store, version, files, empties)
    retired = _retired(store, live, others)
    if _is_overtaken(store, live):
        return False
    for kind, shard in missing:
        raise AccountingError(f"shard {shard}: its {kind} file is gone; put it back, or run into a new output folder")
    live_json = {"version": version, "run_id": live.plan.run_id, "released_at": utc_now(), "shards": files, "retired": sorted(retired)}
    store.put(f"{folder}/live.json", json.dumps(live_json, sort_keys=True).encode())
    # A record must never stand without its data, so all records that are no longer live go before any data does.
    roll_commits(store, version, live.parts, files.keys())
    _delete_commits(store, live)
    _delete_data(store, live, others, retired, sweep_after_s)
    summary = {key: report[key] for key in ("run_id", "version", "notes_in", "notes_summarized", "notes_quarantined")}
    store.put(SUCCESS, json.dumps(summary).encode())
    current = {**summary, "released_at": live_json["released_at"], "accepted": report["gate"]["accepted"] is not None}
    current["live"] = f"{folder}/live.json"
    current.update({kind: data_folder(kind, version) for kind in KINDS})
    store.put(CURRENT, json.dumps(current, sort_keys=True).encode())
    if _is_overtaken(store, live):
        # A run planned more work while this one was being released; its own publishing brings the marker back.
        store.delete(SUCCESS)
    return True


def _is_overtaken(store: Store, live: _Live) -> bool:
    newest = newest_header(store)
    return newest is not None and (newest.version, newest.run_id) != (live.plan.version, live.plan.run_id)


def _compared(
    store: Store, version: str, files: Mapping[str, Mapping[str, str]], empties: Set[str]
) -> tuple[list[Entry], list[tuple[str, str]]]:
    """Data files that are stored and not released; and (kind, shard) of what is not stored: somebody may have deleted one by hand."""
    expected = {path: (kind, shard) for shard, paths in files.items() for kind, path in paths.items()}
    others = []
    for entry in (entry for kind in KINDS for entry in store.list(data_folder(kind, version))):
        if expected.pop(entry.key, None) is None and entry.key not in empties:
            others.append(entry)
    return others, list(expected.values())


def _shard_of(entry: Entry) -> str:
    return entry.key.rsplit("/", 1)[1].split("-", 1)[0]


def _retired(store: Store, live: _Live, others: Sequence[Entry]) -> set[str]:
    """Shards that once were live and have data files still. `live.json` remembers those whose record is gone already."""
    try:
        before = json.loads(store.get(f"{runs_folder(live.plan.version)}/live.json")).get("retired", [])
    except NotFound:
        before = []
    gone = {*before, *live.commits} - {shard.id for shard in live.plan.current}
    return gone & {_shard_of(entry) for entry in others}


def _put_empties(store: Store, version: str, files: Iterable[Mapping[str, str]]) -> set[str]:
    """A Parquet file without rows for each kind that has none, so that readers need no special case."""
    keys, filled = set(), set[str]().union(*files)
    for kind in KINDS:
        if kind not in filled:
            key = f"{data_folder(kind, version)}{_EMPTY}-empty.parquet"
            store.put(key, to_parquet(SCHEMAS[kind].empty_table()))
            keys.add(key)
    return keys


def _delete_commits(store: Store, live: _Live) -> None:
    """Delete the records of retired shards, and marks that a kill between a record and its mark's removal left behind."""
    current = {shard.id for shard in live.plan.current}
    delete_many(store, [commit_key(live.plan.version, shard) for shard in live.commits if shard not in current])
    for shard in attempts(store, live.plan.version).keys() & live.commits.keys():
        forget_attempts(store, live.plan.version, shard)


def _delete_data(store: Store, live: _Live, others: Sequence[Entry], retired: Set[str], sweep_after_s: float) -> None:
    """Delete data files that no live record names.

    At once when their shard is committed or retired (no writer can still win with them), otherwise only after `sweep_after_s`:
    another run may be about to commit them.
    """
    decided = {*live.commits, *retired, _EMPTY}
    # By the storage's own clock, for ours may be an hour ahead of it: the report has just been put.
    now = store.modified(REPORT_JSON)
    old = [e.key for e in others if _shard_of(e) in decided or now - e.modified >= sweep_after_s]
    delete_many(store, old)
    if isinstance(store, LocalStore):
        store.sweep_temporary(sweep_after_s)
