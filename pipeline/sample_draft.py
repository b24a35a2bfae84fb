"""A synthetic note under composition: what is written, and where every value of the record landed.

A Draft is an append-only text that remembers where it put each value, so offsets are right by construction. Gold is per mention: a problem
named twice is two entities. Examination findings and imaging reports are prose and carry no gold.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, timedelta
from functools import cache
from typing import Any

from pipeline import sample_templates as t
from pipeline.sample_patients import Dice, Dose, Visit, draw_vitals
from schemas.record import Assertion

PRESENT, ABSENT, POSSIBLE = Assertion.PRESENT.value, Assertion.ABSENT.value, Assertion.POSSIBLE.value
FAMILY, HISTORICAL = Assertion.FAMILY.value, Assertion.HISTORICAL.value


@cache
def _slots(template: str) -> tuple[tuple[str, str], ...]:
    """A template as (literal, slot) pairs; the last slot is empty."""
    pieces = [*re.split(r"\{(\w+)\}", template), ""]
    return tuple(zip(pieces[::2], pieces[1::2], strict=True))


class Leaf:
    """A value that belongs to an entity of the record: writing it fills `entity[field]`."""

    __slots__ = ("assertion", "entity", "field", "normal", "text")

    def __init__(self, entity: dict[str, Any], field: str, text: str, assertion: str = PRESENT, normal: str | None = None) -> None:
        self.entity, self.field, self.text, self.assertion, self.normal = entity, field, text, assertion, normal


class Draft:
    """A note under composition: text in pieces, and the record (shaped like RECORD_TYPE) of what was written."""

    __slots__ = ("dice", "length", "pieces", "record", "section", "visit", "words")

    def __init__(self, visit: Visit, dice: Dice) -> None:
        self.visit, self.dice = visit, dice
        self.pieces: list[str] = []
        self.length = 0
        self.section: str | None = None
        self.record: dict[str, Any] = {kind: [] for kind in _KINDS}
        self.words = _wording(visit)

    def text(self) -> str:
        return "".join(self.pieces)

    def say(self, template: str, **values: str | Leaf) -> None:
        """Append the template with its slots filled; a Leaf is recorded at the place where it lands."""
        pieces, length = self.pieces, self.length
        for literal, slot in _slots(template):
            pieces.append(literal)
            length += len(literal)
            if not slot:
                continue
            value = values[slot] if slot in values else self.words[slot]
            text = value if isinstance(value, str) else value.text
            pieces.append(text)
            if not isinstance(value, str):
                value.entity[value.field] = {
                    "text": text, "start": length, "end": length + len(text), "section": self.section, "assertion": value.assertion,
                    "normal": value.normal,
                }  # fmt: skip
            length += len(text)
        self.length = length

    def any(self, templates: Sequence[str], **values: str | Leaf) -> None:
        self.say(self.dice.pick(templates), **values)

    def _plain(self, text: str) -> None:
        self.pieces.append(text)
        self.length += len(text)

    def head(self, section: str, end: str = ":\n", shout: bool = False) -> None:
        """Start a section: a blank line, one of its usual headings, `end`."""
        title = self.dice.pick(t.HEADINGS[section])
        self._plain(("\n\n" if self.pieces else "") + (title.upper() if shout else title) + end)
        self.section = section.partition(".")[0]

    def entity(self, kind: str) -> dict[str, Any]:
        made: dict[str, Any] = {}
        self.record[kind].append(made)
        return made

    def problem(self, name: str, assertion: str = PRESENT) -> Leaf:
        return Leaf(self.entity("problems"), "name", name, assertion)

    def listing(self, names: Sequence[str], assertion: str, last: str = " and ", between: str = ", ") -> None:
        """Problems in a row: a, b and c."""
        for i, name in enumerate(names):
            self.say(("" if i == 0 else last if i == len(names) - 1 else between) + "{x}", x=self.problem(name, assertion))

    def age(self, text: str) -> Leaf:
        months = self.visit.months
        return Leaf(self.record, "age", text, normal=f"P{months}M" if months < 24 else f"P{months // 12}Y")

    def sex(self, text: str) -> Leaf:
        return Leaf(self.record, "sex", text, normal=self.visit.patient.sex)


_KINDS = ("problems", "medications", "allergies", "observations", "procedures", "follow_up")


def _wording(visit: Visit) -> dict[str, str]:
    """Words that every template may use."""
    female, years, at, born = visit.patient.sex == "female", visit.years, visit.at, visit.patient.born
    he = "she" if female else "he"
    they = "the parents" if years < 12 else he
    title = ("Miss" if female else "Master") if years < 16 else ("Mrs" if female else "Mr")
    return {
        "He": he.capitalize(), "he": he, "his": "her" if female else "his", "him": "her" if female else "him",
        "They": sentence_of(they), "they": they, "title": title, "name": visit.patient.name,
        "born": f"{born.day:02d}/{born.month:02d}/{born.year}", "date": f"{at.day} {t.MONTHS[at.month - 1]} {at.year}",
        "iso": at.date().isoformat(), "time": f"{at.hour:02d}:{at.minute:02d}",
        "span": "1 day" if visit.days == 1 else f"{visit.days} days", "n": str(visit.days),
        "a": "an" if re.match("8|1[18]-", age_words(visit)) else "a", "job": visit.patient.occupation, "smoke": visit.patient.smoking,
    }  # fmt: skip


def age_words(visit: Visit) -> str:
    return f"{visit.months}-month-old" if visit.months < 24 else f"{visit.years}-year-old"


def sex_word(visit: Visit) -> str:
    female = visit.patient.sex == "female"
    return ("girl" if female else "boy") if visit.years < 16 else ("woman" if female else "man")


def say_dose(draft: Draft, dose: Dose, short: bool, template: str) -> None:
    """One medication by a template with slots drug, dose, route, freq and, if it names them, reason and days."""
    entity = draft.entity("medications")
    values: dict[str, str | Leaf] = {
        "drug": Leaf(entity, "name", dose.drug.name),
        "dose": Leaf(entity, "dose", dose.dose),
        "route": Leaf(entity, "route", t.ROUTES[dose.drug.route][short]),
        "freq": Leaf(entity, "frequency", t.FREQUENCIES[dose.frequency] if short else dose.frequency),
    }
    if "{reason}" in template:
        values["reason"] = Leaf(entity, "reason", dose.reason)
    if "{days}" in template:
        values["days"] = Leaf(entity, "duration", f"{dose.days}d" if short else f"{dose.days} days", normal=f"P{dose.days}D")
    draft.say(template, **values)


def course(template: str, dose: Dose, short: bool = False) -> str:
    """The template, with the duration added when the drug has an end."""
    return template if dose.days is None else template + (" x{days}" if short else " for {days}")


def say_allergies(draft: Draft, none: Sequence[str], template: str, between: str) -> None:
    allergies = draft.visit.patient.allergies
    if not allergies:
        entity = draft.entity("allergies")
        draft.say("{x}", x=Leaf(entity, "substance", draft.dice.pick(none), ABSENT))
    for i, (substance, _, reaction) in enumerate(allergies):
        entity = draft.entity("allergies")
        draft.say((between if i else "") + template, what=Leaf(entity, "substance", substance), how=Leaf(entity, "reaction", reaction))


def say_observation(draft: Draft, category: str, reading: tuple[str, str, str], template: str, normal: str = "") -> None:
    """A reading (name, value, unit); `normal` is the value in the unit's normal form when that differs from the value."""
    name, value, unit = reading
    entity = draft.entity("observations")
    entity["category"] = category
    draft.say(
        template,
        name=Leaf(entity, "name", name),
        value=Leaf(entity, "value", value, normal=normal or value),
        unit=Leaf(entity, "unit", unit, normal=_UCUM.get(unit)),
    )


# For each vital sign: words in full, words in short, unit in full, unit in short ("" when it goes unsaid).
_VITALS = {
    "temp": (("temperature", "temp"), ("T", "temp"), " °C", "C"),
    "pulse": (("heart rate", "pulse"), ("HR", "P"), "/min", ""),
    "bp": (("blood pressure", "BP"), ("BP",), " mmHg", ""),
    "rr": (("respiratory rate",), ("RR",), "/min", ""),
    "spo2": (("oxygen saturation", "SpO2"), ("sats", "SpO2"), "%", "%"),
}
# Units of vital signs in UCUM, the normal form of a unit.
_UCUM = {
    "°C": "Cel", "C": "Cel", "°F": "Cel", "F": "Cel", "/min": "/min", "mmHg": "mm[Hg]", "%": "%",
    "kg": "kg", "cm": "cm", "kg/m²": "kg/m2",
}  # fmt: skip


def say_vitals(draft: Draft, short: bool, between: str = ", ", again: bool = False) -> None:
    """The vital signs in drawn order; one temperature of six in Fahrenheit. `again`: a later reading, nearer to normal."""
    dice, visit = draft.dice, draft.visit
    vitals = draw_vitals(dice, visit.patient, visit.years, ()) if again else visit.vitals
    for i, key in enumerate(dice.some(tuple(_VITALS), 5 if not short or dice.chance(0.6) else 4)):
        full, brief, unit, small = _VITALS[key]
        value, mark = vitals[key], small if short else unit
        if key == "temp" and dice.chance(0.17):
            value, mark = f"{float(value) * 1.8 + 32:.1f}", "F" if short else " °F"
        space = " " if mark.startswith(" ") else ""
        template = (between if i else "") + "{name} {value}" + (space + "{unit}" if mark else "")
        say_observation(draft, "vital", (dice.pick(brief if short else full), value, mark.strip()), template, vitals[key])


def say_build(draft: Draft) -> None:
    patient = draft.visit.patient
    say_observation(draft, "vital", ("weight", f"{patient.weight:g}", "kg"), "{name} {value} {unit}")
    if draft.visit.years >= 18 and draft.dice.chance(0.6):
        say_observation(draft, "vital", ("height", str(patient.height), "cm"), ", {name} {value} {unit}")
        bmi = f"{patient.weight / (patient.height / 100) ** 2:.1f}"
        say_observation(draft, "vital", ("BMI", bmi, "kg/m²"), ", {name} {value} {unit}")


def say_results(draft: Draft, between: str, template: str = "{name} {value} {unit}") -> None:
    for i, result in enumerate(draft.visit.results):
        say_observation(draft, "lab", result, (between if i else "") + template)


def say_follow_up(draft: Draft, template: str, between: str) -> None:
    for i, item in enumerate(draft.visit.presentation.follow_up):
        what, when = item.split(" @ ")
        entity = draft.entity("follow_up")
        draft.say((between if i else "") + template, what=Leaf(entity, "what", what), when=Leaf(entity, "when", when))


def say_procedure(draft: Draft, template: str) -> None:
    """The visit's procedure, dated that day, if it had one."""
    if draft.visit.presentation.procedure:
        entity = draft.entity("procedures")
        day = draft.visit.at.date() + timedelta(days=1 if draft.visit.presentation.admitted else 0)
        draft.say(
            template,
            name=Leaf(entity, "name", draft.visit.presentation.procedure),
            on=Leaf(entity, "date", day.isoformat(), normal=day.isoformat()),
        )


def say_surgeries(draft: Draft, template: str, between: str) -> None:
    for i, (name, year) in enumerate(draft.visit.patient.surgeries):
        entity = draft.entity("procedures")
        draft.say(
            (between if i else "") + template,
            name=Leaf(entity, "name", name, HISTORICAL),
            on=Leaf(entity, "date", str(year), HISTORICAL, str(year)),
        )


def say_conditions(draft: Draft, template: str, between: str, short: bool = False) -> None:
    """Long-term conditions; a template with {since} also tells the year of diagnosis."""
    for i, (condition, year) in enumerate(draft.visit.patient.conditions):
        entity = draft.entity("problems")
        name = condition.short if short else condition.name
        draft.say(
            (between if i else "") + template, name=Leaf(entity, "name", name), since=Leaf(entity, "onset", str(year), normal=str(year))
        )


def say_family(draft: Draft, templates: Sequence[str], between: str) -> None:
    for i, (relative, disease, age) in enumerate(draft.visit.patient.family):
        draft.say(
            (between if i else "") + draft.dice.pick(templates),
            who=relative,
            Who=relative.capitalize(),
            dx=draft.problem(disease, FAMILY),
            at=str(age),
        )


def sentence_of(words: str) -> str:
    return words[:1].upper() + words[1:]


def day_after(visit: Visit, days: int) -> date:
    return visit.at.date() + timedelta(days=days)
