"""The best and the worst summaries beside their notes and references, as one HTML page that needs no network. The page holds patient text.

Everything that comes from a note is escaped, and it has no script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import html_page
from pipeline.evaluation.bootstrap import Floats
from pipeline.evaluation.measure import Evaluated
from pipeline.evaluation.scores import BASELINES, MEASURES, ORACLE, OURS
from pipeline.evaluation.tables import NAMES, system_names, verdict
from schemas.reasons import FLAGS, REASONS
from transforms.checks import INFORMATIVE

CASES = 10
_TEMPLATE = Path(__file__).with_name("cases.html")
# Drawing space of the histogram in SVG units, and the width of a bar in points of ROUGE-1.
_WIDTH, _BASE, _TOP, _BIN = 640.0, 250.0, 58.0, 5


def write_cases(evaluated: Evaluated, path: Path, output: str | None) -> None:
    """Write the page with mode 0600. `output`: the run's folder, in which it must not lie. Raises as `html_page.write_page`."""
    html_page.write_page("evaluate", render_cases(evaluated), path, output)


def render_cases(evaluated: Evaluated) -> str:
    """The page as HTML."""
    return html_page.render("evaluate", _TEMPLATE, page=page_of(evaluated))


def page_of(evaluated: Evaluated) -> dict[str, Any]:
    """What the template shows."""
    figures = evaluated.figures
    of_note = {name: evaluated.scored.of_notes(name) for name in (OURS, *BASELINES)}
    first = {note: float(scores[0]) for note, scores in of_note[OURS].items()}
    order = sorted(first, key=lambda note: (first[note], note))
    worst = order[: min(CASES, (len(order) + 1) // 2)]
    best = order[len(worst) :][-CASES:][::-1]
    return {
        "model": figures["model"],
        "n": figures["n"],
        "verdict": verdict(figures),
        "systems": _systems(figures),
        "measures": [NAMES[measure] for measure in MEASURES],
        "histogram": histogram(list(first.values()), _marks(figures)),
        "groups": [
            {"title": "The lowest scores", "cases": [_case(evaluated, note, of_note) for note in worst]},
            {"title": "The highest scores", "cases": [_case(evaluated, note, of_note) for note in best]},
        ],
    }


def _systems(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = [_system("these summaries", figures["scores"], figures["intervals"], "ours")]
    for name, title in system_names(figures).items():
        scores = figures["oracle"] if name == ORACLE else figures["baselines"][name]
        rows.append(_system(title, scores, figures["other_intervals"][name], ""))
    return rows


def _system(title: str, scores: Mapping[str, float], intervals: Mapping[str, Sequence[float]], kind: str) -> dict[str, Any]:
    cells = [(f"{scores[name]:.1f}", f"{intervals[name][0]:.1f} to {intervals[name][1]:.1f}") for name in MEASURES]
    return {"title": title, "cells": cells, "kind": kind}


def _marks(figures: Mapping[str, Any]) -> list[tuple[str, float, str]]:
    """The means that are drawn into the histogram: these summaries' and the best baseline's."""
    best = max(BASELINES, key=lambda name: figures["baselines"][name]["rouge1"])
    return [
        ("mean of these summaries", figures["scores"]["rouge1"], "ours"),
        (system_names(figures)[best], figures["baselines"][best]["rouge1"], "theirs"),
    ]


def histogram(values: Sequence[float], marks: Sequence[tuple[str, float, str]]) -> dict[str, Any]:
    """Bars of _BIN points each from 0 to 100, and lines at the marks, in SVG units; the texts of the marks on lines of their own."""
    edges = np.arange(0, 100 + _BIN, _BIN)
    counts, _ = np.histogram(np.clip(values, 0, 100), edges)
    scale, unit = (_BASE - _TOP) / max(1, counts.max()), _WIDTH / 100
    bars = [
        {
            "x": low * unit + 1,
            "y": _BASE - count * scale,
            "width": _BIN * unit - 2,
            "height": count * scale,
            "count": int(count),
            "low": int(low),
        }
        for low, count in zip(edges, counts, strict=False)
    ]
    lines = [
        {"x": value * unit, "y": 14 + 18 * i, "text": f"{title}: {value:.1f}", "kind": kind, "anchor": "end" if value > 50 else "start"}
        for i, (title, value, kind) in enumerate(marks)
    ]
    ticks = [
        {"x": value * unit, "text": str(value), "anchor": {0: "start", 100: "end"}.get(value, "middle")} for value in range(0, 101, 20)
    ]
    return {"bars": bars, "lines": lines, "ticks": ticks, "width": _WIDTH, "base": _BASE, "height": _BASE + 22, "bin": _BIN}


def _case(evaluated: Evaluated, number: int, of_note: Mapping[str, Mapping[int, Floats]]) -> dict[str, Any]:
    """One note: its texts, its scores beside the baselines', and why one should look twice."""
    note, summary = evaluated.notes[number], evaluated.summaries[number]
    scores = {name: found[number] for name, found in of_note.items()}
    titles = system_names(evaluated.figures)
    return {
        "number": number + 1,
        "note": note.text,
        "summary": summary.text,
        "failed": f"{summary.failed}: {REASONS.get(summary.failed, '')}" if summary.failed else "",
        "references": list(note.references.items()),
        "scores": [f"{value:.1f}" for value in scores[OURS]],
        "others": [(titles[name], f"{scores[name][0]:.1f}") for name in BASELINES],
        "flags": [(code, FLAGS.get(code, ""), code in INFORMATIVE) for code in summary.flags],
    }
