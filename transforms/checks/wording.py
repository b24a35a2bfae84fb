"""A text as a row of word stems, so that the places of a phrase can be looked up. It knows English endings and no meaning."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import accumulate

from transforms.lexicon import word_set
from transforms.words import by_alphabet

Span = tuple[int, int]

_WORD = re.compile(r"([^\W\d_][^\W_]*)")
_word_in = by_alphabet(_WORD)
# Words that are no part of a phrase: between two words of a phrase none of them may stand.
FUNCTION_WORDS = word_set(
    "a an the and or nor of in on at to for from with by as is are was were be been being has have had having do does did will would can",
    "could should may might must not no he she it they we you i his her hers its their our your my him them us this that these those which",
    "who whom whose what when where while there here than then so if but also both either neither each any all some such other another",
    "more most very only just still again up down out over under about into through during before after between without within per via due",
)
_ENDINGS = ("ings", "ing", "ed", "s")
_MIN_STEM = 4


@lru_cache(maxsize=1 << 15)
def stem(word: str) -> str:
    """A word in lower case without its plural or verb ending, of at least four letters: "treated" and "treats" are "treat"."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _MIN_STEM and not word.endswith(("ss", "us", "is")):
            return word[: -len(ending)]
    return word


class Wording:
    """The words of a text in lower case. Places are indexes of words; spans are characters, ends exclusive."""

    def __init__(self, folded: str) -> None:
        # Quicker than a match object per word: what stands between the words, and the words, in turn.
        pieces = _word_in(folded).split(folded)
        ends = list(accumulate(map(len, pieces)))
        self.words: Sequence[str] = pieces[1::2]
        self.starts: Sequence[int] = ends[:-1:2]
        self._ends = ends[1::2]

    def __repr__(self) -> str:
        return f"Wording({len(self.words)} words)"

    @cached_property
    def stems(self) -> Sequence[str]:
        return list(map(stem, self.words))

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.stems)

    def places(self, stem: str) -> Iterator[int]:
        """Where a stem stands, in order. Few are ever asked for, so that no index of all is made."""
        place = -1
        for _ in range(self.stems.count(stem) if stem in self._known else 0):
            place = self.stems.index(stem, place + 1)
            yield place

    def is_content(self, place: int) -> bool:
        """Whether a word is more than a function word."""
        word = self.words[place]
        return len(word) > 2 and word not in FUNCTION_WORDS

    def around(self, place: int, length: int, reach: int, low: int = 0, high: int | None = None) -> frozenset[str]:
        """The stems of the content words up to `reach` words before and behind a phrase of `length` words, within [low, high)."""
        before = range(max(low, place - reach), place)
        behind = range(place + length, min(len(self.words) if high is None else high, place + length + reach))
        return frozenset(self.stems[i] for side in (before, behind) for i in side if self.is_content(i))

    def near(self, start: int, end: int, reach: int) -> frozenset[str]:
        """As `around`, for the words that begin within the characters [start, end)."""
        first = bisect_left(self.starts, start)
        return self.around(first, bisect_left(self.starts, end) - first, reach)

    def span(self, first: int, last: int) -> Span:
        """Characters of the words first to last, both included."""
        return self.starts[first], self._ends[last]

    def find(self, phrase: Sequence[str]) -> Iterator[int]:
        """The places where the stems of a phrase begin, one directly after the other."""
        for place in self.places(phrase[0]):
            if all(self.stems[place + i : place + i + 1] == [each] for i, each in enumerate(phrase)):
                yield place
