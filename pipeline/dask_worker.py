"""What a Dask worker does: one segment of the plan, from reading to committing, by the functions that the stages are made of.

Dask's scheduler imports this file too, so it is light. Nothing here knows addresses, clusters or retries.
"""

from __future__ import annotations

import pickle
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from schemas.errors import ChartmillError

if TYPE_CHECKING:
    from pipeline.direct import JobEngines
    from pipeline.prepare import PreparedJob
    from schemas.commit import Segment, Shard
    from transforms.batch import NoteBatch


@dataclass(frozen=True, slots=True)
class Assignment:
    """One segment and all that is needed to do it.

    Packed, since segments name files and jobs name folders, while Dask shows and logs its tasks' arguments. `deadline`: seconds since the
    epoch, None for none.
    """

    number: int
    run_id: str
    code_version: str
    deadline: float | None
    job: bytes = field(repr=False)
    segment: bytes = field(repr=False)


def packed(thing: Any) -> bytes:
    return zlib.compress(pickle.dumps(thing))


def _unpacked(data: bytes) -> Any:
    return pickle.loads(zlib.decompress(data))


def do_segment_of_task(assignment: Assignment) -> int:
    """`do_segment` in a worker's thread, until Dask has cancelled the task: it cannot stop a thread."""
    from distributed import get_worker
    from distributed.worker import thread_state

    tasks, key = get_worker().state.tasks, thread_state.key

    def wanted() -> bool:
        task = tasks.get(key)
        return task is not None and task.state == "executing"

    return do_segment(assignment, wanted)


def do_segment(assignment: Assignment, wanted: Callable[[], bool] = lambda: True) -> int:
    """Do and commit the segment's shards that nobody has committed yet; returns how many times a model was loaded for it.

    `wanted` is asked before each shard: False ends the work. Raises ChartmillError, which quotes nothing and drags nothing along: Dask
    logs exceptions, and sends them across the network with those that they came from.
    """
    try:
        return _do_segment(assignment, wanted)
    except Exception as error:  # noqa: BLE001 - the edge of a worker: Dask would log the message, and send it
        failure = _explained(error)
    # Outside of the block above, so that it has no context.
    raise failure


def _explained(error: Exception) -> ChartmillError:
    from transforms.batch import StageError, describe_error

    return type(error)(str(error)) if isinstance(error, ChartmillError) else StageError(f"a worker failed: {describe_error(error)}")


def _do_segment(assignment: Assignment, wanted: Callable[[], bool]) -> int:
    from transforms.commit import commit_batch
    from transforms.read import is_to_do, read_to_do

    stages, loads = _stages_for(assignment)
    prepared = stages.prepared
    store, version = prepared.store, prepared.version
    segment: Segment = _unpacked(assignment.segment)

    def is_next(shard: Shard) -> bool:
        return wanted() and is_to_do(shard, store, version, assignment.deadline)

    settings = prepared.commit_settings(assignment.run_id)
    for batch in read_to_do(segment, prepared.plan_settings().columns, store, version, is_next):
        commit_batch(stages.steps()(batch), store, settings)
    return loads


class _Stages:
    """The stages of one job in this process: its engines for all threads, and for each thread what threads must not share."""

    def __init__(self, packed_job: bytes) -> None:
        self.packed_job = packed_job
        self.prepared: PreparedJob = _unpacked(packed_job)
        self.engines = _load(self.prepared)
        self._mine = threading.local()

    def steps(self) -> Callable[[NoteBatch], NoteBatch]:
        from pipeline.direct import job_steps

        if not hasattr(self._mine, "steps"):
            self._mine.steps = job_steps(self.prepared, self.engines)
        return self._mine.steps


def _load(prepared: PreparedJob) -> JobEngines:
    from pipeline.direct import load_engines

    return load_engines(prepared)


_loading = threading.Lock()
# A worker outlives a segment, and a model takes long to load: the newest job's stages stay until another job comes.
_newest: list[_Stages] = []


def _stages_for(assignment: Assignment) -> tuple[_Stages, int]:
    """The job's stages, and how many models had to be loaded for that."""
    from pipeline.prepare import code_version
    from pipeline.quiet import quiet_libraries

    if assignment.code_version != code_version():
        raise ChartmillError(f"a worker has chartmill {code_version()}, the run was started with {assignment.code_version}")
    with _loading:
        if _newest and _newest[0].packed_job == assignment.job:
            return _newest[0], 0
        quiet_libraries()
        _newest[:] = [_Stages(assignment.job)]
        return _newest[0], _newest[0].engines.count


def forget_stages() -> None:
    """Let go of the model when a run is over, unless another run is loading one: Dask calls this where a worker must not wait."""
    if _loading.acquire(blocking=False):
        try:
            _newest.clear()
        finally:
            _loading.release()
