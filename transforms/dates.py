"""Calendar dates in a text, in several spellings, as year, month and day. It does not know relative dates ("three days ago") or times."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_NAMES = "jan january,feb february,mar march,apr april,may,jun june,jul july,aug august,sep sept september,oct october,nov november"
_MONTHS = {name: month for month, names in enumerate(f"{_NAMES},dec december".split(","), start=1) for name in names.split()}

# A month's name in lower case, as a part of other patterns; what may not stand behind it is theirs to say.
MONTH = (
    r"(?:jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?"
    r"|dec(?:ember)?)"
)
# Patterns open with what is rare in a text, so that the engine skips fast; what stands around a hit is looked at afterwards.
# 2019-05-12, 05/12/2019, 12.5.19, 05/2019
_DIGITS = re.compile(r"\d(?<![\d./-]\d)\d{0,3}([-/.])\d{1,4}(?:\1\d{1,4})?(?![\d/]|[.-]\d)")
_NAME = re.compile(r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]{0,6}")
# "12 ", "12th of ", "12-" before the month's name
_DAY_BEFORE = re.compile(r"(?<![\d./-])(?P<day>\d{1,2})(?:st|nd|rd|th)?(?: (?:of )?|-)$")
_YEAR_BEHIND = re.compile(r"\.?(?:,? (?:of )?|-)(?P<year>(?:19|20)\d\d)(?!\d)")
_DAY_BEHIND = re.compile(
    r"\.? (?:the )?(?P<day>\d{1,2})(?:st|nd|rd|th)?(?![\w/%-]|\.\d| ?(?:mg|mcg|ml|years?|months?|weeks?|days?|hours?)\b)"
    r"(?:,? (?:of )?(?P<year>(?:19|20)\d\d)(?!\d))?"
)
# A year where only a year can stand: "in 2015", "since 1998".
_YEAR = re.compile(r"(?:19|20)\d\d(?<![\w./-].{4})(?!\w|[.,/-]\d|%| (?:m[gl]|patients?|cases?|units?|steps)\b)", re.DOTALL)
_BEFORE_YEAR = tuple(f" {word} " for word in "in since during from until till before after of by year".split())


@dataclass(frozen=True, slots=True)
class Date:
    """A date as it stands at [start, end) of a text; parts that are not said are None.

    `swapped`: the date may as well be read with `day` and `month` exchanged ("05/12/2019").
    """

    start: int
    end: int
    year: int | None = field(repr=False)
    month: int | None = field(repr=False)
    day: int | None = field(repr=False)
    swapped: bool = False


def find_dates(text: str) -> list[Date]:
    """The dates of a text in order, not overlapping; of two that begin together the longer one."""
    found: list[Date] = []
    for date in sorted(_candidates(text), key=lambda date: (date.start, -date.end)):
        if not found or date.start >= found[-1].end:
            found.append(date)
    return found


def supports(known: Date, stated: Date) -> bool:
    """Whether every part of `stated` may be what `known` says; a part that `known` leaves out does not speak against it."""
    if known.month is None and stated.month is not None:
        return False
    if stated.day is not None and known.day is None:
        return False
    readings = [(stated.month, stated.day), *([(stated.day, stated.month)] if stated.swapped or known.swapped else [])]
    return _same(stated.year, known.year) and any(_same(month, known.month) and _same(day, known.day) for month, day in readings)


def _same(left: int | None, right: int | None) -> bool:
    return left is None or right is None or left == right


def _candidates(text: str) -> Iterator[Date]:
    for match in _DIGITS.finditer(text):
        yield from _in_digits(match)
    for match in _NAME.finditer(text):
        if match.group().lower() in _MONTHS:
            yield from _with_name(text, match)
    for match in _YEAR.finditer(text):
        if (" " + text[max(0, match.start() - 7) : match.start()].lower()).endswith(_BEFORE_YEAR):
            yield Date(*match.span(), int(match.group()), None, None)


def _in_digits(match: re.Match[str]) -> Iterator[Date]:
    parts = match.group().split(match[1])
    lengths = tuple(map(len, parts))
    if len(parts) == 2:
        if lengths[0] <= 2 and lengths[1] == 4 and match[1] != ".":
            yield from _checked(*match.span(), parts[1], int(parts[0]), None)
    elif lengths[0] == 4 and max(lengths[1:]) <= 2:
        yield from _checked(*match.span(), parts[0], int(parts[1]), int(parts[2]))
    elif max(lengths[:2]) <= 2 and lengths[2] in (2, 4):
        one, two = int(parts[0]), int(parts[1])
        month, day = (two, one) if match[1] == "." or one > 12 else (one, two)
        yield from _checked(*match.span(), parts[2], month, day, swapped=max(one, two) <= 12 and one != two)


def _with_name(text: str, match: re.Match[str]) -> Iterator[Date]:
    """A date with the month's name, if a day or a year stands beside it."""
    month, (start, end) = _MONTHS[match.group().lower()], match.span()
    before = _DAY_BEFORE.search(text, max(0, start - 9), start)
    behind = None if before else _DAY_BEHIND.match(text, end)
    year = behind or _YEAR_BEHIND.match(text, end)
    day = before or behind
    if day or year:
        found = before.start() if before else start, year.end() if year else end
        yield from _checked(*found, year["year"] if year else None, month, int(day["day"]) if day else None)


def _checked(start: int, end: int, year: str | None, month: int, day: int | None, swapped: bool = False) -> Iterator[Date]:
    full = _full_year(year)
    if 1 <= month <= 12 and (day is None or 1 <= day <= 31) and (full is None or 1900 <= full < 2100):
        yield Date(start, end, full, month, day, swapped)


def _full_year(year: str | None) -> int | None:
    """Two digits are of the 2000s up to 39, else of the 1900s."""
    if year is None or len(year) == 4:
        return int(year) if year else None
    return int(year) + (2000 if int(year) < 40 else 1900)
