"""Numbers and units of clinical text, in a form in which equal quantities are equal strings.

"1,000" = "1000", "5.0" = "5", ".5" = "0.5", "two" = "2"; "mcg" = "µg" = "ug", "hrs" = "hours", "mm Hg" = "mmHg". What it does not
know: sums, conversions ("1 g" is not "1000 mg" here) and numbers inside words such as "B12".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from transforms.sections import fold

_NUMBER = re.compile(r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<![\w.])\.\d+")
_WORDS = {"zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9"}
_WORDS |= {"ten": "10", "eleven": "11", "twelve": "12"}
# Other wordings of a number. They may support a digit in a summary; in a summary nobody has to support them.
_WORDINGS = {
    "once": "1", "single": "1", "first": "1", "twice": "2", "both": "2", "second": "2", "third": "3", "fourth": "4",
    "fifth": "5", "sixth": "6", "seventh": "7", "eighth": "8", "ninth": "9", "tenth": "10", "half": "0.5",
}  # fmt: skip
# The set of first letters lets the regular expression engine skip fast; the look-behinds follow it.
_FIRST = "".join(sorted({word[0] for word in (*_WORDS, *_WORDINGS)}))
_WORD = re.compile(rf"[{_FIRST}](?<!\w\w)(?:" + "|".join(f"(?<={word[0]}){word[1:]}" for word in (*_WORDS, *_WORDINGS)) + r")(?!\w)")
_LIST_MARK = re.compile(r"^[ \t]*\d{1,2}[.)](?=\s)", re.MULTILINE)

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


def quantities(text: str) -> Iterator[Quantity]:
    """The numbers of a text: digits in order, then number words in order."""
    marks = {match.end() - 1 for match in _LIST_MARK.finditer(text)}
    for match in _NUMBER.finditer(text):
        start, end = match.span()
        if start and (text[start - 1].isalpha() or text[start - 1] == "_"):
            continue
        unit_end, unit = _unit(text, end)
        yield Quantity(start, unit_end, normal_number(match.group()), unit, end not in marks)
    for match in _WORD.finditer(fold(text)):
        word = match.group()
        unit_end, unit = _unit(text, match.end())
        number = _WORDS.get(word)
        # "one" is mostly a pronoun and "zero" a figure of speech.
        yield Quantity(match.start(), unit_end, number or _WORDINGS[word], unit, number is not None and word not in ("one", "zero"))


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
