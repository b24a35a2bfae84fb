"""What counts as said already: two in five runs of four words, and no new number."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.redundancy import RUN_WORDS, Taken

TOLD = "The cough went away after a week of rest at home, and she walks 2 miles."
PIECES = st.lists(st.sampled_from(["cough", "rest", "no", "fever", "5", "mg", "walks", "home", ",", "\n"]), max_size=30).map(" ".join)


def taken(*pieces: str) -> Taken:
    said = Taken()
    for piece in pieces:
        said.add(piece)
    return said


@pytest.mark.parametrize(
    "piece",
    [
        TOLD,
        TOLD.upper().replace(" ", "  \n"),
        "After a week of rest at home the cough went.",
        "Again, the cough went away after a week of rest at home.",
    ],
)
def test_the_same_in_other_dress_repeats(piece: str) -> None:
    assert taken("No fever.", TOLD).repeats(piece)


@pytest.mark.parametrize(
    "piece",
    [
        "",
        "No.",
        "The cough went.",
        "The cough went away with zinc, paracetamol and sleep.",
        TOLD.replace("2 miles", "3 miles"),
        TOLD.replace("2 miles", "2 miles in 2019"),
    ],
)
def test_little_in_common_or_a_new_number_does_not(piece: str) -> None:
    assert not taken("No.", "The cough went.", TOLD).repeats(piece)


def test_what_two_pieces_said_together_is_said() -> None:
    first, second = "He was seen by the surgeon on the ward", "and was sent home with a splint"
    assert not taken(first).repeats(f"{second} {first[:16]}")
    assert taken(first, second).repeats(f"{first} {second}")


@given(PIECES, PIECES)
def test_a_piece_repeats_itself_if_it_has_a_run(before: str, piece: str) -> None:
    assert taken(before, piece).repeats(piece) == (len(piece.replace(",", " ").split()) >= RUN_WORDS)


@given(PIECES)
def test_nothing_repeats_nothing(piece: str) -> None:
    assert not Taken().repeats(piece)


def test_it_shows_no_text() -> None:
    assert "cough" not in repr(taken(TOLD))
