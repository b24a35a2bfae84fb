"""How a file is to be read, found out from its name and its beginning; and the one door to the rows of every format but Parquet."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from schemas.commit import Layout
from transforms.formats import Row, fhir, suffix_of
from transforms.formats.delimited import delimited_rows, find_dialect
from transforms.formats.documents import document_row, document_rows
from transforms.formats.encoding import detect_encoding
from transforms.formats.first_object import FirstObject, first_object
from transforms.formats.jsonl import jsonl_rows
from transforms.formats.nesting import on_free_stack
from transforms.formats.stream import MAX_DOCUMENT_BYTES, StreamBroken, chunks, is_recoded

# What is looked at to tell a format or a dialect.
_HEAD_BYTES = 256 * 1024
# Not str.splitlines: it also cuts at characters that may stand in a string.
_LINE_END = re.compile(r"\r\n|\n|\r")
_DECODER = json.JSONDecoder()
# These parsers find the encoding in the document itself.
_DECODES_ITSELF = ("ccda", "hl7")


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What the job says about its input files; `auto` is found out, for each file anew."""

    format: str = "auto"
    encoding: str = "auto"
    delimiter: str = "auto"


def format_of(name: str, options: ReadOptions) -> str:
    """The format by the job or the file's name; `jsonl` may turn out to be FHIR. A name that says nothing is taken for Parquet."""
    return suffix_of(name).format or "parquet" if options.format == "auto" else options.format


def find_layout(file: BinaryIO, name: str, options: ReadOptions, wanted: Collection[str]) -> Layout:
    """Read as much of a file as it takes to say how it is to be read. `wanted`: names of columns that a header should hold.

    The header's names are found here for delimited text. Reads the whole file when its encoding is to be found out.
    """
    suffix = suffix_of(name)
    bare = Layout(format_of(name, options), suffix.compression, whole=True)
    if bare.format in _DECODES_ITSELF:
        return bare
    layout = replace(bare, encoding=_encoding(file, bare, options))
    if layout.format == "text":
        return layout
    if layout.format == "csv":
        head = _head(file, layout)
        delimiter = None if options.delimiter == "auto" else options.delimiter
        found = find_dialect(_whole_lines(head), _after_recoding(layout), wanted, delimiter, _inner_suffix(name))
        return replace(layout, whole=False, delimiter=found.delimiter, quote=found.quote, columns=found.columns)
    text, first = _beginning(file, layout)
    form = first.format if options.format == "auto" else layout.format
    # A bundle holds many notes, even when it stands on one line.
    whole = not _is_one_per_line(text) or (form == "fhir" and first.resource_type == "Bundle")
    return replace(layout, format=form, whole=whole)


def _after_recoding(layout: Layout) -> str:
    return "utf-8" if is_recoded(layout) else layout.encoding or "utf-8"


def _encoding(file: BinaryIO, layout: Layout, options: ReadOptions) -> str:
    if options.encoding != "auto":
        return options.encoding
    file.seek(0)
    return detect_encoding(chunks(file, layout))


def _beginning(file: BinaryIO, layout: Layout) -> tuple[str, FirstObject]:
    """As much of a JSON file as it takes to tell its first object: databases write the type of a resource last."""
    length = _HEAD_BYTES
    while True:
        head = _head(file, layout, length)
        text = head.decode(_after_recoding(layout), "replace")
        first = first_object(text)
        if first.is_told or len(head) < length or length >= MAX_DOCUMENT_BYTES:
            return text, first
        length *= 16


def _head(file: BinaryIO, layout: Layout, length: int = _HEAD_BYTES) -> bytes:
    """The first bytes, recoded; what a break leaves of them."""
    file.seek(0)
    parts: list[bytes] = []
    size = 0
    try:
        for data in chunks(file, layout):
            parts.append(data)
            size += len(data)
            if size >= length:
                break
    except StreamBroken:
        pass
    return b"".join(parts)[:length]


def _whole_lines(head: bytes) -> list[bytes]:
    """The head without its last line if that may be cut."""
    cut = max(head.rfind(b"\n"), head.rfind(b"\r")) + 1
    return [head[:cut] if len(head) >= _HEAD_BYTES and cut else head]


def _inner_suffix(name: str) -> str:
    return next((s for s in (".tsv", ".psv") if s in name.lower()[-9:]), "")


def _is_one_per_line(text: str) -> bool:
    """Whether the text's first line is an object by itself: then each line is one. A file that is one line is read by lines, too."""
    text = text.lstrip("\ufeff \t\r\n")
    if not text.startswith("{"):
        return not text.startswith("[")
    first, *others = filter(None, map(str.strip, _LINE_END.split(text)))
    if not others or _is_object(first):
        return True
    # A broken first line of many, or the first line of an object written over several.
    return (len(first) > 2 and first.endswith("}")) or (any(map(_is_object, others)) and _is_broken(text))


def _is_object(line: str) -> bool:
    try:
        return isinstance(on_free_stack(json.loads, line), dict)
    except (RecursionError, ValueError):
        return False


def _is_broken(text: str) -> bool:
    """Whether a text that begins with an object has a fault other than being cut off: one before its last line."""
    try:
        on_free_stack(_DECODER.raw_decode, text)
    except json.JSONDecodeError as error:
        return _LINE_END.search(text.rstrip(), error.pos) is not None
    except (RecursionError, ValueError):
        pass
    return False


_DELIMITER_NAMES = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar"}


def layout_name(layout: Layout) -> str:
    """How a file is read, in words: `csv, semicolon, cp1252, gzip`."""
    delimiter = _DELIMITER_NAMES.get(layout.delimiter, "other delimiter") if layout.delimiter else None
    quote = "single quotes" if layout.quote == "'" else None
    return ", ".join(part for part in (layout.format, delimiter, quote, layout.encoding, layout.compression) if part)


def is_named_by_format(layout: Layout) -> bool:
    """Whether the format itself says what is the id, the text and so on."""
    return layout.format in ("text", "fhir", "ccda", "hl7")


def is_sparse(layout: Layout) -> bool:
    """Whether a row may lack what another row of the file has."""
    return layout.format == "jsonl"


def rows(source: Iterator[bytes], layout: Layout, offset: int = 0, line: int | None = 1) -> Iterator[Row]:
    """The rows of a file from byte `offset` on, which stands on line `line`; `source` gives the bytes from there.

    From any row's own offset and line on, the rows are the same as from the beginning (files that are read whole have one offset, 0).
    Never raises but for what the storage raises: what cannot be read is a row with a problem.
    """
    read = replace(layout, encoding=_after_recoding(layout))
    if layout.whole:
        return document_rows(source, read)
    by_format: dict[str, Callable[..., Iterator[Row]]] = {"csv": delimited_rows, "jsonl": jsonl_rows, "fhir": _fhir_lines}
    return by_format[layout.format](source, read, offset, line or 1)


def _fhir_lines(source: Iterator[bytes], layout: Layout, offset: int, line: int) -> Iterator[Row]:
    """One resource per line; resources that are no notes are no rows."""
    for row in jsonl_rows(source, layout, offset, line):
        if row.values is None:
            yield row
        elif (document := fhir.document(row.values)) is not None:
            found = document_row(document)
            yield Row(row.offset, row.line, found.values, found.problem)
