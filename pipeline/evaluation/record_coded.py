"""Gold that was coded beside the note rather than marked in it: NEISS (emergency visits, US CPSC) and VAERS (vaccine reports, CDC and FDA).

An age and a sex that are coded may stand in the text in other words or not at all, so recall can stay below 100 for a perfect reader.
A NEISS diagnosis is one of about thirty classes; the problems of a record are put into them by words, which is an approximation.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.evaluation.record_values import Value, age_number_keys, sex_keys
from schemas.record import Assertion

NEISS_FIELDS = ("age", "sex", "diagnosis")
VAERS_FIELDS = ("age", "sex")

# Words of our own for the classes of the NEISS coding manual, by the first word of the class. Others are not scored.
_CLASS_WORDS = {
    "burns": r"burn(?:s|ed|t)?|scald(?:s|ed)?",
    "fracture": r"fractures?|fractured|fx|fxs",
    "laceration": r"lacerations?|lacs?|cuts?",
    "contusions": r"contusions?|abrasions?|abr|bruises?|bruising",
    "amputation": r"amputations?|amputated|amp",
    "foreign": r"fb|foreign bod(?:y|ies)",
    "puncture": r"punctures?|pw",
    "strain": r"strains?|sprains?",
    "hematoma": r"ha?ematomas?",
    "concussions": r"concussions?",
    "avulsion": r"avulsions?|avulsed",
    "dislocation": r"dislocations?|dislocated",
    "dermatitis": r"dermatitis|conjunctivitis",
    "poisoning": r"poisoning|ingestion",
    "anoxia": r"anoxia|hypoxia|smoke inhalation",
    "hemorrhage": r"ha?emorrhages?",
    "internal": r"internal (?:organ )?injur(?:y|ies)|chi|closed head injury|head injury|tbi",
}
_CLASSES = {name: re.compile(rf"\b(?:{words})\b") for name, words in _CLASS_WORDS.items()}
_FIRST_WORD = re.compile(r"[a-z]+")


def read_neiss(gold: Mapping[str, Any]) -> Iterator[Value]:
    """Age in years or months, sex, and the class of the diagnosis."""
    if gold["age_value"] is not None:
        yield Value("age", age_number_keys(int(gold["age_value"]), gold["age_unit"]))
    yield Value("sex", sex_keys(gold["sex"] or ""))
    first = _FIRST_WORD.search((gold.get("diagnosis") or "").casefold())
    if first and first.group() in _CLASSES:
        yield Value("diagnosis", frozenset((first.group(),)))


def diagnosis_classes(values: Sequence[Value]) -> Iterator[Value]:
    """Our values, with each class that a present problem falls into as a `diagnosis`."""
    yield from values
    problems = [key for value in values if value.field == "problems" and value.assertion == Assertion.PRESENT for key in value.keys]
    for name, pattern in _CLASSES.items():
        if any(pattern.search(problem) for problem in problems):
            yield Value("diagnosis", frozenset((name,)))


def read_vaers(gold: Mapping[str, Any]) -> Iterator[Value]:
    """Age in whole years as the narrative tells it, and the sex of the report."""
    if gold["age_in_text"] is not None:
        yield Value("age", age_number_keys(int(gold["age_in_text"]), "years"))
    yield Value("sex", sex_keys(gold["sex"] or ""))
