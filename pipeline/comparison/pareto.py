"""The Pareto front: what nothing else beats in both cost and quality."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby


def pareto_front(points: Sequence[tuple[float, float]]) -> frozenset[int]:
    """Positions of the points (cost, quality) to which no other is at least equal in both and better in one. Equal points stay together."""
    ranked = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1]))
    front: set[int] = set()
    best = float("-inf")
    for _, same_cost in groupby(ranked, key=lambda i: points[i][0]):
        tied = list(same_cost)
        highest = points[tied[0]][1]
        if highest > best:
            front |= {i for i in tied if points[i][1] == highest}
            best = highest
    return frozenset(front)
