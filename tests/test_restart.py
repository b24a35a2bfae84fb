"""A parent that starts a run again: what it takes for a death, what it passes on, and what it notices."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import all_rows, echo_job, note_rows, read_rows, write_notes
from tests.planted_failures.sitecustomize import BEGUN_VARIABLE, CRASH
from tests.tiny_models import make_model
from transforms.ledger import attempts, committed_shards
from transforms.store import LocalStore

ROOT = Path(__file__).parent.parent
LENIENT = ("--set", "gate.max_quarantined_share=1", "--set", "gate.max_flagged_share=1", "--set", "gate.contract=ignore")

# A parent and its children; `body` is what they do. Children of pytest's own process would be children of a process with threads.
SCRIPT = """
import os, signal, sys, time, ctypes
from pipeline.restart import deaths, started_again, tell_worker_died
from transforms import pulse

def body():
{body}

# The tests may run under nohup.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
sys.exit(started_again(body, most=3))
"""


def start(body: str) -> subprocess.Popen[str]:
    script = SCRIPT.format(body="\n".join(f"    {line}" for line in body.strip().splitlines()))
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def ended(body: str) -> tuple[int, str, str]:
    out, err = (process := start(body)).communicate(timeout=60)
    return process.returncode, out, err


def test_a_run_that_ends_is_not_started_again() -> None:
    assert ended("print(deaths()); return 3") == (3, "0\n", "")


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL", "SIGABRT"])
def test_a_run_that_dies_is_started_again(name: str) -> None:
    code, out, err = ended(f"print(deaths(), flush=True)\nif deaths() < 2: os.kill(os.getpid(), signal.{name})\nreturn 0")
    assert (code, out.split()) == (0, ["0", "1", "2"])
    assert err.count(f"the run died ({name})") == 2


def test_a_run_that_dies_writes_no_image_of_its_memory() -> None:
    assert ended("import resource\nprint(resource.getrlimit(resource.RLIMIT_CORE)); return 0") == (0, "(0, 0)\n", "")


def test_so_many_deaths_are_nobody_s_fault() -> None:
    code, _, err = ended("os.kill(os.getpid(), signal.SIGSEGV)")
    assert code == 1 and "after 3 deaths before" in err and len(err.splitlines()) == 4


def test_an_exception_is_no_death() -> None:
    assert ended("raise SystemExit(2)")[0] == 1


def test_a_worker_s_death_counts_only_if_the_run_failed_of_it() -> None:
    assert ended("if deaths(): return 0\ntell_worker_died(); return 1")[0] == 0
    assert ended("tell_worker_died(); return 0") == (0, "", "")


def test_a_step_that_holds_the_interpreter_for_ever_is_noticed() -> None:
    """No thread of that process could: the lock is never given back."""
    code, out, err = ended("if deaths(): return 0\nwith pulse.watched(0.5): ctypes.PyDLL(None).sleep(600)")
    assert (code, out) == (0, "") and "SIGKILL" in err


def test_silence_outside_of_what_is_watched_is_no_hang() -> None:
    assert ended("with pulse.watched(0.2): pass\npulse.beat(0.1); time.sleep(1.2); return 0") == (0, "", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_being_stopped_is_passed_on_and_no_death(number: signal.Signals) -> None:
    process = start("""
signal.signal(signal.SIGTERM, lambda *_: print("tidied", flush=True) or os._exit(7))
signal.signal(signal.SIGINT, lambda *_: print("tidied", flush=True) or os._exit(7))
print("ready", flush=True); time.sleep(60)
""")
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert (process.returncode, out) == ((129, "") if number == signal.SIGHUP else (7, "tidied\n"))


def test_a_child_does_not_outlive_its_parent() -> None:
    process = start("print(os.getpid(), flush=True); time.sleep(60)")
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.wait(timeout=30)
    wait_until(lambda: not is_alive(child))


def wait_until(holds: Callable[[], bool], seconds: float = 10) -> None:
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def planted_run(notes: Path, output: Path, *more: str, begun: Path | None = None, **variables: str) -> subprocess.Popen[str]:
    """`chartmill run` with engines that die on some texts, and make the file `begun` when they begin."""
    arguments = ["run", "--input", str(notes), "--output", str(output), "--shard-notes", "4", "--json", *LENIENT, *more]
    path = os.pathsep.join([str(ROOT / "tests" / "planted_failures"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, BEGUN_VARIABLE: str(begun or ""), **variables}
    command = [sys.executable, "-m", "pipeline.cli", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment)


@pytest.mark.slow
@pytest.mark.timeout(550)
@pytest.mark.parametrize("workers", [0, 1], ids=["one process", "a worker process"])
def test_a_note_that_kills_the_run_is_rejected_and_the_run_goes_on(workers: int, tmp_path: Path) -> None:
    rows = note_rows(12)
    rows[5]["text"] += f" {CRASH}"
    write_notes(tmp_path / "notes" / "x.parquet", rows)
    options = ("--", "--direct_running_mode=multi_processing", f"--direct_num_workers={workers}") if workers else ()
    run = planted_run(tmp_path / "notes", tmp_path / "out", "--engine", "echo", "--run-id", "night", *options)
    out, err = run.communicate(timeout=500)
    assert run.returncode == 0, err
    assert [(r["note_id"], r["reason"]) for r in read_rows(tmp_path / "out", "rejections")] == [("n000005", "CRASHED")]
    kept = read_rows(tmp_path / "out", "summaries")
    assert [row["note_id"] for row in kept] == [row["note_id"] for row in rows if row is not rows[5]]
    report = json.loads(out.splitlines()[-1])["report"]
    assert (report["notes_in"], report["notes_summarized"], report["reasons"]) == (12, 11, {"CRASHED": 1})
    assert err.count("it goes on") == 1
    assert CRASH not in out + err
    from pipeline.run import run_job

    rows[5]["text"] = note_rows(12)[5]["text"]
    write_notes(tmp_path / "sound" / "x.parquet", rows)
    run_job(echo_job(tmp_path / "sound", tmp_path / "straight", **{"engine.shard_notes": 4}))
    assert kept == [row for row in read_rows(tmp_path / "straight", "summaries") if row["note_id"] != "n000005"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_that_is_stopped_while_its_model_decodes_drops_the_shard_at_once(tmp_path: Path) -> None:
    """Thousands of notes would take minutes: longer than whoever stops a machine waits."""
    write_notes(tmp_path / "notes" / "x.parquet", note_rows(3000))
    decode = [f"tasks.summary.decode.{key}=60" for key in ("min_new_tokens", "max_new_tokens")]
    settings = [part for key in ("engine.dtype=float32", "engine.threads=1", *decode) for part in ("--set", key)]
    model = ("--model", str(make_model("bart", tmp_path / "model")), "--shard-notes", "3000")
    run = planted_run(tmp_path / "notes", tmp_path / "out", *model, *settings, begun=tmp_path / "begun")
    try:
        wait_until((tmp_path / "begun").exists, 500)
        time.sleep(2)
        began = time.monotonic()
        run.send_signal(signal.SIGTERM)
        _, err = run.communicate(timeout=90)
    finally:
        run.kill()
    assert run.returncode == 1 and "interrupted; run again to go on" in err, err
    assert time.monotonic() - began < 60
    store = LocalStore(tmp_path / "out")
    [version] = [path.name for path in (tmp_path / "out" / "_runs").iterdir()]
    assert not committed_shards(store, version) and not attempts(store, version)


def children_of(pid: int) -> list[int]:
    """And theirs."""
    parents = {int(stat.parent.name): int(told[1]) for stat in Path("/proc").glob("[0-9]*/stat") if (told := told_by(stat))}
    found = [child for child, parent in parents.items() if parent == pid]
    return [*found, *(other for child in found for other in children_of(child))]


def told_by(stat: Path) -> list[str]:
    """State, parent and so on; nothing of a process that has just ended."""
    try:
        return stat.read_text().rsplit(")", 1)[1].split()
    except OSError:
        return []


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", ["multi_processing", "multi_threading"])
def test_a_run_with_workers_that_is_stopped_drops_their_shards_at_once(mode: str, tmp_path: Path) -> None:
    """Beam would wait for the end of their bundles, here a minute. Running again loses and doubles nothing."""
    for number in range(2):
        write_notes(tmp_path / "notes" / f"{number}.parquet", note_rows(30, 30 * number))
    notes, output = tmp_path / "notes", tmp_path / "out"
    workers = ("--", f"--direct_running_mode={mode}", "--direct_num_workers=2")
    run = planted_run(notes, output, "--engine", "echo", "--set", "engine.delay_ms=2000", *workers)
    try:
        wait_until(lambda: run.poll() is not None or any(output.glob("_runs/*/commits/*.json")), 500)
        processes = children_of(run.pid)
        began = time.monotonic()
        run.send_signal(signal.SIGTERM)
        out, err = run.communicate(timeout=90)
    finally:
        run.kill()
    assert run.returncode == 1 and json.loads(out.splitlines()[-1])["error"] == "interrupted; run again to go on", err
    assert time.monotonic() - began < 40 and "Traceback" not in err
    assert len(processes) == (3 if mode == "multi_processing" else 1)
    wait_until(lambda: not any(map(is_alive, processes)))
    assert not list(output.rglob(".tmp-*")) and not list(output.glob("_runs/*/attempts/*"))
    assert_goes_on(notes, output, tmp_path / "straight")


def assert_goes_on(notes: Path, output: Path, straight: Path) -> None:
    """Running again ends well, with the rows of a run that nobody stopped."""
    from pipeline.run import run_job

    lenient = {"gate.max_quarantined_share": 1.0, "gate.max_flagged_share": 1.0, "gate.contract": "ignore", "engine.shard_notes": 4}
    again = run_job(echo_job(notes, output, **lenient)).published
    assert again.released and again.report["shards_resumed"] >= 1
    run_job(echo_job(notes, straight, **lenient))
    assert all_rows(output) == all_rows(straight)
