"""Publishing: what is committed becomes a report and, when the gate lets it pass, a release. A plain function of the store, safe to repeat.

Nothing that is released is deleted before its replacement is released. Order: report, then (only for a complete run
that passes) `live.json`, the rolled-up commits, removal of what is no longer live, `_SUCCESS` and `_CURRENT.json`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from typing import Any

from pipeline.gate import check_gate
from pipeline.report import render_report
from schemas.commit import CommitRecord, Plan, PlannedShard, RunStats, digest
from schemas.errors import AccountingError, ConfigurationError
from schemas.expectations import read_suite
from schemas.histogram import EDGES
from transforms.audit import open_chain
from transforms.commit import KINDS, SCHEMAS, data_folder, utc_now
from transforms.ledger import attempts, commit_key, forget_attempts, list_commits, load_commits, newest_plan, roll_commits, runs_folder
from transforms.parquet import to_parquet
from transforms.stats import merge_stats
from transforms.store import Entry, LocalStore, NotFound, Store
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
    """The current shards of the newest plan, each with its commit record where it has one."""

    plan: Plan
    commits: Mapping[str, CommitRecord] = field(repr=False)

    def records(self, shards: Sequence[PlannedShard]) -> list[CommitRecord]:
        return [self.commits[shard.id] for shard in shards if shard.id in self.commits]

    @property
    def remaining(self) -> list[PlannedShard]:
        return [shard for shard in self.plan.scope if shard.id not in self.commits]

    def fingerprint(self) -> str:
        """Names exactly this set of committed shards: what an acceptance is given for."""
        return digest(sorted(r.shard.id for r in self.records(self.plan.current)))


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
    rolled = list_commits(store, plan.version)[1]
    live = _Live(plan, load_commits(store, plan.version))
    stats = merge_stats(record.stats for record in live.records(live.plan.scope))
    _assert_accounted(live, stats)
    contract = merge_expectations(_suite(live.plan), stats.expectations)
    gate = check_gate(stats, contract, live.plan.files, live.plan.settings["gate"])
    complete = not live.remaining
    gate["accepted"] = _acceptance(store, live, accept if complete and not gate["passed"] else None)
    report = _report(store, live, stats, contract, gate, _run_figures(store, live, run_seconds, model_loads))
    store.put(REPORT_JSON, json.dumps(report, indent=1, sort_keys=True).encode())
    store.put(REPORT_HTML, render_report(report).encode())
    released = complete and (gate["passed"] or gate["accepted"] is not None)
    if released:
        released = _release(store, live, report, sweep_after_s, rolled)
        # Overtaken by another run's plan: neither held nor complete.
        complete = released
    return Published(report, complete, released)


def _suite(plan: Plan) -> Any:
    return read_suite(json.dumps(plan.settings["suite"]), "the plan's contract")


def _assert_accounted(live: _Live, stats: RunStats) -> None:
    """Notes in = summarized + quarantined, and notes in = the rows that were planned, shard by shard."""
    for shard in live.plan.current:
        record = live.commits.get(shard.id)
        if record and record.stats.notes_in != shard.rows:
            raise AccountingError(f"shard {shard.id}: {shard.rows} notes planned, {record.stats.notes_in} committed")
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
    mine = [r for r in live.records(live.plan.scope) if r.run_id == live.plan.run_id and not r.revised]
    notes = sum(record.stats.notes_in for record in mine)
    if seconds is None:
        earlier = _standing_report(store)
        if earlier.get("run_id") == live.plan.run_id:
            seconds, loads = earlier["run"]["seconds"], earlier["run"]["model_loads"]
    rate = round(notes / seconds, 3) if seconds and notes else None
    return {"shards": len(mine), "notes": notes, "seconds": seconds, "notes_per_second": rate, "model_loads": loads}


def _standing_report(store: Store) -> dict[str, Any]:
    try:
        return dict(json.loads(store.get(REPORT_JSON)))
    except NotFound:
        return {}


def _report(
    store: Store,
    live: _Live,
    stats: RunStats,
    contract: Sequence[Mapping[str, Any]],
    gate: Mapping[str, Any],
    run: Mapping[str, Any],
) -> dict[str, Any]:
    plan = live.plan
    figures = asdict(stats)
    histograms = {name: {"edges": list(EDGES[name]), "counts": counts} for name, counts in stats.histograms.items()}
    # Without a limit the run's scope is everything, and what was merged for it need not be merged again.
    total = stats if len(plan.scope) == len(plan.current) else merge_stats(r.stats for r in live.records(plan.current))
    return {
        "run_id": plan.run_id,
        "version": plan.version,
        "created_at": utc_now(),
        "complete": not live.remaining,
        "remaining_shards": len(live.remaining),
        "remaining_notes": sum(shard.rows for shard in live.remaining),
        **{key: figures[key] for key in ("notes_in", "notes_summarized", "notes_quarantined", "files_quarantined")},
        **{key: figures[key] for key in ("notes_flagged", "notes_warned", "reasons", "flags", "fields", "sentences", "tokens", "shards")},
        "shards_resumed": stats.shards - run["shards"],
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


def _release(store: Store, live: _Live, report: Mapping[str, Any], sweep_after_s: float, rolled: Sequence[str]) -> bool:
    """False, changing nothing, when another run has planned since: its publishing, which knows more, releases."""
    version, records = live.plan.version, live.records(live.plan.current)
    folder = runs_folder(version)
    empties = _put_empties(store, version, records)
    stored = [entry for kind in KINDS for entry in store.list(data_folder(kind, version))]
    retired = _retired(store, live, stored)
    if _is_overtaken(store, live):
        return False
    _assert_stored(records, stored)
    files = {record.shard.id: {kind: file.path for kind, file in record.files.items()} for record in records}
    live_json = {"version": version, "run_id": live.plan.run_id, "released_at": utc_now(), "shards": files, "retired": sorted(retired)}
    store.put(f"{folder}/live.json", json.dumps(live_json, sort_keys=True).encode())
    # A record must never stand without its data, so all records that are no longer live go before any data does.
    roll_commits(store, version, records, rolled)
    _delete_commits(store, live)
    _delete_data(store, live, stored, {path for paths in files.values() for path in paths.values()} | empties, retired, sweep_after_s)
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
    newest = newest_plan(store)
    return newest is not None and (newest.version, newest.run_id) != (live.plan.version, live.plan.run_id)


def _assert_stored(records: Sequence[CommitRecord], stored: Sequence[Entry]) -> None:
    """What is released is there: somebody may have deleted a data file by hand."""
    keys = {entry.key for entry in stored}
    for record in records:
        for kind, file in record.files.items():
            if file.path not in keys:
                raise AccountingError(f"shard {record.shard.id}: its {kind} file is gone; put it back, or run into a new output folder")


def _shard_of(entry: Entry) -> str:
    return entry.key.rsplit("/", 1)[1].split("-", 1)[0]


def _retired(store: Store, live: _Live, stored: Sequence[Entry]) -> set[str]:
    """Shards that once were live and have data files still. `live.json` remembers those whose record is gone already."""
    try:
        before = json.loads(store.get(f"{runs_folder(live.plan.version)}/live.json")).get("retired", [])
    except NotFound:
        before = []
    gone = {*before, *live.commits} - {shard.id for shard in live.plan.current}
    return gone & {_shard_of(entry) for entry in stored}


def _put_empties(store: Store, version: str, records: Sequence[CommitRecord]) -> set[str]:
    """A Parquet file without rows for each kind that has none, so that readers need no special case."""
    keys = set()
    for kind in KINDS:
        if not any(kind in record.files for record in records):
            key = f"{data_folder(kind, version)}{_EMPTY}-empty.parquet"
            store.put(key, to_parquet(SCHEMAS[kind].empty_table()))
            keys.add(key)
    return keys


def _delete_commits(store: Store, live: _Live) -> None:
    """Delete the records of retired shards, and marks that a kill between a record and its mark's removal left behind."""
    current = {shard.id for shard in live.plan.current}
    for shard, record in live.commits.items():
        if shard not in current:
            store.delete(commit_key(record.version, shard))
    for shard in attempts(store, live.plan.version).keys() & live.commits.keys():
        forget_attempts(store, live.plan.version, shard)


def _delete_data(store: Store, live: _Live, stored: Sequence[Entry], keep: Set[str], retired: Set[str], sweep_after_s: float) -> None:
    """Delete data files that no live record names.

    At once when their shard is committed or retired (no writer can still win with them), otherwise only after `sweep_after_s`:
    another run may be about to commit them.
    """
    decided = {*live.commits, *retired, _EMPTY}
    for entry in stored:
        if entry.key not in keep and (_shard_of(entry) in decided or time.time() - entry.modified > sweep_after_s):
            store.delete(entry.key)
    if isinstance(store, LocalStore):
        store.sweep_temporary(sweep_after_s)
