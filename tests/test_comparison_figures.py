"""What the entrants' work comes to: against figures worked out by hand, and by other ways."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.comparison.figures import Terms, cost_per_1000, rows_of, wilson_interval
from pipeline.comparison.pareto import pareto_front
from tests.comparisons import LIMITS, as_said, comparison, entrants, ran, row, written

POINTS = st.lists(st.tuples(st.integers(1, 6).map(float), st.integers(0, 6).map(float)), max_size=12)


@given(POINTS)
def test_the_front_is_what_nobody_dominates(points: list[tuple[float, float]]) -> None:
    def dominated(i: int) -> bool:
        cost, quality = points[i]
        return any(c <= cost and q >= quality and (c, q) != (cost, quality) for c, q in points)

    assert pareto_front(points) == {i for i in range(len(points)) if not dominated(i)}


def test_scores_flags_speed_and_cost() -> None:
    found = comparison({"a": ran(written([40, 50, 60, 10], flagged=1, failed=1), rate=2.0)}, price=7.2)
    a = row(found, "a")
    # The note that failed counts as 0, and is no summary that could be flagged.
    assert a.scores["rouge1"].value == 150 / 4 and a.scores["rouge2"].value == 75 / 4
    assert a.scores["rouge1"].low < 150 / 4 < a.scores["rouge1"].high
    assert (a.summarized, a.flagged, dict(a.failed)) == (3, 1, {"GENERATION_FAILED": 1})
    assert a.flags_per_100.value == pytest.approx(100 / 3)
    assert dict(a.codes) == {"UNSUPPORTED_NUMBER": 1, "LEAD_COPY": 2}
    assert a.cost_per_1000 == cost_per_1000(7.2, 2.0) == 1.0 and a.seconds_per_1000 == 500
    assert not a.passes_gate and a.difference is None


def test_the_gate_is_that_of_a_job() -> None:
    values = [40.0] * 20
    done = {"two": ran(written(values, flagged=2)), "three": ran(written(values, flagged=3)), "lost": ran(written(values, failed=2))}
    found = comparison(dict(done))
    assert [one.passes_gate for one in found.rows] == [True, False, False]
    assert [one.passes_gate for one in comparison(dict(done), limits={"max_flagged_share": 0.2, "max_quarantined_share": 1}).rows] == [
        True
    ] * 3


def test_differences_are_paired_note_by_note() -> None:
    numbers = random.Random(7)
    values = [numbers.uniform(10, 80) for _ in range(40)]
    better = [value + 1 for value in values]
    found = comparison({"a": ran(written(values)), "b": ran(written(better, mark="!"), rate=2.0), "c": ran(written(values[::-1]))})
    b, c = row(found, "b").difference, row(found, "c").difference
    assert b is not None and c is not None
    # The same point on each note: no doubt at all, however much the notes differ.
    assert (b.scores["rouge1"].low, b.scores["rouge1"].high) == pytest.approx((1, 1))
    # The same scores on other notes: no difference on average, and much doubt.
    assert c.scores["rouge1"].value == pytest.approx(0) and c.scores["rouge1"].high - c.scores["rouge1"].low > 5
    assert b.times_faster.value == pytest.approx(2) and b.times_cheaper == b.times_faster and b.same_share == 0


def test_a_dearer_machine_eats_up_its_speed() -> None:
    cpu, gpu = entrants("cpu", "gpu")
    given = (cpu, replace(gpu, price_per_hour=cpu.price_per_hour * 8 if cpu.price_per_hour else None))
    done = {"cpu": ran(written([1.0] * 5), rate=1.0), "gpu": ran(written([1.0] * 5), rate=4.0)}
    rows = rows_of(given, done, {}, [""] * 5, Terms("cpu", "rouge1", 1.0, LIMITS, 3), as_said)
    difference = rows[1].difference
    assert difference is not None and difference.times_cheaper is not None
    assert difference.times_faster.value == pytest.approx(4) and difference.times_cheaper.value == pytest.approx(0.5)


def test_only_those_that_pass_the_gate_are_on_the_front() -> None:
    low, high = [40.0] * 10, [50.0] * 10
    done = {
        "slow and good": ran(written(high), rate=1.0),
        "slow and bad": ran(written(low), rate=1.0),
        "held": ran(written(high, flagged=9), rate=9.0),
        "fast and bad": ran(written(low), rate=5.0),
    }
    assert [one.on_front for one in comparison(dict(done)).rows] == [True, False, False, True]


def test_without_references_flags_take_the_place_of_scores() -> None:
    a, b = comparison({"a": ran(written([1.0] * 10, flagged=1)), "b": ran(written([1.0] * 9 + [2.0]))}, references=False).rows
    assert not a.scores and a.quality("rouge1").value == 90
    assert b.difference is not None and b.difference.same_share == 0.9 and b.difference.agreement is not None


def test_wilson_interval() -> None:
    # Newcombe 1998 (doi 10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E), table I, method 3.
    for part, whole, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)):
        found = wilson_interval(part, whole)
        assert (found.low / 100, found.high / 100) == pytest.approx((low, high), abs=5e-5)
    assert (wilson_interval(0, 0).low, wilson_interval(0, 0).high) == (0, 100)


def test_json_holds_figures_for_all_and_a_reason_for_those_that_failed() -> None:
    told = comparison({"a": ran(written([40.0] * 4)), "b": "no such number format here"}).as_json()
    assert json.loads(json.dumps(told)) == told
    a, b = told["contenders"]
    for name in ("scores", "intervals", "flags_per_100", "notes_per_second", "peak_mb", "cost_per_1000", "difference", "on_front"):
        assert name in a and name in b
    assert b["failure"] == "no such number format here" and b["passes_gate"] is False and b["scores"] is None
    assert {"contenders", "verdict", "n", "machine"} <= set(told) and told["n"] == 4
