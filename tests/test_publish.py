"""Publishing many shards: it writes what is new, lists no more than it needs, and tells the same whatever is rolled up."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from pipeline.direct import run_directly
from pipeline.planning import RunPlan, plan_run
from pipeline.prepare import PreparedJob, prepare
from pipeline.publish import publish
from tests.conftest import all_rows, echo_job, note_rows, write_notes
from tests.test_histories import check_history
from transforms.ledger import commit_key, list_commits, load_commits
from transforms.store import Entry, LocalStore


@dataclass(frozen=True)
class Watched(LocalStore):
    """A folder that remembers what was put and which folders were listed."""

    written: deque[str] = field(default_factory=deque, compare=False)
    listed: deque[str] = field(default_factory=deque, compare=False)

    def put(self, key: str, data: bytes) -> None:
        self.written.append(key)
        super().put(key, data)

    def list(self, prefix: str) -> Iterator[Entry]:
        self.listed.append(prefix)
        return super().list(prefix)


@pytest.fixture
def tiny_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transforms.rolled.PART_RECORDS", 4)
    monkeypatch.setattr("transforms.ledger.PART_RECORDS", 4)
    monkeypatch.setattr("transforms.ledger.SMALL_PART", 3)


def prepared_job(notes: Path, output: Path, **settings: Any) -> PreparedJob:
    return prepare(echo_job(notes, output, **{"engine.shard_notes": 2, "gate.contract": "ignore", **settings}))


def run_without_beam(prepared: PreparedJob, run_id: str) -> RunPlan:
    run_plan = plan_run(prepared.store, prepared.version, run_id, prepared.plan_settings(), prepared.said_in_plan())
    run_directly(prepared, run_plan)
    return run_plan


def figures(report: Any) -> Any:
    """All but what depends on the clock."""
    return {key: value for key, value in report.items() if key not in ("created_at", "run", "seconds", "notes_per_second")}


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_parts")
def test_a_night_costs_what_is_new(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    write_notes(notes / "a.parquet", note_rows(16))
    prepared = prepared_job(notes, tmp_path / "out")
    store, version = Watched(tmp_path / "out"), prepared.version
    run_without_beam(prepared, "first")
    publish(store, version)
    large = list_commits(store, version)[1]
    assert len(large) == 2
    write_notes(notes / "b.parquet", note_rows(2, 16))
    night = run_without_beam(prepared, "night")
    assert night.shards_to_do == 1
    store.written.clear()
    store.listed.clear()
    published = publish(store, version)
    assert published.released and published.report["notes_in"] == 18
    # Nor is the whole of `_runs/` listed, where all single records of all versions are.
    assert "_runs/" not in store.listed and store.listed.count(f"_runs/{version}/commits/") == 2
    rolled = [key for key in store.written if "/rolled/" in key]
    assert len(rolled) == 1 and sorted([*large, *rolled]) == sorted(list_commits(store, version)[1])
    store.written.clear()
    again = publish(store, version)
    assert figures(again.report) == figures(published.report)
    assert not [key for key in store.written if "/rolled/" in key]


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_parts")
@pytest.mark.parametrize("limit", [None, 7])
def test_the_report_is_the_same_whatever_is_rolled_up(tmp_path: Path, limit: int | None) -> None:
    notes = tmp_path / "notes"
    write_notes(notes / "a.parquet", [*note_rows(20), {"note_id": "blank", "text": " "}])
    run_without_beam(prepared_job(notes, tmp_path / "out"), "whole")
    prepared = prepared_job(notes, tmp_path / "out", **({"run.limit": limit} if limit else {}))
    run_without_beam(prepared, "scope")
    store, version = prepared.store, prepared.version
    records = load_commits(store, version)
    reports = [figures(publish(store, version).report)]
    rows = all_rows(tmp_path / "out")
    for kept in (0, 1, 2):
        for shard, record in records.items():
            store.put_once(commit_key(version, shard), record.to_bytes())
        for key in list_commits(store, version)[1][kept:]:
            store.delete(key)
        reports.append(figures(publish(store, version).report))
    assert all(report == reports[0] for report in reports)
    assert reports[0]["notes_in"] == (8 if limit else 21) and reports[0]["total"]["notes_in"] == 21
    assert all_rows(tmp_path / "out") == rows
    live = json.loads((tmp_path / "out" / f"_runs/{version}/live.json").read_text())["shards"]
    assert live == {shard: {kind: file.path for kind, file in record.files.items()} for shard, record in records.items()}


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_parts")
@pytest.mark.parametrize("seed", range(200, 206))
def test_many_histories_in_tiny_parts(seed: int, tmp_path: Path) -> None:
    check_history(seed, tmp_path)
