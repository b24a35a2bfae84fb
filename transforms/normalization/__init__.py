"""Normal forms of a record's values: numbers with UCUM units, times per day, ISO dates. Whichever reader found a value, it is the same.

They stand beside the words of the note and never replace them: `text`, `start` and `end` are not touched, a `normal` that a reader gave is
kept, and what is not certain stays null. It reads the values one by one; it knows neither the rest of the note nor any vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from transforms.normalization.frequencies import times_per_day
from transforms.normalization.times import NoteTime, age, duration, iso_date, iso_duration, relative, relative_date
from transforms.normalization.units import convert, measure, ucum
from transforms.vitals import as_reading, vital_named

Leaf = dict[str, Any]
Entity = dict[str, Any]

# One unit for each vital sign, so that a column of them can be compared.
_VITAL_UNITS = {
    "blood_pressure": "mm[Hg]",
    "heart_rate": "/min",
    "respiratory_rate": "/min",
    "body_temperature": "Cel",
    "oxygen_saturation": "%",
    "body_weight": "kg",
    "body_height": "cm",
    "body_mass_index": "kg/m2",
}
_PER_DAY = "/d"
_SEXES = {"male": ("male", "m", "man", "boy", "gentleman"), "female": ("female", "f", "woman", "girl", "lady")}
_SEX = {word: sex for sex, words in _SEXES.items() for word in words}


def normalize_record(record: Mapping[str, Any], note: NoteTime) -> dict[str, Any]:
    """The same record with `number`, `ucum` and, where it was null, `normal` filled in. The given one is not changed."""
    done = dict(record)
    for name in ("age", "sex"):
        done[name] = _leaf(record[name], _LEAVES[name], note)
    for field in _ENTITIES:
        done[field] = [_entity(field, entity, note) for entity in record[field]]
    return done


def _entity(field: str, entity: Entity, note: NoteTime) -> Entity:
    if field == "observations":
        return _observation(entity)
    readers = _ENTITIES[field]
    return {name: _leaf(value, readers[name], note) if name in readers else value for name, value in entity.items()}


def _leaf(leaf: Leaf | None, reader: Callable[[Leaf, NoteTime], Leaf], note: NoteTime) -> Leaf | None:
    return None if leaf is None else leaf | reader(leaf, note)


def _filled(leaf: Leaf, normal: str | None, measured: tuple[float | None, str | None] | None = None) -> Leaf:
    value, unit = measured or (None, None)
    return {"normal": leaf["normal"] or normal, "number": value, "ucum": unit}


def _age(leaf: Leaf, note: NoteTime) -> Leaf:
    found = age(leaf["text"], leaf["normal"])
    return _filled(leaf, iso_duration(found) if found else None, found)


def _sex(leaf: Leaf, note: NoteTime) -> Leaf:
    return _filled(leaf, _SEX.get(leaf["text"].lower()))


def _dose(leaf: Leaf, note: NoteTime) -> Leaf:
    found = measure(leaf["text"], dose=True)
    if found is None or found[1] is None:
        return _filled(leaf, None)
    return _filled(leaf, f"{plain(found[0])} {found[1]}", found)


def _frequency(leaf: Leaf, note: NoteTime) -> Leaf:
    found = times_per_day(leaf["text"])
    return _filled(leaf, None, None if found is None else (found, _PER_DAY))


def _duration(leaf: Leaf, note: NoteTime) -> Leaf:
    found = duration(leaf["text"])
    return _filled(leaf, iso_duration(found) if found else None, found)


def _date(leaf: Leaf, note: NoteTime) -> Leaf:
    return _when(leaf, note, ahead=False)


def _follow_up(leaf: Leaf, note: NoteTime) -> Leaf:
    return _when(leaf, note, ahead=True)


def _when(leaf: Leaf, note: NoteTime, ahead: bool) -> Leaf:
    span = relative(leaf["text"], ahead=ahead)
    return _filled(leaf, iso_date(leaf["text"], note) or relative_date(span, note), span)


_LEAVES = {"age": _age, "sex": _sex}
_ENTITIES: dict[str, dict[str, Callable[[Leaf, NoteTime], Leaf]]] = {
    "problems": {"onset": _date},
    "medications": {"dose": _dose, "frequency": _frequency, "duration": _duration},
    "observations": {},
    "procedures": {"date": _date},
    "follow_up": {"when": _follow_up},
}  # fmt: skip


def _observation(entity: Entity) -> Entity:
    """A value and its unit belong together: of a vital sign both are in that sign's own unit."""
    name, value, unit = entity["name"], entity["value"], entity["unit"]
    vital = name["normal"] or (vital_named(name["text"]) if entity["category"] == "vital" else None)
    code = ucum(unit["normal"] or unit["text"]) if unit else None
    said = _read_value(value, unit, code) if value else None
    wanted = _VITAL_UNITS.get(vital or "")
    if said and said[1] and wanted and said[1] != wanted:
        converted = convert(said[0], said[1], wanted)
        # A unit that the sign cannot have: nothing about it is sure.
        said, code = ((float(as_reading(converted)), wanted), wanted) if converted is not None else (None, None)
    measured = said and (said[0], said[1])
    return entity | {
        "name": name | {"normal": vital},
        "value": value and value | _filled(value, plain(said[0]) if said else None, measured),
        "unit": unit and unit | {"normal": unit["normal"] or code, "ucum": code},
    }


def _read_value(value: Leaf, unit: Leaf | None, code: str | None) -> tuple[float, str | None] | None:
    """A reader's own normal form goes with the normal unit; the words go with the unit as written. None without both."""
    if unit and code is None:
        return None
    found = measure(value["normal"] or value["text"])
    if found is None:
        return None
    if found[1] and unit:
        return None
    return found[0], found[1] or code


def plain(value: float) -> str:
    """The shortest decimal, without exponent."""
    return f"{value:.9f}".rstrip("0").rstrip(".")
