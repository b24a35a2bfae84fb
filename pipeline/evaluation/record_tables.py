"""The figures of an evaluation of records as tables for people: numbers, names of fields and codes only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.evaluation.table_lines import lost_notes, number, plain_table


def print_records(figures: Mapping[str, Any], console: Console | None = None) -> None:
    """Fields, assertions, and everything that is counted."""
    console = console or Console()
    low, high = figures["micro_f1_interval"] or (None, None)
    headline = f"Records of {figures['n']:,} notes against gold in the form of {figures['gold_format']}: percent"
    console.print(headline, style="bold italic", soft_wrap=True, highlight=False, markup=False)
    console.print(_fields(figures))
    lines = [
        f"micro F1 {number(figures['micro_f1'])} [{number(low)}, {number(high)}] (95 % interval over notes)",
        f"assertion right, of the values found: {number(figures['assertion_accuracy'])}",
        *_assertions(figures["assertions"]),
        f"values that are the note's words at their offsets: {_share(figures['grounded_share'])} of {figures['values']:,}",
        *_written(figures["written"]),
        *lost_notes(figures, "without a record, all their values missed"),
    ]
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _written(said: Mapping[str, Any] | None) -> list[str]:
    if said is None:
        return []
    read = f"read by the model: {said['notes']:,} notes in {said['windows']:,} windows"
    return [f"{read}; nothing written of {_share(said['dead_share'])}, cut off by a limit {_share(said['cut_share'])}"]


def _fields(figures: Mapping[str, Any]) -> Table:
    offsets = figures["offsets"]
    table = plain_table("field", "precision", "recall", "F1", "n", *(("F1 by offsets",) if offsets else ()))
    for name, scores in figures["fields"].items():
        told = (number(offsets["fields"].get(name, {}).get("f1")),) if offsets else ()
        table.add_row(name, *(number(scores[score]) for score in ("precision", "recall", "f1")), f"{scores['n']:,}", *told)
    micro = (number(offsets["micro_f1"]),) if offsets else ()
    n = sum(scores["n"] for scores in figures["fields"].values())
    table.add_row("all", *(number(figures[f"micro_{score}"]) for score in ("precision", "recall", "f1")), f"{n:,}", *micro, style="bold")
    return table


def _assertions(table: Mapping[str, Mapping[str, int]]) -> list[str]:
    return [f"{gold}: " + ", ".join(f"{count:,} {ours}" for ours, count in said.items()) for gold, said in table.items()]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
