"""Input formats: which there are, how a file's format is told, and what one of its rows looks like. It opens no file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.rejection import Reason
from transforms.formats.nesting import on_free_stack

FORMATS = ("parquet", "jsonl", "csv", "text", "fhir", "ccda", "hl7")

# What a suffix says. `.json` and its kin may hold FHIR as well: `find_layout` looks inside.
_SUFFIXES = {
    ".parquet": "parquet",
    ".parq": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".psv": "csv",
    ".txt": "text",
    ".xml": "ccda",
    ".ccda": "ccda",
    ".cda": "ccda",
    ".hl7": "hl7",
}
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
SUFFIXES = tuple(_SUFFIXES)


@dataclass(frozen=True, slots=True)
class Document:
    """One note of a clinical document format.

    `values` is keyed by the names of NOTE_SCHEMA; other keys pass through as columns. With a `problem` the note cannot be used, whatever
    else is known of it.
    """

    values: Mapping[str, str | None] = field(repr=False)
    problem: Reason | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a file that is not Parquet.

    `offset`: the byte at which it begins in the decompressed file. `line`: the one-based line it begins on, None where the format has no
    lines. `values` is None when the row cannot be read at all, and then `problem` says why. A clinical document may have both: what is
    known of a note that cannot be used.
    """

    offset: int
    line: int | None
    values: Mapping[str, Any] | None = field(repr=False)
    problem: Reason | None = None


@dataclass(frozen=True, slots=True)
class Suffix:
    """What a file name says: the format (None: not ours) and the compression."""

    format: str | None
    compression: str | None


def suffix_of(name: str) -> Suffix:
    """Format and compression of a file name; compressed Parquet is none of ours."""
    inner, end = _split_suffix(name)
    compression = _COMPRESSIONS.get(end)
    form = _SUFFIXES.get(_split_suffix(inner)[1] if compression else end)
    return Suffix(None if compression and form == "parquet" else form, compression)


def stem_of(path: str) -> str:
    """A relative path without the suffixes that say format and compression."""
    inner, end = _split_suffix(path)
    if end in _COMPRESSIONS:
        path = inner
        inner, end = _split_suffix(path)
    return inner if end in _SUFFIXES else path


def _split_suffix(path: str) -> tuple[str, str]:
    """Without pathlib, which takes ten times as long: there may be 400,000 files."""
    stem, dot, end = path.rpartition(".")
    return (stem, f".{end.lower()}") if dot and "/" not in end else (path, "")


def json_text(value: Any) -> str:
    """A pass-through value as text: strings as they are, the rest as compact JSON."""
    return value if isinstance(value, str) else on_free_stack(json.dumps, value, ensure_ascii=False, separators=(",", ":"))
