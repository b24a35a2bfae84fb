"""Drafts: what an output probably says next, read from its source, and how much of that is worth a look. No torch, no scores.

An output that copies is guessed some tokens ahead: the tokens that follow in the source where the output's last ones stand (prompt lookup
decoding, Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding; Yang et al. 2023, "Inference with Reference", arXiv 2304.04487). The
decoder then reads the whole draft in one step, and the tokens that it would have chosen itself are kept (Leviathan et al. 2023, arXiv
2211.17192; here greedy, so that the output is what it is without drafts).

A longer step costs more. A token is drafted if the chance that it is kept is worth more than the seconds that it adds: more than what the
lane decodes in these seconds anyway. That is the rule of the marginal value (Charnov 1976, doi 10.1016/0040-5809(76)90040-X).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import mul

# Tokens that must agree before a source is followed, and the most that are told apart. With one token alone 17 % of the first two drafted
# tokens of abstractive summaries of dialogues were right, with two 35 %; with three, copied sentences gained 7 % less (measured on
# reference summaries).
VALUE, SHORTEST, LONGEST = 1, 2, 8
# Most tokens of a draft: past 10, little is gained even where whole sentences are copied.
MOST = 10
# Chance that the source's next token follows after so many that agree, before anything is known; it counts as this many tries. From the
# same measurement, between what summaries that copy and those that do not came to. 1, VALUE: inside a value that a constraint copies.
_PRIOR = {1: 0.6, 2: 0.5, 3: 0.6, 4: 0.7, 5: 0.75, 6: 0.8, 7: 0.8, 8: 0.85}
_PRIOR_TRIES = 8.0
# So many tokens of a request's own drafts count as much as what the others' came to.
_OWN_TRIES = 3.0
# Tries after which what was long ago counts half.
_MEMORY = 512.0
# Weight of the newest step in the averages of steps.
_NEWEST = 0.1


@dataclass(frozen=True, slots=True)
class StepCost:
    """Seconds of a decode step: `fixed` for any, and `each` more for every token that is read in it."""

    fixed: float
    each: float


class Forecast:
    """How often the source's next token was also the output's, by how many tokens before it agreed."""

    def __init__(self) -> None:
        self._tried = dict.fromkeys(_PRIOR, _PRIOR_TRIES)
        self._kept = {agreed: _PRIOR_TRIES * chance for agreed, chance in _PRIOR.items()}

    def chance(self, agreed: int, ahead: int) -> float:
        """Of the token that is `ahead` (from 0) in a draft, if all before it are right."""
        place = _place(agreed, ahead)
        return self._kept[place] / self._tried[place]

    def expected(self, agreed: int, drafted: int) -> float:
        """How many of so many tokens would be kept."""
        chances = (self.chance(agreed, ahead) for ahead in range(drafted))
        return sum(accumulate(chances, mul))

    def learn(self, agreed: int, drafted: int, kept: int) -> None:
        """Of a draft after so many tokens that agreed, the first `kept` were right, and the next, if there is one, was not."""
        for index in range(min(kept + 1, drafted)):
            place = _place(agreed, index)
            self._tried[place] += 1
            self._kept[place] += index < kept
            if self._tried[place] > _MEMORY:
                self._tried[place] /= 2
                self._kept[place] /= 2


@dataclass(slots=True)
class Writing:
    """A request that is decoded: its source and the end of its output, both as strings with a character per token, how many tokens it may
    still have, and what its drafts came to beside what was expected of them."""

    source: str = field(repr=False)
    tail: str = field(repr=False)
    room: int
    expected: float = _OWN_TRIES
    kept: float = _OWN_TRIES


@dataclass(frozen=True, slots=True)
class Draft:
    """Tokens that may come next, and how many agreed before them. `forced`: their places that a constraint leaves no choice."""

    tokens: tuple[int, ...] = field(default=(), repr=False)
    agreed: int = VALUE
    forced: frozenset[int] = frozenset()

    def choices(self, kept: int) -> int:
        """How many of the first `kept` tokens had an alternative: a step of their own is saved for those alone."""
        return kept - sum(place < kept for place in self.forced)


_NOTHING = Draft()


class Drafter:
    """Drafts for the requests of one lane, by the number of their slot. `drafted`, `kept`: tokens so far; of the kept those that had an
    alternative."""

    def __init__(self, cost: StepCost) -> None:
        self._cost = cost
        self._forecast = Forecast()
        self._writings: dict[int, Writing] = {}
        self.drafted = self.kept = 0
        # Steps' worth of tokens that a request gained in a step, and tokens that it read, on the average.
        self._gain = self._width = 1.0

    def start(self, group: int, source: Sequence[int], prefix: Sequence[int], limit: int) -> None:
        """A new request in this slot: the token ids of its source, what its output begins with, and the most tokens to generate."""
        self._writings[group] = Writing(_as_text(source), _as_text(prefix[-LONGEST:]), limit)

    def leave(self, group: int) -> None:
        """This slot's request gets no drafts."""
        self._writings.pop(group, None)

    def draft(self, groups: Sequence[int]) -> list[Draft]:
        """What each of these may say next; nothing where none pays. A draft and one token more always fit."""
        least = self._least(len(groups))
        return [self._one(self._writings.get(group), least) for group in groups]

    def choices(self, group: int, rows: int) -> int:
        """How many tokens with an alternative pay inside a value that is copied, in a step of so many requests."""
        writing = self._writings.get(group)
        return 0 if writing is None else self._worth(_trust(writing), VALUE, MOST, self._least(rows))

    def learn(self, groups: Sequence[int], drafts: Sequence[Draft], taken: Sequence[Sequence[int]]) -> None:
        """What each took in the step of these drafts: as much of its draft as was right, then one token more."""
        gained = 0
        for group, draft, tokens in zip(groups, drafts, taken, strict=True):
            kept = draft.choices(max(0, len(tokens) - 1))
            gained += 1 + kept
            writing = self._writings.get(group)
            if writing is not None:
                writing.tail = (writing.tail + _as_text(tokens))[-LONGEST:]
                writing.room -= len(tokens)
                self._judge(writing, draft, kept)
        drafted = sum(len(draft.tokens) for draft in drafts)
        self.drafted += drafted
        self._gain += _NEWEST * (gained / len(groups) - self._gain)
        self._width += _NEWEST * (1 + drafted / len(groups) - self._width)

    def _judge(self, writing: Writing, draft: Draft, kept: int) -> None:
        drafted = draft.choices(len(draft.tokens))
        writing.expected += self._forecast.expected(draft.agreed, drafted)
        writing.kept += kept
        self.kept += kept
        self._forecast.learn(draft.agreed, drafted, kept)

    def _least(self, rows: int) -> float:
        """The chance from which on a token pays: the seconds that it adds, times the tokens a second that so many requests come to."""
        cost = self._cost
        return cost.each * rows * self._gain / (cost.fixed + cost.each * rows * self._width)

    def _one(self, writing: Writing | None, least: float) -> Draft:
        # Most outputs that copy nothing are done with here.
        if writing is None or writing.tail[-SHORTEST:] not in writing.source:
            return _NOTHING
        place, agreed = where_copied(writing.source, writing.tail)
        if not agreed:
            return _NOTHING
        count = self._worth(_trust(writing), agreed, min(MOST, writing.room - 1, len(writing.source) - place), least)
        return Draft(tuple(map(ord, writing.source[place : place + count])), agreed) if count else _NOTHING

    def _worth(self, trust: float, agreed: int, most: int, least: float) -> int:
        """How many tokens pay."""
        chance, count = 1.0, 0
        while count < most:
            chance *= trust * self._forecast.chance(agreed, count)
            if chance <= least:
                break
            count += 1
        return count


def _trust(writing: Writing) -> float:
    """How often this request keeps what others' would. In few drafts luck is not to be told from merit: less than others, never more."""
    return min(1.0, writing.kept / writing.expected)


def _place(agreed: int, ahead: int) -> int:
    """How many tokens agree before one that is so far ahead in a draft; inside values that is not told apart."""
    return VALUE if agreed == VALUE else min(agreed + ahead, LONGEST)


def where_copied(source: str, tail: str) -> tuple[int, int]:
    """Where the source goes on after the longest end of the output that stands in it, of equals after the first, and its length; 0, 0 if
    fewer than SHORTEST agree."""
    place, length, start = 0, SHORTEST, 0
    if len(tail) < SHORTEST:
        return 0, 0
    # What agrees longer agrees here too, so that nothing before this place has to be looked at again.
    while length <= len(tail) and (at := source.find(tail[-length:], start)) >= 0:
        place, start = at + length, max(0, at - 1)
        length += 1
    return place, length - 1 if place else 0


def _as_text(ids: Sequence[int]) -> str:
    return "".join(map(chr, ids))
