"""A grammar in a tokenizer's tokens: a finite automaton whose copied fields are left open, since only a source says what they may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from transforms.engine.constraint import Copy, Enum, Grammar, Line, Number

# Text to token ids, without special tokens.
Encode = Callable[[str], Sequence[int]]
START, END = 0, 1
# What is copied: a span, a span that may begin or end at a hyphen, a number. All that a source has to offer each of them.
SPAN, HYPHENED, NUMBER = "span", "hyphened", "number"
KINDS = (SPAN, HYPHENED, NUMBER)
NEVER = math.inf


@dataclass(frozen=True, slots=True)
class Open:
    """A state that reads a copied field: at most `most` tokens of this kind, then the edges of the state `after`."""

    kind: str
    most: int
    after: int


@dataclass(slots=True)
class State:
    """`edges`: token to the state it leads to. `line`: this state is entered when a line's tag is complete; which kind of line.
    `field`: line and field whose value is read here. `choice`: the enum's choice that is complete here."""

    edges: dict[int, int] = field(default_factory=dict)
    open: Open | None = None
    line: int | None = None
    field: tuple[int, int] | None = None
    choice: str | None = None


class Automaton:
    """See the module. `tag_tokens`: first tokens of tags; a source's own are not copied, so that a tag is always a tag.

    Raises ValueError where the tokens of two tags, or of a tag and a choice, cannot be told apart, or are not in the vocabulary.
    """

    def __init__(self, grammar: Grammar, encode: Encode, ends: Sequence[int], unknown: int | None, vocabulary: int) -> None:
        self.grammar = grammar
        self._encode, self._unknown, self._vocabulary = encode, unknown, vocabulary
        tags = {each.tag for line in grammar.lines for each in (line, *line.fields) if each.tag}
        self._tags = {tag: self._ids(tag, tag) for tag in sorted(tags)}
        self.tag_tokens = frozenset(ids[0] for ids in self._tags.values())
        self.states = [State(), State()]
        self._ends = tuple(ends)
        self._between: dict[tuple[int, int], int] = {}
        self._values: dict[tuple[int, int], int] = {}
        # Lines may stand in any order, so each one's end leads to each one's beginning: these states come before their edges.
        self._openings = [self._new(State(line=index)) for index in range(len(grammar.lines))]
        self._fill(START, -1, 0)
        for index, line in enumerate(grammar.lines):
            self._open_line(index, line)
        self._costs: dict[tuple[float, ...], tuple[float, ...]] = {}

    def written(self, lines: Sequence[tuple[str, Mapping[str, str]]]) -> list[int]:
        """The ids of these lines, each a name with its values by field, and of the end: what a model is to learn to write. Fields come in
        the grammar's order. Raises ValueError for names and choices that the grammar does not have."""
        kinds = {line.name: line for line in self.grammar.lines}
        ids: list[int] = []
        for name, values in lines:
            if name not in kinds or not set(values) <= {each.name for each in kinds[name].fields}:
                raise ValueError(f"line {name!r} or one of its fields is not in the grammar; lines: {', '.join(kinds)}")
            ids += self._written_line(kinds[name], values)
        return [*ids, self._ends[0]]

    def _written_line(self, line: Line, values: Mapping[str, str]) -> list[int]:
        ids = list(self._tags[line.tag])
        for index, each in enumerate(line.fields):
            value = values.get(each.name)
            if value is None:
                if index == 0 or each.required:
                    raise ValueError(f"line {line.name!r} lacks its field {each.name!r}")
                continue
            if isinstance(each, Enum) and value not in each.choices:
                raise ValueError(f"line {line.name!r}, field {each.name!r}: the choices are {', '.join(each.choices)}")
            ids += [*self._tags.get(each.tag, ()), *self._encode(f" {value}")]
        return ids

    def costs(self, shortest: Mapping[tuple[str, int], float]) -> tuple[float, ...]:
        """For each state the fewest tokens to the end of the sequence, the end included; NEVER if it cannot be reached. `shortest`: the
        fewest tokens of a value by kind and most tokens."""
        key = tuple(shortest.get(each, 0.0) for each in self.kinds)
        if key not in self._costs:
            if len(self._costs) > 1_000:
                self._costs.clear()
            self._costs[key] = self._closing(shortest)
        return self._costs[key]

    @property
    def kinds(self) -> list[tuple[str, int]]:
        """What the open states ask of a source: kinds with the most tokens."""
        return sorted({(state.open.kind, state.open.most) for state in self.states if state.open})

    def _closing(self, shortest: Mapping[tuple[str, int], float]) -> tuple[float, ...]:
        """Bellman and Ford's relaxation; a grammar has a few dozen states."""
        costs = [NEVER] * len(self.states)
        costs[END] = 0
        changed = True
        while changed:
            changed = False
            for index, state in enumerate(self.states):
                ways = [1 + costs[target] for target in state.edges.values()]
                if state.open:
                    ways.append(shortest[state.open.kind, state.open.most] + costs[state.open.after])
                best = min(ways, default=NEVER)
                if best < costs[index]:
                    costs[index], changed = best, True
        return tuple(costs)

    def _new(self, state: State) -> int:
        self.states.append(state)
        return len(self.states) - 1

    def _open_line(self, index: int, line: Line) -> None:
        """From the complete tag of the line to its first field."""
        opening = self._openings[index]
        first = line.fields[0]
        if first.tag:
            self._add(opening, self._tags[first.tag], self._value(index, 0))
        else:
            self._read(opening, index, 0)

    def _after(self, line: int, fields: int) -> int:
        """The state after so many fields of a line, written or left out."""
        if (line, fields) not in self._between:
            self._between[line, fields] = state = self._new(State())
            self._fill(state, line, fields)
        return self._between[line, fields]

    def _fill(self, state: int, line: int, fields: int) -> None:
        """What may follow: the next fields up to the first that is required; if none is, any line and the end."""
        rest = self.grammar.lines[line].fields[fields:] if line >= 0 else ()
        for offset, each in enumerate(rest):
            self._add(state, self._tags[each.tag], self._value(line, fields + offset))
            if each.required:
                return
        for opening, other in zip(self._openings, self.grammar.lines, strict=True):
            self._add(state, self._tags[other.tag], opening)
        for end in self._ends:
            self._add(state, (end,), END)

    def _value(self, line: int, index: int) -> int:
        if (line, index) not in self._values:
            self._values[line, index] = state = self._new(State())
            self._read(state, line, index)
        return self._values[line, index]

    def _read(self, state: int, line: int, index: int) -> None:
        """This state reads the value of a field."""
        each, after = self.grammar.lines[line].fields[index], self._after(line, index + 1)
        if isinstance(each, Enum):
            self._read_choices(state, each, (line, index), after)
            return
        kind = NUMBER if isinstance(each, Number) else HYPHENED if isinstance(each, Copy) and each.inside_hyphens else SPAN
        self.states[state].open, self.states[state].field = Open(kind, each.max_tokens, after), (line, index)

    def _read_choices(self, state: int, each: Enum, place: tuple[int, int], after: int) -> None:
        complete = []
        for choice in each.choices:
            at = state
            for token in self._ids(f" {choice}", choice):
                if token in self.tag_tokens or token in self._ends:
                    raise ValueError(f"the choice {choice!r} contains the first token of a tag, or the end")
                at = self.states[at].edges.setdefault(token, len(self.states))
                if at == len(self.states):
                    self._new(State(field=place))
            if self.states[at].choice is not None:
                raise ValueError(f"the choices {self.states[at].choice!r} and {choice!r} have the same tokens")
            self.states[at].choice = choice
            complete.append(at)
        for at in complete:
            # No token of a choice begins a tag or ends the sequence, so these edges are new.
            self.states[at].edges.update(self.states[after].edges)

    def _add(self, state: int, ids: Sequence[int], target: int) -> None:
        """A way from state to target over these tokens. A shared beginning is shared; nothing may end where another goes on."""
        for token in ids[:-1]:
            state = self._step(state, token, ids)
        if self.states[state].edges.setdefault(ids[-1], target) != target:
            raise ValueError(f"the tags of tokens {list(ids)} cannot be told from another that may stand at the same place")

    def _step(self, state: int, token: int, ids: Sequence[int]) -> int:
        follower = self.states[state].edges.get(token)
        if follower is None:
            follower = self.states[state].edges[token] = self._new(State())
        elif self.states[follower].open or self.states[follower].line is not None or follower == END:
            raise ValueError(f"the tags of tokens {list(ids)} cannot be told from another that may stand at the same place")
        return follower

    def _ids(self, text: str, told: str) -> tuple[int, ...]:
        ids = tuple(self._encode(text))
        if not ids or self._unknown in ids or not all(0 <= token < self._vocabulary for token in ids):
            raise ValueError(f"{told!r} is not in the model's vocabulary; add it to the tokenizer or write it in other words")
        return ids
