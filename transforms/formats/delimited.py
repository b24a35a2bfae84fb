"""Delimited text (CSV and its kin): the dialect, and records with the line each begins on. It does not know which columns a job wants."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from schemas.commit import Layout
from schemas.rejection import Reason
from transforms.formats import Row
from transforms.formats.encoding import bom_length
from transforms.formats.stream import MAX_RECORD_BYTES, Line, StreamBroken, lines

DELIMITERS = (",", "\t", ";", "|")
_QUOTES = ('"', "'")
_QUOTED = re.compile(rb'(?:^|[\r\n,;\t|])"')
_SAMPLE_RECORDS = 200

# The module's own limit of 128 KiB a field is far below a long note; records are bounded here instead.
csv.field_size_limit(MAX_RECORD_BYTES)


class Record(NamedTuple):
    """One record. `fields` is None when it cannot be read, and then `problem` says why."""

    offset: int
    line: int
    fields: list[str] | None
    problem: Reason | None = None

    def __repr__(self) -> str:
        return f"Record(offset={self.offset}, line={self.line}, problem={self.problem})"


def delimited_rows(source: Iterator[bytes], layout: Layout, offset: int = 0, line: int = 1) -> Iterator[Row]:
    """The rows after the header.

    `source` begins at byte `offset`, which is the beginning of line `line`; at 0 the header is passed over.
    """
    header = offset > 0
    for record in records(source, layout, offset, line):
        # The first record is the header, even if it cannot be read; then no column is found.
        if header or record.fields is None:
            yield _row(record, layout.columns)
        header = True


def _row(record: Record, columns: Sequence[str]) -> Row:
    if record.fields is None:
        return Row(record.offset, record.line, None, record.problem)
    # Spreadsheets pad rows with empty fields; that costs nothing.
    if len(record.fields) != len(columns) and (len(record.fields) < len(columns) or any(record.fields[len(columns) :])):
        return Row(record.offset, record.line, None, Reason.FIELD_COUNT)
    # An empty field is a missing value: delimited text cannot tell the two apart.
    return Row(record.offset, record.line, {name: value or None for name, value in zip(columns, record.fields, strict=False)})


def records(source: Iterator[bytes], layout: Layout, offset: int = 0, line: int = 1) -> Iterator[Record]:
    """Every record that is not blank, the header among them. A stream that breaks ends with one record that says so."""
    reader = _RecordReader(lines(source, offset, line), layout, offset, line)
    while (record := reader.next()) is not None:
        if record.fields or record.problem is not None:
            yield record


class _Unfinished(Exception):
    """The lines ran out, or grew beyond all bounds, within a quoted field."""


class _RecordReader:
    """Records by the csv module, which pulls as many lines as a record needs.

    A record that does not close, or goes on after a closing quote, costs its first line only: reading goes on with the next one. The
    lines it pulled are kept for that. All lines up to `_doomed` were found to end inside quotes that lead to the same fault: a record
    still open there is given up at once, so that the work stays linear in the length of the file.
    """

    def __init__(self, source: Iterator[Line], layout: Layout, offset: int, line: int) -> None:
        self._source = source
        self._encoding = layout.encoding or "utf-8"
        self._dialect: dict[str, Any] = {"delimiter": layout.delimiter or ",", "quotechar": layout.quote or '"', "strict": True}
        self._waiting: list[Line] = []  # reversed: the next one is last
        self._pulled: list[Line] = []
        self._undecodable = False
        self._doomed = 0
        self._end, self._number = offset, line
        self._broken: Reason | None = None
        self._at_end = False
        self._width = len(layout.columns)
        self._reader = csv.reader(self._texts(), **self._dialect)

    def next(self) -> Record | None:
        self._pulled, self._undecodable, self._at_end = [], False, False
        try:
            fields = next(self._reader, None)
        except (csv.Error, _Unfinished):
            return self._given_up()
        if fields is None:
            return self._last_words()
        first = self._pulled[0]
        if self._undecodable:
            return Record(first.offset, first.number, None, Reason.ROW_UNREADABLE)
        return Record(first.offset, first.number, fields)

    def _texts(self) -> Iterator[str]:
        """The lines, as the csv module asks for them. Raises _Unfinished where a record cannot be finished."""
        while True:
            if self._pulled and self._pulled[-1].offset < self._doomed:
                raise _Unfinished
            line = self._take()
            if line is None:
                self._at_end = True
                if self._pulled:
                    raise _Unfinished
                return
            self._pulled.append(line)
            if line.data is None or line.offset - self._pulled[0].offset > MAX_RECORD_BYTES:
                raise _Unfinished
            yield self._decoded(line.data, line.offset)

    def _given_up(self) -> Record:
        first, *rest = self._pulled
        if self._ends_within(rest):
            # What is left is the beginning of a note: its lines must not be taken for records.
            self._broken, reason = None, self._broken or Reason.FILE_TRUNCATED
            return Record(first.offset, first.number, None, reason)
        # Whoever is inside quotes at the end of any of these lines but the last comes to the same fault.
        self._doomed = max(self._doomed, self._pulled[-1].offset)
        self._waiting.extend(reversed(rest))
        self._reader = csv.reader(self._texts(), **self._dialect)
        return Record(first.offset, first.number, None, Reason.LINE_MALFORMED)

    def _ends_within(self, rest: Sequence[Line]) -> bool:
        """Whether the file was cut short inside a quoted field, rather than a quote be left open on a line by mistake.

        Then what follows the quote to the file's end is mostly no records of the right width.
        """
        if not self._at_end or not rest or not self._width:
            return self._broken is not None
        whole = sum(self._is_record(line) for line in rest)
        return self._broken is not None or 2 * whole < len(rest)

    def _is_record(self, line: Line) -> bool:
        text = (line.data or b"").decode(self._encoding, "replace")
        try:
            return len(next(csv.reader([text], **self._dialect), [])) == self._width
        except csv.Error:
            return False

    def _decoded(self, data: bytes, offset: int) -> str:
        data = data[bom_length(data) :] if offset == 0 else data
        try:
            return data.decode(self._encoding)
        except UnicodeDecodeError:
            self._undecodable = True
            return data.decode(self._encoding, "surrogateescape")

    def _take(self) -> Line | None:
        if self._waiting:
            return self._waiting.pop()
        try:
            line = next(self._source, None)
        except StreamBroken as broken:
            self._broken = broken.reason
            return None
        if line is not None:
            self._end, self._number = line.offset + len(line.data or b""), line.number + 1
        return line

    def _last_words(self) -> Record | None:
        if self._broken is None:
            return None
        reason, self._broken = self._broken, None
        return Record(self._end, self._number, None, reason)


def find_dialect(sample: Sequence[bytes], encoding: str, wanted: Iterable[str], delimiter: str | None = None, suffix: str = "") -> Layout:
    """Delimiter, quote and header from the beginning of a file.

    A delimiter that yields the `wanted` columns in the header wins; else the one by which most records have as many fields as the header,
    and among those the one with most fields. `suffix` (.tsv, .psv) breaks ties. `columns` is empty when there is no header.
    """
    named = {".tsv": "\t", ".psv": "|"}.get(suffix)
    choices = (delimiter,) if delimiter else tuple(dict.fromkeys((*((named,) if named else ()), *DELIMITERS)))
    # Only where no field begins with a double quote may single ones be meant.
    quotes = _QUOTES[:1] if any(_QUOTED.search(data) for data in sample) else _QUOTES
    layouts = [Layout("csv", encoding=encoding, delimiter=d, quote=q) for q in quotes for d in choices]
    scored = [(_score(sample, layout, set(wanted)), -place, layout) for place, layout in enumerate(layouts)]
    best = max(scored, key=lambda entry: entry[:2])[2]
    return Layout("csv", None, encoding, best.delimiter, best.quote, _header(sample, best))


def _sampled(sample: Sequence[bytes], layout: Layout) -> Iterator[list[str]]:
    found = records(iter(sample), layout)
    for _, record in zip(range(_SAMPLE_RECORDS), found, strict=False):
        yield record.fields or []


def _score(sample: Sequence[bytes], layout: Layout, wanted: set[str]) -> tuple[int, int, float, int]:
    widths: list[int] = []
    header: list[str] | None = None
    for fields in _sampled(sample, layout):
        header = fields if header is None else header
        widths.append(len(fields))
    header = header or []
    width = len(header)
    alike = Counter(widths)[width] / len(widths) if width > 1 else 0.0
    return len(wanted & {name.strip() for name in header}), int(width > 1), round(alike, 1), width


def _header(sample: Sequence[bytes], layout: Layout) -> tuple[str, ...]:
    header = next(_sampled(sample, layout), [])
    names: list[str] = []
    for position, name in enumerate((name.strip() for name in header), start=1):
        names.append(_unused(name or f"column_{position}", names))
    return tuple(names)


def _unused(name: str, taken: Sequence[str]) -> str:
    """The name, numbered when it stands in the header twice."""
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    return candidate
