"""A shard as NOTE_NLP of the OMOP Common Data Model 5.4: one row per entity of the record, and a table of what the integer note ids mean.

Columns, types and widths are those of https://ohdsi.github.io/CommonDataModel/cdm54.html#note_nlp, but for note_nlp_id, which takes 64
bits: it is made from the note's number, so that shards need not know of each other. Concepts are 0 unless the record has codes of a
system named OMOP, which are concept ids. No snippet: outputs of a run do not hold the note's text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from schemas.errors import ChartmillError
from schemas.record import Assertion
from transforms.exports import TableFormat
from transforms.exports.csv_files import csv_bytes
from transforms.exports.shard import Exported, ExportNote, ExportSettings, Maker, Part, entities, leaves, printable
from transforms.parquet import to_parquet

# Characters of the varchar columns.
WIDTHS = {
    "snippet": 250,
    "offset": 50,
    "lexical_variant": 250,
    "nlp_system": 250,
    "term_exists": 1,
    "term_temporal": 50,
    "term_modifiers": 2000,
}
NOTE_NLP = pa.schema(
    [
        pa.field("note_nlp_id", pa.int64(), nullable=False),
        pa.field("note_id", pa.int32(), nullable=False),
        pa.field("section_concept_id", pa.int32()),
        pa.field("snippet", pa.string()),
        pa.field("offset", pa.string()),
        pa.field("lexical_variant", pa.string(), nullable=False),
        pa.field("note_nlp_concept_id", pa.int32()),
        pa.field("note_nlp_source_concept_id", pa.int32()),
        pa.field("nlp_system", pa.string()),
        pa.field("nlp_date", pa.date32(), nullable=False),
        pa.field("nlp_datetime", pa.timestamp("us")),
        pa.field("term_exists", pa.string()),
        pa.field("term_temporal", pa.string()),
        pa.field("term_modifiers", pa.string()),
    ]
)
NOTE_ID_MAP = pa.schema(
    [
        pa.field("note_id", pa.int32(), nullable=False),
        pa.field("note_source_value", pa.string(), nullable=False),
        pa.field("person_source_value", pa.string()),
        pa.field("note_sha256", pa.string(), nullable=False),
    ]
)
SCHEMAS = {"note_nlp": NOTE_NLP, "note_id_map": NOTE_ID_MAP}
LARGEST_INTEGER = 2**31 - 1
# More than a note can hold: the contract's longest note has 200,000 characters.
TERMS_PER_NOTE = 1 << 18


def omop_shard(notes: Sequence[ExportNote], settings: ExportSettings) -> Exported:
    """The two tables of a shard. Raises ChartmillError when the notes' numbers outgrow OMOP's integer."""
    altered: Counter[str] = Counter()
    rows = {"note_nlp": [row for note in notes for row in note_rows(note, altered)], "note_id_map": [_map_row(note) for note in notes]}
    parts = tuple(_part(name, rows[name], settings.table_format) for name in SCHEMAS if rows[name])
    return Exported(parts, altered=altered)


def _part(name: str, rows: list[dict[str, Any]], table_format: TableFormat) -> Part:
    if table_format is TableFormat.PARQUET:
        return Part(name, "parquet", len(rows), to_parquet(pa.Table.from_pylist(rows, schema=SCHEMAS[name])))
    header = SCHEMAS[name].names
    return Part(name, "csv", len(rows), csv_bytes(header, ([row[column] for column in header] for row in rows)))


def _map_row(note: ExportNote) -> dict[str, Any]:
    row = note.summary
    patient = row["patient_id"]
    return {
        "note_id": _integer(note.number),
        "note_source_value": printable(row["note_id"]),
        "person_source_value": printable(patient) if patient is not None else None,
        "note_sha256": row["note_sha256"],
    }


def _integer(number: int) -> int:
    if number > LARGEST_INTEGER:
        raise ChartmillError("omop: more notes were planned than an OMOP integer can count; export a smaller run")
    return number


def note_rows(note: ExportNote, altered: Counter[str]) -> Iterator[dict[str, Any]]:
    """Rows of NOTE_NLP of one note; counts in `altered` the values that were cut to their width, by column."""
    made = datetime.fromisoformat(note.made_at).replace(tzinfo=None)
    maker = Maker.of(note.record)
    system = f"chartmill {maker.code_version}, {maker.model_id} {maker.model_sha256[:12]}".strip()
    for index, (name, entity) in enumerate(entities(note.record)):
        (head, leaf), *others = leaves(entity)
        assertion = leaf["assertion"] or Assertion.PRESENT
        yield {
            "note_nlp_id": note.number * TERMS_PER_NOTE + index,
            "note_id": _integer(note.number),
            "section_concept_id": 0,
            "snippet": None,
            "offset": str(leaf["start"]),
            "lexical_variant": _cut("lexical_variant", leaf["text"], altered),
            "note_nlp_concept_id": _concept_id(entity),
            "note_nlp_source_concept_id": 0,
            "nlp_system": _cut("nlp_system", system, altered),
            "nlp_date": made.date(),
            "nlp_datetime": made,
            "term_exists": "N" if assertion in (Assertion.ABSENT, Assertion.FAMILY) else "Y",
            "term_temporal": _temporal(assertion),
            "term_modifiers": _joined(_modifiers(name, head, leaf, entity, others), altered),
        }


def _concept_id(entity: Mapping[str, Any]) -> int:
    """The concept id among the codes, 0 for none, which is OMOP's "no matching concept"."""
    for code in entity.get("codes") or ():
        number = str(code["code"] or "")
        if str(code["system"]).upper() == "OMOP" and number.isascii() and number.isdigit() and int(number) <= LARGEST_INTEGER:
            return int(number)
    return 0


def _temporal(assertion: str) -> str | None:
    if assertion in (Assertion.ABSENT, Assertion.FAMILY):
        return None
    return "past" if assertion == Assertion.HISTORICAL else "present"


def _modifiers(
    name: str, head: str, leaf: Mapping[str, Any], entity: Mapping[str, Any], others: Sequence[tuple[str, Mapping[str, Any]]]
) -> Iterator[tuple[str, str]]:
    """What OMOP's example tells (negated, subject, certainty), then what the entity is, its other values and its codes."""
    assertion = leaf["assertion"]
    yield "negated", "yes" if assertion == Assertion.ABSENT else "no"
    yield "subject", "family" if assertion == Assertion.FAMILY else "patient"
    yield "certainty", "possible" if assertion == Assertion.POSSIBLE else "positive"
    yield "entity", name if head == name else f"{name}.{head}"
    yield from ((key, str(value)) for key, value in entity.items() if isinstance(value, str | int | float))
    if leaf.get("section"):
        yield "section", leaf["section"]
    if leaf.get("normal"):
        yield "normal", leaf["normal"]
    for key, other in others:
        yield key, other["text"]
        if other.get("normal"):
            yield f"{key}_normal", other["normal"]
    yield from (("code", f"{code['system']}:{code['code']}") for code in entity.get("codes") or ())


def _joined(modifiers: Iterator[tuple[str, str]], altered: Counter[str]) -> str:
    """`name=value` with commas between, as many as fit whole; signs that separate them are taken out of the values."""
    found, length = [], -1
    for name, value in modifiers:
        said = f"{name}={' '.join(printable(value).replace(',', ' ').replace('=', ' ').split())}"
        length += len(said) + 1
        if length > WIDTHS["term_modifiers"]:
            altered["term_modifiers shortened"] += 1
            break
        found.append(said)
    return ",".join(found)


def _cut(column: str, value: str, altered: Counter[str]) -> str:
    value = printable(value)
    if len(value) > WIDTHS[column]:
        altered[f"{column} shortened"] += 1
    return value[: WIDTHS[column]]
