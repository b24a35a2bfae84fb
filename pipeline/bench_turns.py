"""Contenders of a measurement take turns, each in a process of its own, so that none meets another's threads, memory or library settings.

It knows nothing of what they do. While one works, the others wait.
"""

from __future__ import annotations

import logging
import multiprocessing as mp
import resource
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, Protocol

from schemas.errors import ChartmillError
from transforms.batch import describe_error

_TURN, _END = "turn", "end"
# For a process to end by itself.
_PATIENCE_S = 20


@dataclass(frozen=True, slots=True)
class Turn:
    """What a contender did once: wall-clock seconds without `load_seconds`, notes done, tokens written, seconds by stage if it has some.

    `peak_mb`: the most memory that its process has had so far, in MB (10^6 bytes). `facts`: what else a contender tells; never shown.
    """

    seconds: float
    load_seconds: float
    notes: int
    output_tokens: int
    stages: Mapping[str, float] = field(default_factory=dict)
    peak_mb: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False)


class Contender(Protocol):
    """Somebody who does the work once each turn."""

    def turn(self) -> Turn: ...


def take_turns(makers: Mapping[str, Callable[[], Contender]], repeats: int) -> dict[str, list[Turn]]:
    """`repeats` turns of each contender, one after the other (A B C, A B C, …), after one of each that does not count.

    The makers are called in order, each in its contender's process. Raises ContenderFailed when one fails: with the kind of the error and
    its place, never with its message, which may quote a text, unless it is a ChartmillError.
    """

    def give_up(name: str, error: ContenderFailed) -> None:
        raise error

    return _turns(makers, repeats, give_up, lambda name, turns: None)


def try_turns(
    makers: Mapping[str, Callable[[], Contender]], repeats: int, watch: Callable[[str, Sequence[Turn]], None] = lambda name, turns: None
) -> tuple[dict[str, list[Turn]], dict[str, str]]:
    """As `take_turns`, but one that fails leaves the others to it: the turns of those that did them all, and why others did not.

    `watch` is called after each turn with all that its contender has done, what does not count included.
    """
    failures: dict[str, str] = {}

    def leave_out(name: str, error: ContenderFailed) -> None:
        failures[name] = error.reason

    return _turns(makers, repeats, leave_out, watch), failures


def _turns(
    makers: Mapping[str, Callable[[], Contender]],
    repeats: int,
    failed: Callable[[str, ContenderFailed], None],
    watch: Callable[[str, Sequence[Turn]], None],
) -> dict[str, list[Turn]]:
    """The turns of those that did them all; `failed` hears of one that did not, and may raise to end it for all."""
    turns: dict[str, list[Turn]] = {}
    with ExitStack() as stack:
        ask: dict[str, Callable[[], Turn]] = {}
        for name, make in makers.items():
            try:
                ask[name] = stack.enter_context(_process(name, make))
            except ContenderFailed as error:
                failed(name, error)
            else:
                turns[name] = []
        for _ in range(repeats + 1):
            for name, mine in list(turns.items()):
                try:
                    mine.append(ask[name]())
                except ContenderFailed as error:
                    failed(name, error)
                    del turns[name]
                else:
                    watch(name, mine)
    return {name: mine[1:] for name, mine in turns.items()}


class ContenderFailed(ChartmillError):
    """A contender could not do its work; `reason` holds no text of what it worked on."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"the measurement of {name} failed: {reason}")
        self.reason = reason


@contextmanager
def _process(name: str, make: Callable[[], Contender]) -> Iterator[Callable[[], Turn]]:
    """A function that has a contender take a turn in a process of its own."""
    # A fresh interpreter: a forked one would inherit locks and threads of torch, gRPC and Arrow.
    ours, theirs = mp.get_context("spawn").Pipe()
    process = mp.get_context("spawn").Process(target=_work, args=(make, theirs))
    process.start()
    theirs.close()

    def said() -> Turn:
        try:
            answer = ours.recv()
        except (EOFError, ConnectionResetError):
            answer = _epitaph(process)
        if isinstance(answer, str):
            raise ContenderFailed(name, answer)
        return answer

    def ask() -> Turn:
        # One that has died meanwhile is found out by what it does not say.
        with suppress(BrokenPipeError):
            ours.send(_TURN)
        return said()

    try:
        # The next one is made when this one is ready.
        said()
        yield ask
        with suppress(BrokenPipeError):
            ours.send(_END)
        process.join(_PATIENCE_S)
    finally:
        process.kill()
        process.join()
        ours.close()


def _epitaph(process: SpawnProcess) -> str:
    """Why a process is gone without a word."""
    process.join(_PATIENCE_S)
    if process.exitcode == -signal.SIGKILL:
        return "its process was killed, as the system does when memory runs out"
    return f"its process died (exit code {process.exitcode})"


def _work(make: Callable[[], Contender], parent: Connection) -> None:
    """A contender's life; nothing that goes wrong in it may reach stderr, where a message would quote a text."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    try:
        contender = make()
        parent.send(Turn(0, 0, 0, 0))
        while parent.recv() != _END:
            parent.send(replace(contender.turn(), peak_mb=_peak_mb()))
    except ChartmillError as error:  # its messages hold no text
        parent.send(str(error))
    except Exception as error:  # noqa: BLE001 - the edge of a process: kind and place go to the parent, the message nowhere
        parent.send(describe_error(error))


def _peak_mb() -> int:
    # Bytes on macOS, KiB elsewhere.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 1_000_000
