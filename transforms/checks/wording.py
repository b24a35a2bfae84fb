"""A text as a row of word stems, so that the places of a phrase can be looked up. It knows English endings and no meaning."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache

from transforms.lexicon import word_set

Span = tuple[int, int]

_WORD = re.compile(r"[^\W\d_][^\W_]*")
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
        self._folded = folded
        self._matches = list(_WORD.finditer(folded))

    def __repr__(self) -> str:
        return f"Wording({len(self._matches)} words)"

    @cached_property
    def words(self) -> Sequence[str]:
        return [match.group() for match in self._matches]

    @cached_property
    def stems(self) -> Sequence[str]:
        return list(map(stem, self.words))

    @cached_property
    def starts(self) -> Sequence[int]:
        return [match.start() for match in self._matches]

    @cached_property
    def places(self) -> Mapping[str, Sequence[int]]:
        """Stem -> where it stands, in order."""
        found: dict[str, list[int]] = defaultdict(list)
        for place, each in enumerate(self.stems):
            found[each].append(place)
        return dict(found)

    @cached_property
    def is_content(self) -> Sequence[bool]:
        """Whether a word is more than a function word."""
        return [len(word) > 2 and word not in FUNCTION_WORDS for word in self.words]

    def around(self, place: int, length: int, reach: int, low: int = 0, high: int | None = None) -> frozenset[str]:
        """The stems of the content words up to `reach` words before and behind a phrase of `length` words, within [low, high)."""
        before = range(max(low, place - reach), place)
        behind = range(place + length, min(len(self.words) if high is None else high, place + length + reach))
        return frozenset(self.stems[i] for side in (before, behind) for i in side if self.is_content[i])

    def near(self, start: int, end: int, reach: int) -> frozenset[str]:
        """As `around`, for the words that begin within the characters [start, end)."""
        first = bisect_left(self.starts, start)
        return self.around(first, bisect_left(self.starts, end) - first, reach)

    def span(self, first: int, last: int) -> Span:
        """Characters of the words first to last, both included."""
        return self._matches[first].start(), self._matches[last].end()

    def find(self, phrase: Sequence[str]) -> Iterator[int]:
        """The places where the stems of a phrase begin, one directly after the other."""
        for place in self.places.get(phrase[0], ()):
            if all(self.stems[place + i : place + i + 1] == [each] for i, each in enumerate(phrase)):
                yield place
