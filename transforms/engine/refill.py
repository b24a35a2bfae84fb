"""A lane: decodes many requests at once and gives a finished request's slot to the next one at once.

schedule (admit waiting requests, encode their sources) -> run (one decoder step for all rows, with several tokens of a row where they are
known already or drafted) -> postprocess (let the search choose, hand out what is finished). Lanes share the weights and the queue and
nothing else; each belongs to one thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from time import perf_counter

import torch
from torch import Tensor

from transforms.engine.architecture import Architecture
from transforms.engine.constraint_machine import Reading
from transforms.engine.deadline import Stopwatch
from transforms.engine.decoder import Decoder, Rows
from transforms.engine.encoder import Encoder
from transforms.engine.memory import Past, SourceBuffers, SourceMemory
from transforms.engine.profile import Profile
from transforms.engine.schedule import Queue, Task
from transforms.engine.search import Feed, Hypothesis, Search


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a task: what was found and, under a constraint, what it says; or the error that it provoked."""

    task: Task
    found: Hypothesis = field(default_factory=lambda: Hypothesis([], None), repr=False)
    reading: Reading | None = field(default=None, repr=False)
    error: Exception | None = field(default=None, repr=False)

    @property
    def ids(self) -> list[int]:
        """Generated token ids."""
        return self.found.ids


@dataclass(frozen=True, slots=True)
class Ready:
    """A task whose source is encoded."""

    task: Task
    source: SourceMemory


class Lane:
    """`slots`: requests that decode at once. `capacity`: most decoder positions of one. `on_starved`: called when memory ran out.

    `text_seconds`: what one request may take from its first decode step on; None for as long as it likes.
    """

    def __init__(
        self,
        model: Architecture,
        queue: Queue,
        search: Search,
        slots: int,
        capacity: int,
        on_starved: Callable[[Exception], bool],
        text_seconds: float | None = None,
    ) -> None:
        self._model, self._queue, self._search, self._slots = model, queue, search, slots
        self._encoder, self._decoder = Encoder(model), Decoder(model)
        self._buffers = SourceBuffers(model)
        self._past = Past(model, slots * search.width, capacity)
        self._active: dict[int, Ready] = {}
        self._free = list(range(slots))[::-1]
        self._ready: deque[Ready] = deque()
        # How many may decode at once just now: less than `slots` after memory ran out, and while the culprit of a failure is looked for.
        self._room = slots
        self._on_starved = on_starved
        self._watch = Stopwatch(text_seconds)
        self.profile = Profile()

    def run(self) -> Iterator[Outcome]:
        """Decodes until the queue is empty, or closed. Never raises for a task: its outcome holds the error."""
        while not self._queue.closed:
            yield from self._admit()
            if not self._active:
                return
            try:
                self._watch.check()
                self._step()
            except Exception as error:  # noqa: BLE001 - whatever a text provokes in the model stays with that text
                yield from self._set_apart(error)
            yield from self._hand_out()

    def _admit(self) -> Iterator[Outcome]:
        while len(self._active) < self._room:
            if not self._ready:
                yield from self._encode(self._queue.take(self._room - len(self._active)))
            if not self._ready:
                return
            ready = self._ready.popleft()
            slot = self._free.pop()
            self._active[slot] = ready
            task = ready.task
            self._watch.start(slot)
            self._search.start(slot, task.prefix, task.minimum, task.limit, task.plan, task.ids)

    def _encode(self, tasks: list[Task]) -> Iterator[Outcome]:
        """Sources of these tasks, made ready in order; if that fails, each alone."""
        began = perf_counter()
        failure = None
        try:
            self._ready += self._encoded(tasks)
        except Exception as error:  # noqa: BLE001 - as in `run`
            failure = error
        self.profile.encode_seconds += perf_counter() - began
        if failure is not None and len(tasks) == 1:
            yield Outcome(tasks[0], error=failure)
        elif failure is not None:
            for task in tasks:
                yield from self._encode([task])

    def _encoded(self, tasks: list[Task]) -> list[Ready]:
        if not tasks:
            return []
        for task in tasks:
            if task.plan is not None:
                # What a text provokes there is that text's too.
                task.plan.open()
        sources = list(dict.fromkeys(task.ids for task in tasks))
        lengths = [len(ids) for ids in sources]
        memories = dict(zip(sources, self._buffers.project(self._encoder(sources), lengths), strict=True))
        for task in tasks:
            memories[task.ids].users += 1
        self.profile.encoded_tokens += sum(lengths)
        return [Ready(task, memories[task.ids]) for task in tasks]

    def _step(self) -> None:
        began = perf_counter()
        slots = torch.tensor(list(self._active))
        feed = self._search.feed(slots)
        rows = self._rows(slots, feed)
        logits = self._decoder(feed.tokens, rows, self._past, feed.wanted)
        parents = self._search.advance(logits, slots)
        if parents is not None:
            self._past.move(rows.rows, rows.rows[parents], 1 + max(at for _, at in rows.places))
        self._count(rows, perf_counter() - began)

    def _rows(self, slots: Tensor, feed: Feed) -> Rows:
        """Several tokens of a row in one step come only where a request has one row."""
        width, at = self._search.width, feed.positions
        rows = slots if width == 1 else (slots[:, None] * width + torch.arange(width)).flatten()
        sources = [ready.source for ready in self._active.values()]
        counts: list[int] = []
        if len(feed.counts) != len(at):
            rows, counts = rows.repeat_interleave(feed.counts), feed.counts.tolist()
        places = list(zip(rows.tolist(), at.tolist(), strict=True))
        return Rows(rows, at, places, sources, width, counts)

    def _count(self, rows: Rows, seconds: float) -> None:
        profile = self.profile
        empty = (self._slots - len(self._active)) * rows.width
        profile.decode_seconds += seconds
        profile.steps += 1
        profile.row_steps += len(rows.places)
        profile.cross_positions += sum(source.tokens for source in rows.sources)
        if len(self._queue) or self._ready:
            profile.idle_row_steps += empty
        else:
            profile.drained_row_steps += empty

    def _hand_out(self) -> Iterator[Outcome]:
        slots = list(self._active)
        if not slots:
            return
        for slot, done in zip(slots, self._search.finished(torch.tensor(slots)).tolist(), strict=True):
            if done:
                found = self._search.result(slot)
                yield _outcome(self._leave(slot).task, found)

    def _leave(self, slot: int) -> Ready:
        ready = self._active.pop(slot)
        self._watch.stop(slot)
        self._free.append(slot)
        self._buffers.release(ready.source)
        return ready

    def _set_apart(self, error: Exception) -> Iterator[Outcome]:
        """Half as many at once, from their start, until the one that fails stands alone. Less room stays only if memory was short."""
        starved = self._on_starved(error)
        slots = list(self._active)
        if len(slots) == 1:
            yield Outcome(self._leave(slots[0]).task, error=error)
            self._room = self._room if starved else self._slots
            return
        self._room = max(1, len(slots) // 2)
        again = [self._active.pop(slot) for slot in slots]
        for slot in slots:
            self._watch.stop(slot)
        self._free += slots
        self._ready.extendleft(reversed(again))


def _outcome(task: Task, found: Hypothesis) -> Outcome:
    if task.plan is None:
        return Outcome(task, found)
    try:
        return Outcome(task, found, task.plan.close(found.ids))
    except ValueError as error:
        return Outcome(task, error=error)
