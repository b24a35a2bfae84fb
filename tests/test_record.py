"""The rule-based record reader: what it reads, where, and what it leaves alone."""

from __future__ import annotations

import sys
import time
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that
from hypothesis import given
from hypothesis import strategies as st

from schemas.commit import Piece, Shard
from schemas.note import BATCH_SCHEMA
from schemas.record import RECORD_FIELDS, RECORD_TYPE
from schemas.rejection import Reason, Stage
from tests.records import check_offsets, leaves, said, vitals
from transforms import record
from transforms.batch import NoteBatch
from transforms.record import ParseRecords, parse_record, record_batch
from transforms.sections import HEADINGS, fold, read_page

VISIT = """\
PATIENT: 71-year-old woman

ALLERGIES: Penicillin (hives); latex, cat dander - rash

CURRENT MEDICATIONS:
1. Ramipril 5 mg PO BID for blood pressure
2. Salbutamol inhaler 2 puffs inhaled every 4 hours as needed
- Old warfarin 2.5 mg daily, stopped 2019

PAST MEDICAL HISTORY:
- Gout since 2014
- Possible sarcoidosis
- History of shingles
- No asthma

PROCEDURES:
2016-05-02: Knee arthroscopy

FAMILY HISTORY: glaucoma in father, no diabetes

VITALS
BP: 142/88 mmHg
T 98.6 F, P 77, R 16
Weight: 154 lbs, Height 5'6"
"""


def test_visit() -> None:
    found = parse_record(VISIT)
    check_offsets(VISIT)
    assert [said(a, "substance", "reaction") for a in found["allergies"]] == [
        ("Penicillin", "hives"),
        ("latex", None),
        ("cat dander", "rash"),
    ]
    fields = ("name", "dose", "route", "frequency", "reason")
    assert [said(m, *fields) for m in found["medications"]] == [
        ("Ramipril", "5 mg", "PO", "BID", "blood pressure"),
        ("Salbutamol inhaler", "2 puffs", "inhaled", "every 4 hours as needed", None),
        ("warfarin", "2.5 mg", None, "daily", None),
    ]
    assert [m["name"]["assertion"] for m in found["medications"]] == ["present", "present", "historical"]
    assert found["medications"][1]["frequency"]["normal"] == "Q4H PRN"
    problems = {p["name"]["text"]: p["name"]["assertion"] for p in found["problems"]}
    assert problems == {
        "Gout": "present",
        "sarcoidosis": "possible",
        "shingles": "historical",
        "asthma": "absent",
        "glaucoma": "family",
    }
    assert said(found["problems"][0], "name", "onset") == ("Gout", "2014")
    assert [said(p, "name", "date") for p in found["procedures"]] == [("Knee arthroscopy", "2016-05-02")]
    assert vitals(VISIT) == {
        "blood_pressure": ("142/88", "mm[Hg]"),
        "body_temperature": ("37", "Cel"),
        "heart_rate": ("77", None),
        "respiratory_rate": ("16", None),
        "body_weight": ("69.9", "kg"),
        "body_height": ("167.6 cm", None),
    }
    assert {leaf["section"] for leaf in leaves(found["medications"])} == {"medications"}
    assert {leaf["section"] for leaf in leaves(found["observations"])} == {"vital_signs"}


def test_line_ends_do_not_matter() -> None:
    for other in ("\r\n", "\r"):
        text = VISIT.replace("\n", other)
        check_offsets(text)
        assert [leaf["text"] for leaf in leaves(parse_record(text))] == [leaf["text"] for leaf in leaves(parse_record(VISIT))]


def test_headings_inside_a_line() -> None:
    found = parse_record("54F tired. pmh: gout, migraine. rx: ramipril 5mg b.i.d., aspirin. all: latex; kiwi. BP 120/70")
    assert [said(p, "name")[0] for p in found["problems"]] == ["tired", "gout", "migraine"]
    assert [said(m, "name", "dose", "frequency") for m in found["medications"]] == [
        ("ramipril", "5mg", "b.i.d."),
        ("aspirin", None, None),
    ]
    assert [said(a, "substance")[0] for a in found["allergies"]] == ["latex", "kiwi"]
    assert vitals("all: latex. BP 120/70") == {"blood_pressure": ("120/70", None)}


@pytest.mark.parametrize(
    "text", ["ALLERGIES: NKDA", "Allergies: none", "She has no known drug allergies.", "ALLERGIES\n\nNo known allergies."]
)
def test_no_known_allergies_is_an_absent_leaf(text: str) -> None:
    (only,) = parse_record(text)["allergies"]
    assert (only["substance"]["assertion"], only["substance"]["normal"]) == ("absent", "no known allergies")


def test_allergy_in_running_text() -> None:
    assert [said(a, "substance")[0] for a in parse_record("He is allergic to peanuts and cats.")["allergies"]] == ["peanuts", "cats"]
    (denied,) = parse_record("He denies being allergic to peanuts.")["allergies"]
    assert denied["substance"]["assertion"] == "absent"


@pytest.mark.parametrize("written", ["ramipril: tongue swelling", "ramipril - tongue swelling", "Ramipril caused severe tongue swelling."])
def test_a_reaction_takes_its_part_of_the_body_along(written: str) -> None:
    (only,) = parse_record(f"ALLERGIES:\n{written}")["allergies"]
    assert (only["substance"]["text"].lower(), only["reaction"]["text"]) == ("ramipril", "tongue swelling")


def test_operations_in_a_history_are_no_problems() -> None:
    found = parse_record("PAST MEDICAL HISTORY:\ngout since 2010. Operations: hernia repair in 2001, tonsillectomy in 2008.")
    assert [said(p, "name", "onset") for p in found["problems"]] == [("gout", "2010")]
    assert [said(p, "name", "date") for p in found["procedures"]] == [("hernia repair", "2001"), ("tonsillectomy", "2008")]


def test_an_age_is_no_part_of_a_problem() -> None:
    found = parse_record("FAMILY HISTORY: Sister: ovarian cancer, diagnosed aged 54. Father: gout at 40.")
    assert [said(p, "name")[0] for p in found["problems"]] == ["ovarian cancer", "gout"]


def test_a_differential_is_possible() -> None:
    (only,) = parse_record("ASSESSMENT:\n- Differential includes skull fracture")["problems"]
    assert (only["name"]["text"], only["name"]["assertion"]) == ("skull fracture", "possible")


def test_medicines_to_take_home() -> None:
    lines = (
        "- New: metformin 500 mg by mouth twice daily for type 2 diabetes\n- ferrous sulfate 200 mg OD\n- latanoprost 1 drop OD\n"
        "- iron 50 micrograms PO OD"
    )
    found = parse_record(f"MEDICINES TO TAKE HOME:\n{lines}")["medications"]
    assert [said(m, "name", "route", "frequency", "reason") for m in found] == [
        ("metformin", "by mouth", "twice daily", "type 2 diabetes"),
        ("ferrous sulfate", None, "OD", None),
        ("latanoprost", "OD", None, None),
        ("iron", "PO", "OD", None),
    ]
    assert [m["frequency"] and m["frequency"]["normal"] for m in found] == ["BID", "QD", None, "QD"]


@pytest.mark.parametrize(
    "text",
    [
        "MEDICATIONS: none",
        "Medications\n\nThe patient was seen, examined, and discharged.",
        "The medications are kept in the cupboard near the window of the ward.",
        "He takes care of his mother.",
    ],
)
def test_no_medication_is_read_from(text: str) -> None:
    assert parse_record(text)["medications"] == []


def test_medications_in_a_sentence() -> None:
    text = "Current medications include atorvastatin, insulin, and formoterol. She takes ramipril 5 mg nightly."
    found = parse_record(text)["medications"]
    assert [said(m, "name")[0] for m in found] == ["atorvastatin", "insulin", "formoterol", "ramipril"]
    assert found[-1]["frequency"]["normal"] == "QHS"


@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("twice daily", "BID"),
        ("q.d.", "QD"),
        ("three times a day", "TID"),
        ("q6h prn", "Q6H PRN"),
        ("at bedtime", "QHS"),
        ("once a week", None),
        ("6-hourly if needed", "Q6H PRN"),
    ],
)
def test_frequency_codes(written: str, code: str | None) -> None:
    (found,) = parse_record(f"Meds:\n- Ramipril 5 mg {written}\n")["medications"]
    assert found["frequency"]["text"].rstrip(".") == written.rstrip(".")
    assert found["frequency"]["normal"] == code


def test_a_paragraph_after_a_list_on_the_headings_line_is_not_part_of_it() -> None:
    text = "ALLERGIES: latex\n\nCalm, alert, oriented."
    assert [said(a, "substance")[0] for a in parse_record(text)["allergies"]] == ["latex"]


def test_denied_history_is_not_read() -> None:
    assert parse_record("No personal or family history of glaucoma was given.")["problems"] == []
    (found,) = parse_record("There is a family history of glaucoma.")["problems"]
    assert found["name"]["assertion"] == "family"


def test_fold_keeps_every_characters_place() -> None:
    every = "".join(chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000)
    assert len(fold(every)) == len(every)
    assert all(len(fold(char)) == 1 for char in every[:0x10000])


def test_every_heading_opens_a_section() -> None:
    for phrase, name in HEADINGS.items():
        (section,) = read_page(f"{phrase.upper()}:\nsomething").sections
        assert section.name == name


_SNIPPETS = [
    "BP 120/80",
    "P 70",
    "MEDICATIONS:",
    "Meds: ",
    "- aspirin 81 mg po daily",
    "ALLERGIES",
    "latex (hives)",
    "a 45-year-old man",
    "\n",
    "\n\n",
]
_SNIPPETS += [
    "PMH: gout",
    "family history of ",
    ", ",
    "; ",
    ". ",
    " and ",
    "(",
    ")",
    "\r\n",
    "\u0130",
    "5'6\"",
    "allergic to cats",
    "\u00a0",
    "no ",
    "takes x 5 mg",
]
_SNIPPETS += [
    "height ",
    "5 feet ",
    "weight: 70 kg",
    "all: ",
    "s/p ",
    "2019-01-02: biopsy",
    "PROCEDURES:",
    "Mr. X",
    " - ",
    ": ",
    "A/P: ",
    "b.i.d.",
    "?",
    "Na 138",
    "glucose, 99 mg/dL",
    "denies asthma",
    " or ",
    "possible gout",
    "mother with ",
    "if ",
    "oral prednisone",
    "insulin/aspirin",
    " 40 mg of ",
    "s/p biopsy on ",
    "procedures: ",
    "was stopped",
]


@given(st.lists(st.one_of(st.sampled_from(_SNIPPETS), st.text(max_size=4)), max_size=24).map("".join))
def test_offsets_hold_for_any_text(text: str) -> None:
    check_offsets(text)
    pa.array([parse_record(text)], type=RECORD_TYPE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit",
    [
        "1",
        " ",
        "\n",
        ":",
        "a",
        "(",
        "pmh: ",
        "45 y ",
        "he takes aspirin ",
        "history of ",
        "MEDICATIONS:\naspirin 81 mg, ",
        "bp is was ",
        "Mr. X ",
        "two ",
        "Na 138, ",
        "s/p ",
        "procedures: ",
        "denies pain, ",
        "mother had asthma. ",
        "aspirin 5 mg po, ",
        "BP 120/80 x 2019-01-02; ",
    ],
)
def test_time_is_linear(unit: str) -> None:
    text = unit * (60_000 // len(unit))
    started = time.process_time()
    parse_record(text)
    assert time.process_time() - started < 4


def batch_of(*texts: str | None) -> NoteBatch:
    rows = [
        dict.fromkeys(BATCH_SCHEMA.names) | {"note_id": f"n{i}", "text": text, "source_file": 0, "source_row": i}
        for i, text in enumerate(texts)
    ]
    shard = Shard("s", "s", (Piece(0, 0, len(rows)),))
    return NoteBatch(shard, pa.Table.from_pylist(rows, schema=BATCH_SCHEMA))


def test_batch_gets_one_record_per_note_and_counts_fields() -> None:
    done = record_batch(batch_of("A 30-year-old man, BP 120/80.", "Nothing to see.", "Allergies: none"))
    column = done.notes.column("record")
    assert column.type == RECORD_TYPE and len(column) == 3
    assert done.stats.fields == {"age": 1, "sex": 1, "observations": 1, "allergies": 1}
    assert set(parse_record("")) == {field.name for field in RECORD_FIELDS}
    assert done.rejections == ()


def test_a_note_that_fails_is_rejected_alone_and_without_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    def reader(text: str) -> dict[str, Any]:
        if "SECRET" in text:
            raise ValueError(text)
        return parse_record(text)

    monkeypatch.setattr(record, "parse_record", reader)
    done = record_batch(batch_of("fine", "SECRET", "fine too"))
    (rejection,) = done.rejections
    assert (rejection.stage, rejection.reason, rejection.source_row) == (Stage.RECORD, Reason.RECORD_FAILED, 1)
    assert done.column("note_id") == ["n0", "n2"] and "SECRET" not in repr(rejection)


def test_transform_equals_function() -> None:
    batch = batch_of(VISIT, "A 30-year-old man.")

    def check(found: list[NoteBatch]) -> None:
        (done,) = found
        assert done.notes.equals(record_batch(batch).notes)
        assert set(done.stats.seconds) == {"record"}

    with beam.Pipeline("FnApiRunner") as pipeline:
        assert_that(pipeline | beam.Create([batch]) | ParseRecords(), check)
