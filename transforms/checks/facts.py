"""The facts of a note: its drugs, problems and procedures, each with how much the note makes of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import log2

from transforms.negation import Scopes, is_within
from transforms.sections import Page
from transforms.terms import Term

KINDS = frozenset(("drug", "problem", "procedure"))
# What a fact counts by the section that it stands in; in one that is not listed, and without sections, 1.
_SECTIONS: Mapping[str, float] = {
    "assessment": 3.0, "assessment_and_plan": 3.0, "diagnoses": 3.0, "allergies": 3.0, "plan": 2.0, "chief_complaint": 2.0,
    "problem_list": 2.0, "medications": 1.5, "hospital_course": 1.5, "history_of_present_illness": 1.5, "family_history": 0.5,
    "social_history": 0.5, "review_of_systems": 0.5, "past_surgical_history": 0.7, "discussion": 0.3, "past_medications": 0.5,
}  # fmt: skip
# A fact that the note denies or leaves open.
_DENIED = 0.3


@dataclass(frozen=True, slots=True)
class Fact:
    """What a note says of one drug, problem or procedure: its weightiest mention, and the weight of all of them."""

    term: Term = field(repr=False)
    weight: float


def find_facts(terms: Sequence[Term], page: Page, scopes: Scopes) -> list[Fact]:
    """The facts of a note with these terms, sections and denials, in the order of their weightiest mentions.

    The weight is that of the weightiest mention times 1 + log2 of the number of mentions.
    """
    mentions: dict[str, list[tuple[float, Term]]] = {}
    for term in fact_terms(terms, page):
        mentions.setdefault(term.concept, []).append((_weight(page, scopes, term.start), term))
    best = []
    for found in mentions.values():
        weight, term = max(found, key=lambda mention: mention[0])  # of equal ones the first
        best.append(Fact(term, weight * (1 + log2(len(found)))))
    return sorted(best, key=lambda fact: fact.term.start)


def fact_terms(terms: Sequence[Term], page: Page) -> Iterator[Term]:
    """The terms that are facts: a heading states none."""
    return (term for term in terms if term.kind in KINDS and not page.in_heading(term.start))


def _weight(page: Page, scopes: Scopes, offset: int) -> float:
    section = page.section_at(offset) if page.sections or page.inline else None
    weight = _SECTIONS.get(section, 1.0) if section else 1.0
    return weight * _DENIED if is_within(scopes.denied, offset) or is_within(scopes.open, offset) else weight
