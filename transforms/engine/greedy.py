"""Greedy search for rows that are at different steps: each takes its most likely token, or several in one step where a draft says them.

It keeps to the interface of `search`. A draft is fed behind what is known. Each of its tokens is kept if it is what the search would have
chosen there, up to the first that is not: what that one wrote in the past's memory is overwritten by the next step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from transforms.engine.constraint_choice import gathered
from transforms.engine.constraint_machine import Tokens
from transforms.engine.constraint_plan import Guide, Plan
from transforms.engine.decode import DecodeSettings
from transforms.engine.draft import MOST, Draft, Drafter
from transforms.engine.processors import Processors
from transforms.engine.search import Feed, Hypothesis


class GreedySearch:
    """The search over `groups` rows. `capacity`: most tokens of a row, start token and prefix included. `drafter`: none, and nothing is
    drafted; `inputs` and `positions` know of no drafts."""

    width = 1

    def __init__(
        self,
        decode: DecodeSettings,
        eos_ids: Sequence[int],
        groups: int,
        capacity: int,
        device: torch.device | str = "cpu",
        minimums: bool = True,
        drafter: Drafter | None = None,
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
        self._drafter = drafter
        # Of the step that is under way, by row.
        self._drafts: list[Draft] = []

    def start(
        self, group: int, prefix: Sequence[int], minimum: int, limit: int, plan: Plan | None = None, source: Sequence[int] = ()
    ) -> None:
        """A new request in this row. `prefix`: the decoder's start token and the request's prefix. `plan`: what its output has to be, on a
        CPU only. `source`: its token ids, for drafts. Raises ValueError over capacity."""
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
        if self._drafter is not None:
            self._drafter.start(group, source if plan is None else (), prefix, limit)

    def inputs(self, groups: Tensor) -> Tensor:
        """The tokens to feed now: int64 [g]."""
        return self._tokens[groups, self._fed[groups]]

    def positions(self, groups: Tensor) -> Tensor:
        """The decoder position of each token fed, from 0: int64 [g]."""
        return self._fed[groups]

    def feed(self, groups: Tensor) -> Feed:
        """Everything known and not yet fed, with what is drafted after it, to feed in one step. `advance` then wants the logits of each
        row's last known token, and those of its draft."""
        first, known = self._fed[groups], self._known[groups]
        # A row that is done stands still.
        counts = torch.where(self._done[groups], 1, known - first)
        last = first + counts - 1
        if self._drafter is not None:
            counts = counts + self._draft(groups, last)
        total = int(counts.sum())
        if len(groups) == total:
            return Feed(counts, first, self._tokens[groups, first])
        before = counts.cumsum(0) - counts
        positions = torch.arange(total) - (before - first).repeat_interleave(counts)
        self._fed[groups] = last
        wanted = (positions >= last.repeat_interleave(counts)).nonzero()[:, 0]
        return Feed(counts, positions, self._tokens[groups.repeat_interleave(counts), positions], wanted)

    def advance(self, logits: Tensor, groups: Tensor) -> None:
        """One step. `logits`: [g, V], changed in place. A row whose prefix is still being fed, or that is done, takes no token. After a
        `feed` with drafts: [g + tokens drafted, V], row after row."""
        if any(draft.tokens for draft in self._drafts):
            self._advance_drafted(logits, groups)
            return
        known, prefix = self._known[groups], self._prefix[groups]
        fed = self._fed[groups] + 1
        takes = (fed == known) & ~self._done[groups]
        if not self._process.idle:
            tokens = self._tokens[groups]
            logits = self._process(logits, tokens, known, prefix, self._minimum[groups], self._limit[groups])
        if self._guides:
            token, gain = self._chosen(logits, self._offers(groups), takes)
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
            self._follow(groups, takes, token, gain[:, None])
        if self._drafts:
            self._learn(groups, token[:, None].tolist())

    def finished(self, groups: Tensor) -> Tensor:
        """bool [g]. A finished row stands still; feeding it on is waste, not harm."""
        return self._done[groups]

    def result(self, group: int) -> Hypothesis:
        """What the row has generated. Waits for the device."""
        prefix, known = int(self._prefix[group]), int(self._known[group])
        ids = self._tokens[group, prefix:known].tolist()
        guide = self._guides.get(group)
        if guide is not None:
            # Tokens without an alternative say nothing about how sure the model was.
            return Hypothesis(ids, float(self._logprob[group]) / max(1, guide.chosen), tuple(guide.logprobs))
        return Hypothesis(ids, float(self._logprob[group]) / len(ids) if ids else None)

    def _draft(self, groups: Tensor, last: Tensor) -> Tensor:
        """Writes drafts behind what is known, up to position `last` [g]; how many tokens each row has: [g]."""
        assert self._drafter is not None
        self._drafts = self._drafter.draft(groups.tolist())
        for row, group in enumerate(groups.tolist()):
            if guide := self._guides.get(group):
                self._drafts[row] = _inside_value(guide, self._drafter.choices(group, len(groups)))
        for group, place, draft in zip(groups.tolist(), last.tolist(), self._drafts, strict=True):
            if draft.tokens:
                self._tokens[group, place + 1 : place + 1 + len(draft.tokens)] = torch.tensor(draft.tokens)
        return torch.tensor([len(draft.tokens) for draft in self._drafts])

    def _advance_drafted(self, logits: Tensor, groups: Tensor) -> None:
        """`logits`: of each row those after its last known token, then those after each token of its draft."""
        drafted = torch.tensor([len(draft.tokens) for draft in self._drafts])
        token, gain = self._chosen_ahead(logits, groups, drafted)
        # By row and place in its draft; the places that it lacks hold what is another row's, and are not looked at.
        columns = torch.arange(int(drafted.max()) + 1)
        known, takes = self._known[groups], ~self._done[groups]
        written = self._tokens[groups[:, None], (known[:, None] + columns).clamp(max=self._capacity)]
        right = (token == written) & (columns < drafted[:, None]) & ~torch.isin(token, self._ends)
        kept = right.cumprod(1).sum(1)
        for column in columns.tolist():
            self._logprob[groups] += torch.where(takes & (column <= kept), gain[:, column], 0.0)
        last = token.gather(1, kept[:, None])[:, 0]
        self._tokens[groups, known + kept] = torch.where(takes, last, self._tokens[groups, known + kept])
        self._known[groups] = known = torch.where(takes, known + kept + 1, known)
        done = torch.isin(last, self._ends) | (known - self._prefix[groups] >= self._limit[groups])
        self._done[groups] |= done & takes
        self._fed[groups] = known - 1
        if self._guides:
            self._follow(groups, takes, last, gain, kept)
        taken = [tokens[: count + 1] for tokens, count in zip(token.tolist(), kept.tolist(), strict=True)]
        self._learn(groups, taken)

    def _learn(self, groups: Tensor, taken: Sequence[Sequence[int]]) -> None:
        """Tells the drafter which tokens each row took."""
        assert self._drafter is not None
        self._drafter.learn(groups.tolist(), self._drafts, taken)
        self._drafts = []
        for group in groups[self._done[groups]].tolist():
            self._drafter.leave(group)

    def _chosen_ahead(self, logits: Tensor, groups: Tensor, drafted: Tensor) -> tuple[Tensor, Tensor]:
        """Each row's choice after its last known token, and after each of its draft as if all before were right: [g, most drafted + 1]."""
        widths = drafted + 1
        rows = groups.repeat_interleave(widths)
        starts = widths.cumsum(0) - widths
        ahead = torch.arange(len(rows)) - starts.repeat_interleave(widths)
        if not self._process.idle:
            of = self._tokens[rows], self._known[rows] + ahead, self._prefix[rows], self._minimum[rows], self._limit[rows]
            logits = self._process(logits, *of)
        token, gain = self._chosen(logits, self._offers_ahead(groups), ~self._done[rows]) if self._guides else most_likely(logits)
        places = (starts[:, None] + torch.arange(int(widths.max()))).clamp(max=len(rows) - 1)
        return token[places], gain[places]

    def _offers(self, groups: Tensor) -> list[Tokens | None]:
        """What each row is offered; None where it is free."""
        return [guide.offer if (guide := self._guides.get(group)) else None for group in groups.tolist()]

    def _offers_ahead(self, groups: Tensor) -> list[Tokens | None]:
        """The same after each token of its draft too, row after row."""
        offers: list[Tokens | None] = []
        for group, draft in zip(groups.tolist(), self._drafts, strict=True):
            guide = self._guides.get(group)
            offers += guide.offers if guide else [None] * (1 + len(draft.tokens))
        return offers

    def _chosen(self, logits: Tensor, offers: Sequence[Tokens | None], takes: Tensor) -> tuple[Tensor, Tensor]:
        """As `most_likely`, of rows with a constraint among the tokens that it offers; those that take no token now are passed over."""
        offered = {row: offers[row] for row in takes.nonzero()[:, 0].tolist()}
        plain = [row for row, offer in enumerate(offers) if offer is None]
        guided = {row: offer for row, offer in offered.items() if offer is not None}
        token, gain = torch.zeros(len(offers), dtype=torch.long), torch.zeros(len(offers))
        if plain:
            token[plain], gain[plain] = most_likely(logits[plain])
        if guided:
            rows = list(guided)
            scores, tokens = gathered(logits, rows, list(guided.values()))
            place, gain[rows] = most_likely(scores)
            token[rows] = tokens.gather(1, place[:, None])[:, 0]
        return token, gain

    def _follow(self, groups: Tensor, takes: Tensor, tokens: Tensor, gains: Tensor, kept: Tensor | None = None) -> None:
        """Tells the guides what was chosen, after so many tokens of a draft; what must follow needs no choice and is written at once.

        `gains`: the log probability of each token taken, those of the draft first, [g, at least 1 + most kept].
        """
        before = [0] * len(groups) if kept is None else kept.tolist()
        rows = zip(groups.tolist(), takes.tolist(), tokens.tolist(), gains.tolist(), before, strict=True)
        for group, taken, token, gained, count in rows:
            guide = self._guides.get(group)
            if taken and guide is not None:
                guide.logprobs += gained[: count + 1]
                self._append(group, guide, guide.take(token) if kept is None else guide.follow(count, token))

    def _append(self, group: int, guide: Guide, ids: Sequence[int]) -> None:
        if ids:
            known = int(self._known[group])
            self._tokens[group, known : known + len(ids)] = torch.tensor(ids)
            self._known[group] = known + len(ids)
            guide.logprobs += [0.0] * len(ids)
        if guide.ended:
            self._done[group] = True


def _inside_value(guide: Guide, choices: int) -> Draft:
    """The value that is being copied goes on."""
    tokens = guide.draft(choices, MOST)
    return Draft(tuple(tokens), forced=frozenset(place for place, offer in enumerate(guide.offers[:-1]) if len(offer) == 1))


def most_likely(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The column of the highest score of each row and its log probability: [n] both."""
    best, column = scores.max(-1)
    return column, best - scores.logsumexp(-1)
