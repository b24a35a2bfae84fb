"""The small parts of FHIR R4 resources: concepts, quantities, dates, narratives, references, and where in the note a value stands."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape

from transforms.exports.shard import printable

Element = dict[str, Any]

TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
UCUM = "http://unitsofmeasure.org"
LOINC = "http://loinc.org"
ABSENT_REASON = "http://hl7.org/fhir/StructureDefinition/data-absent-reason"
# Says of a resource that a machine asserted it: HL7 AI Transparency on FHIR, http://hl7.org/fhir/uv/aitransparency
AI_ASSERTED = {"system": f"{TERMINOLOGY}/v3-ObservationValue", "code": "AIAST", "display": "Artificial Intelligence asserted"}
UNKNOWN = [{"url": ABSENT_REASON, "valueCode": "unknown"}]

# Names that people give to vocabularies -> their URIs in FHIR R4 (4.3.14).
_SYSTEMS = {
    "snomed": "http://snomed.info/sct", "snomedct": "http://snomed.info/sct", "sct": "http://snomed.info/sct", "loinc": LOINC,
    "rxnorm": "http://www.nlm.nih.gov/research/umls/rxnorm", "icd10": "http://hl7.org/fhir/sid/icd-10",
    "icd10cm": "http://hl7.org/fhir/sid/icd-10-cm", "icd9cm": "http://hl7.org/fhir/sid/icd-9-cm", "ucum": UCUM,
    "atc": "http://www.whocc.no/atc", "ndc": "http://hl7.org/fhir/sid/ndc", "cvx": "http://hl7.org/fhir/sid/cvx",
    "umls": "http://www.nlm.nih.gov/research/umls",
}  # fmt: skip
_URI = re.compile(r"(?:https?://|urn:)\S+")
_NUMBER = re.compile(r"(?P<sign>[<>]=?)?[ ]?(?P<number>-?(?:0|[1-9]\d{0,14})(?:\.\d{1,10})?)(?:[ ](?P<unit>\S{1,20}))?")
_DAY = re.compile(r"\d{4}(?:-\d\d(?:-\d\d)?)?")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?(?:Z|[+-]\d\d:\d\d)")
_UCUM_CODE = re.compile(r"[!-~]{1,40}")


def coding(system: str, code: str, display: str | None = None) -> Element:
    return {"system": system, "code": code} | ({"display": display} if display else {})


def concept(text: str, codings: Iterable[Element] = ()) -> Element:
    """A CodeableConcept of the words of the note, and codes where there are any."""
    found = list(codings)
    return ({"coding": found} if found else {}) | {"text": filled(text)}


def filled(text: str) -> str:
    """A FHIR string: printable, and not blank."""
    return printable(text) if text.strip() else "\ufffd"


def codings(codes: Iterable[Mapping[str, Any]] | None, canonical: str) -> list[Element]:
    """Codings of a record's codes. A vocabulary without a known URI gets one of ours."""
    return [
        coding(
            system_uri(str(code["system"]), canonical),
            printable(" ".join(str(code["code"]).split())),
            filled(code["display"]) if code.get("display") else None,
        )
        for code in codes or ()
        if code["system"] and str(code["code"] or "").strip()
    ]


def system_uri(name: str, canonical: str) -> str:
    name = printable(name)
    if _URI.fullmatch(name):
        return name
    return _SYSTEMS.get(re.sub(r"[^a-z0-9]", "", name.lower())) or f"{canonical}/CodeSystem/{quote(name, safe='')}"


def quantity(text: str, ucum: str | None = None, unit: str | None = None) -> Element | None:
    """The Quantity of a plain number, perhaps with a comparator before it or a UCUM unit behind it; None for anything else.

    `ucum`: the unit's code. `unit`: the unit as written, for one without a code.
    """
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        return None
    number = match["number"]
    found: Element = {"value": float(number) if "." in number else int(number)}
    if match["sign"]:
        found["comparator"] = match["sign"]
    code = ucum or match["unit"]
    # "/10" of a pain score is how it is written, not a unit.
    if code and _UCUM_CODE.fullmatch(code) and not code.startswith("/10"):
        return found | {"unit": code, "system": UCUM, "code": code}
    shown = code or unit
    return found | ({"unit": printable(shown)} if shown and shown.strip() else {})


def date_time(text: str | None) -> str | None:
    """A FHIR dateTime, None where the text is none. FHIR wants a time zone behind a time, so without one only the day is kept."""
    if not text:
        return None
    text = text.strip()
    try:
        if _DAY.fullmatch(text):
            date.fromisoformat(f"{text}-01-01"[:10] if len(text) < 10 else text)
            return text
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return text if _MOMENT.fullmatch(text) else moment.date().isoformat()


def instant(text: str | None) -> str | None:
    """A FHIR instant, which has a time and a zone."""
    found = date_time(text)
    return found if found and _MOMENT.fullmatch(found) else None


def narrative(paragraphs: Iterable[str]) -> Element:
    """Generated XHTML with everything escaped: one paragraph for each text, line breaks kept."""
    shown = (escape(filled(text)).replace("\r\n", "\n").replace("\n", "<br/>") for text in paragraphs)
    body = "".join(f"<p>{text}</p>" for text in shown)
    return {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{body}</div>'}


def logical(system: str, value: str, kind: str) -> Element:
    """A reference by identifier: it names what the export does not hold."""
    return {"type": kind, "identifier": {"system": system, "value": filled(value)}}


def local(kind: str, resource_id: str) -> Element:
    """A reference to a resource of the same export."""
    return {"reference": f"{kind}/{resource_id}"}


def stands_at(canonical: str, name: str, leaf: Mapping[str, Any], sha256: str, readers: Iterable[str]) -> Element:
    """The extension that says where in the note a value stands, in which section, what the note says of it and who read it.

    `start` and `end` are characters (Unicode code points) of the text whose UTF-8 bytes have that sha256, end exclusive.
    """
    parts: list[Element] = [
        {"url": "field", "valueCode": name},
        {"url": "start", "valueUnsignedInt": leaf["start"]},
        {"url": "end", "valueUnsignedInt": leaf["end"]},
        {"url": "noteSha256", "valueString": sha256},
    ]
    parts += [{"url": part, "valueString": printable(leaf[part])} for part in ("section", "assertion") if leaf.get(part)]
    parts += [{"url": "reader", "valueCode": reader} for reader in readers]
    return {"url": f"{canonical}/StructureDefinition/evidence", "extension": parts}
