"""Planted errors: each kind where it applies, always real, always where it says, the same by seed, never a crash."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.planted import PLANTERS, Pair, plant
from transforms.quantities import quantities

ANNA = Pair(
    "Anna Berg is a 61-year-old woman with hypertension. She takes lisinopril 20 mg daily. On March 4, 2019 she fell on her left knee. "
    "She denies chest pain. The X-ray showed a small effusion of the left knee and no fracture. She rested for 3 weeks. "
    "She takes insulin 12 units at night and ramipril 5 mg. She was told to walk daily and to come back.",
    "A 61-year-old woman with hypertension on lisinopril 20 mg fell on her left knee on March 4, 2019. She denies chest pain. "
    "The X-ray showed an effusion and no fracture. Rest for 3 weeks helped before she could walk again.",
)
BORIS = Pair(
    "Boris Lind, 35-year-old man, presented with pneumonia and was started on doxycycline 100 mg. He has asthma. His right arm was sore. "
    "He was discharged after 5 days and felt well. He drinks two cups of coffee.",
    "A 35-year-old man presented with pneumonia and was started on doxycycline 100 mg. He has asthma. "
    "Ready to leave after 5 days in the ward.",
)
NUMERIC = ("tenfold_dose", "changed_number", "changed_age")
SEEDS = st.integers(0, 10**6).map(str)
KINDS = st.sampled_from(sorted(PLANTERS))


@pytest.mark.parametrize("kind", sorted(PLANTERS))
def test_every_kind_applies_to_a_summary_that_has_something_of_each(kind: str) -> None:
    planted = plant(kind, ANNA, BORIS, "0")
    assert planted is not None
    assert planted.summary != ANNA.summary
    assert planted.start < planted.end or kind == "omitted_sentence"


@pytest.mark.parametrize("kind", sorted(set(PLANTERS) - {"swapped_patient"}))
def test_no_error_where_there_is_nothing_to_make_it_of(kind: str) -> None:
    assert plant(kind, Pair("Feeling fine today", "Fine"), BORIS, "0") is None


@given(KINDS, SEEDS)
def test_the_same_seed_plants_the_same_error_where_it_says(kind: str, seed: str) -> None:
    planted = plant(kind, ANNA, BORIS, seed)
    assert planted == plant(kind, ANNA, BORIS, seed)
    assert planted is not None
    assert 0 <= planted.start <= planted.end <= len(planted.summary)
    if kind != "swapped_patient":
        assert planted.summary[: planted.start].strip() == ANNA.summary[: planted.start].strip()


@given(st.sampled_from(NUMERIC), SEEDS)
def test_a_planted_number_is_not_in_the_note(kind: str, seed: str) -> None:
    planted = plant(kind, ANNA, BORIS, seed)
    assert planted is not None
    new = planted.summary[planted.start : planted.end]
    assert not re.search(rf"(?<![\d.]){re.escape(new)}(?![\d.])", ANNA.text)
    assert not {quantity.number for quantity in quantities(new)} & {quantity.number for quantity in quantities(ANNA.text)}


def test_a_misplaced_dose_is_one_of_another_drug() -> None:
    planted = plant("misplaced_dose", ANNA, BORIS, "0")
    assert planted is not None
    assert "lisinopril 5 mg" in planted.summary


@given(SEEDS)
def test_a_planted_unit_is_new_for_its_number(seed: str) -> None:
    planted = plant("swapped_unit", ANNA, BORIS, seed)
    assert planted is not None
    assert re.search(r"\b(?:20 mcg|3 months|61-month)\b", planted.summary)


@pytest.mark.parametrize(("kind", "new"), [("swapped_drug", "doxycycline"), ("swapped_side", "right")])
def test_swaps(kind: str, new: str) -> None:
    planted = plant(kind, ANNA, BORIS, "0")
    assert planted is not None
    assert planted.summary[planted.start : planted.end] == new


def test_a_diagnosis_comes_from_the_other_note() -> None:
    planted = plant("swapped_diagnosis", ANNA, BORIS, "0")
    assert planted is not None
    assert planted.summary[planted.start : planted.end] in ("pneumonia", "asthma")


def test_a_side_that_the_note_has_too_is_no_error() -> None:
    assert plant("swapped_side", Pair("Pain in the left knee and the right knee.", "Left knee pain."), BORIS, "0") is None


def test_a_swapped_sex_changes_every_word_that_tells_it() -> None:
    planted = plant("swapped_sex", ANNA, BORIS, "0")
    assert planted is not None
    assert not re.search(r"\b(?:woman|she|her)\b", planted.summary, re.IGNORECASE)
    assert planted.summary.count("He ") == ANNA.summary.count("She ")


def test_negations_turn_both_ways() -> None:
    removed = {plant("removed_negation", ANNA, BORIS, str(seed)) for seed in range(20)}
    added = {plant("added_negation", BORIS, ANNA, str(seed)) for seed in range(20)}
    assert any(planted and "reports chest pain" in planted.summary for planted in removed)
    assert any(planted and "effusion and fracture" in planted.summary for planted in removed)
    assert any(planted and "was not started" in planted.summary for planted in added)
    assert any(planted and "presented without pneumonia" in planted.summary for planted in added)


def test_a_repeated_sentence_stands_twice() -> None:
    planted = plant("repeated_sentence", ANNA, BORIS, "1")
    assert planted is not None
    assert planted.summary.count(planted.summary[planted.start : planted.end]) == 2


def test_a_cut_summary_is_the_head_of_the_right_one_and_lacks_its_stop() -> None:
    planted = plant("cut_off", ANNA, BORIS, "2")
    assert planted is not None
    assert ANNA.summary.startswith(planted.summary)
    assert planted.summary[-1].isalpha()


def test_the_sentence_with_the_facts_is_left_out() -> None:
    planted = plant("omitted_sentence", ANNA, BORIS, "0")
    assert planted is not None
    assert "lisinopril" not in planted.summary
    assert "She denies chest pain." in planted.summary


@given(KINDS, st.text(max_size=200), st.text(max_size=200), SEEDS)
def test_any_text_gets_an_error_or_none(kind: str, text: str, summary: str, seed: str) -> None:
    planted = plant(kind, Pair(text, summary), ANNA, seed)
    assert planted is None or 0 <= planted.start <= planted.end <= len(planted.summary)


def test_nothing_of_a_note_is_in_a_repr() -> None:
    planted = plant("changed_age", ANNA, BORIS, "0")
    assert "Anna" not in repr(ANNA)
    assert "woman" not in repr(planted)
