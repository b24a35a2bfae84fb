"""The canary test: random strings planted wherever patient data can stand are found in the data files and nowhere else.

Every place gets a canary of its own, so that a failure names the way out. Runs succeed, are held, resumed, revised and
crash in each stage; then everything that a run says or leaves behind is searched: output, log records at level DEBUG,
exceptions with their tracebacks and pickles, metrics, and every file under the output folder but those that hold data.
"""

from __future__ import annotations

import hashlib
import json
import os
import pkgutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from pipeline import cli
from pipeline.config import load_job
from pipeline.planning import RunPlan
from pipeline.run import notes_to_commits, run_job
from schemas.errors import ConfigurationError
from tests.canaries import (
    LENIENT,
    Canaries,
    Said,
    assert_files_clean,
    assert_private,
    command,
    data_of,
    every_log_record,
    planned,
    plant,
)
from tests.conftest import echo_job, note_rows, write_notes
from transforms.batch import StageError
from transforms.store import Store


def test_a_canary_is_found_in_each_of_its_forms(canaries: Canaries) -> None:
    value = canaries["text"]
    forms = [value, value.lower(), f"…{value[:12]}…", value[12:].upper(), hashlib.sha256(value.encode()).hexdigest()[:12]]
    for form in forms:
        with pytest.raises(AssertionError, match="the log betrays: text"):
            canaries.assert_absent("the log", f"before {form} after")
    canaries.assert_absent("the log", value[:9])


# --- runs that go well


def test_a_run_and_all_that_follows_leave_no_trace(
    tmp_path: Path, canaries: Canaries, said: Said, capfd: pytest.CaptureFixture[str]
) -> None:
    notes, output = plant(tmp_path / "notes", canaries), tmp_path / "new" / "out"
    job = ("--input", str(notes), "--output", str(output), "--engine", "echo", "--shard-notes", "5", "--set", "input.duplicates=latest")
    with every_log_record(said):
        assert command(capfd, said, "plan", *job, "--json") == 0
        assert command(capfd, said, "run", *job, "--json", "--log-format", "json") == 3
        assert command(capfd, said, "report", str(output)) == 3
        assert command(capfd, said, "report", str(output), "--accept", "--reason", "a test", "--json") == 0
        amended = [{**note_rows(1)[0], "note_id": canaries["note id"], "written_at": "2026-01-01"}]
        write_notes(notes / "amended.parquet", amended)
        assert command(capfd, said, "plan", *job) == 0
        assert command(capfd, said, "run", *job, *LENIENT, "--log-format", "plain") == 0
    said.assert_clean(canaries)
    assert_files_clean(output, canaries)
    assert_private(output)
    data = data_of(output)
    kept = [place for place in canaries if canaries[place] in data]
    assert {"text", "note id", "patient id", "pass-through value", "hive value", "bad date", "duplicate id", "id of a blank note"} <= set(
        kept
    )
    reasons = json.loads((output / "report.json").read_text())["reasons"]
    assert {"DUPLICATE_ID", "MISSING_TEXT", "UNPRINTABLE", "ROW_UNREADABLE", "FILE_CORRUPT", "FILE_EMPTY"} <= set(reasons)


def test_a_model_leaves_no_trace(tmp_path: Path, canaries: Canaries, said: Said, capfd: pytest.CaptureFixture[str]) -> None:
    from tests.tiny_models import make_model

    model = make_model("bart", tmp_path / "model")
    notes, output = plant(tmp_path / "notes", canaries), tmp_path / "out"
    job = ("--input", str(notes), "--output", str(output), "--model", str(model), "--set", "engine.threads=1")
    with every_log_record(said):
        # Beams and texts beyond the model's limit take other ways through the libraries.
        assert command(capfd, said, "run", *job, *LENIENT, "--set", "tasks.summary.decode={num_beams: 2, max_new_tokens: 8}", "--json") == 0
    said.assert_clean(canaries)
    assert_files_clean(output, canaries)
    assert canaries["note id"] in data_of(output)


def test_beam_is_told_nothing(tmp_path: Path, canaries: Canaries, said: Said) -> None:
    """Neither its logs, nor its metrics, nor the graph that a runner shows in its console."""
    import apache_beam as beam
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner

    notes = plant(tmp_path / "notes", canaries)
    prepared, plan = planned(notes, tmp_path / "out")
    pipeline = beam.Pipeline(runner=FnApiRunner())
    commits = notes_to_commits(pipeline, prepared, plan)
    canaries.assert_absent("the graph", str(pipeline.to_runner_api()))
    assert commits.pipeline is pipeline
    with every_log_record(said):
        result = pipeline.run()
        result.wait_until_finish()
    assert "DEBUG apache_beam" in said.parts[-1][1]
    said.assert_clean(canaries)
    metrics = result.metrics().query()
    assert metrics["counters"]
    canaries.assert_absent("metrics", str(metrics))
    canaries.assert_absent("monitoring", str(result.monitoring_infos()))


# --- runs that do not


def raiser(canaries: Canaries) -> Callable[..., Any]:
    """A function that fails as libraries do: quoting what it was working on, in its message, its arguments and a cause."""

    def fail(*args: Any, **kwargs: Any) -> Any:
        try:
            raise KeyError(canaries["quoted by a cause"])
        except KeyError as error:
            raise ValueError(f"cannot convert {canaries['quoted by an exception']!r}", [canaries["note id"]]) from error

    return fail


CRASHES = {
    "planning": "pipeline.planning.scan_file",
    "read": "transforms.open_file.as_strings",
    "compile": "transforms.validate.Validator",
    "validate": "transforms.validate.validate_batch",
    "segment": "transforms.segment.segment_batch",
    "load": "transforms.shared_engine.load_engine",
    "generate": "transforms.generate.generate_batch",
    "record": "transforms.record.record_batch",
    "evidence": "transforms.evidence.evidence_batch",
    "verify": "transforms.verify.verify_batch",
    "commit": "transforms.commit.output_tables",
}


@pytest.mark.parametrize("stage", CRASHES)
def test_a_crash_quotes_nothing(stage: str, tmp_path: Path, canaries: Canaries, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    notes, output = plant(tmp_path / "notes", canaries), tmp_path / "out"
    monkeypatch.setattr(CRASHES[stage], raiser(canaries))
    with every_log_record(said), pytest.raises(StageError, match="ValueError at") as failure:
        run_job(echo_job(notes, output))
    said.add_exception(failure.value)
    said.assert_clean(canaries)
    assert_files_clean(output, canaries)


FAILURES = {
    "RECORD_FAILED": "transforms.record.parse_record",
    "EVIDENCE_FAILED": "transforms.evidence.trace_summary",
    "VERIFY_FAILED": "transforms.verify.run_checks",
}


def test_notes_that_fail_quote_nothing(tmp_path: Path, canaries: Canaries, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the edge of each note, here every third in each stage: the run goes on, and the rejections tell the reason alone."""
    notes, output = plant(tmp_path / "notes", canaries), tmp_path / "out"
    fail = raiser(canaries)
    for function in FAILURES.values():
        calls, real = count(), pkgutil.resolve_name(function)
        failing = partial(lambda calls, real, *args, **kwargs: (real if next(calls) % 3 else fail)(*args, **kwargs), calls, real)
        monkeypatch.setattr(function, failing)
    with every_log_record(said):
        outcome = run_job(echo_job(notes, output))
    assert all(outcome.published.report["reasons"][reason] for reason in FAILURES)
    said.assert_clean(canaries)
    assert_files_clean(output, canaries)
    assert canaries["quoted by an exception"] not in data_of(output)


@pytest.mark.parametrize("crashes", [CRASHES["generate"], "transforms.segment.timed", "pipeline.publish.load_parts"])
def test_a_command_that_crashes_quotes_nothing(
    crashes: str, tmp_path: Path, canaries: Canaries, said: Said, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a stage, in what Beam calls where no stage guards, and in the driver: the command line is the last edge."""
    notes, output = plant(tmp_path / "notes", canaries), tmp_path / "out"
    monkeypatch.setattr(crashes, raiser(canaries))
    assert command(capfd, said, "run", "--input", str(notes), "--output", str(output), "--engine", "echo", "--json") == 1
    assert "ValueError at " in said.parts[-1][1] and "Traceback" not in said.parts[-1][1]
    said.assert_clean(canaries)
    assert_files_clean(output, canaries)
    assert_private(output)


def test_a_crash_while_revising_quotes_nothing(tmp_path: Path, canaries: Canaries, said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    notes, output = plant(tmp_path / "notes", canaries), tmp_path / "out"
    run_job(echo_job(notes, output, **{"input.duplicates": "latest"}))
    write_notes(notes / "amended.parquet", [{**note_rows(1)[0], "note_id": canaries["note id"], "written_at": "2026-01-01"}])
    monkeypatch.setattr("transforms.revise.output_stats", raiser(canaries))
    with every_log_record(said), pytest.raises(StageError, match="revise failed: ValueError") as failure:
        run_job(echo_job(notes, output, **{"input.duplicates": "latest"}))
    said.add_exception(failure.value)
    said.assert_clean(canaries)


def test_an_unwritable_output_quotes_nothing(tmp_path: Path, canaries: Canaries, said: Said, capfd: pytest.CaptureFixture[str]) -> None:
    notes, output = plant(tmp_path / "notes", canaries), tmp_path / "out"
    output.mkdir(mode=0o700)
    (output / "summaries").write_bytes(b"")  # where a folder should be; permissions would not stop root
    assert command(capfd, said, "run", "--input", str(notes), "--output", str(output), "--engine", "echo", "--json") == 1
    assert "commit failed: FileExistsError (EEXIST)" in said.parts[-1][1]
    said.assert_clean(canaries)


@contextmanager
def nothing_to_watch() -> Iterator[None]:
    yield


def test_a_model_that_vanishes_quotes_nothing(tmp_path: Path, canaries: Canaries, said: Said) -> None:
    from tests.tiny_models import make_model

    model = make_model("bart", tmp_path / "model")
    job = load_job(
        None,
        (),
        {"input.uris": [str(plant(tmp_path / "notes", canaries))], "output.uri": str(tmp_path / "out"), "tasks.summary.model": str(model)},
    )

    def spoil(store: Store, plan: RunPlan) -> Any:
        (model / "model.safetensors").unlink()
        return nothing_to_watch()

    with every_log_record(said), pytest.raises(ConfigurationError, match="safetensors") as failure:
        run_job(job, watch=spoil)
    said.add_exception(failure.value)
    said.assert_clean(canaries)


def test_an_input_that_vanishes_quotes_nothing(tmp_path: Path, canaries: Canaries, said: Said) -> None:
    notes, output = plant(tmp_path / "notes", canaries), tmp_path / "out"

    def spoil(store: Store, plan: RunPlan) -> Any:
        (notes / f"{canaries['file name']}.parquet").unlink()
        return nothing_to_watch()

    with every_log_record(said):
        outcome = run_job(echo_job(notes, output), watch=spoil)
    assert outcome.exit_code == 1 and "vanished" in outcome.message
    said.add("message", outcome.message)
    said.assert_clean(canaries)
    assert_files_clean(output, canaries)


# Loaded by every Python process that has its folder on the path, the workers that Beam starts included.
SITE = """
    import importlib.abc, importlib.machinery, sys

    class Spoiler(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, target=None):
            if name != "transforms.generate":
                return None
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            load = spec.loader.exec_module
            def exec_module(module):
                load(module)
                def fail(batch, *args, **kwargs):
                    raise ValueError("cannot convert " + repr(batch.column("text")))
                module.generate_batch = fail
            spec.loader.exec_module = exec_module
            return spec

    sys.meta_path.insert(0, Spoiler())
"""


def test_a_crash_behind_grpc_quotes_nothing(
    tmp_path: Path, canaries: Canaries, said: Said, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers in threads of their own talk to the runner as processes do: an exception arrives as the text of its traceback."""
    notes, output = plant(tmp_path / "notes", canaries), tmp_path / "out"
    monkeypatch.setattr(CRASHES["generate"], raiser(canaries))
    workers = ("--", "--direct_running_mode=multi_threading", "--direct_num_workers=2")
    assert command(capfd, said, "run", "--input", str(notes), "--output", str(output), "--engine", "echo", "--json", *workers) == 1
    assert "error: generate failed: ValueError at transforms/generate.py:" in said.parts[-1][1]
    said.assert_clean(canaries)
    assert_files_clean(output, canaries)


@pytest.mark.slow
@pytest.mark.parametrize("crash", [False, True])
def test_worker_processes_leave_no_trace(tmp_path: Path, canaries: Canaries, crash: bool) -> None:
    notes, output = plant(tmp_path / "notes", canaries), tmp_path / "out"
    site, temporary = tmp_path / "site", tmp_path / "tmp"
    site.mkdir()
    temporary.mkdir()
    (site / "sitecustomize.py").write_text(textwrap.dedent(SITE) if crash else "")
    arguments = ["run", "--input", str(notes), "--output", str(output), "--engine", "echo", "--shard-notes", "5", "--json", *LENIENT]
    workers = ["--", "--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *arguments, *workers],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{Path(cli.__file__).parent.parent}", "TMPDIR": str(temporary)},
        check=False,
    )
    assert done.returncode == (1 if crash else 0)
    canaries.assert_absent("stdout", done.stdout)
    canaries.assert_absent("stderr", done.stderr)
    assert_files_clean(output, canaries)
    assert_private(output)
    for path in temporary.rglob("*"):
        canaries.assert_absent("a temporary file", path.name.encode() + (path.read_bytes() if path.is_file() else b""))
    last = json.loads(done.stdout.splitlines()[-1])
    if crash:
        assert last["error"].startswith("generate failed: ValueError at transforms/generate.py:")
    else:
        assert last["exit_code"] == 0 and canaries["note id"] in data_of(output)
        # One line each from before Beam's workers know how loud they may be.
        assert done.stderr.count("INFO") == 2
