"""A text that takes too long, and an interrupt while texts are decoded."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.static_lanes import Bench
from tests.tiny_models import make_model, sentences
from transforms import pulse
from transforms.engine import DEADLINE, Completion, DecodeSettings, Engine, EngineSettings, Request, load_engine
from transforms.engine.deadline import DeadlineExceeded, Stopwatch
from transforms.engine.greedy import GreedySearch
from transforms.engine.schedule import Queue, Task

GREEDY = DecodeSettings(max_new_tokens=9, begin_suppress_tokens=(2,))
BEAMS = DecodeSettings(num_beams=2, max_new_tokens=6)
TEXTS = [" ".join(sentences(30)[start : start + 1 + start % 5]) for start in range(12)]
MARKED = " ".join(sentences(9))
TOO_LATE = Completion.failed(DEADLINE, "DeadlineExceeded")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model("bart", tmp_path_factory.mktemp("bart"))


@pytest.fixture
def engine(folder: Path) -> Callable[..., Any]:
    def make(seconds: float | None, backend: str = "torch", threads: int = 1) -> Engine:
        settings = {"backend": backend, "model_folder": str(folder), "device": "cpu", "dtype": "float32", "threads": threads}
        return load_engine(EngineSettings(**settings, slots=5, text_seconds=seconds))  # type: ignore[arg-type]

    return make


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Has `each` see the source lengths of every step of the decoder. The list that it returns grows by one a step."""
    from transforms.engine.decoder import Decoder

    plain, calls = Decoder.__call__, []

    def install(each: Callable[[list[int]], None]) -> list[int]:
        def seen(self: Any, *arguments: Any) -> Any:
            sizes = [source.tokens for source in arguments[1].sources]
            calls.append(len(sizes))
            each(sizes)
            return plain(self, *arguments)

        monkeypatch.setattr(Decoder, "__call__", seen)
        return calls

    return install


class Clock:
    """Time that passes only when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("transforms.engine.deadline.monotonic", clock)
    return clock


def told(completions: list[Completion]) -> list[tuple[object, ...]]:
    return [(completion.token_ids, completion.text, completion.finish, completion.error) for completion in completions]


def test_a_stopwatch_goes_by_the_one_that_began_first(clock: Clock) -> None:
    watch = Stopwatch(5)
    watch.check()
    watch.start(1)
    clock.now = 6
    watch.start(2)
    with pytest.raises(DeadlineExceeded):
        watch.check()
    watch.stop(1)
    watch.check()


def test_no_deadline_is_no_deadline() -> None:
    watch = Stopwatch(None)
    watch.start(0)
    watch.check()


@pytest.mark.parametrize("decode", [GREEDY, BEAMS], ids=["greedy", "beams"])
def test_a_text_that_takes_too_long_is_lost_alone(decode: DecodeSettings, engine: Callable[..., Engine], steps: Any, clock: Clock) -> None:
    """The neighbours' time runs as well while it holds them up: they start again without it."""
    limited = engine(60.0)
    good = [Request(text, decode) for text in TEXTS]
    expected = told(limited.generate(good))
    tokens = len(limited.tokenize([MARKED])[0]) + 2

    def pass_time(sizes: list[int]) -> None:
        clock.now += 25 if tokens in sizes else 1

    steps(pass_time)
    completions = limited.generate([*good[:4], Request(MARKED, decode), *good[4:]])
    assert completions.pop(4) == TOO_LATE
    assert told(completions) == expected


class Slow(GreedySearch):
    """Time passes faster while a request with this prefix decodes."""

    poison = 77
    clock: Clock
    slow: frozenset[int] = frozenset()

    def start(self, group: int, prefix: Sequence[int], *rest: Any) -> None:
        super().start(group, prefix, *rest)
        self.slow = self.slow | {group} if self.poison in prefix else self.slow - {group}

    def inputs(self, groups: torch.Tensor) -> torch.Tensor:
        self.clock.now += 25 if self.slow else 1
        return super().inputs(groups)


def test_the_lane_for_gpus_has_a_deadline_too(folder: Path, clock: Clock) -> None:
    spot, decode = Bench(folder), DecodeSettings(max_new_tokens=6)
    requests = [Request(text, decode, decoder_prefix=(Slow.poison,) if i == 5 else ()) for i, text in enumerate(TEXTS)]
    expected = [outcome.ids for outcome in spot.run(requests)]
    search = Slow(decode, [2], 3, 20)
    search.clock = clock
    done = spot.run(requests, 3, search=search, text_seconds=60.0)
    assert isinstance(done[5].error, DeadlineExceeded)
    assert [outcome.ids for outcome in done if outcome.error is None] == expected[:5] + expected[6:]


def test_generate_asks_between_its_steps_too(engine: Callable[..., Engine]) -> None:
    limited = engine(0.0, backend="generate")
    assert limited.generate([Request(text, GREEDY) for text in TEXTS[:3]]) == [TOO_LATE] * 3


def test_echo_has_a_deadline() -> None:
    limited = load_engine(EngineSettings(backend="echo", delay_ms=5000, text_seconds=0.05))
    began = time.monotonic()
    assert limited.generate([Request("Walks.", GREEDY)]) == [TOO_LATE]
    assert time.monotonic() - began < 2


def test_every_step_is_a_sign_of_life(engine: Callable[..., Engine]) -> None:
    limited = engine(100.0)
    with pulse.watched(5.0):
        assert pulse.silent_until() < time.monotonic() + 6
        limited.generate([Request(TEXTS[0], GREEDY)])
        assert time.monotonic() + 100 < pulse.silent_until() < time.monotonic() + 170
    assert pulse.silent_until() == 0


@pytest.fixture
def interrupted_after() -> Iterator[Callable[[float], None]]:
    """A signal, so many seconds from now, that raises KeyboardInterrupt in the main thread as SIGTERM does in a run."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, stop)
    timers: list[threading.Timer] = []

    def later(seconds: float) -> None:
        timers.append(threading.Timer(seconds, os.kill, [os.getpid(), signal.SIGUSR1]))
        timers[0].start()

    yield later
    timers[0].join()
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("threads", [1, 2])
def test_an_interrupt_drops_what_is_decoded_at_the_next_step(
    threads: int, engine: Callable[..., Engine], steps: Any, interrupted_after: Callable[[float], None]
) -> None:
    stopped = engine(None, threads=threads)
    requests = [Request(text, DecodeSettings(max_new_tokens=60, min_new_tokens=60)) for text in TEXTS]
    done = steps(lambda _: time.sleep(0.05))
    interrupted_after(0.3)
    with pytest.raises(KeyboardInterrupt):
        stopped.generate(requests)
    # All of them would have taken 60 steps, and the next ones as many again.
    at_once = len(done)
    assert 0 < at_once < 50 * threads
    time.sleep(0.2)
    assert len(done) == at_once, "a lane decodes on"


def test_after_an_interrupt_the_engine_is_as_before(
    engine: Callable[..., Engine], monkeypatch: pytest.MonkeyPatch, interrupted_after: Callable[[float], None]
) -> None:
    stopped = engine(None)
    good = [Request(text, GREEDY) for text in TEXTS]
    expected = stopped.generate(good)
    with monkeypatch.context() as patch:
        patch.setattr("transforms.engine.refill.Lane._count", lambda *_: time.sleep(0.1))
        interrupted_after(0.25)
        with pytest.raises(KeyboardInterrupt):
            stopped.generate(good)
    assert stopped.generate(good) == expected


def test_a_closed_queue_gives_nothing_more() -> None:
    queue = Queue([Task(i, (1, 2), (2,), 0, 4) for i in range(5)])
    queue.close()
    assert queue.closed and not len(queue) and queue.take(3) == []
