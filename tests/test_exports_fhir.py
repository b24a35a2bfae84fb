"""FHIR: every kind of entity gives a valid resource, nothing is claimed that the note does not say, and the validator finds faults."""

from __future__ import annotations

import copy
import json
import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from pipeline.exporting.fhir_validation import References, check_lines, check_resource
from tests.export_notes import SHA256, TEXT, empty_record, entity, export_note, full_record, leaf
from transforms.exports import Absent, Target
from transforms.exports.fhir import device, fhir_shard, to_line
from transforms.exports.fhir_elements import codings, date_time, filled, narrative, quantity
from transforms.exports.shard import Exported, ExportNote, ExportSettings

FHIR = ExportSettings(Target.FHIR)
CANONICAL = FHIR.canonical


def resources(exported: Exported) -> list[dict[str, Any]]:
    return [json.loads(line) for part in exported.parts for line in part.data.decode().split("\n")[:-1]]


def exported(note: ExportNote | None = None, options: ExportSettings = FHIR) -> list[dict[str, Any]]:
    return resources(fhir_shard([note or export_note()], options))


def of_type(found: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [resource for resource in found if resource["resourceType"] == kind]


def of_problem(**given: Any) -> list[dict[str, Any]]:
    return exported(export_note(record=empty_record() | {"problems": [entity("problems", **given)]}))


def problems(notes: list[ExportNote], options: ExportSettings = FHIR) -> Counter[str]:
    """Everything that the validator says of an export of two shards and its devices."""
    references, found = References(), Counter[str]()
    shards = [fhir_shard(notes[::2], options), fhir_shard(notes[1::2], options)]
    for number, shard in enumerate(shards):
        for part in shard.parts:
            rows, wrong = check_lines(part.name, part.data, str(number), references)
            assert rows == part.rows
            found.update(wrong)
    lines = "".join(to_line(device(maker)) for maker in {m: None for shard in shards for m in shard.makers})
    return found + check_lines("Device", lines.encode(), None, references)[1] + references.unresolved()


def test_the_fullest_record_is_valid_and_all_references_resolve() -> None:
    assert problems([export_note(number) for number in range(1, 8)]) == Counter()


def test_an_empty_record_is_valid_and_still_has_its_summary() -> None:
    bare = dict.fromkeys(("patient_id", "encounter_id", "note_type", "written_at"))
    note = export_note(1, empty_record(), **bare, evidence=[], flags=[])
    assert problems([note, note]) == Counter()
    assert [r["resourceType"] for r in exported(note)] == ["Composition", "DocumentReference", "Provenance"]


def test_every_value_says_where_in_the_note_it_stands() -> None:
    places = Counter(leaf["start"] for field in full_record().values() for leaf in leaves_of(field))
    told: Counter[int] = Counter()
    for resource in exported():
        for extension in resource.get("extension", ()):
            if extension["url"] == f"{CANONICAL}/StructureDefinition/evidence":
                parts = {part["url"]: next(value for key, value in part.items() if key != "url") for part in extension["extension"]}
                assert parts["noteSha256"] == SHA256 and parts["assertion"]
                assert TEXT[parts["start"] : parts["end"]] in json.dumps(full_record(), ensure_ascii=False)
                told[parts["start"]] += 1
    follow_up = [leaf["start"] for leaf in leaves_of(full_record()["follow_up"])]
    assert told == places - Counter(follow_up)


def leaves_of(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        return [value] if "start" in value else [found for inner in value.values() for found in leaves_of(inner)]
    return [found for inner in value for found in leaves_of(inner)] if isinstance(value, list) else []


def test_all_that_a_machine_asserts_says_so_and_is_not_final() -> None:
    for resource in exported():
        labels = [label["code"] for label in resource.get("meta", {}).get("security", ())]
        assert labels == ([] if resource["resourceType"] in ("DocumentReference", "Provenance") else ["AIAST"])
        if resource["resourceType"] in ("Observation", "Composition"):
            assert resource["status"] == "preliminary"
        if "verificationStatus" in resource:
            assert resource["verificationStatus"]["coding"][0]["code"] != "confirmed"


@pytest.mark.parametrize(
    ("assertion", "verified", "clinical"),
    [
        ("present", "unconfirmed", "active"),
        ("possible", "provisional", "active"),
        ("historical", "unconfirmed", "inactive"),
        ("absent", "refuted", None),
    ],
)
def test_what_the_note_says_of_a_problem_is_its_status(assertion: str, verified: str, clinical: str | None) -> None:
    [condition] = of_type(of_problem(name=leaf("Gout", assertion)), "Condition")
    assert condition["verificationStatus"]["coding"][0]["code"] == verified
    assert condition.get("clinicalStatus", {}).get("coding", [{}])[0].get("code") == clinical


def test_a_problem_of_a_relative_is_never_the_patients() -> None:
    found = of_problem(name=leaf("Gout", "family"))
    assert not of_type(found, "Condition")
    [history] = of_type(found, "FamilyMemberHistory")
    assert history["condition"][0]["code"]["text"] == "Gout" and history["relationship"]["coding"][0]["code"] == "FAMMEMB"


def test_what_is_denied_can_be_left_out_and_is_counted() -> None:
    options = ExportSettings(Target.FHIR, absent=Absent.OMIT)
    shard = fhir_shard([export_note()], options)
    assert shard.left_out == {"absent problems": 1, "absent allergies": 1}
    assert "refuted" not in json.dumps(resources(shard))
    kept = {r["id"] for r in exported()}
    assert {r["id"] for r in resources(shard)} < kept, "what is left out must not move the ids of the others"
    assert problems([export_note(n) for n in (1, 2)], options) == Counter()


def test_entities_without_a_place_are_counted() -> None:
    record = empty_record() | {
        "medications": [entity("medications", name=leaf("aspirin", "family"))],
        "observations": [entity("observations", category="lab", name=leaf("Hb", "absent"))],
    }
    assert fhir_shard([export_note(record=record)], FHIR).left_out == {"family medications": 1, "absent observations": 1}


def test_no_known_allergies_is_no_allergy_to_something() -> None:
    none, penicillin, codeine = of_type(exported(), "AllergyIntolerance")
    assert none["code"]["coding"][0]["code"] == "no-known-medication-allergies" and none["code"]["text"] == "NKDA"
    assert penicillin["reaction"][0]["manifestation"][0]["text"] == "hives"
    assert codeine["verificationStatus"]["coding"][0]["code"] == "refuted"
    assert {a["clinicalStatus"]["coding"][0]["code"] for a in (none, penicillin)} == {"active"}


def test_numbers_and_units_belong_together() -> None:
    """A converted number never stands beside the unit that the note wrote."""
    _, _, pressure, temperature, saturation, pulse, haemoglobin = of_type(exported(), "Observation")
    assert [(c["valueQuantity"]["value"], c["valueQuantity"]["code"]) for c in pressure["component"]] == [(142, "mm[Hg]"), (88, "mm[Hg]")]
    assert temperature["valueQuantity"] == {"value": 37.3, "unit": "Cel", "system": "http://unitsofmeasure.org", "code": "Cel"}
    assert saturation["valueQuantity"] == {"value": 96}
    assert pulse["valueString"] == "regular"
    # Not known to be UCUM, so no code.
    assert haemoglobin["valueQuantity"] == {"value": 5.2, "comparator": "<", "unit": "g/dl"}
    assert haemoglobin["category"][0]["coding"][0]["code"] == "laboratory"


def test_a_dosage_keeps_its_words_beside_the_codes() -> None:
    metformin, warfarin, aspirin = of_type(exported(), "MedicationStatement")
    [dosage] = metformin["dosage"]
    assert dosage["text"] == "500 mg, by mouth, twice daily, for two weeks"
    assert dosage["timing"]["code"]["coding"][0]["code"] == "BID" and dosage["timing"]["code"]["text"] == "twice daily"
    assert dosage["doseAndRate"][0]["doseQuantity"] == {"value": 500, "unit": "mg"}
    assert [m["status"] for m in (metformin, warfarin, aspirin)] == ["active", "completed", "not-taken"]
    assert metformin["reasonCode"] == [{"text": "sugar"}]


def test_a_dose_with_a_ucum_unit_is_coded() -> None:
    record = full_record()
    record["medications"][0]["dose"] |= {"number": 0.5, "ucum": "{tbl}"}
    [dosage] = of_type(exported(export_note(record=record)), "MedicationStatement")[0]["dosage"]
    coded = {"value": 0.5, "unit": "{tbl}", "system": "http://unitsofmeasure.org", "code": "{tbl}"}
    assert dosage["doseAndRate"][0]["doseQuantity"] == coded


def test_codes_of_the_record_become_codings() -> None:
    gout = of_type(exported(), "Condition")[0]
    assert [(c["system"], c["code"]) for c in gout["code"]["coding"]] == [
        ("http://snomed.info/sct", "90560007"),
        (f"{CANONICAL}/CodeSystem/OMOP", "440674"),
        (f"{CANONICAL}/CodeSystem/House%20list", "G 1"),
    ]
    assert codings([{"system": "urn:oid:1.2.3", "code": "x"}, {"system": "LOINC", "code": " "}], CANONICAL) == [
        {"system": "urn:oid:1.2.3", "code": "x"}
    ]


def test_the_composition_holds_the_summary_escaped_and_lists_the_record() -> None:
    [composition] = of_type(exported(), "Composition")
    summary, *sections, follow_up = composition["section"]
    assert "Has &lt;gout&gt; &amp; takes metformin.<br/>Seen." in summary["text"]["div"]
    assert [section["title"] for section in sections] == ["Problems", "Medications", "Allergies", "Observations", "Procedures"]
    assert "Review, in six weeks" in follow_up["text"]["div"]
    assert {extension["url"].rsplit("/", 1)[1] for extension in composition["extension"]} == {"summary-evidence", "flag"}


def test_provenance_leads_from_every_resource_to_the_note_and_its_maker() -> None:
    found = exported()
    made = {f"{r['resourceType']}/{r['id']}" for r in found} - {
        f"{r['resourceType']}/{r['id']}" for r in found if r["resourceType"] in ("Provenance", "DocumentReference")
    }
    provenances = of_type(found, "Provenance")
    assert {target["reference"] for p in provenances for target in p["target"]} == made
    assert len({p["agent"][0]["who"]["reference"] for p in provenances}) == 2
    [document] = of_type(found, "DocumentReference")
    assert {p["entity"][0]["what"]["reference"] for p in provenances} == {f"DocumentReference/{document['id']}"}


def test_a_patient_system_of_ones_own() -> None:
    found = exported(options=ExportSettings(Target.FHIR, patient_system="urn:oid:1.2.3"))
    assert of_type(found, "Condition")[0]["subject"] == {"type": "Patient", "identifier": {"system": "urn:oid:1.2.3", "value": "p 1"}}


def test_ids_are_fhir_ids_unique_and_the_same_again() -> None:
    notes = [export_note(number) for number in range(1, 20)]
    ids = [r["id"] for r in resources(fhir_shard(notes, FHIR))]
    assert len(set(ids)) == len(ids) and all(re.fullmatch(r"[A-Za-z0-9.-]{1,64}", i) for i in ids)
    assert fhir_shard(notes, FHIR) == fhir_shard(notes, FHIR)


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("2025-03-04", "2025-03-04"),
        ("2025", "2025"),
        ("2025-03", "2025-03"),
        ("2025-03-04T08:00:00Z", "2025-03-04T08:00:00Z"),
        ("2025-03-04T08:00:00", "2025-03-04"),  # no zone, so no time
        ("2025-03-04 08:00", "2025-03-04"),
        ("2025-02-30", None),
        ("2025-13", None),
        ("31.11.2020", None),
        ("0000", None),
        ("", None),
        (None, None),
    ],
)
def test_dates_are_fhir_dates_or_none(text: str | None, known: str | None) -> None:
    assert date_time(text) == known


@pytest.mark.parametrize(
    ("text", "value"), [("7", 7), ("-2.5", -2.5), ("172.7 cm", 172.7), (">= 4", 4), ("1e5", None), ("007", None), ("5 to 6", None)]
)
def test_quantities_are_plain_numbers(text: str, value: float | None) -> None:
    assert (quantity(text) or {"value": None})["value"] == value


@given(st.text(st.characters(codec=None), max_size=40))
def test_any_text_gives_valid_resources(words: str) -> None:
    """Whatever characters a note has: control characters, lone surrogates, mark-up."""
    named = {"text": words, "start": 0, "end": len(words), "section": None, "assertion": "present", "normal": words}
    record = empty_record() | {
        "age": named,
        "problems": [entity("problems", {words: words}, name=named, onset=named)],
        "medications": [entity("medications", name=named, dose=named, frequency=named, route=named)],
        "observations": [entity("observations", category=words, name=named, value=named, unit=named)],
        "follow_up": [entity("follow_up", what=named)],
    }
    note = export_note(1, record, summary=words, patient_id=words, note_id=words, note_type=words, written_at=words)
    assert problems([note, export_note(2)]) == Counter()
    root = etree.fromstring(narrative([words])["div"])
    shown = "\n".join(root[0].itertext()) if words.strip() else ""
    assert set(shown) - {"\ufffd"} <= set(words) | {"\n"} and filled(words).strip()


BROKEN: list[tuple[str, Any]] = [
    ("status is not of its value set", lambda r: r.update(status="done")),
    ("status is missing", lambda r: r.pop("status")),
    ("code is missing", lambda r: r.pop("code")),
    ("an element is empty", lambda r: r.update(note=[])),
    ("colour: extra_forbidden", lambda r: r.update(colour="red")),
    ("id: string_pattern_mismatch", lambda r: r.update(id="under_score")),
    ("no label says that a machine asserted it", lambda r: r.pop("meta")),
    ("effectiveDateTime: datetime_from_date_parsing", lambda r: r.update(effectiveDateTime="2025-02-30")),
    ("a narrative is not XHTML", lambda r: r.update(text={"status": "generated", "div": "<div><p>a & b</p></div>"})),
    ("resource: value_error", lambda r: r.update(valueString="a")),
    ("resource of another type", lambda r: r.update(resourceType="Condition")),
    ("valueQuantity.comparator is not of its value set", lambda r: r["valueQuantity"].update(comparator="about")),
]


@pytest.mark.parametrize(("problem", "breaks"), BROKEN, ids=[name for name, _ in BROKEN])
def test_the_validator_finds_what_is_wrong(problem: str, breaks: Any) -> None:
    sound = of_type(exported(), "Observation")[-1]
    assert list(check_resource(copy.deepcopy(sound), "Observation", References())) == []
    broken = copy.deepcopy(sound)
    breaks(broken)
    assert problem in list(check_resource(broken, "Observation", References()))


def test_the_validator_finds_dangling_references_and_repeated_ids() -> None:
    references = References()
    first, second = (fhir_shard([export_note(number)], FHIR).parts for number in (1, 2))
    composition = next(part for part in first if part.name == "Composition")
    twice = composition.data * 2
    assert check_lines("Composition", twice, "a", references)[1] == {"Composition: id is not unique": 1}
    for part in second:
        check_lines(part.name, part.data, "b", references)
    lost = references.unresolved()
    assert lost["reference to a Device that is not there"] and lost["reference to a Condition that is not there"]
    assert lost["reference to a DocumentReference that is not there"] == 2  # of the first shard alone, told twice
