"""Points in time as HL7 version 2 and C-CDA write them, to ISO 8601."""

from __future__ import annotations

import re

_TIME = re.compile(
    r"(?P<year>\d{4})(?:(?P<month>\d\d)(?:(?P<day>\d\d)(?:(?P<hour>\d\d)(?:(?P<minute>\d\d)(?:(?P<second>\d\d)(?P<part>\.\d{1,9})?)?)?)?)?)?"
    r"(?P<zone>[+-]\d{4})?"
)


def iso_time(value: str | None) -> str | None:
    """`YYYY[MM[DD[HH[MM[SS[.S]]]]]][+/-ZZZZ]` (HL7 data types TS and DTM) in ISO 8601, as exact as it was written.

    Anything else comes back as it is, None when blank: the contract judges dates.
    """
    value = (value or "").strip()
    found = _TIME.fullmatch(value)
    if not found:
        return value or None
    date = "-".join(filter(None, found.group("year", "month", "day")))
    if not found["hour"]:
        return date
    zone = found["zone"] or ""
    clock = ":".join((found["hour"], found["minute"] or "00", found["second"] or "00"))
    return f"{date}T{clock}{found['part'] or ''}{zone[:3]}{':' if zone else ''}{zone[3:]}"
