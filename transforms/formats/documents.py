"""Files that are read as a whole: plain text, JSON lists, FHIR, C-CDA and HL7 documents. Rows are counted from the file's beginning."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from schemas.commit import Layout
from schemas.rejection import Reason
from transforms.formats import Document, Row, ccda, fhir, hl7v2
from transforms.formats.encoding import bom_length
from transforms.formats.jsonl import json_rows
from transforms.formats.stream import MAX_DOCUMENT_BYTES, StreamBroken, is_recoded


def document_rows(source: Iterator[bytes], layout: Layout) -> Iterator[Row]:
    """The rows of a whole file. A stream that breaks gives what of it can be read, then one row that says so."""
    parts: list[bytes] = []
    size = 0
    broken: Reason | None = None
    try:
        for data in source:
            parts.append(data)
            size += len(data)
            if size > MAX_DOCUMENT_BYTES:
                yield Row(0, None, None, Reason.CONTENT_UNREADABLE)
                return
    except StreamBroken as error:
        broken = error.reason
    # Half a document is no document: only lists and messages, whose rows stand for themselves, are read up to the break.
    if broken is None or (layout.format, layout.whole) in (("jsonl", True), ("hl7", True)):
        yield from _without_last(_parsed(b"".join(parts), layout)) if broken else _parsed(b"".join(parts), layout)
    if broken is not None:
        yield Row(0, None, None, broken)


def _without_last(rows: Iterable[Row]) -> Iterator[Row]:
    """All rows but the last, which the break has cut."""
    held: Row | None = None
    for row in rows:
        if held is not None:
            yield held
        held = row


def _parsed(data: bytes, layout: Layout) -> Iterator[Row]:
    if layout.format == "text":
        return _text_rows(data, layout)
    if layout.format == "jsonl":
        text = _decoded(data, layout)
        return iter((_UNREADABLE,)) if text is None else json_rows(text)
    parse = {"fhir": fhir.documents, "ccda": ccda.documents, "hl7": hl7v2.documents}[layout.format]
    return map(document_row, parse(data))


_UNREADABLE = Row(0, None, None, Reason.ROW_UNREADABLE)


def document_row(document: Document) -> Row:
    return Row(0, None, document.values, document.problem)


def _text_rows(data: bytes, layout: Layout) -> Iterator[Row]:
    text = _decoded(data, layout)
    yield _UNREADABLE if text is None else Row(0, 1, {"text": text.replace("\r\n", "\n").replace("\r", "\n")})


def _decoded(data: bytes, layout: Layout) -> str | None:
    try:
        return data[bom_length(data) :].decode("utf-8" if is_recoded(layout) else layout.encoding or "utf-8")
    except UnicodeDecodeError:
        return None
