"""Runs of a job in forked processes, and what kills them: this process imports once, so that a run costs no imports.

Threads do not survive a fork: this process starts none and reads no data; what has to be read is read by a child.
"""

from __future__ import annotations

import gc
import importlib
import mmap
import os
import pickle
import shutil
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from schemas.errors import ChartmillError

PHASES = ("planning", "graph", "publish", "done")
_CHANGES = {"open", "os.rename", "os.link", "os.remove", "os.mkdir"}
_POLL_S = 0.002
# A run that takes longer hangs.
_MOST_S = 600

# What a run imports; none of it starts a thread.
_IMPORTS = (
    "apache_beam.runners.portability.fn_api_runner.fn_runner",
    "boto3",
    "pipeline.run",
    "schemas.custom_expectations",
    "great_expectations.execution_engine",
    "great_expectations.validator.validation_graph",
)
_TORCH_IMPORTS = ("transforms.engine.torch_engine", "transformers.models.auto.modeling_auto")


@dataclass(frozen=True, slots=True)
class Kill:
    """When to kill: `fraction` of a phase's usual duration after it began.

    With `change` > 0: just before that change of the output folder.
    """

    phase: str = "planning"
    fraction: float = 0.0
    change: int = 0


@dataclass(frozen=True, slots=True)
class Killed:
    """What a kill hit. `change`: the change of the output folder that did not happen any more, for kills by number.

    `place`: plan, shard (it is read or worked on), commit, publish or done: the kill came too late.
    """

    output: str
    phase: str
    change: str = ""
    place: str = "done"


class Marks:
    """Memory that a child shares with this process: when, and after how many changes of its output folder, it reached which phase."""

    _TIMES = struct.Struct("4d")
    _COUNTS = struct.Struct("5q")
    _TEXT = slice(72, 272)
    _COMMITTING = 272

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 273)

    def reach(self, phase: str) -> None:
        times, counts, index = list(self.times()), list(self.counts()), PHASES.index(phase)
        # A run with nothing to generate skips phases.
        for i in (i for i in range(index + 1) if i == index or not times[i]):
            times[i], counts[i] = time.monotonic(), counts[-1]
        self._TIMES.pack_into(self._memory, 0, *times)
        self._COUNTS.pack_into(self._memory, 32, *counts)

    def count_change(self, text: str) -> int:
        *before, count = self.counts()
        self._COUNTS.pack_into(self._memory, 32, *before, count + 1)
        self._memory[self._TEXT] = text.encode()[:200].ljust(200)
        # A shard's work begins with its mark; what is written after that, and the removal of the mark, is its commit.
        self._memory[self._COMMITTING] = "/attempts/" not in text or text.startswith("os.remove")
        return count + 1

    def times(self) -> tuple[float, ...]:
        """When each phase was reached, 0 for not yet."""
        return self._TIMES.unpack_from(self._memory, 0)

    def counts(self) -> tuple[int, ...]:
        """How many changes there had been when each phase was reached, and how many there are now."""
        return self._COUNTS.unpack_from(self._memory, 32)

    def reached(self) -> str:
        return PHASES[max(i for i, moment in enumerate(self.times()) if moment or not i)]

    def place(self) -> str:
        """As in `Killed`, of a run that was killed now."""
        phase = self.reached()
        graph = "commit" if self._memory[self._COMMITTING] else "shard"
        return {"planning": "plan", "graph": graph}.get(phase, phase)

    def seconds(self) -> dict[str, float]:
        times = self.times()
        return {phase: times[i + 1] - times[i] for i, phase in enumerate(PHASES[:-1])}

    def changes(self, phases: Sequence[str]) -> list[int]:
        """Numbers, from 1, of the changes in these phases of a run that is done."""
        counts = self.counts()
        return [number for phase in phases for i in (PHASES.index(phase),) for number in range(counts[i] + 1, counts[i + 1] + 1)]

    def last_change(self) -> str:
        return self._memory[self._TEXT].strip(b" \0").decode()


@dataclass(frozen=True, slots=True)
class Runs:
    """Runs of one job into outputs that differ by name only. `settings`: dotted keys of the job file, without output.uri.

    `before`: a folder that every output starts as a copy of.
    """

    settings: dict[str, Any] = field(repr=False)
    outputs: str
    before: str | None = None
    overrides: tuple[str, ...] = field(default=(), repr=False)
    made: list[str] = field(default_factory=list)

    def new_output(self, name: str) -> str:
        output = f"{self.outputs.rstrip('/')}/{name}"
        if self.before:
            shutil.copytree(self.before, output)
        self.made.append(output)
        return output

    def start(self, output: str, kill_before: int = 0) -> tuple[int, Marks]:
        """Fork a child, in a process group of its own, that runs the job."""
        marks = Marks()
        return fork(lambda: self.run(output, marks, kill_before)), marks

    def run(self, output: str, marks: Marks, kill_before: int = 0) -> int:
        """Run the job in this process; returns its exit code."""
        from pipeline.config import load_job
        from pipeline.run import run_job

        @contextmanager
        def watch(store: Any, run_plan: Any) -> Iterator[None]:
            marks.reach("graph")
            yield
            marks.reach("publish")

        marks.reach("planning")
        watch_changes(output, marks, kill_before)
        code = run_job(load_job(None, self.overrides, {**self.settings, "output.uri": output}), watch=watch).exit_code
        marks.reach("done")
        return code

    def finish(self, output: str) -> Marks:
        """Run to the end. Raises ChartmillError when the run does not end well."""
        pid, marks = self.start(output)
        _, status = os.waitpid(pid, 0)
        if status:
            raise ChartmillError(f"a run that nobody disturbed ended with exit code {os.waitstatus_to_exitcode(status)}")
        return marks


def fork(body: Callable[[], int], most_seconds: int = _MOST_S) -> int:
    """The process id of a child, in a process group of its own, that ends with the exit code that `body` returns, or with 1.

    One that takes more than `most_seconds` (0: for ever) is killed.
    """
    if threading.active_count() > 1:
        raise RuntimeError(f"{threading.active_count()} threads would not survive a fork")
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.dup2(2, 1)
            os.setpgid(0, 0)
            # Nobody waits for one that hangs.
            signal.alarm(most_seconds)
            # Too short a life to look for garbage.
            gc.disable()
            code = body()
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(code)
    # The child does the same: whoever comes first.
    with suppress(PermissionError):
        os.setpgid(pid, pid)
    return pid


def answer_of(body: Callable[[], Any]) -> Any:
    """What `body` returns in a child, None when the child fails. Blocks."""
    return answers_of([body])[0]


def answers_of(bodies: Sequence[Callable[[], Any]], most_seconds: int = _MOST_S) -> list[Any]:
    """As `answer_of`, of a child each, side by side."""
    children = [_asked(body, most_seconds) for body in bodies]
    answers = []
    for pid, reading in children:
        with os.fdopen(reading, "rb") as pipe:
            data = pipe.read()
        _, status = os.waitpid(pid, 0)
        answers.append(None if status else pickle.loads(data))
    return answers


def _asked(body: Callable[[], Any], most_seconds: int) -> tuple[int, int]:
    """A child and where its answer can be read."""
    reading, writing = os.pipe()

    def send() -> int:
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(pickle.dumps(body()))
        return 0

    pid = fork(send, most_seconds)
    os.close(writing)
    return pid, reading


def watch_changes(output: str, marks: Marks, kill_before: int) -> None:
    """From now on count what this process is about to change under its output folder; kill its group before change number `kill_before`."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _CHANGES or not str(arguments[0]).startswith(output):
            return
        if event == "open" and not (arguments[2] or 0) & os.O_CREAT:
            return
        target = str(arguments[1] if event in ("os.rename", "os.link") else arguments[0])
        if marks.count_change(f"{event} {target.removeprefix(output)}") == kill_before:
            os.killpg(0, signal.SIGKILL)

    sys.addaudithook(hook)


def killed(runs: Runs, output: str, kill: Kill, usual: dict[str, float]) -> Killed:
    """Start a run and kill its process group; a run that ends before that has to end well."""
    pid, marks = runs.start(output, kill.change)
    after = kill.fraction * usual[kill.phase]
    deadline = time.monotonic() + _MOST_S
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            if os.WIFSIGNALED(status):
                return Killed(output, marks.reached(), marks.last_change(), marks.place())
            if status:
                raise ChartmillError(f"a run that nobody disturbed ended with exit code {os.waitstatus_to_exitcode(status)}")
            return Killed(output, "done")
        began = marks.times()[PHASES.index(kill.phase)]
        if not kill.change and began and time.monotonic() >= began + after:
            os.killpg(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            return Killed(output, marks.reached(), place=marks.place()) if os.WIFSIGNALED(status) else Killed(output, "done")
        time.sleep(_POLL_S)
    os.killpg(pid, signal.SIGKILL)
    raise ChartmillError("a run hangs")


def drawn_moment(chance: float, usual: dict[str, float]) -> Kill:
    """The moment at `chance` (0 to 1) of a run's usual duration."""
    moment = chance * sum(usual.values())
    for phase in PHASES[:2]:
        if moment < usual[phase]:
            return Kill(phase, moment / usual[phase])
        moment -= usual[phase]
    return Kill("publish", moment / usual["publish"])


def import_all(torch: bool) -> None:
    """What a run imports, without making anything that starts threads."""
    for name in (*_IMPORTS, *(_TORCH_IMPORTS if torch else ())):
        importlib.import_module(name)
    if torch:
        importlib.import_module("torch").set_num_threads(1)
    # What is here now is not to be looked through, and so copied, in every child.
    gc.freeze()
