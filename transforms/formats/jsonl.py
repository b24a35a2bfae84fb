"""JSON as rows: one object per line, or a file that is one object or one list of objects. It does not know which keys a job wants."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from schemas.commit import Layout
from schemas.rejection import Reason
from transforms.formats import Row
from transforms.formats.encoding import bom_length
from transforms.formats.nesting import on_free_stack
from transforms.formats.stream import Line, StreamBroken, lines

_SPACE = re.compile(r"[ \t\r\n\ufeff]*")
_BETWEEN = re.compile(r"[ \t\r\n]*,?[ \t\r\n]*")


def _no_number(_: str) -> None:
    """NaN and infinities stand for missing values: JSON has none, but many writers write them."""


_DECODER = json.JSONDecoder(parse_constant=_no_number)


def jsonl_rows(source: Iterator[bytes], layout: Layout, offset: int = 0, line: int = 1) -> Iterator[Row]:
    """One row per line that is not blank. `source` begins at byte `offset`, which is the beginning of line `line`."""
    end, number = offset, line
    try:
        for read in lines(source, offset, line):
            end, number = read.offset + len(read.data or b""), read.number + 1
            if read.data is None or read.data.strip():
                yield parsed_line(read, layout.encoding or "utf-8")
    except StreamBroken as broken:
        yield Row(end, number, None, broken.reason)


def parsed_line(line: Line, encoding: str) -> Row:
    """The object on a line, or the reason why there is none."""
    if line.data is None:
        return Row(line.offset, line.number, None, Reason.LINE_MALFORMED)
    try:
        text = line.data[bom_length(line.data) if line.offset == 0 else 0 :].decode(encoding)
    except UnicodeDecodeError:
        return Row(line.offset, line.number, None, Reason.ROW_UNREADABLE)
    value = _object(text)
    return Row(line.offset, line.number, value, None if value is not None else Reason.LINE_MALFORMED)


def _object(text: str) -> Mapping[str, Any] | None:
    try:
        value = on_free_stack(_DECODER.decode, text)
    # Too deep a nesting; a number of more digits than Python converts; not JSON.
    except (RecursionError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def json_rows(text: str) -> Iterator[Row]:
    """The objects of a file that is one object or a list of them, or several such. All rows have offset 0; lines are those on which the
    objects begin.

    Where an element cannot be read, it and what follows is one last row: in a list nothing says where the next element begins. A list that
    does not end gives a last row that says so.
    """
    counted = _LineCounter(text)
    position = _SPACE.match(text).end()  # type: ignore[union-attr]
    listed = False
    while position < len(text):
        line = counted.at(position)
        if text[position] == ("]" if listed else "["):
            listed, position = not listed, position + 1
        else:
            try:
                value, position = on_free_stack(_DECODER.raw_decode, text, position)
            except (RecursionError, ValueError):
                yield Row(0, line, None, _why_unreadable(text, listed))
                return
            yield Row(0, line, value) if isinstance(value, dict) else Row(0, line, None, Reason.LINE_MALFORMED)
        position = _BETWEEN.match(text, position).end()  # type: ignore[union-attr]
    if listed:
        yield Row(0, counted.at(position), None, Reason.FILE_TRUNCATED)


def _why_unreadable(text: str, listed: bool) -> Reason:
    return Reason.FILE_TRUNCATED if listed and not text.rstrip().endswith("]") else Reason.FILE_CORRUPT


class _LineCounter:
    """One-based line numbers of growing positions."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._line = 1

    def at(self, position: int) -> int:
        self._line += self._text.count("\n", self._position, position)
        self._position = position
        return self._line
