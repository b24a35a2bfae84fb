"""Synthetic notes: gold offsets, determinism, coherent patients, and dirty rows that the contract finds exactly as the summary says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.sample import EXPECTED, GOLD_SCHEMA, SAMPLE_SCHEMA, Dirt, DirtPlan, compose, write_sample
from pipeline.sample_patients import make_patient
from pipeline.sample_styles import STYLES
from pipeline.sample_templates import CONTRAINDICATED, DRUGS, HEADINGS, PRESENTATIONS
from schemas.record import Assertion

ENTITIES = ("problems", "medications", "allergies", "observations", "procedures", "follow_up")


@pytest.fixture(scope="module")
def notes() -> list[Any]:
    return [compose(seed, number) for seed in (0, 5) for number in range(400)]


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, pa.Table, list[dict[str, Any]]]:
    summary = write_sample(600, tmp_path_factory.mktemp("sample"), seed=3, files=3)
    table = pa.concat_tables([pq.read_table(path) for path in summary.files])
    return summary, table, pq.read_table(summary.gold).to_pylist()


def leaves(record: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(kind.field, leaf) of every leaf."""
    for name in ("age", "sex"):
        if record.get(name):
            yield name, record[name]
    for kind in ENTITIES:
        for entity in record[kind]:
            yield from ((f"{kind}.{name}", leaf) for name, leaf in entity.items() if isinstance(leaf, dict))


def test_every_leaf_is_where_the_gold_says(notes: list[Any]) -> None:
    for note in notes:
        found = list(leaves(note.record))
        assert found
        for name, leaf in found:
            assert note.text[leaf["start"] : leaf["end"]] == leaf["text"] != "", name


def test_every_field_and_assertion_occurs_and_no_entity_is_nameless(notes: list[Any]) -> None:
    names = Counter(name for note in notes for name, _ in leaves(note.record))
    assert set(names) == {
        "age", "sex", "problems.name", "problems.onset", "medications.name", "medications.dose", "medications.route",
        "medications.frequency", "medications.duration", "medications.reason", "allergies.substance", "allergies.reaction",
        "observations.name", "observations.value", "observations.unit", "procedures.name", "procedures.date", "follow_up.what",
        "follow_up.when",
    }  # fmt: skip
    assert {leaf["assertion"] for note in notes for _, leaf in leaves(note.record)} == {a.value for a in Assertion}
    first = {
        "problems": "name",
        "medications": "name",
        "allergies": "substance",
        "observations": "value",
        "procedures": "name",
        "follow_up": "what",
    }
    assert [k for note in notes for k in ENTITIES for entity in note.record[k] if first[k] not in entity] == []
    assert all(note.record.get("age") and note.record.get("sex") for note in notes)


def test_a_section_is_the_heading_above(notes: list[Any]) -> None:
    """Where a note has headings of their own lines, the gold's section is the canonical name of the nearest heading above."""
    titles = {title.lower(): section.partition(".")[0] for section, names in HEADINGS.items() for title in names}
    checked = 0
    for note in notes:
        if note.note_type not in ("Clinic note", "Discharge summary"):
            continue
        for _, leaf in leaves(note.record):
            above = [line.partition(":")[0].strip().lower() for line in note.text[: leaf["start"]].split("\n")]
            heading = next(titles[line] for line in reversed(above) if line in titles)
            assert heading == leaf["section"]
            checked += 1
    assert checked > 1000


def test_denials_are_absent_and_relatives_are_family(notes: list[Any]) -> None:
    said = {(leaf["text"], leaf["assertion"]) for note in notes for name, leaf in leaves(note.record) if name == "problems.name"}
    assert ("haemoptysis", "absent") in said and ("haemoptysis", "present") not in said
    assert ("breast cancer", "family") in said and ("breast cancer", "present") not in said


def test_lengths_and_variety(notes: list[Any]) -> None:
    words = [len(note.text.split()) for note in notes]
    assert min(words) >= 60
    assert sum(count > 700 for count in words) < len(words) * 0.05
    assert len({note.text for note in notes}) == len(notes)
    assert {note.note_type for note in notes} == {note_type for _, types, _, _ in STYLES for note_type in types}
    assert len({note.visit.presentation.diagnosis for note in notes}) > 25


def test_clean_text_has_no_loose_ends(notes: list[Any]) -> None:
    for note in notes:
        assert not {"{", "}", "None", "  ,", " ,", "..", "\x00"} & {
            s for s in ("{", "}", "None ", "  ,", " ,", "..", "\x00") if s in note.text
        }
        assert note.text.rstrip()[-1] in ".!)"


def test_patients_are_coherent(notes: list[Any]) -> None:
    for note in notes:
        visit, patient = note.visit, note.visit.patient
        seen = visit.presentation
        assert seen.youngest <= visit.years <= seen.oldest and seen.sex in ("", patient.sex)
        assert all(c.sex in ("", patient.sex) for c, _ in patient.conditions)
        allergic = {family for _, family, _ in patient.allergies if family}
        avoided = allergic.union(*(CONTRAINDICATED.get(c.name, ()) for c, _ in patient.conditions))
        given = [dose.drug for dose in (*patient.doses, *visit.prescribed)]
        assert not {drug.family for drug in given if drug.family} & avoided
        assert len({drug.name for drug in given}) == len(given)
        assert all(visit.at.year >= year for _, year in patient.conditions)
        systolic, diastolic = map(int, visit.vitals["bp"].split("/"))
        assert 50 <= systolic <= 220 and diastolic < systolic


def test_one_patient_keeps_identity_over_visits() -> None:
    visits = [compose(1, number).visit for number in range(60)]
    by_patient: dict[str, list[Any]] = {}
    for visit in visits:
        by_patient.setdefault(visit.patient.id, []).append(visit)
    assert any(len(group) > 1 for group in by_patient.values())
    for group in by_patient.values():
        assert len({visit.patient.name for visit in group}) == 1
        assert [visit.at for visit in group] == sorted(visit.at for visit in group)


def test_tables_are_sound() -> None:
    assert all(drug.lstrip("+ ") in DRUGS for seen in PRESENTATIONS for drug in seen.drugs)
    for number in range(300):
        assert make_patient(2, number).weight > 3


def test_rows_depend_on_seed_and_number_alone(tmp_path: Path) -> None:
    def rows(folder: str, count: int, **options: Any) -> pa.Table:
        return pa.concat_tables([pq.read_table(path) for path in write_sample(count, tmp_path / folder, **options).files])

    whole = rows("whole", 120, files=1)
    assert rows("again", 120, files=1).equals(whole)
    assert rows("parts", 120, files=7).equals(whole)
    assert rows("fewer", 70, files=2).equals(whole.slice(0, 70))
    assert not rows("other", 120, seed=1, files=1).column("text").equals(whole.column("text"))


def test_files_and_schemas(sample: tuple[Any, pa.Table, list[dict[str, Any]]]) -> None:
    summary, table, gold = sample
    assert [path.name for path in summary.files] == ["part-0000.parquet", "part-0001.parquet", "part-0002.parquet"]
    assert table.schema.equals(SAMPLE_SCHEMA) and table.num_rows == summary.notes == 600
    assert pq.read_schema(summary.gold).equals(GOLD_SCHEMA) and len(gold) == summary.gold_records
    assert sum(summary.styles.values()) == 600


def test_gold_holds_for_every_row_of_its_id(sample: tuple[Any, pa.Table, list[dict[str, Any]]]) -> None:
    """Whichever version of an amended note a job keeps, the offsets are right."""
    _, table, gold = sample
    records = {row["note_id"]: row["record"] for row in gold}
    assert len(records) == len(gold)
    joined = [(row["text"], records[row["note_id"]]) for row in table.to_pylist() if row["note_id"] in records]
    assert len(joined) > len(gold)
    for text, record in joined:
        assert all(text[leaf["start"] : leaf["end"]] == leaf["text"] for _, leaf in leaves(record))


def test_every_kind_of_dirt_is_there_and_counted(sample: tuple[Any, pa.Table, list[dict[str, Any]]]) -> None:
    summary, table, _ = sample
    rows = table.to_pylist()
    assert set(summary.dirty) == {kind.value for kind in Dirt} and min(summary.dirty.values()) >= 1
    assert sum(summary.dirty.values()) == 36
    assert sum(row["note_id"] is None for row in rows) == summary.dirty["missing_id"]
    assert sum(not (row["text"] or "").strip() for row in rows) == summary.dirty["blank_text"]
    assert sum("\x00" in (row["text"] or "") for row in rows) == summary.dirty["control_characters"]
    assert sum(len(row["text"] or "") > 200_000 for row in rows) == summary.dirty["huge_note"]


def test_an_amended_note_is_later_and_begins_with_the_original(sample: tuple[Any, pa.Table, list[dict[str, Any]]]) -> None:
    summary, table, _ = sample
    first: dict[str, dict[str, Any]] = {}
    amended = 0
    for row in table.to_pylist():
        original = first.setdefault(row["note_id"], row)
        if row["note_id"] and original is not row:
            assert row["written_at"] > original["written_at"] and row["text"].startswith(original["text"])
            assert row["patient_id"] == original["patient_id"]
            amended += 1
    assert amended == summary.dirty["duplicate_id"] > 0


@pytest.mark.parametrize("share", [0.5, 0.3, 0.06, 1 / 3, 0.001])
def test_dirt_takes_one_row_of_every_stretch(share: float) -> None:
    plan = DirtPlan(7, share)
    kinds = {row: kind for row in range(2000) if (kind := plan.kind(row))}
    assert abs(len(kinds) - 2000 * share) <= 1
    for row, kind in kinds.items():
        original = plan.original(row)
        assert kind is not Dirt.DUPLICATE_ID or (0 <= original < row and plan.kind(original) is None)


def test_no_dirt_when_none_is_asked_for(tmp_path: Path) -> None:
    summary = write_sample(90, tmp_path, dirty_share=0.0, files=1)
    assert set(summary.dirty.values()) == {0} and summary.gold_records == 90 and summary.reasons_expected == {}


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"0-0\.5, got 0\.7"):
        write_sample(10, tmp_path, dirty_share=0.7)
    with pytest.raises(ValueError, match="notes=0"):
        write_sample(0, tmp_path)
    write_sample(8, tmp_path, files=2)
    write_sample(8, tmp_path, files=2)
    with pytest.raises(FileExistsError, match="other file"):
        write_sample(8, tmp_path, files=1)


def test_the_default_contract_finds_exactly_this_dirt(sample: tuple[Any, pa.Table, list[dict[str, Any]]]) -> None:
    from schemas.expectations import load_suite
    from transforms.validate import Validator

    summary, table, _ = sample
    reasons: dict[int, str] = {}
    warned: set[tuple[int, str]] = set()
    for outcome in Validator(load_suite("default")).judge(table):
        for row in outcome.unexpected.tolist():
            if outcome.rule.severity == "critical":
                reasons.setdefault(row, str(outcome.rule.reason))
            else:
                warned.add((row, str(outcome.rule.reason)))
    expected_warnings = {str(EXPECTED[kind][0]): summary.dirty[kind.value] for kind in Dirt if not EXPECTED[kind][1]}
    assert dict(Counter(reasons.values())) | {"DUPLICATE_ID": summary.dirty["duplicate_id"]} == summary.reasons_expected
    assert Counter(reason for row, reason in warned if row not in reasons) == expected_warnings
