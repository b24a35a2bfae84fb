"""Histograms with fixed edges, so that counts of different shards and runs add up."""

from __future__ import annotations

import bisect
from collections.abc import Iterable

# Bin i holds values in [edges[i-1], edges[i]); the first bin is below edges[0], the last at or above edges[-1].
EDGES: dict[str, tuple[float, ...]] = {
    "note_words": (10, 20, 50, 100, 200, 300, 500, 750, 1000, 1500, 2000, 5000, 10000),
    "summary_words": (5, 10, 20, 30, 40, 60, 80, 100, 125, 150, 200, 300),
    "coverage": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.999),
    "omission": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.999),
    "windows": (1, 2, 3, 4, 5, 6, 8, 12, 20, 50),
    "compression": (1, 1.5, 2, 3, 4, 6, 8, 12, 16, 32),
}


def count_values(name: str, values: Iterable[float]) -> list[int]:
    """Counts per bin, `len(EDGES[name]) + 1` long."""
    edges = EDGES[name]
    counts = [0] * (len(edges) + 1)
    for value in values:
        counts[bisect.bisect_right(edges, value)] += 1
    return counts
