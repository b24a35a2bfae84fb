"""Greedy search for rows that are at different steps: each takes its most likely token. The same interface as `beams.BeamSearch`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from transforms.engine.constraint_choice import gathered
from transforms.engine.constraint_plan import Guide, Plan
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
        # Of the rows with a constraint.
        self._guides: dict[int, Guide] = {}

    def start(self, group: int, prefix: Sequence[int], minimum: int, limit: int, plan: Plan | None = None) -> None:
        """A new request in this row. `prefix`: the decoder's start token and the request's prefix. `plan`: what its output has to be, on a
        CPU only. Raises ValueError over capacity."""
        if not prefix or limit < 1 or len(prefix) + limit > self._capacity + 1:
            raise ValueError(f"{len(prefix)} given and {limit} generated tokens do not fit into {self._capacity} positions")
        self._tokens[group, : len(prefix)] = torch.tensor(prefix, device=self._tokens.device)
        self._known[group] = self._prefix[group] = len(prefix)
        self._fed[group], self._minimum[group], self._limit[group] = 0, minimum, limit
        self._done[group], self._logprob[group] = False, 0.0
        self._guides.pop(group, None)
        if plan is not None:
            self._guides[group] = guide = Guide(plan)
            self._append(group, guide, guide.forced())

    def inputs(self, groups: Tensor) -> Tensor:
        """The tokens to feed now: int64 [g]."""
        return self._tokens[groups, self._fed[groups]]

    def positions(self, groups: Tensor) -> Tensor:
        """The decoder position of each token fed, from 0: int64 [g]."""
        return self._fed[groups]

    def feed(self, groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Everything known and not yet fed, to feed in one step: how many tokens of each row [g], and, row after row, their positions and
        ids [n]. The logits that `advance` then wants are those of each row's last one."""
        first, known = self._fed[groups], self._known[groups]
        # A row that is done stands still.
        counts = torch.where(self._done[groups], 1, known - first)
        if len(groups) == int(counts.sum()):
            return counts, first, self._tokens[groups, first]
        before = counts.cumsum(0) - counts
        positions = torch.arange(int(counts.sum())) - (before - first).repeat_interleave(counts)
        self._fed[groups] = first + counts - 1
        return counts, positions, self._tokens[groups.repeat_interleave(counts), positions]

    def advance(self, logits: Tensor, groups: Tensor) -> None:
        """One step. `logits`: [g, V], changed in place. A row whose prefix is still being fed, or that is done, takes no token."""
        known, prefix = self._known[groups], self._prefix[groups]
        fed = self._fed[groups] + 1
        takes = (fed == known) & ~self._done[groups]
        if not self._process.idle:
            tokens = self._tokens[groups]
            logits = self._process(logits, tokens, known, prefix, self._minimum[groups], self._limit[groups])
        if self._guides:
            token, gain = self._chosen(logits, groups, takes)
        else:
            token, gain = most_likely(logits)
        self._logprob[groups] += torch.where(takes, gain, 0.0)
        # What does not take a token writes its old one again.
        self._tokens[groups, known] = torch.where(takes, token, self._tokens[groups, known])
        known = known + takes
        self._known[groups] = known
        done = torch.isin(token, self._ends) | (known - prefix >= self._limit[groups])
        self._done[groups] |= done & takes
        self._fed[groups] = torch.minimum(fed, known - 1)
        if self._guides:
            self._follow(groups, takes, token)

    def finished(self, groups: Tensor) -> Tensor:
        """bool [g]. A finished row stands still; feeding it on is waste, not harm."""
        return self._done[groups]

    def result(self, group: int) -> tuple[list[int], float | None]:
        """Generated ids (the end included; no start token, prefix or padding) and their mean log probability. Waits for the device."""
        prefix, known = int(self._prefix[group]), int(self._known[group])
        ids = self._tokens[group, prefix:known].tolist()
        guide = self._guides.get(group)
        if guide is not None:
            # Tokens without an alternative say nothing about how sure the model was.
            return ids, float(self._logprob[group]) / max(1, guide.chosen)
        return ids, float(self._logprob[group]) / len(ids) if ids else None

    def _chosen(self, logits: Tensor, groups: Tensor, takes: Tensor) -> tuple[Tensor, Tensor]:
        """As `most_likely`, of rows with a constraint among the tokens that it offers; those that take no token now are passed over."""
        rows = groups.tolist()
        plain = [row for row, group in enumerate(rows) if group not in self._guides]
        guided = [row for row in takes.nonzero()[:, 0].tolist() if rows[row] in self._guides]
        token, gain = torch.zeros(len(rows), dtype=torch.long), torch.zeros(len(rows))
        if plain:
            token[plain], gain[plain] = most_likely(logits[plain])
        if guided:
            scores, tokens = gathered(logits, guided, [self._guides[rows[row]].offer for row in guided])
            place, gain[guided] = most_likely(scores)
            token[guided] = tokens.gather(1, place[:, None])[:, 0]
        return token, gain

    def _follow(self, groups: Tensor, takes: Tensor, tokens: Tensor) -> None:
        """Tells the guides what was chosen; what must follow needs no choice and is written at once."""
        for group, taken, token in zip(groups.tolist(), takes.tolist(), tokens.tolist(), strict=True):
            guide = self._guides.get(group)
            if taken and guide is not None:
                self._append(group, guide, guide.take(token))

    def _append(self, group: int, guide: Guide, ids: Sequence[int]) -> None:
        if ids:
            known = int(self._known[group])
            self._tokens[group, known : known + len(ids)] = torch.tensor(ids)
            self._known[group] = known + len(ids)
        if guide.ended:
            self._done[group] = True


def most_likely(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The column of the highest score of each row and its log probability: [n] both."""
    best, column = scores.max(-1)
    return column, best - scores.logsumexp(-1)
