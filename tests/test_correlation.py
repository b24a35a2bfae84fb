"""Spearman's rho against scipy-free arithmetic: monotone, tied, constant and unrelated sides, and its interval."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.correlation import spearman

VALUES = st.lists(st.integers(-50, 50).map(float), min_size=3, max_size=40)


@given(VALUES)
def test_a_monotone_function_correlates_fully_and_its_negative_inversely(values: list[float]) -> None:
    up = spearman(values, [value**3 + 1 for value in values], resamples=5).rho
    down = spearman(values, [-value for value in values], resamples=5).rho
    if len(set(values)) == 1:
        assert up is None and down is None
    else:
        assert up == pytest.approx(1) and down == pytest.approx(-1)


@given(VALUES, st.randoms(use_true_random=False))
def test_sides_and_order_do_not_matter(values: list[float], dice: random.Random) -> None:
    other = [dice.uniform(-1, 1) for _ in values]
    order = dice.sample(range(len(values)), len(values))
    rho = spearman(values, other, resamples=2).rho
    assert spearman(other, values, resamples=2).rho == pytest.approx(rho)
    assert spearman([values[i] for i in order], [other[i] for i in order], resamples=2).rho == pytest.approx(rho)


def test_a_worked_example_with_ties() -> None:
    # Ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4: covariance 4.5, variances 4.5 and 5.
    assert spearman([1, 2, 2, 3], [10, 20, 30, 40]).rho == pytest.approx(4.5 / (4.5 * 5) ** 0.5)


def test_the_interval_holds_the_value_and_narrows_with_more_pairs() -> None:
    dice = random.Random(5)
    left = [dice.gauss(0, 1) for _ in range(800)]
    right = [value + dice.gauss(0, 1) for value in left]
    few, many = spearman(left[:50], right[:50], resamples=300), spearman(left, right, resamples=300)
    assert few.low and few.rho and few.high and many.low and many.rho and many.high
    assert few.low < few.rho < few.high
    assert many.high - many.low < (few.high - few.low) / 2
    assert spearman(left, right, resamples=300) == many


def test_no_value_without_pairs_and_an_error_for_sides_of_different_length() -> None:
    assert spearman([], []).rho is None
    with pytest.raises(ValueError, match="lengths"):
        spearman([1], [1, 2])
