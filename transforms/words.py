"""The words of a text, and phrases that are tried only where a word stands that may open one.

A search for dozens of phrases tries all of them at every character, and most words of a note open none. What is found is the same.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate

from transforms.lexicon import word_set

# So many letters of a word tell whether a phrase may begin with it.
OPENING = 4
_WORD = re.compile(r"([a-z]+)")


class Words:
    """The runs of the letters a-z of a text in lower case, and the characters that they start at; worked out when first asked for."""

    def __init__(self, folded: str) -> None:
        self.folded = folded

    def __repr__(self) -> str:
        return f"Words({len(self.folded)} characters)"

    @cached_property
    def _pieces(self) -> Sequence[str]:
        # Quicker than a match object per word: what stands between the words, and the words, in turn.
        return _WORD.split(self.folded)

    @cached_property
    def runs(self) -> Sequence[str]:
        return self._pieces[1::2]

    @cached_property
    def starts(self) -> Sequence[int]:
        return list(accumulate(map(len, self._pieces)))[:-1:2]

    @cached_property
    def _opened(self) -> Mapping[str, Sequence[int]]:
        """The first OPENING letters of the words -> where they start."""
        opened: dict[str, list[int]] = defaultdict(list)
        for word, start in zip(self.runs, self.starts, strict=True):
            opened[word[:OPENING]].append(start)
        return opened

    @cached_property
    def _asked(self) -> dict[frozenset[str], Sequence[int]]:
        return {}

    def opened(self, openings: frozenset[str]) -> Sequence[int]:
        """Where the words start whose first OPENING letters are among these, in order."""
        if openings not in self._asked:
            self._asked[openings] = sorted([start for opening in openings & self._opened.keys() for start in self._opened[opening]])
        return self._asked[openings]

    def cut_short(self, end: int) -> tuple[int, ...]:
        """Where the word starts of which fewer than OPENING letters stand right before a character, if there is one."""
        end = start = min(end, len(self.folded))
        while start and end - start < OPENING and "a" <= self.folded[start - 1] <= "z":
            start -= 1
        return (start,) if 0 < end - start < OPENING else ()


class Phrases:
    """A pattern whose matches begin with a letter a-z at the beginning of a word: no letter, digit or underscore stands before it.

    `openings`: the first OPENING letters of the words that a match may begin with, with blanks between; of shorter words all letters.
    """

    def __init__(self, pattern: str, openings: str) -> None:
        self.pattern = re.compile(pattern)
        self.openings = word_set(openings)

    def finditer(self, words: Words, start: int = 0, end: int | None = None) -> Iterator[re.Match[str]]:
        """What `finditer` of the pattern gives for the characters [start, end) of the text of these words."""
        opened, end = words.opened(self.openings), len(words.folded) if end is None else end
        # A word that the end cuts may begin otherwise than the whole word: "po" of "positive".
        for place in (*opened[bisect_left(opened, start) : bisect_left(opened, end)], *words.cut_short(end)):
            if place >= start and (match := self.pattern.match(words.folded, place, end)):
                start = match.end()
                yield match

    def search(self, words: Words, start: int = 0, end: int | None = None) -> re.Match[str] | None:
        """The first of `finditer`, None where there is none."""
        return next(self.finditer(words, start, end), None)


def word_edge(text: str, start: int, end: int) -> int:
    """The end of a window [start, end) that cuts no word: `end`, or where the word begins whose middle it would be.

    A pattern that asks for the end of a word finds one at the end of every window: "po" of "positive".
    """
    while start < end < len(text) and _inside(text[end - 1]) and _inside(text[end]):
        end -= 1
    return min(end, len(text))


def _inside(character: str) -> bool:
    return character.isalnum() or character == "_"


def by_alphabet(pattern: re.Pattern[str]) -> Callable[[str], re.Pattern[str]]:
    """Chooses for a text between the pattern and the same for ASCII alone, which is quicker where a text has nothing else."""
    in_ascii = re.compile(pattern.pattern, pattern.flags & ~re.UNICODE | re.ASCII)
    return lambda text: in_ascii if text.isascii() else pattern
