"""Facts of the note that the summary leaves out. It has to leave out most: what counts is how much the note makes of a fact."""

from __future__ import annotations

from collections.abc import Iterator

from transforms.checks.case import Case, Flag
from transforms.checks.facts import Fact, fact_terms

_CODES = {"drug": "OMITTED_DRUG", "problem": "OMITTED_PROBLEM", "procedure": "OMITTED_PROCEDURE"}
# So many facts of a note, its weightiest, are looked for.
SALIENT_FACTS = 8


def check_omission(case: Case) -> Iterator[Flag]:
    """OMITTED_ALLERGY, OMITTED_DRUG, OMITTED_PROBLEM, OMITTED_PROCEDURE: one of the note's SALIENT_FACTS is not in the summary.

    [source_start, source_end) is its weightiest mention; `start` is None.
    """
    if case.is_whole:
        return
    omitted = {fact.term.start for fact in case.omitted}
    for fact in salient_facts(case):
        if fact.term.start in omitted:
            code = "OMITTED_ALLERGY" if case.page.section_at(fact.term.start) == "allergies" else _CODES[fact.term.kind]
            yield Flag(code, None, None, fact.term.start, fact.term.end)


def salient_facts(case: Case) -> list[Fact]:
    """The weightiest facts of the note in the order of the note; of equal ones the first."""
    heavy = sorted(case.facts, key=lambda fact: -fact.weight)
    return sorted(heavy[:SALIENT_FACTS], key=lambda fact: fact.term.start)


def omission(case: Case) -> float | None:
    """Share of the weight of the note's facts that the summary leaves out, 0-1; None for a note without facts."""
    if case.is_whole:
        return 0.0 if next(fact_terms(case.note_terms, case.page), None) else None
    total = sum(fact.weight for fact in case.facts)
    return sum(fact.weight for fact in case.omitted) / total if total else None
