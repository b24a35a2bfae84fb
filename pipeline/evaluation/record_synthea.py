"""Gold of notes made from Synthea patients (Walonoski et al. 2018, doi 10.1093/jamia/ocx079): every field, as lists of what the note says.

What the note denies and what the family has are problems with that assertion; discontinued drugs are historical. "History of X" may be read
as X or as it stands, and its assertion is not judged. Observations are in kg, cm and degrees Celsius; a note in pounds rounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.evaluation.record_values import (
    Keys,
    Value,
    age_number_keys,
    observation_keys,
    observation_value,
    sex_keys,
    text_keys,
)
from schemas.record import Assertion

FIELDS = (
    "age",
    "sex",
    "problems",
    "medications",
    "medications.dose",
    "medications.route",
    "medications.frequency",
    "allergies",
    "vitals",
    "labs",
    "labs.unit",
    "procedures",
    "procedures.date",
)
_STATUS = {"active": Assertion.PRESENT, "discontinued": Assertion.HISTORICAL}
_ROUTES = {
    "po": ("po", "p.o.", "oral", "orally", "by mouth", "mouth", "per os"),
    "sc": ("sc", "s.c.", "sq", "subq", "subcut", "subcutaneous", "subcutaneously"),
    "inhaled": ("inhaled", "inhalation", "by inhalation", "inh"),
    "iv": ("iv", "i.v.", "intravenous", "intravenously"),
    "im": ("im", "i.m.", "intramuscular", "intramuscularly"),
}
# Spelled as the note's readers know them.
_VITALS = {
    "height_cm": "height",
    "weight_kg": "weight",
    "bmi": "bmi",
    "heart_rate": "heart rate",
    "spo2": "spo2",
    "temperature_c": "temperature",
    "pain_score": "pain score",
}
_PRESSURE = "blood pressure"
_HISTORY = "history of "


def read(gold: Mapping[str, Any]) -> Iterator[Value]:
    """The gold of one note."""
    yield Value("age", age_number_keys(int(gold["age"]), "years"))
    yield Value("sex", sex_keys(gold["sex"]))
    yield from _problems(gold)
    for drug in gold["medications"]:
        yield from _medication(drug)
    for substance in gold["allergies"]:
        yield Value("allergies", text_keys(substance), assertion=Assertion.PRESENT)
    yield from _vitals(gold["vitals"])
    for lab in gold["labs"]:
        yield observation_value("labs", lab["name"], (float(lab["value"]),))
        yield Value("labs.unit", text_keys(lab["unit"]), observation_keys("labs", lab["name"]))
    for procedure in gold["procedures"]:
        keys = text_keys(procedure["name"])
        yield Value("procedures", keys)
        yield Value("procedures.date", text_keys(procedure["date"]), keys)


def comparable(values: Sequence[Value]) -> Iterable[Value]:
    """Without statements that there are no allergies, and without vital signs that are never annotated."""
    known = {key for name in (*_VITALS.values(), _PRESSURE) for key in observation_keys("vitals", name)}
    for value in values:
        none = value.field == "allergies" and value.assertion == Assertion.ABSENT
        if not none and (value.field != "vitals" or value.keys & known):
            yield value


def _problems(gold: Mapping[str, Any]) -> Iterator[Value]:
    for problem in gold["problems"]:
        keys = text_keys(problem["name"], problem["text"])
        short = frozenset(key.removeprefix(_HISTORY) for key in keys)
        yield Value("problems", keys | short, assertion=Assertion.PRESENT if short == keys else None)
    for name in gold["negated"]:
        yield Value("problems", text_keys(name), assertion=Assertion.ABSENT)
    for name in gold["family_history"]:
        yield Value("problems", text_keys(name), assertion=Assertion.FAMILY)


def _medication(drug: Mapping[str, Any]) -> Iterator[Value]:
    keys = text_keys(drug["name"])
    yield Value("medications", keys, assertion=_STATUS.get(drug.get("status") or ""))
    yield Value("medications.dose", text_keys(drug["strength"]), keys)
    yield Value("medications.route", _route(drug["route"]), keys)
    yield Value("medications.frequency", text_keys(drug["frequency_text"], drug["frequency"]), keys)


def _route(route: str | None) -> Keys:
    return text_keys(route, *_ROUTES.get((route or "").casefold(), ()))


def _vitals(vitals: Mapping[str, Any]) -> Iterator[Value]:
    for name, value in vitals.items():
        if name in _VITALS:
            yield observation_value("vitals", _VITALS[name], (float(value),))
    if "bp_systolic" in vitals and "bp_diastolic" in vitals:
        yield observation_value("vitals", _PRESSURE, (float(vitals["bp_systolic"]), float(vitals["bp_diastolic"])))
