"""What a constrained output may say next: the automaton of a grammar, run beside the graph of a source. No torch, no scores.

The end of the sequence is always within the limit: a token is offered only if the fewest tokens that then lead to the end still fit.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from transforms.engine.constraint import Value
from transforms.engine.constraint_automaton import END, NEVER, START, Automaton, Open, State
from transforms.engine.constraint_source import Place, Source, View

# Many as an array, few as a list: each is made and read faster so.
Tokens = NDArray[np.int64] | list[int]


class Position(NamedTuple):
    """Where an output is: a state of the automaton and, inside a copied value, the places of the source that its tokens fit so far and how
    many tokens it has. `taken`: of lines that are distinct, the characters at which their first values began, by kind of line."""

    state: int
    places: tuple[Place, ...] = ()
    used: int = 0
    taken: tuple[tuple[int, int], ...] = ()


class Offer(NamedTuple):
    """The tokens that may come next, each once. `withheld`: others may not come for no reason but the limit."""

    tokens: Tokens
    withheld: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """An output's values in order. `chosen`: tokens that had an alternative. `cut`: the limit withheld a token somewhere."""

    values: tuple[Value, ...] = field(repr=False)
    chosen: int
    cut: bool


class Machine:
    """One grammar beside one source. Positions are values: several outputs may be at different ones."""

    def __init__(self, automaton: Automaton, source: Source) -> None:
        self._states, self._grammar, self._source = automaton.states, automaton.grammar, source
        # By kind and most tokens: what may open a value.
        self._entries = {(kind, most): _Openings(source.view(kind), most) for kind, most in automaton.kinds}
        self._costs = automaton.costs({each: openings.least for each, openings in self._entries.items()})
        # By state: tokens of its edges, cheapest first, and the fewest tokens to the end over each of them.
        self._edges: dict[int, tuple[list[int], list[float]]] = {}

    @property
    def start(self) -> Position:
        return Position(START)

    def offer(self, position: Position, remaining: int) -> Offer:
        """What may come next where `remaining` tokens are left, the end included: at least one token, but none after the end."""
        state = self._states[position.state]
        if state.open is None:
            return _within(*self._leaving(position.state), remaining)
        if not position.used:
            openings, room = self._entries[state.open.kind, state.open.most], remaining - self._costs[state.open.after]
            fresh = _within(*openings.without(self._starts(state, position)), room)
            # If no other is left, what was said before may be said again.
            return fresh if len(fresh.tokens) else _within(openings.tokens, openings.costs, room)
        return self._inside(state.open, position, remaining)

    def advance(self, position: Position, token: int) -> Position | None:
        """The position after this token, or None if it may not come here, whatever the limit."""
        state = self._states[position.state]
        if state.open is None:
            return self._entered(state.edges.get(token), position.taken)
        if not position.used:
            places = self._source.view(state.open.kind).entries.get(token, ())
            starts = self._starts(state, position)
            # If all of its places are taken it was offered because nothing else was left.
            places = tuple(place for place in places if place[1] not in starts) or places
            return Position(position.state, places, 1, position.taken) if places else None
        # No token that is copied begins a tag or is the end.
        target = self._states[state.open.after].edges.get(token)
        if target is not None:
            return self._entered(target, self._taken(state, position)) if self._ends(state.open, position) else None
        ids = self._source.nodes.ids
        places = tuple(place for place in self._following(state.open, position) if ids[place[0]] == token)
        return Position(position.state, places, position.used + 1, position.taken) if places else None

    def read(self, ids: Sequence[int], limit: int) -> Reading:
        """The values of an output of this grammar and this limit. Raises ValueError for any other output."""
        reader = _Reader(self)
        position = self.start
        for index, token in enumerate(ids):
            offer = self.offer(position, limit - index)
            following = self.advance(position, token)
            if following is None or token not in offer.tokens:
                raise ValueError(f"token {index} of an output is not what its constraint allows")
            reader.pass_on(index, position, following, offer)
            position = following
        if position.state != END:
            raise ValueError("an output stops before its end")
        return reader.reading()

    def copied_next(self, position: Position, offered: Tokens) -> int | None:
        """Of the tokens that are offered inside a copied value, the one with which the source goes on; None elsewhere."""
        if self._states[position.state].open is None or not position.used:
            return None
        nodes = self._source.nodes
        following = (nodes.ids[follower] for node, _ in position.places for follower in nodes.followers[node])
        return next((token for token in following if token in offered), None)

    def inside(self, position: Position) -> tuple[int, int] | None:
        """The line and the field of the grammar whose value an output is in."""
        state = self._states[position.state]
        return state.field if position.used or state.open is None else None

    def opens_line(self, position: Position) -> bool:
        """Whether a line's tag has just become complete."""
        return self._states[position.state].line is not None and not position.used

    def value(self, position: Position, line: int, tokens: tuple[int, int]) -> Value:
        """The value that ends at this position, with the number of its line and its tokens."""
        state = self._states[position.state]
        kind, index = state.field or (0, 0)
        described = self._grammar.lines[kind]
        start, end, candidates = self._copied(position) or (None, None, 1)
        return Value(line, described.name, described.fields[index].name, tokens, start, end, state.choice, candidates)

    def _copied(self, position: Position) -> tuple[int, int, int] | None:
        """Inside a copied value: the first of the spans that it may be, as characters [start, end), and how many there are."""
        state = self._states[position.state]
        if state.open is None or not position.used:
            return None
        view, nodes = self._source.view(state.open.kind), self._source.nodes
        spans = sorted({(start, nodes.ends[node]) for node, start in position.places if view.to_end[node] == 0})
        return (*spans[0], len(spans)) if spans else None

    def _entered(self, target: int | None, taken: tuple[tuple[int, int], ...]) -> Position | None:
        return None if target is None else Position(target, taken=taken)

    def _distinct_line(self, state: State) -> int | None:
        """The line whose first value is read here, if lines of its kind are distinct."""
        line, index = state.field or (0, 1)
        return line if index == 0 and self._grammar.lines[line].distinct else None

    def _taken(self, state: State, position: Position) -> tuple[tuple[int, int], ...]:
        """With the value that ends here."""
        line, copied = self._distinct_line(state), self._copied(position)
        return position.taken if line is None or copied is None else (*position.taken, (line, copied[0]))

    def _starts(self, state: State, position: Position) -> frozenset[int]:
        """Characters at which no value may begin here."""
        line = self._distinct_line(state) if position.taken else None
        return frozenset([start for taken, start in position.taken if taken == line])

    def _leaving(self, state: int) -> tuple[list[int], list[float]]:
        if state not in self._edges:
            edges = self._states[state].edges
            self._edges[state] = _by_cost((token, 1 + self._costs[target]) for token, target in edges.items())
        return self._edges[state]

    def _inside(self, what: Open, position: Position, remaining: int) -> Offer:
        """Further tokens of a value, and what may come after it."""
        view, ids = self._source.view(what.kind), self._source.nodes.ids
        most, room = what.most - position.used, remaining - self._costs[what.after]
        needs: dict[int, float] = {}
        for node, _ in self._following(what, position):
            need = 1 + view.to_end[node]
            if need <= most and need < needs.get(ids[node], NEVER):
                needs[ids[node]] = need
        fitting = [token for token, need in needs.items() if need <= room]
        withheld = len(fitting) < len(needs)
        if self._ends(what, position):
            after = _within(*self._leaving(what.after), remaining)
            return Offer([*fitting, *after.tokens], withheld or after.withheld)
        return Offer(fitting, withheld)

    def _following(self, what: Open, position: Position) -> dict[Place, None]:
        """Places that the next token of a value may come from, each once."""
        view, followers = self._source.view(what.kind), self._source.nodes.followers
        to_end = view.to_end
        return {
            (follower, start): None
            for node, start in position.places
            if not (view.single and to_end[node] == 0)
            for follower in followers[node]
            if to_end[follower] < NEVER
        }

    def _ends(self, what: Open, position: Position) -> bool:
        to_end = self._source.view(what.kind).to_end
        return any(to_end[node] == 0 for node, _ in position.places)


class _Openings:
    """The tokens that open a value of one kind, cheapest first, and for each the fewest tokens of such a value."""

    def __init__(self, view: View, most: int) -> None:
        self._view = view
        tokens, self.costs = _by_cost((token, cost) for token, cost in view.nearest.items() if cost <= most)
        self.tokens = np.array(tokens, dtype=np.int64)

    @property
    def least(self) -> float:
        return self.costs[0] if self.costs else NEVER

    @cached_property
    def _ranks(self) -> dict[int, int]:
        """Where each of the tokens stands."""
        return {token: rank for rank, token in enumerate(self.tokens.tolist())}

    def without(self, starts: frozenset[int]) -> tuple[Tokens, list[float]]:
        """Those that begin a value at a character which is none of these; in Python only these are gone through, not the source."""
        met = {token for start in starts for token in self._view.firsts.get(start, ()) if token in self._ranks}
        gone = [self._ranks[token] for token in met if all(start in starts for _, start in self._view.entries[token])]
        if not gone:
            return self.tokens, self.costs
        kept = np.ones(len(self.tokens), dtype=bool)
        kept[gone] = False
        costs = self.costs.copy()
        for rank in sorted(gone, reverse=True):
            del costs[rank]
        return self.tokens[kept], costs


class _Reader:
    """Collects values while an output is gone through."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._values: list[Value] = []
        self._line = -1
        self._first = 0
        self._chosen = 0
        self._cut = False

    def pass_on(self, index: int, before: Position, after: Position, offer: Offer) -> None:
        """One token, number `index`, led from one position to the next."""
        self._chosen += len(offer.tokens) > 1
        self._cut |= offer.withheld
        was, now = self._machine.inside(before), self._machine.inside(after)
        if was and was != now:
            self._values.append(self._machine.value(before, self._line, (self._first, index)))
        if now and now != was:
            self._first = index
        self._line += self._machine.opens_line(after)

    def reading(self) -> Reading:
        return Reading(tuple(self._values), self._chosen, self._cut)


def _by_cost(costs: Iterable[tuple[int, float]]) -> tuple[list[int], list[float]]:
    """Tokens that lead to the end at all, cheapest first."""
    found = sorted((cost, token) for token, cost in costs if cost < NEVER)
    return [token for _, token in found], [cost for cost, _ in found]


def _within(tokens: Tokens, costs: list[float], remaining: float) -> Offer:
    if not costs or costs[-1] <= remaining:
        return Offer(tokens)
    return Offer(tokens[: bisect_right(costs, remaining)], True)
