"""What `chartmill export` prints for people: counts only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def print_export(figures: Mapping[str, Any], output: str) -> None:
    """What stands in the destination, what was left out or altered, and what the check found."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for _ in range(2):
        table.add_column()
    table.add_row("notes", f"{figures['notes']:,}")
    table.add_row("shards", f"{figures['shards']:,}, {figures['shards_resumed']:,} of them exported before")
    for name, rows in figures["rows"].items():
        table.add_row(name, f"{rows:,}")
    for title in ("left_out", "altered"):
        table.add_row(title.replace("_", " "), _told(figures[title]))
    table.add_row("files", f"{figures['files']:,}, {figures['bytes'] / 1e6:,.1f} MB; {figures['swept']:,} superseded ones removed")
    table.add_row("seconds", f"{figures['seconds']:,.1f}")
    if figures["validated"] is not None:
        checked = figures["validated"]
        table.add_row("validated", f"{checked['rows']:,} rows; problems: {_told(checked['problems'])}")
    console = Console()
    console.print(table)
    console.print(
        f"{figures['target']}  {output.rstrip('/')}/{figures['target']}/manifest.json", soft_wrap=True, highlight=False, markup=False
    )
    console.print("The export holds patient text: keep it as you would keep the notes.", soft_wrap=True)


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items()) or "none"
