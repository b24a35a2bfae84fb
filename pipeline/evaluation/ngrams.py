"""Word n-grams of summaries: how much of a summary is not the note's wording, and the extract that comes closest to a reference."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from transforms.sentences import split_sentences

ORDERS = (1, 2, 3, 4)
# As rouge-score tokenizes without stemming.
_WORD = re.compile(r"[a-z0-9]+")


def words_of(text: str) -> list[str]:
    """The words that ROUGE compares: lower-case runs of ASCII letters and digits."""
    return _WORD.findall(text.lower())


def novelty(note: str, summary: str) -> list[float | None]:
    """Share (0-1) of the summary's n-grams, each time one occurs, that stand nowhere in the note, for n of ORDERS; None where it has none.

    As in See et al. 2017 (arXiv 1704.04368, section 6). A share of 0 for n = 1 says that every word is taken from the note.
    """
    source, words = words_of(note), words_of(summary)
    shares: list[float | None] = []
    for order in ORDERS:
        known, found = set(_grams(source, order)), _grams(words, order)
        shares.append(sum(gram not in known for gram in found) / len(found) if found else None)
    return shares


def _grams(words: Sequence[str], order: int) -> list[tuple[str, ...]]:
    return list(zip(*(words[start:] for start in range(order)), strict=False))


def oracle(note: str, reference: str) -> str:
    """The greedy extract: sentences are added while the sum of ROUGE-1 and ROUGE-2 F1 grows (Nallapati et al. 2017, arXiv 1611.04230).

    What choosing whole sentences can reach when the reference is known; a ceiling for extractive models, though greedy and so not the
    highest one. Bigrams across two sentences are never taken for shared while choosing.
    """
    spans = split_sentences(note)
    units = [words_of(note[start:end]) for start, end in spans]
    chosen = _greedy(units, words_of(reference))
    return " ".join(" ".join(note[slice(*spans[index])].split()) for index in sorted(chosen))


def _greedy(units: Sequence[Sequence[str]], reference: Sequence[str]) -> list[int]:
    tables = [_Overlap(units, reference, order) for order in (1, 2)]
    chosen: list[int] = []
    best = 0.0
    while len(chosen) < len(units):
        scores = np.sum([table.scores() for table in tables], axis=0)
        scores[chosen] = -1.0
        index = int(np.argmax(scores))
        if scores[index] <= best:
            break
        best = float(scores[index])
        chosen.append(index)
        for table in tables:
            table.take(index)
    return chosen


class _Overlap:
    """How often each sentence holds the reference's n-grams of one order, and what is taken already."""

    def __init__(self, units: Sequence[Sequence[str]], reference: Sequence[str], order: int) -> None:
        wanted = Counter(_grams(reference, order))
        columns = {gram: column for column, gram in enumerate(wanted)}
        self._limits = np.array(list(wanted.values()), np.int64)
        self._wanted = int(self._limits.sum())
        self._counts = np.zeros((len(units), len(columns)), np.int64)
        self._order = order
        self._words = np.array([len(unit) for unit in units], np.int64)
        for row, unit in enumerate(units):
            for gram in _grams(unit, order):
                if gram in columns:
                    self._counts[row, columns[gram]] += 1
        self._taken = np.zeros(len(columns), np.int64)
        self._taken_words = 0

    def scores(self) -> NDArray[np.float64]:
        """F1 (0-1) of what is taken with each sentence added: float64 [sentences]."""
        shared = np.minimum(self._taken + self._counts, self._limits).sum(1)
        grams = np.maximum(0, self._taken_words + self._words - self._order + 1)
        return np.asarray(2 * shared / np.maximum(1, grams + self._wanted), np.float64)

    def take(self, index: int) -> None:
        self._taken += self._counts[index]
        self._taken_words += int(self._words[index])
