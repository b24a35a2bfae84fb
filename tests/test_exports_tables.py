"""Flat CSV: every value with its offsets, read back as written, and nothing that a spreadsheet would run."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.export_notes import SHA256, TEXT, empty_record, entity, export_note, full_record, leaf
from transforms.exports import Target
from transforms.exports.csv_files import csv_bytes, harmless
from transforms.exports.shard import Exported, ExportSettings, export_shard, printable
from transforms.exports.tables import csv_shard, headers

CSV = ExportSettings(Target.CSV)


def tables(exported: Exported) -> dict[str, list[dict[str, str]]]:
    return {part.name: list(csv.DictReader(io.StringIO(part.data.decode(), newline=""), strict=True)) for part in exported.parts}


def test_one_table_per_kind_of_entity_one_row_per_entity() -> None:
    shard = csv_shard([export_note(1), export_note(2)], CSV)
    found = tables(shard)
    assert {name: len(rows) for name, rows in found.items()} == {
        "summaries": 2, "demographics": 2, "problems": 10, "medications": 6, "allergies": 6, "observations": 10, "procedures": 4,
        "follow_up": 2,
    }  # fmt: skip
    assert {part.name: part.rows for part in shard.parts} == {name: len(rows) for name, rows in found.items()}
    assert {name: list(rows[0]) for name, rows in found.items()} == headers()


def test_every_value_has_its_offsets() -> None:
    for name, rows in tables(csv_shard([export_note()], CSV)).items():
        starts = [column.removesuffix("_start") for column in headers()[name] if column.endswith("_start")]
        for row in rows:
            assert row["note_sha256"] == SHA256 and row["note_id"] == "n1"
            for column in starts:
                if row[column]:
                    assert TEXT[int(row[f"{column}_start"]) : int(row[f"{column}_end"])] == row[column]


def test_codes_and_readers_are_told_in_one_cell() -> None:
    gout = tables(csv_shard([export_note()], CSV))["problems"][0]
    assert gout["codes"] == "SNOMED|90560007; OMOP|440674; House list|G 1" and gout["readers"] == "rules"


def test_lines_end_as_rfc_4180_wants_and_line_breaks_stay_in_their_cell() -> None:
    shard = csv_shard([export_note(summary='Says "yes".\nAnd, more.')], CSV)
    data = next(part.data for part in shard.parts if part.name == "summaries")
    assert data.count(b"\r\n") == 2 and not data.startswith(b"\xef\xbb\xbf") and b'"Says ""yes"".\nAnd, more."' in data


@pytest.mark.parametrize("cell", ["=1+1", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1", "- aspirin", '=HYPERLINK("x")', "\n=1"])
def test_formulas_get_an_apostrophe(cell: str) -> None:
    assert harmless(cell) == f"'{cell}"


@pytest.mark.parametrize("cell", ["", "-2.5", "+3", "5-10 mg", "a=b", "O'Neill", "2025-03-04"])
def test_what_is_no_formula_stays(cell: str) -> None:
    assert harmless(cell) == cell


def test_guarded_cells_are_counted() -> None:
    name = leaf("Gout") | {"text": "=Gout"}
    shard = csv_shard([export_note(record=empty_record() | {"problems": [entity("problems", name=name)]})], CSV)
    assert shard.altered == {"problems cells behind an apostrophe": 1}
    assert tables(shard)["problems"][0]["name"] == "'=Gout"


@given(st.lists(st.text(st.characters(codec=None), max_size=20), min_size=1, max_size=4))
def test_any_text_is_read_back_as_written(cells: list[str]) -> None:
    written = [harmless(printable(cell)) for cell in cells]
    data = csv_bytes(["a"] * len(cells), [written])
    assert list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True))[1:] == [written]


def test_a_release_of_an_earlier_schema_can_still_be_exported() -> None:
    """A column that came later is missing from its rows, not null."""
    note = export_note(record={name: value for name, value in full_record().items() if name != "follow_up"})
    assert "follow_up" not in tables(csv_shard([note], CSV))
    for target in Target:
        assert export_shard([note], ExportSettings(target)).parts
