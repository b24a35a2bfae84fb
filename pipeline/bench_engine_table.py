"""The figures of `chartmill bench engine` as tables for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

_COLUMNS = ("", "notes/s", "from", "to", "tokens/s", "fp32 b8", "ours is", "MB")
_NAMES = {
    "ours": "ours",
    "ours_float32": "ours, float32",
    "ours_drafting": "ours, with drafts",
    "generate_fp32_b8": "generate(), float32, 8",
    "generate_best": "generate(), best",
    "ctranslate2_best": "CTranslate2, best",
    "one_window": "one text at a time",
}


def print_engines(figures: Mapping[str, Any], console: Console | None = None) -> None:
    """One table a shape, what is inside our engine, warnings, and the machine."""
    console = console or Console()
    shapes: Mapping[str, Any] = figures.get("shapes") or {figures.get("shape", "your model"): figures}
    for name, found in shapes.items():
        _print_one(name, found, console)
    _print(console, ", ".join(f"{name} {_told(value)}" for name, value in figures["machine"].items()))


def _print_one(name: str, found: Mapping[str, Any], console: Console) -> None:
    title = f"{name}: {found['requests']} requests, beams {found['beams']}, threads {found['threads']}, medians of {found['repeats']} turns"
    console.print(title, style="bold italic", soft_wrap=True, highlight=False, markup=False)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for index, column in enumerate(_COLUMNS):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    for engine, told in found["engines"].items():
        table.add_row(_NAMES[engine], *(_cells(told, found["ratios"].get(engine)) if told else ["absent"]))
    console.print(table)
    for engine in ("ours", "ours_float32", "ours_drafting"):
        if "shares" in (found["engines"].get(engine) or {}):
            _print(console, f"{_NAMES[engine]}: {_inside(found['engines'][engine])}")
    for engine, told in found["engines"].items():
        if told:
            _print(console, f"{_NAMES[engine]}: {_settings(told)}")
    for engine, reason in found["absent"].items():
        _print(console, f"{_NAMES[engine]}: {reason}")
    for warning in found["warnings"]:
        console.print(f"WARNING: {warning}", style="yellow", soft_wrap=True, highlight=False, markup=False)


def _cells(told: Mapping[str, Any], ratio: float | None) -> list[str]:
    rates = [f"{rate:.2f}" for rate in (told["notes_per_second"], *told["spread"])]
    times = told["times_generate_fp32_b8"]
    against = [f"{value:.2f} x" if value else "" for value in (times, ratio)]
    return [*rates, f"{told['output_tokens_per_second']:,.0f}", *against, f"{told['peak_mb']:,}"]


def _inside(told: Mapping[str, Any]) -> str:
    parts = [f"{part} {100 * share:.0f} %" for part, share in told["shares"].items()]
    parts += [f"padding {100 * told['padding_share']:.1f} %", f"idle slots {100 * told['idle_share']:.1f} %"]
    if "drafts" in told:
        drafts = told["drafts"]
        found = f"drafted {100 * drafts['drafted_share']:.1f} % of the tokens, kept {100 * drafts['acceptance']:.0f} % of those"
        parts.append(f"{found}, {drafts['tokens_per_row_step']:.2f} tokens a step and row")
    if "roofline" in told:
        roofline = told["roofline"]
        speeds = f"{roofline['tera_operations_per_second']:.2f} T operations/s, {roofline['gigabytes_per_second']:.0f} GB/s"
        parts.append(f"roofline {100 * roofline['share']:.0f} % ({speeds})")
    return ", ".join(parts)


def _settings(told: Mapping[str, Any]) -> str:
    settings = [f"{name.replace('_', ' ')} {_told(value)}" for name, value in told["settings"].items()]
    if "lengths_as_told" in told:
        settings.append(f"lengths as told {100 * told['lengths_as_told']:.0f} %")
    return ", ".join(settings)


def _told(value: Any) -> str:
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{name}: {found}" for name, found in value.items()) + ")"
    return " ".join(value) if isinstance(value, list) else "absent" if value is None else str(value)


def _print(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False, markup=False, style="dim")
