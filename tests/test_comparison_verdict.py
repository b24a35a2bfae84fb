"""The verdict says no more than the intervals allow."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.comparison.figures import Difference, Row
from pipeline.comparison.verdict import Question, Standing, cost_text, interval_text, standing
from pipeline.evaluation.bootstrap import Interval
from tests.comparisons import comparison, ran, row, written

NUMBERS = random.Random(1)
BASE = [NUMBERS.uniform(20, 60) for _ in range(60)]


def shifted(by: float, spread: float = 0.0) -> list[float]:
    """The base's scores, each moved by that and by as much as `spread` at random."""
    return [value + by + NUMBERS.uniform(-spread, spread) for value in BASE]


def test_the_cheapest_that_is_not_worse_is_the_answer() -> None:
    found = comparison({
        "float32": ran(written(BASE), rate=1.0),
        "int8": ran(written(shifted(-0.2), mark="!"), rate=2.0),
        "tiny": ran(written(shifted(-9.0)), rate=8.0),
    })  # fmt: skip
    verdict = found.verdict
    assert verdict.cheapest == "int8"
    assert verdict.answer == (
        "The cheapest that passes the gate and is not worse than float32 by more than 1 ROUGE-1: int8 (0.0500 per 1,000 notes)."
    )
    assert "int8 is 2.0x cheaper than float32; ROUGE-1 -0.2 [-0.2, -0.2]; flags equal." in verdict.sentences
    assert "tiny costs less, but is worse by more than 1 ROUGE-1." in verdict.sentences


def test_where_the_notes_cannot_tell_it_says_so_and_keeps_to_the_reference_point() -> None:
    found = comparison({"float32": ran(written(BASE)), "int8": ran(written(shifted(-0.3, 12.0)), rate=2.0)})
    assert standing(row(found, "int8"), found.question) is Standing.UNDECIDED
    assert found.verdict.cheapest == "float32" and "the reference point itself" in found.verdict.answer
    [doubt] = [sentence for sentence in found.verdict.sentences if sentence.startswith("Cannot tell with 60 notes")]
    assert "int8" in doubt


def test_the_gate_comes_first() -> None:
    found = comparison({"float32": ran(written(BASE, flagged=30)), "int8": ran(written(BASE, flagged=30), rate=3.0)})
    assert found.verdict.cheapest is None and found.verdict.answer == "None passes the gate."
    assert "float32 itself does not pass the gate." in found.verdict.sentences
    assert any(sentence.startswith("int8 is 3.0x cheaper") and "does not pass the gate" in sentence for sentence in found.verdict.sentences)


def test_a_share_near_the_limit_is_told() -> None:
    found = comparison({"float32": ran(written(BASE, flagged=6))})
    [said] = [sentence for sentence in found.verdict.sentences if "cannot be ruled out" in sentence]
    assert said.startswith("float32 passes the gate on these notes (6 of 60 flagged, limit 10 per 100), but up to 20.1 per 100")


def test_without_references_it_says_plainly_what_is_not_known() -> None:
    found = comparison({"a": ran(written(BASE)), "b": ran(written(BASE[:-6] + [1.0] * 6), rate=2.0)}, references=False, price=None)
    assert found.verdict.answer.startswith("The fastest that passes the gate: b (2.00 notes/s).")
    assert "not known without references" in found.verdict.answer
    assert any(sentence.startswith("b is 2.0x faster than a; 90 % of the summaries are the same") for sentence in found.verdict.sentences)


def test_a_reference_point_that_could_not_run_leaves_nothing_to_compare_with() -> None:
    found = comparison({"a": "its process was killed", "b": ran(written(BASE))})
    assert "nothing is said of who is worse" in found.verdict.answer
    assert "a could not run: its process was killed." not in found.verdict.answer


def test_turns_that_disagree_about_who_is_cheaper_leave_the_reference_point_in_place() -> None:
    unsteady = replace(ran(written(BASE)), rates=(0.8, 1.05, 1.3))
    found = comparison({"a": ran(written(BASE)), "b": unsteady}, margin=0)
    assert found.verdict.cheapest == "a"
    assert "b is about as cheap as a; the same summaries; flags equal." in found.verdict.sentences
    assert "b would do as well, for about the same money." in found.verdict.sentences


def test_the_same_summaries_are_not_worse_whatever_the_margin() -> None:
    found = comparison({"a": ran(written(BASE)), "b": ran(written(BASE), rate=1.05)}, margin=0)
    assert found.verdict.cheapest == "b"
    assert "b is 5 % cheaper than a; the same summaries; flags equal." in found.verdict.sentences


def test_few_notes_and_unsteady_summaries_are_told() -> None:
    found = comparison({"a": ran(written([1.0] * 5), unsteady=2)})
    assert {"Intervals of only 5 notes are rough, and narrower than they should be.", "Not the same summaries in every turn: a."} <= set(
        found.verdict.sentences
    )


@given(st.floats(-5, 5), st.floats(0, 5), st.floats(0, 5), st.floats(0, 3))
def test_standings_follow_from_the_interval(value: float, below: float, above: float, margin: float) -> None:
    interval = Interval(value, value - below, value + above)
    difference = Difference({"rouge1": interval}, interval, interval, None, 0.5, None)
    question = Question("a", "rouge1", margin, 50, True, True)
    found = standing(Row("b", {}, difference=difference), question)
    assert (found is Standing.NOT_WORSE) == (interval.low > -margin)
    assert (found is Standing.WORSE) == (interval.high < -margin)
    # A larger margin never makes anybody worse.
    wider = standing(Row("b", {}, difference=difference), replace(question, margin=margin + 1))
    order = [Standing.WORSE, Standing.UNDECIDED, Standing.NOT_WORSE]
    assert order.index(wider) >= order.index(found)


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (Interval(-0.4, -0.9, 0.1), "-0.4 [-0.9, 0.1]"),
        (Interval(1.26, 0.04, 2.0), "+1.3 [0.0, 2.0]"),
        (Interval(-0.01, 0, 0), "0.0 [0.0, 0.0]"),
    ],
)
def test_intervals_as_text(interval: Interval, text: str) -> None:
    assert interval_text(interval) == text


@pytest.mark.parametrize(("cost", "text"), [(1234.5, "1,234.50"), (0.42, "0.420"), (0.03, "0.0300"), (0.00012345, "0.000123")])
def test_costs_as_text(cost: float, text: str) -> None:
    assert cost_text(cost) == text
