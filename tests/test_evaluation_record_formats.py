"""Readers of gold: our notes in the shapes of the collections, read and compared with what our own reader says of them."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from pipeline.evaluation.record_formats import FORMATS, UnreadableGold, gold_format
from pipeline.evaluation.record_matching import Tally, match_note
from schemas.errors import ConfigurationError
from transforms.record import parse_record

CLINIC = """DATE OF VISIT: 2031-02-03
PATIENT: 41 year old F
PROBLEM LIST:
1. hay fever
2. history of shingles
MEDICATIONS:
- Cetirizine 10 MG by mouth nightly
ALLERGIES: latex
FAMILY HISTORY: glaucoma in mother.
VITAL SIGNS: BP 118/76, HR 66, SpO2 99%, Weight 150 lbs, Resp rate 14
PROCEDURES:
2031-01-20: Skin prick test
"""
# The keys are those of the collections, in another order: no run of words is theirs.
SYNTHEA: dict[str, Any] = {
    "family_history": ["glaucoma"],
    "negated": [],
    "procedures": [{"date": "2031-01-20", "name": "Skin prick test"}],
    "labs": [],
    "vitals": {"weight_kg": 68.2, "spo2": 99, "heart_rate": 66, "bp_diastolic": 76, "bp_systolic": 118},
    "allergies": ["latex"],
    "medications": [
        {
            "status": "active",
            "frequency_text": "nightly",
            "frequency": "at bedtime",
            "route": "PO",
            "strength": "10 MG",
            "name": "Cetirizine",
        }
    ],
    "problems": [{"text": "hay fever", "name": "Allergic rhinitis"}, {"text": "history of shingles", "name": "History of shingles"}],
    "reason": "Sneezing",
    "visit_date": "2031-02-03",
    "sex": "female",
    "age": 41,
}
DRUG_LINE = "MEDICATIONS:\n- Betaxolol 0.25% BID\n- Tafluprost nightly\n"
GLAUCOMA: dict[str, Any] = {
    "medications": [
        {"frequency": ["BID"], "strength": ["0.25%"], "name": "Betaxolol"},
        {"frequency": ["nightly"], "name": "Tafluprost"},
        {"stop": ["held"], "route": ["**"], "name": "*****"},
    ]
}
GLAUCOMA_SPANS = [
    {"text": text, "label": label, "end": DRUG_LINE.index(text) + len(text), "start": DRUG_LINE.index(text)}
    for label, text in (
        ("DRUG", "Betaxolol"),
        ("STRENGTH", "0.25%"),
        ("FREQUENCY", "BID"),
        ("DRUG", "Tafluprost"),
        ("FREQUENCY", "nightly"),
        ("DRUG USE", "MEDICATIONS"),
    )
]
CASE = "A 33-year-old woman felt faint after taking oral zopiclone."
PHEE: dict[str, Any] = {
    "events": [
        {
            "negated": False,
            "effect": ["faint"],
            "route": ["oral"],
            "drug": ["zopiclone"],
            "sex": ["woman"],
            "age": ["33-year-old"],
            "event_type": "Adverse_event",
        }
    ]
}
PHEE_PUBLISHED: dict[str, Any] = {
    "annotations": [
        {
            "events": [
                {
                    "Effect": {"start": [[20, 25]], "text": [["felt", "faint"]]},
                    "Treatment": {"Route": {"start": [[44]], "text": [["oral"]]}, "Drug": {"start": [[49]], "text": [["zopiclone"]]}},
                    "Subject": {
                        "Gender": {"start": [[14]], "text": [["woman"]]},
                        "Age": {"start": [[2]], "text": [["33-year-old"]]},
                        "start": [[0]],
                        "text": [["A 33-year-old woman"]],
                    },
                }
            ]
        }
    ],
    "context": CASE,
}
NEISS: dict[str, Any] = {"body_part": "Knee", "diagnosis": "Contusions, Abrasions", "sex": "Male", "age_unit": "years", "age_value": 9}
VAERS: dict[str, Any] = {"symptoms": ["Warmth"], "sex": "F", "age_field": 1.5, "age_in_text": 1}


def scored(name: str, gold: Any, text: str) -> Tally:
    return match(name, gold, text)[0]


def match(name: str, gold: Any, text: str) -> tuple[Tally, Tally | None, dict[tuple[str, str], int]]:
    form = FORMATS[name]
    values = form.gold_values(json.dumps(gold))
    found = match_note(values, form.said_values(parse_record(text), values))
    return found.text, found.offsets, dict(found.assertions)


def test_synthea_in_every_field() -> None:
    found, offsets, assertions = match("synthea", SYNTHEA, CLINIC)
    assert found.right == found.gold == found.said
    assert offsets is None
    expected = {"age", "sex", "problems", "allergies", "vitals", "procedures", "procedures.date"}
    assert found.gold.keys() == expected | {f"medications{part}" for part in ("", ".dose", ".route", ".frequency")}
    assert assertions == {("present", "present"): 3, ("family", "family"): 1}


@pytest.mark.parametrize(
    ("where", "wrong", "field"),
    [
        (("age",), 42, "age"),
        (("sex",), "male", "sex"),
        (("problems", 0), {"name": "Gout", "text": "gout"}, "problems"),
        (("medications", 0, "strength"), "5 MG", "medications.dose"),
        (("medications", 0, "route"), "SC", "medications.route"),
        (("vitals", "weight_kg"), 67.0, "vitals"),
        (("vitals", "bp_diastolic"), 77, "vitals"),
        (("procedures", 0, "date"), "2031-01-21", "procedures.date"),
    ],
)
def test_synthea_finds_each_error(where: tuple[Any, ...], wrong: Any, field: str) -> None:
    gold = copy.deepcopy(SYNTHEA)
    inner: Any = gold
    for step in where[:-1]:
        inner = inner[step]
    inner[where[-1]] = wrong
    found = scored("synthea", gold, CLINIC)
    assert found.gold - found.right == {field: 1}
    assert found.said - found.right == {field: 1}


def test_synthea_knows_what_is_denied_and_stopped() -> None:
    drug = {"status": "discontinued", "frequency_text": None, "frequency": None, "route": None, "strength": None, "name": "Naproxen"}
    gold = SYNTHEA | {"negated": ["wheeze"], "medications": [drug], "labs": [{"unit": "mmol/L", "value": 138.0, "name": "Sodium"}]}
    told = match("synthea", gold, CLINIC)[2]
    assert told["absent", "missed"] == told["historical", "missed"] == 1
    assert scored("synthea", gold, CLINIC).gold["labs.unit"] == 1


def test_glaucoma_with_and_without_offsets() -> None:
    linked, none, _ = match("glaucoma", GLAUCOMA, DRUG_LINE)
    # The masked drug has no words; its masked route has none either.
    assert linked.gold == {"medications": 2, "medications.dose": 1, "medications.frequency": 2}
    assert linked.right == linked.gold
    assert none is None
    apart, offsets, _ = match("glaucoma", GLAUCOMA_SPANS, DRUG_LINE)
    assert apart.right == apart.gold == linked.gold
    assert offsets is not None
    assert offsets.right == offsets.gold == linked.gold


def test_phee_in_both_forms() -> None:
    events, none, _ = match("phee", PHEE, CASE)
    published, offsets, _ = match("phee", PHEE_PUBLISHED, CASE)
    assert events.gold == published.gold == {"age": 1, "sex": 1, "medications": 1, "medications.route": 1}
    assert events.right == published.right
    assert events.right["age"] == events.right["sex"] == 1
    assert none is None
    assert offsets is not None
    assert offsets.right["sex"] == 1


def test_phee_pieces_reach_from_first_to_last() -> None:
    pieces = {"text": [["oral", "zopiclone"]], "start": [[44, 49]]}
    gold = {"annotations": [{"events": [{"Treatment": {"Drug": pieces}}]}]}
    (value,) = FORMATS["phee"].gold_values(gold)
    assert value.span == (44, 58)
    assert CASE[44:58] == "oral zopiclone"


def test_coded_collections() -> None:
    text = "9YOM FELL OFF SWING.\nPROBLEMS:\n- bruise of knee\n"
    found = scored("neiss", NEISS, text)
    assert found.right == found.gold == {"age": 1, "sex": 1, "diagnosis": 1}
    other = scored("neiss", NEISS | {"diagnosis": "Other/Not Stated", "sex": None}, text)
    assert other.gold == other.said == {"age": 1}, "what is not coded is not scored"
    assert scored("neiss", NEISS | {"diagnosis": "Fracture"}, text).right == {"age": 1, "sex": 1}
    assert scored("neiss", NEISS | {"age_unit": "months"}, text).right["age"] == 0
    baby = scored("vaers", VAERS, "A 19 month old girl had a fever.")
    assert baby.right == baby.gold == {"age": 1, "sex": 1}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("gold", ["", "no json", "[1]", "3", "null", '"text"', '{"other": 1}', '{"medications": 3, "events": 3, "age": 1}'])
def test_gold_of_another_form_is_refused_without_a_quote(name: str, gold: str) -> None:
    with pytest.raises(UnreadableGold) as caught:
        FORMATS[name].gold_values(gold)
    assert str(caught.value) == "gold of another form"
    assert caught.value.__suppress_context__


def test_an_unknown_format_names_the_choices() -> None:
    with pytest.raises(ConfigurationError, match="choices: chartmill, synthea, glaucoma, phee, neiss, vaers"):
        gold_format("i2b2")


def test_every_scored_field_is_in_the_record() -> None:
    ours = set(FORMATS["chartmill"].fields)
    assert all(set(form.fields) - ours <= {"diagnosis"} for form in FORMATS.values())


def test_reprs_hold_no_text() -> None:
    values = FORMATS["synthea"].gold_values(json.dumps(SYNTHEA))
    assert not any(word in repr(values).lower() for word in ("latex", "cetirizine", "shingles", "118"))
