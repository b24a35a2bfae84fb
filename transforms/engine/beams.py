"""Beam search for groups of rows that are at different steps: transformers' vectorised search with a state per group.

It knows nothing of models, caches or text: logits in, the tokens to feed next and whose self-attention each row continues out.

The decode loop drives this search and the greedy one alike: see `search`. While a group's prefix is fed its logits are ignored. Nothing in
a step waits for a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from transforms.engine.constraint_choice import gathered
from transforms.engine.constraint_plan import BeamGuide, Plan
from transforms.engine.decode import DecodeSettings
from transforms.engine.processors import Processors
from transforms.engine.search import Feed, Hypothesis

# What transformers takes for "no hypothesis".
_NONE = -1.0e9
# Rows are normalised a few at a time, as many values as stay in a core's cache.
_CACHED_VALUES = 100_000
# The best tokens of a row are looked for among this many strided parts of the vocabulary.
_PARTS = 64


@dataclass(frozen=True, slots=True)
class Candidates:
    """The best continuations of each group, best first. All [g, count]: summed log probability, row within the group, token, ends here."""

    scores: Tensor
    parents: Tensor
    tokens: Tensor = field(repr=False)
    ends: Tensor


class BeamSearch:
    """The search over `groups` slots of `decode.num_beams` rows (at least 2) each.

    Gives what `_beam_search` of transformers 5 (`generation/utils.py`) gives a batch of one. `eos_ids`: every token that ends a sequence.
    `capacity`: the most decoder positions of a row; the last generated token is never fed and needs none. `minimums`: False promises that
    no request has a minimum. Rows of a group are in no order: a continuation stays in its parent's row where it can.
    """

    def __init__(
        self,
        decode: DecodeSettings,
        eos_ids: Sequence[int],
        groups: int,
        capacity: int,
        device: torch.device | str = "cpu",
        minimums: bool = True,
    ) -> None:
        self.width = width = decode.num_beams
        self._early_stopping = decode.early_stopping
        self._look_ahead = decode.early_stopping == "never" and decode.length_penalty > 0
        self._process = Processors(decode, eos_ids, device, minimums=minimums)
        # Enough that `width` of them do not end the sequence.
        self._count = max(2, 1 + len(set(eos_ids))) * width
        self._eos = torch.tensor(sorted(set(eos_ids)), dtype=torch.int64, device=device)
        self._capacity = capacity
        # Rows that run, then the best that ended. The last column takes what a group that stands still would write.
        self._tokens = torch.zeros(groups, 2 * width, capacity + 2, dtype=torch.int64, device=device)
        self._scores = torch.full((groups, 2 * width), _NONE, device=device)
        # Tokens of each that ended, with start token and prefix; 0: none yet.
        self._lengths = torch.zeros(groups, width, dtype=torch.int64, device=device)
        # Position fed, tokens given, fewest and most new tokens.
        self._counts = torch.ones(groups, 4, dtype=torch.int64, device=device)
        self._done = torch.zeros(groups, dtype=torch.bool, device=device)
        powers = torch.arange(capacity + 2, dtype=torch.float64).clamp(min=1) ** decode.length_penalty
        self._penalties = powers.float().to(device)
        self._slots = torch.arange(2 * width, device=device)
        # Of the groups with a constraint.
        self._guides: dict[int, BeamGuide] = {}

    def start(
        self, group: int, prefix: Sequence[int], minimum: int, limit: int, plan: Plan | None = None, source: Sequence[int] = ()
    ) -> None:
        """A new request in this slot. `prefix`: the decoder's start token and the request's prefix. `plan`: what its output has to be, on a
        CPU only. `source` is not read. Raises ValueError over capacity."""
        if not prefix or limit < 1 or len(prefix) + limit > self._capacity + 1:
            raise ValueError(f"{len(prefix)} given and {limit} generated tokens do not fit into {self._capacity} positions")
        device = self._tokens.device
        self._tokens[group, :, : len(prefix)] = torch.tensor(prefix, device=device)
        self._counts[group] = torch.tensor([0, len(prefix), minimum, limit], device=device)
        # All rows are the same at first, so only one of them may be continued.
        self._scores[group] = _NONE
        self._scores[group, 0] = 0.0
        self._lengths[group] = 0
        self._done[group] = False
        self._guides.pop(group, None)
        if plan is not None:
            self._guides[group] = BeamGuide(plan, self.width)

    def inputs(self, groups: Tensor) -> Tensor:
        """The tokens to feed now: int64 [g * width]."""
        position = self._counts[groups, 0]
        return self._tokens[groups[:, None], self._slots[: self.width], position[:, None]].flatten()

    def positions(self, groups: Tensor) -> Tensor:
        """The decoder position of each token fed, from 0 and below `capacity`: int64 [g * width]."""
        return self._counts[groups, 0].repeat_interleave(self.width)

    def feed(self, groups: Tensor) -> Feed:
        """One token of each row: [g * width] all."""
        positions = self.positions(groups)
        return Feed(torch.ones_like(positions), positions, self.inputs(groups))

    def advance(self, logits: Tensor, groups: Tensor) -> Tensor | None:
        """One step. `logits`: [g * width, V], in float32 changed in place.

        Returns for each row the row (0 to g * width - 1) whose self-attention it continues; None: every row continues its own.
        """
        counts = self._counts[groups]
        position, prefix, _, limit = counts.unbind(1)
        length = position + 1
        still = self._done[groups] | (length < prefix)
        scores = self._processed(logits, groups, counts)
        kept = self._scores[groups]
        guided = self._guided(groups, still) if self._guides else {}
        best = self._offered(scores, guided) if guided else best_columns(scores, self._count)
        candidates = self._candidates(*best, kept[:, : self.width], length + 1 - prefix >= limit)
        running, running_scores = self._running(candidates)
        ended, ended_scores, ended_lengths = self._ended(candidates, kept[:, self.width :], self._lengths[groups], length, prefix)
        done = self._is_done(candidates, running_scores, ended_scores, ended_lengths, length + 1 - prefix, limit)

        still_rows = still[:, None]
        self._done[groups] = done = torch.where(still, self._done[groups], done)
        self._scores[groups] = torch.where(still_rows, kept, torch.cat((running_scores, ended_scores), 1))
        self._lengths[groups] = torch.where(still_rows, self._lengths[groups], ended_lengths)
        self._counts[groups, 0] = position + ~done
        rows = self._extend(groups, candidates, torch.cat((running, ended), 1), torch.where(still, self._capacity + 1, length), still_rows)
        for index, guide in guided.items():
            guide.move(rows[index, : self.width].tolist(), candidates.tokens[index, running[index]].tolist())
        return self._parents(rows[:, : self.width])

    def finished(self, groups: Tensor) -> Tensor:
        """bool [g]. A finished group stands still; feeding it on is waste, not harm."""
        return self._done[groups]

    def result(self, group: int) -> Hypothesis:
        """The best one. Waits for the device. Without any that is finished: no ids and None."""
        length = int(self._lengths[group, 0])
        if not length:
            return Hypothesis([], None)
        ids = self._tokens[group, self.width, int(self._counts[group, 1]) : length].tolist()
        return Hypothesis(ids, float(self._scores[group, self.width]))

    def _processed(self, logits: Tensor, groups: Tensor, counts: Tensor) -> Tensor:
        """Log probabilities of every row's continuations after the rules of the decode settings."""
        scores = log_probabilities(logits)
        if self._process.idle:
            return scores
        tokens = self._tokens[groups, : self.width].flatten(0, 1) if self._process.history else self._tokens[0, :0]
        position, prefix, minimum, limit = counts.repeat_interleave(self.width, 0).unbind(1)
        return self._process(scores, tokens, position + 1, prefix, minimum, limit)

    def _guided(self, groups: Tensor, still: Tensor) -> dict[int, BeamGuide]:
        """Groups of this step that have a constraint and take a token, by their place among `groups`."""
        places = enumerate(zip(groups.tolist(), still.tolist(), strict=True))
        return {place: self._guides[group] for place, (group, stands) in places if group in self._guides and not stands}

    def _offered(self, scores: Tensor, guided: dict[int, BeamGuide]) -> tuple[Tensor, Tensor]:
        """As `best_columns`; rows with a constraint have the best of what it offers, and minus infinity past that."""
        taken = [place * self.width + beam for place in guided for beam in range(self.width)]
        plain = sorted(set(range(len(scores))).difference(taken))
        each = min(self._count, scores.shape[1])
        values, tokens = torch.full((len(scores), each), float("-inf")), torch.zeros(len(scores), each, dtype=torch.int64)
        if plain:
            values[plain], tokens[plain] = best_columns(scores[plain], self._count)
        found, columns = gathered(scores, taken, [offer for guide in guided.values() for offer in guide.offers()])
        best, index = found.topk(min(each, found.shape[1]))
        values[taken, : best.shape[1]], tokens[taken, : best.shape[1]] = best, columns.gather(1, index)
        return values, tokens

    def _candidates(self, values: Tensor, tokens: Tensor, running: Tensor, last: Tensor) -> Candidates:
        """Best `values` with their `tokens` [g * width, n], `running` [g, width]; `last` [g]: the step that reaches the group's limit."""
        each = values.shape[1]
        sums = values.view(len(running), self.width, each) + running[:, :, None]
        best, index = sums.flatten(1).topk(self._count)
        tokens = tokens.view(len(running), -1).gather(1, index)
        return Candidates(best, index // each, tokens, torch.isin(tokens, self._eos) | last[:, None])

    def _running(self, candidates: Candidates) -> tuple[Tensor, Tensor]:
        """Which candidate each row becomes, and its score: the best `width` that do not end."""
        scores = candidates.scores + candidates.ends * _NONE
        best = scores.topk(self.width).indices
        chosen = best.gather(1, in_place(candidates.parents.gather(1, best)))
        return chosen, scores.gather(1, chosen)

    def _ended(
        self, candidates: Candidates, scores: Tensor, lengths: Tensor, length: Tensor, prefix: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best `width` hypotheses so far, best first: which candidate, or -width to -1 for one that is kept; scores; lengths."""
        # Candidates past the first `width` are there only so that the search can go on.
        new = candidates.ends & (torch.arange(self._count, device=scores.device) < self.width)
        penalised = candidates.scores / self._penalties[(length + 1 - prefix).clamp(min=0)][:, None]
        all_scores = torch.cat((scores, penalised + ~new * _NONE), 1)
        all_lengths = torch.cat((lengths, (length + 1)[:, None] * new), 1)
        best, index = all_scores.topk(self.width)
        return index - self.width, best, all_lengths.gather(1, index)

    def _is_done(self, candidates: Candidates, running: Tensor, ended: Tensor, lengths: Tensor, generated: Tensor, limit: Tensor) -> Tensor:
        """bool [g]: nothing better can come, by the heuristic that `early_stopping` names, or nothing more may come."""
        reached = (limit if self._look_ahead else generated).clamp(min=0)
        best = running.amax(1) / self._penalties[reached]
        worst = torch.where(lengths > 0, ended.amin(1, keepdim=True), _NONE)
        done = candidates.ends.all(1) | ~(best[:, None] > worst).any(1)
        return done | (lengths > 0).all(1) if self._early_stopping is True else done

    def _extend(self, groups: Tensor, candidates: Candidates, chosen: Tensor, column: Tensor, still: Tensor) -> Tensor:
        """Write the groups' new rows: the row each comes from with its token in `column`. Returns those rows, [g, 2 * width]."""
        index = chosen.clamp(min=0)
        # A hypothesis that is kept gets a token too, past its end, where nobody reads.
        tokens = candidates.tokens.gather(1, index)
        rows = torch.where(chosen < 0, chosen + 2 * self.width, candidates.parents.gather(1, index))
        rows = torch.where(still, self._slots, rows)
        flat = self._tokens.flatten(0, 1)
        new = flat.index_select(0, (groups[:, None] * 2 * self.width + rows).flatten()).view(len(groups), *self._tokens.shape[1:])
        new.scatter_(2, column[:, None, None].expand(-1, 2 * self.width, 1), tokens[:, :, None])
        self._tokens.index_copy_(0, groups, new)
        return rows

    def _parents(self, rows: Tensor) -> Tensor | None:
        own = torch.arange(rows.numel(), device=rows.device)
        parents = (rows + own[:: self.width, None]).flatten()
        # To look is free on a CPU only.
        return None if parents.device.type == "cpu" and torch.equal(parents, own) else parents


def log_probabilities(logits: Tensor) -> Tensor:
    """log_softmax over the last dimension in float32, in place where the logits are float32."""
    scores = logits.float()
    if scores.device.type != "cpu":
        return scores.sub_(scores.logsumexp(-1, keepdim=True))
    few = max(1, _CACHED_VALUES // scores.shape[1])
    powers = torch.empty(few, scores.shape[1])
    for part in torch.split(scores, few):
        part.sub_(part.amax(-1, keepdim=True))
        part.sub_(torch.exp(part, out=powers[: len(part)]).sum(-1, keepdim=True).log_())
    return scores


def best_columns(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` highest of each row with their columns, best first, as `topk`; many times faster on wide rows.

    The highest `count` values of a row lie in the `count` parts with the highest peaks, or in the few columns that are in no part.
    """
    size = scores.shape[1] // _PARTS
    if size <= 2 * count:
        values, columns = scores.topk(min(count, scores.shape[1]))
        return values, columns
    peaks = scores[:, : size * _PARTS].view(-1, _PARTS, size).amax(1)
    parts = peaks.topk(count, sorted=False).indices
    inside = parts[:, :, None] + torch.arange(0, size * _PARTS, size, device=scores.device)
    rest = torch.arange(size * _PARTS, scores.shape[1], device=scores.device).expand(len(scores), -1)
    columns = torch.cat((inside.flatten(1), rest), 1)
    values, index = scores.gather(1, columns).topk(count)
    return values, columns.gather(1, index)


def in_place(parents: Tensor) -> Tensor:
    """Assign continuations to rows so that few rows move: for each row the index of its continuation. int64 [g, width] both.

    The first continuation of a parent stays in the parent's row; the others fill the rows whose own continuations all dropped out.
    """
    width = parents.shape[1]
    row = torch.arange(width, device=parents.device)
    same = parents[:, :, None] == parents[:, None, :]
    first = ~same.tril(-1).any(2)
    continued = (parents[:, :, None] == row).any(1)
    # Both sorts put the movers first and what stays behind them by row, so that they pair up.
    movers = torch.where(first, width + parents, row).argsort(1)
    places = torch.where(continued, width + row, row).argsort(1)
    return torch.empty_like(parents).scatter_(1, places, movers)
