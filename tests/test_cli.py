"""The command line as a user meets it: help, exit codes, messages, progress, and what stands on stdout and stderr."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import cli
from pipeline.config import Job, load_job
from pipeline.planning import plan_run
from pipeline.prepare import prepare
from pipeline.progress import Progress, Watcher, duration, show_progress
from pipeline.quiet import QUIETED
from tests.conftest import echo_job, note_rows, read_rows, write_notes

COMMANDS = (
    *("run", "plan", "report", "export", "inspect", "check-leaks", "audit", "doctor", "bench", "evaluate", "compare", "train"),
    *("init", "sample", "sagemaker"),
)


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def last(self) -> dict[str, Any]:
        """The JSON line that --json prints last."""
        return dict(json.loads(self.out.splitlines()[-1]))


Chartmill = Callable[..., Done]


@pytest.fixture
def chartmill(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Chartmill]:
    """Run `chartmill …` in this process, 100 columns wide."""
    monkeypatch.setenv("COLUMNS", "100")
    levels = {name: logging.getLogger(name).level for name in QUIETED}

    def run(*arguments: str | Path) -> Done:
        code = cli.main([str(argument) for argument in arguments])
        return Done(code, *capfd.readouterr())

    yield run
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """24 notes in two files, three shards of ten at most; one id comes twice, one text is blank."""
    rows = note_rows(22)
    write_notes(tmp_path / "notes" / "a.parquet", rows[:20])
    write_notes(tmp_path / "notes" / "b.parquet", [*rows[20:], rows[3], {**rows[4], "note_id": "blank", "text": " "}])
    return tmp_path / "notes"


def job(notes: Path, output: Path) -> tuple[str, ...]:
    return "--input", str(notes), "--output", str(output), "--engine", "echo", "--shard-notes", "10"


LENIENT = ("--set", "gate.max_quarantined_share=0.5", "--set", "gate.contract=ignore")


# --- help and start


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(chartmill: Chartmill, command: str) -> None:
    done = chartmill(command, "--help")
    assert done.code == 0 and f"Example: chartmill {command} " in done.out and done.err == ""


def test_help_lists_every_command_and_nothing_else(chartmill: Chartmill) -> None:
    done = chartmill("--help")
    assert done.code == 0
    named = {command.callback.__name__.replace("_", "-") for command in cli.app.registered_commands if command.callback}
    assert named | {str(group.name) for group in cli.app.registered_groups} == set(COMMANDS)
    assert all(f"│ {command} " in done.out for command in COMMANDS)


def test_the_documented_options_exist(chartmill: Chartmill) -> None:
    out = chartmill("run", "--help").out
    wanted = "--input --output --config --set --engine --model --shard-notes --limit --max-minutes --allow-download --json --log-format"
    assert all(f"{option} " in out for option in wanted.split())


def test_no_command_is_bad_usage_and_shows_help(chartmill: Chartmill) -> None:
    done = chartmill()
    assert done.code == 2 and "Commands" in done.out + done.err and "error:" not in done.err


def test_help_needs_none_of_the_heavy_packages() -> None:
    heavy = ("apache_beam", "torch", "transformers", "great_expectations", "pandas", "pyarrow", "boto3", "numpy")
    code = f"import sys; from pipeline.cli import main; assert main(['--help']) == 0; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# --- a whole session in processes of its own


@pytest.mark.slow
def test_a_session(notes: Path, tmp_path: Path, run_cli: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = run_cli("run", *job(notes, tmp_path / "out"), *LENIENT, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])["report"]
    assert (report["notes_in"], report["notes_summarized"], report["notes_quarantined"]) == (24, 22, 2)
    assert "Done and released" in done.stdout and str(tmp_path / "out" / "report.html") in done.stdout
    lines = done.stderr.splitlines()
    assert lines and all(line.startswith("shards ") for line in lines), "nothing but progress on stderr"


# --- run


def test_run_says_what_became_of_every_note(chartmill: Chartmill, notes: Path, tmp_path: Path) -> None:
    done = chartmill("run", *job(notes, tmp_path / "out"), *LENIENT, "--log-format", "none")
    assert done.code == 0 and done.err == ""
    rows = [line.split() for line in done.out.splitlines()]
    assert ["notes", "in", "24", "3", "shards,", "0", "from", "earlier", "runs"] in rows
    assert ["set", "aside", "2", "DUPLICATE_ID", "1,", "MISSING_TEXT", "1"] in rows
    assert done.out.splitlines()[0] == "Done and released" and done.out.splitlines()[-1] == f"report  {tmp_path / 'out'}/report.html"


def test_a_run_that_the_gate_holds_exits_3_and_can_be_accepted(chartmill: Chartmill, notes: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    held = chartmill("run", *job(notes, output), "--json")
    assert held.code == 3 == held.last["exit_code"] and not held.last["report"]["gate"]["passed"]
    assert "held by the gate (exit code 3)" in held.out and "HELD" in held.out
    assert f"chartmill report {output} --accept --reason WHY" in held.out
    again = chartmill("report", output)
    assert again.code == 3 and not (output / "_SUCCESS").exists()
    misused = chartmill("report", output, "--reason", "looked at it")
    assert misused.code == 2 and "only with --accept" in misused.err
    accepted = chartmill("report", output, "--accept", "--reason", "looked at both", "--json")
    assert accepted.code == 0 and accepted.last["report"]["gate"]["accepted"]["reason"] == "looked at both"
    assert (output / "_SUCCESS").exists() and chartmill("report", output).code == 0
    assert "looked at both" in (output / "report.html").read_text()


def test_a_failed_run_exits_1_and_says_so_in_json_too(chartmill: Chartmill, notes: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "summaries").touch()
    done = chartmill("run", *job(notes, output), "--json")
    assert done.code == 1 == done.last["exit_code"]
    assert done.last["error"].startswith("commit failed: FileExistsError (EEXIST) at transforms/private_files.py:")
    assert f"error: {done.last['error']}" in done.err and "Traceback" not in done.err


def test_bad_configuration_exits_2_and_says_so_in_json_too(chartmill: Chartmill, tmp_path: Path) -> None:
    done = chartmill("run", "--input", tmp_path / "nowhere", "--output", tmp_path / "out", "--engine", "echo", "--json")
    assert done.code == 2 and done.last == {"exit_code": 2, "error": "input.uris: input 1 does not exist (a local path)"}
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "notes/", "out/"], "inputs are given with --input, the output folder with --output (see `chartmill run --help`)"),
        (["plan", "notes/"], "arguments that belong to no option"),
        (["rnu"], "No such command 'rnu'. Did you mean 'run'?"),
        (["run", "--lmit", "3"], "No such option: --lmit"),
        (["run", "--limit"], "Option '--limit' requires an argument"),
        (["run", "--engine", "onnx"], "is not one of 'torch', 'generate', 'ctranslate2', 'echo' (see `chartmill run --help`)"),
        (["report"], "Missing argument 'OUT'"),
        (["run", "--set", "gate.max_flaged_share=0.2"], "gate.max_flaged_share: unknown key (did you mean max_flagged_share?); choices: "),
        (["run", "--input", "."], "output.uri: empty; give a folder or an s3:// prefix (--output)"),
        (["run", "--output", "out", "--engine", "echo"], "input.uris: empty; give at least one file"),
        (["run", "--config", "no-such-job.yaml"], "the job file cannot be read: No such file or directory"),
        (["run", "--run-id", "../elsewhere"], "--run-id: expected 1 to 100 letters, digits"),
        (["report", "no-such-folder"], "no run has been planned in this output folder"),
        (["sample", "--notes", "0", "--output", "x"], "should be greater than or equal to 1"),
        (["run", "--", "--runner=Flink"], "--runner after --: name the runner with --set run.runner=NAME instead"),
        (["run", "--", "--direct_num_worker=2"], "Beam knows no option --direct_num_worker; did you mean --direct_num_workers?"),
        (["run", "--", "--direct_num_workers=two"], "after --: Beam cannot read the value of --direct_num_workers"),
        (["run", "--", "stray"], "after --: expected Beam options, --NAME=VALUE"),
        (["run", "--set", "run.runner=DirectRunner"], "run.runner: DirectRunner would first try to download Prism; choices: FnApiRunner"),
    ],
)
def test_bad_usage_exits_2_with_one_helpful_line(
    chartmill: Chartmill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = chartmill(*arguments)
    assert done.code == 2 and done.out == ""
    assert done.err.startswith("error: ") and told in done.err and len(done.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_a_file_is_told(chartmill: Chartmill, notes: Path) -> None:
    done = chartmill("run", *job(notes, notes / "a.parquet"))
    assert done.code == 2 and "output.uri: is a file; give a folder" in done.err


@pytest.mark.parametrize("where", ["pipeline.run.prepare", "transforms.generate.generate_batch"])
def test_interrupting_says_how_to_go_on(
    chartmill: Chartmill, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(where, interrupt)
    done = chartmill("run", *job(notes, tmp_path / "out"), "--json")
    assert done.code == 1 and done.last == {"exit_code": 1, "error": "interrupted; run again to go on"}
    assert "error: interrupted" in done.err and "Traceback" not in done.err


def test_max_minutes_stops_in_time_with_exit_0(chartmill: Chartmill, notes: Path, tmp_path: Path) -> None:
    slow = ("--max-minutes", "0.0075", "--set", "engine.delay_ms=50")
    done = chartmill("run", *job(notes, tmp_path / "out"), *slow, "--json")
    assert done.code == 0 and not done.last["report"]["complete"]
    assert "Stopped: not everything is done yet" in done.out and "run again to go on" in done.out
    assert chartmill("run", *job(notes, tmp_path / "out"), *LENIENT).code == 0


def test_a_job_file_with_overrides(chartmill: Chartmill, notes: Path, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump({"input": {"uris": [str(notes)]}, "output": {"uri": "elsewhere"}, "engine": {"backend": "torch"}}))
    done = chartmill("run", "-c", path, "-o", tmp_path / "out", "--engine", "echo", *LENIENT, "-s", "verify.checks=[numbers]", "--json")
    assert done.code == 0 and done.last["report"]["settings"]["checks"] == ["numbers"]


def test_options_after_the_dashes_reach_beam(chartmill: Chartmill, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bundles that are replayed ask for each shard twice; the second time it is there."""
    from transforms.read import _Read

    asked: list[str] = []
    is_to_do = _Read._is_to_do
    monkeypatch.setattr(_Read, "_is_to_do", lambda self, shard: asked.append(shard.id) or is_to_do(self, shard))
    done = chartmill("run", *job(notes, tmp_path / "out"), *LENIENT, "--json", "--", "--direct_runner_bundle_repeat=1")
    assert done.code == 0 and len(asked) == 2 * len(set(asked)) and len(set(asked)) == done.last["report"]["shards"]


# --- plan


def test_plan_before_and_after_a_run(chartmill: Chartmill, notes: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    before = chartmill("plan", *job(notes, output), "--json")
    assert before.code == 0 and not output.exists(), "it writes nothing"
    figures = before.last["plan"]
    assert figures["files"] == {"listed": 2, "planned": 2, "unreadable": 0, "without_notes": 0, "ignored": 0}
    assert figures["notes"] == {"total": 24, "done": 0, "to_do": 24} and figures["shards"]["to_do"] == 3
    assert figures["duplicates"] == 1 and figures["seconds"] is None
    assert "no rate yet" in before.out and "DUPLICATE_ID" in before.out
    limited = chartmill("run", *job(notes, output), "--limit", "3", "--json")
    assert limited.code == 0 and limited.last["report"]["notes_in"] == 10 == len(read_rows(output, "summaries")), "whole shards"
    files = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    after = chartmill("plan", *job(notes, output), "--json").last["plan"]
    assert after["notes"] == {"total": 24, "done": 10, "to_do": 14} and after["seconds"] > 0
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == files
    limited = chartmill("plan", *job(notes, output), "--limit", "15", "--json")
    assert limited.last["plan"]["notes"] == {"total": 20, "done": 10, "to_do": 10} and limited.last["plan"]["beyond_limit"] == 4
    assert "beyond --limit" in limited.out


# --- init and sample


def test_init_prints_the_defaults_as_a_job(chartmill: Chartmill, tmp_path: Path) -> None:
    done = chartmill("init")
    assert done.code == 0 and done.err == ""
    path = tmp_path / "job.yaml"
    path.write_text(done.out)
    assert load_job(path, (), {"input.uris": [], "output.uri": ""}) == Job()


def test_init_writes_a_file_but_never_over_one(chartmill: Chartmill, tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    assert chartmill("init", path).code == 0
    written = path.read_text()
    assert written == chartmill("init").out
    path.write_text("mine")
    done = chartmill("init", path)
    assert done.code == 2 and "not overwritten" in done.err and path.read_text() == "mine"
    assert "cannot be written" in chartmill("init", tmp_path / "no" / "folder.yaml").err


def test_a_job_file_of_init_runs(chartmill: Chartmill, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chartmill("init", "job.yaml")
    assert chartmill("run", "--config", "job.yaml", "--engine", "echo", *LENIENT).code == 0
    assert (tmp_path / "out" / "_SUCCESS").exists()


def test_sample_writes_notes_that_run(chartmill: Chartmill, tmp_path: Path) -> None:
    done = chartmill("sample", "--notes", "40", "--output", tmp_path / "sample", "--seed", "3", "--files", "2", "--json")
    assert done.code == 0 and done.last["sample"]["notes"] == 40 and str(tmp_path / "sample" / "notes") in done.out
    assert " 0" not in next(line for line in done.out.splitlines() if line.startswith("dirty"))
    planned = chartmill("plan", "--input", tmp_path / "sample" / "notes", "--output", tmp_path / "out", "--engine", "echo", "--json")
    assert planned.last["plan"]["files"]["listed"] == 2 and planned.last["plan"]["notes"]["total"] >= 40


# --- progress


def test_json_progress_is_one_object_per_line(chartmill: Chartmill, notes: Path, tmp_path: Path) -> None:
    done = chartmill("run", *job(notes, tmp_path / "out"), *LENIENT, "--log-format", "json")
    events = [json.loads(line) for line in done.err.splitlines()]
    assert events[-1]["event"] == "progress" and events[-1]["notes_done"] == events[-1]["notes"] == 24
    assert events[-1]["quarantined"] == 2 and events[-1]["seconds_left"] == 0 and events[-1]["shards_done"] == 3


def test_progress_on_a_terminal_is_a_line_that_moves(notes: Path, tmp_path: Path) -> None:
    """With a real pseudo-terminal, since that is what decides."""
    prepared = prepare(echo_job(notes, tmp_path / "out"))
    plan = plan_run(prepared.store, prepared.version, "run", prepared.plan_settings(), prepared.said_in_plan())
    ours, theirs = os.openpty()
    saved = os.dup(2)
    os.dup2(theirs, 2)
    try:
        with pytest.MonkeyPatch.context() as patch, os.fdopen(os.dup(theirs), "w") as terminal:
            patch.setattr(sys, "stderr", terminal)
            patch.setenv("TERM", "xterm")
            with show_progress(prepared.store, plan):
                pass
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert "\x1b[" in shown and "notes 0/24" in shown and "left ?" in shown


def test_what_progress_says() -> None:
    progress = Progress(shards=4, shards_done=1, notes=4000, notes_done=1000, quarantined=12, seconds=100)
    assert progress.line() == "shards 1/4  notes 1,000/4,000  10.0 notes/s  quarantined 12  left 5 min 0 s"
    assert Progress(4, 0, 4000, 0, 0, 3).seconds_left is None and Progress(1, 1, 9, 9, 0, 0).notes_per_second == 0
    assert [duration(s) for s in (0, 0.04, 0.42, 9.94, 9.96, 59.4, 61, 3600, 19000)] == [
        "0 s", "0.0 s", "0.4 s", "9.9 s", "10 s", "59 s", "1 min 1 s", "1 h 0 min", "5 h 16 min",
    ]  # fmt: skip


def test_the_watcher_counts_only_its_own_run(notes: Path, tmp_path: Path, chartmill: Chartmill) -> None:
    output = tmp_path / "out"
    chartmill("run", *job(notes, output), "--limit", "10")
    prepared = prepare(echo_job(notes, output))
    plan = plan_run(prepared.store, prepared.version, "next", prepared.plan_settings(), prepared.said_in_plan())
    seen = Watcher(prepared.store, plan).look()
    assert (seen.shards, seen.shards_done, seen.notes, seen.notes_done) == (2, 0, 14, 0)
