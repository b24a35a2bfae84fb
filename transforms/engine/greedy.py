"""Greedy search for rows that are at different steps: each takes its most likely token. The same interface as `beams.BeamSearch`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from transforms.engine.decode import DecodeSettings
from transforms.engine.processors import Processors


class GreedySearch:
    """The search over `groups` rows. `capacity`: most tokens of a row, start token and prefix included."""

    width = 1

    def __init__(
        self,
        decode: DecodeSettings,
        eos_ids: Sequence[int],
        groups: int,
        capacity: int,
        device: torch.device | str = "cpu",
        minimums: bool = True,
    ) -> None:
        self._process = Processors(decode, eos_ids, device, minimums=minimums)
        self._capacity = capacity
        self._ends = torch.tensor(sorted(eos_ids), device=device)
        self._tokens = torch.zeros(groups, capacity + 1, dtype=torch.long, device=device)
        # Per row: tokens known and fed, those of them given and not generated, the fewest and most to generate, and whether it is done.
        self._known, self._fed, self._prefix, self._minimum, self._limit = torch.zeros(5, groups, dtype=torch.long, device=device)
        self._done = torch.zeros(groups, dtype=torch.bool, device=device)
        self._logprob = torch.zeros(groups, device=device)

    def start(self, group: int, prefix: Sequence[int], minimum: int, limit: int) -> None:
        """A new request in this row. `prefix`: the decoder's start token and the request's prefix. Raises ValueError over capacity."""
        if not prefix or limit < 1 or len(prefix) + limit > self._capacity + 1:
            raise ValueError(f"{len(prefix)} given and {limit} generated tokens do not fit into {self._capacity} positions")
        self._tokens[group, : len(prefix)] = torch.tensor(prefix, device=self._tokens.device)
        self._known[group] = self._prefix[group] = len(prefix)
        self._fed[group], self._minimum[group], self._limit[group] = 0, minimum, limit
        self._done[group], self._logprob[group] = False, 0.0

    def inputs(self, groups: Tensor) -> Tensor:
        """The tokens to feed now: int64 [g]."""
        return self._tokens[groups, self._fed[groups]]

    def positions(self, groups: Tensor) -> Tensor:
        """The decoder position of each token fed, from 0: int64 [g]."""
        return self._fed[groups]

    def advance(self, logits: Tensor, groups: Tensor) -> None:
        """One step. `logits`: [g, V], changed in place. A row whose prefix is still being fed, or that is done, takes no token."""
        known, prefix = self._known[groups], self._prefix[groups]
        fed = self._fed[groups] + 1
        takes = (fed == known) & ~self._done[groups]
        if not self._process.idle:
            tokens = self._tokens[groups]
            logits = self._process(logits, tokens, known, prefix, self._minimum[groups], self._limit[groups])
        best, token = logits.max(-1)
        self._logprob[groups] += torch.where(takes, best - logits.logsumexp(-1), 0.0)
        # What does not take a token writes its old one again.
        self._tokens[groups, known] = torch.where(takes, token, self._tokens[groups, known])
        known = known + takes
        self._known[groups] = known
        done = torch.isin(token, self._ends) | (known - prefix >= self._limit[groups])
        self._done[groups] |= done & takes
        self._fed[groups] = torch.minimum(fed, known - 1)

    def finished(self, groups: Tensor) -> Tensor:
        """bool [g]. A finished row stands still; feeding it on is waste, not harm."""
        return self._done[groups]

    def result(self, group: int) -> tuple[list[int], float | None]:
        """Generated ids (the end included; no start token, prefix or padding) and their mean log probability. Waits for the device."""
        prefix, known = int(self._prefix[group]), int(self._known[group])
        ids = self._tokens[group, prefix:known].tolist()
        return ids, float(self._logprob[group]) / len(ids) if ids else None
