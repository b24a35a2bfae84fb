"""Calendar dates that the summary states and the note does not."""

from __future__ import annotations

import re
from collections.abc import Iterator

from transforms.checks.case import Case, Flag
from transforms.dates import Date, supports

_NAMES = "january february march april may june july august september october november december"
_MONTHS = [re.compile(rf"\b{name[:3]}(?:{name[3:]})?\b" if len(name) > 3 else rf"\b{name}\b") for name in _NAMES.split()]


def check_dates(case: Case) -> Iterator[Flag]:
    """UNSUPPORTED_DATE: no date of the note can be the one that the summary states, nor does it say its parts in words."""
    for date in case.summary_dates:
        if any(supports(known, date) for known in case.note_dates) or _is_spoken(case, date):
            continue
        near = max(case.note_dates, key=lambda known: _shared(known, date), default=None)
        place = (near.start, near.end) if near is not None and _shared(near, date) else (None, None)
        yield Flag("UNSUPPORTED_DATE", date.start, date.end, *place)


def _is_spoken(case: Case, date: Date) -> bool:
    """Whether the note has the name of the month and the numbers of a date ("July thirty first, two thousand eight").

    The year is not asked for where no date of the note has one: people do not say it.
    """
    if date.month is not None and not _MONTHS[date.month - 1].search(case.note_lower):
        return False
    if date.day is not None and str(date.day) not in case.supported:
        return False
    years = {str(date.year), str((date.year or 0) % 100)}
    unsaid = date.month is not None and all(known.year is None for known in case.note_dates)
    return date.year is None or unsaid or not years.isdisjoint(case.supported)


def _shared(known: Date, date: Date) -> int:
    """How many parts two dates share."""
    parts = ((known.year, date.year), (known.month, date.month), (known.day, date.day))
    return sum(left is not None and left == right for left, right in parts)
