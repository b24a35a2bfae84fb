"""Dates as ISO 8601, durations, ages, and times relative to the day a note was written.

A date gets the precision that the note gives it: "March 2014" is 2014-03. "05/12/2019" has two readings and therefore no normal form unless
the job says which its notes mean; nor has a year of two digits without the note's own date. Of relative times only days make a date: weeks,
months and years are said roughly, and stay a signed number with a unit.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import StrEnum

from transforms.dates import Date, find_dates
from transforms.spoken_numbers import SPOKEN, VALUES, spoken_values

Measure = tuple[float, str]


class DateOrder(StrEnum):
    """How a site writes dates in digits: 05/12/2019 is the 12th of May (month_first) or the 5th of December (day_first)."""

    UNKNOWN = "unknown"
    MONTH_FIRST = "month_first"
    DAY_FIRST = "day_first"


@dataclass(frozen=True, slots=True)
class NoteTime:
    """What is known of a note's dates: the day it was written, None if not known, and how dates in digits are meant."""

    written: date | None = field(default=None, repr=False)
    order: DateOrder = DateOrder.UNKNOWN

    @classmethod
    def of(cls, written_at: str | None, order: DateOrder = DateOrder.UNKNOWN) -> NoteTime:
        """From the column `written_at`: its day as written, in its own time zone; not known where it is no whole date."""
        said = iso_date(written_at, cls(None, order)) if written_at else None
        return cls(date.fromisoformat(said) if said and len(said) == _DAY else None, order)


_DAY = len("2019-04-13")
_TIME = r"[T ]\d\d(?::?\d\d){1,2}(?:\.\d{1,9})?[ ]?(?:Z|[+-]\d\d(?::?\d\d)?)?"
_ISO = re.compile(rf"(?P<date>(?:19|20)\d\d-\d\d-\d\d)(?:{_TIME})?|(?P<part>(?:19|20)\d\d(?:-\d\d)?)")
_LEAD = re.compile(r"(?:since|in|on|dated|from)[ ]", re.IGNORECASE)
_LETTERS = re.compile(r"[a-z]{3,9}")
_LONG_YEAR = re.compile(r"\d{4}")
# A year of two digits is one of so many years before the note's, or, being planned, after it.
_YEARS_BACK, _YEARS_AHEAD = 30, 3
_DAYS_LIMIT = 4000

_COUNT = rf"(?P<count>\d{{1,3}}|an?|{'|'.join(VALUES)})"
_SPAN = rf"{_COUNT}[ -]?(?P<unit>hours?|hrs?|h|days?|d|weeks?|wks?|w|months?|mos?|years?|yrs?|y)"
_AGO = re.compile(rf"{_SPAN}[ ]ago")
_IN = re.compile(rf"in[ ]{_SPAN}")
_FROM_NOW = re.compile(rf"{_SPAN}[ ]from[ ](?:now|today)")
_BARE = re.compile(_SPAN)
_DURATION = re.compile(rf"(?:(?:for|x|×)[ ]?)?(?:(?:the next|a total of|another)[ ])?{_SPAN}(?:[ ](?:course|supply|total))?")
_AGE = re.compile(
    rf"(?:an?[ ]|aged?[ ])?(?P<count>\d{{1,3}}|{SPOKEN})[ -]{{0,2}}"
    r"(?P<unit>y(?:ea)?r?s?|mo(?:nth)?s?|w(?:ee)?ks?|days?|hours?|hrs?)"
    r"(?:[ -]{0,2}old|/?o|[ ]of[ ]age)?"
)
_ISO_AGE = re.compile(r"PT?(?P<count>\d{1,3})(?P<unit>[YMWDH])(?P<half>6M)?")
_NEAR = {"today": 0, "this morning": 0, "this afternoon": 0, "this evening": 0, "tonight": 0, "yesterday": -1, "tomorrow": 1}
_NEAR |= {"day before yesterday": -2, "the day before yesterday": -2, "day after tomorrow": 2, "the day after tomorrow": 2}
_UCUM = {"h": "h", "d": "d", "w": "wk", "m": "mo", "y": "a"}
_ISO_UNITS = {"h": "H", "d": "D", "wk": "W", "mo": "M", "a": "Y"}


def iso_date(written: str, note: NoteTime) -> str | None:
    """YYYY, YYYY-MM or YYYY-MM-DD where the text is one date and nothing else; None where it is not, or where it has two readings."""
    text = _LEAD.sub("", " ".join(written.split()).strip(".,;:()"), count=1)
    if iso := _ISO.fullmatch(text):
        return _checked(iso["date"] or iso["part"])
    # Names of months are known by their capitals.
    text = _LETTERS.sub(lambda match: match.group().capitalize(), text.lower())
    found = find_dates(text)
    if len(found) != 1 or (found[0].start, found[0].end) != (0, len(text)):
        return None
    said = _parts(found[0], "." in text, note)
    year = _full_year(found[0], note) if not _LONG_YEAR.search(text) else found[0].year
    return None if said is None or year is None else _checked("-".join([f"{year:04d}", *(f"{part:02d}" for part in said if part)]))


def _parts(found: Date, pointed: bool, note: NoteTime) -> tuple[int | None, int | None] | None:
    """Month and day; None where they may as well be exchanged. `pointed`: `find_dates` read the day first, elsewhere the month."""
    if not found.swapped:
        return found.month, found.day
    if note.order is DateOrder.UNKNOWN:
        return None
    read = DateOrder.DAY_FIRST if pointed else DateOrder.MONTH_FIRST
    return (found.month, found.day) if note.order is read else (found.day, found.month)


def _full_year(found: Date, note: NoteTime) -> int | None:
    """The year that two digits mean: the one near the note's date, if it has one."""
    if found.year is None or note.written is None:
        return None
    first = note.written.year - _YEARS_BACK
    year = first + (found.year - first) % 100
    return year if year <= note.written.year + _YEARS_AHEAD else None


def _checked(said: str) -> str | None:
    try:
        date.fromisoformat(f"{said}-01-01"[:_DAY] if len(said) < _DAY else said)
    except ValueError:
        return None
    return said


def relative(written: str, *, ahead: bool = False) -> Measure | None:
    """(number, UCUM unit) of the time between the note and what the text says: negative before the note was written, positive after.

    `ahead`: a bare time ("2 weeks") is one after the note, as in a follow-up. Ranges and words such as "about" have none.
    """
    text = " ".join(written.lower().split()).strip(".,;:()")
    if text in _NEAR:
        return float(_NEAR[text]), "d"
    if match := _AGO.fullmatch(text):
        count, unit = _measured(match["count"], match["unit"])
        return -count, unit
    later = _IN.fullmatch(text) or _FROM_NOW.fullmatch(text) or (_BARE.fullmatch(text) if ahead else None)
    return _measured(later["count"], later["unit"]) if later else None


def relative_date(span: Measure | None, note: NoteTime) -> str | None:
    """The date that is so many days from the note's; None for other units, and where the note's date is not known."""
    if span is None or note.written is None or span[1] != "d" or abs(span[0]) > _DAYS_LIMIT:
        return None
    return (note.written + timedelta(days=span[0])).isoformat()


def duration(written: str) -> Measure | None:
    """(number, UCUM unit) of "for 7 days", "x 2 weeks" or "10-day course"; None for a range or anything else."""
    match = _DURATION.fullmatch(" ".join(written.lower().split()).strip(".,;:()"))
    return _measured(match["count"], match["unit"]) if match else None


def iso_duration(span: Measure) -> str:
    """ISO 8601 of a whole number of hours, days, weeks, months or years: P7D."""
    return f"P{'T' if span[1] == 'h' else ''}{span[0]:g}{_ISO_UNITS[span[1]]}"


def age(written: str, normal: str | None) -> Measure | None:
    """(number, UCUM unit) of an age: from its ISO 8601 duration where a reader gave one, else from words such as "6-month-old"."""
    if normal:
        match = _ISO_AGE.fullmatch(normal)
        return (int(match["count"]) + (0.5 if match["half"] else 0.0), _UCUM[match["unit"].lower()]) if match else None
    match = _AGE.fullmatch(" ".join(written.lower().split()))
    if match is None:
        return None
    meant = (int(match["count"]),) if match["count"].isdigit() else spoken_values(match["count"])
    # "one twenty" may be 120 or two numbers.
    return (float(meant[0]), _UCUM[match["unit"][0]]) if len(meant) == 1 else None


def _measured(count: str, unit: str) -> Measure:
    value = 1 if count in ("a", "an") else int(count) if count.isdigit() else VALUES[count]
    return float(value), _UCUM[unit[0]]
