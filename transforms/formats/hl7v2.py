"""HL7 version 2 messages that carry text: documents (MDM, segments TXA and OBX) and reports (ORU, text in OBX under an OBR).

Delimiters are read here: python-hl7 0.4.5 logs the lines it cannot place and joins messages that end in line feeds; hl7apy 1.3.5 checks
messages against tables of the standard, which real ones break. What it does not know: character sets switched inside a field.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

from schemas.rejection import Reason
from transforms.formats import Document
from transforms.formats.content import BYTE_ORDER_MARKS, UnusableError, clean, decode, kind_of, text_of, unbase64
from transforms.formats.timestamps import iso_time

# OBX-2: running text, encapsulated data, and values that make a line "name: value units" of a report.
_TEXT_TYPES = frozenset(("TX", "FT"))
_STRING = "ST"
_ENCAPSULATED = "ED"
_POINTER = "RP"
# OBX-11 (table 0085): deleted, posted as wrong, results cannot be obtained.
_VOID = frozenset("DWX")
# A string of fewer words is a finding ("negative"), not a report.
_SENTENCE_WORDS = 4
# Trigger events that tell of a document without carrying it (HL7 2.5.1, 9.6).
_CONTENT_EVENTS = frozenset(("T02", "T04", "T06", "T08", "T10", ""))
_CANCELLED = "T11"
# TXA-19 (table 0273): cancelled or deleted.
_DELETED = "CA"

_MESSAGE_START = re.compile(rb"(?:^|(?<=[\r\n\x0b\x1c]))[ \t]{0,8}(?=MSH[^\w\s])")
_SEGMENT = re.compile(r"[A-Z][A-Z0-9]{2}")
_FRAME = re.compile(r"[\x0b\x1c]")
_HEX = re.compile(r"[0-9A-Fa-f]{2}")
_BLANKS = {"sp": "\n", "br": "\n", "ce": "\n", "in": "", "ti": "", "fi": "", "nf": "", "sk": " "}
_MEDIA = {"TEXT": "text", "TX": "text", "FT": "text", "APPLICATION": "application", "AP": "application", "MULTIPART": "multipart"}


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment: fields as HL7 counts them (`field(segment, 1)` is the first after the name; MSH-1 is the separator itself)."""

    name: str = field(repr=False)
    fields: Sequence[str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `separators`: field, component, repetition, escape, subcomponent."""

    separators: str = field(repr=False)
    segments: Sequence[Segment] = field(repr=False)
    charset: str | None = field(default=None, repr=False)


def documents(data: bytes) -> Iterator[Document]:
    """The notes of a file of messages, in order. Never raises.

    Messages may be framed (MLLP) or stand in a batch. A file without any message is one document with the problem CONTENT_UNREADABLE;
    messages without a document are no notes.
    """
    if data.startswith(BYTE_ORDER_MARKS):
        data = decode(data).encode("utf-8", "replace")
    starts = [found.end() for found in _MESSAGE_START.finditer(data)]
    if not starts and data.strip():
        yield Document({}, Reason.CONTENT_UNREADABLE)
    for start, end in pairwise([*starts, len(data)]):
        yield from _notes(parse(data[start:end]))


def parse(data: bytes) -> Message:
    """One message that begins with MSH. A line that does not begin like a segment goes on with the one before."""
    text = decode(data, _charset(data) or "utf-8")
    if not text.startswith("MSH"):
        # A wrong character set, declared or guessed (zero bytes in a text look like UTF-16).
        text = data.decode("latin-1")
    text = clean(_FRAME.sub("\n", text))
    separators = text[3:8] if text[8:9] == text[3:4] != "" else (text[3:4] or "|") + "^~\\&"
    # Lines of a segment are joined at the end: adding to a string takes time with its length.
    segments: list[list[str]] = []
    for line in text.split("\n"):
        if _SEGMENT.match(line) and line[3:4] == separators[0]:
            segments.append([line])
        elif segments:
            segments[-1].append(line)
    return Message(separators, [_segment("\n".join(lines), separators[0]) for lines in segments], _charset(data))


def _segment(line: str, separator: str) -> Segment:
    name, *fields = line.rstrip("\n").split(separator)
    return Segment(name[:3], [separator, *fields] if name == "MSH" else fields)


def _charset(data: bytes) -> str | None:
    """MSH-18 (table 0211) as Python calls it."""
    header = data[: _line_end(data)].decode("latin-1")
    fields = header.split(header[3:4] or "|")
    name = re.split(r"[~^]", fields[17])[0].strip().upper() if len(fields) > 17 else ""
    return name.replace("UNICODE ", "").replace("8859/", "iso8859-") or None


def _line_end(data: bytes) -> int:
    ends = [end for mark in (b"\r", b"\n") if (end := data.find(mark)) >= 0]
    return min(ends, default=len(data))


def _notes(message: Message) -> Iterator[Document]:
    """A damaged message still has its text: an MDM may lack its TXA, an ORU its OBR."""
    kind = _component(message, _first(message, "MSH"), 9)
    txa = _first(message, "TXA") or (Segment("TXA", ()) if kind == "MDM" else None)
    if txa is not None:
        return _dictated(message, txa)
    return _reports(message, [Segment("OBR", ())] if kind == "ORU" else [])


def _dictated(message: Message, txa: Segment) -> Iterator[Document]:
    """The document of an MDM message."""
    results = [segment for segment in message.segments if segment.name == "OBX"]
    event = _component(message, _first(message, "MSH"), 9, 2) or ""
    withdrawn = event == _CANCELLED or _component(message, txa, 19) == _DELETED
    if not results and not withdrawn and event not in _CONTENT_EVENTS:
        return
    values = _values(message) | {
        "note_id": _component(message, txa, 12) or _component(message, _first(message, "MSH"), 10),
        "note_type": _component(message, txa, 2, 2) or _component(message, txa, 2) or _component(message, _first(message, "OBR"), 4, 2),
        "written_at": iso_time(_component(message, txa, 4) or _component(message, txa, 6) or _component(message, txa, 7)),
        "status": _component(message, txa, 17),
    }
    yield Document(values, Reason.WITHDRAWN) if withdrawn else _document(message, values, results)


def _reports(message: Message, before: Sequence[Segment]) -> Iterator[Document]:
    """One document per OBR that has text results. `before`: what stands for the OBR of results that come before the first."""
    shared, control = _values(message), _component(message, _first(message, "MSH"), 10)
    for number, group in enumerate(_groups([*before, *message.segments]), start=0 if before else 1):
        obr, results = group[0], [segment for segment in group[1:] if segment.name in ("OBX", "NTE")]
        if not any(_is_text(message, result) for result in results):
            continue
        values = shared | {
            "note_id": _component(message, obr, 3) or (f"{control}-{_component(message, obr, 1) or number}" if control else None),
            "note_type": _component(message, obr, 4, 2) or _component(message, obr, 4),
            "written_at": iso_time(_component(message, obr, 7)),
            "status": _component(message, obr, 25),
        }
        yield _document(message, values, results)


def _groups(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """Each OBR with the segments up to the next one."""
    group: list[Segment] = []
    for segment in segments:
        if segment.name == "OBR":
            if group:
                yield group
            group = [segment]
        elif group:
            group.append(segment)
    if group:
        yield group


def _values(message: Message) -> dict[str, str | None]:
    event = _component(message, _first(message, "MSH"), 9, 2)
    kind = _component(message, _first(message, "MSH"), 9)
    return {
        "text": None,
        "patient_id": _component(message, _first(message, "PID"), 3),
        "encounter_id": _component(message, _first(message, "PV1"), 19),
        "message_type": "^".join(filter(None, (kind, event))) or None,
    }


def _document(message: Message, values: dict[str, str | None], results: Sequence[Segment]) -> Document:
    valid = [result for result in results if not (result.name == "OBX" and _component(message, result, 11) in _VOID)]
    if results and not any(result.name == "OBX" for result in valid):
        return Document(values, Reason.WITHDRAWN)
    try:
        text = "\n".join(_lines(message, valid)).strip()
    except UnusableError as error:
        return Document(values, error.reason)
    return Document(values | {"text": text}) if text else Document(values, Reason.CONTENT_MISSING)


def _lines(message: Message, results: Sequence[Segment]) -> Iterator[str]:
    """The text of the results in order. Their names (OBX-3) stand before them as headings when there are several.

    Pointers are left out, and files as well where running text stands beside them: they are another form of it. Raises UnusableError.
    """
    prosaic = any(_field(result, 2) in _TEXT_TYPES for result in results)
    left_out = (_POINTER, _ENCAPSULATED) if prosaic else (_POINTER,)
    results = [result for result in results if result.name == "NTE" or _field(result, 2) not in left_out]
    names = [_component(message, result, 3, 2) or _component(message, result, 3) if result.name == "OBX" else None for result in results]
    several = len(set(filter(None, names))) > 1
    last = None
    for result, name in zip(results, names, strict=True):
        prose = result.name == "NTE" or _field(result, 2) in (*_TEXT_TYPES, _ENCAPSULATED, _STRING)
        if several and prose and name and name != last:
            yield f"{name}:"
        if prose:
            last = name or last
            yield _prose(message, result)
        else:
            yield " ".join(filter(None, (f"{name or ''}:".lstrip(":"), _shown(message, result), _component(message, result, 6))))


def _prose(message: Message, result: Segment) -> str:
    if result.name == "NTE":
        return _unescaped(message, _field(result, 3))
    if _field(result, 2) == _ENCAPSULATED:
        return _encapsulated(message, result)
    text = _unescaped(message, _field(result, 5))
    return text_of(text.encode("utf-8", "replace"), "rtf") if text.startswith("{\\rtf") else text


def _shown(message: Message, result: Segment) -> str:
    """A coded value by its words, any other as it stands: `<^5` is "<5"."""
    parts = [_unescaped(message, part) for part in _field(result, 5).split(message.separators[1])]
    return (parts[1] or parts[0]) if _field(result, 2) in ("CE", "CWE", "CNE") and len(parts) > 1 else "".join(parts)


def _encapsulated(message: Message, result: Segment) -> str:
    """OBX-5 of type ED: source, type, subtype, encoding, data. Raises UnusableError."""
    parts = [*_field(result, 5).split(message.separators[1]), "", "", "", "", ""][:5]
    kind = _kind(parts[1].strip(), parts[2].strip())
    if kind is None:
        raise UnusableError(Reason.CONTENT_TYPE)
    plain = _unescaped(message, parts[4])
    data = unbase64(plain) if parts[3].strip().upper() == "BASE64" else plain.encode("utf-8", "replace")
    return text_of(data, kind, message.charset)


def _kind(main: str, subtype: str) -> str | None:
    """`TEXT^RTF`, `application^pdf`, and the whole MIME type in either component, which many senders write."""
    media = next((part for part in (main, subtype) if "/" in part), f"{_MEDIA.get(main.upper(), main) or 'text'}/{subtype or 'plain'}")
    kind = kind_of(media.lower())
    return kind if kind != "xml" else None


def _is_text(message: Message, result: Segment) -> bool:
    kind = _field(result, 2)
    words = len(_field(result, 5).split())
    return result.name == "OBX" and (kind in _TEXT_TYPES or kind == _ENCAPSULATED or (kind == _STRING and words >= _SENTENCE_WORDS))


def _first(message: Message, name: str) -> Segment | None:
    return next((segment for segment in message.segments if segment.name == name), None)


def _field(segment: Segment | None, number: int) -> str:
    return segment.fields[number - 1] if segment is not None and len(segment.fields) >= number else ""


def _component(message: Message, segment: Segment | None, number: int, component: int = 1) -> str | None:
    """One component of a field's first repetition, one-based, without subcomponents; None when blank."""
    first = _field(segment, number).split(message.separators[2])[0]
    parts = first.split(message.separators[1])
    part = parts[component - 1] if len(parts) >= component else ""
    return _unescaped(message, part.split(message.separators[4])[0]).strip().strip('"') or None


def _unescaped(message: Message, value: str) -> str:
    """A field as text: repetitions as lines, escape sequences resolved (HL7 2.5.1, 2.7), unknown ones as they stand."""
    _, component, repetition, escape, subcomponent = tuple(message.separators)
    letters = {"F": message.separators[0], "S": component, "T": subcomponent, "R": repetition, "E": escape, "H": "", "N": "", "P": escape}

    def resolve(found: re.Match[str]) -> str:
        sequence = found[1]
        if sequence[0] == ".":
            count = int(found[3] or 1) if found[2].lower() in ("sp", "sk") else 1
            return _BLANKS[found[2].lower()] * min(count, 80)
        if sequence[0] == "X":
            return decode(bytes.fromhex("".join(_HEX.findall(sequence[1:]))), message.charset)
        return letters.get(sequence, "")

    return clean(_escapes(escape).sub(resolve, value.replace(repetition, "\n")))


@lru_cache(maxsize=16)
def _escapes(escape: str) -> re.Pattern[str]:
    """Only sequences the standard knows, so that a lone backslash in a text does not swallow what follows it."""
    mark = re.escape(escape)
    dotted = r"\.((?i:sp|br|ce|in|ti|fi|nf|sk))[ ]?[+-]?(\d{1,4})?"
    return re.compile(
        rf"{mark}({dotted}|[FSTREHNP]|X(?:[0-9A-Fa-f]{{2}}){{1,64}}|[CM](?:[0-9A-Fa-f]{{2}}){{2,3}}|Z[A-Za-z0-9]{{0,8}}){mark}"
    )
