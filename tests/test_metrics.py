"""Metrics are counts that monitoring can read: valid formats, written whole, and nothing of a patient in them."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import load_job
from pipeline.metrics import check_metrics_file, emf_line, prometheus_text, run_metrics, write_metrics
from pipeline.run import run_job
from schemas.errors import ConfigurationError
from tests.canaries import Canaries, plant
from tests.conftest import echo_job, note_rows, write_notes

SAMPLE = re.compile(r'chartmill_[a-z_]+\{version="v[0-9a-f]{12}"\} \d+(?:\.\d+)?(?:e-\d+)?')


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("run")
    write_notes(folder / "notes" / "a.parquet", note_rows(30))
    return dict(run_job(echo_job(folder / "notes", folder / "out")).published.report)


def test_embedded_metric_format(report: dict[str, Any]) -> None:
    line = emf_line(run_metrics(report, True), report, 1_700_000_000.5)
    said = json.loads(line)
    [directive] = said["_aws"]["CloudWatchMetrics"]
    assert line.count("\n") == 1 and said["_aws"]["Timestamp"] == 1_700_000_000_500
    # CloudWatch's limits: 100 metrics, each with a number beside it, dimensions as lists of lists.
    assert directive["Namespace"] == "Chartmill" and directive["Dimensions"] == [[]]
    assert all(isinstance(said[metric["Name"]], (int, float)) for metric in directive["Metrics"]) and len(directive["Metrics"]) <= 100
    assert {metric["Unit"] for metric in directive["Metrics"]} == {"Count", "Seconds"}
    assert (said["NotesIn"], said["NotesSummarized"], said["GateHeld"], said["Released"]) == (30, 30, 0, 1)


def test_prometheus_text(report: dict[str, Any]) -> None:
    lines = prometheus_text(run_metrics(report, True), report, 1_700_000_000).splitlines()
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names)) == len(lines) / 3
    assert all(SAMPLE.fullmatch(line) for line in lines if not line.startswith("#"))
    assert f'chartmill_notes_in{{version="{report["version"]}"}} 30' in lines


def test_a_held_run_says_so(tmp_path: Path, canaries: Canaries, capsys: pytest.CaptureFixture[str]) -> None:
    """Canaries in every place, so the gate holds; the figures betray none of them."""
    job = echo_job(plant(tmp_path / "notes", canaries), tmp_path / "out")
    outcome = run_job(job)
    assert not outcome.published.released
    for kind in ("emf", "prometheus"):
        section = load_job(None, (), {"run.metrics": kind, "run.metrics_file": str(tmp_path / kind)}).run
        write_metrics(section, outcome.published.report, outcome.published.released)
        text = (tmp_path / kind).read_text()
        canaries.assert_absent(kind, text)
        assert re.search(r'"GateHeld": 1|chartmill_gate_held\S+ 1', text)
        assert stat.S_IMODE((tmp_path / kind).stat().st_mode) == 0o644
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["emf", "prometheus"]
    write_metrics(load_job(None, ["run.metrics=emf"]).run, outcome.published.report, False)
    canaries.assert_absent("stdout", printed := capsys.readouterr().out)
    assert json.loads(printed)["GateHeld"] == 1
    write_metrics(job.run, outcome.published.report, False)
    assert capsys.readouterr().out == ""


def test_lines_are_appended_and_texts_replaced(report: dict[str, Any], tmp_path: Path) -> None:
    for kind, lines in (("emf", 2), ("prometheus", 36)):
        section = load_job(None, (), {"run.metrics": kind, "run.metrics_file": str(tmp_path / kind)}).run
        for _ in range(2):
            check_metrics_file(section)
            write_metrics(section, report, True)
        assert len((tmp_path / kind).read_text().splitlines()) == lines


def test_what_cannot_be_written_or_lacks_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="prometheus needs metrics_file"):
        load_job(None, ["run.metrics=prometheus"])
    section = load_job(None, ["run.metrics=emf", f"run.metrics_file={tmp_path}/no/such/folder"]).run
    with pytest.raises(ConfigurationError, match="is its folder there"):
        check_metrics_file(section)
    report = {"run_id": "r", "version": "v", "complete": True, "run": {"notes": 1, "seconds": None}, "remaining_shards": 0}
    report |= dict.fromkeys(("notes_in", "notes_summarized", "notes_quarantined", "notes_flagged", "files_quarantined"), 0)
    with pytest.raises(ConfigurationError, match=r"run\.metrics_file: cannot be written: No such file or directory"):
        write_metrics(section, report, True)
