"""Problems of running text: where they count, with what is said of them, once each."""

from __future__ import annotations

import pytest

from tests.records import check_offsets
from transforms.record import parse_record


def problems(text: str) -> list[tuple[str, str]]:
    check_offsets(text)
    return [(problem["name"]["text"], problem["name"]["assertion"]) for problem in parse_record(text)["problems"]]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Denies nausea, headache and dizziness.", [("nausea", "absent"), ("headache", "absent"), ("dizziness", "absent")]),
        ("Comes with chest pain. The pain is dull.", [("chest pain", "present")]),
        ("FAMILY HISTORY:\nHis mother died of breast cancer.", [("breast cancer", "family")]),
        ("30YOM HIT BY A BALL. DX: LAC CHIN", [("LAC CHIN", "present")]),
        ("PMH:\n- chronic sinusitis\n\nHPI: sinusitis again, no fever", [("chronic sinusitis", "present"), ("fever", "absent")]),
        ("INSTRUCTIONS:\nCall with fever.", []),
        ("ALLERGIES: latex (asthma)", []),
    ],
)
def test_mentions(text: str, found: list[tuple[str, str]]) -> None:
    assert problems(text) == found


def test_what_is_said_twice_in_two_ways_stays_twice() -> None:
    assert problems("She has a history of gout. Today gout again.") == [("gout", "historical"), ("gout", "present")]


def test_parts_of_one_name_stay_together() -> None:
    text = "PMH: localized, primary osteoarthritis, carcinoma of lung, stage 2, hypertension, type 2 diabetes"
    names = [name for name, _ in problems(text)]
    assert names == ["localized, primary osteoarthritis", "carcinoma of lung, stage 2", "hypertension", "type 2 diabetes"]
