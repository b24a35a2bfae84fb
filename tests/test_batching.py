from __future__ import annotations

import pytest

from transforms.engine.batching import plan_batches


def test_batches_hold_every_position_once_within_the_budget() -> None:
    lengths = [7, 3, 100, 3, 50, 1, 0, 49, 12]
    batches = plan_batches(lengths, tokens_per_batch=100)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= 100 for batch in batches)
    assert [max(lengths[i] for i in batch) for batch in batches] == sorted((max(lengths[i] for i in b) for b in batches), reverse=True)
    assert plan_batches([5], tokens_per_batch=1) == [[0]]
    assert plan_batches([], tokens_per_batch=1) == []
    assert max(map(len, plan_batches([1] * 50, tokens_per_batch=1_000, max_rows=8))) == 8
    with pytest.raises(ValueError, match="must be at least 1"):
        plan_batches([1], tokens_per_batch=0)
