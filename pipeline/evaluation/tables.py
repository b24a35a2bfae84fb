"""The figures of an evaluation as tables for people: numbers and codes only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.evaluation.scores import BASELINES, MEASURES, ORACLE
from pipeline.evaluation.table_lines import lost_notes, number, plain_table

NAMES = {"rouge1": "ROUGE-1", "rouge2": "ROUGE-2", "rougeLsum": "ROUGE-Lsum", "precision": "precision", "recall": "recall", "f1": "F1"}


def system_names(figures: Mapping[str, Any]) -> dict[str, str]:
    """What the compared systems are called, by key; short, so that a terminal of 80 characters holds the tables."""
    words = figures["settings"]["baseline_words"]
    return {
        "lead": f"first {words} words",
        "first_last": f"first {words // 2} + last {words // 2}",
        "copy": "the whole note",
        ORACLE: "oracle extract",
    }


def print_evaluation(figures: Mapping[str, Any], console: Console | None = None) -> None:
    """Scores beside the baselines, what they say, and everything that is counted."""
    console = console or Console()
    console.print(_headline(figures), style="bold italic", soft_wrap=True, highlight=False, markup=False)
    console.print(_scores(figures))
    console.print(_differences(figures))
    for line in (*_columns(figures), *_lines(figures), verdict(figures)):
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _headline(figures: Mapping[str, Any]) -> str:
    pairs = f", {figures['pairs']:,} references" if figures["pairs"] != figures["n"] else ""
    model = ", ".join(str(figures["model"].get(name) or "-") for name in ("id", "backend", "dtype"))
    return f"Summaries of {figures['n']:,} notes{pairs}, by {model}: percent, with 95 % intervals"


def _scores(figures: Mapping[str, Any]) -> Table:
    table = plain_table("F1", *(NAMES[measure] for measure in MEASURES))
    table.add_row("these summaries", *_with_ends(figures["scores"], figures["intervals"]), style="bold")
    for name, title in system_names(figures).items():
        scores = figures["oracle"] if name == ORACLE else figures["baselines"][name]
        table.add_row(title, *_with_ends(scores, figures["other_intervals"][name]))
    return table


def _with_ends(scores: Mapping[str, float], intervals: Mapping[str, Sequence[float]]) -> list[str]:
    return [f"{scores[name]:.1f} [{intervals[name][0]:.1f}, {intervals[name][1]:.1f}]" for name in MEASURES]


def _differences(figures: Mapping[str, Any]) -> Table:
    table = plain_table("ours less", *(NAMES[measure] for measure in MEASURES))
    titles = system_names(figures)
    for name in BASELINES:
        found = figures["differences"][name]
        cells = [f"{found[m]['difference']:+.1f} [{found[m]['interval'][0]:+.1f}, {found[m]['interval'][1]:+.1f}]" for m in MEASURES]
        table.add_row(titles[name], *cells)
    return table


def _columns(figures: Mapping[str, Any]) -> list[str]:
    """Each column of references by itself, where there are several."""
    if len(figures["references"]) < 2:
        return []
    titles = {name: " / ".join(f"{found['scores'][m]:.1f}" for m in MEASURES) for name, found in figures["references"].items()}
    return [f"{name} ({figures['references'][name]['n']:,}): {scores}" for name, scores in titles.items()]


def _lines(figures: Mapping[str, Any]) -> list[str]:
    novelty, words = figures["novelty"], figures["words"]
    shares = ", ".join(
        f"{order} {number(novelty['summary'][order])} % ({number(novelty['reference'][order])} %)" for order in novelty["summary"]
    )
    return [
        f"words: note {number(words['note'])}, reference {number(words['reference'])}, summary {number(words['summary'])}",
        f"not in the note, of the summaries (of the references): {shares}",
        f"note words per summary word {number(figures['compression'])}, words taken from the note {number(figures['coverage'])} %",
        f"flagged for a second look: {number(figures['flags_per_100'])} of 100 summaries{_codes(figures['flag_codes_per_100'])}",
        *_bert(figures["bertscore"]),
        *lost_notes(figures, "without a summary, scored 0"),
    ]


def _codes(codes: Mapping[str, float]) -> str:
    told = ", ".join(f"{code} {share:.1f}" for code, share in sorted(codes.items(), key=lambda item: -item[1]))
    return f" ({told})" if told else ""


def _bert(found: Mapping[str, Any] | None) -> list[str]:
    if found is None:
        return []
    baselines = ", ".join(f"{name.replace('_', '+')} {scores['f1']:.1f}" for name, scores in found["baselines"].items())
    return [f"BERTScore F1 with {found['encoder']}: {found['scores']['f1']:.1f} ({baselines}); not comparable with published ones"]


def verdict(figures: Mapping[str, Any]) -> str:
    """One sentence: whether the summaries beat the best of the baselines in ROUGE-1, as far as these notes can tell."""
    best = max(BASELINES, key=lambda name: figures["baselines"][name]["rouge1"])
    title, found = system_names(figures)[best], figures["differences"][best]["rouge1"]
    low, high = found["interval"]
    told = f"{found['difference']:+.1f} ROUGE-1 [{low:+.1f}, {high:+.1f}], above 0 in {100 * found['share_above_zero']:.0f} % of resamples"
    if low > 0:
        return f"Better than the best baseline ({title}): {told}."
    if high < 0:
        return f"Worse than the best baseline ({title}): {told}. By ROUGE they are not worth their computing time."
    return f"{figures['n']:,} notes cannot tell them from the best baseline ({title}): {told}."
