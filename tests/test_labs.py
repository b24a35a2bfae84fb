"""Laboratory values: what is read, with which name and unit, and what only looks like one."""

from __future__ import annotations

import pytest

from tests.records import check_offsets
from transforms.record import parse_record


def labs(text: str) -> list[tuple[str, str, str | None]]:
    """(name, value, unit) of the laboratory values of a note."""
    found = [observation for observation in parse_record(text)["observations"] if observation["category"] == "lab"]
    return [(one["name"]["text"], one["value"]["text"], one["unit"] and one["unit"]["text"]) for one in found]


@pytest.mark.parametrize(
    ("text", "name", "value", "unit"),
    [
        ("His serum creatinine was 1.6 mg/dL today.", "serum creatinine", "1.6", "mg/dL"),
        ("INR 2.4", "INR", "2.4", None),
        ("Hemoglobin dropped to 8.1 g/dl", "Hemoglobin", "8.1", "g/dl"),
        ("platelets were 55,000/mm3", "platelets", "55,000", "/mm3"),
        ("troponin <0.02 ng/mL", "troponin", "<0.02", "ng/mL"),
        ("HbA1c: 8.3%", "HbA1c", "8.3", "%"),
        ("WBC | 12.9 | K/uL", "WBC", "12.9", None),
        ("TSH\t3.1", "TSH", "3.1", None),
        ("Results: Quiet marker 17 U/L", "Quiet marker", "17", "U/L"),
        ("white blood cell count, 14,200/mm3;", "white blood cell count", "14,200", "/mm3"),
        ("raised parathyroid hormone (PTH) (88 pg/mL)", "PTH", "88", "pg/mL"),
    ],
)
def test_lab(text: str, name: str, value: str, unit: str | None) -> None:
    assert labs(text) == [(name, value, unit)]
    check_offsets(text)


@pytest.mark.parametrize(
    "text",
    [
        "iron 65 mg daily",
        "PT 3 times a week",
        "K 7 was the room",
        "metformin 500 mg, furosemide 10 mg/ml",
        "albumin 25 % was given",
        "cut-off 4 U/L",
        "BP 120/80, HR 70 bpm, SpO2 97%",
        "seen on 2019-04-13 at 12:30",
        "normal range 3-5 mmol/L",
    ],
)
def test_not_a_lab(text: str) -> None:
    assert labs(text) == []


def test_short_names_count_beside_other_values() -> None:
    assert [name for name, _, _ in labs("Na 139 K 4.4 Cl 102 BUN 11 Cr 0.8")] == ["Na", "K", "Cl", "BUN", "Cr"]
    assert [name for name, _, _ in labs("RESULTS:\nK 4.4")] == ["K"]


def test_a_reading_of_a_vital_sign_is_no_lab() -> None:
    text = "BP 130/82 HR 71 Glucose 101 mg/dL, Sodium 141 mmol/L"
    assert [name for name, _, _ in labs(text)] == ["Glucose", "Sodium"]
    assert [observation["category"] for observation in parse_record(text)["observations"]] == ["vital", "vital", "lab", "lab"]
