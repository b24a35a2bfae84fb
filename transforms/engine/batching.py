"""Which texts go through the model together: sorted by length, cut by a budget of padded tokens."""

from __future__ import annotations

from collections.abc import Sequence

# More rows than this gain nothing on any device we know and cost latency when a row runs long.
MAX_ROWS = 512


def plan_batches(lengths: Sequence[int], tokens_per_batch: int, max_rows: int = MAX_ROWS) -> list[list[int]]:
    """Positions of `lengths` in batches, longest first, each position once.

    A batch's rows times its longest length stay within `tokens_per_batch`, but a batch always holds at least one row. Longest first,
    so that a run that will not fit in memory shows it at once, and later batches reuse the memory of earlier ones. Equal lengths keep
    their order.
    """
    if tokens_per_batch < 1 or max_rows < 1:
        raise ValueError(f"tokens_per_batch ({tokens_per_batch}) and max_rows ({max_rows}) must be at least 1")
    batches: list[list[int]] = []
    rows = 0
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not batches or len(batches[-1]) == rows:
            batches.append([])
            rows = max(1, min(max_rows, tokens_per_batch // max(lengths[index], 1)))
        batches[-1].append(index)
    return batches
