"""The texts that stand in a stored file: JSON strings, the text and tags of HTML, Parquet cells, lines of anything else."""

from __future__ import annotations

import html
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

_JSON_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
_HTML_PART = re.compile(r"<[^<>]*>|[^<>]+|[<>]")
_LINE = re.compile(r"[^\n]+")


@dataclass(frozen=True, slots=True)
class StoredText:
    """One text of a file, escapes undone.

    `line`: the one-based line (of Parquet the row) on which it begins. `offset`: the zero-based character of the file at which it begins
    (of Parquet the column).
    """

    text: str = field(repr=False)
    line: int
    offset: int


def stored_texts(name: str, data: bytes) -> Iterator[StoredText]:
    """The texts of a file; its name says of which kind it is, and what is not what its name promises is read as lines.

    JSON numbers are left out: they are counts and sizes, and any number is somebody's id.
    """
    if data.startswith(b"PAR1"):
        return _of_parquet(data)
    return _of_text(name, data.decode("utf-8", "replace"))


def _of_text(name: str, text: str) -> Iterator[StoredText]:
    if name.endswith((".html", ".htm", ".xml", ".svg")):
        return _matches(_HTML_PART, text, html.unescape)
    if text.startswith("{") and _is_json(text):
        return _matches(_JSON_STRING, text, json.loads)
    return _matches(_LINE, text, str)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _matches(pattern: re.Pattern[str], text: str, undo: Callable[[str], str]) -> Iterator[StoredText]:
    line, seen = 1, 0
    for match in pattern.finditer(text):
        line, seen = line + text.count("\n", seen, match.start()), match.start()
        content = undo(match[0])
        if content.strip():
            yield StoredText(content, line, match.start())


def _of_parquet(data: bytes) -> Iterator[StoredText]:
    """Cells that are strings or bytes (a rolled-up commit record is JSON in bytes); nested cells as the JSON of them."""
    table = read_parquet(data)
    for number, column in enumerate(table.columns if table is not None else ()):
        if pa.types.is_primitive(column.type):
            continue
        for row, cell in enumerate(column.to_pylist(), start=1):
            yield from (StoredText(part.text, row, number) for part in _of_cell(cell))


def _of_cell(cell: object) -> Iterator[StoredText]:
    if isinstance(cell, bytes):
        return _of_text("", cell.decode("utf-8", "replace"))
    if cell is None or isinstance(cell, str):
        return _of_text("", cell or "")
    return _of_text("", json.dumps({"cell": cell}, default=str))


def read_parquet(data: bytes) -> pa.Table | None:
    """The table, None when the bytes are no whole Parquet file: the library's errors quote cells."""
    try:
        return pq.ParquetFile(io.BytesIO(data)).read()
    except (pa.ArrowException, OSError, ValueError):
        return None
