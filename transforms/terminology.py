"""Codes for the names in a record, from a table that the user brings: `term, system, code` and perhaps `display`, as CSV or Parquet.

A name gets the codes of the term that it equals but for case, white space and punctuation, and for the plural of its last word where no
other term has the same singular. Nothing is looked up by similarity. Terminologies may be licensed: messages tell rows by number, never
what is in them.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import ConfigurationError
from transforms.batch import describe_error
from transforms.store import open_to_read

KEY = "tasks.record.terminology"
COLUMNS = ("term", "system", "code")
DISPLAY = "display"
_SHOWN_ROWS = 5
_PARQUET_MAGIC = b"PAR1"

# (system, code, display)
Code = tuple[str, str, str | None]
Codes = tuple[Code, ...]
# (term, system, code, display)
Row = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class TerminologyFile:
    """Where a terminology lies, and the sha256 of the file as it was when the job was prepared."""

    source: str = field(repr=False)
    sha256: str


@dataclass(frozen=True, slots=True)
class Terminology:
    """`exact`: folded terms -> their codes, in the order of the table. `plurals`: singulars of folded terms in the plural -> the same,
    but not of two terms with different codes.
    """

    exact: Mapping[str, Codes] = field(repr=False)
    plurals: Mapping[str, Codes] = field(repr=False)

    def codes(self, name: str) -> Codes:
        """The codes of the term that equals a name, all of them; none where there is no such term, or two in the singular."""
        key = fold_term(name)
        if found := self.exact.get(key) or self.plurals.get(key):
            return found
        singular = {self.exact[form] for form in singulars(key) if form in self.exact}
        return singular.pop() if len(singular) == 1 else ()


# The leaf that names an entity, by the record's field.
_NAMES = {
    "problems": "name",
    "medications": "name",
    "allergies": "substance",
    "observations": "name",
    "procedures": "name",
    "follow_up": "what",
}


def code_record(record: Mapping[str, Any], terminology: Terminology) -> dict[str, Any]:
    """The same record with `codes` of every entity that the terminology knows; codes that a reader gave stay before them."""
    return dict(record) | {name: [_coded(entity, leaf, terminology) for entity in record[name]] for name, leaf in _NAMES.items()}


def _coded(entity: Mapping[str, Any], name: str, terminology: Terminology) -> dict[str, Any]:
    leaf = entity[name]
    found = terminology.codes(leaf["text"]) if leaf else ()
    if leaf and not found and "category" in entity and leaf["normal"]:
        # "HR" is heart_rate: observations are known by their canonical name, too.
        found = terminology.codes(leaf["normal"])
    given = [dict(code) for code in entity["codes"] or ()]
    known = {(code["system"], code["code"]) for code in given}
    added = [{"system": system, "code": code, "display": display} for system, code, display in found if (system, code) not in known]
    return dict(entity) | {"codes": [*given, *added]}


# Between digits a point or comma is part of the number. A minus or plus at the end of a word may be a result: "HER2-".
_JOINTS = re.compile(r"(?<=\w)-(?=\w)|(?<!\d)[.,]|[.,](?!\d)|[_/;:()\[\]{}\"\u2013\u2014]")
_APOSTROPHES = str.maketrans("", "", "'\u2019\u02bc`")


def fold_term(term: str) -> str:
    """A term as it is compared: no case, single blanks, no apostrophes, and blanks for punctuation that does not change what it says."""
    folded = unicodedata.normalize("NFKC", term).casefold().translate(_APOSTROPHES)
    return " ".join(_JOINTS.sub(" ", folded).split())


# Not of words in -as, -is, -os, -ss and -us, which are mostly no plurals: "pancreas", "arthritis", "abscess", "lupus".
_PLURAL = re.compile(r"[a-z]{3,}[^\W\d_aiosu]s")
_SIBILANT_PLURAL = re.compile(r"[a-z]{2,}(?:ss|sh|ch|x|z)es")
_Y_PLURAL = re.compile(r"[a-z]{3,}ies")


def singulars(key: str) -> list[str]:
    """What a folded term may be in the singular, by the regular endings of its last word in English: "headaches", "masses", "allergies"."""
    head, blank, last = key.rpartition(" ")
    forms = [
        last[:-1] if _PLURAL.fullmatch(last) else "",
        last[:-2] if _SIBILANT_PLURAL.fullmatch(last) else "",
        f"{last[:-3]}y" if _Y_PLURAL.fullmatch(last) else "",
    ]
    return [f"{head}{blank}{form}" for form in forms if form]


def describe_terminology(source: str) -> TerminologyFile:
    """The table's place and hash, once it has been read whole. Raises ConfigurationError that names columns or numbers of rows."""
    data = _read(source)
    read_terminology(data)
    return TerminologyFile(source, hashlib.sha256(data).hexdigest())


@lru_cache(maxsize=1)
def load_terminology(file: TerminologyFile) -> Terminology:
    """The table, ready to be asked; made once per process. Raises ConfigurationError if it is not the one that was described."""
    data = _read(file.source)
    if hashlib.sha256(data).hexdigest() != file.sha256:
        raise ConfigurationError(f"{KEY}: the file has changed since the run was planned; start the run again")
    return read_terminology(data)


def _read(source: str) -> bytes:
    try:
        if source.startswith("s3://"):
            folder, _, name = source.rpartition("/")
            return open_to_read(folder).get(name)
        return Path(source).expanduser().read_bytes()
    except ConfigurationError:
        raise
    except Exception as error:  # noqa: BLE001 - a storage's messages quote paths
        raise ConfigurationError(
            f"{KEY}: cannot be read ({describe_error(error)}); give a CSV or Parquet file, or s3://bucket/key"
        ) from None


def read_terminology(data: bytes) -> Terminology:
    """From the bytes of a Parquet file, or of CSV in UTF-8 with a header. Columns are known in any case; others are passed over.

    Raises ConfigurationError for missing columns, and for rows without a term, system or code: by number, 1 is the first below the header.
    """
    table = _parquet_columns(data) if data.startswith(_PARQUET_MAGIC) else _csv_columns(data)
    missing = [name for name in COLUMNS if name not in table]
    if missing:
        raise ConfigurationError(
            f"{KEY}: the table has no column {', '.join(missing)}; it needs {', '.join(COLUMNS)}, and may have {DISPLAY}"
        )
    displays = table.get(DISPLAY) or [""] * len(table["term"])
    return make_terminology(list(zip(*(table[name] for name in COLUMNS), displays, strict=True)))


def make_terminology(rows: Sequence[Row]) -> Terminology:
    """From rows of (term, system, code, display), where an empty display is none. Raises ConfigurationError as `read_terminology`."""
    keys = [fold_term(term) for term, *_ in rows]
    bad = [
        number for number, (key, row) in enumerate(zip(keys, rows, strict=True), start=1) if not (key and row[1].strip() and row[2].strip())
    ]
    if bad:
        shown = ", ".join(map(str, bad[:_SHOWN_ROWS])) + (", …" if len(bad) > _SHOWN_ROWS else "")
        raise ConfigurationError(f"{KEY}: {len(bad)} rows have an empty {' or '.join(COLUMNS)}: {shown}")
    if not rows:
        raise ConfigurationError(f"{KEY}: the table has no rows")
    found: dict[str, dict[Code, None]] = {}
    for key, (_, system, code, display) in zip(keys, rows, strict=True):
        found.setdefault(key, {})[sys.intern(system.strip()), code.strip(), display.strip() or None] = None
    exact = {key: tuple(codes) for key, codes in found.items()}
    return Terminology(exact, _plurals(exact))


def _plurals(exact: Mapping[str, Codes]) -> dict[str, Codes]:
    meant: dict[str, set[Codes]] = {}
    for key, codes in exact.items():
        for form in singulars(key):
            meant.setdefault(form, set()).add(codes)
    return {form: codes.pop() for form, codes in meant.items() if len(codes) == 1}


def _parquet_columns(data: bytes) -> dict[str, list[str]]:
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        names = {name.strip().lower(): name for name in reversed(file.schema_arrow.names)}
        wanted = {known: names[known] for known in (*COLUMNS, DISPLAY) if known in names}
        table = file.read(columns=list(wanted.values()))
        return {known: [value or "" for value in table.column(name).cast(pa.string()).to_pylist()] for known, name in wanted.items()}
    except Exception:  # noqa: BLE001 - Arrow's messages quote cells
        raise ConfigurationError(f"{KEY}: not a Parquet file whose {', '.join(COLUMNS)} can be read as text") from None


def _csv_columns(data: bytes) -> dict[str, list[str]]:
    try:
        rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error):  # their messages quote what was read
        raise ConfigurationError(f"{KEY}: neither Parquet nor CSV in UTF-8 with commas and a header") from None
    header = [name.strip().lower() for name in rows[0]] if rows else []
    places = {name: header.index(name) for name in (*COLUMNS, DISPLAY) if name in header}
    # A short row lacks values; an empty line is one without any, and is told of like other rows unless the file ends with it.
    body = rows[1:-1] if rows and not rows[-1] else rows[1:]
    return {name: [row[place] if place < len(row) else "" for row in body] for name, place in places.items()}
