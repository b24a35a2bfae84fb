"""SageMaker Processing, emulated: hosts as forked processes, each with a tree of its own, doing what the request says.

A script, so that what the hosts import is imported once: it reads specs of jobs from stdin and tells how each host ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.killed_runs import import_all
from transforms.store import Encryption, Store, open_store

ROOT = Path(__file__).resolve().parent.parent
_POLL_S = 0.02
_PATIENCE_S = 400.0


def make_tree(root: Path, request: dict[str, Any], index: int) -> Path:
    """What a container finds when it starts on host number `index`, and where it may write."""
    count = request["ProcessingResources"]["ClusterConfig"]["InstanceCount"]
    tree = root / f"algo-{index + 1}"
    (tree / "config").mkdir(parents=True)
    (tree / "output").mkdir()
    hosts = {"current_host": f"algo-{index + 1}", "hosts": [f"algo-{number + 1}" for number in range(count)]}
    (tree / "config" / "resourceconfig.json").write_text(json.dumps(hosts))
    said = {"ProcessingJobName": request["ProcessingJobName"], "RoleArn": request["RoleArn"], "ProcessingInputs": []}
    (tree / "config" / "processingjobconfig.json").write_text(json.dumps(said))
    return tree


def run_jobs(jobs: Sequence[dict[str, Any]], env: dict[str, str]) -> list[dict[str, Any]]:
    """Run jobs one after the other in a process of its own.

    A job: `request`, `root` (of its trees), `output`, `stop`: {host, signal, commits} or absent, `absent`: hosts that never start. What
    comes back: `codes`, `messages` and `logs` by host (one that was killed has its signal's negative number), and the `keys` that stand
    under the output when all have ended.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.sagemaker_emulator"],
        input=json.dumps(list(jobs)),
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=900,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return list(json.loads(done.stdout.splitlines()[-1]))


def do(job: dict[str, Any]) -> dict[str, Any]:
    request, root = job["request"], Path(job["root"])
    count = request["ProcessingResources"]["ClusterConfig"]["InstanceCount"]
    trees = [make_tree(root, request, index) for index in range(count)]
    pids = {index: start(tree, request) for index, tree in enumerate(trees) if index not in job.get("absent", ())}
    if stop := job.get("stop"):
        wait_for_commits(job["output"], stop["commits"])
        os.kill(pids[stop["host"]], stop["signal"])
    codes = [ended(pids[index]) if index in pids else None for index in range(count)]
    messages = [path.read_text() if (path := tree / "output" / "message").exists() else "" for tree in trees]
    logs = [path.read_text() if (path := tree / "log").exists() else "" for tree in trees]
    return {"codes": codes, "messages": messages, "logs": logs, "keys": listed(job["output"], root / "keys")}


def start(tree: Path, request: dict[str, Any]) -> int:
    """Fork a host; its entrypoint is the command line with the request's arguments."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        log = os.open(tree / "log", os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(request.get("Environment", {}), CHARTMILL_ML_ROOT=str(tree))
        from pipeline.cli import main as chartmill

        # As the entrypoint finds them: the first process starts a run that dies again.
        sys.argv = ["chartmill", *request["AppSpecification"]["ContainerArguments"]]
        code = chartmill()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def apart(look: Callable[[Store], None], output: str) -> None:
    """Look into the output in a process of its own: a host that is forked later must not inherit a client's connections."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
        return
    try:
        look(open_store(output, Encryption("bucket")))
    finally:
        os._exit(0)


def wait_for_commits(output: str, commits: int) -> None:
    def look(store: Store) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline and sum("/commits/" in entry.key for entry in store.list("_runs/")) < commits:
            time.sleep(_POLL_S)

    apart(look, output)


def listed(output: str, told: Path) -> list[str]:
    def look(store: Store) -> None:
        told.write_text(json.dumps(sorted(entry.key for entry in store.list(""))))

    apart(look, output)
    return list(json.loads(told.read_text()))


def ended(pid: int) -> int:
    """The exit code, once the host has ended; one that hangs is killed."""
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(_POLL_S)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise RuntimeError("a host hangs")


def main() -> None:
    jobs = json.load(sys.stdin)
    import_all(torch=False)
    print(json.dumps([do(job) for job in jobs]))


if __name__ == "__main__":
    main()
