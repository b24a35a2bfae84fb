"""Entrants and what they did, invented, for tests of what is made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipeline.comparison.contenders import Entrant, read_entrants
from pipeline.comparison.figures import Row, Terms, rows_of
from pipeline.comparison.outcome import Comparison
from pipeline.comparison.runs import Ran, Written
from pipeline.comparison.verdict import Question, judge

LIMITS = {"max_flagged_share": 0.1, "max_quarantined_share": 0.05}
ENGINE = {"backend": "torch", "dtype": "int8", "device": "cpu", "model_id": "default", "model_sha256": "ab" * 32}


def written(values: Sequence[float], flagged: int = 0, failed: int = 0, mark: str = "") -> tuple[Written, ...]:
    """One summary per value, whose text is the value, so that `as_said` scores it by that. The first `flagged` have a flag that counts,
    the last `failed` are none."""
    made = [Written(f"{value}{mark}", ("UNSUPPORTED_NUMBER",) if i < flagged else ("LEAD_COPY",)) for i, value in enumerate(values)]
    return (*made[: len(made) - failed], *[Written(failed="GENERATION_FAILED")] * failed)


def as_said(candidates: Sequence[str], references: Sequence[str]) -> list[tuple[float, float, float]]:
    """Scores that the candidates state themselves."""
    assert len(candidates) == len(references)
    values = [float(text.rstrip("!") or 0) for text in candidates]
    return [(value, value / 2, value / 3) for value in values]


def ran(summaries: tuple[Written, ...], rate: float = 1.0, **more: Any) -> Ran:
    """With a turn 10 % slower and one 10 % faster."""
    return Ran(summaries, (0.9 * rate, rate, 1.1 * rate), peak_mb=700, engine=ENGINE, **more)


def entrants(*names: str, price: float | None = 0.36) -> tuple[Entrant, ...]:
    return read_entrants([f"dtype=int8,name={name}" for name in names], price_per_hour=price)


def comparison(
    done: dict[str, Ran | str], references: bool = True, margin: float = 1.0, price: float | None = 0.36, limits: dict[str, float] = LIMITS
) -> Comparison:
    """The first is the reference point; a text instead of what was done is why it was not."""
    given = entrants(*done, price=price)
    ran = {name: one for name, one in done.items() if isinstance(one, Ran)}
    failures = {name: one for name, one in done.items() if isinstance(one, str)}
    notes = max((len(one.summaries) for one in ran.values()), default=0)
    terms = Terms(given[0].name, "rouge1", margin, limits, 3)
    rows = rows_of(given, ran, failures, [""] * notes if references else None, terms, as_said)
    question = Question(given[0].name, "rouge1", margin, notes, price is not None, references)
    return Comparison(rows, question, judge(rows, question), terms, {"no_text": 2}, {"cpu": "a processor", "features": ["avx2"]})


def row(found: Comparison, name: str) -> Row:
    return next(one for one in found.rows if one.name == name)
