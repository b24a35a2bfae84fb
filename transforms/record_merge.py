"""Several records of one note made one: of its windows, or of two readers. Offsets are those of the whole note.

Two entities are the same when they are asserted alike, contradict each other in no leaf, and their names share characters or a normal form
(an observation's always its characters: the same reading may be taken twice). What contradicts stays, both with their evidence. It reads no
text. Linear in the number of entities, but for names that are said in many contradicting ways: of those the last 8 are compared.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Leaf = dict[str, Any]
Entity = dict[str, Any]
Record = dict[str, Any]
# What an entity is called, and its assertion.
Name = tuple[str, str]

# The leaf that names an entity.
HEADS = {
    "problems": "name", "medications": "name", "allergies": "substance", "observations": "name", "procedures": "name", "follow_up": "what",
}  # fmt: skip
_BY_PLACE = frozenset(("observations",))
_COMPARED = 8
_WORD = re.compile(r"[^\W_]+|%")


def merge_records(records: Sequence[Mapping[str, Any]]) -> Record:
    """One record of several, each in the shape of RECORD_TYPE; those before are preferred to those behind. Raises ValueError for none."""
    if not records:
        raise ValueError("no records to merge")
    single = {name: _agreed([record[name] for record in records]) for name in ("age", "sex")}
    return single | {name: merge_entities(name, [entity for record in records for entity in record[name]]) for name in HEADS}


def merge_entities(field: str, entities: Sequence[Entity]) -> list[Entity]:
    """The entities of one field, those that are the same made one, in order of the note. The given ones are not changed."""
    head, groups = HEADS[field], _Groups(field)
    for entity in entities:
        groups.add(entity)
    return sorted(groups.merged, key=lambda entity: (int(entity[head]["start"]), int(entity[head]["end"])))


def _agreed(leaves: Sequence[Leaf | None]) -> Leaf | None:
    """The leaf whose value most records give, of equals the first."""
    given = [leaf for leaf in leaves if leaf]
    counts = Counter(_value(leaf) for leaf in given)
    return max(given, key=lambda leaf: counts[_value(leaf)], default=None)


def _value(leaf: Leaf) -> str:
    """What a leaf says: its normal form, else its words without case and marks."""
    return str(leaf["normal"]) if leaf["normal"] else _words(leaf)


def _names(leaf: Leaf) -> list[Name]:
    """What an entity is looked up by: what its leaf says, then its words."""
    words = _words(leaf)
    said = str(leaf["normal"] or words)
    return [(name, leaf["assertion"]) for name in ([words] if said == words else [said, words])]


def _words(leaf: Leaf) -> str:
    return " ".join(_WORD.findall(leaf["text"].casefold())) or leaf["text"]


class _Groups:
    """The entities of one field so far, by what they are called and by where they stand."""

    def __init__(self, field: str) -> None:
        self.merged: list[Entity] = []
        self._head = HEADS[field]
        self._by_place = field in _BY_PLACE
        self._named: dict[Name, list[int]] = {}
        self._placed: dict[tuple[int, str], list[int]] = {}

    def add(self, entity: Entity) -> None:
        leaf = entity[self._head]
        names = [] if self._by_place else _names(leaf)
        for index in self._near(leaf, names):
            if _fit(self.merged[index], entity, self._head):
                self.merged[index] = _together(self.merged[index], entity, self._head)
                self._known(index, leaf, names)
                return
        self.merged.append(dict(entity))
        self._known(len(self.merged) - 1, leaf, names)

    def _near(self, leaf: Leaf, names: Sequence[Name]) -> Iterator[int]:
        """Those that may be the same, those in the same place first."""
        found = [index for cell in _cells(leaf) for index in self._placed.get((cell, leaf["assertion"]), ())[-_COMPARED:]]
        yield from (index for index in dict.fromkeys(found) if _overlap(self.merged[index][self._head], leaf))
        for name in names:
            yield from self._named.get(name, ())[-_COMPARED:]

    def _known(self, index: int, leaf: Leaf, names: Sequence[Name]) -> None:
        for name in names:
            _append(self._named.setdefault(name, []), index)
        for cell in _cells(leaf):
            _append(self._placed.setdefault((cell, leaf["assertion"]), []), index)


def _append(indexes: list[int], index: int) -> None:
    if not indexes or indexes[-1] != index:
        indexes.append(index)


_CELL = 64  # characters: places are looked up by stretches of so many


def _cells(leaf: Leaf) -> range:
    return range(leaf["start"] // _CELL, (leaf["end"] - 1) // _CELL + 1)


def _overlap(one: Leaf, other: Leaf) -> bool:
    return bool(one["start"] < other["end"] and other["start"] < one["end"])


def _fit(one: Entity, other: Entity, head: str) -> bool:
    """Whether no leaf contradicts: of each at most one of them speaks, or both say the same."""
    leaves = [name for name, value in one.items() if name != head and isinstance(value, dict) and isinstance(other[name], dict)]
    return one.get("category") == other.get("category") and all(_alike(one[name], other[name]) for name in leaves)


def _alike(one: Leaf, other: Leaf) -> bool:
    return _value(one) == _value(other) or _words(one) == _words(other)


def _together(one: Entity, other: Entity, head: str) -> Entity:
    """The first, with what only the second has; of two names in one place the longer one."""
    longer = _overlap(one[head], other[head]) and _length(other[head]) > _length(one[head])
    merged = {name: value if value is not None else other[name] for name, value in one.items()}
    merged |= {"codes": _union(one["codes"], other["codes"]), "readers": _union(one["readers"], other["readers"])}
    return merged | ({head: other[head]} if longer else {})


def _length(leaf: Leaf) -> int:
    return int(leaf["end"] - leaf["start"])


def _union(one: Sequence[Any], other: Sequence[Any]) -> list[Any]:
    return [*one, *(item for item in other if item not in one)]
