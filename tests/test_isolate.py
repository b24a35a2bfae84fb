"""Shards that take the process with them: only the note that does it is lost."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest

from pipeline.isolate import MOST_ATTEMPTS, run_isolated, set_apart
from pipeline.planning import RunPlan, plan_run
from pipeline.prepare import PreparedJob, prepare
from pipeline.publish import publish
from pipeline.run import run_job
from tests.conftest import all_rows, echo_job, note_rows, read_rows, write_notes
from tests.planted_failures.sitecustomize import CRASH, HANG
from tests.tiny_models import make_model
from transforms.ledger import attempts, mark_attempt

pytestmark = pytest.mark.slow

PLANTED = Path(__file__).parent / "planted_failures"


@pytest.fixture(scope="module", autouse=True)
def failing_children() -> Iterator[None]:
    """Children of this process are forked from a server whose engines fail where a text says so."""
    forkserver._forkserver._stop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(PLANTED), *filter(None, [os.environ.get("PYTHONPATH")])]))
        yield
    forkserver._forkserver._stop()


def planned(notes: Path, output: Path, **settings: Any) -> tuple[PreparedJob, RunPlan]:
    prepared = prepare(echo_job(notes, output, **settings))
    return prepared, plan_run(prepared.store, prepared.version, "run", prepared.plan_settings(), prepared.said_in_plan())


def failing_notes(folder: Path) -> Path:
    """Six notes in one shard; the second kills the process and the fourth never ends."""
    rows = note_rows(6)
    rows[1]["text"] += f" {CRASH}"
    rows[3]["text"] += f" {HANG}"
    write_notes(folder / "x.parquet", rows)
    return folder


def outcome(prepared: PreparedJob) -> tuple[list[str], list[tuple[str, str]]]:
    assert publish(prepared.store).complete
    output = Path(prepared.job.output.uri)
    rejected = [(r["note_id"], r["reason"]) for r in read_rows(output, "rejections")]
    return [r["note_id"] for r in read_rows(output, "summaries")], rejected


@pytest.mark.parametrize("backend", ["echo", "torch"])
def test_notes_that_kill_or_hold_the_process_are_rejected_and_the_others_are_done(backend: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"engine.backend": backend}
    if backend == "torch":
        settings |= {"tasks.summary.model": str(make_model("bart", tmp_path / "model")), "tasks.summary.decode.max_new_tokens": 8}
        settings |= {"tasks.summary.decode.min_new_tokens": 4}
    prepared, run_plan = planned(failing_notes(tmp_path / "notes"), tmp_path / "out", **settings)
    run_isolated(prepared, run_plan.to_do[0], "run", silence_s=5)
    kept = [f"n{i:06d}" for i in (0, 2, 4, 5)]
    assert outcome(prepared) == (kept, [("n000001", "CRASHED"), ("n000003", "DEADLINE")])


def test_isolated_shards_give_the_rows_of_an_undisturbed_run(notes_folder: Path, tmp_path: Path) -> None:
    run_job(echo_job(notes_folder, tmp_path / "straight"))
    prepared, run_plan = planned(notes_folder, tmp_path / "out")
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
