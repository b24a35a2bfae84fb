"""From a request's constraint to the machine that a search asks: grammars are compiled once per engine, sources when their turn comes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import NamedTuple

from transforms.engine import DecodeSettings, EngineError, Tokenized
from transforms.engine.constraint import Constraint, Grammar
from transforms.engine.constraint_automaton import END, Automaton
from transforms.engine.constraint_machine import Machine, Offer, Position, Reading, Tokens
from transforms.engine.constraint_source import Source
from transforms.engine.tokens import SourceTokenizer

# A tokenizer to which these mean the same together and apart gives a word the same tokens after a space, a sign, and nothing.
_PROBE = ("(", "a", "%", ")", ".", " a")


@dataclass(slots=True)
class Plan:
    """The constraint of one request. `tokens`: how many of the text's the model reads. `limit`: most tokens to generate.

    The machine is there between `open` and `close` only: it is as large as the text, and a run may have thousands of requests.
    """

    planner: Planner = field(repr=False)
    text: str = field(repr=False)
    constraint: Constraint = field(repr=False)
    tokens: int
    limit: int
    _machine: Machine | None = field(default=None, repr=False)

    def open(self) -> Machine:
        if self._machine is None:
            self._machine = self.planner.machine(self)
        return self._machine

    def close(self, ids: Sequence[int]) -> Reading:
        """What these generated ids say."""
        reading = self.open().read(ids, self.limit)
        self._machine = None
        return reading


class Planner:
    """Plans of one engine. `ends`: every token that ends a sequence. `vocabulary`: tokens that the model scores."""

    def __init__(self, tokenizer: SourceTokenizer, ends: Sequence[int], vocabulary: int) -> None:
        self._tokenizer, self._ends, self._vocabulary = tokenizer, tuple(ends), vocabulary
        self._automata: dict[Grammar, Automaton] = {}
        self._lock = Lock()
        self._alike: bool | None = None

    def plan(self, text: str, constraint: object, tokens: int, limit: int) -> Plan:
        """Raises TypeError for what is no constraint, EngineError for a tokenizer that tells no offsets, ValueError for a grammar that
        cannot be written in the model's vocabulary or a span that is not in the text."""
        if not isinstance(constraint, Constraint):
            raise TypeError(f"a constraint is {type(constraint).__name__}; it has to be Constraint")
        end = len(text) if constraint.end is None else constraint.end
        if not 0 <= constraint.start <= end <= len(text):
            raise ValueError(f"the constraint copies from characters {constraint.start} to {end} of a text of {len(text)}")
        self.automaton(constraint.grammar)
        return Plan(self, text, constraint, tokens, limit)

    def automaton(self, grammar: Grammar) -> Automaton:
        """The grammar in the tokenizer's tokens. Raises as `plan` does."""
        with self._lock:
            if grammar not in self._automata:
                self._automata[grammar] = compile_grammar(grammar, self._tokenizer, self._ends, self._vocabulary)
            return self._automata[grammar]

    def machine(self, plan: Plan) -> Machine:
        """The source as far as the model reads it, beside the grammar."""
        automaton, constraint = self.automaton(plan.constraint.grammar), plan.constraint
        [tokens] = self._tokenizer.tokenize([plan.text])
        read = Tokenized(tokens.ids[: plan.tokens], tokens.offsets[: plan.tokens])
        banned = (self._tokenizer.special_ids - {self._tokenizer.unknown}) | automaton.tag_tokens | set(self._ends)
        banned |= {token for token in read.ids if token >= self._vocabulary}
        span = (constraint.start, len(plan.text) if constraint.end is None else constraint.end)
        kinds = {kind for kind, _ in automaton.kinds}
        return Machine(automaton, Source(plan.text, span, read, banned, kinds, self._tokenizer.tokenize, self._words_alike()))

    def _words_alike(self) -> bool:
        if self._alike is None:
            together, *apart = self._tokenizer.tokenize(["".join(_PROBE), *map(str.strip, _PROBE)])
            self._alike = together.ids == tuple(token for part in apart for token in part.ids)
        return self._alike


class State(NamedTuple):
    """Where an output is, how many tokens it may still have, and which may come next: none after the end."""

    position: Position
    remaining: int
    offer: Tokens


class Guide:
    """A greedy output under its plan. `chosen`: how many tokens had an alternative. `logprobs`: of all tokens, told by the search."""

    def __init__(self, plan: Plan) -> None:
        self._machine = plan.open()
        start = self._machine.start
        self._state = State(start, plan.limit, self._machine.offer(start, plan.limit).tokens)
        # From here on, as far as a draft goes.
        self._ahead = [self._state]
        self.chosen = 0
        self.logprobs: list[float] = []

    @property
    def offer(self) -> Tokens:
        """What may come next."""
        return self._state.offer

    @property
    def offers(self) -> list[Tokens]:
        """What may come next, and after each token of the last draft if those before it are taken."""
        return [state.offer for state in self._ahead]

    @property
    def ended(self) -> bool:
        return self._state.position.state == END

    def forced(self) -> list[int]:
        """Takes the tokens that come next without an alternative, and returns them."""
        ids: list[int] = []
        while len(self.offer) == 1:
            ids.append(int(self.offer[0]))
            self._state = self._after(self._state, ids[-1])
        return ids

    def take(self, token: int) -> list[int]:
        """Takes this one of several offered tokens, and what must follow it; returns what follows."""
        self.chosen += 1
        self._state = self._after(self._state, token)
        return self.forced()

    def draft(self, choices: int, most: int) -> list[int]:
        """At most `most` tokens that come next if a value under way goes on as the source does, and what must follow those; at most
        `choices` of them have an alternative. Nothing is taken."""
        self._ahead = [self._state]
        ids: list[int] = []
        while len(ids) < min(most, self._state.remaining - 1):
            last = self._ahead[-1]
            alone = len(last.offer) == 1
            token = int(last.offer[0]) if alone else self._machine.copied_next(last.position, last.offer) if choices else None
            if token is None:
                break
            choices -= not alone
            ids.append(token)
            self._ahead.append(self._after(last, token))
        return ids

    def follow(self, kept: int, token: int) -> list[int]:
        """Takes the first tokens of the last draft, then this one, and what must follow it; returns what follows."""
        taken = self._ahead[: kept + 1]
        self.chosen += sum(len(state.offer) > 1 for state in taken)
        self._state = self._after(taken[-1], token)
        return self.forced()

    def _after(self, state: State, token: int) -> State:
        position = self._machine.advance(state.position, token)
        if position is None:
            raise ValueError(f"token {token} is not what the constraint allows")
        offer = self._machine.offer(position, state.remaining - 1).tokens
        if not len(offer) and position.state != END:
            raise ValueError("a constraint leaves no token and no end")
        return State(position, state.remaining - 1, offer)


class BeamGuide:
    """The beams of one request under its plan, each at a position of its own; None: not an output of the grammar, or ended."""

    def __init__(self, plan: Plan, width: int) -> None:
        self._machine, self._remaining = plan.open(), plan.limit
        self._positions: list[Position | None] = [self._machine.start] * width

    def offers(self) -> list[Tokens]:
        """What may come next in each beam."""
        return [self._offer(position).tokens for position in self._positions]

    def move(self, parents: Sequence[int], tokens: Sequence[int]) -> None:
        """Beam i goes on from what beam `parents[i]` was, with `tokens[i]`."""
        self._positions = [self._after(self._positions[parent], token) for parent, token in zip(parents, tokens, strict=True)]
        self._remaining -= 1

    def _offer(self, position: Position | None) -> Offer:
        return Offer([]) if position is None else self._machine.offer(position, self._remaining)

    def _after(self, position: Position | None, token: int) -> Position | None:
        return None if position is None else self._machine.advance(position, token)


def compile_grammar(grammar: Grammar, tokenizer: SourceTokenizer, ends: Sequence[int], vocabulary: int) -> Automaton:
    """Raises EngineError for a tokenizer that tells no offsets, ValueError for a grammar that its vocabulary cannot write."""
    if not tokenizer.tells_offsets:
        raise EngineError("a constraint needs a tokenizer that tells offsets; this model's is not backed by the tokenizers library")
    return Automaton(grammar, tokenizer.ids, ends, tokenizer.unknown, vocabulary)


def plain_settings(decode: DecodeSettings) -> DecodeSettings:
    """What holds for a constrained output: beams, their scores, and the limit. Rules that ban or force tokens would contradict the grammar
    and are left out: a checkpoint's `no_repeat_ngram_size`, for one, would forbid a tag to come twice."""
    return DecodeSettings(
        num_beams=decode.num_beams,
        max_new_tokens=decode.max_new_tokens,
        length_penalty=decode.length_penalty,
        early_stopping=decode.early_stopping,
    )
