"""Numbers written out in words, "forty-five" or "one forty over eighty", as digits. It does not know millions or fractions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_ONES = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SCALES = {"hundred": 100, "thousand": 1000}
VALUES = {"zero": 0} | {word: i for i, word in enumerate(_ONES.split(), 1)} | {word: 10 * i for i, word in enumerate(_TENS.split(), 2)}
NUMBER_WORDS = (*VALUES, *_SCALES)
_ANY = "|".join(sorted(NUMBER_WORDS, key=len, reverse=True))
# A pattern: number words with a blank, a hyphen or "and" between them. Longer runs are no numbers.
SPOKEN = rf"(?:{_ANY})\b(?:(?:[ ]|-|[ ]and[ ])(?:{_ANY})\b){{0,7}}"
_WORD = re.compile(r"[a-z]+")


def spoken_values(phrase: str) -> tuple[int, ...]:
    """What words that match SPOKEN (in lower case) may mean, the likeliest first: "one forty" is 140, and also 1 and 40."""
    found = [word for word in _WORD.findall(phrase) if word != "and"]
    if len(found) == 1:
        return (VALUES[found[0]],) if found[0] in VALUES else (_SCALES[found[0]],)
    groups = list(_groups(found))
    if len(groups) == 2 and groups[0] < 100 and 10 <= groups[1] < 100 and not _SCALES.keys() & set(found):
        groups.insert(0, 100 * groups[0] + groups[1])
    return tuple(dict.fromkeys(groups))


def _groups(found: Sequence[str]) -> Iterator[int]:
    """The numbers that stand one after the other: "twenty four six" is 24 and 6, "one hundred twenty" is 120."""
    total, last = 0, 0
    for word in found:
        if word in _SCALES:
            total = max(total, 1) * _SCALES[word]
            last = _SCALES[word]
            continue
        value = VALUES[word]
        continues = (last >= 100 and value < last) or (20 <= last < 100 and value < 10)
        if total and not continues:
            yield total
            total = 0
        total, last = total + value, value
    yield total
