"""Age and sex: what is read, and what only looks like them."""

from __future__ import annotations

import pytest

from tests.records import check_offsets
from transforms.record import parse_record


@pytest.mark.parametrize(
    ("text", "written", "normal"),
    [
        ("An 83-year-old man came in.", "83-year-old", "P83Y"),
        ("83 yo male with cough", "83 yo", "P83Y"),
        ("82M with cough", "82", "P82Y"),
        ("41YOM fell off a ladder", "41YO", "P41Y"),
        ("28YM cut his hand", "28Y", "P28Y"),
        ("7 MOF with a rash", "7 MO", "P7M"),
        ("A 6-month-old girl", "6-month-old", "P6M"),
        ("This 3 day old infant", "3 day old", "P3D"),
        ("A 2.5 year old boy", "2.5 year old", "P2Y6M"),
        ("Age: 45\nSex: F", "Age: 45", "P45Y"),
        ("She is a forty-two year old teacher", "forty-two year old", "P42Y"),
        ("The mother of a 4 year old boy called", "4 year old", "P4Y"),
        ("A 62 y.o. patient", "62 y.o.", "P62Y"),
        ("15 yr male with a sprain", "15 yr", "P15Y"),
        ("A man, 51 years of age, fell", "51 years of age", "P51Y"),
    ],
)
def test_age(text: str, written: str, normal: str) -> None:
    age = parse_record(text)["age"]
    assert age is not None and age["normal"] == normal
    assert age["text"] in written or written in age["text"]
    check_offsets(text)


@pytest.mark.parametrize(
    "text",
    [
        "A 3-day-old wound of the shin",
        "a 5-year history of gout",
        "T 98 F this morning",
        "follow-up in 6 mo",
        "She was diagnosed at 12 years of age.",
        "His brother, a 30-year-old, has gout.",
        "lot 2019 F was recalled",
        "A 312-year-old building",
    ],
)
def test_age_is_not_read_from(text: str) -> None:
    assert parse_record(text)["age"] is None


@pytest.mark.parametrize(
    ("text", "sex"),
    [
        ("A 45-year-old previously healthy woman", "female"),
        ("82M with cough", "male"),
        ("Sex: F, seen today", "female"),
        ("Gender: male", "male"),
        ("The patient is a retired gentleman.", "male"),
        ("Mrs. Example was seen. Mrs. Example is well.", "female"),
        ("Mr. One saw Mrs. Two.", None),
        ("A female physician reported this.", None),
        ("Cough for two days.", None),
    ],
)
def test_sex(text: str, sex: str | None) -> None:
    found = parse_record(text)["sex"]
    assert (found and found["normal"]) == sex
