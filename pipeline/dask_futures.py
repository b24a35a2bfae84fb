"""DaskFutures: a run on a Dask cluster, each segment of the plan one task. It knows the cluster, but not what the work is.

Not Beam's DaskRunner: that one takes a whole segment through one stage before the next begins, commits nothing until then, has no
metrics, and drops tagged outputs, second sinks and what a bundle gives when it finishes, without a word. What runs here is the
stages' own functions, shard by shard, so a shard that is committed stays committed when its worker dies.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from queue import Empty, Queue
from time import monotonic
from typing import Any

from pipeline.dask_worker import Assignment, do_segment_of_task, forget_stages, packed
from pipeline.planning import RunPlan
from pipeline.prepare import PreparedJob, code_version
from schemas.errors import ChartmillError, ConfigurationError

# A task that raises is tried again this often; one whose worker dies, as often as Dask's `allowed-failures` says (3).
_RETRIES = 2
# Tasks that the scheduler holds at a time, so that a plan of 100,000 segments does not fill its memory.
_AHEAD = 1000
_CONNECT_S = 30
_POLL_S = 2.0


def run_on_dask(prepared: PreparedJob, run_plan: RunPlan, deadline: float | None) -> int:
    """Do every segment of the plan on the cluster; returns how many times a model was loaded. Blocks until all are done.

    Raises ChartmillError when a segment cannot be done, or the cluster is gone; what is committed stays.
    """
    run = prepared.job.run
    with _cluster(run.dask_scheduler or "") as client:
        try:
            return _Gathering(client, 60 * run.wait_minutes).gather(_assignments(prepared, run_plan, deadline))
        finally:
            with suppress(OSError):
                client.run(forget_stages, on_error="ignore")


def _assignments(prepared: PreparedJob, run_plan: RunPlan, deadline: float | None) -> Iterator[Assignment]:
    job, run_id = packed(prepared), run_plan.plan.run_id
    for number, segment in enumerate(run_plan.to_do):
        yield Assignment(number, run_id, code_version(), deadline, job, packed(segment))


@contextmanager
def _cluster(address: str) -> Iterator[Any]:
    """A client of the scheduler; TLS keys come from Dask's own configuration. Raises ChartmillError when nobody answers."""
    from distributed import Client

    # Set after the import, which sets them from Dask's configuration: the client logs every lost worker with a traceback.
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        client = Client(address, timeout=_CONNECT_S, name="chartmill", set_as_default=False)
    except OSError:
        raise ChartmillError(f"run.dask_scheduler: no scheduler answers there within {_CONNECT_S} s") from None
    except (TypeError, ValueError):
        raise ConfigurationError(
            "run.dask_scheduler: tls:// needs Dask's settings distributed.comm.tls (ca-file, client.cert, …)"
        ) from None
    try:
        yield client
    finally:
        client.close()


class _Gathering:
    """Tasks under way: at most so many at a time, until none is left."""

    def __init__(self, client: Any, patience_s: float) -> None:
        self._client = client
        self._patience_s = patience_s
        # Dask forgets a task whose future is dropped here.
        self._under_way: set[Any] = set()
        self._ended: Queue[Any] = Queue()
        # Dask takes a task of a known name for the one that it has done: names must be new.
        self._name = f"chartmill-{secrets.token_hex(4)}"

    def gather(self, assignments: Iterator[Assignment]) -> int:
        loads = lost = 0
        for assignment in islice(assignments, _AHEAD):
            self._submit(assignment)
        while self._under_way:
            future = self._next_ended()
            self._under_way.discard(future)
            done = self._result(future)
            loads, lost = (loads, lost + 1) if done is None else (loads + done, lost)
            for assignment in islice(assignments, 1):
                self._submit(assignment)
        if lost:
            raise ChartmillError(
                f"{lost} segments were given up, because every worker that began them died; run again: shards that have taken "
                "their process with them twice are then done note by note"
            )
        return loads

    def _submit(self, assignment: Assignment) -> None:
        key = f"{self._name}-{assignment.number}"
        future = self._client.submit(do_segment_of_task, assignment, key=key, pure=False, retries=_RETRIES)
        self._under_way.add(future)
        future.add_done_callback(self._ended.put)

    def _result(self, future: Any) -> int | None:
        """Model loads of a task; None if its workers died. Raises ChartmillError as the worker did, or if the scheduler dropped it."""
        from distributed import CancelledError
        from distributed.scheduler import KilledWorker

        try:
            return int(future.result())
        except KilledWorker:
            return None
        except (CancelledError, OSError):
            raise ChartmillError("the Dask scheduler has dropped the run or does not answer any more; run again to go on") from None

    def _next_ended(self) -> Any:
        alone_since: float | None = None
        while True:
            try:
                return self._ended.get(timeout=_POLL_S)
            except Empty:
                alone_since = None if self._has_workers() else alone_since or monotonic()
            if alone_since is not None and monotonic() - alone_since > self._patience_s:
                raise ChartmillError(f"the Dask cluster has had no worker for {self._patience_s:.0f} s (run.wait_minutes)")

    def _has_workers(self) -> bool:
        try:
            return bool(self._client.nthreads())
        except OSError:
            raise ChartmillError("the Dask scheduler does not answer any more; run again to go on") from None
