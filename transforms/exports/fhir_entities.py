"""Entities of a record as FHIR R4 resources, one each. Nothing here was reviewed, so no status says that it was.

Assertions: present and historical problems and allergies are `unconfirmed`, possible problems `provisional`, denied ones `refuted` or left
out; a problem of a relative is a FamilyMemberHistory. Codes of vital signs are those of FHIR's own profile, in LOINC, which is free
(https://hl7.org/fhir/R4/observation-vitalsigns.html, https://loinc.org/license).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.record import Assertion
from transforms.exports import Absent
from transforms.exports.fhir_elements import (
    LOINC,
    TERMINOLOGY,
    UNKNOWN,
    Element,
    coding,
    codings,
    concept,
    date_time,
    filled,
    quantity,
    stands_at,
)
from transforms.exports.shard import leaves
from transforms.normalization import plain

Entity = Mapping[str, Any]
ABSENT, POSSIBLE, FAMILY, HISTORICAL = Assertion.ABSENT, Assertion.POSSIBLE, Assertion.FAMILY, Assertion.HISTORICAL


@dataclass(frozen=True, slots=True)
class Frame:
    """What all resources of one note share: whose it is, when it was written, which text the offsets belong to."""

    canonical: str
    absent: Absent
    subject: Element = field(repr=False)
    written: str | None = field(repr=False)
    sha256: str = field(repr=False)

    def of(self, entity: Entity, kind: str) -> Element:
        """A resource with the evidence of all its values."""
        readers = entity.get("readers") or ()
        found = [stands_at(self.canonical, name, leaf, self.sha256, readers) for name, leaf in leaves(entity)]
        return {"resourceType": kind, "extension": found}

    def named(self, entity: Entity, leaf: Mapping[str, Any]) -> Element:
        """The words of the note with the entity's codes."""
        return concept(leaf["text"], codings(entity.get("codes"), self.canonical))


def resource_of(name: str, entity: Entity, frame: Frame) -> Element | None:
    """The resource of one entity of the record's field `name`, without its id and meta; None where FHIR has no place for it."""
    make = _MAKERS.get(name)
    return make(entity, frame) if make else None


def _status(name: str, code: str) -> Element:
    return {"coding": [coding(f"{TERMINOLOGY}/{name}", code)]}


def _problem(entity: Entity, frame: Frame) -> Element | None:
    said = entity["name"]["assertion"]
    if said == FAMILY:
        return _family_history(entity, frame)
    if said == ABSENT and frame.absent is Absent.OMIT:
        return None
    found = frame.of(entity, "Condition")
    if said != ABSENT:
        found["clinicalStatus"] = _status("condition-clinical", "inactive" if said == HISTORICAL else "active")
    verified = {ABSENT: "refuted", POSSIBLE: "provisional"}.get(said, "unconfirmed")
    found |= {"verificationStatus": _status("condition-ver-status", verified), "code": frame.named(entity, entity["name"])}
    return found | {"subject": frame.subject} | _when("onset", entity["onset"])


def _family_history(entity: Entity, frame: Frame) -> Element:
    relative = concept("family member", [coding(f"{TERMINOLOGY}/v3-RoleCode", "FAMMEMB", "family member")])
    condition = {"code": frame.named(entity, entity["name"])}
    found = frame.of(entity, "FamilyMemberHistory")
    return found | {"status": "partial", "patient": frame.subject, "relationship": relative, "condition": [condition]}


def _when(name: str, leaf: Mapping[str, Any] | None) -> Element:
    """A date where the note gives a whole one, its words otherwise."""
    if leaf is None:
        return {}
    known = date_time(leaf["normal"] or leaf["text"])
    return {f"{name}DateTime": known} if known else {f"{name}String": filled(leaf["text"])}


_MEDICATION_STATUS = {ABSENT: "not-taken", POSSIBLE: "unknown", HISTORICAL: "completed"}


def _medication(entity: Entity, frame: Frame) -> Element | None:
    said = entity["name"]["assertion"]
    if said == FAMILY:
        return None
    found = frame.of(entity, "MedicationStatement")
    found |= {"status": _MEDICATION_STATUS.get(said, "active"), "medicationCodeableConcept": frame.named(entity, entity["name"])}
    found["subject"] = frame.subject
    if entity["reason"]:
        found["reasonCode"] = [concept(entity["reason"]["text"])]
    dosage = _dosage(entity)
    return found | ({"dosage": [dosage]} if dosage else {})


# Codes of a frequency as the record reader writes them -> those of HL7 v3 GTSAbbreviation, where they differ.
_TIMINGS = {"QAM": "AM", "QHS": "BED"}
_TIMING = re.compile(r"(?P<code>QD|BID|TID|QID|QOD|QAM|QHS|Q[1-8]H)?[ ]?(?P<needed>PRN)?")


def _dosage(entity: Entity) -> Element:
    """The words of dose, route, frequency and duration, and of each what FHIR can code."""
    written = [entity[name]["text"] for name in ("dose", "route", "frequency", "duration") if entity.get(name)]
    if not written:
        return {}
    found: Element = {"text": filled(", ".join(written))}
    if entity["frequency"]:
        found |= _timing(entity["frequency"])
    if entity["route"]:
        found["route"] = concept(entity["route"]["text"])
    dose = _dose(entity["dose"]) if entity["dose"] else None
    return found | ({"doseAndRate": [{"doseQuantity": dose}]} if dose else {})


def _dose(leaf: Mapping[str, Any]) -> Element | None:
    """A quantity in UCUM where the record has one; else that of the reader's normal form, of whose unit only the words are sure."""
    if leaf.get("ucum"):
        return quantity(plain(leaf["number"]), leaf["ucum"])
    said = quantity(leaf["normal"] or "") or {}
    return {key: said[key] for key in ("value", "unit") if key in said} or None


def _timing(leaf: Mapping[str, Any]) -> Element:
    match = _TIMING.fullmatch(leaf["normal"] or "")
    code = match["code"] if match else None
    known = [coding(f"{TERMINOLOGY}/v3-GTSAbbreviation", _TIMINGS.get(code, code))] if code else []
    return {"timing": {"code": concept(leaf["text"], known)}} | ({"asNeededBoolean": True} if match and match["needed"] else {})


_NONE_KNOWN = "no known allergies"
_OF_DRUGS = re.compile(r"nkd|drug|medic")
# HL7's own codes for "none known", free to use: International Patient Summary (CC0).
_IPS_ABSENT = "http://hl7.org/fhir/uv/ips/CodeSystem/absent-unknown-uv-ips"


def _allergy(entity: Entity, frame: Frame) -> Element | None:
    substance = entity["substance"]
    said, none_known = substance["assertion"], substance["normal"] == _NONE_KNOWN
    if said == FAMILY or (said == ABSENT and not none_known and frame.absent is Absent.OMIT):
        return None
    denied = said == ABSENT and not none_known
    found = frame.of(entity, "AllergyIntolerance")
    found["clinicalStatus"] = _status("allergyintolerance-clinical", "inactive" if denied or said == HISTORICAL else "active")
    found["verificationStatus"] = _status("allergyintolerance-verification", "refuted" if denied else "unconfirmed")
    found["code"] = _no_allergy(substance["text"]) if none_known else frame.named(entity, substance)
    found["patient"] = frame.subject
    if entity["reaction"]:
        found["reaction"] = [{"manifestation": [concept(entity["reaction"]["text"])]}]
    return found


def _no_allergy(text: str) -> Element:
    what = "medication allergies" if _OF_DRUGS.search(text.lower()) else "allergies"
    return concept(text, [coding(_IPS_ABSENT, f"no-known-{what.replace(' ', '-')}", f"No known {what}")])


_VITALS = {
    "blood_pressure": ("85354-9", "Blood pressure panel with all children optional"),
    "heart_rate": ("8867-4", "Heart rate"),
    "respiratory_rate": ("9279-1", "Respiratory rate"),
    "body_temperature": ("8310-5", "Body temperature"),
    "oxygen_saturation": ("2708-6", "Oxygen saturation in Arterial blood"),
    "body_weight": ("29463-7", "Body weight"),
    "body_height": ("8302-2", "Body height"),
    "body_mass_index": ("39156-5", "Body mass index (BMI) [Ratio]"),
    "pain_score": ("72514-3", "Pain severity - 0-10 verbal numeric rating [Score] - Reported"),
}
_PRESSURES = (("8480-6", "Systolic blood pressure"), ("8462-4", "Diastolic blood pressure"))
_CATEGORIES = {"vital": "vital-signs", "lab": "laboratory"}
_PAIR = re.compile(r"(\d{1,3})/(\d{1,3})")


def _observation(entity: Entity, frame: Frame) -> Element | None:
    name = entity["name"]
    if name["assertion"] in (ABSENT, FAMILY):
        return None
    found = frame.of(entity, "Observation") | {"status": "preliminary"}
    if entity["category"] in _CATEGORIES:
        found["category"] = [_status("observation-category", _CATEGORIES[entity["category"]])]
    known = [coding(LOINC, *_VITALS[name["normal"]])] if name["normal"] in _VITALS else []
    found["code"] = concept(name["text"], [*known, *codings(entity.get("codes"), frame.canonical)])
    return found | {"subject": frame.subject} | _effective(name["assertion"], frame) | _value(entity)


def _effective(said: str, frame: Frame) -> Element:
    """What is present was so when the note was written, as far as we know; of the rest we do not know when."""
    if frame.written and said not in (HISTORICAL, POSSIBLE):
        return {"effectiveDateTime": frame.written}
    return {"_effectiveDateTime": {"extension": UNKNOWN}}


def _value(entity: Entity) -> Element:
    """A quantity in the record's normal unit; of a pressure two; the words of the note where they are no number."""
    value, unit = entity["value"], entity["unit"]
    if value is None:
        return {"dataAbsentReason": _status("data-absent-reason", "unknown")}
    ucum, written = (unit["normal"], unit["text"]) if unit else (None, None)
    pair = _PAIR.fullmatch(value["normal"] or "") if entity["name"]["normal"] == "blood_pressure" else None
    if pair:
        values = zip(_PRESSURES, pair.groups(), strict=True)
        return {"component": [{"code": concept(code[1], [coding(LOINC, *code)]), "valueQuantity": quantity(n, ucum)} for code, n in values]}
    # A normal number goes with the normal unit only, a number as written with the unit as written.
    normal = quantity(value["normal"], ucum) if value["normal"] and (ucum or not unit) else None
    known = normal or quantity(value["text"], unit=written)
    return {"valueQuantity": known} if known else {"valueString": filled(f"{value['text']} {written}" if written else value["text"])}


_PROCEDURE_STATUS = {ABSENT: "not-done", POSSIBLE: "unknown"}


def _procedure(entity: Entity, frame: Frame) -> Element | None:
    said = entity["name"]["assertion"]
    if said == FAMILY:
        return None
    found = frame.of(entity, "Procedure") | {"status": _PROCEDURE_STATUS.get(said, "completed")}
    return found | {"code": frame.named(entity, entity["name"]), "subject": frame.subject} | _when("performed", entity["date"])


_AGE = re.compile(r"PT?(?P<value>\d{1,3})(?P<unit>[YMWDH])")
_AGE_UNITS = {"Y": "a", "M": "mo", "W": "wk", "D": "d", "H": "h"}


def _age(entity: Entity, frame: Frame) -> Element:
    leaf = entity["age"]
    match = _AGE.fullmatch(leaf["normal"] or "")
    known = quantity(match["value"], _AGE_UNITS[match["unit"]]) if match else None
    return _of_patient(entity, frame, ("30525-0", "Age")) | ({"valueQuantity": known} if known else {"valueString": filled(leaf["text"])})


def _sex(entity: Entity, frame: Frame) -> Element:
    leaf = entity["sex"]
    known = [coding("http://hl7.org/fhir/administrative-gender", leaf["normal"])] if leaf["normal"] in ("female", "male") else []
    return _of_patient(entity, frame, ("46098-0", "Sex")) | {"valueCodeableConcept": concept(leaf["text"], known)}


def _of_patient(entity: Entity, frame: Frame, code: tuple[str, str]) -> Element:
    found = frame.of(entity, "Observation") | {"status": "preliminary", "code": concept(code[1], [coding(LOINC, *code)])}
    return found | {"subject": frame.subject} | _effective("present", frame)


_MAKERS: dict[str, Callable[[Entity, Frame], Element | None]] = {
    "age": _age,
    "sex": _sex,
    "problems": _problem,
    "medications": _medication,
    "allergies": _allergy,
    "observations": _observation,
    "procedures": _procedure,
}
