"""The job on a Flink job server that is running already: FLINK_JOB_SERVER is its HOST:PORT. It is not part of the default tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.direct import run_directly
from pipeline.publish import publish
from pipeline.run import run_job
from tests.canaries import planned
from tests.conftest import all_rows, echo_job


@pytest.mark.flink
@pytest.mark.timeout(600)
def test_rows_are_those_of_one_machine(notes_folder: Path, tmp_path: Path) -> None:
    """Workers are threads of this process, so the server has to be on this machine."""
    server = os.environ.get("FLINK_JOB_SERVER")
    if not server:
        pytest.skip("FLINK_JOB_SERVER names no job server")
    job = echo_job(notes_folder, tmp_path / "out", **{"run.runner": "FlinkRunner"})
    outcome = run_job(job, beam_options=[f"--job_endpoint={server}", "--environment_type=LOOPBACK", "--parallelism=2"])
    assert outcome.exit_code == 0 and outcome.published.released
    prepared, plan = planned(notes_folder, tmp_path / "straight")
    run_directly(prepared, plan)
    publish(prepared.store)
    assert all_rows(tmp_path / "out") == all_rows(tmp_path / "straight")
