"""Shards that take the process with them: only the note that does it is lost."""

from __future__ import annotations

import json
import multiprocessing as mp
import os
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from pipeline.isolate import MOST_ATTEMPTS, run_isolated, set_apart
from pipeline.planning import RunPlan, plan_run
from pipeline.prepare import PreparedJob, prepare
from pipeline.publish import publish
from pipeline.run import run_job
from tests.conftest import all_rows, echo_job, note_rows, read_rows, write_notes
from transforms.ledger import attempts, mark_attempt

pytestmark = pytest.mark.slow

# A rule on which one text takes for ever: catastrophic backtracking (the look-ahead keeps it from an engine without that).
HANGING_SUITE = {
    "name": "hangs",
    "expectations": [
        {
            "type": "expect_column_values_to_match_regex",
            "kwargs": {"column": "text", "regex": "^(?!b)(?:a+)+$", "mostly": 0.0},
            "severity": "warning",
            "meta": {"key": "hang"},
        }
    ],
}


def suspicious(notes: Path, output: Path, suite: Path) -> tuple[PreparedJob, RunPlan]:
    prepared = prepare(echo_job(notes, output, **{"contract.suite": str(suite)}))
    run_plan = plan_run(prepared.store, prepared.version, "run", prepared.plan_settings(), prepared.said_in_plan())
    return prepared, run_plan


@pytest.fixture
def hanging(tmp_path: Path) -> tuple[PreparedJob, RunPlan]:
    """Six notes in one shard; the third never ends."""
    rows = note_rows(6)
    rows[2]["text"] = "a" * 60 + "!"
    write_notes(tmp_path / "notes" / "x.parquet", rows)
    suite = tmp_path / "suite.json"
    suite.write_text(json.dumps(HANGING_SUITE))
    return suspicious(tmp_path / "notes", tmp_path / "out", suite)


def cpu_seconds(pid: int) -> float:
    try:
        user, system = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    except FileNotFoundError:
        return 0.0
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def outcome(prepared: PreparedJob) -> tuple[list[str], list[tuple[str, str]]]:
    assert publish(prepared.store).complete
    output = Path(prepared.job.output.uri)
    rejected = [(r["note_id"], r["reason"]) for r in read_rows(output, "rejections")]
    return [r["note_id"] for r in read_rows(output, "summaries")], rejected


def test_a_note_that_hangs_is_rejected_and_the_others_are_done(hanging: tuple[PreparedJob, RunPlan]) -> None:
    prepared, run_plan = hanging
    run_isolated(prepared, run_plan.to_do[0], "run", silence_s=5)
    assert outcome(prepared) == ([f"n{i:06d}" for i in (0, 1, 3, 4, 5)], [("n000002", "DEADLINE")])


def test_a_note_that_kills_the_process_is_rejected_and_the_others_are_done(hanging: tuple[PreparedJob, RunPlan]) -> None:
    prepared, run_plan = hanging
    killed: list[int] = []

    def kill_the_child_that_hangs() -> None:
        while not killed:
            time.sleep(1)
            for child in mp.active_children():
                # It starts within seconds of CPU time; one that has used this much is in the endless note.
                if child.pid and cpu_seconds(child.pid) > 40:
                    os.kill(child.pid, signal.SIGKILL)
                    killed.append(child.pid)

    threading.Thread(target=kill_the_child_that_hangs, daemon=True).start()
    run_isolated(prepared, run_plan.to_do[0], "run", silence_s=120)
    assert killed
    assert outcome(prepared) == ([f"n{i:06d}" for i in (0, 1, 3, 4, 5)], [("n000002", "CRASHED")])


def test_isolated_shards_give_the_rows_of_an_undisturbed_run(notes_folder: Path, tmp_path: Path) -> None:
    run_job(echo_job(notes_folder, tmp_path / "straight"))
    prepared = prepare(echo_job(notes_folder, tmp_path / "out"))
    run_plan = plan_run(prepared.store, prepared.version, "earlier", prepared.plan_settings(), prepared.said_in_plan())
    suspects = [shard.id for segment in run_plan.to_do for shard in segment.shards][:2]
    for shard in suspects:
        for _ in range(MOST_ATTEMPTS):
            mark_attempt(prepared.store, prepared.version, shard)
    kept, apart = set_apart(prepared, run_plan)
    assert [s.shards[0].id for s in apart] == suspects and kept.shards_to_do == run_plan.shards_to_do - 2
    assert run_job(echo_job(notes_folder, tmp_path / "out")).published.released
    assert all_rows(tmp_path / "out") == all_rows(tmp_path / "straight")
    assert attempts(prepared.store, prepared.version) == Counter()
    one, two = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("straight", "out"))
    for key in ("expectations", "flags", "fields", "histograms", "reasons", "notes_in"):
        assert one[key] == two[key]
