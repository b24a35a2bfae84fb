"""Made-up patients and visits, drawn by seed: age, sex, conditions, drugs, allergies, vital signs and results that fit together.

Only `random.Random.random()` is drawn from: it is the one method whose sequence Python promises to keep across versions.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import TypeVar

from pipeline import sample_templates as t

T = TypeVar("T")
FIRST_DAY = date(2019, 1, 7)
LONG_TERM = frozenset(drug for condition in t.CONDITIONS for drug in condition.drugs)


class Dice:
    """Draws that depend on the key alone."""

    __slots__ = ("draw",)

    def __init__(self, key: str) -> None:
        self.draw = random.Random(key).random

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self.draw() * len(options))]

    def some(self, options: Sequence[T], count: int) -> list[T]:
        """`count` different options (all of them if there are fewer), in drawn order."""
        pool = list(options)
        return [pool.pop(int(self.draw() * len(pool))) for _ in range(min(count, len(pool)))]

    def between(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self.draw() * (high - low + 1))

    def within(self, low: float, high: float) -> float:
        return low + self.draw() * (high - low)

    def chance(self, share: float) -> bool:
        return self.draw() < share


@dataclass(frozen=True, slots=True)
class Dose:
    """One drug as taken: words as a long letter would write them; `days` is None for a drug without an end."""

    drug: t.Drug
    dose: str
    frequency: str
    reason: str
    days: int | None = None


@dataclass(frozen=True, slots=True)
class Patient:
    """Who the notes are about. `conditions` carry the year of diagnosis; all lists may be empty."""

    id: str
    name: str
    sex: str
    born: date
    conditions: tuple[tuple[t.Condition, int], ...]
    doses: tuple[Dose, ...]
    stopped: tuple[tuple[t.Drug, str], ...]
    allergies: tuple[tuple[str, str, str], ...]
    family: tuple[tuple[str, str, int], ...]
    surgeries: tuple[tuple[str, int], ...]
    resolved: str
    occupation: str
    smoking: str
    weight: float
    height: int


@dataclass(frozen=True, slots=True)
class Visit:
    """One encounter: what brought the patient, what was measured, what was given."""

    patient: Patient
    at: datetime
    months: int
    presentation: t.Presentation
    days: int
    vitals: dict[str, str]
    results: tuple[tuple[str, str, str], ...]
    prescribed: tuple[Dose, ...]

    @property
    def years(self) -> int:
        return self.months // 12


@lru_cache(maxsize=4096)
def _conditions(years: int, sex: str) -> tuple[t.Condition, ...]:
    return tuple(c for c in t.CONDITIONS if c.youngest <= years <= c.oldest and c.sex in ("", sex))


@lru_cache(maxsize=4096)
def _presentations(years: int, sex: str) -> tuple[t.Presentation, ...]:
    return tuple(p for p in t.PRESENTATIONS if p.youngest <= years <= p.oldest and p.sex in ("", sex))


@lru_cache(maxsize=4096)
def _surgeries(years: int, sex: str) -> tuple[tuple[str, int, str], ...]:
    return tuple(s for s in t.SURGERIES if s[1] < years and s[2] in ("", sex))


def barred_families(allergies: Sequence[tuple[str, str, str]], conditions: Sequence[tuple[t.Condition, int]]) -> set[str]:
    """Drug families that an allergy or a condition rules out."""
    barred = {family for _, family, _ in allergies if family}
    return barred.union(*(t.CONTRAINDICATED.get(condition.name, ()) for condition, _ in conditions))


def _dose(dice: Dice, drug: t.Drug, years: int, reason: str, days: int | None = None) -> Dose:
    doses = drug.child_doses if years < 12 else drug.doses
    return Dose(drug, dice.pick(doses), dice.pick(drug.frequencies), reason, days)


def _regular_doses(dice: Dice, conditions: Sequence[tuple[t.Condition, int]], barred: set[str], years: int) -> tuple[Dose, ...]:
    doses: dict[str, Dose] = {}
    for condition, _ in conditions:
        suitable = [t.DRUGS[name] for name in condition.drugs if name not in doses and t.DRUGS[name].family not in barred]
        for drug in suitable[: 1 + dice.chance(0.45)]:
            doses[drug.name] = _dose(dice, drug, years, condition.name)
    return tuple(doses.values())


def _family_history(dice: Dice) -> tuple[tuple[str, str, int], ...]:
    history = []
    for disease, sex in dice.some(t.FAMILY_HISTORY, dice.between(0, 2)):
        relative = dice.pick(t.RELATIVES[sex or dice.pick(("female", "male"))])
        history.append((relative, disease, dice.between(48, 79)))
    return tuple(history)


def _past_surgeries(dice: Dice, years: int, sex: str) -> tuple[tuple[str, int], ...]:
    """Some operations with their years, none before the age from which the operation is usual."""
    chosen = dice.some(_surgeries(years, sex), dice.between(0, 2))
    return tuple((name, FIRST_DAY.year - dice.between(1, max(1, min(25, years - youngest)))) for name, youngest, _ in chosen)


def _age_in_months(dice: Dice) -> int:
    """A hospital's mix: 5 % infants, 9 % children and teenagers, the rest adults with the elderly over-represented."""
    draw = dice.draw()
    if draw < 0.05:
        return dice.between(3, 23)
    if draw < 0.14:
        return dice.between(24, 17 * 12)
    return dice.between(18 * 12, 58 * 12) if draw < 0.5 else dice.between(45 * 12, 93 * 12)


def _build(dice: Dice, years: int, sex: str) -> tuple[float, int]:
    """Weight in kg and height in cm; children near the median for their age (WHO growth standards, rounded)."""
    if years < 18:
        weight = 7.5 + 2.6 * years if years < 8 else 26 + 4.2 * (years - 8)
        return round(weight * dice.within(0.9, 1.12), 1), int((74 + 6.2 * years if years < 16 else 168) + dice.between(-4, 4))
    height = dice.between(152, 174) if sex == "female" else dice.between(164, 190)
    return round(dice.within(20.5, 33.5) * (height / 100) ** 2, 1), height


@lru_cache(maxsize=8)
def make_patient(seed: int, number: int) -> Patient:
    """Patient `number` of this seed."""
    dice = Dice(f"{seed}:patient:{number}")
    sex = dice.pick(("female", "male"))
    months = _age_in_months(dice)
    years = months // 12
    count = 0 if years < 4 else dice.between(0, 1 if years < 35 else 3 if years < 65 else 5)
    conditions = sorted(
        ((c, FIRST_DAY.year - dice.between(1, max(1, min(18, years - c.youngest)))) for c in dice.some(_conditions(years, sex), count)),
        key=lambda pair: pair[1],
    )
    allergies = [
        (name, family, dice.pick(reactions))
        for name, family, reactions in dice.some(t.ALLERGENS if years >= 16 else t.CHILD_ALLERGENS, 1 + dice.chance(0.2))
    ]
    allergies = allergies if dice.chance(0.38) else []
    barred = barred_families(allergies, conditions)
    doses = _regular_doses(dice, conditions, barred, years)
    taken = {dose.drug.name for dose in doses}
    families = {dose.drug.family for dose in doses if dose.drug.family} | barred
    stopped = [
        (t.DRUGS[name], why)
        for name, why in dice.some(t.INTOLERANCES, 1)
        if years > 45 and name not in taken and t.DRUGS[name].family not in families
    ]
    weight, height = _build(dice, years, sex)
    return Patient(
        id=f"P{seed % 97:02d}{number:08d}",
        name=f"{dice.pick(t.GIVEN_NAMES[sex])} {dice.pick(t.FAMILY_NAMES)}",
        sex=sex,
        born=FIRST_DAY - timedelta(days=int(months * 30.44) + dice.between(3, 20)),
        conditions=tuple(conditions),
        doses=doses,
        stopped=tuple(stopped) if dice.chance(0.4) else (),
        allergies=tuple(allergies),
        family=_family_history(dice),
        surgeries=_past_surgeries(dice, years, sex),
        resolved=dice.pick(t.RESOLVED) if years >= 25 and dice.chance(0.3) else "",
        occupation=("retired " if years > 66 else "") + dice.pick(t.OCCUPATIONS) if years > 20 else "",
        smoking=dice.pick(("never smoked", "ex-smoker", "smokes 10 a day", "never smoked")) if years > 16 else "",
        weight=weight,
        height=height,
    )  # fmt: skip


def draw_vitals(dice: Dice, patient: Patient, years: int, shifts: Sequence[str]) -> dict[str, str]:
    """Vital signs that suit the age; `shifts` such as `temp+` move them out of the usual."""
    young = max(0, 10 - years)
    up = {shift[:-1] for shift in shifts if shift.endswith("+")}
    hypertensive = any(condition.name == "hypertension" for condition, _ in patient.conditions)
    systolic = 112 + min(years, 70) // 3 + dice.between(-12, 14) + (26 if "bp" in up else 9 if hypertensive else 0) - 3 * young
    pulse = 72 + dice.between(-14, 14) + 6 * young + (24 if "pulse" in up else 0)
    temperature = dice.within(37.9, 39.4) if "temp" in up else dice.within(36.2, 37.2)
    return {
        "bp": f"{systolic}/{int(systolic * dice.within(0.56, 0.66))}",
        "pulse": str(pulse),
        "temp": f"{temperature:.1f}",
        "rr": str(14 + dice.between(-1, 3) + 2 * young + (8 if "rr" in up else 0)),
        "spo2": str(dice.between(88, 92) if "spo2-" in shifts else dice.between(95, 99)),
    }


def _result(dice: Dice, wanted: str) -> tuple[str, str, str] | None:
    name = wanted.rstrip("+-")
    if name.startswith("urine"):
        return None  # dipstick findings are words, not numbers
    (usual, high, low), decimals, unit = t.ANALYTES[name]
    span = high if wanted.endswith("+") else low if wanted.endswith("-") else usual
    return name, f"{dice.within(*span):.{decimals}f}", unit


def _results(dice: Dice, patient: Patient, presentation: t.Presentation) -> tuple[tuple[str, str, str], ...]:
    found: dict[str, tuple[str, str, str]] = {}
    chronic = [analyte for condition, _ in patient.conditions for analyte in condition.analytes]
    for wanted in (*presentation.analytes, *dice.some(chronic, dice.between(0, 3))):
        result = _result(dice, wanted)
        if result:
            found.setdefault(result[0], result)
    return tuple(found.values())


def _prescribed(dice: Dice, patient: Patient, years: int, presentation: t.Presentation) -> tuple[Dose, ...]:
    """The first drug (by order of preference) that the allergies allow, then some of the extras; none that is taken already."""
    barred = barred_families(patient.allergies, patient.conditions)
    taken = {dose.drug.name for dose in patient.doses}
    allowed = [name for name in presentation.drugs if t.DRUGS[name.lstrip("+ ")].family not in barred]
    chosen = [name for name in allowed if not name.startswith("+")][:1]
    chosen += [name.lstrip("+ ") for name in allowed if name.startswith("+") and dice.chance(0.6)]
    return tuple(
        _dose(dice, t.DRUGS[name], years, presentation.diagnosis, None if name in LONG_TERM else dice.pick((3, 5, 7, 10)))
        for name in chosen
        if name not in taken and not (years < 12 and name in ("codeine", "morphine"))
    )


def _presentation(dice: Dice, patient: Patient, years: int) -> t.Presentation:
    has = {condition.name for condition, _ in patient.conditions}
    fitting = _presentations(years, patient.sex)
    for _ in range(6):
        chosen = dice.pick(fitting)
        if chosen.needs in has or not (chosen.needs or any(name in chosen.diagnosis for name in has)):
            return chosen
    return next(p for p in fitting if not p.needs)


def make_visit(dice: Dice, patient: Patient, sequence: int) -> Visit:
    """The patient's `sequence`-th visit (from 0): later ones lie later."""
    day = FIRST_DAY + timedelta(days=sequence * 210 + dice.between(0, 200))
    months = int((day - patient.born).days / 30.44)
    presentation = _presentation(dice, patient, months // 12)
    return Visit(
        patient=patient,
        at=datetime(day.year, day.month, day.day, dice.between(7, 20), dice.between(0, 59)),
        months=months,
        presentation=presentation,
        days=dice.between(1, 9),
        vitals=draw_vitals(dice, patient, months // 12, presentation.shifts),
        results=_results(dice, patient, presentation),
        prescribed=_prescribed(dice, patient, months // 12, presentation),
    )
