"""Synthetic notes with reference summaries and their records: `write_pairs`, for trying out training and evaluation.

A reference is one template filled with facts of the note's gold record: true by construction, and far more uniform than what people write.
A model that does well on it has learned the template.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import sample_draft as d
from pipeline.sample import compose
from pipeline.sample_patients import Visit
from schemas.record import RECORD_TYPE

_STRINGS = [pa.field(name, pa.string()) for name in ("note_id", "patient_id", "text", "reference")]
PAIRS_SCHEMA = pa.schema([*_STRINGS, pa.field("record", RECORD_TYPE)])
# One patient of five is for testing; all notes of a patient are on one side.
_SIDES = 5


def write_pairs(notes: int, output: Path, seed: int = 0) -> dict[str, int]:
    """Write `output/pairs/train.parquet` and `test.parquet` with clean notes of this seed; return the rows of each. Files are replaced."""
    rows: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    for number in range(notes):
        note = compose(seed, number)
        patient = note.visit.patient.id
        side = "test" if int(patient.lstrip("P") or 0) % _SIDES == _SIDES - 1 else "train"
        reference = summary_of(note.visit, note.record)
        row = {"note_id": note.note_id, "patient_id": patient, "text": note.text, "reference": reference, "record": note.record}
        rows[side].append(row)
    (output / "pairs").mkdir(parents=True, exist_ok=True)
    for side, table in rows.items():
        pq.write_table(pa.Table.from_pylist(table, schema=PAIRS_SCHEMA), output / "pairs" / f"{side}.parquet", compression="zstd")
    return {side: len(table) for side, table in rows.items()}


def summary_of(visit: Visit, record: dict[str, Any]) -> str:
    """Who came with what, what it is, what was begun, and what is next: only what the record says that the note says."""
    seen = visit.presentation
    present = [leaf["text"] for problem in record["problems"] if (leaf := problem.get("name")) and leaf["assertion"] == d.PRESENT]
    symptoms = [symptom for symptom in seen.symptoms if symptom in present]
    diagnosis = next((name for name in present if name.lower() in (seen.diagnosis.lower(), seen.short.lower())), "")
    begun = {dose.drug.name for dose in visit.prescribed}
    drugs = [" ".join(_texts(drug, "name", "dose", "frequency")) for drug in record["medications"] if drug["name"]["text"] in begun]
    plans = [" ".join(_texts(plan, "what", "when")) for plan in record["follow_up"]]
    parts = [
        f"{d.sentence_of(d.age_words(visit))} {d.sex_word(visit)}{f' with {_listed(symptoms)}' if symptoms else ''}.",
        f"{d.sentence_of(diagnosis)}." if diagnosis else "",
        f"Started on {_listed(drugs)}." if drugs else "",
        f"Next: {_listed(plans)}." if plans else "",
    ]
    return " ".join(part for part in parts if part)


def _texts(entity: dict[str, Any], *fields: str) -> list[str]:
    return [entity[field]["text"] for field in fields if entity.get(field)]


def _listed(words: Sequence[str]) -> str:
    """`a, b and c`, each once."""
    *most, last = dict.fromkeys(words)
    return f"{', '.join(most)} and {last}" if most else last
