"""A comparison as one HTML page with its plot, which needs no network and holds no text of any note, so that it may be shown around."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from pipeline import html_page
from pipeline.comparison.figures import SCORES, Row
from pipeline.comparison.outcome import Comparison
from pipeline.comparison.plot import Plot, Point, lay_out
from pipeline.comparison.verdict import SCORE_NAMES, cost_text, interval_text, speed_text, standing
from schemas.errors import ConfigurationError
from transforms.checks import INFORMATIVE

_TEMPLATE = Path(__file__).with_name("compare.html")


def render_page(comparison: Comparison) -> str:
    """The page as HTML."""
    return html_page.render("compare", _TEMPLATE, page=page_of(comparison))


def page_of(comparison: Comparison) -> dict[str, Any]:
    """What the template shows."""
    question, terms = comparison.question, comparison.terms
    return {
        "answer": comparison.verdict.answer,
        "sentences": comparison.verdict.sentences,
        "score_names": [SCORE_NAMES[name] for name in SCORES] if question.references else [],
        "rows": [_shown(row, comparison) for row in comparison.rows],
        "plot": plot_of(comparison),
        "x_title": "Cost of 1,000 notes" if question.priced else "Seconds for 1,000 notes",
        "y_title": question.score_name if question.references else "Summaries per 100 without a flag that counts",
        "codes": list(_codes(comparison.rows)),
        "names": [row.name for row in comparison.rows if row.ran],
        "notes": question.notes,
        "against": question.against,
        "margin": f"{question.margin:g} {question.score_name}",
        "references": question.references,
        "priced": question.priced,
        "repeats": terms.repeats,
        "gate": [(name, f"{limit:g}") for name, limit in terms.limits.items() if name != "contract"],
        "left_out": [(reason.replace("_", " "), count) for reason, count in comparison.left_out.items()],
        "machine": [(name, _said(value)) for name, value in comparison.machine.items()],
        "settings": [(row.name, _settings(row)) for row in comparison.rows],
    }


def plot_of(comparison: Comparison) -> Plot | None:
    """Those that ran; None if nobody did."""
    points = [_point(row, comparison.question.by) for row in comparison.rows if row.ran]
    return lay_out(points) if points else None


def _point(row: Row, by: str) -> Point:
    assert row.ran is not None
    # What a turn at another speed would have cost.
    dearest, cheapest = (row.expense * row.speed / rate for rate in (min(row.ran.rates), max(row.ran.rates)))
    quality = row.quality(by)
    return Point(row.name, row.expense, (cheapest, dearest), quality.value, (quality.low, quality.high), row.passes_gate, row.on_front)


def _shown(row: Row, comparison: Comparison) -> dict[str, Any]:
    question = comparison.question
    if row.ran is None:
        return {"name": row.name, "failure": row.failure}
    difference = row.difference.scores.get(question.by) if row.difference else None
    cost = speed_text(row.seconds_per_1000) if row.cost_per_1000 is None else cost_text(row.cost_per_1000)
    return {
        "name": row.name,
        "failure": None,
        "reference": row.name == question.against,
        "best": row.name == comparison.verdict.cheapest,
        "on_front": row.on_front,
        "passes": row.passes_gate,
        "scores": [(f"{found.value:.1f}", f"{found.low:.1f} to {found.high:.1f}") for found in row.scores.values()],
        "difference": interval_text(difference) if difference else "",
        "standing": standing(row, question).value if row.difference else "",
        "flags": f"{row.flags_per_100.value:.1f}",
        "flags_ends": f"{row.flags_per_100.low:.1f} to {row.flags_per_100.high:.1f}",
        "failed": sum(row.failed.values()),
        "speed": speed_text(row.speed),
        "speed_ends": f"{speed_text(min(row.ran.rates))} to {speed_text(max(row.ran.rates))}",
        "memory": f"{row.ran.peak_mb:,}",
        "gpu_memory": "" if row.ran.gpu_mb is None else f"GPU {row.ran.gpu_mb:,}",
        "cost": cost,
        "same": "" if row.difference is None else f"{100 * row.difference.same_share:.0f} %",
    }


def _codes(rows: tuple[Row, ...]) -> Iterator[dict[str, Any]]:
    """Each flag with the summaries per 100 that carry it, by contender; those that count first."""
    able = [row for row in rows if row.ran]
    found = {code for row in able for code in row.codes}
    for code in sorted(found, key=lambda code: (code in INFORMATIVE, code)):
        shares = [f"{100 * row.codes.get(code, 0) / row.summarized:.1f}" if row.summarized else "–" for row in able]
        yield {"code": code, "counts": code not in INFORMATIVE, "shares": shares}


def _settings(row: Row) -> str:
    # Of a folder only the last part: what lies above it is nobody's business.
    named = {"model": PurePath(str(row.settings["model"]).rstrip("/")).name} if "model" in row.settings else {}
    told = {**row.settings, **named, **({name: row.ran.engine.get(name) for name in ("backend", "dtype", "device")} if row.ran else {})}
    sha = str(row.ran.engine.get("model_sha256") or "")[:12] if row.ran else ""
    return ", ".join([*(f"{name} {value}" for name, value in told.items()), *([f"sha256 {sha}…"] if sha else [])])


def _said(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "absent" if value is None else str(value)


def check_place(path: Path) -> None:
    """Raise ConfigurationError where the page cannot go; asked before the work that it is about."""
    html_page.check_place("compare", path)
    if not path.absolute().parent.is_dir():
        raise ConfigurationError("--html: there is no such folder; make it first")


def write_page(html: str, path: Path) -> None:
    """Write the page. Raises ConfigurationError as `check_place`, ChartmillError where it cannot be written."""
    check_place(path)
    html_page.write_page("compare", html, path)
