"""Hosts agree on who does what: shares make up the whole, survive JSON, come from the first host once; who waits is not left waiting."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.hosts import Host, Work, agreed_work, shards_left, shards_of
from pipeline.planning import RunPlan, plan_run
from pipeline.prepare import prepare
from pipeline.run import run_job
from schemas.commit import Piece, Segment, Shard
from schemas.errors import ChartmillError, ConfigurationError
from tests.canaries import Canaries, assert_files_clean, assert_private, plant
from tests.conftest import all_rows, echo_job, note_rows, write_notes
from tests.test_resume import LENIENT
from transforms.ledger import newest_plan, plan_entries
from transforms.store import LocalStore

VERSION = "v000000000000"


def planned_work(notes: Path, output: Path, run_id: str = "job", **settings: Any) -> tuple[LocalStore, str, Work]:
    prepared = prepare(echo_job(notes, output, **settings))
    store = prepared.store
    assert isinstance(store, LocalStore)
    plan = plan_run(store, prepared.version, run_id, prepared.plan_settings(), prepared.said_in_plan())
    first, *others = plan.to_do
    return store, prepared.version, Work(replace(plan, to_do=tuple(others)), (first,))


def segments(count: int) -> tuple[Segment, ...]:
    return tuple(Segment(i, (Shard(f"s{i}", f"s{i}", (Piece(i, 0, 1),)),), (), {}) for i in range(count))


@given(count=st.integers(0, 40), apart=st.integers(0, 5), hosts=st.integers(1, 9))
def test_shares_make_up_the_whole(count: int, apart: int, hosts: int) -> None:
    nothing: Any = None  # the plan itself is passed on as it is
    whole = Work(RunPlan(nothing, segments(count), ()), segments(apart))
    shares = [whole.share(Host(index, hosts)) for index in range(hosts)]
    for of, size in ((lambda work: work.run_plan.to_do, count), (lambda work: work.apart, apart)):
        assert sorted((segment for share in shares for segment in of(share)), key=lambda s: s.index) == list(segments(size))
        assert max(len(of(share)) for share in shares) - min(len(of(share)) for share in shares) <= 1


def test_the_shares_of_a_plan_are_told_exactly(tmp_path: Path, canaries: Canaries) -> None:
    """Also of odd files: problems, several small files in one shard, text formats with offsets, duplicates."""
    store, version, work = planned_work(plant(tmp_path / "notes", canaries), tmp_path / "out", **{"engine.shard_notes": 3})
    assert any(shard.duplicates for segment in (*work.run_plan.to_do, *work.apart) for shard in segment.shards)
    shares = [agreed_work(store, version, "job", Host(index, 3, "job"), lambda: work, 5) for index in range(3)]
    for index, share in enumerate(shares):
        assert share.run_plan.to_do == work.run_plan.to_do[index::3] and share.apart == work.apart[index::3]
        assert share.run_plan.plan == work.run_plan.plan and share.run_plan.duplicates == work.run_plan.duplicates
    told = shards_of([s for share in shares for s in (*share.run_plan.to_do, *share.apart)])
    assert told == shards_of((*work.run_plan.to_do, *work.apart))
    assert shards_left(store, version, work.run_plan.plan) == len(told)
    assert_files_clean(tmp_path / "out", canaries)
    assert_private(tmp_path / "out")


def test_a_first_host_that_died_goes_on_with_what_was_agreed(notes_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.hosts.deaths", lambda: 1)
    store, version, work = planned_work(notes_folder, tmp_path / "out")
    # Of a death before that, there is nothing to go on with.
    share = agreed_work(store, version, "job", Host(0, 2, "job"), lambda: work, 5)
    assert agreed_work(store, version, "job", Host(0, 2, "job"), never, 5) == share == work.share(Host(0, 2))


def test_what_is_told_is_no_plan(notes_folder: Path, tmp_path: Path) -> None:
    store, version, work = planned_work(notes_folder, tmp_path / "out")
    agreed_work(store, version, "job", Host(0, 2, "job"), lambda: work, 5)
    assert [entry.key for entry in plan_entries(store, version)] == [f"_runs/{version}/plans/job.json"]
    assert newest_plan(store, version) == work.run_plan.plan
    [told] = [entry.key for entry in store.list("_runs/") if entry.key.endswith(".shares.gz")]
    assert told.startswith(f"_runs/{version}/plans/")  # where file names may stand


def test_the_others_wait_for_the_first(notes_folder: Path, tmp_path: Path) -> None:
    store, version, work = planned_work(notes_folder, tmp_path / "out")
    shares: dict[int, Work] = {}

    def take(index: int) -> None:
        shares[index] = agreed_work(store, version, "job", Host(index, 3, "job"), never, 20)

    threads = [threading.Thread(target=take, args=(index,)) for index in (1, 2)]
    for thread in threads:
        thread.start()
    shares[0] = agreed_work(store, version, "job", Host(0, 3, "job"), lambda: work, 5)
    for thread in threads:
        thread.join()
    assert sum(len(share.run_plan.to_do) for share in shares.values()) == len(work.run_plan.to_do)


def never() -> Work:
    raise AssertionError("only the first host plans")


def test_who_waits_is_told_that_planning_failed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)

    def fails() -> Work:
        raise ConfigurationError("no such column: secret")

    with pytest.raises(ConfigurationError, match="secret"):
        agreed_work(store, VERSION, "job", Host(0, 2, "job"), fails, 5)
    with pytest.raises(ChartmillError, match=r"the first host could not plan \(ConfigurationError\); its log says why"):
        agreed_work(store, VERSION, "job", Host(1, 2, "job"), never, 5)


def test_who_waits_does_not_wait_for_ever(tmp_path: Path) -> None:
    with pytest.raises(ChartmillError, match="within 0 s"):
        agreed_work(LocalStore(tmp_path), VERSION, "job", Host(1, 2, "job"), never, 0.01)


def test_a_job_is_told_once(notes_folder: Path, tmp_path: Path) -> None:
    store, version, work = planned_work(notes_folder, tmp_path / "out")
    agreed_work(store, version, "job", Host(0, 2, "job"), lambda: work, 5)
    agreed_work(store, version, "job", Host(0, 2, "job"), lambda: work, 5)  # a PUT whose answer was lost
    with pytest.raises(ConfigurationError, match="a name"):
        agreed_work(store, version, "job", Host(0, 2, "job"), lambda: Work(replace(work.run_plan, to_do=())), 5)


def test_one_host_tells_nobody(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="only the first host plans"):
        agreed_work(LocalStore(tmp_path / "out"), VERSION, "job", Host(), never, 5)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def eight_files(tmp_path: Path) -> Path:
    for number in range(8):
        write_notes(tmp_path / "notes" / f"{number}.parquet", note_rows(12, 12 * number))
    return tmp_path / "notes"


def test_hosts_one_after_the_other_do_what_one_does(eight_files: Path, tmp_path: Path) -> None:
    job = echo_job(eight_files, tmp_path / "out", **LENIENT)
    outcomes = [run_job(job, host=Host(index, 3, "night-1")) for index in range(3)]
    assert [outcome.exit_code for outcome in outcomes] == [0, 0, 0]
    assert [outcome.elsewhere > 0 for outcome in outcomes] == [True, True, False]
    assert outcomes[0].elsewhere == outcomes[0].published.report["remaining_shards"] > outcomes[1].elsewhere
    assert outcomes[2].published.released and outcomes[2].published.report["run_id"] == "night-1"
    assert outcomes[2].published.report["run"]["notes"] == 96
    run_job(echo_job(eight_files, tmp_path / "one", **LENIENT))
    assert all_rows(tmp_path / "out") == all_rows(tmp_path / "one")


def test_a_lost_hosts_shards_are_shared_anew(eight_files: Path, tmp_path: Path) -> None:
    """Also when revisions and more hosts than segments come in."""
    job = echo_job(eight_files, tmp_path / "out", **LENIENT)
    for index in (0, 2):
        run_job(job, host=Host(index, 3, "first"))
    write_notes(eight_files / "9.parquet", note_rows(3, 10))  # duplicates that lose
    outcomes = [run_job(job, host=Host(index, 6, "second")) for index in range(6)]
    assert {outcome.exit_code for outcome in outcomes} == {0} and outcomes[-1].published.released
    busy = [outcome for outcome in outcomes if outcome.published.report.get("run", {}).get("notes")]
    assert busy
    run_job(echo_job(eight_files, tmp_path / "one", **LENIENT))
    assert all_rows(tmp_path / "out") == all_rows(tmp_path / "one")


def test_a_host_whose_time_is_up_reports_what_is_there(eight_files: Path, tmp_path: Path) -> None:
    job = echo_job(eight_files, tmp_path / "out", **{**LENIENT, "run.max_minutes": 1e-6})
    outcome = run_job(job, host=Host(0, 2, "late"))
    assert outcome.exit_code == 0 and not outcome.elsewhere and outcome.published.report["remaining_notes"] == 96


def test_a_file_that_vanished_is_told_by_the_host_whose_it_was(eight_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = echo_job(eight_files, tmp_path / "out", **LENIENT)

    def watch(store: Any, run_plan: Any) -> Any:
        (eight_files / "0.parquet").unlink()
        return nullcontext()

    outcome = run_job(job, host=Host(0, 2, "night"), watch=watch)
    assert outcome.exit_code == 1 and "shards were not done: their files changed or vanished" in outcome.message
