"""The same said in other words, by rules that keep the meaning: right summaries that are no copies, to count false alarms by.

It knows few rewordings, all local: spelled-out numbers and units, dates, denials, ages, common synonyms. People reword more than that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from pipeline.planted_words import MONTHS

_NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
_TO_WORD = {str(value): word for value, word in enumerate(_NUMBERS, 2)}
_TO_DIGITS = {word: digits for digits, word in _TO_WORD.items()}
_SYNONYMS = {
    "high blood pressure": "hypertension", "hypertension": "high blood pressure", "heart attack": "myocardial infarction",
    "myocardial infarction": "heart attack", "htn": "hypertension", "shortness of breath": "dyspnea", "dyspnea": "shortness of breath",
    "gerd": "gastroesophageal reflux disease", "copd": "chronic obstructive pulmonary disease", "uti": "urinary tract infection",
    "urinary tract infection": "UTI", "high cholesterol": "hypercholesterolemia", "kidney stones": "nephrolithiasis",
    "nephrolithiasis": "kidney stones", "tylenol": "acetaminophen", "acetaminophen": "paracetamol", "lasix": "furosemide",
    "motrin": "ibuprofen", "lipitor": "atorvastatin", "coumadin": "warfarin", "zocor": "simvastatin", "glucophage": "metformin",
    "prinivil": "lisinopril", "computed tomography": "CT", "magnetic resonance imaging": "MRI",
}  # fmt: skip
_UNITS = {"mg": "milligrams", "mcg": "micrograms", "kg": "kilograms", "ml": "milliliters", "cm": "centimeters", "%": "percent"}
_DENIES = {"denies": "does not report", "denied": "did not report"}
_COUNT = rf"(?<![\w.,/-])(?<!to )(?<!ty )(?:(?P<digits>[2-9]|1[0-2])|(?P<word>{'|'.join(_TO_DIGITS)}))(?= (?:hour|day|week|month)s\b)"
_DATE = rf"\b(?P<month>{'|'.join(MONTHS)}) (?P<day>\d\d?), (?P<year>\d{{4}})\b"


def _same(old: str, new: str) -> str:
    return new[0].upper() + new[1:] if old[0].isupper() else new


def _counted(match: re.Match[str]) -> str:
    return _TO_WORD[match["digits"]] if match["digits"] else _same(match["word"], _TO_DIGITS[match["word"].lower()])


def _any(terms: Iterable[str]) -> str:
    return "|".join(sorted(map(re.escape, terms), key=len, reverse=True))


# Patterns and what takes the place of a match. Applied one after the other: none undoes what one before it did.
_RULES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(rf"(?<![\w-])(?:{_any(_SYNONYMS)})(?![\w-])", re.IGNORECASE), lambda m: _same(m[0], _SYNONYMS[m[0].lower()])),
    (re.compile(_COUNT, re.IGNORECASE), _counted),
    (re.compile(r"(?<=\d) ?(?P<unit>mg|mcg|kg|ml|cm|%)(?![\w/])", re.IGNORECASE), lambda m: f" {_UNITS[m['unit'].lower()]}"),
    (re.compile(_DATE), lambda m: f"{m['day']} {m['month'][:3]} {m['year']}"),
    (re.compile(r"\b(?P<age>\d{1,3})[- ]year[- ]old\b"), lambda m: f"{m['age']} y/o"),
    (re.compile(r"\b(?P<verb>denies|denied)\b(?: any| having)?"), lambda m: _DENIES[m["verb"]]),
    (re.compile(r"\bno evidence of\b"), lambda m: "no sign of"),
    (re.compile(r"\bwithout (?=[a-z]+\b)(?!any\b)"), lambda m: "with no "),
    (re.compile(r"\bThe patient\b"), lambda m: "This person"),
    (re.compile(r"\b(?:was|were) (?:performed|undertaken|carried out)\b"), lambda m: "took place"),
)


def reword(text: str) -> str:
    """The text in other words where a rule knows some; else as it was."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text
