"""What the tables of all evaluations share: columns, numbers, and the lines about notes that failed or were left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table


def plain_table(*columns: str) -> Table:
    """A table without lines; the first column holds names, the others numbers."""
    table = Table(box=None, padding=(0, 1, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    return table


def number(value: float | None) -> str:
    """With one decimal; `-` where there is none."""
    return "-" if value is None else f"{value:,.1f}"


def lost_notes(figures: Mapping[str, Any], what_failed: str) -> list[str]:
    """A line on the notes that failed, which begins with `what_failed`, and one on those left out; none where there are none."""
    lines = []
    if figures["failed"]:
        reasons = ", ".join(f"{code} {count:,}" for code, count in figures["failed_reasons"].items())
        lines.append(f"{what_failed}: {figures['failed']:,} ({reasons})")
    if figures["left_out"]:
        lines.append("left out: " + ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in figures["left_out"].items()))
    return lines
