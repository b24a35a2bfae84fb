"""A shard as FHIR R4 NDJSON, one file per resource type: the summary as a Composition, the record as clinical resources, and their making.

Every resource that we assert carries the security label AIAST; statuses are preliminary or unconfirmed. A Provenance per note and maker
names the DocumentReference that it was made from and the Device that made it. Patients and encounters are not in the export: references
name them by identifier. References to anything else resolve within the export.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from transforms.exports.fhir_elements import (
    AI_ASSERTED,
    TERMINOLOGY,
    UNKNOWN,
    Element,
    coding,
    concept,
    date_time,
    filled,
    instant,
    local,
    logical,
    narrative,
)
from transforms.exports.fhir_entities import Frame, resource_of
from transforms.exports.shard import Exported, ExportNote, ExportSettings, Maker, Part, entities

_TITLES = {
    "problems": "Problems", "medications": "Medications", "allergies": "Allergies", "observations": "Observations",
    "procedures": "Procedures",
}  # fmt: skip
# Told in the Composition in its own words.
_FOLLOW_UP = "follow_up"
Placed = list[tuple[str, Element]]


def fhir_shard(notes: Sequence[ExportNote], settings: ExportSettings) -> Exported:
    """The NDJSON files of a shard's notes. The Devices are not among them: pipeline.exporting writes each once."""
    lines: dict[str, list[str]] = {}
    left_out: Counter[str] = Counter()
    makers: dict[Maker, None] = {}
    for note in notes:
        for maker in (Maker.of(note.summary), Maker.of(note.record)):
            makers.setdefault(maker)
        for resource in note_resources(note, settings, left_out):
            lines.setdefault(resource["resourceType"], []).append(to_line(resource))
    parts = tuple(Part(kind, "ndjson", len(found), "".join(found).encode()) for kind, found in sorted(lines.items()))
    return Exported(parts, tuple(makers), left_out)


def to_line(resource: Mapping[str, Any]) -> str:
    return json.dumps(resource, ensure_ascii=False, separators=(",", ":")) + "\n"


def note_resources(note: ExportNote, settings: ExportSettings, left_out: Counter[str]) -> Iterator[Element]:
    """All resources of one note; counts in `left_out` what has no place in them."""
    frame = _frame(note, settings)
    source = _document(note, frame)
    placed = _clinical(note, frame, left_out)
    summary = _composition(note, frame, source, placed)
    yield source
    yield from (resource for _, resource in placed)
    yield summary
    yield _provenance(note, "summary", Maker.of(note.summary), [summary], source)
    if placed:
        yield _provenance(note, "record", Maker.of(note.record), [resource for _, resource in placed], source)


def _frame(note: ExportNote, settings: ExportSettings) -> Frame:
    patient = note.summary["patient_id"]
    system = settings.patient_system or f"{settings.canonical}/patient-id"
    subject = logical(system, patient, "Patient") if patient else {"extension": UNKNOWN}
    return Frame(settings.canonical, settings.absent, subject, date_time(note.summary["written_at"]), note.summary["note_sha256"])


def _headed(kind: str, resource_id: str, *labels: Element) -> Element:
    return {"resourceType": kind, "id": resource_id} | ({"meta": {"security": list(labels)}} if labels else {})


def _clinical(note: ExportNote, frame: Frame, left_out: Counter[str]) -> Placed:
    """(field of the record, resource) of every entity that has one."""
    placed, counts = Placed(), Counter[str]()
    for name, entity in entities(note.record):
        counts[name] += 1
        made = resource_of(name, entity, frame)
        if made is None and name != _FOLLOW_UP:
            said = next(value["assertion"] for value in entity.values() if isinstance(value, Mapping))
            left_out[f"{said} {name}"] += 1
        elif made is not None:
            # Numbered within its field, so that what is left out does not move the ids of the others.
            placed.append((name, _headed(made["resourceType"], f"{note.place}-{name}-{counts[name]}", AI_ASSERTED) | made))
    return placed


def _document(note: ExportNote, frame: Frame) -> Element:
    """The note that everything was made from, by its id and hash: the export does not hold its text."""
    row = note.summary
    found = _headed("DocumentReference", f"{note.place}-note") | {
        "extension": [{"url": f"{frame.canonical}/StructureDefinition/note-sha256", "valueString": frame.sha256}],
        "identifier": [{"system": f"{frame.canonical}/note-id", "value": filled(row["note_id"])}],
        "status": "current",
        "subject": frame.subject,
        "content": [{"attachment": {"contentType": "text/plain"}}],
    }
    if row["note_type"]:
        found["type"] = concept(row["note_type"])
    moment = instant(row["written_at"])
    context: Element = {"period": {"start": frame.written}} if frame.written else {}
    if row["encounter_id"]:
        context["encounter"] = [_encounter(row, frame)]
    return found | ({"date": moment} if moment else {}) | ({"context": context} if context else {})


def _encounter(row: Mapping[str, Any], frame: Frame) -> Element:
    return logical(f"{frame.canonical}/encounter-id", row["encounter_id"], "Encounter")


def _composition(note: ExportNote, frame: Frame, source: Element, placed: Placed) -> Element:
    row = note.summary
    found = _headed("Composition", f"{note.place}-summary", AI_ASSERTED) | {
        "extension": [*_cited(row, frame), *_flagged(row, frame)],
        "status": "preliminary",
        "type": concept("Summary of a clinical note"),
        "subject": frame.subject,
        "date": note.made_at,
        "author": [local("Device", Maker.of(row).device_id)],
        "title": "Summary of a clinical note, generated by a machine and not reviewed",
        "relatesTo": [{"code": "transforms", "targetReference": local("DocumentReference", source["id"])}],
        "section": [{"title": "Summary", "text": narrative([row["summary"] or ""])}, *_sections(note, placed)],
    }
    if row["encounter_id"]:
        found["encounter"] = _encounter(row, frame)
    return {key: value for key, value in found.items() if value != []}


def _sections(note: ExportNote, placed: Placed) -> Iterator[Element]:
    for name, title in _TITLES.items():
        entries = [local(made["resourceType"], made["id"]) for field, made in placed if field == name]
        if entries:
            yield {"title": title, "entry": entries}
    planned = note.record.get(_FOLLOW_UP) or ()
    if planned:
        yield {"title": "Follow-up", "text": narrative(_words(entity) for entity in planned)}


def _words(entity: Mapping[str, Any]) -> str:
    return ", ".join(entity[name]["text"] for name in ("what", "when") if entity.get(name))


def _cited(row: Mapping[str, Any], frame: Frame) -> Iterator[Element]:
    """Which characters of the note stand behind which of the summary."""
    numbers = ("summary_start", "summary_end", "source_start", "source_end")
    for evidence in row["evidence"] or ():
        parts: list[Element] = [{"url": _camel(n), "valueUnsignedInt": evidence[n]} for n in numbers if evidence[n] is not None]
        parts += [{"url": "kind", "valueCode": evidence["kind"]}, {"url": "noteSha256", "valueString": frame.sha256}]
        yield {"url": f"{frame.canonical}/StructureDefinition/summary-evidence", "extension": parts}


def _flagged(row: Mapping[str, Any], frame: Frame) -> Iterator[Element]:
    """Reasons to look twice at the summary."""
    for flag in row["flags"] or ():
        parts: list[Element] = [{"url": "code", "valueCode": flag["code"]}]
        parts += [{"url": name, "valueUnsignedInt": flag[name]} for name in ("start", "end") if flag[name] is not None]
        yield {"url": f"{frame.canonical}/StructureDefinition/flag", "extension": parts}


def _camel(name: str) -> str:
    first, _, rest = name.partition("_")
    return first + rest.title()


def _provenance(note: ExportNote, of: str, maker: Maker, targets: Iterable[Element], source: Element) -> Element:
    assembler = concept("Assembler", [coding(f"{TERMINOLOGY}/provenance-participant-type", "assembler", "Assembler")])
    return _headed("Provenance", f"{note.place}-{of}-made") | {
        "target": [local(made["resourceType"], made["id"]) for made in targets],
        "recorded": note.made_at,
        "activity": concept("summarization" if of == "summary" else "information extraction"),
        "agent": [{"type": assembler, "who": local("Device", maker.device_id)}],
        "entity": [{"role": "source", "what": local("DocumentReference", source["id"])}],
    }


def device(maker: Maker) -> Element:
    """The model, or the rules, behind other resources."""
    said = {"model sha256": maker.model_sha256, "backend": maker.backend, "dtype": maker.dtype, "decode settings": maker.decode}
    found = _headed("Device", maker.device_id) | {
        "status": "active",
        "deviceName": [{"name": filled(maker.model_id), "type": "model-name"}],
        "type": concept("Software that reads clinical notes; its output is not reviewed by a person"),
        "version": [{"type": concept("chartmill"), "value": filled(maker.code_version)}],
    }
    properties = [{"type": concept(name), "valueCode": [concept(value)]} for name, value in said.items() if value]
    return found | ({"property": properties} if properties else {})
