"""A finished run's counts for monitoring: a line of CloudWatch's embedded metric format, or Prometheus' text format. No names, no text.

Embedded metric format: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
Text format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import RunSection
from schemas.errors import ConfigurationError

NAMESPACE = "Chartmill"


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure. `name` in snake case; `unit` is CloudWatch's."""

    name: str
    value: float
    unit: str
    help: str


def run_metrics(report: Mapping[str, Any], released: bool) -> list[Metric]:
    """What is worth an alarm or a graph, from a run's report. A figure that the run does not know is left out."""
    run, held = report["run"], report["complete"] and not released
    known = [
        ("notes_in", report["notes_in"], "Count", "Notes in the run's scope that are committed"),
        ("notes_summarized", report["notes_summarized"], "Count", "Notes with a summary"),
        ("notes_quarantined", report["notes_quarantined"], "Count", "Notes set aside with a reason"),
        ("notes_flagged", report["notes_flagged"], "Count", "Summaries flagged for a second look"),
        ("files_quarantined", report["files_quarantined"], "Count", "Files that could not be read"),
        ("shards_remaining", report["remaining_shards"], "Count", "Shards left for the next run"),
        ("run_notes", run["notes"], "Count", "Notes that this run did itself"),
        ("storage_retries", sum(report.get("retries", {}).values()), "Count", "Requests to S3 that had to be sent again"),
        ("run_seconds", run["seconds"], "Seconds", "Wall-clock time of this run"),
        ("gate_held", int(held), "Count", "1 when the gate holds the output"),
        ("released", int(released), "Count", "1 when the output is released"),
    ]
    return [Metric(name, value, unit, text) for name, value, unit, text in known if value is not None]


def write_metrics(section: RunSection, report: Mapping[str, Any], released: bool) -> None:
    """Print or write the run's metrics as `run.metrics` says. Raises ConfigurationError when the file cannot be written."""
    if section.metrics == "none":
        return
    metrics = run_metrics(report, released)
    text = emf_line(metrics, report) if section.metrics == "emf" else prometheus_text(metrics, report)
    if section.metrics_file is None:
        print(text, flush=True, end="")
        return
    try:
        (_append if section.metrics == "emf" else _replace)(section.metrics_file, text)
    except OSError as error:
        raise ConfigurationError(f"run.metrics_file: cannot be written: {error.strerror}") from None


def check_metrics_file(section: RunSection) -> None:
    """Raises ConfigurationError where the file could not be written, before the run rather than behind it."""
    path = section.metrics_file
    if section.metrics != "none" and path is not None and not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise ConfigurationError("run.metrics_file: cannot be written; is its folder there?")


def _append(path: Path, text: str) -> None:
    """A line more: CloudWatch's agent follows a growing file. Readable by all, as the agent is somebody else."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), "a", encoding="utf-8") as file:
        file.write(text)


def _replace(path: Path, text: str) -> None:
    """Whole or absent: a collector may read at any moment. Readable by all, for it runs as somebody else."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.chmod(0o644)
    os.replace(temporary, path)


def emf_line(metrics: list[Metric], report: Mapping[str, Any], now: float | None = None) -> str:
    """One JSON object on one line. The version is a property, not a dimension: each new value of those is a new metric to be paid for."""
    listed = [{"Name": _camel(metric.name), "Unit": metric.unit} for metric in metrics]
    directive = {"Namespace": NAMESPACE, "Dimensions": [[]], "Metrics": listed}
    stamped = {"Timestamp": int(1000 * (time.time() if now is None else now)), "CloudWatchMetrics": [directive]}
    values = {_camel(metric.name): metric.value for metric in metrics}
    return json.dumps({"_aws": stamped, "run_id": report["run_id"], "version": report["version"], **values}) + "\n"


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))


def prometheus_text(metrics: list[Metric], report: Mapping[str, Any], now: float | None = None) -> str:
    """Gauges of the last run, labelled with nothing but the version."""
    finished = Metric("run_finished_timestamp_seconds", int(time.time() if now is None else now), "Seconds", "When the run ended")
    lines = []
    for metric in (*metrics, finished):
        name = f"chartmill_{metric.name}"
        lines += [f"# HELP {name} {metric.help}", f"# TYPE {name} gauge", f'{name}{{version="{report["version"]}"}} {metric.value}']
    return "\n".join(lines) + "\n"
