"""The figures of `chartmill bench job` as a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

_NAMES = {"pipeline": "chartmill run", "bare_engine": "its engine alone", "row_pipeline": "Beam, row by row"}
_COLUMNS = ("", "notes/s", "from", "to", "run is", "tokens out", "load s", "MB")


def print_job(figures: Mapping[str, Any], console: Console | None = None) -> None:
    """Contenders, then the job's seconds by stage, then the machine."""
    console = console or Console()
    table = Table(box=None, padding=(0, 2, 0, 0))
    for index, column in enumerate(_COLUMNS):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    for name, title in _NAMES.items():
        table.add_row(title, *_told(figures["contenders"][name], figures["ratios"].get(name)))
    console.print(table)
    stages = ", ".join(f"{name} {seconds:.2f}" for name, seconds in figures["stage_seconds"].items())
    console.print(f"Seconds of the job by stage: {stages}", highlight=False)
    console.print(", ".join(f"{name} {value}" for name, value in figures["machine"].items()), highlight=False, markup=False)


def _told(found: Mapping[str, Any], ratio: float | None) -> list[str]:
    rates = [f"{rate:.2f}" for rate in (found["notes_per_second"], *found["spread"])]
    loading = f"{found['load_seconds']:.2f}" if found["load_seconds"] else ""
    return [*rates, f"{ratio:.2f} x" if ratio else "", f"{found['output_tokens']:,}", loading, f"{found['peak_mb']:,}"]
