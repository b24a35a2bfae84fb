"""Vital signs: blood pressure, pulse, respiration, temperature, oxygen saturation, weight, height, body mass index, pain score.

A reading is a name, at most a few filler words ("was noted to be") and a number in a plausible range. One observation per reading; a blood
pressure is one observation, "120/80". `normal` of the value is the number in the unit that `normal` of the unit names (UCUM: mm[Hg], /min,
Cel, %, kg, cm, kg/m2), and the number as written where the note gives no unit. Quantifiers are bounded: linear in the length of the note.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from transforms.sections import Page
from transforms.words import Phrases

Convert = Callable[[float], float]
Units = Mapping[str, tuple[str, Convert]]


@dataclass(frozen=True, slots=True)
class _Vital:
    """How one vital sign is written.

    `units`: first letter of the unit's last word -> (UCUM unit, conversion). `low`, `high`: what a reading can be, in any of its units.
    `bare`: whether a number without unit counts in running text.
    """

    normal: str
    value: re.Pattern[str]
    units: Units
    low: float
    high: float
    bare: bool = True


def _same(value: float) -> float:
    return value


_GAP = r"[ \t]{0,2}\n?[ \t]{0,2}"


def _value(number: str, unit: str) -> re.Pattern[str]:
    return re.compile(rf"(?P<value>{number})(?!\d|\.\d|[ ]?[/-][ ]?\d|s\b)(?:{_GAP}(?P<unit>{unit})(?![^\W\d_]))?")


_INTEGER = r"\d{1,3}"
_DECIMAL = r"\d{1,3}(?:\.\d{1,2})?"
_RATE_UNIT = r"bpm|beats(?:/| per )min(?:ute)?|breaths(?:/| per )min(?:ute)?|/[ ]?min(?:ute)?|per minute"
_TEMPERATURE_UNIT = r"(?:[°º][ ]?|deg(?:rees?)?[ ])?(?:celsius|fahrenheit|[cf])"
_POUND, _INCH, _FOOT, _OUNCE = 0.45359237, 2.54, 30.48, 0.028349523125

_PRESSURE = _Vital(
    "blood_pressure",
    re.compile(
        r"(?P<value>(?P<systolic>\d{2,3})(?:[ ]?/[ ]?|[ ]over[ ])(?P<diastolic>\d{2,3}))(?![\d/]|\.\d)"
        r"(?:[ \t]{0,2}(?P<unit>mm[ ]?hg))?"
    ),
    {"m": ("mm[Hg]", _same), "h": ("mm[Hg]", _same)},
    0,
    0,
)
_RATE: Units = dict.fromkeys("bm/", ("/min", _same))
_PULSE = _Vital("heart_rate", _value(_INTEGER, _RATE_UNIT), _RATE, 20, 300)
_RESPIRATION = _Vital("respiratory_rate", _value(_INTEGER, _RATE_UNIT), _RATE, 4, 120)
_TEMPERATURE = _Vital(
    "body_temperature",
    _value(_DECIMAL, _TEMPERATURE_UNIT),
    {"c": ("Cel", _same), "f": ("Cel", lambda value: (value - 32) / 1.8)},
    25,
    113,
)
_SATURATION = _Vital("oxygen_saturation", _value(_DECIMAL, "%|percent"), {"%": ("%", _same), "p": ("%", _same)}, 30, 100)
_WEIGHT = _Vital(
    "body_weight",
    _value(r"\d{1,4}(?:\.\d{1,3})?", r"kilograms?|kgs?|pounds?|lbs?|grams?|gm|g"),
    {
        "k": ("kg", _same),
        "p": ("kg", lambda value: value * _POUND),
        "l": ("kg", lambda value: value * _POUND),
        "g": ("kg", lambda value: value / 1000),
    },
    0.3,
    6000,
    bare=False,
)
_HEIGHT = _Vital(
    "body_height",
    _value(_DECIMAL, r"centimet(?:er|re)s?|cm|met(?:er|re)s?|m|inch(?:es)?|in|\""),
    {
        "c": ("cm", _same),
        "m": ("cm", lambda value: value * 100),
        "i": ("cm", lambda value: value * _INCH),
        '"': ("cm", lambda value: value * _INCH),
    },
    0.4,
    260,
    bare=False,
)
_MASS_INDEX = _Vital("body_mass_index", _value(_DECIMAL, r"kg/m(?:2|²|\^2)"), {"k": ("kg/m2", _same)}, 7, 110)
_PAIN = _Vital(
    "pain_score",
    re.compile(r"(?P<value>(?:10|\d)(?:\.\d)?)(?![\d.])(?:[ ]?(?P<unit>/[ ]?10|out of 10))?(?!\w|[ ]?[/-][ ]?\d)"),
    {"/": ("/10", _same), "1": ("/10", _same)},
    0,
    10,
)

_FEET_INCHES = re.compile(
    r"(?P<feet>[3-7])[ ]?(?:'|’|ft\.?|feet|foot)(?:[ ,]{0,2}(?P<inches>(?:1[01]|\d)(?:\.\d)?)[ ]?"
    r"(?:\"|”|''|in\b|inch(?:es)?\b|(?<=\d)(?![\w/%]|\.\d)))?(?![ ,]{0,2}\d)"
)
_POUNDS_OUNCES = re.compile(r"(?P<pounds>\d{1,2})[ ]?(?:lbs?|pounds?)\.?[ ,]{1,2}(?P<ounces>\d{1,2}(?:\.\d)?)[ ]?(?:oz|ounces?)\b")

_SPELLINGS = (
    (_PRESSURE, "bp|b/p|blood pressure"),
    (_PULSE, "hr|heart rate|pulse|pulse rate|p"),
    (_RESPIRATION, "rr|r|respiratory rate|respiration rate|respirations rate|respiration|respirations|resp|resps|resp rate|breathing rate"),
    (_TEMPERATURE, "temp|temperature|body temperature|tmax|t"),
    (_SATURATION, "spo2|sao2|o2 sat|o2 sats|o2 saturation|oxygen saturation|oxygen saturations|pulse ox|pulse oximetry|sats|sat"),
    (_WEIGHT, "weight|wt|body weight"),
    (_HEIGHT, "height|ht"),
    (_MASS_INDEX, "bmi|body mass index"),
    (_PAIN, "pain|pain score|pain level|pain scale"),
)
_NAMES = {name: vital for vital, names in _SPELLINGS for name in names.split("|")}
# Letters that mean many things: they count only beside another reading or under a heading for vital signs.
_WEAK = frozenset(("p", "r", "t", "sat", "sats"))
_WEAK_REACH = 45  # characters: a reading, its unit and a remark such as "on room air"

_NAME = Phrases(
    r"(?<![\w/])(?:b/?p|blood pressure|bmi|body (?:mass index|temperature|weight)|breathing rate|hr|heart rate|ht|height"
    r"|pulse(?: rate| ox(?:imetry)?)?|pain(?: score| level| scale)?|p|rr|resp(?:s|iratory rate|irations?(?: rate)?| rate)?|r"
    r"|temp(?:erature)?|tmax|t|o2 sat(?:s|uration)?|oxygen saturations?|spo2|sao2|sats?|weight|wt)\b",
    "b bloo bmi body bp brea hear heig hr ht o oxyg p pain puls r resp rr sao sat sats spo t temp tmax weig wt",
)
_FILL = re.compile(
    r"(?:\.(?=[ ]?\d)|[ \t]?[:=][ \t]{0,3}\n?[ \t]{0,3}|[ \t]{0,3}[-\u2013][ \t]{1,2}|[ \t]{1,3}|,[ ](?=\d)|\n[ \t]{0,3}(?=\d)"
    r"|(?:is|was|were|are|of|at|to|be|been|being|noted|measured|recorded|documented|found|reported|as|today|reading"
    r"|elevated|low|high|normal"
    r"|stable|still|approximately|about|around|approx|currently|current|initially|initial|rate|level|up|on arrival|on admission)\b"
    r"|[\[(](?:!|\w{1,10})[\])]|~){0,9}"
)
_NOT_A_PATIENT = re.compile(
    r"\b(?:birth|molecular|fetal|foetal|placental|lens|specimen|ideal|target|goal|lost|ambient|room|water|oven|ankle"
    r"|femoral)[ -](?:body )?$"
)


def vital_named(written: str) -> str | None:
    """The canonical name of a vital sign, `heart_rate` for "HR", None for what is not the whole name of one."""
    vital = _NAMES.get(" ".join(written.lower().split()).rstrip(":"))
    return vital.normal if vital else None


def read_vitals(page: Page) -> list[dict[str, Any]]:
    """Observations of category `vital`, in order of the note: a name and a value leaf, and a unit leaf where the note writes one."""
    readings = [hit for match in _NAME.finditer(page.words) if (hit := _reading(page, match))]
    return [_observation(page, *reading) for reading in _trusted(page, readings)]


_Reading = tuple[str, tuple[int, int], tuple[int, int], tuple[int, int] | None, str, str | None]


def _reading(page: Page, match: re.Match[str]) -> _Reading | None:
    """(name, name span, value span, unit span, value normal, unit normal) where a plausible number follows the name."""
    folded, name = page.folded, match.group()
    vital = _NAMES[name]
    fill = _FILL.match(folded, match.end())
    start = fill.end() if fill else match.end()
    if not folded[start : start + 1].isdigit() or start == match.end():
        return None
    if _NOT_A_PATIENT.search(folded, max(0, match.start() - 16), match.start()):
        return None
    found = _compound(vital, folded, start) or _simple(page, vital, name, folded, start)
    return None if found is None else (name, match.span(), *found)


_Found = tuple[tuple[int, int], tuple[int, int] | None, str, str | None]


def _compound(vital: _Vital, folded: str, start: int) -> _Found | None:
    """Values of two numbers: a blood pressure, feet and inches, pounds and ounces."""
    if vital is _PRESSURE and (match := vital.value.match(folded, start)):
        systolic, diastolic = int(match.group("systolic")), int(match.group("diastolic"))
        # Wide limits: a reading may be extreme, but the upper number is the upper one.
        if not (40 <= systolic <= 300 and 10 <= diastolic <= 200 and diastolic < systolic):
            return None
        unit = match.span("unit") if match.group("unit") else None
        return match.span("value"), unit, f"{systolic}/{diastolic}", "mm[Hg]" if unit else None
    if vital is _HEIGHT and (match := _FEET_INCHES.match(folded, start)):
        inches = float(match.group("inches") or 0)
        return (start, match.end()), None, f"{as_reading(int(match.group('feet')) * _FOOT + inches * _INCH)} cm", None
    if vital is _WEIGHT and (match := _POUNDS_OUNCES.match(folded, start)):
        kilograms = int(match.group("pounds")) * _POUND + float(match.group("ounces")) * _OUNCE
        return (start, match.end()), None, f"{as_reading(kilograms)} kg", None
    return None


def _simple(page: Page, vital: _Vital, name: str, folded: str, start: int) -> _Found | None:
    match = vital.value.match(folded, start) if vital is not _PRESSURE else None
    if match is None:
        return None
    value = float(match.group("value"))
    unit = match.group("unit")
    if not vital.low <= value <= vital.high or (unit is None and not _may_be_bare(page, vital, name, start)):
        return None
    if unit is None:
        return match.span("value"), None, as_reading(value), None
    ucum, convert = vital.units[unit.split()[-1].lstrip("°º")[0]]
    return match.span("value"), match.span("unit"), as_reading(convert(value)), ucum


def _may_be_bare(page: Page, vital: _Vital, name: str, start: int) -> bool:
    """Whether a number without unit is a reading: "weight 3" and "pain 2" in running text are not."""
    if vital is _PAIN:
        return name != "pain" or page.section_at(start) == "vital_signs"
    if vital is _TEMPERATURE and 43 < float(re.match(r"\d+", page.folded[start : start + 4]).group()) < 90:  # type: ignore[union-attr]
        return False
    return vital.bare or page.section_at(start) == "vital_signs"


def _trusted(page: Page, readings: list[_Reading]) -> list[_Reading]:
    """Readings without the single letters that stand alone."""
    trusted = [not _is_weak(page, reading) for reading in readings]
    # Trust spreads to the neighbour on either side: "P 78 T 37.1 SpO2 97%".
    for order in (range(1, len(readings)), range(len(readings) - 2, -1, -1)):
        step = -1 if order.step > 0 else 1
        for index in order:
            left, right = sorted((index, index + step))
            near = readings[right][1][0] - readings[left][2][1] <= _WEAK_REACH
            trusted[index] = trusted[index] or (near and trusted[index + step])
    return [reading for reading, kept in zip(readings, trusted, strict=True) if kept]


def _is_weak(page: Page, reading: _Reading) -> bool:
    """Whether a name alone does not show a reading: a single letter, or "hr" behind a number, which is hours."""
    start = reading[1][0]
    name = reading[0]
    weak = name in _WEAK or (name == "hr" and page.folded[max(0, start - 2) : start].strip().isdigit())
    return weak and page.section_at(start) != "vital_signs"


def _observation(
    page: Page, name: str, named: tuple[int, int], value: tuple[int, int], unit: tuple[int, int] | None, normal: str, ucum: str | None
) -> dict[str, Any]:
    return {
        "category": "vital",
        "name": page.leaf(*named, normal=_NAMES[name].normal),
        "value": page.leaf(*value, normal=normal),
        "unit": None if unit is None else page.leaf(*unit, normal=ucum),
        "codes": [],
        "readers": ["rules"],
    }


def as_reading(value: float) -> str:
    """Shortest decimal with at most one place after the point; two below ten, so that a newborn's weight keeps its grams."""
    return f"{round(value, 2 if value < 10 else 1):g}" if value < 1e5 else str(int(value))
