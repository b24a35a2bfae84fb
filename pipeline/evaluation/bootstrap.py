"""Bootstrap intervals of means and of paired differences (Efron 1979, doi 10.1214/aos/1176344552): percentiles of 10,000 seeded resamples.

Whole notes are drawn, so that several references of one note do not count as if they were several patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

RESAMPLES = 10_000
_PERCENTILES = (2.5, 97.5)
# Draws held at once: 16 MB of weights.
_DRAWS_AT_ONCE = 2_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % interval, all in the unit of what was measured."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of means over the same notes. `share_above`: share (0-1) of resamples in which it is above 0."""

    interval: Interval
    share_above: float


def interval_of_mean(values: Sequence[float], resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The mean, and the 2.5th and 97.5th percentile of the means of resamples. Raises ValueError for no values."""
    return interval_of(mean_of(values)[0], resampled_means(values, resamples=resamples, seed=seed)[:, 0])


def interval_of_difference(values: Sequence[float], others: Sequence[float], resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The mean of `values` less that of `others`, pairs drawn together. Raises ValueError for different or no lengths."""
    return paired_difference(values, others, resamples, seed).interval


def paired_difference(values: Sequence[float], others: Sequence[float], resamples: int = RESAMPLES, seed: int = 0) -> Difference:
    """As `interval_of_difference`, with the share of resamples above 0."""
    if len(values) != len(others):
        raise ValueError(f"pairs are needed: {len(values)} values and {len(others)}")
    less = np.asarray(values, np.float64) - np.asarray(others, np.float64)
    return difference_of(mean_of(less)[0], resampled_means(less, resamples=resamples, seed=seed)[:, 0])


def interval_of(value: float, drawn: Floats) -> Interval:
    """The interval of a figure from what its resamples gave."""
    low, high = np.percentile(drawn, _PERCENTILES)
    return Interval(float(value), float(low), float(high))


def difference_of(value: float, drawn: Floats) -> Difference:
    """The same of a difference."""
    return Difference(interval_of(value, drawn), float((drawn > 0).mean()))


def mean_of(sums: ArrayLike, counts: ArrayLike | None = None) -> Floats:
    """The mean of each column: of `sums` [notes] or [notes, columns], each row the sum over `counts` [notes] values; by default 1 each."""
    table, weights = _table(sums, counts)
    return np.asarray(table.sum(0) / weights.sum())


def resampled_means(sums: ArrayLike, counts: ArrayLike | None = None, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """The means, as `mean_of` takes them, of resamples of the notes: float64 [resamples, columns]. All columns share the same resamples, so
    that the difference of two columns is paired. Raises ValueError for no notes.
    """
    table, weights = _table(sums, counts)
    notes = len(table)
    generator = np.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // notes)
    found = []
    for start in range(0, resamples, at_once):
        times = _times_drawn(generator, min(at_once, resamples - start), notes)
        found.append((times @ table) / (times @ weights)[:, None])
    return np.concatenate(found)


def _table(sums: ArrayLike, counts: ArrayLike | None) -> tuple[Floats, Floats]:
    table = np.asarray(sums, np.float64)
    table = table[:, None] if table.ndim == 1 else table
    weights = np.ones(len(table)) if counts is None else np.asarray(counts, np.float64)
    if not len(table) or len(table) != len(weights) or (weights <= 0).any():
        raise ValueError("nothing to average: every note needs at least one value")
    return table, weights


def _times_drawn(generator: np.random.Generator, resamples: int, notes: int) -> Floats:
    """How often each note is drawn in each resample: float64 [resamples, notes], rows adding up to `notes`."""
    drawn = generator.integers(0, notes, size=(resamples, notes))
    places = drawn + np.arange(resamples)[:, None] * notes
    return np.bincount(places.ravel(), minlength=resamples * notes).reshape(resamples, notes).astype(np.float64)
