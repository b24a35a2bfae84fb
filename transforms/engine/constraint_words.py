"""Where the words and numbers of a text begin and end: what a copied value may not cut. It knows nothing of tokens.

A unit is never cut:

- a word: letters, digits and marks in a row (`500mg`, `q8h`, `B12`), apostrophes and hyphens inside it (`patient's`, `non-smoker`), the
  points of an abbreviation of single letters (`b.i.d`);
- a number: digits joined by one of . , : ^ or a dash between digits (`12.5`, `1,000`, `10:30`, `5-10`, `2024-01-05`), by a slash next to
  a digit (`120/80`, `2/day`), with a sign or a point before it (`-3.5`, `.5`) and a plus after it (`2+`);
- any other sign, or a row of the same sign, by itself: `%`, `(`, `...`, a slash between letters (`HTN/DM` is three units).

A number in groups set apart by spaces (`1 000`) counts as two. In scripts without spaces a run of letters counts as one word.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field

_HYPHENS = "\\-\u2010\u2011\u2013"
# One quantifier over single characters, so that the time is linear in the text.
_UNIT = re.compile(
    rf"(?:(?<![\w)])[-+\u2212](?=[.,]?\d))?(?:(?<![\w.,])[.,](?=\d))?"
    rf"(?:\w|(?<=\w)['\u2019{_HYPHENS}](?=\w)|(?<=\d)[.,:^](?=\d)|(?<=\d)/(?=\w)|(?<=\w)/(?=\d)|(?<=\b\w)\.(?=\w\b))+"
    r"(?:(?<=\d)\+(?!\w))?"
    r"|([^\w\s])\1*"
)
_HYPHEN_BETWEEN_LETTERS = re.compile(rf"(?<=[^\W\d_])[{_HYPHENS}](?=[^\W\d_])")
# Zero-width joiner and non-joiner, soft hyphen: inside words, and neither letters nor marks.
_JOINERS = frozenset("\u200c\u200d\u00ad")


@dataclass(frozen=True, slots=True)
class Units:
    """Of a text: `ends[start]` is the end (exclusive) of the unit that begins there, in order of `start`; `numbers`: starts of units that
    are nothing but a number; `hyphens`: places of hyphens between two letters."""

    ends: dict[int, int] = field(repr=False)
    numbers: frozenset[int] = field(repr=False)
    hyphens: tuple[int, ...] = field(repr=False)


def units_of(text: str) -> Units:
    """The units of a text, in characters."""
    plain = _without_marks(text)
    ends = {match.start(): match.end() for match in _UNIT.finditer(plain)}
    numbers = frozenset(start for start, end in ends.items() if _is_number(plain[start:end]))
    return Units(ends, numbers, tuple(match.start() for match in _HYPHEN_BETWEEN_LETTERS.finditer(plain)))


def _is_number(unit: str) -> bool:
    return not any(char.isalpha() or char == "_" for char in unit) and any(char.isnumeric() for char in unit)


def _without_marks(text: str) -> str:
    """Combining marks as letters, of which the regular expressions know; no character moves."""
    if text.isascii():
        return text
    marks = {char for char in set(text) if char in _JOINERS or unicodedata.category(char)[0] == "M"}
    return text.translate(dict.fromkeys(map(ord, marks), "a")) if marks else text
