"""Procedures: under headings and behind "procedures:", what was "s/p" or undergone, and dated names behind the readings of a terse note.

In running text a name is one of a procedure if its words are ("-ectomy", "biopsy", "x-ray"), the vocabulary says so, or a date stands
behind "s/p" and it. Every look behind a trigger is bounded: linear in the length of the note.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from schemas.record import Assertion
from transforms.context import Context
from transforms.dates import MONTH
from transforms.lexicon import NO_PROBLEM, PROSE, word_set
from transforms.list_items import cut_pieces, has_word, item_sentences, stripped
from transforms.sections import SENTENCE_END, Page, Section, list_body
from transforms.terms import Term
from transforms.words import Phrases, word_edge

Span = tuple[int, int]
Entity = dict[str, Any]

SECTIONS = word_set("procedures past_surgical_history")
OPERATIONS = re.compile(r"(?:previous |past )?(?:operations?|surgery|surgeries): ")

_DATE = re.compile(
    r"(?<!\d)(?:(?:19|20)\d{2}-\d{2}-\d{2}|\d{1,2}/\d{1,2}/(?:\d{4}|\d{2})|\d{1,2}/(?:19|20)\d{2}|(?:19|20)\d{2}"
    rf"|(?:\d{{1,2}}(?:st|nd|rd|th)?[ ])?{MONTH}\.?(?:[ ]\d{{1,2}}(?:st|nd|rd|th)?,?)?[ ](?:19|20)\d{{2}})(?!\d)"
)
# It opens with a digit outside of groups, so that the engine skips fast; that none stands before it is looked at afterwards.
_WHOLE_DATE = re.compile(r"\d(?<!\d\d)(?:(?:(?<=1)9|(?<=2)0)\d{2}-\d{2}-\d{2}|\d?/\d{1,2}/(?:19|20)\d{2})(?!\d)")
_NAME = re.compile(r"[ :\u2013-]*(?:s/p |status post )?(?P<name>.*?)[ :(,\u2013-]*(?:\b(?:in|on|dated))?[ (:,]*$", re.DOTALL)
_LISTED = Phrases(
    r"\b(?:procedures?|operations?|surgeries|surgical history|interventions)(?: (?:performed|done|undergone|carried out))?"
    r"(?: (?:in|over|within|during) the (?:last|past) (?:[a-z0-9]{1,8} )?(?:days?|weeks?|months?|years?))?"
    r"(?:[ ]?:|[ ](?:include[sd]?|were|are|consist(?:s|ed)? of))[ ]",
    "inte oper proc surg",
)
_DONE = Phrases(
    r"(?<![\w/])(?P<how>s/p|status[ -]post|underwent|undergone|undergoing)[ ](?:(?:an?|the|his|her|their|successful|elective|emergent"
    r"|emergency|urgent|uncomplicated|recent|prior|subsequent)[ ])*",
    "s stat unde",
)
_ON_DATE = re.compile(rf"[^\n.;,():]{{3,100}}? (?:on|in) {_DATE.pattern}(?=[.;,\n)]|$)")
_DIGIT = re.compile(r"\d")
# Words that a name of a procedure in running text does not go on behind.
_UNTIL = re.compile(
    rf"[.;:\n](?!\d)|[ ](?:s/p|underwent|for|due|with|without|which|who|that|then|after|before|because|performed|under|by|secondary|to"
    rf"|from|at|as"
    rf"|while|is|was"
    rf"|were|has|had|complicated|followed|during|through|via|where|when|and (?:is|was|has|had|he|she|the|found|noted|presented)"
    rf"|(?:on|in)(?![ ]{_DATE.pattern}))[ ]"
)
_OPERATIVE = re.compile(
    r"\b\w*(?:ectom(?:y|ies)|otom(?:y|ies)|ostom(?:y|ies)|plast(?:y|ies)|scop(?:y|ies)|centesis|pexy|desis|graph(?:y|ies)|gram|tripsy"
    r"|lysis|rraphy)\b|\b(?:surgery|repair|replacement|resection|excision|removal|bypass|grafts?|stents?|stenting"
    r"|transplant(?:ation)?|biops(?:y|ies)"
    r"|ablation|cardioversion|cauterization|embolization|catheteri[sz]ation|catheter|insertion|implant(?:ation|ed)?|placement|fusion"
    r"|fixation"
    r"|reduction|amputation|debridement|drainage|i&d|orif|cabg|pci|ptca|tka|tha|turp|d&c|tavr|evar|ercp|egd|aspiration|injections?"
    r"|dilat(?:at)?ion"
    r"|intubation|extubation|dialysis|transfusions?|radiation|radiotherapy|chemotherapy|c-section|csection|delivery|ligation|x-rays?"
    r"|scans?|mri"
    r"|ct|ultrasound|echocardiogram|endoscopy|rehabilitation|immunotherapy|culture|screening|immobilization|vaccination|suture|slt"
    r"|alt|lpi|pi"
    r"|trab|phaco|prp|ppv|iol|decompression|revision|reconstruction|laparotomy|splenorrhaphy|shunt|pacemaker|icd)\b"
)
_EVENT = re.compile(
    r"\b(?:falls?|mva|mvc|accident|assault|injur(?:y|ies)|trauma|arrest|strokes?|cva|tia|mi|attack|exposure|bites?|collision|crash"
    r"|infarction|fractures?|infection|seizures?|course|treatment|diagnos\w+|evaluation of)\b"
)
_NOT_DONE = word_set(
    "visit visits seen dob born birth date dated since on last next follow follow-up followup admitted admission discharged",
    "discharge started stopped",
    "returned return due expires signed dictated printed noted reviewed from to at until lmp edd",
)
_TOOK_PLACE = re.compile(
    r"[^.;:\n]{0,40}?[ ](?:(?:was|were|has been|had been) (?:then |subsequently |also |successfully )?(?:performed|done|carried out"
    r"|undertaken"
    r"|obtained|unremarkable|normal|negative)|show(?:s|ed|ing)|reveal(?:s|ed|ing)|demonstrat(?:es|ed|ing)|confirmed|identified)(?!\w)"
)
# Behind a reading these still belong to it.
_REMARK = re.compile(r"[ ,]{0,2}(?:\((?:on )?(?:ra|room air)\)|(?:on )?(?:ra|room air|\d{1,2} ?l(?:/min)?(?: nc)?)(?!\w))")
_REACH = 160  # characters that a trigger reaches
_LONGEST_LIST = 1600
_MAX_WORDS = 12


def read_listed_procedures(page: Page, section: Section) -> Iterator[Entity]:
    """A list of procedures; in a history of problems only what is labelled: "Operations: appendicectomy in 2001"."""
    for sentence in item_sentences(page, *list_body(page, section)):
        label = OPERATIONS.match(page.folded, sentence.start, sentence.end)
        if sentence.prose or not (label or section.name in SECTIONS):
            continue
        start, end = label.end() if label else sentence.start, sentence.end
        for first, last in [(start, end)] if sentence.marked else cut_pieces(page.folded, start, end, words=False):
            procedure = _procedure(page, first, last)
            if procedure is not None:
                yield procedure


def read_told_procedures(page: Page, terms: Sequence[Term], context: Context, readings: Sequence[Span]) -> Iterator[Entity]:
    """Procedures anywhere in the note. `readings`: characters of vital signs and laboratory values, in order."""
    yield from _introduced(page)
    yield from _done(page, terms, context)
    yield from _dated(page, readings)
    yield from _performed(page, terms, context)


def _introduced(page: Page) -> Iterator[Entity]:
    """ "Procedures since the last visit: colonoscopy (2031-04-13); skin biopsy (2031-05-02)." """
    reach = 0
    for match in _LISTED.finditer(page.words):
        if match.start() < reach:
            continue
        limit = word_edge(page.folded, match.end(), match.end() + _LONGEST_LIST)
        stop = SENTENCE_END.search(page.folded, match.end(), limit)
        end = reach = stop.start() if stop else limit
        if not has_word(page.folded, (match.end(), end), PROSE):
            for piece in cut_pieces(page.folded, match.end(), end, words=False):
                procedure = _procedure(page, *piece)
                if procedure is not None:
                    yield procedure


def _done(page: Page, terms: Sequence[Term], context: Context) -> Iterator[Entity]:
    """ "S/p colonoscopy on 2019-04-13", "underwent excision of the mass and a skin graft"."""
    folded = page.folded
    known = {term.start: term for term in terms if term.kind in ("procedure", "problem")}
    for match in _DONE.finditer(page.words):
        if context.said(match.start()) is Assertion.ABSENT:
            continue
        for first, last in _done_pieces(folded, match.end()):
            procedure = _procedure(page, first, last)
            if procedure is None or not _is_done(folded, procedure, known, match["how"][0] == "s"):
                break
            yield procedure


def _done_pieces(folded: str, start: int) -> list[Span]:
    """What was done, as far as it goes: a whole item with its date ("repair of a hernia and ... on 2019-04-13"), else up to other words."""
    dated = _ON_DATE.match(folded, start) if _DIGIT.search(folded, start, start + _REACH) else None
    if dated and not has_word(folded, (start, dated.end()), PROSE - {"for"}):
        return [(start, dated.end())]
    limit = word_edge(folded, start, start + _REACH)
    stop = _UNTIL.search(folded, start, limit)
    return cut_pieces(folded, start, stop.start() if stop else limit, words=True)


def _is_done(folded: str, procedure: Entity, known: dict[int, Term], past: bool) -> bool:
    start, end = procedure["name"]["start"], procedure["name"]["end"]
    if has_word(folded, (start, end), PROSE):
        return False
    term = known.get(start)
    if _OPERATIVE.search(folded, start, end) or (term and term.kind == "procedure"):
        return True
    return past and procedure["date"] is not None and not (term and term.end == end) and not _EVENT.search(folded, start, end)


def _performed(page: Page, terms: Sequence[Term], context: Context) -> Iterator[Entity]:
    """ "Colonoscopy was performed", "an echocardiogram showed": what the vocabulary names, and its result or that it took place."""
    for term in terms:
        named = term.kind == "procedure" or (term.kind == "test" and _OPERATIVE.search(page.folded, term.start, term.end))
        took_place = named and _TOOK_PLACE.match(page.folded, term.end, term.end + _REACH)
        if took_place and context.said(term.start) in (Assertion.PRESENT, Assertion.HISTORICAL):
            yield {"name": page.leaf(term.start, term.end), "date": None, "codes": [], "readers": ["rules"]}


def _dated(page: Page, readings: Sequence[Span]) -> Iterator[Entity]:
    """ "... BMI 27.1 Spirometry 2019-04-13; biopsy 2019-05-02": names with whole dates, the first right behind a reading."""
    folded, free, ends = page.folded, -1, iter((*(end for _, end in readings), len(page.folded) + 1))
    behind, upcoming = -1, next(ends)
    for match in _WHOLE_DATE.finditer(folded):
        while upcoming <= match.start():
            behind, upcoming = upcoming, next(ends)
        start = max(behind, free)
        if start < 0 or match.start() - start > _REACH or "\n" in folded[start : match.start()]:
            continue
        remark = _REMARK.match(folded, start)
        first, last = stripped(folded, remark.end() if remark else start, match.start())
        procedure = _procedure(page, first, match.end()) if first < last and folded[first].isalpha() else None
        plain = not has_word(folded, (first, last), PROSE | _NOT_DONE) and not re.search(r"[.:(\[]", folded[first:last])
        if procedure is not None and plain:
            free = match.end()
            yield procedure


def _procedure(page: Page, start: int, end: int) -> Entity | None:
    """A name with its date before ("2019-04-13: colonoscopy") or behind it ("colonoscopy (2019)")."""
    folded = page.folded
    date = _DATE.search(folded, start, end)
    first, last = start, end
    if date and date.start() == start:
        first = date.end()
    elif date:
        last = date.start()
    name = _NAME.match(folded, first, last)
    begin, stop = name.span("name") if name else (first, last)
    words = folded[begin:stop].split()
    if not 0 < len(words) <= _MAX_WORDS or not folded[begin].isalnum() or (not date and words[0].strip(".,") in NO_PROBLEM):
        return None
    normal = date.group() if date and len(date.group()) == 10 and date.group()[4] == "-" else None
    return {
        "name": page.leaf(begin, stop),
        "date": page.leaf(*date.span(), normal=normal) if date else None,
        "codes": [],
        "readers": ["rules"],
    }
