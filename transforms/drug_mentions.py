"""Medications of running text: the drugs that sentences name, each with the dose, route, frequency and duration beside it.

An attribute belongs to the drug right behind it ("40 mg of oral prednisone") or else to the drug before it, as far as its sentence goes and
the next drug. Whether it is taken, past, denied or only considered is told by `transforms.context` and by words for stopping. Every look
around a name is bounded: linear in the length of the note.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from schemas.record import Assertion
from transforms.context import Context
from transforms.drug_names import find_drugs
from transforms.list_items import Closed
from transforms.medications import DOSE, DURATION, FREQUENCY, ROUTE, normal_form, once_daily, read_reason
from transforms.sections import SENTENCE_END, Page
from transforms.terms import Term
from transforms.words import Phrases, word_edge

Span = tuple[int, int]
Entity = dict[str, Any]

_ATTRIBUTES = ("dose", "route", "frequency", "duration")
_MEASURED = Phrases(
    r"(?<![\w-])(?:(?:very )?(?:high|low|moderate|standard)[- ](?:dose|dosage)s?|overdose)(?!\w)", "high low mode over stan very"
)
# Adjectives, which belong to what follows them.
_OWN = re.compile(
    r"(?:very )?(?:high|low|moderate|standard)[- ](?:dose|dosage)s?|oral|topical|inhaled|nasal|sublingual|rectal|intra\w+|subcut\w+"
    r"|iv|daily"
)
# What may stand between an attribute and the drug behind it.
_LEADS = re.compile(
    r"(?:[ -]|of|the|a|an|dose|doses|single|infusion|infusions|injection|injections|administration|application|treatment|therapy"
    r"|solution|with"
    r"|preparation|tablets?|capsules?|drops?|liquid)*"
)
_CLAUSE_END = re.compile(
    r";|[ ](?:but|who|which|because|although|however|due to|secondary to|presented|developed|and (?:[a-z-]{1,20} ){1,2}(?:was|were|is"
    r"|has))[ ]|[ ][-\u2013]{1,2}[ ]|--"
)
_STOPPED = re.compile(
    r"(?<![\w/])(?:stop(?:ped|s|ping)?|d/?c'?(?:d|ed)?|discontinu(?:e|ed|es|ing|ation of)|held|off(?: of)?|no longer (?:on|takes?"
    r"|taking|uses?|using)"
    r"|previously (?:on|took|taking|treated with|used)|was on|were on|used to (?:take|use|be on)|withdrawal of|cessation of|failed"
    r"|weaned (?:off|from)"
    r"|quit|finished|completed)[ ](?:(?:the|his|her|their|all|a course of|taking|using|of)[ ]){0,2}$"
)
_STOPPED_BEHIND = re.compile(
    r"[ ,(]{1,2}(?:[a-z]{2,12} ){0,2}?(?:(?:was|were|is|are|has been|have been|had been|being)[ ])?(?:then |later |subsequently "
    r"|recently |since )?"
    r"(?:stopped|discontinued|withdrawn|d/?c'?e?d|ceased|held|completed)(?!\w)"
)
_AVOIDED = re.compile(
    r"(?<!\w)(?:avoid|avoiding|allerg(?:y|ic|ies) to|intoleran(?:t|ce) (?:of|to)|sensitiv(?:e|ity) to|reaction to)[ ](?:[a-z]{2,12} ){0,2}$"
)
_BEFORE = 60  # characters before a name that are looked at
_BEHIND = 160  # characters behind a name that its attributes stand in


def read_drug_mentions(page: Page, terms: Sequence[Term], context: Context, taken: Sequence[Span]) -> list[Entity]:
    """Medications, in order of the note. `taken`: characters in which no drug is looked for."""
    closed = Closed(taken)
    drugs = [span for span in find_drugs(page, terms) if not closed.holds(span[0])]
    return list(_medications(page, context, drugs))


def _medications(page: Page, context: Context, drugs: Sequence[Span]) -> Iterator[Entity]:
    folded = page.folded
    leads = [_leading(page, drugs[i - 1][1] if i else 0, start) for i, (start, _) in enumerate(drugs)]
    starts = [min((span[0] for span in lead.values()), default=drug[0]) for drug, lead in zip(drugs, leads, strict=True)]
    for index, (start, end) in enumerate(drugs):
        limit = starts[index + 1] if index + 1 < len(drugs) else len(folded)
        limit = _clause(folded, end, word_edge(folded, end, min(limit, end + _BEHIND)))
        said = _said(folded, context, start, end, limit)
        if said is None:
            continue
        spans = _trailing(page, end, limit) | leads[index]
        yield _entity(page, (start, end), spans, said, limit)


def _leading(page: Page, low: int, start: int) -> dict[str, Span]:
    """Attributes right before a name, nothing between that says more. Behind another drug (its end: `low`) only what cannot be of",
    "that one."""
    folded = page.folded
    found: dict[str, Span] = {}
    first = max(0, start - _BEFORE)
    first = max(first, *(folded.rfind(mark, first, start) + 1 for mark in ("\n", ". ", ";")))
    edge = start
    for end, begin, key in sorted(_attributes_in(page, max(first, low), start), reverse=True):
        key = key.removesuffix("_word")
        if end > edge or key in found or not _LEADS.fullmatch(folded, end, edge):
            break
        if low > first and not (_OWN.fullmatch(folded, begin, end) or "of" in folded[end:edge].split()):
            break
        found[key] = begin, end
        edge = begin
    return found


def _attributes_in(page: Page, start: int, end: int) -> Iterator[tuple[int, int, str]]:
    """(end, start, what it is) of what says how a drug is given."""
    found = {"dose": DOSE.finditer(page.folded, start, end), "route": ROUTE.finditer(page.words, start, end)}
    found |= {"frequency": FREQUENCY.finditer(page.folded, start, end), "dose_word": _MEASURED.finditer(page.words, start, end)}
    return ((hit.end(), hit.start(), key) for key, hits in found.items() for hit in hits)


def _clause(folded: str, start: int, limit: int) -> int:
    stop = SENTENCE_END.search(folded, start, limit)
    limit = stop.start() if stop else limit
    clause = _CLAUSE_END.search(folded, start, limit)
    return clause.start() if clause else limit


def _trailing(page: Page, start: int, limit: int) -> dict[str, Span]:
    """The first attribute of each kind behind a name."""
    folded = page.folded
    first = {
        "dose": DOSE.search(folded, start, limit),
        "route": ROUTE.search(page.words, start, limit),
        "frequency": FREQUENCY.search(folded, start, limit),
        "duration": DURATION.search(folded, start, limit),
    }
    found = {key: match.span() if match else None for key, match in first.items()}
    return {key: span for key, span in (found | once_daily(folded, found, start, limit)).items() if span}


def _said(folded: str, context: Context, start: int, end: int, limit: int) -> Assertion | None:
    """None for a drug that is to be avoided."""
    first = max(0, start - _BEFORE)
    if _AVOIDED.search(folded, first, start):
        return None
    said = context.said(start) or Assertion.POSSIBLE
    if said is not Assertion.ABSENT and (_STOPPED.search(folded, first, start) or _STOPPED_BEHIND.match(folded, end, limit)):
        return Assertion.HISTORICAL
    return said


def _entity(page: Page, name: Span, spans: dict[str, Span], said: Assertion, limit: int) -> Entity:
    last = max((span[1] for span in spans.values()), default=name[1])
    reason = read_reason(page.folded, max(last, name[1]), limit)
    leaves = {key: page.leaf(*spans[key], said, normal_form(key, page.folded, spans[key])) if key in spans else None for key in _ATTRIBUTES}
    leaves["reason"] = page.leaf(*reason, said) if reason else None
    return {"name": page.leaf(*name, said), **leaves, "codes": [], "readers": ["rules"]}
