"""The figures of a check study as tables for people: counts and percent only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from transforms.checks import INFORMATIVE

# Characters from which on a terminal also shows which codes found an error.
WIDE = 120


def print_study(figures: Mapping[str, Any], console: Console | None = None) -> None:
    """Every part of the study that the figures hold."""
    console = console or Console()
    if "false_alarms" in figures:
        _show(console, "False alarms: summaries held to be right, percent with a flag", _false_alarms(figures["false_alarms"]))
    if "detection" in figures:
        _show(console, "Planted errors: percent found", _detection(figures["detection"], console.width >= WIDE))
    if "wrong" in figures:
        _show(console, "Wrong versions: percent found", _wrong(figures["wrong"]))
    if "agreement" in figures:
        _show(console, "Agreement with people: Spearman's rho [95 % interval]", _agreement(figures["agreement"]))
    if "milliseconds" in figures:
        _show(console, "Median processor time a note, milliseconds", _speed(figures["milliseconds"]))


def _show(console: Console, title: str, table: Table) -> None:
    console.print(title, style="bold italic", soft_wrap=True, highlight=False, markup=False)
    console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    return table


def percent(part: int, whole: int) -> str:
    """The share in percent with one digit after the point; "-" of nothing."""
    return f"{100 * part / whole:.1f}" if whole else "-"


def _false_alarms(kinds: Mapping[str, Mapping[str, Any]]) -> Table:
    table = _table("", *kinds)
    table.add_row("summaries", *(f"{found['summaries']:,}" for found in kinds.values()))
    table.add_row("any flag that counts", *(percent(found["flagged"], found["summaries"]) for found in kinds.values()), style="bold")
    for code in sorted({code for found in kinds.values() for code in found["codes"]}):
        name = f"{code} (informative)" if code in INFORMATIVE else code
        table.add_row(name, *(percent(found["codes"].get(code, 0), found["summaries"]) for found in kinds.values()))
    return table


def _detection(kinds: Mapping[str, Mapping[str, Any]], with_codes: bool) -> Table:
    table = _table("error", "planted", "as meant", "at its place", "by any code")
    if with_codes:
        table.add_column("by code")
    for kind, found in kinds.items():
        placed = found["intended"] - found["spanless"]
        table.add_row(
            kind.replace("_", " "),
            f"{found['planted']:,}",
            percent(found["intended"], found["planted"]),
            percent(found["overlapping"], placed),
            percent(found["any"], found["planted"]),
            *([_shares(found["codes"], found["planted"])] if with_codes else ()),
        )
    return table


def _shares(codes: Mapping[str, int], whole: int, most: int = 3) -> str:
    largest = sorted(codes.items(), key=lambda item: (-item[1], item[0]))[:most]
    return ", ".join(f"{code} {percent(count, whole)}" for code, count in largest)


def _wrong(found: Mapping[str, Any]) -> Table:
    table = _table("", "percent")
    table.add_row(f"any flag that counts, of {found['pairs']:,}", percent(found["found"], found["pairs"]), style="bold")
    for code, count in found["codes"].items():
        table.add_row(code, percent(count, found["pairs"]))
    return table


def _agreement(scores: Mapping[str, Mapping[str, Mapping[str, float | None]]]) -> Table:
    table = _table("measure", *scores)
    for measure in _ordered(scores.values()):
        table.add_row(measure, *(_rho(found[measure]) for found in scores.values()))
    return table


def _ordered(found: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(measure for measures in found for measure in measures))


def _rho(found: Mapping[str, float | None]) -> str:
    return "-" if found["rho"] is None else f"{found['rho']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]"


def _speed(milliseconds: Mapping[str, float]) -> Table:
    table = _table("check alone", "ms")
    for name, value in milliseconds.items():
        table.add_row("all together" if name == "all" else name, f"{value:.3f}", style="bold" if name == "all" else "")
    return table
