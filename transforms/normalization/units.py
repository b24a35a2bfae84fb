"""Numbers and units as people write them, as a number and a UCUM unit (ucum.org), and conversions between such units.

A closed list of spellings; what it does not hold, ranges and comparisons included, has no normal form. "units" of a dose are an annotation,
`{unit}`: the note does not say which international unit is meant. pint converts; its registry takes most of a second, so it is made once
per process and only for the first unit that has to be converted.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any

from transforms.spoken_numbers import VALUES

# Spellings, in lower case and joined by "|" -> the UCUM atom.
_SPELLINGS = {
    "kg": "kilograms|kilogram|kgs", "g": "grams|gram|gm|gms", "mg": "milligrams|milligram|mgs",
    "ug": "micrograms|microgram|mcg|mcgs", "ng": "nanograms|nanogram", "pg": "picograms|picogram",
    "L": "liters|liter|litres|litre", "dL": "deciliter|deciliters", "mL": "milliliters|milliliter|millilitres|millilitre|mls|cc|ccs",
    "uL": "mcl|microliter|microliters|mm3|cumm|cmm|cu mm|mm^3", "fL": "femtoliter|femtoliters", "m2": "m^2|sqm",
    "mol": "", "mmol": "mmols", "umol": "mcmol", "nmol": "", "pmol": "", "meq": "meqs", "mosm": "", "U": "", "mU": "", "uU": "",
    "[iU]": "iu|ius", "m[iU]": "miu", "u[iU]": "uiu|mciu", "{unit}": "units|unit|unt|unts", "%": "percent|per cent|pct",
    "kPa": "", "mm[Hg]": "mmhg|mm hg", "Cel": "°c|c|º c|° c|deg c|degrees c|degree c|celsius|degrees celsius",
    "[degF]": "°f|f|º f|° f|deg f|degrees f|degree f|fahrenheit|degrees fahrenheit",
    "[lb_av]": "pounds|pound|lbs|lb", "[oz_av]": "ounces|ounce|oz", "[in_i]": "inches|inch|in|\"", "[ft_i]": "feet|foot|ft|'",
    "cm": "centimeters|centimeter|centimetres|centimetre|cms", "mm": "millimeters|millimeter|millimetres|millimetre",
    "m": "meters|meter|metres|metre",
    "s": "seconds|second|sec|secs", "min": "minutes|minute|mins", "h": "hours|hour|hrs|hr", "d": "days|day", "wk": "weeks|week|wks",
    "mo": "months|month|mos", "a": "years|year|yrs|yr",
    "{tbl}": "tablets|tablet|tabs|tab", "{capsule}": "capsules|capsule|caps|cap", "{pill}": "pills|pill", "{puff}": "puffs|puff",
    "{spray}": "sprays|spray", "{patch}": "patches|patch", "{vial}": "vials|vial", "{ampoule}": "ampoules|ampoule",
    "{inhalation}": "inhalations|inhalation", "{lozenge}": "lozenges|lozenge", "[drp]": "drops|drop|gtts|gtt", "{dose}": "doses|dose",
    "{actuat}": "actuat|act|actuation|actuations", "{cells}": "cells", "[HPF]": "hpf", "[LPF]": "lpf",
    "10*3": "k|thou|thousand|10^3|x10^3|x10e3|x10(3)",
    "10*6": "mil|million|10^6|x10^6|x10e6|x10(6)", "10*9": "10^9|x10^9|x10e9", "10*12": "10^12|x10^12|x10e12", "{score}": "",
    "{1.73_m2}": "",
}  # fmt: skip
_ATOMS = {spelling: atom for atom, spellings in _SPELLINGS.items() for spelling in (*spellings.split("|"), atom.lower()) if spelling}
# Rates per minute of one kind of thing each.
_RATES = "bpm|beats/min|beats/minute|beats per minute|breaths/min|breaths/minute|breaths per minute|per minute|per min"
_FILTRATION = "ml/min/1.73m2|ml/min/1.73 m2|ml/min/1.73m^2|ml/min/1.73 m^2"
_WHOLE = dict.fromkeys(_RATES.split("|"), "/min") | dict.fromkeys(_FILTRATION.split("|"), "mL/min/{1.73_m2}")
_WHOLE |= {"m/ul": "10*6/uL", "m/mm3": "10*6/uL", "/10": "{score}", "out of 10": "{score}"}
# The capital may be meant, molar or mega; and a "k" alone is kelvin, potassium or thousand.
_UNCERTAIN = frozenset(("M", "mM", "Mm"))
_UNCERTAIN_ALONE = frozenset(("k", "mil"))
_IN_DOSES = {"u": "{unit}"}

_DIGITS = r"(?:\d{1,3}(?:,\d{3}){1,3}|\d{1,12})(?:\.\d{1,6})?|\.\d{1,6}"
_HALF, _QUARTER = Fraction(1, 2), Fraction(1, 4)
_FRACTIONS = {"½": _HALF, "1/2": _HALF, "¼": _QUARTER, "1/4": _QUARTER, "¾": 3 * _QUARTER, "3/4": 3 * _QUARTER}
_WORDS = {"a": Fraction(1), "an": Fraction(1), "half": _HALF, "half a": _HALF, "one half": _HALF, "one and a half": 1 + _HALF}
_MEASURE = re.compile(
    rf"(?P<number>{'|'.join(sorted((*_FRACTIONS, *_WORDS), key=len, reverse=True))}|{'|'.join(VALUES)}|{_DIGITS})"
    r"(?P<gap>[ -]?)(?P<unit>[^\s\d.,-].{0,39})?",
    re.ASCII,
)
# "100 mg/5 mL"
_PER_NUMBER = re.compile(rf"(?P<unit>[^/]{{1,20}})/[ ]?(?P<number>{_DIGITS})[ ]?(?P<per>[^\d/].{{0,19}})", re.ASCII)

# "5 mg/325 mg" is no rate but two drugs, and "500 mg/8 h" a dose three times a day: only strengths are divided out.
_OF_A_STRENGTH = frozenset(("mL", "L", "dL", "{actuat}", "{puff}", "{spray}", "{dose}"))

# What pint calls the UCUM atoms that it converts.
_PINT = {
    "kg": "kilogram", "g": "gram", "mg": "milligram", "ug": "microgram", "ng": "nanogram", "pg": "picogram", "[lb_av]": "pound",
    "[oz_av]": "ounce", "L": "liter", "dL": "deciliter", "mL": "milliliter", "uL": "microliter", "cm": "centimeter", "mm": "millimeter",
    "m": "meter", "[in_i]": "inch", "[ft_i]": "foot", "Cel": "degree_Celsius", "[degF]": "degree_Fahrenheit", "mm[Hg]": "mmHg",
    "kPa": "kilopascal", "s": "second", "min": "minute", "h": "hour", "d": "day", "wk": "week", "mol": "mole", "mmol": "millimole",
    "umol": "micromole", "nmol": "nanomole", "pmol": "picomole", "m2": "meter**2", "%": "percent",
}  # fmt: skip


@lru_cache(maxsize=4096)
def ucum(written: str, dose: bool = False) -> str | None:
    """The UCUM unit of a unit as written, None where it is not known for certain. A UCUM code of ours is its own.

    `dose`: it is the unit of a dose, where "U" means units; elsewhere it is the enzyme unit.
    """
    unit = " ".join(unicodedata.normalize("NFKC", written).replace("μ", "u").split())
    if whole := _WHOLE.get(unit.lower()):
        return whole
    first, *others = re.sub(r"[ ]?/[ ]?|[ ]per[ ]", "/", unit).split("/")
    if len(others) > 2 or not (first or others) or unit.lower() in _UNCERTAIN_ALONE:
        return None
    # Nothing before the first "/" is a rate: "/min".
    atoms = ["" if not first else _atom(first, dose), *(_atom(part, dose) for part in others)]
    return None if None in atoms else "/".join(map(str, atoms))


def _atom(part: str, dose: bool) -> str | None:
    if dose and part.lower() in _IN_DOSES:
        return _IN_DOSES[part.lower()]
    if part in _SPELLINGS:
        return part
    return None if part in _UNCERTAIN else _ATOMS.get(part.lower())


def measure(written: str, dose: bool = False) -> tuple[float, str | None] | None:
    """(number, UCUM unit) of a whole phrase such as "1,000 mg" or "two tablets"; the unit is None where none is written.

    "100 mg/5 mL" is 20 mg/mL. None where the phrase is not one number and one known unit.
    """
    text = " ".join(written.lower().split()) if dose else " ".join(written.split())
    match = _MEASURE.fullmatch(text)
    if match is None:
        return None
    value, unit = _value(match["number"]), match["unit"]
    if unit is None:
        return None if match["gap"] or match["number"][0].isalpha() else (float(value), None)
    per, over = _PER_NUMBER.fullmatch(unit), Fraction(1)
    if per:
        over, unit = _value(per["number"]), f"{per['unit']}/{per['per']}"
        if not over or ucum(per["per"]) not in _OF_A_STRENGTH:
            return None
    code = ucum(unit, dose)
    # "1/2" is a half of a tablet; before other units it may be two strengths, or a schedule.
    if code is None or (match["number"] in _FRACTIONS and not code.startswith("{")):
        return None
    return float(value / over), code


@lru_cache(maxsize=4096)
def _value(written: str) -> Fraction:
    known = _FRACTIONS.get(written) or _WORDS.get(written)
    if known is None:
        known = Fraction(VALUES[written]) if written in VALUES else Fraction(written.replace(",", ""))
    return known


@lru_cache(maxsize=1 << 14)
def convert(value: float, unit: str, target: str) -> float | None:
    """`value` of one UCUM unit in another, to nine significant digits; None where either is unknown or they measure different things."""
    if unit == target:
        return value
    names = [[_PINT.get(atom) for atom in code.split("/")] for code in (unit, target)]
    if any(None in atoms for atoms in names):
        return None
    registry = _registry()
    source, wanted = ("/".join(map(str, atoms)) for atoms in names)
    if not registry.Unit(source).is_compatible_with(wanted):
        return None
    return float(f"{registry.Quantity(value, source).to(wanted).magnitude:.9g}")


@cache
def _registry() -> Any:
    import pint

    return pint.UnitRegistry()
