"""PortableRunner: a job server and external workers, as on a cluster, give the rows of plain calls; neither of them logs patient text."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Job
from pipeline.direct import run_directly
from pipeline.publish import publish
from pipeline.run import run_job
from tests.canaries import Canaries, Said, assert_files_clean, data_of, every_log_record, planned, plant
from tests.conftest import all_rows, echo_job, free_port, note_rows, wait_for_port, write_notes
from tests.test_privacy import SITE
from transforms.batch import StageError

# A runner that finds no worker waits for ever.
pytestmark = pytest.mark.timeout(170)

LENIENT = {"gate.max_quarantined_share": 1.0, "gate.max_flagged_share": 1.0, "gate.contract": "ignore"}


def portable_job(notes: Path, output: Path) -> Job:
    return echo_job(notes, output, **{**LENIENT, "run.runner": "PortableRunner"})


def options(job_server: int, worker_pool: int) -> list[str]:
    return [f"--job_endpoint=localhost:{job_server}", "--environment_type=EXTERNAL", f"--environment_config=localhost:{worker_pool}"]


def straight(notes: Path, output: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows that plain function calls give."""
    prepared, plan = planned(notes, output)
    run_directly(prepared, plan)
    publish(prepared.store)
    return all_rows(output)


@pytest.fixture
def services_here() -> Iterator[list[str]]:
    """Job server and worker pool as threads of this process: all of the protocol, without the seconds that processes need to start."""
    from apache_beam.runners.portability.local_job_service import LocalJobServicer
    from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer

    address, pool = BeamFnExternalWorkerPoolServicer.start(use_process=False)
    server = LocalJobServicer()
    try:
        yield options(server.start_grpc_server(), int(address.rpartition(":")[2]))
    finally:
        server.stop()
        pool.stop(grace=1).wait()


def test_workers_behind_a_job_server_equal_function_calls(tmp_path: Path, services_here: list[str]) -> None:
    notes = write_notes(tmp_path / "notes" / "a.parquet", note_rows(25)).parent
    outcome = run_job(portable_job(notes, tmp_path / "out"), beam_options=services_here)
    assert outcome.exit_code == 0 and outcome.published.report["run"]["model_loads"] == 1
    assert all_rows(tmp_path / "out") == straight(notes, tmp_path / "straight")


@contextmanager
def beam_service(module: str, port_option: str, log: Path, site: Path) -> Iterator[int]:
    """A Beam service in a process group of its own; it starts `python` by name, so this environment comes first on PATH."""
    port = free_port()
    root = Path(__file__).parent.parent
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with log.open("wb") as said:
        service = subprocess.Popen(
            [sys.executable, "-m", f"apache_beam.runners.{module}", f"{port_option}={port}"],
            stdout=said,
            stderr=said,
            env={**os.environ, "PATH": path, "PYTHONPATH": f"{site}{os.pathsep}{root}"},
            start_new_session=True,
        )
    try:
        wait_for_port(port, 60)
        yield port
    finally:
        os.killpg(service.pid, signal.SIGKILL)
        service.wait()


@pytest.mark.slow
@pytest.mark.parametrize("crash", [False, True])
def test_processes_log_nothing_of_the_notes(tmp_path: Path, canaries: Canaries, said: Said, crash: bool) -> None:
    """Whether the run goes well or a worker raises an exception that quotes what it was working on."""
    notes, output, site = plant(tmp_path / "notes", canaries), tmp_path / "out", tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(textwrap.dedent(SITE) if crash else "")
    logs = [tmp_path / name for name in ("job server", "worker pool")]
    with (
        beam_service("portability.local_job_service_main", "--port", logs[0], site) as job_server,
        beam_service("worker.worker_pool_main", "--service_port", logs[1], site) as worker_pool,
        every_log_record(said),
    ):
        if crash:
            with pytest.raises(StageError, match="generate failed: ValueError at") as failure:
                run_job(portable_job(notes, output), beam_options=options(job_server, worker_pool))
            said.add_exception(failure.value)
        else:
            assert run_job(portable_job(notes, output), beam_options=options(job_server, worker_pool)).published.released
    for log in logs:
        canaries.assert_absent(f"the log of the {log.name}", log.read_bytes())
    said.assert_clean(canaries)
    assert_files_clean(output, canaries)
    if not crash:
        assert canaries["note id"] in data_of(output)
        assert all_rows(output) == straight(notes, tmp_path / "straight")
