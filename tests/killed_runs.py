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

Prints a JSON list: {"outputs": [...], "kills": [{"output", "phase", "change", "place"}, ...], "seconds": {phase: …}} each. A kill
whose phase is "done" came too late.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from pipeline.killed_runs import PHASES, Kill, Killed, Runs, drawn_moment, import_all, killed


def draw(chance: random.Random, number: int, usual: dict[str, float]) -> Kill:
    """The kill of that number: the first three in one phase each, the others anywhere."""
    if number < 3:
        return Kill(PHASES[number], chance.random())
    return drawn_moment(chance.random(), usual)


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


def main() -> None:
    specs = json.load(sys.stdin)
    import_all(torch=any(spec["settings"].get("engine.backend") != "echo" for spec in specs))
    print(json.dumps([do(spec) for spec in specs]))


if __name__ == "__main__":
    main()
