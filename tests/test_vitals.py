"""Vital signs: what is read, in which unit, and what only looks like them."""

from __future__ import annotations

import pytest

from tests.records import check_offsets, vitals


@pytest.mark.parametrize(
    ("text", "name", "value", "unit"),
    [
        ("BP 120/80", "blood_pressure", "120/80", None),
        ("Blood pressure was noted to be 120 over 80.", "blood_pressure", "120/80", None),
        ("BP (!) 190/110 mm Hg", "blood_pressure", "190/110", "mm[Hg]"),
        ("pulse is 80/min", "heart_rate", "80", "/min"),
        ("HR: 101 bpm", "heart_rate", "101", "/min"),
        ("respirations are 18/min", "respiratory_rate", "18", "/min"),
        ("temperature of 38.5 °C", "body_temperature", "38.5", "Cel"),
        ("Temp 98.6 F", "body_temperature", "37", "Cel"),
        ("temperature 39\u00a0degrees Celsius", "body_temperature", "39", "Cel"),
        ("SpO2 97% on room air", "oxygen_saturation", "97", "%"),
        ("oxygen saturation was 93 percent", "oxygen_saturation", "93", "%"),
        ("weighs a lot; weight 154 lbs", "body_weight", "69.9", "kg"),
        ("Wt: 3200 g", "body_weight", "3.2", "kg"),
        ("Weight 7 lb 8 oz", "body_weight", "3.4 kg", None),
        ("height 1.70 m", "body_height", "170", "cm"),
        ("Ht 5'6\"", "body_height", "167.6 cm", None),
        ("BMI 27.5 kg/m2", "body_mass_index", "27.5", "kg/m2"),
        ("pain 7/10 today", "pain_score", "7", "/10"),
    ],
)
def test_vital(text: str, name: str, value: str, unit: str | None) -> None:
    assert vitals(text) == {name: (value, unit)}
    check_offsets(text)


@pytest.mark.parametrize(
    "text",
    [
        "BP 80/120",
        "weight loss of 20 pounds",
        "birth weight 3.2 kg",
        "p = 0.03",
        "HR 60s all night",
        "every 4 hr 80 mg",
        "Temperature 60",
        "pain 2 days ago",
        "lives at 5 T Street, room P 12",
        "heart rate 900",
        "height 5'66",
    ],
)
def test_not_a_vital(text: str) -> None:
    assert vitals(text) == {}


def test_single_letters_count_beside_other_readings() -> None:
    assert set(vitals("P 78 T 37.1 C SpO2 97%")) == {"heart_rate", "body_temperature", "oxygen_saturation"}
    assert vitals("P 78 was the answer") == {}
