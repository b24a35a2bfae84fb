"""Bootstrap intervals against closed forms, scipy and what must hold for any numbers."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.evaluation.bootstrap import (
    Interval,
    interval_of_difference,
    interval_of_mean,
    mean_of,
    paired_difference,
    resampled_means,
)

VALUES = np.random.default_rng(5).gamma(2.0, 10.0, size=150)
scores = st.lists(st.floats(0, 100), min_size=1, max_size=12)


def test_three_values_give_what_all_their_resamples_give() -> None:
    values = [0.0, 30.0, 90.0]
    means = [sum(drawn) / 3 for drawn in product(values, repeat=3)]
    drawn = resampled_means(values, resamples=60_000)[:, 0]
    assert sorted(set(np.round(drawn, 6))) == sorted({round(mean, 6) for mean in means})
    for mean in set(means):
        assert (np.abs(drawn - mean) < 1e-6).mean() == pytest.approx(means.count(mean) / 27, abs=0.01)


def test_many_values_give_the_interval_of_the_normal_law() -> None:
    found = interval_of_mean(VALUES)
    half = 1.959964 * VALUES.std() / len(VALUES) ** 0.5
    assert found.value == pytest.approx(VALUES.mean())
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=0.1 * half)


def test_it_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    theirs = stats.bootstrap((VALUES,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(1)).confidence_interval
    found = interval_of_mean(VALUES)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.15)


def test_a_steady_lead_is_seen_although_the_notes_differ_more() -> None:
    better = VALUES + 1 + np.random.default_rng(2).normal(0, 2, len(VALUES))
    apart = interval_of_mean(better), interval_of_mean(VALUES)
    assert apart[0].low < apart[1].high
    found = paired_difference(better, VALUES)
    assert found.interval.low > 0
    assert found.share_above > 0.99
    assert interval_of_difference(better, VALUES) == found.interval


def test_references_of_one_note_do_not_count_as_several_notes() -> None:
    once = resampled_means(VALUES)
    four_times = resampled_means(4 * VALUES, np.full(len(VALUES), 4))
    assert np.allclose(once, four_times)
    assert resampled_means(np.repeat(VALUES, 4)).std() == pytest.approx(once.std() / 2, rel=0.1)


def test_notes_with_more_references_weigh_more() -> None:
    assert mean_of([[10.0, 1.0], [90.0, 3.0]], [1, 3]).tolist() == [25.0, 1.0]


@given(scores, st.floats(-50, 50))
def test_the_interval_holds_the_mean_and_moves_with_the_values(values: list[float], shift: float) -> None:
    found = interval_of_mean(values, resamples=400)
    moved = interval_of_mean([value + shift for value in values], resamples=400)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9
    assert (moved.value, moved.low, moved.high) == pytest.approx((found.value + shift, found.low + shift, found.high + shift), abs=1e-6)


@given(scores)
def test_nothing_differs_from_itself(values: list[float]) -> None:
    found = paired_difference(values, values, resamples=100)
    assert (found.interval, found.share_above) == (Interval(0.0, 0.0, 0.0), 0.0)


def test_the_same_seed_gives_the_same_interval() -> None:
    assert interval_of_mean(VALUES, seed=3) == interval_of_mean(VALUES, seed=3) != interval_of_mean(VALUES, seed=4)


def test_more_notes_than_are_drawn_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.evaluation.bootstrap._DRAWS_AT_ONCE", 1000)
    found = resampled_means(VALUES, resamples=25)
    assert found.shape == (25, 1)
    assert len(np.unique(found)) == 25


@pytest.mark.parametrize(("values", "others"), [([], []), ([1.0], [1.0, 2.0])])
def test_nothing_and_odd_pairs_are_refused(values: list[float], others: list[float]) -> None:
    with pytest.raises(ValueError, match=r"pairs are needed|at least one value"):
        paired_difference(values, others)
