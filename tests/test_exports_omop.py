"""OMOP: the columns of NOTE_NLP with their types and widths, modifiers that can be taken apart, integers that stay."""

from __future__ import annotations

import csv
import io
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ChartmillError
from tests.export_notes import TEXT, empty_record, entity, export_note, leaf
from transforms.exports import TableFormat, Target
from transforms.exports.omop import LARGEST_INTEGER, WIDTHS, omop_shard
from transforms.exports.shard import Exported, ExportNote, ExportSettings
from transforms.parquet import from_parquet

OMOP = ExportSettings(Target.OMOP)
# https://ohdsi.github.io/CommonDataModel/cdm54.html#note_nlp, in its order; note_nlp_id takes 64 bits here.
COLUMNS = {
    "note_nlp_id": pa.int64(), "note_id": pa.int32(), "section_concept_id": pa.int32(), "snippet": pa.string(), "offset": pa.string(),
    "lexical_variant": pa.string(), "note_nlp_concept_id": pa.int32(), "note_nlp_source_concept_id": pa.int32(),
    "nlp_system": pa.string(), "nlp_date": pa.date32(), "nlp_datetime": pa.timestamp("us"), "term_exists": pa.string(),
    "term_temporal": pa.string(), "term_modifiers": pa.string(),
}  # fmt: skip


def table(exported: Exported, name: str = "note_nlp") -> pa.Table:
    return from_parquet(next(part.data for part in exported.parts if part.name == name))


def rows(*notes: ExportNote) -> list[dict[str, Any]]:
    return table(omop_shard(notes or [export_note()], OMOP)).to_pylist()


def modifiers(row: dict[str, Any]) -> dict[str, str]:
    return dict(part.split("=") for part in row["term_modifiers"].split(","))


def of_term(words: str) -> dict[str, Any]:
    return next(row for row in rows() if row["lexical_variant"] == words)


def test_columns_are_those_of_the_model() -> None:
    found = table(omop_shard([export_note()], OMOP))
    assert dict(zip(found.schema.names, found.schema.types, strict=True)) == COLUMNS
    assert {field.name for field in found.schema if not field.nullable} == {"note_nlp_id", "note_id", "lexical_variant", "nlp_date"}


def test_a_row_for_every_entity_with_its_offset() -> None:
    found = rows()
    assert len(found) == 21
    for row in found:
        assert TEXT[int(row["offset"]) :].startswith(row["lexical_variant"])
        assert row["nlp_date"].isoformat() == "2026-01-02" and row["section_concept_id"] == 0


@pytest.mark.parametrize(
    ("words", "exists", "temporal", "said"),
    [
        (
            "Gout",
            "Y",
            "present",
            {"negated": "no", "subject": "patient", "certainty": "positive", "entity": "problems.name", "onset": "2015"},
        ),
        ("sarcoid", "Y", "present", {"certainty": "possible"}),
        ("diabetes", "N", None, {"negated": "yes"}),
        ("shingles", "Y", "past", {"section": "past_medical_history"}),
        ("<glaucoma> & stroke", "N", None, {"negated": "no", "subject": "family"}),
        ("Metformin", "Y", "present", {"dose": "500 mg", "frequency_normal": "BID", "reason": "sugar"}),
        ("BP", "Y", "present", {"category": "vital", "value": "142/88", "unit_normal": "mm[Hg]"}),
        ("52 years", "Y", "present", {"entity": "age", "normal": "P52Y"}),
    ],
)
def test_what_the_note_says_of_a_term(words: str, exists: str, temporal: str | None, said: dict[str, str]) -> None:
    row = of_term(words)
    assert (row["term_exists"], row["term_temporal"]) == (exists, temporal)
    assert said.items() <= modifiers(row).items()


def test_concepts_come_from_codes_of_omop_alone() -> None:
    assert of_term("Gout")["note_nlp_concept_id"] == 440674
    assert of_term("sarcoid")["note_nlp_concept_id"] == 0
    odd = entity("problems", {"omop": "9" * 12, "SNOMED": "7"}, name=leaf("Gout"))
    assert rows(export_note(record=empty_record() | {"problems": [odd]}))[0]["note_nlp_concept_id"] == 0


def test_long_values_are_cut_to_their_width_and_counted() -> None:
    long = {"text": "ab,= " * 900, "start": 0, "end": 4500, "section": None, "assertion": "present", "normal": None}
    record = empty_record() | {"problems": [entity("problems", name=long, onset=long), entity("problems", name=leaf("Gout"))]}
    shard = omop_shard([export_note(record=record)], OMOP)
    assert shard.altered == {"lexical_variant shortened": 1, "term_modifiers shortened": 1}
    first = table(shard).to_pylist()[0]
    assert len(first["lexical_variant"]) == 250
    # Cut between modifiers, so that the string can still be taken apart.
    assert modifiers(first) == {"negated": "no", "subject": "patient", "certainty": "positive", "entity": "problems.name"}


def test_the_map_tells_what_the_integers_mean() -> None:
    found = table(omop_shard([export_note(3), export_note(9)], OMOP), "note_id_map").to_pylist()
    assert [(row["note_id"], row["note_source_value"], row["person_source_value"]) for row in found] == [(3, "n3", "p 1"), (9, "n9", "p 1")]
    assert {row["note_id"] for row in rows(export_note(3), export_note(9))} == {3, 9}


def test_ids_of_rows_are_unique_over_notes() -> None:
    ids = [row["note_nlp_id"] for row in rows(*(export_note(number) for number in (1, 2, 3, LARGEST_INTEGER)))]
    assert len(set(ids)) == len(ids) == 84


def test_more_notes_than_an_integer_counts_are_refused() -> None:
    with pytest.raises(ChartmillError, match="integer"):
        omop_shard([export_note(LARGEST_INTEGER + 1)], OMOP)


def test_csv_holds_the_same_rows() -> None:
    shard = omop_shard([export_note()], ExportSettings(Target.OMOP, table_format=TableFormat.CSV))
    data = next(part.data for part in shard.parts if part.name == "note_nlp").decode()
    found = list(csv.DictReader(io.StringIO(data, newline="")))
    assert [{k: None if v == "" else v for k, v in row.items()} for row in found] == [
        {k: None if v is None else str(v) for k, v in row.items()} for row in rows()
    ]


@given(st.text(st.characters(codec=None), max_size=60))
def test_any_text_fits_its_columns(words: str) -> None:
    named = {"text": words * 50, "start": 0, "end": 50 * len(words), "section": words, "assertion": "present", "normal": words}
    record = empty_record() | {"problems": [entity("problems", {words: words}, name=named, onset=named)]}
    [row] = rows(export_note(1, record, note_id=words, patient_id=words))
    assert all(len(row[column] or "") <= width for column, width in WIDTHS.items())
    assert all(part.count("=") == 1 for part in row["term_modifiers"].split(","))
    assert "\x00" not in row["lexical_variant"]
