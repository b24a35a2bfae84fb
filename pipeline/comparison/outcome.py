"""A comparison from notes to verdict, and its figures as JSON. Texts go in; numbers, names and codes come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.bench_machine import describe_machine
from pipeline.comparison.contenders import Entrant
from pipeline.comparison.figures import Row, Scorer, Terms, row_json, rows_of
from pipeline.comparison.runs import run_entrants
from pipeline.comparison.verdict import Question, Verdict, judge, standing


@dataclass(frozen=True, slots=True)
class Material:
    """What is summarized. `references`: one right summary per text, None if there are none. `left_out`: rows of the input by reason."""

    texts: tuple[str, ...] = field(repr=False)
    references: tuple[str, ...] | None = field(default=None, repr=False)
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that is told of a comparison; nothing in it is text of a note or a summary."""

    rows: tuple[Row, ...]
    question: Question
    verdict: Verdict
    terms: Terms
    left_out: Mapping[str, int]
    machine: Mapping[str, Any]

    @property
    def anybody_ran(self) -> bool:
        return any(row.failure is None for row in self.rows)

    def as_json(self) -> dict[str, Any]:
        """Scores and flags per 100, shares 0-1, memory in MB (10^6 bytes)."""
        return {
            "contenders": [{**row_json(row), "standing": standing(row, self.question).value} for row in self.rows],
            "verdict": str(self.verdict),
            "answer": self.verdict.answer,
            "cheapest": self.verdict.cheapest,
            "n": self.question.notes,
            "against": self.terms.against,
            "by": self.terms.by if self.question.references else None,
            "margin": self.terms.margin,
            "references": self.question.references,
            "gate": {name: limit for name, limit in self.terms.limits.items() if name != "contract"},
            "repeats": self.terms.repeats,
            "left_out": dict(self.left_out),
            "machine": dict(self.machine),
        }


def compare(entrants: Sequence[Entrant], material: Material, terms: Terms, score: Scorer | None, say: Callable[[str], None]) -> Comparison:
    """Run the entrants on the material and judge them. `score`: as in `rows_of`. `say` is told how far it is. Blocks for as long as the
    slowest takes."""
    ran, failures = run_entrants(entrants, material.texts, terms.repeats, say)
    rows = rows_of(entrants, ran, failures, material.references, terms, score)
    priced = all(entrant.price_per_hour is not None for entrant in entrants)
    question = Question(terms.against, terms.by, terms.margin, len(material.texts), priced, material.references is not None)
    return Comparison(rows, question, judge(rows, question), terms, material.left_out, describe_machine())
