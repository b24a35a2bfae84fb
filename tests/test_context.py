"""What a text says of a finding in it, and how far a trigger reaches."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.record import Assertion
from transforms.context import read_context
from transforms.words import Words


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("He has asthma.", "present"),
        ("Denies cough, fever or asthma.", "absent"),
        ("She deneis asthma.", "absent"),
        ("no cough, no asthma", "absent"),
        ("Asthma: no", "absent"),
        ("Possible asthma.", "possible"),
        ("There is concern for asthma.", "possible"),
        ("Asthma is suspected.", "possible"),
        ("history of asthma", "historical"),
        ("Prior asthma", "historical"),
        ("He had asthma as a child.", "historical"),
        ("The asthma has resolved.", "historical"),
        ("three-day history of asthma", "present"),
        ("Mother with asthma.", "family"),
        ("fhx asthma", "family"),
        ("There is a faimly history of asthma.", "family"),
        ("asthma in his brother", "family"),
        ("Her father died of asthma", "family"),
        ("Mother had noticed asthma", "present"),
        ("She is a mother; she has asthma.", "present"),
        ("Return for asthma.", None),
        ("He is at risk for asthma.", None),
        ("No family history of asthma.", None),
        ("Possible flu and asthma.", "present"),
        ("Denies cough. Asthma today.", "present"),
        ("Family history of gout. He presents with asthma.", "present"),
        ("History of gout, who presents with asthma", "present"),
    ],
)
def test_what_is_said(text: str, said: str | None) -> None:
    folded = text.lower()
    assert read_context(Words(folded)).said(folded.index("asthma")) == (None if said is None else Assertion(said))


def test_what_stands_behind_a_heading_answers_nothing() -> None:
    text = "stopped aspirin all: none"
    assert read_context(Words(text)).said(8) is Assertion.ABSENT
    assert read_context(Words(text), [text.index(":") + 1]).said(8) is Assertion.PRESENT


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.sampled_from(["no ", "possible ", "mother with ", "history of ", "if ", "asthma", ", ", ". ", "\n", " in his son", ": no"]),
        max_size=20,
    )
)
def test_any_text_has_scopes_within_it(pieces: list[str]) -> None:
    text = "".join(pieces)
    context = read_context(Words(text))
    for spans in (context.hypothetical, *(spans for _, spans in context.scopes)):
        assert all(0 <= start <= end <= len(text) for start, end in spans) and list(spans) == sorted(spans)
