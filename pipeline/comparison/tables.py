"""A comparison as tables for a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from pipeline.comparison.figures import SCORES, Row
from pipeline.comparison.outcome import Comparison
from pipeline.comparison.verdict import SCORE_NAMES, Question, cost_text, interval_text, speed_text


def print_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """Scores and flags, then speed, memory and cost, why some could not run, and the verdict."""
    console = console or Console()
    able = [row for row in comparison.rows if row.ran]
    if able:
        console.print(_quality_table(able, comparison.question))
        console.print()
        console.print(_cost_table(able, comparison.question))
    _say(console, f"Gate: {_gate(comparison)}. * no other that passes it is both better and cheaper.", "dim")
    if comparison.left_out:
        told = ", ".join(f"{reason.replace('_', ' ')} {count}" for reason, count in comparison.left_out.items())
        _say(console, f"Rows left out: {told}", "dim")
    _say(console, ", ".join(f"{name} {value}" for name, value in comparison.machine.items()), "dim")
    console.print()
    _say(console, comparison.verdict.answer, "bold")
    for sentence in comparison.verdict.sentences:
        _say(console, sentence)


def _quality_table(rows: list[Row], question: Question) -> Table:
    scores = [SCORE_NAMES[name].removeprefix("ROUGE-") for name in SCORES] if question.references else []
    shown = f"{question.score_name} difference" if question.references else "same text"
    table = _table(f"{question.notes:,} notes", *(f"R-{name}" for name in scores), shown, "flagged/100", "gate")
    for row in rows:
        values = [f"{found.value:.1f}" for found in row.scores.values()]
        table.add_row(
            _name(row), *values, _against(row, question), f"{row.flags_per_100.value:.1f}", "passes" if row.passes_gate else "held"
        )
    return table


def _against(row: Row, question: Question) -> str:
    if row.difference is None:
        return "reference point" if row.name == question.against else ""
    found = row.difference.scores.get(question.by)
    return interval_text(found) if found else f"{100 * row.difference.same_share:.0f} %"


def _cost_table(rows: list[Row], question: Question) -> Table:
    table = _table(
        "", "notes/s", "from", "to", "MB", "cost/1,000" if question.priced else "s/1,000", "cheaper" if question.priced else "faster"
    )
    for row in rows:
        assert row.ran is not None
        rates = [speed_text(rate) for rate in (row.speed, min(row.ran.rates), max(row.ran.rates))]
        cost = f"{row.seconds_per_1000:,.1f}" if row.cost_per_1000 is None else cost_text(row.cost_per_1000)
        times = row.difference and (row.difference.times_cheaper or row.difference.times_faster)
        table.add_row(_name(row), *rates, f"{row.ran.peak_mb:,}", cost, f"{times.value:.2f} x" if times else "")
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", no_wrap=bool(index), overflow="fold")
    return table


def _name(row: Row) -> str:
    return f"* {row.name}" if row.on_front else row.name


def _gate(comparison: Comparison) -> str:
    return ", ".join(f"{name} {limit:g}" for name, limit in comparison.terms.limits.items() if name != "contract")


def _say(console: Console, line: str, style: str = "") -> None:
    console.print(line, soft_wrap=True, highlight=False, markup=False, style=style)
