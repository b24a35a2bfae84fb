"""A linear teacher: what is known about a sentence before any training, and the worth that follows from it.

References are few and tell little about any one sentence. Ridge regression from features to worth smooths that out, and it can be asked
about any selection of a note's sentences, so a student that reads marked notes never runs out of lessons. Fitted on 447
reports of MultiClinSum gold_train, its own choice reaches ROUGE-1/2 39.6/17.1 on gold_dev; first + last 60 words, 38.0/15.9.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from transforms.bert import Bert

FloatArray = NDArray[np.float64]
Embed = Callable[[Sequence[str]], FloatArray]

_RIDGE = 20.0
_LENGTH_OFFSETS = (3.0, 0.0)  # words added to a unit's cost by either regression
_MAX_TOKENS = 128
_UNITS_AT_ONCE = 16
_SOON, _LATER = (2.0, 6.0), (40.0, 120.0)  # sentences, and words, over which nearness to an end of the note fades
_SMALL = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What is told of the units of a note, in order.

    embeddings: mean states of their tokens in the pretrained encoder, each unit read by itself, (units, width). surface: length, figures,
    capitals, brackets, headings, questions, (units, 7). words: of each unit, (units,).
    """

    embeddings: FloatArray = field(repr=False)
    surface: FloatArray = field(repr=False)
    words: NDArray[np.int64] = field(repr=False)

    def subset(self, rows: Sequence[int]) -> Features:
        """Those of some units, which take the places of all."""
        return Features(self.embeddings[rows], self.surface[rows], self.words[rows])

    def plain(self) -> FloatArray:
        """Places and surface, (units, 23)."""
        return np.concatenate([_places(self.words), self.surface], axis=1)

    def alone(self) -> FloatArray:
        return np.concatenate([self.plain(), self.embeddings], axis=1)

    def among_others(self) -> FloatArray:
        """With the mean of both neighbours, and nearness to the note as a whole."""
        states = self.embeddings
        none = np.zeros((1, states.shape[1]))
        neighbours = 0.5 * (np.vstack([none, states[:-1]]) + np.vstack([states[1:], none]))
        centre = states.mean(axis=0, keepdims=True)
        near = states @ centre.T / (np.linalg.norm(states, axis=1, keepdims=True) * np.linalg.norm(centre) + _SMALL)
        return np.concatenate([self.alone(), near, near**2, neighbours], axis=1)


def features_of(units: Sequence[str], embed: Embed) -> Features:
    """Features of a note's units."""
    return Features(embed(units), np.array([_surface(unit) for unit in units]), np.array([len(unit.split()) for unit in units]))


def embed_with(encoder: Path) -> Embed:
    """A function from texts to the mean states of their tokens in a BERT, (texts, width)."""
    bert = Bert(encoder, _MAX_TOKENS)
    return lambda texts: bert.means(texts, _UNITS_AT_ONCE).astype(np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Teacher:
    """Two ridge regressions, of units alone and among others; their mean is the lesson."""

    alone: FloatArray = field(repr=False)
    among_others: FloatArray = field(repr=False)

    @classmethod
    def fit(cls, notes: Sequence[tuple[Features, FloatArray]]) -> Teacher:
        """From features and, for each unit, what it shares with the reference."""
        first, second = _LENGTH_OFFSETS
        return cls(
            _fit([(features.alone(), shared / (features.words + first)) for features, shared in notes]),
            _fit([(features.among_others(), shared / (features.words + second)) for features, shared in notes]),
        )

    def worth(self, features: Features) -> FloatArray:
        """Worth of the units among each other, mean 0 and deviation 1, (units,)."""
        scores = _standard(features.alone() @ self.alone) + _standard(features.among_others() @ self.among_others)
        return _standard(scores)


def _fit(notes: Sequence[tuple[FloatArray, FloatArray]]) -> FloatArray:
    """Ridge regression; features are centred and worth is standardised within each note, since units compete only there."""
    inputs = np.concatenate([features - features.mean(axis=0) for features, _ in notes])
    outputs = np.concatenate([_standard(worth) for _, worth in notes])
    weights: FloatArray = np.linalg.solve(inputs.T @ inputs + _RIDGE * np.eye(inputs.shape[1]), inputs.T @ outputs)
    return weights


def _standard(values: FloatArray) -> FloatArray:
    centred = values - values.mean()
    return centred / (centred.std() + _SMALL)


def _places(words: NDArray[np.int64]) -> FloatArray:
    """Where units stand, from both ends, in sentences and in words, (units, 16)."""
    n = len(words)
    before = np.arange(n)
    after = before[::-1]
    words_before, words_after = np.cumsum(words) - words, np.cumsum(words[::-1])[::-1] - words
    total = max(1, int(words.sum()))
    fading = [np.exp(-count / far) for far in _SOON for count in (before, after)]
    fading += [np.exp(-count / far) for far in _LATER for count in (words_before, words_after)]
    exact = [before == 0, after == 0, after == 1, before == 1]
    return np.stack([before / n, after / n, *fading, words_before / total, words_after / total, *exact], axis=1).astype(np.float64)


def _surface(unit: str) -> list[float]:
    size = max(1, len(unit))
    return [
        float(np.log1p(len(unit.split()))),
        sum(character.isdigit() for character in unit) / size,
        float(unit.isupper()),
        float(unit.strip().endswith(":")),
        float(unit.count("(") + unit.count("[")),
        len(re.findall("[A-Z]", unit)) / size,
        float("?" in unit),
    ]
