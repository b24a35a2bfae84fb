"""Steps that are launched as one: a step runs eagerly until it is warm, is then recorded as a CUDA graph, and is replayed from there on.

It knows nothing of models. What it records must read and write static tensors only, ask the host nothing, and have the same shapes at each
call with the same key.
"""

from __future__ import annotations

import gc
import logging
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

logger = logging.getLogger(__name__)

# Runs of a key before it is recorded: libraries set themselves up and load kernels at the first, which a recording must not contain.
WARM_UP = 2

# What tells one shape of a step from another.
Key = Hashable
Recorder = Callable[[Callable[[], None], Any], Callable[[], None]]


def record_cuda_graph(step: Callable[[], None], pool: Any) -> Callable[[], None]:
    """Record what `step` launches, without running it; returns what replays it on the current stream. Raises RuntimeError.

    `pool`: a memory pool from `torch.cuda.graph_pool_handle`. Graphs may share one where no tensor that a graph allocates is read after it.
    """
    graph = torch.cuda.CUDAGraph()
    # Only what this thread does may spoil the recording; the end of an older graph, if the collector came upon one now, would.
    with _no_collection(), torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
        step()
    return graph.replay


@contextmanager
def _no_collection() -> Iterator[None]:
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


class StepGraphs:
    """`step(key)`, recorded once for each key. Where it cannot be recorded it runs eagerly for good, and one log line says so.

    `recorder`: None never records.
    """

    def __init__(self, step: Callable[[Any], None], recorder: Recorder | None, pool: Any = None) -> None:
        self._step, self._recorder, self._pool = step, recorder, pool
        self._runs: Counter[Key] = Counter()
        self._replays: dict[Key, Callable[[], None]] = {}

    @property
    def recorded(self) -> int:
        """How many keys have a graph."""
        return len(self._replays)

    def __call__(self, key: Key) -> None:
        """One step. Raises what the step raises; torch.OutOfMemoryError also where the recording finds no memory."""
        if self._recorder is not None and key not in self._replays and self._runs[key] >= WARM_UP:
            self._record(key, self._recorder)
        self._runs[key] += 1
        replay = self._replays.get(key)
        if replay is None:
            self._step(key)
        else:
            replay()

    def _record(self, key: Key, recorder: Recorder) -> None:
        """Nothing has been computed when this is over, well or not."""
        try:
            self._replays[key] = recorder(lambda: self._step(key), self._pool)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._recorder = None
            logger.warning("decode steps run without a CUDA graph: %s", type(error).__name__)
