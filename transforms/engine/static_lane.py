"""A lane for GPUs: all slots are computed at every step, in tensors that never change their shape, and a step is one CUDA graph.

It does what `refill.Lane` does, with the same queue, searches and outcomes. The lane looks for finished requests every few steps only, for
to look is to wait for the device; a finished request stands still until then. Sources are encoded a few thousand tokens at a time and wait
with their keys and values, so that a refill is a copy. Where memory runs out, half as many slots go on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter

import torch
from torch import Tensor

from transforms.engine.architecture import Architecture, Embedding
from transforms.engine.cuda_graph import Recorder, StepGraphs, record_cuda_graph
from transforms.engine.deadline import Stopwatch
from transforms.engine.padded_encoder import PaddedEncoder, alike, padded_length, pass_tokens
from transforms.engine.profile import Profile
from transforms.engine.refill import Outcome
from transforms.engine.schedule import PACK_TOKENS, Queue, Task
from transforms.engine.search import Search
from transforms.engine.sources import ran_out_of_memory
from transforms.engine.static_memory import Spans, StaticMemory, decode, own_span, source_span

# Steps between two looks for finished requests on a GPU. A request stands still for half of them, which is 2 % of 70 tokens.
_CHECK_EVERY = 4


@dataclass(frozen=True, slots=True)
class Ready:
    """A task with its source's keys and values [layers, 2, heads, n, head width]."""

    task: Task
    source: Tensor = field(repr=False)


@dataclass(slots=True)
class Progress:
    """Of a slot: steps since its request began, and the last position that it can come to. An empty slot counts on, harmlessly."""

    steps: int
    last: int

    def positions(self, more: int) -> int:
        """How many it comes to in so many more steps, at most."""
        return min(self.steps + more - 1, self.last) + 1


class StaticLane:
    """`slots`: requests that decode at once. `capacity`: most decoder positions of one. `on_starved`: told of each failure; says whether
    memory ran out, having given back what it could.

    `check_every`: steps between two looks for finished requests. `pass_tokens`: source tokens that are encoded at once. `recorder`: how
    steps become graphs; none, and they run eagerly. By default these are what suits the model's device. `text_seconds`: what one request
    may take from its first decode step on; None for as long as it likes.
    """

    def __init__(
        self,
        model: Architecture,
        queue: Queue,
        search: Search,
        slots: int,
        capacity: int,
        on_starved: Callable[[Exception], bool],
        check_every: int | None = None,
        pass_tokens: int | None = None,
        recorder: Recorder | None = None,
        text_seconds: float | None = None,
    ) -> None:
        self._model, self._queue, self._search, self._slots, self._capacity = model, queue, search, slots, capacity
        self._on_cuda = model.device.startswith("cuda")
        self._check_every = check_every or (_CHECK_EVERY if self._on_cuda else 1)
        self._pass_tokens = pass_tokens
        self._recorder = recorder or (record_cuda_graph if self._on_cuda else None)
        self._encoder = PaddedEncoder(model)
        self._memory: StaticMemory | None = None
        self._graphs: StepGraphs | None = None
        self._groups = torch.arange(slots, device=model.device)
        self._active: dict[int, Ready] = {}
        self._free: list[int] = []
        # Slots without a request whose search is not at its end.
        self._unfinished: list[int] = []
        self._progress: list[Progress] = []
        self._ready: deque[Ready] = deque()
        # Tasks that were under way when something failed.
        self._again: deque[Task] = deque()
        # How many may decode at once just now: less than `slots` while the culprit of a failure is looked for.
        self._room = slots
        self._on_starved = on_starved
        self._watch = Stopwatch(text_seconds)
        self.profile = Profile()

    @property
    def slots(self) -> int:
        """Fewer than at first where memory ran out."""
        return self._slots

    @property
    def graphs(self) -> int:
        """Recorded graphs of the memory that is laid out now."""
        return self._graphs.recorded if self._graphs else 0

    def serve(self, queue: Queue) -> None:
        """Take from this queue from now on, when the last one is done: memory and graphs are used again, and the profile begins anew.

        The caller answers for it that no task needs more decoder positions than the lane's capacity.
        """
        self._queue, self._room, self.profile = queue, self._slots, Profile()

    def run(self) -> Iterator[Outcome]:
        """Decodes until the queue is empty. Never raises for a task: its outcome holds the error."""
        while not self._queue.closed and (self._active or self._ready or self._again or len(self._queue)):
            began, profile = perf_counter(), self.profile
            counted = profile.encode_seconds + profile.decode_seconds
            try:
                yield from self._admit()
                self._watch.check()
                yield from self._hand_out(self._steps())
            except Exception as error:  # noqa: BLE001 - whatever a text provokes in the model stays with that text
                yield from self._set_apart(error)
            profile.schedule_seconds += perf_counter() - began - (profile.encode_seconds + profile.decode_seconds - counted)

    def _admit(self) -> Iterator[Outcome]:
        while len(self._active) < self._room:
            if not self._ready:
                yield from self._encode((yield from self._computable(self._next_tasks())))
            if not self._ready:
                return
            memory = self._laid_out()
            slot = self._free.pop()
            self._active[slot] = ready = self._ready.popleft()
            self._watch.start(slot)
            task = ready.task
            self._search.start(slot, task.prefix, task.minimum, task.limit)
            memory.fill(slot, ready.source, len(task.ids))
            self._progress[slot] = Progress(0, len(task.prefix) + task.limit - 1)

    def _computable(self, tasks: Sequence[Task]) -> Generator[Outcome, None, list[Task]]:
        """Sets those apart that ask for tokens or positions that the model lacks: a GPU that looks one up is lost to the whole process."""
        computable = []
        for task in tasks:
            if self._has_all(task):
                computable.append(task)
            else:
                yield Outcome(task, error=IndexError("a token or position that the model does not have"))
        return computable

    def _has_all(self, task: Task) -> bool:
        model = self._model
        # The last token that is generated is never fed.
        fed = len(task.prefix) + task.limit - 1
        encoded, decoded = _has(model.encoder_embedding, task.ids, len(task.ids)), _has(model.decoder_embedding, task.prefix, fed)
        return encoded and decoded and task.limit > 0 and fed < self._capacity

    def _next_tasks(self) -> list[Task]:
        """As many as make one pass through the encoder."""
        tasks: list[Task] = []
        tokens = 0
        while more := [self._again.popleft()] if self._again else self._queue.take(1):
            tasks += more
            tokens += padded_length(len(more[0].ids))
            if tokens >= self._tokens_at_once(len(tasks[0].ids)):
                break
        return tasks

    def _tokens_at_once(self, longest: int) -> int:
        return self._pass_tokens or (pass_tokens(self._model, longest) if self._on_cuda else PACK_TOKENS)

    def _encode(self, tasks: list[Task]) -> Iterator[Outcome]:
        """Sources of these tasks, made ready in order; if that fails, half of them at a time. Raises if memory lacks for even one."""
        began = perf_counter()
        waiting = deque([tasks] if tasks else [])
        while waiting:
            some = waiting.popleft()
            try:
                self._ready += self._encoded(some)
            except Exception as error:
                starved = self._on_starved(error)
                if len(some) > 1:
                    if starved:
                        self._pass_tokens = max(1, self._tokens_at_once(len(some[0].ids)) // 2)
                    waiting.extendleft((some[len(some) // 2 :], some[: len(some) // 2]))
                elif starved and self._slots > 1:
                    self._again.extend(task for left in (some, *waiting) for task in left)
                    raise
                else:
                    yield Outcome(some[0], error=error)
        self.profile.encode_seconds += perf_counter() - began

    def _encoded(self, tasks: Sequence[Task]) -> list[Ready]:
        sources = sorted(dict.fromkeys(task.ids for task in tasks), key=len, reverse=True)
        projected: dict[tuple[int, ...], Tensor] = {}
        for part in alike(sources):
            projected |= zip(part, self._encoder.project(part), strict=True)
        if self._on_cuda:
            # What fails fails here, and the seconds are the encoder's.
            torch.cuda.current_stream().synchronize()
        tokens = sum(map(len, sources))
        computed = sum(source.shape[3] for source in projected.values())
        self.profile.encoded_tokens += computed
        self.profile.encoded_padding += computed - tokens
        return [Ready(task, projected[task.ids]) for task in tasks]

    def _laid_out(self) -> StaticMemory:
        """Memory that holds the next request. The queue gives the longest first, so that it holds the others too."""
        longest = max(ready.source.shape[3] for ready in self._ready)
        if self._memory is None or self._memory.longest < longest:
            self._again.extend(self._evict())
            self._forget()
            self._memory = StaticMemory(self._model, self._slots, self._search.width, longest, self._capacity)
            pool = torch.cuda.graph_pool_handle() if self._on_cuda else None
            # Of no method of the lane: in a cycle, the memory of a lane that is done would stay until the garbage collector comes.
            one = partial(step, self._model, self._memory, self._search, self._groups)
            self._graphs = StepGraphs(one, self._recorder, pool)
            self._free = list(range(self._slots))[::-1]
            self._progress = [Progress(0, 1) for _ in self._free]
            self._unfinished = self._free.copy()
        for slot in self._unfinished:
            # An empty slot decodes one token of nothing, and stands still.
            self._search.start(slot, (0,), 0, 1)
        self._unfinished = []
        return self._memory

    def _forget(self) -> None:
        self._graphs = None
        self._memory = None

    def _steps(self) -> list[bool]:
        """Some steps for all slots. Returns for each slot whether its search is done."""
        if not self._active or self._graphs is None or self._memory is None:
            return []
        began = perf_counter()
        spans = self._spans(self._memory)
        for _ in range(self._check_every):
            self._graphs(spans)
            self._count(spans.source)
        for progress in self._progress:
            progress.steps += self._check_every
        done: list[bool] = self._search.finished(self._groups).tolist()
        self.profile.decode_seconds += perf_counter() - began
        return done

    def _spans(self, memory: StaticMemory) -> Spans:
        """What is read until the next look."""
        longest = max(len(ready.task.ids) for ready in self._active.values())
        furthest = max(progress.positions(self._check_every) for progress in self._progress)
        return Spans(source_span(longest), min(own_span(furthest), memory.capacity))

    def _count(self, source: int) -> None:
        profile, width = self.profile, self._search.width
        empty = (self._slots - len(self._active)) * width
        profile.steps += 1
        profile.row_steps += len(self._active) * width
        profile.cross_positions += self._slots * source
        if len(self._queue) or self._ready or self._again:
            profile.idle_row_steps += empty
        else:
            profile.drained_row_steps += empty

    def _hand_out(self, done: Sequence[bool]) -> Iterator[Outcome]:
        for slot in [slot for slot in self._active if done[slot]]:
            found = self._search.result(slot)
            yield Outcome(self._leave(slot).task, found)

    def _leave(self, slot: int) -> Ready:
        self._free.append(slot)
        self._watch.stop(slot)
        return self._active.pop(slot)

    def _evict(self) -> list[Task]:
        """The tasks that decode now, taken out of their slots."""
        self._unfinished += self._active
        return [self._leave(slot).task for slot in list(self._active)]

    def _set_apart(self, error: Exception) -> Iterator[Outcome]:
        """Out of memory: half the slots. Else half as many at once, until the one that fails stands alone. All begin from their start."""
        # The frames of the failure hold tensors.
        error.with_traceback(None)
        starved = ran_out_of_memory(error)
        if starved:
            self._forget()
        if not starved and len(self._active) > 1:
            self._room = len(self._active) // 2
            self._again.extendleft(reversed(self._evict()))
        elif starved and self._slots > 1:
            self._halve()
        else:
            self._room = self._slots
            yield from (Outcome(task, error=error) for task in self._evict() or self._next_one())
        self._on_starved(error)

    def _next_one(self) -> list[Task]:
        return [self._ready.popleft().task] if self._ready else [self._again.popleft()] if self._again else self._queue.take(1)

    def _halve(self) -> None:
        self._again.extendleft(reversed([*self._evict(), *(ready.task for ready in self._ready)]))
        self._ready.clear()
        self._slots = self._room = self._slots // 2
        self._groups = self._groups[: self._slots]


def step(model: Architecture, memory: StaticMemory, search: Search, groups: Tensor, spans: Spans) -> None:
    """One token for all slots; `groups`: their numbers, on the device. A graph records this, so nothing in it may wait for the device."""
    logits = decode(model, memory, search.inputs(groups), search.positions(groups), spans)
    parents = search.advance(logits, groups)
    if parents is not None:
        memory.follow(parents)


def _has(embedding: Embedding, ids: Sequence[int], positions: int) -> bool:
    known = bool(ids) and min(ids) >= 0 and max(ids) < len(embedding.tokens)
    return known and (embedding.positions is None or positions <= len(embedding.positions))
