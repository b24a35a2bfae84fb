"""What the commands print: tables for people, on stdout. Counts and codes only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from pipeline.progress import duration
from pipeline.record_alarm import written_figures

if TYPE_CHECKING:
    from pipeline.leaks import LeakReport

_LEAKS_SHOWN = 40


def _show(console: Console, title: str, table: Table) -> None:
    """The title on a line of its own: a table would break it at its own width."""
    console.print(title, style="bold italic", soft_wrap=True, highlight=False, markup=False)
    console.print(table)


def _table() -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(justify="left", style="bold")
    table.add_column(justify="right")
    table.add_column(justify="left", style="dim")
    return table


def print_outcome(report: Mapping[str, Any], output: str, released: bool) -> None:
    """The result of a run: what came in, what became of it, what the gate says, and where everything is."""
    table = _table()
    table.add_row("notes in", f"{report['notes_in']:,}", f"{_shards(report['shards'])}, {report['shards_resumed']:,} from earlier runs")
    table.add_row("summarized", f"{report['notes_summarized']:,}", f"{report['notes_flagged']:,} flagged for a second look")
    table.add_row("set aside", f"{report['notes_quarantined']:,}", _counted(report["reasons"]))
    if report["files_quarantined"]:
        table.add_row("files set aside", f"{report['files_quarantined']:,}", "")
    if report["remaining_shards"]:
        table.add_row("remaining", f"{report['remaining_notes']:,}", f"{_shards(report['remaining_shards'])}; run again to go on")
    rate = report["notes_per_second"]
    table.add_row("speed", f"{rate:,.1f}/s" if rate else "-", _time(report))
    if report["retries"]:
        table.add_row("sent again to S3", f"{sum(report['retries'].values()):,}", _counted(report["retries"]))
    if (written := written_figures(report.get("records") or {})) is not None:
        unlikely = f", {written['unlikely']:,} of {written['lines']:,} lines unlikely and left out" if written["unlikely"] else ""
        told = f"{written['dead']:,} empty, {written['cut']:,} cut off, {written['windows']:,} windows{unlikely}"
        table.add_row("read by the record model", f"{written['notes']:,}", f"{told}{'  ALARM' if written['alarm'] else ''}")
    for check in report["gate"]["checks"]:
        verdict = "ok" if check["passed"] else "HELD"
        table.add_row(f"gate: {check['name']}", f"{check['value']:.3g}", f"limit {check['limit']:.3g}  {verdict}")
    console = Console()
    _show(console, _headline(report, released), table)
    _print_path(console, "report", _join(output, "report.html"))
    if report["complete"] and not released:
        _print_path(console, "to release it all the same", f"chartmill report {output} --accept --reason WHY")


def print_share(left: int) -> None:
    """The result on a host that is done before the others are."""
    Console().print(f"This host's share is done; {_shards(left)} of other hosts are not. The last host publishes.", soft_wrap=True)


def _print_path(console: Console, name: str, path: object) -> None:
    console.print(f"{name}  {path}", soft_wrap=True, highlight=False, markup=False)


def _headline(report: Mapping[str, Any], released: bool) -> str:
    if not report["complete"]:
        return "Stopped: not everything is done yet"
    if released:
        return "Done and released" if report["gate"]["passed"] else "Done; the gate held it, and it was released by hand"
    return "Done, but held by the gate (exit code 3)"


def _shards(count: int) -> str:
    return f"{count:,} shard{'' if count == 1 else 's'}"


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{reason} {count:,}" for reason, count in sorted(counts.items(), key=lambda item: -item[1]))


def _time(report: Mapping[str, Any]) -> str:
    seconds = report["run"]["seconds"]
    stages = sorted(report["seconds"].items(), key=lambda item: -item[1])[:3]
    where = ", ".join(f"{stage} {duration(value)}" for stage, value in stages)
    return f"{duration(seconds)} in all; longest: {where}" if seconds is not None else ""


def _join(output: str, name: str) -> str:
    return f"{output.rstrip('/')}/{name}" if "://" in output else os.path.join(output, name)


def _files_told(files: Mapping[str, int]) -> str:
    told = [("unreadable", files["unreadable"]), ("without notes", files["without_notes"]), ("passed over", files["ignored"])]
    return ", ".join(f"{count:,} {what}" for what, count in told if count or what != "without notes")


def print_preview(figures: Mapping[str, Any]) -> None:
    """What `chartmill plan` found."""
    table = _table()
    files, shards, notes = figures["files"], figures["shards"], figures["notes"]
    table.add_row("files", f"{files['listed']:,}", _files_told(files))
    for name, count in figures["formats"].items():
        table.add_row("", f"{count:,}", name)
    table.add_row("notes", f"{notes['total']:,}", f"{notes['done']:,} done, {notes['to_do']:,} to do")
    table.add_row("shards", f"{shards['total']:,}", f"{shards['to_do']:,} to do, {shards['revise']:,} to revise without generating")
    table.add_row("duplicates", f"{figures['duplicates']:,}", "rows to set aside as DUPLICATE_ID")
    if figures["beyond_limit"]:
        table.add_row("beyond --limit", f"{figures['beyond_limit']:,}", "notes")
    known = figures["seconds"] is not None
    table.add_row(
        "time",
        duration(figures["seconds"]) if known else "?",
        "one worker, at the rate so far" if known else "no rate yet: run with --limit",
    )
    model = ", ".join(figures["model"][key] for key in ("id", "backend", "dtype"))
    _show(Console(), f"Plan of {figures['version']} (model: {model})", table)


def print_sample(summary: Mapping[str, Any], output: Path) -> None:
    """What `chartmill sample` wrote."""
    table = _table()
    for key, value in summary.items():
        if isinstance(value, int):
            table.add_row(key.replace("_", " "), f"{value:,}", "")
        elif isinstance(value, Mapping):
            kinds = sorted((item for item in value.items() if item[1]), key=lambda item: -item[1])
            table.add_row(key.replace("_", " "), f"{sum(value.values()):,}", ", ".join(f"{kind} {count:,}" for kind, count in kinds))
    console = Console()
    _show(console, "Synthetic notes", table)
    _print_path(console, "notes", output / "notes")


def print_leaks(found: LeakReport) -> None:
    """What `chartmill check-leaks` found: where and of which kind, never what."""
    table = _table()
    table.add_row("files looked at", f"{found.files:,}", f"compared with {found.data_files:,} data files, {found.unread:,} unreadable")
    for kind, count in found.kinds.items():
        table.add_row(kind, f"{count:,}", "")
    console = Console()
    _show(console, f"Leaks in {len(found.leaks):,} places" if found.leaks else "Nothing found (this is not a proof)", table)
    for leak in found.leaks[:_LEAKS_SHOWN]:
        where = f"line {leak.line:,}, offset {leak.offset:,}" if leak.line else "its name"
        _print_path(console, leak.file, f"{where}: {leak.kind} ({leak.count:,})")
    if len(found.leaks) > _LEAKS_SHOWN:
        _print_path(console, "and", f"{len(found.leaks) - _LEAKS_SHOWN:,} more places: --json lists all")
