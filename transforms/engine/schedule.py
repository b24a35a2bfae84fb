"""Which requests run together: a queue that the lanes share, longest sources first, and how many of them memory holds at once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from transforms.engine.architecture import Architecture
from transforms.engine.constraint_plan import Plan

# Fewer source tokens than this in one pass through the encoder leave its matrices half idle.
PACK_TOKENS = 256
# Requests that decode at once in a lane, greedy and with beams, where memory allows. More gain nothing on a CPU: attention is read row by
# row, and matrices of 16 rows run at more than half of their best speed. Measured: 12, 16 and 32 rows decode a note in the same time.
SLOTS, BEAM_SLOTS = 16, 8
# Keys and values that all lanes together may hold on a CPU.
CPU_BYTES = 3 << 30


@dataclass(frozen=True, slots=True)
class Task:
    """A tokenised request: its place in the call, its source with special tokens, the decoder's start token with the request's prefix, the
    fewest and most tokens to generate, and what the output has to be, if that is told."""

    index: int
    ids: tuple[int, ...] = field(repr=False)
    prefix: tuple[int, ...] = field(repr=False)
    minimum: int
    limit: int
    plan: Plan | None = field(default=None, repr=False)


class Queue:
    """Tasks in the order in which they start. Lanes take from it at the same time."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        # Longest first: memory is at its highest at once and not in the third hour, and short ones fill the gaps at the end.
        # Equal sources stand together, to be encoded once.
        self._waiting = deque(sorted(tasks, key=lambda task: (-len(task.ids), task.ids, task.limit, task.index)))
        self._lock = threading.Lock()
        self.closed = False

    def close(self) -> None:
        """Nothing more is taken, and what is under way is dropped at its next step: whoever asked for it is interrupted."""
        with self._lock:
            self.closed = True
            self._waiting.clear()

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self, most: int) -> list[Task]:
        """The next tasks: enough for a full pass through the encoder, at most `most`, and all that share the last one's source."""
        taken: list[Task] = []
        tokens = 0
        with self._lock:
            while self._waiting and ((taken and taken[-1].ids == self._waiting[0].ids) or (tokens < PACK_TOKENS and len(taken) < most)):
                task = self._waiting.popleft()
                tokens += len(task.ids) if not taken or taken[-1].ids != task.ids else 0
                taken.append(task)
        return taken


def slot_bytes(model: Architecture, source_tokens: int, capacity: int, width: int) -> int:
    """Bytes of the keys and values of one request: those of its source, and those of what its `width` rows decode."""
    return len(model.decoder_layers) * 2 * model.inner * model.kept.itemsize * (source_tokens + width * capacity)


def fitting_slots(wanted: int | None, width: int, bytes_per_slot: int, budget: int) -> int:
    """Requests of `width` rows that decode at once in a lane: as wanted, or the usual number, as far as the budget in bytes holds."""
    return max(1, min(wanted or (SLOTS if width == 1 else BEAM_SLOTS), budget // max(1, bytes_per_slot)))


def capacity_of(tasks: Sequence[Task]) -> int:
    """The most decoder positions that any of these tasks comes to."""
    return max(len(task.prefix) + task.limit for task in tasks)
