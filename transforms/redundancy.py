"""Pieces of a note that say nearly what was taken before them, known by their runs of four words.

Of the kind of trigram blocking (Paulus et al. 2018, arXiv 1705.04304; Liu and Lapata 2019, arXiv 1908.08345), which passes over a
sentence that shares any run of three words with the summary. Notes are full of standing phrases, so here two in five runs must be shared.
It knows nothing of what words mean: a piece with a number that is new is never a repetition, one with another negation may be.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

RUN_WORDS = 4
# A piece that shares more than this part of its runs is a repetition.
SHARED_PART = 0.4

_WORD = re.compile(r"\w+")

Run = tuple[str, ...]


@dataclass(slots=True)
class Taken:
    """What was taken so far. Time and memory are linear in the length of the pieces."""

    _runs: set[Run] = field(default_factory=set, repr=False)
    _numbers: set[str] = field(default_factory=set, repr=False)

    def add(self, piece: str) -> None:
        words = _words(piece)
        self._runs.update(_runs(words))
        self._numbers.update(_numbers(words))

    def repeats(self, piece: str) -> bool:
        """Whether a piece says nearly what was taken. One of fewer than RUN_WORDS words never does."""
        words = _words(piece)
        runs = set(_runs(words))
        shared = len(runs & self._runs)
        return shared > SHARED_PART * len(runs) and self._numbers.issuperset(_numbers(words))


def _words(piece: str) -> list[str]:
    return _WORD.findall(piece.lower())


def _runs(words: Sequence[str]) -> list[Run]:
    return list(zip(*(words[start:] for start in range(RUN_WORDS)), strict=False))


def _numbers(words: Sequence[str]) -> list[str]:
    """Words with a digit: 5, 5mg, b12."""
    return [word for word in words if any(map(str.isdigit, word))]
