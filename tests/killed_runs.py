"""Runs that are killed, and run again until they are done: what tests of resuming start in a process of its own.

    python -m tests.killed_runs < SPECS

Imports once and forks a child per run, so that a kill and a rerun cost no imports. Threads do not survive a fork: this
process starts none, reads no data, and leaves comparing to its caller. SPECS is a JSON list of objects:

    settings   dotted keys of the job file, without output.uri
    outputs    a folder or s3:// prefix: outputs are <outputs>/straight (never disturbed), <outputs>/killed-000, …
    kills      how many runs to kill at random moments: one in each phase, the others anywhere
    in_a_row   how many of them on one output before it may run to its end (default: 1 to 3, by chance)
    seed       of the random moments
    changes    instead of kills: [phases, n]: kill a run just before every nth change of the output folder in these phases
    rerun      false: leave the outputs as the kills left them (default true)
    before     a folder that every output starts as a copy of (optional)

Prints a JSON list: {"outputs": [...], "kills": [{"output", "phase", "change"}, ...], "seconds": {phase: …}} each. A kill
whose phase is "done" came too late.
"""

from __future__ import annotations

import importlib
import json
import mmap
import os
import random
import shutil
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

PHASES = ("planning", "graph", "publish", "done")
_CHANGES = {"open", "os.rename", "os.link", "os.remove", "os.mkdir"}
_POLL_S = 0.002
_PATIENCE_S = 120.0


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
    """What a kill hit. `change`: the change of the output folder that did not happen any more, for kills by number."""

    output: str
    phase: str
    change: str = ""


class Marks:
    """Memory that a child shares with this process: when, and after how many changes of its output folder, it reached which phase."""

    _TIMES = struct.Struct("4d")
    _COUNTS = struct.Struct("5q")
    _TEXT = slice(72, 272)

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 272)

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
        return count + 1

    def times(self) -> tuple[float, ...]:
        """When each phase was reached, 0 for not yet."""
        return self._TIMES.unpack_from(self._memory, 0)

    def counts(self) -> tuple[int, ...]:
        """How many changes there had been when each phase was reached, and how many there are now."""
        return self._COUNTS.unpack_from(self._memory, 32)

    def reached(self) -> str:
        return PHASES[max(i for i, moment in enumerate(self.times()) if moment or not i)]

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
    """Runs of one job into outputs that differ by name only."""

    settings: dict[str, Any]
    outputs: str
    before: str | None = None
    made: list[str] = field(default_factory=list)

    def new_output(self, name: str) -> str:
        output = f"{self.outputs.rstrip('/')}/{name}"
        if self.before:
            shutil.copytree(self.before, output)
        self.made.append(output)
        return output

    def start(self, output: str, kill_before: int = 0) -> tuple[int, Marks]:
        """Fork a child, in a process group of its own, that runs the job."""
        if threading.active_count() > 1:
            raise RuntimeError(f"{threading.active_count()} threads would not survive a fork")
        marks = Marks()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.dup2(2, 1)
                os.setpgid(0, 0)
                code = self._run(output, marks, kill_before)
            except BaseException:
                traceback.print_exc()
                raise
            finally:
                os._exit(code)
        # The child does the same: whoever comes first.
        with suppress(PermissionError):
            os.setpgid(pid, pid)
        return pid, marks

    def _run(self, output: str, marks: Marks, kill_before: int) -> int:
        from pipeline.config import load_job
        from pipeline.run import run_job

        @contextmanager
        def watch(store: Any, run_plan: Any) -> Iterator[None]:
            marks.reach("graph")
            yield
            marks.reach("publish")

        marks.reach("planning")
        watch_changes(output, marks, kill_before)
        code = run_job(load_job(None, (), {**self.settings, "output.uri": output}), watch=watch).exit_code
        marks.reach("done")
        return code

    def finish(self, output: str) -> Marks:
        """Run to the end. Raises RuntimeError when the run does not end well."""
        pid, marks = self.start(output)
        _, status = os.waitpid(pid, 0)
        if status:
            raise RuntimeError(f"the run into {output} ended with {os.waitstatus_to_exitcode(status)}")
        return marks


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
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            if os.WIFSIGNALED(status):
                return Killed(output, marks.reached(), marks.last_change())
            if status:
                raise RuntimeError(f"the run into {output} ended with {os.waitstatus_to_exitcode(status)}")
            return Killed(output, "done")
        began = marks.times()[PHASES.index(kill.phase)]
        if not kill.change and began and time.monotonic() >= began + after:
            os.killpg(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            return Killed(output, marks.reached() if os.WIFSIGNALED(status) else "done")
        time.sleep(_POLL_S)
    os.killpg(pid, signal.SIGKILL)
    raise RuntimeError(f"the run into {output} hangs")


def draw(chance: random.Random, number: int, usual: dict[str, float]) -> Kill:
    """The kill of that number: the first three in one phase each, the others anywhere."""
    if number < 3:
        return Kill(PHASES[number], chance.random())
    moment = chance.uniform(0, sum(usual.values()))
    for phase in PHASES[:2]:
        if moment < usual[phase]:
            return Kill(phase, moment / usual[phase])
        moment -= usual[phase]
    return Kill("publish", moment / usual["publish"])


def kill_at_moments(runs: Runs, spec: dict[str, Any], usual: dict[str, float]) -> list[Killed]:
    """Kill as many runs as `spec` says; what came too late is done over, sooner, and on another output if the run was done."""
    chance, count = random.Random(spec["seed"]), spec["kills"]
    results: list[Killed] = []
    hits, in_a_row, haste = 0, 0, 1.0
    output = ""
    while hits < count and len(results) < 5 * count:
        if not in_a_row:
            output, in_a_row = runs.new_output(f"killed-{len(results):03d}"), spec.get("in_a_row") or chance.choice((1, 1, 2, 3))
        kill = draw(chance, hits, usual)
        result = killed(runs, output, replace(kill, fraction=kill.fraction * haste), usual)
        results.append(result)
        is_hit = result.phase == kill.phase or (hits >= 3 and result.phase != "done")
        hits, haste = (hits + 1, 1.0) if is_hit else (hits, haste / 3)
        in_a_row = 0 if result.phase == "done" else max(in_a_row - is_hit, 0)
        if not in_a_row or hits == count:
            runs.finish(output)
    return results


def kill_before_changes(runs: Runs, numbers: Sequence[int], rerun: bool, usual: dict[str, float]) -> list[Killed]:
    results = []
    for number in numbers:
        output = runs.new_output(f"killed-{number:03d}")
        results.append(killed(runs, output, Kill(change=number), usual))
        if rerun:
            runs.finish(output)
    return results


def do(spec: dict[str, Any]) -> dict[str, Any]:
    runs = Runs(spec["settings"], spec["outputs"], spec.get("before"))
    straight = runs.finish(runs.new_output("straight"))
    usual = straight.seconds()
    if "changes" in spec:
        phases, every = spec["changes"]
        kills = kill_before_changes(runs, straight.changes(phases)[::every], spec.get("rerun", True), usual)
    else:
        kills = kill_at_moments(runs, spec, usual)
    return {"outputs": runs.made, "kills": [asdict(kill) for kill in kills], "seconds": usual}


def import_all(torch: bool) -> None:
    """What a run imports, without making anything that starts threads."""
    names = ["apache_beam.runners.portability.fn_api_runner.fn_runner", "boto3", "pipeline.run", "schemas.custom_expectations"]
    names += ["great_expectations.execution_engine", "great_expectations.validator.validation_graph"]
    for name in names:
        importlib.import_module(name)
    if torch:
        importlib.import_module("transforms.engine.torch_engine")
        importlib.import_module("transformers.models.auto.modeling_auto")
        importlib.import_module("torch").set_num_threads(1)


def main() -> None:
    specs = json.load(sys.stdin)
    import_all(torch=any(spec["settings"].get("engine.backend") != "echo" for spec in specs))
    print(json.dumps([do(spec) for spec in specs]))


if __name__ == "__main__":
    main()
