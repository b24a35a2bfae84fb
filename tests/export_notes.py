"""Notes as an export gets them: rows of summaries and records with every kind of entity and assertion, written for these tests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from schemas.record import LEAF, RECORD_FIELDS
from schemas.summary import PROVENANCE_FIELDS, SUMMARY_SCHEMA
from transforms.exports.shard import ExportNote

TEXT = (
    "Anna is 52 years old, female. BP 142/88 mmHg, temp 99.1 F, sats 96, pulse regular. Hb <5.2 g/dl. "
    "Gout since 2015, possible sarcoid, no diabetes, old shingles; mother had <glaucoma> & stroke. "
    "Metformin 500 mg by mouth twice daily for two weeks for sugar, stopped warfarin, not on aspirin. "
    "NKDA. Penicillin gave hives, but not codeine. Appendicectomy 2019-04-13, no bypass. Review in six weeks."
)
SHA256 = hashlib.sha256(TEXT.encode()).hexdigest()


def leaf(words: str, assertion: str = "present", normal: str | None = None, section: str | None = None) -> dict[str, Any]:
    """The first place of these words in TEXT."""
    start = TEXT.index(words)
    return {"text": words, "start": start, "end": start + len(words), "section": section, "assertion": assertion, "normal": normal}


def entity(field: str, codes: Mapping[str, str] | None = None, readers: tuple[str, ...] = ("rules",), **given: Any) -> dict[str, Any]:
    """An entity of that field of the record: what is not given is null."""
    inner = next(f.type.value_type for f in RECORD_FIELDS if f.name == field)
    empty = dict.fromkeys(inner.field(index).name for index in range(inner.num_fields))
    return {**empty, **given, "codes": [{"system": s, "code": c} for s, c in (codes or {}).items()], "readers": list(readers)}


def full_record() -> dict[str, Any]:
    return {
        "age": leaf("52 years", normal="P52Y"),
        "sex": leaf("female", normal="female"),
        "problems": [
            entity("problems", {"SNOMED": "90560007", "OMOP": "440674", "House list": "G 1"}, name=leaf("Gout"), onset=leaf("2015")),
            entity("problems", name=leaf("sarcoid", "possible")),
            entity("problems", name=leaf("diabetes", "absent")),
            entity("problems", name=leaf("shingles", "historical", section="past_medical_history")),
            entity("problems", name=leaf("<glaucoma> & stroke", "family")),
        ],
        "medications": [
            entity(
                "medications",
                readers=("rules", "model"),
                name=leaf("Metformin"),
                dose=leaf("500 mg", normal="500 mg"),
                route=leaf("by mouth", normal="oral"),
                frequency=leaf("twice daily", normal="BID"),
                duration=leaf("for two weeks"),
                reason=leaf("sugar"),
            ),
            entity("medications", name=leaf("warfarin", "historical")),
            entity("medications", name=leaf("aspirin", "absent")),
        ],
        "allergies": [
            entity("allergies", substance=leaf("NKDA", "absent", "no known allergies")),
            entity("allergies", substance=leaf("Penicillin"), reaction=leaf("hives")),
            entity("allergies", substance=leaf("codeine", "absent")),
        ],
        "observations": [
            entity(
                "observations",
                category="vital",
                name=leaf("BP", normal="blood_pressure"),
                value=leaf("142/88", normal="142/88"),
                unit=leaf("mmHg", normal="mm[Hg]"),
            ),
            entity(
                "observations",
                category="vital",
                name=leaf("temp", normal="body_temperature"),
                value=leaf("99.1", normal="37.3"),
                unit=leaf("F", normal="Cel"),
            ),
            entity(
                "observations", category="vital", name=leaf("sats", normal="oxygen_saturation"), value=leaf("96", normal="96"), unit=None
            ),
            entity("observations", category="vital", name=leaf("pulse", normal="heart_rate"), value=leaf("regular")),
            entity("observations", category="lab", name=leaf("Hb"), value=leaf("<5.2"), unit=leaf("g/dl")),
        ],
        "procedures": [
            entity("procedures", name=leaf("Appendicectomy"), date=leaf("2019-04-13", normal="2019-04-13")),
            entity("procedures", name=leaf("bypass", "absent")),
        ],
        "follow_up": [entity("follow_up", what=leaf("Review"), when=leaf("in six weeks"))],
    }


def empty_record() -> dict[str, Any]:
    return {field.name: None if field.type == LEAF else [] for field in RECORD_FIELDS}


def export_note(number: int = 1, record: Mapping[str, Any] | None = None, **summary: Any) -> ExportNote:
    """A note with the fullest record, or another one; `summary`: columns of its summary's row."""
    made = dict.fromkeys((field.name for field in PROVENANCE_FIELDS), "x") | {"ai_generated": True, "review_status": "unreviewed"}
    made |= {"model_sha256": "ab" * 32, "code_version": "0.1.0", "version": "v0123456789ab", "decode": "{}"}
    place = {"note_id": f"n{number}", "source_file": 0, "source_row": number - 1, "note_sha256": SHA256}
    row = {**dict.fromkeys(SUMMARY_SCHEMA.names), **place, **made, "model_id": "default", "summary": "Has <gout> & takes metformin.\nSeen."}
    row |= {"patient_id": "p 1", "encounter_id": "e1", "note_type": "Letter", "written_at": "2025-03-04"}
    row["evidence"] = [{"summary_start": 0, "summary_end": 9, "source_start": 3, "source_end": 7, "score": 0.5, "kind": "lexical"}]
    row["flags"] = [{"code": "LOW_COVERAGE", "start": None, "end": None, "source_start": None, "source_end": None}]
    record = {**place, **made, "model_id": "rules", **(full_record() if record is None else record)}
    return ExportNote(f"{number:032x}", number, "2026-01-02T03:04:05+00:00", {**row, **summary}, record)
