"""Which values of a record are right: each right value credits one of ours and each of ours one right value.

Text match: two values are the same when a normal form is (see record_values), and an attribute only when that of its entity is too, where
gold links them. What is asserted does not decide, but among equal values those of the same assertion are paired first. A value that repeats
one already credited, with the same assertion, is no error: many collections list a finding once that the note names twice.
Offset match: the same field and the very characters; nothing is forgiven.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.evaluation.record_values import Value

MISSED = "missed"


@dataclass(frozen=True, slots=True)
class Tally:
    """Counts by field: values that agree, values of ours, right values."""

    right: Counter[str] = field(default_factory=Counter)
    said: Counter[str] = field(default_factory=Counter)
    gold: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Matched:
    """One note's counts. `offsets`: None where gold has none. `assertions`: (gold's, ours or MISSED) of right values with an assertion."""

    text: Tally
    offsets: Tally | None
    assertions: Counter[tuple[str, str]]


def match_note(gold: Sequence[Value], said: Sequence[Value]) -> Matched:
    """Score one note's values, all of fields that gold annotates."""
    distinct, ours = _distinct(gold), _distinct(said)
    pairs = _pairs(distinct, ours)
    repeats = _repeats(distinct, ours, pairs)
    text = Tally(
        Counter(distinct[i].field for i in pairs),
        Counter(value.field for i, value in enumerate(ours) if i not in repeats),
        Counter(value.field for value in distinct),
    )
    return Matched(text, _offsets(gold, said), _assertions(distinct, ours, pairs))


def _distinct(values: Sequence[Value]) -> list[Value]:
    """Values that differ in more than their place."""
    kept: dict[tuple[object, ...], Value] = {}
    for value in values:
        kept.setdefault((value.field, value.keys, value.owner, value.numbers, value.assertion), value)
    return list(kept.values())


def _pairs(gold: Sequence[Value], said: Sequence[Value]) -> dict[int, int]:
    """Right value -> value of ours, one to one: as many pairs as can be among equal assertions, then as many as can be of the rest."""
    index: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, value in enumerate(said):
        for key in value.keys:
            index[value.field, key].append(i)
    edges = []
    for value in gold:
        near = dict.fromkeys(i for key in sorted(value.keys) for i in index.get((value.field, key), ()))
        edges.append([i for i in near if value.agrees(said[i])])
    alike = assign([[i for i in row if gold[g].assertion in (None, said[i].assertion)] for g, row in enumerate(edges)])
    taken = set(alike.values())
    return alike | assign([[] if g in alike else [i for i in row if i not in taken] for g, row in enumerate(edges)])


def assign(edges: Sequence[Sequence[int]]) -> dict[int, int]:
    """A largest one-to-one assignment of rows to the columns that they list (Kuhn 1955, doi 10.1002/nav.3800020109; breadth first)."""
    column_of: dict[int, int] = {}
    row_of: dict[int, int] = {}
    for row in range(len(edges)):
        _augment(row, edges, column_of, row_of)
    return column_of


def _augment(start: int, edges: Sequence[Sequence[int]], column_of: dict[int, int], row_of: dict[int, int]) -> None:
    """Give one more row a column, moving others where that makes room."""
    came_from: dict[int, int] = {}
    waiting = [start]
    for row in waiting:  # it grows
        for column in edges[row]:
            if column in came_from:
                continue
            came_from[column] = row
            if column not in row_of:
                _shift(column, came_from, column_of, row_of)
                return
            waiting.append(row_of[column])


def _shift(free: int, came_from: Mapping[int, int], column_of: dict[int, int], row_of: dict[int, int]) -> None:
    """Walk back from a free column to the row that had none, handing each row the next column."""
    column: int | None = free
    while column is not None:
        row = came_from[column]
        row_of[column], column_of[row], column = row, column, column_of.get(row)


def _repeats(gold: Sequence[Value], said: Sequence[Value], pairs: Mapping[int, int]) -> set[int]:
    """Values of ours that say again what another of the same assertion was credited for."""
    credited: dict[tuple[str, str | None, str], list[Value]] = defaultdict(list)
    for g, i in pairs.items():
        for key in gold[g].keys:
            credited[gold[g].field, said[i].assertion, key].append(gold[g])
    left = set(range(len(said))) - set(pairs.values())
    return {i for i in left if any(right.agrees(said[i]) for right in _near(credited, said[i]))}


def _near(credited: Mapping[tuple[str, str | None, str], Sequence[Value]], value: Value) -> Iterator[Value]:
    for key in value.keys:
        yield from credited.get((value.field, value.assertion, key), ())


def _assertions(gold: Sequence[Value], said: Sequence[Value], pairs: Mapping[int, int]) -> Counter[tuple[str, str]]:
    told: Counter[tuple[str, str]] = Counter()
    for i, value in enumerate(gold):
        if value.assertion is not None:
            told[value.assertion, str(said[pairs[i]].assertion) if i in pairs else MISSED] += 1
    return told


def _offsets(gold: Sequence[Value], said: Sequence[Value]) -> Tally | None:
    """None unless every right value has its place."""
    if any(value.span is None for value in gold):
        return None
    right, ours = (Counter((value.field, value.span) for value in values) for values in (gold, said))
    return Tally(_by_field(right & ours), _by_field(ours), _by_field(right))


def _by_field(places: Counter[tuple[str, tuple[int, int] | None]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for (name, _), count in places.items():
        counts[name] += count
    return counts
