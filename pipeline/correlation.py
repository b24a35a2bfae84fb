"""Rank correlation with a bootstrap interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Correlation:
    """Spearman's rho (-1 to 1) with the 2.5th and 97.5th percentile of its bootstrap distribution; all None where one side is constant."""

    rho: float | None
    low: float | None
    high: float | None


def spearman(left: Sequence[float], right: Sequence[float], resamples: int = 1000, seed: int = 0) -> Correlation:
    """Spearman's rank correlation, ties by their mean rank; percentile bootstrap over the pairs (Efron 1979, doi 10.1214/aos/1176344552).

    Raises ValueError for sides of different length.
    """
    x, y = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if x.shape != y.shape:
        raise ValueError("the two sides have different lengths")
    rho = _rho(x, y)
    if rho is None:
        return Correlation(None, None, None)
    rows = np.random.default_rng(seed).integers(0, len(x), size=(resamples, len(x)))
    drawn = [value for row in rows if (value := _rho(x[row], y[row])) is not None]
    low, high = np.percentile(drawn, (2.5, 97.5)) if drawn else (rho, rho)
    return Correlation(rho, float(low), float(high))


def _rho(x: Floats, y: Floats) -> float | None:
    a, b = _ranks(x), _ranks(y)
    a, b = a - a.mean() if len(a) else a, b - b.mean() if len(b) else b
    scale = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / scale if scale else None


def _ranks(values: Floats) -> Floats:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]
