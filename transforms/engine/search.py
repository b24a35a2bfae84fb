"""What a decode loop asks of whatever chooses its tokens: greedy search, with drafts or without, and beam search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from transforms.engine.constraint_plan import Plan


class Feed(NamedTuple):
    """What is read in a step. `counts`: tokens of each row; `positions`, `tokens`: of each, row after row; `wanted`: places among them
    whose logits decide what comes, None for all."""

    counts: Tensor
    positions: Tensor
    tokens: Tensor
    wanted: Tensor | None = None


class Hypothesis(NamedTuple):
    """What a search found. `ids`: generated, the end included; no start token, prefix or padding. `score`: of greedy search the mean log
    probability per token, of beams the length-penalised one; None of nothing. `token_logprobs`: of each token, under a constraint and
    greedily; else empty."""

    ids: list[int]
    score: float | None
    token_logprobs: tuple[float, ...] = ()


class Search(Protocol):
    """A group is a request with `width` rows."""

    width: int

    def start(
        self, group: int, prefix: Sequence[int], minimum: int, limit: int, plan: Plan | None = None, source: Sequence[int] = ()
    ) -> None:
        """A new request in this group, with a constraint or without. `source`: its token ids, for a search that looks there."""

    def inputs(self, groups: Tensor) -> Tensor:
        """The tokens to feed now, one of each row."""

    def positions(self, groups: Tensor) -> Tensor:
        """Where they go, from 0."""

    def feed(self, groups: Tensor) -> Feed:
        """The same of as many tokens as are known or drafted."""

    def advance(self, logits: Tensor, groups: Tensor) -> Tensor | None:
        """One step; for each row the row whose self-attention it continues, or None where each continues its own."""

    def finished(self, groups: Tensor) -> Tensor:
        """May be asked every few steps: a finished group stands still."""

    def result(self, group: int) -> Hypothesis:
        """What was found for the group's request. Waits for the device."""
