"""Facts of the note that the summary leaves out. It has to leave out most: what counts is how much the note makes of a fact."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import log2

from transforms.checks.case import Case, Flag
from transforms.terms import Term, parts

_CODES = {"drug": "OMITTED_DRUG", "problem": "OMITTED_PROBLEM", "procedure": "OMITTED_PROCEDURE"}
# What a fact counts by the section that it stands in; in one that is not listed, and without sections, 1.
_SECTIONS: Mapping[str, float] = {
    "assessment": 3.0, "assessment_and_plan": 3.0, "diagnoses": 3.0, "allergies": 3.0, "plan": 2.0, "chief_complaint": 2.0,
    "problem_list": 2.0, "medications": 1.5, "hospital_course": 1.5, "history_of_present_illness": 1.5, "family_history": 0.5,
    "social_history": 0.5, "review_of_systems": 0.5, "past_surgical_history": 0.7, "discussion": 0.3, "past_medications": 0.5,
}  # fmt: skip
# A fact that the note denies or leaves open.
_DENIED = 0.3
# So many facts of a note, its weightiest, are looked for.
SALIENT_FACTS = 8


@dataclass(frozen=True, slots=True)
class Fact:
    """What a note says of one drug, problem or procedure: its weightiest mention, and the weight of all of them."""

    term: Term = field(repr=False)
    weight: float


def check_omission(case: Case) -> Iterator[Flag]:
    """OMITTED_ALLERGY, OMITTED_DRUG, OMITTED_PROBLEM, OMITTED_PROCEDURE: one of the note's SALIENT_FACTS is not in the summary.

    [source_start, source_end) is its weightiest mention; `start` is None.
    """
    if case.summary.strip() == case.text.strip():
        return
    for fact in salient_facts(case):
        if not _is_told(case, fact.term):
            code = "OMITTED_ALLERGY" if case.page.section_at(fact.term.start) == "allergies" else _CODES[fact.term.kind]
            yield Flag(code, None, None, fact.term.start, fact.term.end)


def salient_facts(case: Case) -> list[Fact]:
    """The weightiest facts of the note in the order of the note; of equal ones the first."""
    heavy = sorted(case_facts(case), key=lambda fact: -fact.weight)
    return sorted(heavy[:SALIENT_FACTS], key=lambda fact: fact.term.start)


def omission(case: Case) -> float | None:
    """Share of the weight of the note's facts that the summary leaves out, 0-1; None for a note without facts."""
    facts = case_facts(case)
    total = sum(fact.weight for fact in facts)
    return sum(fact.weight for fact in facts if not _is_told(case, fact.term)) / total if total else None


def case_facts(case: Case) -> list[Fact]:
    """The facts of the note in the order of their weightiest mentions.

    The weight is that of the weightiest mention times 1 + log2 of the number of mentions.
    """
    mentions: dict[str, list[tuple[float, int, Term]]] = {}
    headings = [(section.heading, section.start) for section in (*case.page.sections, *case.page.inline)]
    for term in case.note_terms:
        if term.kind in _CODES and not any(start <= term.start < end for start, end in headings):
            mentions.setdefault(term.concept, []).append((_weight(case, term), -term.start, term))
    best = [(max(found)[2], max(found)[0] * (1 + log2(len(found)))) for found in mentions.values()]
    return [Fact(term, weight) for term, weight in sorted(best, key=lambda fact: fact[0].start)]


def _weight(case: Case, term: Term) -> float:
    page = case.page
    section = page.section_at(term.start) if page.sections or page.inline else None
    weight = _SECTIONS.get(section or "", 1.0)
    return weight * _DENIED if _is_denied(case, term.start) else weight


def _is_denied(case: Case, offset: int) -> bool:
    """Whether a character of the note lies in what it denies or leaves open; of overlapping spans the last four are looked at."""
    for spans in (case.note_scopes.denied, case.note_scopes.open):
        index = bisect_right(spans, offset, key=lambda span: span[0])
        if any(start <= offset < end for start, end in spans[max(0, index - 4) : index]):
            return True
    return False


def _is_told(case: Case, term: Term) -> bool:
    if term.kind == "drug":
        return not case.summary_naming.concepts.isdisjoint(parts(term.concept))
    return case.summary_naming.has(term.concept, case.text[term.start : term.end])
