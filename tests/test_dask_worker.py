"""What a Dask worker does, without Dask: every shard once, and exceptions that drag nothing along."""

from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from pipeline.dask_worker import Assignment, do_segment, forget_stages, packed
from pipeline.direct import run_directly
from pipeline.prepare import PreparedJob, code_version
from pipeline.publish import publish
from schemas.errors import ChartmillError
from tests.canaries import Canaries, Said, planned, plant
from tests.conftest import all_rows
from transforms.batch import StageError
from transforms.ledger import list_commits

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def fresh_worker() -> Iterator[None]:
    forget_stages()
    yield
    forget_stages()


def assigned(notes: Path, output: Path) -> tuple[PreparedJob, list[Assignment]]:
    prepared, plan = planned(notes, output)
    job, version = packed(prepared), code_version()
    return prepared, [Assignment(i, "run", version, None, job, packed(segment)) for i, segment in enumerate(plan.to_do)]


def committed(prepared: PreparedJob) -> int:
    return len(list_commits(prepared.store, prepared.version)[0])


def test_segments_done_one_by_one_equal_function_calls(notes_folder: Path, tmp_path: Path) -> None:
    prepared, todo = assigned(notes_folder, tmp_path / "out")
    loads = [do_segment(assignment) for assignment in todo]
    assert sum(loads) == 1 and len(loads) > 1
    straight, plan = planned(notes_folder, tmp_path / "one")
    run_directly(straight, plan)
    assert publish(prepared.store).released and publish(straight.store).released
    assert all_rows(tmp_path / "out") == all_rows(tmp_path / "one")


def test_a_segment_that_is_tried_again_goes_on(notes_folder: Path, tmp_path: Path) -> None:
    prepared, todo = assigned(notes_folder, tmp_path / "out")
    done = []
    for limit in (0, 1, 2, 100):
        for assignment in todo:
            asked = count()
            do_segment(assignment, lambda asked=asked, limit=limit: next(asked) < limit)
        done.append(committed(prepared))
    assert done[0] == 0 < done[1] < done[3] == 8


def test_a_deadline_that_has_passed_begins_nothing(notes_folder: Path, tmp_path: Path) -> None:
    prepared, todo = assigned(notes_folder, tmp_path / "out")
    for assignment in todo:
        do_segment(replace(assignment, deadline=1.0))
    assert committed(prepared) == 0


def test_another_job_takes_the_place_of_the_last(notes_folder: Path, tmp_path: Path) -> None:
    one, two = (assigned(notes_folder, tmp_path / name)[1] for name in ("one", "two"))
    assert [do_segment(assignment) for assignment in (one[0], two[0], two[1], one[1])] == [1, 1, 0, 1]


def test_another_version_is_refused(notes_folder: Path, tmp_path: Path) -> None:
    other = replace(assigned(notes_folder, tmp_path / "out")[1][0], code_version="0.0.0")
    with pytest.raises(ChartmillError, match=r"a worker has chartmill \S+, the run was started with 0\.0\.0"):
        do_segment(other)


def test_assignments_show_nothing(tmp_path: Path, canaries: Canaries) -> None:
    """Packed as they travel, too: file names cannot be read off the wire's or the scheduler's memory by looking."""
    for assignment in assigned(plant(tmp_path / "notes", canaries), tmp_path / "out")[1]:
        canaries.assert_absent("an assignment", repr(assignment))
        canaries.assert_absent("a pickled assignment", pickle.dumps(assignment))


@pytest.mark.parametrize("stage", ["pipeline.direct.generate_batch", "transforms.commit.commit_batch", "transforms.read.read_to_do"])
def test_exceptions_drag_nothing_along(stage: str, tmp_path: Path, canaries: Canaries, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dask sends an exception with its causes and contexts."""

    def fail(*args: object, **kwargs: object) -> None:
        try:
            raise KeyError(canaries["cause"])
        except KeyError as error:
            raise ValueError(canaries["message"], args) from error

    _, todo = assigned(plant(tmp_path / "notes", canaries), tmp_path / "out")
    monkeypatch.setattr(stage, fail)
    with pytest.raises(StageError, match="failed: ValueError") as failure:
        do_segment(todo[0])
    assert failure.value.__cause__ is None and failure.value.__context__ is None
    said.add_exception(failure.value)
    said.assert_clean(canaries)


def test_the_scheduler_imports_little() -> None:
    """It unpacks tasks, so it imports their file; a scheduler needs neither Beam nor a model."""
    code = "import sys, pipeline.dask_worker; print({'apache_beam', 'torch', 'great_expectations', 'pyarrow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "set()\n"
