"""Training runs that are killed, and run again until they are done: what tests of resuming start in a process of its own.

    python -m tests.killed_training FOLDER EVERY

Runs the tiny job of FOLDER once undisturbed, then once per every EVERYth change of its run folder with a SIGKILL just before that
change, and again to its end. Forks a child per run, so that imports are paid once; this process itself computes nothing. Prints a JSON
list of the runs' outcomes: `change` (0: undisturbed), `killed`, `result` (the model's sha256), `losses` (loss by step).
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pipeline.training.run as training
from tests.training_jobs import log_of, losses_of, tiny_job

_CHANGES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}
# Averages and looks at the dev set are part of what must come out the same.
OPTIONS = {"fit__average": 0.9, "dev__every": 2, "machine__checkpoint_every": 3, "fit__max_steps": 7}


def run_forked(folder: Path, output: Path, kill_at: int) -> tuple[bool, int]:
    """(whether it was killed, how many changes it made). `kill_at`: the change before which it is killed, 0 for none."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        count = 0

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal count
            if event in _CHANGES and str(output) in str(arguments[0]) and not (event == "open" and arguments[1] == "r"):
                count += 1
                if count == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        training.train(tiny_job(folder, output=str(output), **OPTIONS), "none")
        os.write(writer, str(count).encode())
        os._exit(0)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    with os.fdopen(reader) as file:
        told = file.read()
    if not os.WIFSIGNALED(status) and status:
        raise SystemExit(f"the run ended with status {status}")
    return os.WIFSIGNALED(status), int(told or 0)


def outcome(output: Path, change: int, killed: bool) -> dict[str, Any]:
    result = json.loads((output / "result.json").read_text())
    looks = {line["step"]: line["look"] for line in log_of(output) if "look" in line}
    left = sorted(path.name for path in output.iterdir())
    return {
        "change": change, "killed": killed, "result": result["model_sha256"], "losses": losses_of(output), "looks": looks, "left": left,
    }  # fmt: skip


def main(folder: Path, every: int) -> None:
    straight = folder / "straight"
    _, changes = run_forked(folder, straight, 0)
    found = [outcome(straight, 0, False)]
    for change in range(every, changes + 1, every):
        output = folder / f"killed-{change}"
        killed, _ = run_forked(folder, output, change)
        run_forked(folder, output, 0)
        found.append(outcome(output, change, killed))
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
