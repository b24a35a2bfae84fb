"""FHIR resources that are notes, from R4 on: DocumentReference, DiagnosticReport with a presented form, Composition.

Plain dictionaries all the way: real exports break the specification, and a resource with a wrong type in one element still has its text.
What it does not know: content behind a URL that is not in the same bundle.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from schemas.rejection import Reason
from transforms.formats import Document
from transforms.formats.ccda import cda_text
from transforms.formats.content import KINDS, UnusableError, charset_of, clean, decode, kind_of, text_of, unbase64
from transforms.formats.markup import html_to_text
from transforms.formats.nesting import on_free_stack

Resource = Mapping[str, Any]

_DECODER = json.JSONDecoder()
_BLANKS = " \t\r\n"
_BETWEEN = re.compile(f"[{_BLANKS}]*")
_NOTES = frozenset(("DocumentReference", "DiagnosticReport", "Composition"))
_WITHDRAWN = "entered-in-error"


def documents(data: bytes) -> Iterator[Document]:
    """The notes of a JSON file, in order: a Bundle of any type, bundles in bundles, a list, a single resource, or several of these.

    Never raises: from where JSON cannot be read on, the rest is one document with the problem CONTENT_UNREADABLE, and after it those lines
    of the rest that are an object each.
    """
    text = decode(data, json.detect_encoding(data)).strip(_BLANKS)
    position = 0
    try:
        while position < len(text) or position == 0:
            root, position = on_free_stack(_DECODER.raw_decode, text, position)
            yield from _notes(root)
            position = _BETWEEN.match(text, position).end()  # type: ignore[union-attr]
    except (ValueError, RecursionError):
        yield Document({}, Reason.CONTENT_UNREADABLE)
        yield from _salvaged(text[position:])


def _salvaged(text: str) -> Iterator[Document]:
    """The notes of the lines that are a resource by themselves, of a text that is broken somewhere."""
    for line in text.split("\n"):
        try:
            root = on_free_stack(_DECODER.decode, line) if line.startswith("{") else None
        except (ValueError, RecursionError):
            continue
        yield from _notes(root)


def document(resource: Resource) -> Document | None:
    """The note of one resource that stands alone, None when it is none. Never raises.

    A Bundle may stand for one note; one with several is set aside as LINE_MALFORMED, since a line is one note.
    """
    first, *others = (*islice(_notes(resource), 2), None)
    return Document({}, Reason.LINE_MALFORMED) if others and others[0] else first


def _notes(root: Any) -> Iterator[Document]:
    found = list(_resources(root))
    binaries = {key: resource for url, resource in found if _text(resource, "resourceType") == "Binary" for key in _keys(url, resource)}
    for _, resource in found:
        note = _note(resource, binaries)
        if note is not None:
            yield note


def _resources(root: Any) -> Iterator[tuple[str | None, Resource]]:
    """(fullUrl, resource) of everything that is no bundle, in order; with a stack, for bundles may be nested deep."""
    stack: list[tuple[str | None, Any]] = [(None, resource) for resource in reversed(_dicts(root))]
    while stack:
        url, resource = stack.pop()
        if not isinstance(resource, dict):
            continue
        if resource.get("resourceType") == "Bundle":
            stack.extend((_text(entry, "fullUrl"), entry.get("resource")) for entry in reversed(_dicts(resource.get("entry"))))
        else:
            yield url, resource


def _keys(url: str | None, binary: Resource) -> Iterator[str]:
    """What a reference to a Binary may be called."""
    if url:
        yield url
    if identity := _text(binary, "id"):
        yield f"Binary/{identity}"


def _note(resource: Resource, binaries: Mapping[str, Resource]) -> Document | None:
    kind = _text(resource, "resourceType")
    forms = _dicts(resource.get("presentedForm"))
    # Without a presented form a report is a set of results; its conclusion alone is one sentence, a summary already.
    if kind not in _NOTES or (kind == "DiagnosticReport" and not forms):
        return None
    values = _values(resource, resource.get("code" if kind == "DiagnosticReport" else "type"))
    if _WITHDRAWN in (values["status"], values["docStatus"]):
        return Document(values, Reason.WITHDRAWN)
    contents = [attachment for content in _dicts(resource.get("content")) for attachment in _dicts(content.get("attachment"))]
    try:
        text = _composed(resource) if kind == "Composition" else _best(forms or contents, resource, binaries)
    except UnusableError as error:
        return Document(values, error.reason)
    return Document(values | {"text": text})


def _values(resource: Resource, kind: Any) -> dict[str, str | None]:
    """All that is known of a note but its text; `kind` is the CodeableConcept that names it. No author: no step needs that name."""
    return {
        "note_id": _text(resource, "id") or _identifier(resource.get("masterIdentifier")) or _identifier(resource.get("identifier")),
        "text": None,
        "patient_id": _referred(resource.get("subject")),
        "encounter_id": _encounter(resource),
        "note_type": _concept(kind),
        "written_at": _written_at(resource),
        "status": _text(resource, "status"),
        "docStatus": _text(resource, "docStatus"),
        "language": _text(resource, "language"),
        "type_code": _code(kind),
    }


def _best(attachments: Iterable[Resource], resource: Resource, binaries: Mapping[str, Resource]) -> str:
    """The text of the first attachment that has one, best kind first: FHIR has them hold the same content. Raises UnusableError."""
    problems = []
    for attachment in sorted(attachments, key=_rank):
        try:
            return _attached(attachment, resource, binaries)
        except UnusableError as error:
            problems.append(error.reason)
    raise UnusableError(problems[0] if problems else Reason.CONTENT_MISSING)


def _rank(attachment: Resource) -> int:
    kind = kind_of(_text(attachment, "contentType"))
    return KINDS.index(kind) if kind else len(KINDS)


def _attached(attachment: Resource, resource: Resource, binaries: Mapping[str, Resource]) -> str:
    binary = _binary(_text(attachment, "url"), resource, binaries)
    media_type = _text(attachment, "contentType") or _text(binary, "contentType")
    kind = kind_of(media_type)
    if kind is None:
        raise UnusableError(Reason.CONTENT_TYPE)
    # `content` is how Binary was spelled up to R3.
    encoded = _text(attachment, "data") or _text(binary, "data") or _text(binary, "content")
    if encoded is None:
        raise UnusableError(Reason.CONTENT_MISSING)
    data = unbase64(encoded)
    return cda_text(data) if kind == "xml" else text_of(data, kind, charset_of(media_type))


def _binary(url: str | None, resource: Resource, binaries: Mapping[str, Resource]) -> Resource:
    """The Binary that a URL names: contained in the resource (#id), or in the same bundle. Empty when it is elsewhere."""
    if not url:
        return {}
    if url.startswith("#"):
        return next((inner for inner in _dicts(resource.get("contained")) if inner.get("id") == url[1:]), {})
    url = url.partition("/_history/")[0]
    relative = "/".join(url.split("/")[-2:])
    return binaries.get(url) or binaries.get(relative) or {}


def _composed(composition: Resource) -> str:
    """Titles and narratives of a composition's sections, in order, nested ones after the one that holds them. Raises UnusableError."""
    pieces: list[str] = []
    stack = list(reversed(_dicts(composition.get("section"))))
    while stack:
        section = stack.pop()
        title = _text(section, "title")
        pieces += [f"{title.rstrip(' :')}:"] if title else []
        pieces += [_narrative(section), ""]
        stack.extend(reversed(_dicts(section.get("section"))))
    text = "\n".join(pieces).strip()
    if not text:
        raise UnusableError(Reason.CONTENT_MISSING)
    return text


def _narrative(section: Resource) -> str:
    try:
        return html_to_text(_text(section.get("text"), "div") or "")
    except ValueError:
        raise UnusableError(Reason.CONTENT_UNREADABLE) from None


def _encounter(resource: Resource) -> str | None:
    """`encounter` (DiagnosticReport, Composition), `context.encounter` (DocumentReference R4) or `context` (DocumentReference R5)."""
    context = resource.get("context")
    inner = context.get("encounter") if isinstance(context, dict) else context
    for reference in [*_dicts(resource.get("encounter")), *_dicts(inner)]:
        if "EpisodeOfCare" not in (_text(reference, "reference") or "") and (identity := _referred(reference)):
            return identity
    return None


def _written_at(resource: Resource) -> str | None:
    """When it was written, else when the care it tells of began, else when it was issued."""
    context = resource.get("context")
    period = context.get("period") if isinstance(context, dict) else resource.get("period")
    direct, issued = _text(resource, "date"), _text(resource, "issued")
    return (
        direct
        or _text(period, "start")
        or _text(resource, "effectiveDateTime")
        or _text(resource.get("effectivePeriod"), "start")
        or issued
    )


def _referred(reference: Any) -> str | None:
    """The last part of a reference: `Patient/7` and `urn:uuid:7` give 7; else the value of its identifier."""
    target = (_text(reference, "reference") or "").partition("/_history/")[0]
    last = target.rpartition("/")[2].rpartition(":")[2].lstrip("#")
    return last or (_identifier(reference.get("identifier")) if isinstance(reference, dict) else None)


def _identifier(value: Any) -> str | None:
    return next((text for item in _dicts(value) if (text := _text(item, "value"))), None)


def _concept(concept: Any) -> str | None:
    """A CodeableConcept in words: its text, else the first display, else the first code."""
    codings = _codings(concept)
    display = next((text for coding in codings if (text := _text(coding, "display"))), None)
    return _text(concept, "text") or display or next((text for coding in codings if (text := _text(coding, "code"))), None)


def _code(concept: Any) -> str | None:
    """The first coding of a CodeableConcept as `system|code`."""
    for coding in _codings(concept):
        if code := _text(coding, "code"):
            return f"{_text(coding, 'system') or ''}|{code}"
    return None


def _codings(concept: Any) -> list[Resource]:
    return _dicts(concept.get("coding")) if isinstance(concept, dict) else []


def _dicts(value: Any) -> list[Resource]:
    """The objects of a list; one object counts as a list of one, anything else as none."""
    values = value if isinstance(value, list) else [value]
    return [item for item in values if isinstance(item, dict)]


def _text(value: Any, key: str) -> str | None:
    """The string under `key` without surrounding blanks, None when there is none (or no object to look in)."""
    found = value.get(key) if isinstance(value, dict) else None
    return (clean(found).strip() or None) if isinstance(found, str) else None
