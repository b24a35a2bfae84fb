"""What is compared of a record: its values, each with the normal forms by which another is recognised as the same.

Words are compared without case, white space, punctuation and leading determiners; beside them count the leaf's own `normal` and, of ages,
sexes, vital signs and laboratory values, what they mean. It knows no collection and no score.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from transforms.vitals import vital_named

Keys = frozenset[str]
Leaf = Mapping[str, Any]

# Entity of RECORD_TYPE -> the leaf that names it, and the leaves that belong to it. Observations are read by themselves.
ENTITIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "problems": ("name", ("onset",)),
    "medications": ("name", ("dose", "route", "frequency", "duration", "reason")),
    "allergies": ("substance", ("reaction",)),
    "procedures": ("name", ("date",)),
    "follow_up": ("what", ("when",)),
}
OBSERVATIONS = ("vitals", "vitals.unit", "labs", "labs.unit")
FIELDS = (
    "age",
    "sex",
    *(name for entity, (_, parts) in ENTITIES.items() for name in (entity, *(f"{entity}.{part}" for part in parts))),
    *OBSERVATIONS,
)

_TOKEN = re.compile(r"\d+(?:,\d{3})+(?:\.\d+)?|\d+(?:[./]\d+)*|[^\W\d_]+|%")
_DETERMINERS = frozenset("a an the this that these those his her its their my your our some any".split())
_SEXES = {"male": "m male man men boy boys he him his gentleman", "female": "f female woman women girl girls she her hers lady"}
_SEX = {word: sex for sex, words in _SEXES.items() for word in words.split()}
_ISO_AGE = re.compile(r"P(?P<n>\d{1,3})(?P<unit>[YMWD])")
_AGE = re.compile(r"(?P<n>\d{1,3})[\s-]{0,3}(?P<unit>y|mo|m(?!\w)|w|d|)")
_AGE_UNITS = {"y": "years", "mo": "months", "m": "months", "w": "weeks", "d": "days", "": "years"}
_PER_YEAR = {"months": 12, "weeks": 52, "days": 365}
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
# To the unit that vital signs are compared in: kg, cm, Cel.
_FACTORS = {"g": 0.001, "m": 100.0}
_FACTORS |= dict.fromkeys(("lb", "lbs", "pound", "pounds"), 0.45359237) | dict.fromkeys(("in", "inch", "inches"), 2.54)
_FAHRENHEIT = frozenset(("f", "degf", "fahrenheit"))
# What a note in other units rounds away: half a pound, half an inch, half a tenth of a degree. All others have to be equal.
_TOLERANCES = {"body_weight": 0.25, "body_height": 1.3, "body_temperature": 0.06}
_EXACT = 1e-6


@dataclasses.dataclass(frozen=True, slots=True)
class Value:
    """A value of a field.

    `keys`: its normal forms; any one in common makes two values the same. `owner`: the keys of the entity that it belongs to, empty for
    the entity itself and where the collection does not link them. `numbers`: the reading of an observation, alike within `tolerance`.
    `assertion`: None where nothing is said or where it does not count. `span`: characters of the note, end exclusive, if known.
    """

    field: str
    keys: Keys = dataclasses.field(repr=False)
    owner: Keys = dataclasses.field(default=frozenset(), repr=False)
    numbers: tuple[float, ...] = dataclasses.field(default=(), repr=False)
    tolerance: float = _EXACT
    assertion: str | None = None
    span: tuple[int, int] | None = dataclasses.field(default=None, repr=False)

    def agrees(self, other: Value) -> bool:
        """Whether both say the same of the same; assertions apart."""
        return not self.keys.isdisjoint(other.keys) and self._owned_alike(other) and self._reads_alike(other)

    def _owned_alike(self, other: Value) -> bool:
        return not self.owner or not other.owner or not self.owner.isdisjoint(other.owner)

    def _reads_alike(self, other: Value) -> bool:
        if len(self.numbers) != len(other.numbers):
            return False
        within = max(self.tolerance, other.tolerance)
        return all(abs(mine - theirs) <= within for mine, theirs in zip(self.numbers, other.numbers, strict=True))


def words_key(text: str) -> str:
    """Words and numbers of a text, folded (NFKC), without punctuation and leading determiners; empty where there are none.

    After the normalization of SQuAD (Rajpurkar et al. 2016, arXiv 1606.05250), which drops articles anywhere; numbers keep their points.
    """
    words = [word.replace(",", "") for word in _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())]
    first = next((i for i, word in enumerate(words) if word not in _DETERMINERS), 0)
    return " ".join(words[first:])


def text_keys(*texts: str | None) -> Keys:
    """The keys of several spellings of one thing; None and what has no words give none."""
    return frozenset(key for text in texts if text and (key := words_key(text)))


def age_keys(text: str, normal: str | None = None) -> Keys:
    """The words of an age, and what they say: "18 months" is also "1 years"; days and weeks are whole months and years too."""
    found = _ISO_AGE.fullmatch(normal or "") or _AGE.search(text.casefold())
    return text_keys(text) | (age_number_keys(int(found["n"]), _AGE_UNITS[found["unit"].casefold()]) if found else frozenset())


def age_number_keys(number: int, unit: str) -> Keys:
    """`unit`: years, months, weeks or days."""
    keys = {f"{number} {unit}"}
    if unit in _PER_YEAR:
        keys.add(f"{number // _PER_YEAR[unit]} years")
    if unit in ("weeks", "days"):
        keys.add(f"{number * 12 // _PER_YEAR[unit]} months")
    return frozenset(keys)


def sex_keys(text: str, normal: str | None = None) -> Keys:
    """`male` or `female` where the words tell, beside the words."""
    sex = _SEX.get(text.strip(" .").casefold())
    return text_keys(text, normal) | ({sex} if sex else frozenset())


def span_of(leaf: Leaf) -> tuple[int, int] | None:
    """Where a leaf stands, None if it does not say."""
    start, end = leaf.get("start"), leaf.get("end")
    return None if start is None or end is None else (int(start), int(end))


def record_values(record: Mapping[str, Any]) -> list[Value]:
    """All values of a record in the shape of RECORD_TYPE; fields and leaves that are missing or null have none."""
    return [value for value in _values(record) if value.keys]


def _values(record: Mapping[str, Any]) -> Iterator[Value]:
    for name, keys in (("age", age_keys), ("sex", sex_keys)):
        leaf = record.get(name)
        if leaf:
            yield Value(name, keys(leaf["text"], leaf.get("normal")), span=span_of(leaf))
    for name, (head, parts) in ENTITIES.items():
        for entity in record.get(name) or ():
            yield from _entity(name, entity, head, parts)
    for observation in record.get("observations") or ():
        yield from _observation(observation)


def _entity(name: str, entity: Mapping[str, Any], head: str, parts: Sequence[str]) -> Iterator[Value]:
    leaf = entity.get(head)
    if not leaf:
        return
    keys = text_keys(leaf["text"], leaf.get("normal"))
    yield Value(name, keys, assertion=leaf.get("assertion"), span=span_of(leaf))
    for part in parts:
        said = entity.get(part)
        if said:
            yield Value(f"{name}.{part}", text_keys(said["text"], said.get("normal")), owner=keys, span=span_of(said))


def _observation(entity: Mapping[str, Any]) -> Iterator[Value]:
    name, value, unit = entity.get("name"), entity.get("value"), entity.get("unit")
    if not name or not value:
        return
    category = "vitals" if entity.get("category") == "vital" else "labs"
    read = reading(value, unit) if category == "vitals" else numbers_in(value["text"])
    yield observation_value(category, name["text"], read, value["text"], span_of(value))
    if unit:
        yield Value(f"{category}.unit", text_keys(unit["text"]), observation_keys(category, name["text"]), span=span_of(unit))


def observation_value(category: str, name: str, read: tuple[float, ...], text: str = "", span: tuple[int, int] | None = None) -> Value:
    """A reading under its name; where it is no number, its words are part of the key."""
    keys = observation_keys(category, name)
    keys = keys if read else frozenset(f"{key} = {words_key(text)}" for key in keys)
    tolerance = max((_TOLERANCES.get(key, _EXACT) for key in keys), default=_EXACT)
    return Value(category, keys, numbers=read, tolerance=tolerance, span=span)


def observation_keys(category: str, name: str) -> Keys:
    """A vital sign by its canonical name, whatever the note calls it; everything else by its words."""
    canonical = vital_named(name) if category == "vitals" else None
    return frozenset((canonical,)) if canonical else text_keys(name)


def numbers_in(text: str) -> tuple[float, ...]:
    """The first number of a text, as a tuple of one; empty where there is none. Thousands may have commas."""
    found = _NUMBER.search(re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text))
    return (float(found.group()),) if found else ()


def reading(value: Leaf, unit: Leaf | None) -> tuple[float, ...]:
    """A vital sign in kg, cm, degrees Celsius or as written; a blood pressure as two numbers. The leaf's `normal` is preferred.

    The unit may stand in its own leaf or behind the number.
    """
    said = value.get("normal") or value["text"]
    numbers = [float(number) for number in _NUMBER.findall(said)]
    if len(numbers) > 1 and ("/" in said or " over " in said) and numbers[1] != 10:
        return tuple(numbers[:2])
    if not numbers:
        return ()
    named = ((unit.get("normal") or unit["text"]) if value.get("normal") else unit["text"]) if unit else said
    letters = re.findall(r"[a-z]+", named.casefold())
    return (_converted(numbers[0], letters[-1] if letters else ""),)


def _converted(number: float, unit: str) -> float:
    if unit in _FAHRENHEIT:
        return (number - 32) / 1.8
    return number * _FACTORS.get(unit, 1.0)
