"""C-CDA and other CDA Release 2 documents: the narrative that a person reads and signs, section by section.

Entries, the coded half of a document, are left aside: the narrative is the attested content (CDA Release 2, 1.2.3).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lxml import etree

from schemas.rejection import Reason
from transforms.formats import Document
from transforms.formats.content import UnusableError, charset_of, clean, kind_of, text_of, unbase64
from transforms.formats.markup import local_name, narrative_text
from transforms.formats.timestamps import iso_time

_DOCUMENT = "clinicaldocument"


def documents(data: bytes) -> Iterator[Document]:
    """Each ClinicalDocument of an XML file. Never raises.

    XML that cannot be read is one document with the problem CONTENT_UNREADABLE; XML of another kind one with CONTENT_TYPE.
    """
    try:
        roots = _clinical_documents(data)
    except UnusableError as error:
        yield Document({}, error.reason)
        return
    for root in roots:
        yield _note(root)


def cda_text(data: bytes) -> str:
    """The text of the first clinical document in `data`. Raises UnusableError."""
    return _body_text(_clinical_documents(data)[0])


def _clinical_documents(data: bytes) -> list[Any]:
    """The outermost ClinicalDocument elements. Raises UnusableError."""
    root = _parse(data)
    if local_name(root) == _DOCUMENT:
        return [root]
    found = [element for element in root.iter() if local_name(element) == _DOCUMENT and not _inside_document(element)]
    if not found:
        raise UnusableError(Reason.CONTENT_TYPE)
    return found


def _inside_document(element: Any) -> bool:
    return any(local_name(ancestor) == _DOCUMENT for ancestor in element.iterancestors())


def _parse(data: bytes) -> Any:
    """The root of an XML document, with no DTD, no entity and no network.

    The parser's own limits stay on: 256 levels, 10 million characters in one piece of text. A document that uses entities of its own is
    refused, since its text would lack them. Raises UnusableError.
    """
    parser = etree.XMLParser(
        resolve_entities=False,
        load_dtd=False,
        dtd_validation=False,
        no_network=True,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(data.lstrip(b" \t\r\n\x00"), parser)
    except (etree.LxmlError, ValueError, LookupError):
        raise UnusableError(Reason.CONTENT_UNREADABLE) from None
    if root is None or next(root.iter(etree.Entity), None) is not None:
        raise UnusableError(Reason.CONTENT_UNREADABLE)
    return root


def _note(root: Any) -> Document:
    values = _values(root)
    try:
        return Document(values | {"text": _body_text(root)})
    except UnusableError as error:
        return Document(values, error.reason)


def _values(root: Any) -> dict[str, str | None]:
    code = next(_find(root, "code"), None)
    kind = next(_find(root, "title"), None)
    title = "".join(kind.itertext()) if kind is not None else ""
    return {
        "note_id": _identity(root, "id"),
        "text": None,
        "patient_id": _number(root, "recordTarget", "patientRole", "id"),
        "encounter_id": _number(root, "componentOf", "encompassingEncounter", "id"),
        "note_type": " ".join(title.split()) or _attribute(code, "displayName"),
        "written_at": iso_time(_attribute(next(_find(root, "effectiveTime"), None), "value")),
        "language": _attribute(next(_find(root, "languageCode"), None), "code"),
        "type_code": f"{_attribute(code, 'codeSystem') or ''}|{_attribute(code, 'code')}" if _attribute(code, "code") else None,
    }


def _number(root: Any, *path: str) -> str | None:
    """The first identifier that is not null: its extension, which is the number a hospital uses, else its root."""
    for identity in _find(root, *path):
        number = _attribute(identity, "extension") or _attribute(identity, "root")
        if number and identity.get("nullFlavor") is None:
            return number
    return None


def _identity(root: Any, *path: str) -> str | None:
    """An instance identifier as `root^extension`; unique only as a pair (HL7 data type II)."""
    for identity in _find(root, *path):
        parts = [part for name in ("root", "extension") if (part := _attribute(identity, name))]
        if parts and identity.get("nullFlavor") is None:
            return "^".join(parts)
    return None


def _body_text(root: Any) -> str:
    """Raises UnusableError."""
    unstructured = next(_find(root, "component", "nonXMLBody", "text"), None)
    text = _structured(root) if unstructured is None else _unstructured(unstructured)
    if not text:
        raise UnusableError(Reason.CONTENT_MISSING)
    return text


def _structured(root: Any) -> str:
    """Titles and narratives of all sections, in document order: a section within another follows what the outer one says itself."""
    pieces: list[str] = []
    for body in _find(root, "component", "structuredBody"):
        for section in _sections(body):
            pieces += [*_section_lines(section), ""]
    return clean("\n".join(pieces)).strip()


def _sections(parent: Any) -> Iterator[Any]:
    for section in _find(parent, "component", "section"):
        yield section
        yield from _sections(section)


def _section_lines(section: Any) -> Iterator[str]:
    for title in _find(section, "title"):
        if words := " ".join("".join(title.itertext()).split()):
            yield words.rstrip(" :") + ":"
    for text in _find(section, "text"):
        yield narrative_text(text)


def _unstructured(element: Any) -> str:
    """A body that is a file of its own: text, HTML or RTF, in base64 or as it is. Raises UnusableError."""
    media_type = element.get("mediaType")
    kind = kind_of(media_type)
    if kind in (None, "xml"):
        raise UnusableError(Reason.CONTENT_TYPE)
    content = "".join(element.itertext())
    encoded = (element.get("representation") or "").upper() == "B64"
    if not content.strip():
        raise UnusableError(Reason.CONTENT_MISSING)
    return text_of(
        unbase64(content) if encoded else content.encode("utf-8"), str(kind), charset_of(media_type) if encoded else "utf-8"
    ).strip()


def _find(element: Any, *path: str) -> Iterator[Any]:
    """Descendants along a path of child names, whatever their namespace."""
    if not path:
        yield element
        return
    for child in element:
        if local_name(child) == path[0].lower():
            yield from _find(child, *path[1:])


def _attribute(element: Any, name: str) -> str | None:
    value = element.get(name) if element is not None else None
    return clean(value).strip() or None if value else None
