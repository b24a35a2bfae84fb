"""Numbers and units of clinical text, in a form in which equal quantities are equal strings.

"1,000" = "1000", "5.0" = "5", ".5" = "0.5" = "1/2", "forty-five" = "45"; "mcg" = "µg" = "ug", "hrs" = "hours", "mm Hg" = "mmHg". In a range
or a pair ("5-10 mg", "120/80 mmHg") the unit belongs to both numbers; `Quantity.measure` makes "2 weeks" and "14 days" equal. What it does
not know: sums, inexact conversions (months to days), molar units and numbers inside words: "B12" supports a 12 but states none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache

from transforms.sections import fold
from transforms.spoken_numbers import NUMBER_WORDS, SPOKEN, spoken_values

# The digit that opens it lets the regular expression engine skip fast; the point of ".5" is looked for behind it.
_NUMBER = re.compile(r"\d+(?:,\d{3}(?!\d))*(?:\.\d+)?")
# Other wordings of a number. They may support a digit in a summary; in a summary nobody has to support them.
_WORDINGS = {
    "once": "1", "single": "1", "first": "1", "twice": "2", "both": "2", "second": "2", "third": "3", "fourth": "4", "fifth": "5",
    "sixth": "6", "seventh": "7", "eighth": "8", "ninth": "9", "tenth": "10", "eleventh": "11", "twelfth": "12", "half a year": "6",
    "half": "0.5", "quarter": "0.25", "couple": "2", "pair": "2", "double": "2", "bilateral": "2", "thrice": "3", "triple": "3",
    "dozen": "12", "twenties": "20", "thirties": "30", "forties": "40", "fifties": "50", "sixties": "60", "seventies": "70",
    "eighties": "80", "nineties": "90",
}  # fmt: skip
# "thirty first"; not "thirty second", which may be a time.
_ORDINALS = "first|third|fourth|fifth|sixth|seventh|eighth|ninth"
# "an hour", "per week": one of it.
_ONE_OF = r"(?:an?|per|each|every|last|past|this|next)(?=[ -](?:year|month|week|day|hour|minute)\b)"
_WORDED = re.compile(
    rf"\b(?:(?P<spoken>{SPOKEN})(?P<half> and a half\b)?(?:[ -](?P<ordinal>{_ORDINALS})\b)?(?: point (?P<decimals>{SPOKEN}))?"
    rf"|(?P<wording>{'|'.join(_WORDINGS)})(?!\w)|(?P<one>{_ONE_OF}))"
)
_FIRST_WORDS = frozenset(
    (*NUMBER_WORDS, *(wording.split()[0] for wording in _WORDINGS), *"a an per each every last past this next".split())
)
_WORD = re.compile(r"[^\W\d_][^\W_]*")
_FRACTIONS = {"½": "0.5", "1/2": "0.5", "¼": "0.25", "1/4": "0.25", "¾": "0.75", "3/4": "0.75"}
_FRACTION = re.compile(r"[½¼¾13](?:(?<=[½¼¾])|(?<![\d/.].)(?:(?<=1)/[24]|(?<=3)/4)(?![\d/]))")
_POINT_ALONE = re.compile(r"(?:^|[^\w.])\.$")
_NAME = re.compile(r"[^\W\d](?:-|\d{1,3}[-/]|/)?$")
_SPACE_AND_CAPITAL = re.compile(r"\s+[A-Z]")

_SPELLINGS = {
    "mcg": "mcg|µg|μg|ug|microgram|micrograms", "mg": "mg|mgs|milligram|milligrams", "g": "g|gm|gms|gram|grams",
    "kg": "kg|kgs|kilogram|kilograms", "ng": "ng", "lb": "lb|lbs|pound|pounds", "oz": "oz|ounce|ounces",
    "l": "l|liter|liters|litre|litres", "dl": "dl", "ml": "ml|mls|cc|ccs|milliliter|milliliters",
    "mm": "mm|millimeter|millimeters", "cm": "cm|cms|centimeter|centimeters|centimetre|centimetres",
    "mmhg": "mmhg|mm hg", "%": "%|percent|per cent", "unit": "unit|units|iu|ius", "meq": "meq", "mmol": "mmol",
    "mol": "mol", "bpm": "bpm|beats per minute|beats/min", "tablet": "tablet|tablets|tab|tabs",
    "capsule": "capsule|capsules", "puff": "puff|puffs", "drop": "drop|drops|gtt|gtts",
    "second": "second|seconds|sec|secs", "minute": "minute|minutes|min|mins", "hour": "hour|hours|hr|hrs|h",
    "day": "day|days", "week": "week|weeks|wk|wks", "month": "month|months", "year": "year|years|yr|yrs",
    "°c": "°c|º c|° c|ºc|degrees c|degrees celsius", "°f": "°f|º f|° f|ºf|degrees f|degrees fahrenheit",
}  # fmt: skip
_UNITS = {spelling: unit for unit, spellings in _SPELLINGS.items() for spelling in spellings.split("|")}
# Read on the same line only: at a line end a number stands alone.
_UNIT = re.compile(
    r"[ \t-]?(?P<unit>"
    + "|".join(re.escape(s) for s in sorted(_UNITS, key=len, reverse=True))
    + r")(?![a-z])(?:[ ]?/[ ]?(?P<per>[a-z]{1,6}\d?))?",
    re.IGNORECASE,
)
_JOINT = re.compile(r"[ ]?(?:-|\u2013|/|to|or|over|\u00b1|x|,|and|, and)[ ]?")
_JOINT_WIDTH = 7
_MAX_DIGITS = 30  # longer ones are no quantities, and Python refuses to convert very long ones
_FIGURES_OF_SPEECH = frozenset(("one", "zero", "hundred", "thousand"))
# Units of the same kind in terms of the smallest one. Only exact conversions: a month has no fixed number of days.
_SIZES: dict[str, tuple[str, Fraction]] = {
    unit: (kind, Fraction(size))
    for kind, sizes in {
        "mass": "ng 1 mcg 1000 mg 1000000 g 1000000000 kg 1000000000000",
        "volume": "ml 1 dl 100 l 1000",
        "length": "mm 1 cm 10",
        "time": "second 1 minute 60 hour 3600 day 86400 week 604800",
        "calendar": "month 1 year 12",
    }.items()
    for unit, size in zip(sizes.split()[::2], sizes.split()[1::2], strict=True)
}
# Per what a quantity is may go unsaid for a concentration and a rate; for a dose it may not: 10 mg/kg is not 10 mg.
_MAY_BE_UNSAID = frozenset(("dl", "ml", "l", "min", "minute", "mm", "mm3"))


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number as it stands at [start, end) of a text: its normal form, and the unit behind it, None without one.

    `stated`: whether the text states it as a quantity. A wording such as "once" or "one", or a list mark, only supports others.
    """

    start: int
    end: int
    number: str = field(repr=False)
    unit: str | None = field(repr=False)
    stated: bool

    @property
    def measure(self) -> tuple[str, Fraction] | None:
        """Its kind and its size in the smallest unit of this kind; None for a unit without exact conversions."""
        return _measure(self.number, self.unit) if self.unit and len(self.number) <= _MAX_DIGITS else None


@lru_cache(maxsize=1 << 12)
def _measure(number: str, unit: str) -> tuple[str, Fraction] | None:
    kind, size = _SIZES.get(unit, ("", Fraction(0)))
    return (kind, Fraction(number) * size) if kind else None


def quantities(text: str, words: Sequence[str] | None = None, starts: Sequence[int] = ()) -> Iterator[Quantity]:
    """The numbers of a text: digits from last to first, then number words, then fractions.

    `words`: where known, the runs of letters and digits of the folded text that a letter opens; `starts`: the characters they start at.
    """
    fractions = list(_FRACTION.finditer(text))
    yield from _joined(text, list(_digits(text, fractions)))
    for match in _in_words(text, words, starts):
        end, unit = _unit(text, match.end())
        for index, number in enumerate(_worded(match)):
            yield Quantity(match.start(), end, number, unit, not index and _states(match))
    for match in fractions:
        end, unit = _unit(text, match.end())
        yield Quantity(match.start(), end, _FRACTIONS[match.group()], unit, stated=False)


def _in_words(text: str, words: Sequence[str] | None, starts: Sequence[int]) -> Iterator[re.Match[str]]:
    """The matches of _WORDED: tried only at words that may open one, which is much quicker than a search for so many words."""
    folded = fold(text)
    if words is None:
        found = list(_WORD.finditer(folded))
        words, starts = [match.group() for match in found], [match.start() for match in found]
    reach = 0
    for index in [index for index, word in enumerate(words) if word in _FIRST_WORDS]:
        if starts[index] >= reach and (match := _WORDED.match(folded, starts[index])):
            reach = match.end()
            yield match


def _worded(match: re.Match[str]) -> Sequence[str]:
    """The numbers that a match of _WORDED may mean, the likeliest first."""
    if not match["spoken"]:
        return (_WORDINGS[match.group()] if match["wording"] else "1",)
    values = spoken_values(match["spoken"])
    if match["decimals"]:
        decimals = "".join(map(str, spoken_values(match["decimals"])))
        return [normal_number(f"{value}.{decimals}") for value in values]
    if match["ordinal"]:
        values = (*values, values[0] + int(_WORDINGS[match["ordinal"]]))
    return [*map(str, values), *([f"{values[0]}.5"] if match["half"] else [])]


def _states(match: re.Match[str]) -> bool:
    """Whether a match of _WORDED is a number for sure: "one" is mostly a pronoun, "zero" a figure of speech, "one forty" 140 or two."""
    return bool(match["spoken"]) and match.group() not in _FIGURES_OF_SPEECH and len(spoken_values(match["spoken"])) == 1


def _digits(text: str, fractions: Sequence[re.Match[str]]) -> Iterator[Quantity]:
    in_fraction = {offset for match in fractions for offset in range(*match.span())}
    for match in _NUMBER.finditer(text):
        start, end = match.span()
        if text[start - 1 : start] == "." and _POINT_ALONE.search(text, max(0, start - 2), start):
            start -= 1
        unit_end, unit = _unit(text, end)
        stated = not (_is_part_of_name(text, start) or start in in_fraction or _is_list_mark(text, start, end))
        yield Quantity(start, unit_end, normal_number(text[start:end]), unit, stated)


def _is_part_of_name(text: str, start: int) -> bool:
    """Whether the digits continue a word: "B12", "COVID-19", "C5-6"."""
    if not start or text[start - 1].isspace():
        return False
    return _NAME.search(text, max(0, start - 6), start) is not None


def _is_list_mark(text: str, start: int, end: int) -> bool:
    """Whether "2." or "2)" opens a line, or an item behind the end of another: "... diet. 2. Hypertension."."""
    if end - start > 2 or text[end : end + 1] not in (".", ")") or not text[end + 1 : end + 2].isspace():
        return False
    before = text[max(0, start - 12) : start].rstrip(" \t")
    if before[-1:] in ("", "\n", "\r"):
        return True
    return before[-1] in ".:;?!" and _SPACE_AND_CAPITAL.match(text, end + 1) is not None


def _joined(text: str, found: Sequence[Quantity]) -> Iterator[Quantity]:
    """The same quantities; a bare number before "-", "/", "to", "and" and a number with a unit also supports itself with that unit."""
    unit: str | None = None
    start = len(text)
    for quantity in reversed(found):
        yield quantity
        unit = quantity.unit or (unit if unit and _are_joint(text, quantity.end, start) else None)
        if unit and not quantity.unit:
            yield Quantity(quantity.start, quantity.end, quantity.number, unit, stated=False)
        start = quantity.start


def _are_joint(text: str, end: int, start: int) -> bool:
    return 0 <= start - end < _JOINT_WIDTH and _JOINT.fullmatch(text, end, start) is not None


def normal_number(written: str) -> str:
    """Digits without thousands separators, leading zeros and trailing zeros after the point."""
    whole, _, fraction = written.replace(",", "").partition(".")
    fraction = fraction.rstrip("0")
    return (whole.lstrip("0") or "0") + ("." + fraction if fraction else "")


def same_unit(left: str, right: str) -> bool:
    """Whether two units of `quantities` mean the same, or differ only by a "per" that may go unsaid."""
    if left == right:
        return True
    (base, _, per), (other, _, its) = left.partition("/"), right.partition("/")
    return base == other and (not per or not its) and (per or its) in _MAY_BE_UNSAID


def _unit(text: str, end: int) -> tuple[int, str | None]:
    match = _UNIT.match(text, end)
    if match is None:
        return end, None
    base = _UNITS[" ".join(match.group("unit").lower().split())]
    per = (match.group("per") or "").lower()
    if not per:
        return match.end("unit"), base
    return match.end(), f"{base}/{_UNITS.get(per, per)}"
