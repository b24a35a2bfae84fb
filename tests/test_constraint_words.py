"""What counts as one word or one number, and that every character has its unit."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.engine.constraint_words import units_of


def units(text: str) -> list[str]:
    return [text[start:end] for start, end in units_of(text).ends.items()]


@pytest.mark.parametrize(
    "text",
    [
        "12.5 1,000 120/80 10:30 5-10 2024-01-05 1.5.2 10^9/L -3.5 .5 -.5 +2 2+ 5/day 2/52 5'10",
        "500mg q8h B12 COVID-19 T-2 2nd x3 1½ m²",
        "patient's don’t non-smoker follow-up X-ray b.i.d e.g p.o",
        "na\u0131\u0308ve cafe\u0301 \u0939\u093f\u0928\u094d\u0926\u0940 soft\u00adhyphen",
        "... --- % ( ) ; = ≥",
    ],
    ids=["numbers", "mixed", "words", "marks", "signs"],
)
def test_each_of_these_is_one_unit(text: str) -> None:
    assert units(text) == text.split()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("98%", ["98", "%"]),
        ("<5", ["<", "5"]),
        ("HTN/DM", ["HTN", "/", "DM"]),
        ("daily),", ["daily", ")", ","]),
        ("pain.Denies", ["pain", ".", "Denies"]),
        ("b.i.d.", ["b.i.d", "."]),
        ("3.", ["3", "."]),
        ("1 000", ["1", "000"]),
        ("12-\n13", ["12", "-", "13"]),
    ],
)
def test_these_are_several(text: str, parts: list[str]) -> None:
    assert units(text) == parts


def test_numbers_are_told_from_what_only_has_digits() -> None:
    text = "12.5 120/80 -3 2+ B12 500mg q8h % 1½"
    assert sorted(text[start : units_of(text).ends[start]] for start in units_of(text).numbers) == ["-3", "12.5", "120/80", "1½", "2+"]


def test_hyphens_between_letters_are_told() -> None:
    assert units_of("non-smoker COVID-19 5-10 a - b").hyphens == (3,)


@given(st.text(alphabet=st.sampled_from("ab1 2.,:/-+'%(\n\té\u0301_½\u00ad"), max_size=60) | st.text(max_size=40))
def test_every_character_but_white_space_is_in_one_unit(text: str) -> None:
    covered = [at for start, end in units_of(text).ends.items() for at in range(start, end)]
    assert len(covered) == len(set(covered))
    assert {at for at, char in enumerate(text) if not char.isspace()} == set(covered)


@given(st.text(alphabet=st.sampled_from("ab12.,:/-%( \n"), max_size=60))
def test_no_unit_ends_between_two_letters_or_two_digits(text: str) -> None:
    for start, end in units_of(text).ends.items():
        for at in (start, end):
            if 0 < at < len(text):
                assert not (text[at - 1].isalnum() and text[at].isalnum())
                digits = text[at - 1 : at + 1]
                assert not (digits[0] in ".,:" and digits[1].isdigit() and at > 1 and text[at - 2].isdigit()), text


@pytest.mark.parametrize("part", ["a-", "1.", ".", "-", "9", "a.b", "1/a", "+", "'a"])
def test_long_texts_take_time_by_their_length(part: str) -> None:
    started = time.process_time()
    units_of(part * 100_000)
    assert time.process_time() - started < 3
