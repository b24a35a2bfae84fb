"""Runs that are killed go on where they stood; runs of several processes compute what one does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.training.folder import RunFolder
from schemas.errors import ConfigurationError
from tests.canaries import assert_private
from tests.conftest import free_port
from tests.training_jobs import log_of, losses_of, tiny_job, tiny_settings

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def killed_runs(folder: Path, every: int) -> list[dict[str, Any]]:
    tiny_settings(folder)
    command = [sys.executable, "-m", "tests.killed_training", str(folder), str(every)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False, timeout=800)
    assert done.returncode == 0, done.stderr[-2000:]
    return list(json.loads(done.stdout.splitlines()[-1]))


def check_killed(found: list[dict[str, Any]], folder: Path) -> None:
    straight, *others = found
    for run in others:
        assert run["killed"], run["change"]
        assert {name: run[name] for name in ("result", "losses", "looks", "left")} == {
            name: straight[name] for name in ("result", "losses", "looks", "left")
        }, run["change"]
        assert_private(folder / f"killed-{run['change']}")


@pytest.mark.slow
@pytest.mark.timeout(800)
def test_killed_before_a_change_of_the_folder_the_same_model_comes_out(tmp_path: Path) -> None:
    """Of the changes of a run every eleventh; `python -m tests.killed_training FOLDER 1` tries all, in some ten minutes."""
    check_killed(killed_runs(tmp_path, every=11), tmp_path)


def write_job(folder: Path, **changes: Any) -> Path:
    nested: dict[str, Any] = {}
    for key, value in (tiny_settings(folder) | {key.replace("__", "."): value for key, value in changes.items()}).items():
        *sections, last = key.split(".")
        inner = nested
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(nested))
    return path


def command(path: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "pipeline.cli", "train", "--config", str(path), "--log-format", "none", *more]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_killed_by_the_clock_the_same_loss_comes_out(tmp_path: Path) -> None:
    """The command as a user starts it, SIGKILL while it computes, the command again."""
    path = write_job(tmp_path, fit__max_steps=120, machine__checkpoint_every=5, dev__every=50, output=str(tmp_path / "straight"))
    assert subprocess.run(command(path), env=ENVIRONMENT, check=False, timeout=120).returncode == 0
    run = tmp_path / "killed"
    kills = 0
    for _ in range(30):
        process = subprocess.Popen(command(path, "--output", str(run)), env=ENVIRONMENT)
        deadline = time.monotonic() + 60
        before = steps_done(run)
        while process.poll() is None and time.monotonic() < deadline and steps_done(run) < before + 8:
            time.sleep(0.01)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills >= 1 and process.returncode == 0
    assert losses_of(run) == losses_of(tmp_path / "straight")


def steps_done(run: Path) -> int:
    try:
        return max(losses_of(run), default=0)
    except (OSError, ValueError):
        return 0


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_sigterm_saves_and_says_so(tmp_path: Path) -> None:
    path = write_job(tmp_path, fit__max_steps=4000, fit__epochs=4000, machine__checkpoint_every=10_000, dev__share=0)
    process = subprocess.Popen(command(path, "--json"), env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while steps_done(tmp_path / "run") < 5:
        assert process.poll() is None
        time.sleep(0.02)
    process.terminate()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "run again to go on" in err
    assert json.loads(out.splitlines()[-1])["exit_code"] == 1
    assert (tmp_path / "run" / "checkpoint.pt").is_file()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_two_processes_compute_what_one_does(tmp_path: Path) -> None:
    """The same batches per step, shared by two: the same curve but for the order of sums."""
    path = write_job(tmp_path, output=str(tmp_path / "one"), fit__batches_per_step=4)
    assert subprocess.run(command(path), env=ENVIRONMENT, check=False, timeout=120).returncode == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}", "-m", *command(path)[2:]]
    done = subprocess.run(
        [*launch, "--output", str(tmp_path / "two")], env=ENVIRONMENT, check=False, timeout=200, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = ([line for line in log_of(tmp_path / name) if "loss" in line] for name in ("one", "two"))
    assert len(one) == len(two) == 12
    assert two[0]["gradient_norm"] == pytest.approx(one[0]["gradient_norm"], rel=1e-4)
    # Adam enlarges the noise of gradients that are zero but for rounding.
    for mine, theirs, noise in zip(two, one, (1e-5, 1e-3, *[1e-2] * 10), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], rel=noise), mine["step"]
    assert json.loads((tmp_path / "two" / "result.json").read_text())["processes"] == 2


def test_another_run_in_the_folder_is_refused(tmp_path: Path) -> None:
    from pipeline.training.run import train

    job = tiny_job(tmp_path, fit__max_steps=1, dev__share=0)
    with RunFolder(tmp_path / "run").alone(), pytest.raises(ConfigurationError, match="another training run is at work"):
        train(job, "none")
    first = train(job, "none")
    assert train(job, "none") == first
    with pytest.raises(ConfigurationError, match=r"begun with other settings \(fit.learning_rate, seed\)"):
        train(tiny_job(tmp_path, fit__max_steps=1, dev__share=0, seed=1, fit__learning_rate=1e-4), "none")
