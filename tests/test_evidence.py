"""From a quotation to its place."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.evidence import locate

TEXT = "Cold feet.\nThe old  shoe\nfits. HR 80, Pain none. An OLD hat."


@pytest.mark.parametrize(
    ("quote", "found"),
    [
        ("Cold feet", "Cold feet"),
        ("old", "old"),
        ("the old shoe fits", "The old  shoe\nfits"),
        ("an old hat.", "An OLD hat."),
        ("hr 80", "HR 80"),
        ("ain", "ain"),
        (" feet ", "feet"),
    ],
)
def test_found(quote: str, found: str) -> None:
    span = locate(quote, TEXT)
    assert span is not None and TEXT[slice(*span)] == found


def test_whole_words_come_before_parts_of_words() -> None:
    assert locate("old", TEXT) == (15, 18)  # not the "old" of "Cold"
    assert locate("pain", "spain, Pain") == (7, 11)


@pytest.mark.parametrize("quote", ["", "  \n", "shoes", "the new shoe"])
def test_not_found(quote: str) -> None:
    assert locate(quote, TEXT) is None


@given(st.text(max_size=60), st.data())
def test_any_part_is_found_in_its_own_text(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    quote = text[start:end]
    span = locate(quote, text)
    if not quote.strip():
        assert span is None
    else:
        assert span is not None
        assert " ".join(text[slice(*span)].replace("\u0130", "I").lower().split()) == " ".join(quote.replace("\u0130", "I").lower().split())


def test_length_changing_characters_do_not_shift_offsets() -> None:
    text = "\u0130\u0130\u0130 then  Aspirin"
    assert locate("THEN aspirin", text) == (4, len(text))
