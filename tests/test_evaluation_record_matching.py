"""Which values count as right: one-to-one assignment, assertions, repetitions, owners, offsets."""

from __future__ import annotations

from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluation.record_matching import MISSED, assign, match_note
from pipeline.evaluation.record_scores import record_figures
from pipeline.evaluation.record_values import Value, age_keys, observation_value, record_values, sex_keys, text_keys, words_key
from transforms.record import parse_record

NOTE = """68 year old woman.
Problems: asthma, gout
Medications:
- ramipril 5 mg by mouth once daily
- warfarin 3 mg at night
Allergies: latex (hives)
Family history: stroke
Vital signs: BP 130/80, weight 150 lbs, pulse 77
"""


def problem(name: str, assertion: str | None = "present", span: tuple[int, int] | None = None) -> Value:
    return Value("problems", text_keys(name), assertion=assertion, span=span)


@given(st.lists(st.sets(st.integers(0, 3), max_size=3), max_size=4))
def test_the_assignment_is_as_large_as_any(edges: list[set[int]]) -> None:
    found = assign([sorted(row) for row in edges])
    assert all(column in edges[row] for row, column in found.items())
    assert len(set(found.values())) == len(found)
    best = max(sum(column in row for row, column in zip(edges, order, strict=False)) for order in permutations(range(4)))
    assert len(found) == best


def test_a_long_chain_is_moved_without_recursion() -> None:
    # Each row prefers the column that the row before it holds, so the last one moves all of them.
    edges = [[i + 1, i] if i else [1, 0] for i in range(5000)]
    assert len(assign([*edges, [5000]])) == 5001


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("Type 2 Diabetes", "type  2\ndiabetes", True),
        ("the left knee", "Left knee", True),
        ("5mg", "5 MG", True),
        ("1,000 units", "1000 units", True),
        ("b.i.d.", "B.I.D", True),
        ("0.5 mg", "5 mg", False),
        ("120/80", "120/8", False),
        ("1.5 %", "1.5", False),
        ("ﬁbrillation", "fibrillation", True),
        ("knee the left", "knee left", False),
    ],
)
def test_words_are_compared_without_case_space_punctuation_and_leading_determiners(left: str, right: str, same: bool) -> None:
    assert (words_key(left) == words_key(right)) is same


@given(st.text(max_size=60))
def test_a_key_is_its_own_key(text: str) -> None:
    key = words_key(text)
    assert words_key(key) == key


@pytest.mark.parametrize(
    ("text", "normal", "key"),
    [
        ("54-year-old", None, "54 years"),
        ("7YOF", "P7Y", "7 years"),
        ("18 month old", "P18M", "18 months"),
        ("18 mo", None, "1 years"),
        ("3 week old", None, "0 years"),
        ("10 wks", "P10W", "2 months"),
        ("aged 40", None, "40 years"),
        ("adolescent", None, "adolescent"),
    ],
)
def test_what_an_age_says(text: str, normal: str | None, key: str) -> None:
    assert key in age_keys(text, normal)


def test_what_a_sex_says() -> None:
    assert sex_keys("Boy") & sex_keys("M") == {"male"}
    assert not sex_keys("girl") & sex_keys("male")


def test_a_record_agrees_with_itself() -> None:
    values = record_values(parse_record(NOTE))
    found = match_note(values, values)
    assert {"medications.dose", "vitals", "vitals.unit", "problems", "allergies.reaction", "age", "sex"} <= found.text.gold.keys()
    assert found.text.right == found.text.said == found.text.gold
    assert found.offsets is not None
    assert found.offsets.right == found.offsets.gold
    assert all(gold == ours for gold, ours in found.assertions)


def test_one_right_value_credits_one_of_ours() -> None:
    found = match_note([problem("gout"), problem("asthma")], [problem("Gout"), problem("stroke")])
    assert (found.text.right["problems"], found.text.said["problems"], found.text.gold["problems"]) == (1, 2, 2)


def test_what_is_said_twice_is_no_error_but_what_is_said_otherwise_is() -> None:
    again = match_note([problem("gout")], [problem("gout", span=(0, 4)), problem("the gout", span=(9, 17))])
    assert again.text.said["problems"] == 1
    otherwise = match_note([problem("gout")], [problem("gout"), problem("gout", "absent")])
    assert (otherwise.text.said["problems"], otherwise.text.right["problems"]) == (2, 1)
    wrong_twice = match_note([], [problem("gout", span=(0, 4)), problem("gout", span=(9, 13))])
    assert wrong_twice.text.said["problems"] == 1


def test_equal_assertions_are_paired_first() -> None:
    gold = [problem("stroke", "present"), problem("stroke", "family")]
    found = match_note(gold, [problem("stroke", "family"), problem("stroke", "present")])
    assert found.assertions == {("present", "present"): 1, ("family", "family"): 1}
    half = match_note(gold, [problem("stroke", "family")])
    assert half.assertions == {("present", MISSED): 1, ("family", "family"): 1}


def test_the_assertion_decides_no_match() -> None:
    found = match_note([problem("cough", "absent")], [problem("cough", "present")])
    assert found.text.right["problems"] == 1
    assert found.assertions == {("absent", "present"): 1}


def test_an_attribute_counts_at_its_own_entity() -> None:
    def dose(drug: str) -> Value:
        return Value("medications.dose", text_keys("5 mg"), text_keys(drug))

    assert match_note([dose("ramipril")], [dose("warfarin")]).text.right.total() == 0
    assert match_note([dose("ramipril")], [dose("Ramipril")]).text.right.total() == 1
    assert match_note([Value("medications.dose", text_keys("5 mg"))], [dose("warfarin")]).text.right.total() == 1


def test_readings_agree_within_what_a_note_rounds() -> None:
    def weight(kg: float) -> Value:
        return observation_value("vitals", "wt", (kg,))

    assert weight(84.1).agrees(weight(83.9))
    assert not weight(84.1).agrees(weight(83.5))
    assert not observation_value("labs", "Sodium", (138.0,)).agrees(observation_value("labs", "sodium", (138.1,)))
    assert observation_value("labs", "Culture", (), "Negative").agrees(observation_value("labs", "culture", (), "negative."))
    assert not observation_value("labs", "Culture", (), "negative").agrees(observation_value("labs", "culture", (), "positive"))


def test_pounds_and_inches_are_the_same_weight_and_height() -> None:
    def vitals(text: str) -> list[Value]:
        return [value for value in record_values(parse_record(text)) if value.field == "vitals"]

    found = match_note(
        vitals("Vital signs: weight 68.0 kg, height 170 cm, temp 37.0 C"), vitals("Vital signs: weight 150 lbs, height 67 in, temp 98.6 F")
    )
    assert found.text.right["vitals"] == 3


def test_offsets_are_exact_and_absent_where_gold_has_none() -> None:
    gold = [problem("gout", span=(0, 4)), problem("gout", span=(10, 14))]
    found = match_note(gold, [problem("gout", span=(10, 14)), problem("gout", span=(0, 5))])
    assert found.offsets is not None
    assert (found.offsets.right.total(), found.offsets.said.total(), found.offsets.gold.total()) == (1, 2, 2)
    assert match_note([problem("gout")], []).offsets is None


def test_figures_by_hand() -> None:
    notes = [
        match_note([problem("gout"), problem("asthma", "absent")], [problem("gout"), problem("asthma"), problem("rash")]),
        match_note([Value("age", age_keys("7 years"))], []),
        match_note([], []),
    ]
    found = record_figures(notes, ("age", "sex", "problems"), resamples=200, seed=0)
    assert found["fields"]["problems"] == {"precision": 66.667, "recall": 100.0, "f1": 80.0, "n": 2, "said": 3}
    assert found["fields"]["age"] == {"precision": None, "recall": 0.0, "f1": 0.0, "n": 1, "said": 0}
    assert "sex" not in found["fields"]
    assert found["micro_f1"] == pytest.approx(100 * 4 / 6, abs=1e-3)
    low, high = found["micro_f1_interval"]
    assert 0 <= low <= found["micro_f1"] <= high <= 80
    assert found["assertion_accuracy"] == 50.0
    assert found["assertions"] == {"absent": {"present": 1}, "present": {"present": 1}}
    assert record_figures(notes[2:], ("age",), 10, 0)["micro_f1_interval"] is None


@given(st.lists(st.sampled_from("gout asthma stroke rash".split())), st.lists(st.sampled_from("gout asthma stroke rash".split())))
def test_matching_is_symmetric_in_what_is_right(gold: list[str], said: list[str]) -> None:
    one = match_note([problem(name) for name in gold], [problem(name) for name in said]).text
    other = match_note([problem(name) for name in said], [problem(name) for name in gold]).text
    assert one.right == other.right == +Counter(problems=len(set(gold) & set(said)))
    assert one.said == other.gold
