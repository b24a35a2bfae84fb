"""ROUGE scores as the field reports them: percent, no stemming, ROUGE-L on the summary level (rougeLsum).

A thin layer over the `rouge-score` package, which reproduces the published ACI-BENCH numbers with these settings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from schemas.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class RougeScores:
    """Mean F1 over `n` pairs, each in percent (0-100)."""

    rouge1: float
    rouge2: float
    rouge_lsum: float
    n: int

    def __str__(self) -> str:
        return f"{self.rouge1:.1f} / {self.rouge2:.1f} / {self.rouge_lsum:.1f} (n={self.n})"


def score_rouge(candidates: Sequence[str], references: Sequence[str]) -> RougeScores:
    """Score each candidate against the reference at its place and average.

    For rougeLsum, sentences are the lines of a text; nothing is split further. Raises ValueError if the lists differ in
    length or are empty.
    """
    rows = score_pairs(candidates, references)
    rouge1, rouge2, rouge_lsum = (sum(column) / len(rows) for column in zip(*rows, strict=True))
    return RougeScores(rouge1, rouge2, rouge_lsum, n=len(rows))


def score_pairs(candidates: Sequence[str], references: Sequence[str]) -> list[tuple[float, float, float]]:
    """Return (ROUGE-1, ROUGE-2, ROUGE-Lsum) F1 in percent for each pair; raises ValueError as `score_rouge`."""
    if len(candidates) != len(references) or not candidates:
        raise ValueError(f"need equally many texts, at least one: {len(candidates)} and {len(references)}")
    scorer = _scorer()
    rows = []
    for candidate, reference in zip(candidates, references, strict=True):
        scores = scorer.score(reference, candidate)
        rows.append(tuple(100 * scores[name].fmeasure for name in ("rouge1", "rouge2", "rougeLsum")))
    return rows


def check_installed() -> None:
    """Raises ConfigurationError when the package that scores is not installed."""
    if find_spec("rouge_score") is None:
        raise ConfigurationError("scores need the package rouge-score, which is not installed; pip install chartmill[evaluate]")


def _scorer() -> Any:
    check_installed()
    # nltk, which rouge-score imports, takes most of a second: not at module level.
    from rouge_score import rouge_scorer

    return rouge_scorer.RougeScorer(["rouge1", "rouge2", "rougeLsum"], use_stemmer=False)


def lead(text: str, n_words: int) -> str:
    """Return the first `n_words` words: the baseline that is hard to beat on news."""
    return " ".join(text.split()[:n_words])


def first_and_last(text: str, n_words: int) -> str:
    """Return the first and the last `n_words` words, the text itself if that is all of it."""
    words = text.split()
    return " ".join(words if len(words) <= 2 * n_words else [*words[:n_words], *words[-n_words:]])
