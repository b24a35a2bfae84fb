"""Scores of the tokens that constraints offer, picked out of a step's scores: what rows without a constraint cost is not touched."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from transforms.engine.constraint_machine import Position, Tokens
from transforms.engine.constraint_plan import Plan

_NEVER = float("-inf")


def gathered(scores: Tensor, rows: Sequence[int], offers: Sequence[Tokens]) -> tuple[Tensor, Tensor]:
    """Scores and ids, [rows, most tokens offered], of the tokens that each of these rows of `scores` [n, V] is offered.

    Past a row's last token the score is minus infinity. A token without an alternative is not chosen: it scores 0, a probability of 1.
    """
    lengths = [len(offer) for offer in offers]
    columns = np.zeros((len(offers), max(1, *lengths)), dtype=np.int64)
    for row, offer in enumerate(offers):
        columns[row, : len(offer)] = offer
    tokens, counts = torch.from_numpy(columns), torch.tensor(lengths)[:, None]
    values = scores.take(tokens + torch.tensor(rows)[:, None] * scores.shape[1])
    values.masked_fill_(torch.arange(columns.shape[1]) >= counts, _NEVER)
    values[:, 0].masked_fill_(counts[:, 0] == 1, 0.0)
    return values, tokens


class ConstraintProcessor:
    """The same constraint for `model.generate()`: a logits processor that leaves the offered tokens, and one without an alternative at 0.

    `plans`: one per request, None for one without. `given`: ids that the decoder starts from. `width`: rows per request. Beams change
    their rows unannounced, so a row is known by what it has written.
    """

    def __init__(self, plans: Sequence[Plan | None], given: int, width: int) -> None:
        self._plans, self._given, self._width = plans, given, width
        self._positions: dict[tuple[int, tuple[int, ...]], Position | None] = {}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        positions: dict[tuple[int, tuple[int, ...]], Position | None] = {}
        for row, ids in enumerate(input_ids[:, self._given :].tolist()):
            plan = self._plans[row // self._width]
            if plan is not None:
                key = (row // self._width, tuple(ids))
                positions[key] = position = self._position(plan, *key)
                self._leave(scores[row], plan, position, len(ids))
        self._positions = positions
        return scores

    def _position(self, plan: Plan, request: int, ids: tuple[int, ...]) -> Position | None:
        if not ids:
            return plan.open().start
        before = self._positions.get((request, ids[:-1]))
        return None if before is None else plan.open().advance(before, ids[-1])

    def _leave(self, scores: Tensor, plan: Plan, position: Position | None, written: int) -> None:
        """Changes one row of scores in place."""
        offer = None if position is None else plan.open().offer(position, plan.limit - written).tokens
        if offer is None or not len(offer):
            scores.fill_(_NEVER)
            return
        tokens = torch.tensor(np.asarray(offer), device=scores.device)
        kept = scores[tokens] if len(offer) > 1 else torch.zeros(1, dtype=scores.dtype, device=scores.device)
        scores.fill_(_NEVER)
        scores[tokens] = kept
