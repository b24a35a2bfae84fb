"""CSV as RFC 4180 wants it: UTF-8 without a byte order mark, commas, CRLF, quotes doubled; and cells that no spreadsheet runs."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from typing import Any

# What opens a formula in spreadsheets, in full width too (OWASP, "CSV Injection").
_FORMULA = re.compile(r"[\s\ufeff\u200b]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
# A plain number is none: "-2.5" stays a number.
_NUMBER = re.compile(r"[+-]?\d{1,15}(?:\.\d{1,15})?")


def csv_bytes(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> bytes:
    """A header and rows; None is an empty field."""
    sink = io.StringIO(newline="")
    writer = csv.writer(sink)
    writer.writerow(header)
    writer.writerows(rows)
    return sink.getvalue().encode()


def harmless(cell: str) -> str:
    """The cell behind an apostrophe, if a spreadsheet would run it as a formula."""
    return f"'{cell}" if _FORMULA.match(cell) and not _NUMBER.fullmatch(cell) else cell
