"""A run on a real Dask cluster gives the rows of a run by plain calls, also when a worker is killed; Dask is told no patient text."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Job
from pipeline.direct import run_directly
from pipeline.planning import RunPlan
from pipeline.progress import Watcher
from pipeline.publish import publish
from pipeline.run import run_job
from schemas.errors import ChartmillError
from tests.canaries import Canaries, Said, assert_files_clean, data_of, every_log_record, planned, plant
from tests.conftest import all_rows, echo_job, note_rows, write_notes
from tests.dask_cluster import DIES, RAISES, Cluster, running_cluster, tls_settings
from tests.test_s3 import KMS, download, upload
from tests.tiny_models import make_model
from transforms.batch import StageError
from transforms.ledger import attempts, list_commits
from transforms.store import LocalStore, Store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LENIENT = {"gate.max_quarantined_share": 1.0, "gate.max_flagged_share": 1.0, "gate.contract": "ignore"}


@pytest.fixture(scope="module")
def whole_cluster(tmp_path_factory: pytest.TempPathFactory, s3_environment: dict[str, str]) -> Iterator[Cluster]:
    """Its workers find the S3 server."""
    dask = pytest.importorskip("dask")
    folder = tmp_path_factory.mktemp("dask")
    with running_cluster(folder, workers=2) as cluster, dask.config.set(tls_settings(folder)):
        yield cluster


@pytest.fixture
def cluster(whole_cluster: Cluster) -> Cluster:
    """With two workers, whatever the test before has done to them."""
    whole_cluster.bury()
    while len(whole_cluster.workers) < 2:
        whole_cluster.add_worker()
    return whole_cluster


@pytest.fixture
def six_files(tmp_path: Path) -> Path:
    for number in range(6):
        write_notes(tmp_path / "notes" / f"{number}.parquet", note_rows(30, 30 * number))
    return tmp_path / "notes"


def dask_job(cluster: Cluster, notes: Path | str, output: Path | str, **settings: Any) -> Job:
    return echo_job(notes, output, **{**LENIENT, "run.runner": "DaskFutures", "run.dask_scheduler": cluster.address, **settings})


def straight(notes: Path, output: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows that plain function calls give."""
    prepared, plan = planned(notes, output)
    run_directly(prepared, plan)
    publish(prepared.store)
    return all_rows(output)


def test_rows_are_those_of_one_machine(cluster: Cluster, tmp_path: Path, canaries: Canaries, said: Said) -> None:
    """And nothing of the notes is in what the cluster or the driver logs."""
    notes = plant(tmp_path / "notes", canaries)
    with every_log_record(said):
        outcome = run_job(dask_job(cluster, notes, tmp_path / "out"))
    assert outcome.exit_code == 0 and outcome.published.released
    assert 1 <= outcome.published.report["run"]["model_loads"] <= 2
    assert all_rows(tmp_path / "out") == straight(notes, tmp_path / "one")
    assert "chartmill-" in cluster.logs()
    canaries.assert_absent("the cluster's log", cluster.logs())
    said.assert_clean(canaries)
    assert_files_clean(tmp_path / "out", canaries)
    assert canaries["note id"] in data_of(tmp_path / "out")


class _After:
    """Calls once when so many shards are committed."""

    def __init__(self, commits: int, then: Callable[[], None]) -> None:
        self._commits = commits
        self._then = then

    def __call__(self, store: Store, run_plan: RunPlan) -> _After:
        self._watcher = Watcher(store, run_plan)
        self._thread = threading.Thread(target=self._wait)
        return self

    def _wait(self) -> None:
        deadline = time.monotonic() + 120
        while self._watcher.look().shards_done < self._commits and time.monotonic() < deadline:
            time.sleep(0.02)
        self._then()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *exception: object) -> None:
        self._thread.join()


def test_a_worker_that_is_killed_loses_nothing(cluster: Cluster, six_files: Path, tmp_path: Path) -> None:
    job = dask_job(cluster, six_files, tmp_path / "out", **{"engine.delay_ms": 20})
    outcome = run_job(job, watch=_After(3, cluster.kill_worker))
    assert outcome.exit_code == 0 and outcome.published.released
    assert all_rows(tmp_path / "out") == straight(six_files, tmp_path / "one")
    assert "Remove worker" in cluster.logs()


def test_a_stage_that_fails_quotes_nothing(cluster: Cluster, tmp_path: Path, canaries: Canaries, said: Said) -> None:
    text = f"{note_rows(1)[0]['text']} {RAISES} {canaries['text']}"
    rows = [{"note_id": canaries["note id"], "text": text, canaries["column"]: canaries["value"]}]
    notes = write_notes(tmp_path / "notes" / f"{canaries['file name']}.parquet", rows).parent
    with every_log_record(said), pytest.raises(StageError, match="generate failed: ValueError at") as failure:
        run_job(dask_job(cluster, notes, tmp_path / "out"))
    said.add_exception(failure.value)
    said.assert_clean(canaries)
    assert "Compute Failed" in cluster.logs() and "generate failed: ValueError" in cluster.logs()
    canaries.assert_absent("the cluster's log", cluster.logs())
    assert_files_clean(tmp_path / "out", canaries)


def test_a_note_that_kills_workers_is_given_up_and_told(cluster: Cluster, tmp_path: Path) -> None:
    cluster.add_worker()
    rows = note_rows(40)
    rows[35]["text"] += f" {DIES}"
    write_notes(tmp_path / "notes" / "a.parquet", rows[:30])
    write_notes(tmp_path / "notes" / "b.parquet", rows[30:])
    job = dask_job(cluster, tmp_path / "notes", tmp_path / "out")
    with pytest.raises(ChartmillError, match="1 segments were given up, because every worker"):
        run_job(job)
    store = LocalStore(tmp_path / "out")
    [version] = {path.name for path in (tmp_path / "out" / "_runs").iterdir()}
    assert len(list_commits(store, version)[0]) == 3
    # What the next run goes by when it does the shard note by note.
    assert list(attempts(store, version).values()) == [2]


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt even where the tests were started in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_workers_stop_when_the_run_is_stopped(cluster: Cluster, tmp_path: Path) -> None:
    notes, output = tmp_path / "notes", tmp_path / "out"
    for number in range(2):
        write_notes(notes / f"{number}.parquet", note_rows(60, 60 * number))

    job = dask_job(cluster, notes, output, **{"engine.delay_ms": 200})
    main = threading.get_ident()
    with pytest.raises(KeyboardInterrupt):
        run_job(job, watch=_After(2, lambda: signal.pthread_kill(main, signal.SIGINT)))
    time.sleep(3)
    [version] = {path.name for path in (output / "_runs").iterdir()}
    done = len(list_commits(LocalStore(output), version)[0])
    time.sleep(1)
    assert done == len(list_commits(LocalStore(output), version)[0]) < 12
    assert run_job(job).published.released
    assert all_rows(output) == straight(notes, tmp_path / "one")


def test_a_cluster_without_workers_is_not_waited_for_for_ever(cluster: Cluster, six_files: Path, tmp_path: Path) -> None:
    while cluster.workers:
        cluster.kill_worker()
    with pytest.raises(ChartmillError, match=r"has had no worker for 3 s \(run\.wait_minutes\)"):
        run_job(dask_job(cluster, six_files, tmp_path / "out", **{"run.wait_minutes": 0.05}))


@pytest.mark.s3
def test_a_model_of_torch_writes_into_a_bucket(cluster: Cluster, bucket: str, tmp_path: Path, canaries: Canaries, said: Said) -> None:
    """Each worker loads the model once, in a thread, and has a client of its own; the rows are those of one machine and a folder."""
    for number in range(4):
        rows = [{**row, "text": f"{row['text']} {canaries['text']}", "ward": canaries["ward"]} for row in note_rows(5, 5 * number)]
        write_notes(tmp_path / "notes" / f"{number}.parquet", rows)
    upload(tmp_path / "notes", bucket, "in")
    model = {"engine.backend": "torch", "engine.threads": 1, "tasks.summary.model": str(make_model("bart", tmp_path / "model"))}
    model |= {"tasks.summary.decode.max_new_tokens": 8, "engine.dtype": "float32"}
    with every_log_record(said):
        outcome = run_job(dask_job(cluster, f"s3://{bucket}/in/", f"s3://{bucket}/out/", **KMS, **model))
    assert outcome.published.released and 1 <= outcome.published.report["run"]["model_loads"] <= 2
    output = download(bucket, "out/", tmp_path / "out")
    run_job(echo_job(tmp_path / "notes", tmp_path / "one", **LENIENT, **model))
    assert all_rows(output) == all_rows(tmp_path / "one")
    assert canaries["ward"] in data_of(output)
    canaries.assert_absent("the cluster's log", cluster.logs())
    said.assert_clean(canaries)
    assert_files_clean(output, canaries)
