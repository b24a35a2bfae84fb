"""ROUGE of several systems over the same notes and references, note by note, and what the scores come to with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np

from pipeline.evaluation.bootstrap import RESAMPLES, Difference, Floats, Interval, difference_of, interval_of, mean_of, resampled_means
from pipeline.evaluation.ngrams import oracle
from pipeline.evaluation.notes import ReferencedNote
from pipeline.rouge import first_and_last, lead, score_pairs

T = TypeVar("T")

MEASURES = ("rouge1", "rouge2", "rougeLsum")
OURS = "summary"
BASELINES = ("lead", "first_last", "copy")
ORACLE = "oracle"
# 60 first and 60 last words are what MultiClinSum's notes have been compared with.
BASELINE_WORDS = 120


def baseline_texts(notes: Sequence[ReferencedNote], words: int = BASELINE_WORDS) -> dict[str, list[str]]:
    """Per baseline one text a note: the first `words` words, half of them from each end, the whole note."""
    make: dict[str, Callable[[str], str]] = {
        "lead": partial(lead, n_words=words),
        "first_last": partial(first_and_last, n_words=words // 2),
        "copy": str,
    }
    return {name: [make[name](note.text) for note in notes] for name in BASELINES}


@dataclass(frozen=True, slots=True)
class Scored:
    """Scores (0-100) of each system for each pair of a note and a reference: float64 [pairs, measures], in the order of `places`.

    `places`: (number of the note, column of the reference) of each pair.
    """

    places: tuple[tuple[int, str], ...]
    scores: Mapping[str, Floats] = field(repr=False)
    measures: tuple[str, ...] = MEASURES

    def of_column(self, column: str) -> Scored:
        """The pairs of one column of references alone."""
        rows = [row for row, (_, name) in enumerate(self.places) if name == column]
        return Scored(tuple(self.places[row] for row in rows), {name: table[rows] for name, table in self.scores.items()}, self.measures)

    def of_notes(self, system: str) -> dict[int, Floats]:
        """By number of the note, the mean over its references: float64 [measures]."""
        rows: dict[int, list[Floats]] = {}
        for (note, _), scores in zip(self.places, self.scores[system], strict=True):
            rows.setdefault(note, []).append(scores)
        return {note: np.mean(mine, axis=0) for note, mine in rows.items()}


def score_systems(notes: Sequence[ReferencedNote], systems: Mapping[str, Sequence[str]], with_oracle: bool = True) -> Scored:
    """Score each system's texts, one a note, against every reference of the note. An empty text scores 0."""
    places = tuple((number, column) for number, note in enumerate(notes) for column in note.references)
    references = [notes[number].references[column] for number, column in places]
    candidates = {name: [texts[number] for number, _ in places] for name, texts in systems.items()}
    if with_oracle:
        candidates[ORACLE] = [oracle(notes[number].text, reference) for (number, _), reference in zip(places, references, strict=True)]
    return Scored(places, {name: np.array(score_pairs(texts, references)) for name, texts in candidates.items()})


@dataclass(frozen=True, slots=True)
class Figures:
    """What scores come to, by system and measure: mean over pairs (0-100), its interval, and OURS less each other system."""

    means: Mapping[str, Mapping[str, float]]
    intervals: Mapping[str, Mapping[str, Interval]]
    differences: Mapping[str, Mapping[str, Difference]]


def summed_up(scored: Scored, resamples: int = RESAMPLES, seed: int = 0) -> Figures:
    """Means with percentile intervals over resamples of the notes. All systems share the resamples, so that differences are paired."""
    tables, counts = _by_note(scored)
    means = {name: mean_of(table, counts) for name, table in tables.items()}
    together = resampled_means(np.hstack(list(tables.values())), counts, resamples, seed)
    drawn = dict(zip(tables, np.split(together, len(tables), axis=1), strict=True))
    others = [name for name in tables if name != OURS]

    def per_measure(make: Callable[..., T], values: Floats, resampled: Floats) -> dict[str, T]:
        return {measure: make(values[i], resampled[:, i]) for i, measure in enumerate(scored.measures)}

    return Figures(
        {name: dict(zip(scored.measures, map(float, values), strict=True)) for name, values in means.items()},
        {name: per_measure(interval_of, means[name], drawn[name]) for name in tables},
        {name: per_measure(difference_of, means[OURS] - means[name], drawn[OURS] - drawn[name]) for name in others},
    )


def _by_note(scored: Scored) -> tuple[dict[str, Floats], Floats]:
    """Per system the sum of each note's scores, float64 [notes, measures]; and how many pairs each note has."""
    _, rows, counts = np.unique([note for note, _ in scored.places], return_inverse=True, return_counts=True)
    tables = {}
    for name, scores in scored.scores.items():
        tables[name] = np.zeros((len(counts), len(scored.measures)))
        np.add.at(tables[name], rows, scores)
    return tables, counts.astype(np.float64)
