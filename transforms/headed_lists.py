"""Lists under headings: medications, allergies, problems, procedures, family history. And a few sentences that introduce such a list.

A line is cut into sentences and a sentence into pieces at commas, semicolons and "and"; a piece becomes an item only if it
looks like the name of a thing. Prose under a heading is passed over rather than guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from schemas.record import Assertion
from transforms.assertion import leading_trigger, trailing_trigger
from transforms.context import is_denied
from transforms.lexicon import NO_PROBLEM, NO_SUBSTANCE, PROSE, word_set
from transforms.list_items import MAX_SENTENCE, cut_pieces, has_word, item_sentences, stripped
from transforms.medications import read_items
from transforms.procedures import OPERATIONS, read_listed_procedures
from transforms.procedures import SECTIONS as _PROCEDURES
from transforms.sections import SENTENCE_END, Page, Section, list_body
from transforms.words import Phrases, Words, word_edge

Span = tuple[int, int]
Entity = dict[str, Any]


_GRADE = re.compile(r"(?:(?:tnm |figo |ckd )?(?:stage|grade)|nyha class)[ ](?:\d|[iv]{1,3}\b|[a-d]\b)")
_ADJECTIVE = re.compile(
    r"(?:localized|generalized|acute|chronic|subacute|recurrent|primary|secondary|severe|moderate|mild|bilateral|left|right)"
)
_STATUS = re.compile(
    rf"[ ]*(?:,(?![ ]{_GRADE.pattern})(?<!localized,)(?<!generalized,)|[;(:]|[ ][-\u2013][ ](?!traumatic|nontraumatic)|\.$).*"
    r"|[ ](?:currently|on|with good|well[ -]controlled|stable|status)\b.*",
    re.DOTALL,
)
# "bowel cancer at 53"; "asthma, diagnosed aged 7".
_AGED = re.compile(r"(?<!\w)(?:(?:diagnosed|treated)[ ])?(?:(?:at[ ])?(?:age|aged)(?:[ ]of)?|at)[ ]\d.*", re.DOTALL)
_ARTICLE = re.compile(r"(?:and |a |an )*")
_ONSET = re.compile(r"(?:since|in|dx|diagnosed(?: in)?|onset|\()[ :]{0,2}(?P<year>(?:\d{1,2}/){0,2}(?:19|20)\d{2})\b")
_ALLERGY_NONE = Phrases(
    r"\b(?:nkd?f?as?\b|no (?:known |documented |reported |significant )?(?:drug |food |medication |medicine "
    r"|environmental |latex |seasonal |or |and |history of |other ){0,3}"
    r"allerg(?:y|ies)\b(?! to)(?: known\b)?|not allergic to any(?:thing| medications?)|denies (?:any )?(?:known )?(?:drug |food "
    r"|medication )?allergies\b)",
    "deni nka nkas nkda nkdf nkfa no not",
)
_LIST_NONE = re.compile(r"[ \t*-]*(?P<none>none known|none|nil known|nil|no known|n/k|denies|negative)[ \t.]*(?:\n|$|(?=[.;]))")
_ALLERGIC = re.compile(r"\b(?:allerg(?:ic|y|ies) to|allergies (?:are|include|includes|included))[ ](?P<list>[^.;:\n]{3,160})")
_REACTION = re.compile(
    r"\b(?:anaphyla(?:xis|ctic[ ]?(?:shock|reaction)?)|hives|urticaria|rash(?:es)?|itch(?:ing|y|iness)?|pruritus"
    r"|(?:(?:facial|face|lip|tongue|mouth|throat|eyelid)[ ])?swelling|angioedema|edema|nausea|vomiting|n/v|diarrhea"
    r"|shortness of breath|dyspnea|wheez(?:ing|e)|gi upset|upset stomach|stomach upset|headaches?|dizziness"
    r"|cough(?:ing)?|flushing|redness|fever|bronchospasm"
    r"|hypotension|syncope|seizures?|throat (?:closing|tightness)|unknown reaction|intolerance|sneezing"
    r"|confusion|blisters?|red man syndrome)\b"
)
# What stands between a substance and its reaction, words about the reaction included: "codeine caused severe nausea".
_CAUSE = re.compile(
    r"[ ]?(?:(?:[-\u2013:=>(\[\u2192/]+|\b(?:causes?|caused|gives|gave))(?:[ ][a-z]{3,14}){0,2}|reaction|with|\([a-z ]*)[ ]*$"
)
_CAUSED = re.compile(r"(?<=causes )[a-z][a-z -]{2,30}$")

# Sentences that introduce a list of problems, of the patient or of the family.
_HISTORY_OF = Phrases(
    r"\b(?P<who>past medical history|medical history|pmhx?|background|family history|family medical history|fhx?)[ ]"
    r"(?:(?:is|are|was|also)[ ]){0,2}(?:(?:significant|notable|remarkable|positive)[ ]for|(?<!background )of"
    r"|includes?|included)[ ](?:a[ ])?(?:history[ ]of[ ])?",
    "back fami fh fhx medi past pmh pmhx",
)

# Sentences that introduce a list of drugs without a heading; after a weak one only items with a dose count.
_TAKES = Phrases(
    r"\b(?P<strong>(?:current |home |regular |daily |her |his )medications? (?:include|includes|included|are|were"
    r"|consist of)|currently taking|currently takes|medications include[ds]?)[ :]"
    r"|\b(?:he|she|patient|pt) (?:currently |also )?(?:takes|is (?:currently )?(?:taking|on))[ ]",
    "curr dail he her his home medi pati pt regu she",
)

_RELATIVES = (
    r"(?:maternal |paternal |half[ -])?(?:grand)?(?:mother|father|parents?|brothers?|sisters?|siblings?|sons?"
    r"|daughters?|children|aunts?|uncles?|cousins?|mom|dad)"
)
_IN_RELATIVE = re.compile(rf"[ ](?:in|-|\u2013)[ ](?:(?:his|her|the|both|a|an|two|multiple|one)[ ])?{_RELATIVES}\b.*", re.DOTALL)
_RELATIVE_FIRST = re.compile(
    rf"(?:(?:his|her|the|positive for|significant for)[ ])?{_RELATIVES}[ ]?(?::|-|\u2013|[ ](?:with|had|has|have"
    rf"|(?:died|deceased)(?: (?:of|from))?)[ ](?:a[ ]|an[ ])?(?:history of[ ])?)[ ]?"
)
_FAMILY_LEAD = re.compile(r"(?:positive|significant|notable|remarkable)?[ ]?(?:for|of)[ ](?:a[ ])?(?:history of[ ])?")

_PROBLEMS = word_set("problem_list past_medical_history diagnoses assessment assessment_and_plan")


def read_lists(page: Page) -> dict[str, list[Entity]]:
    """`medications, allergies, problems, procedures` of a note; what it says twice is there twice."""
    found: dict[str, list[Entity]] = {"medications": [], "allergies": [], "problems": [], "procedures": []}
    for section in sorted((*page.sections, *page.inline), key=lambda section: section.heading):
        if section.name in ("medications", "past_medications"):
            found["medications"].extend(_medications(page, section))
        elif section.name == "allergies":
            found["allergies"].extend(_allergies(page, section))
        elif section.name in _PROBLEMS:
            found["problems"].extend(_problems(page, section))
            found["procedures"].extend(read_listed_procedures(page, section))
        elif section.name == "family_history":
            found["problems"].extend(_family(page, section))
        elif section.name in _PROCEDURES:
            found["procedures"].extend(read_listed_procedures(page, section))
    found["medications"].extend(_introduced_medications(page))
    found["allergies"].extend(_mentioned_allergies(page))
    found["problems"].extend(_introduced_problems(page))
    return found


def _medications(page: Page, section: Section) -> Iterator[Entity]:
    default = Assertion.HISTORICAL if section.name == "past_medications" else Assertion.PRESENT
    for sentence in item_sentences(page, *list_body(page, section)):
        pieces = cut_pieces(page.folded, sentence.start, sentence.end, words=not sentence.marked)
        yield from read_items(page, pieces, default, sentence.marked)


def _introduced_medications(page: Page) -> Iterator[Entity]:
    if "tak" not in page.folded and "medication" not in page.folded and " is on " not in page.folded:
        return
    for match, end in _introductions(_TAKES, page.words):
        for item in read_items(page, cut_pieces(page.folded, match.end(), end, words=True), Assertion.PRESENT, False):
            if match.group("strong") or item["dose"]:
                yield item


def _introductions(phrases: Phrases, words: Words) -> Iterator[tuple[re.Match[str], int]]:
    """Matches and where the list behind each ends: with its sentence. A match inside the sentence of the one before is part of that."""
    folded, reach = words.folded, 0
    for match in phrases.finditer(words):
        if match.start() >= reach:
            limit = word_edge(folded, match.end(), match.end() + MAX_SENTENCE)
            stop = SENTENCE_END.search(folded, match.end(), limit)
            reach = stop.start() if stop else limit
            yield match, reach


def _allergies(page: Page, section: Section) -> Iterator[Entity]:
    start, end = list_body(page, section)
    none = _LIST_NONE.match(page.folded, start, end)
    if none:
        yield _no_allergy(page, none.span("none"))
        return
    for sentence in item_sentences(page, start, end):
        if not _ALLERGY_NONE.pattern.search(page.folded, sentence.start, sentence.end):
            yield from _substances(page, sentence.start, sentence.end)


def _substances(page: Page, start: int, end: int) -> Iterator[Entity]:
    """One entity per substance; what names a reaction belongs to the substance before it."""
    latest: Entity | None = None
    for first, last in cut_pieces(page.folded, start, end, words=True):
        reaction = _REACTION.search(page.folded, first, last) or _CAUSED.search(page.folded, first, last)
        span = _substance(page.folded, first, reaction.start() if reaction else last)
        if reaction and span is None and latest is not None:
            latest["reaction"] = latest["reaction"] or page.leaf(*reaction.span())
        elif span is None:
            return
        else:
            latest = _allergy(page, span, reaction.span() if reaction else None)
            yield latest


def _substance(folded: str, start: int, end: int) -> Span | None:
    lead = re.compile(r"(?:and |allergic to |allergy to |to )+").match(folded, start, end)
    start = lead.end() if lead else start
    cause = _CAUSE.search(folded, start, end)
    start, end = stripped(folded, start, cause.start() if cause else end)
    words = folded[start:end].split()
    if not 0 < len(words) <= 5 or not folded[start].isalnum() or has_word(folded, (start, end), NO_SUBSTANCE):
        return None
    # A free-standing number belongs to a dose: the line is of another list.
    return None if re.compile(r"(?<![\w-])\d").search(folded, start, end) else (start, end)


def _allergy(page: Page, substance: Span, reaction: Span | None, assertion: Assertion = Assertion.PRESENT) -> Entity:
    return {
        "substance": page.leaf(*substance, assertion),
        "reaction": None if reaction is None else page.leaf(*reaction, assertion),
        "codes": [],
        "readers": ["rules"],
    }


def _no_allergy(page: Page, span: Span) -> Entity:
    """ "No known allergies" is a finding of its own: an absent leaf, so that it differs from a note that does not say."""
    entity = _allergy(page, span, None, Assertion.ABSENT)
    entity["substance"]["normal"] = "no known allergies"
    return entity


def _mentioned_allergies(page: Page) -> Iterator[Entity]:
    """Statements anywhere in the note: "NKDA", "allergic to penicillin"."""
    folded = page.folded
    if "allerg" not in folded and "nk" not in folded:
        return
    for match in _ALLERGY_NONE.finditer(page.words):
        yield _no_allergy(page, match.span())
    for match in _ALLERGIC.finditer(folded):
        listed = stripped(folded, *match.span("list"))
        if page.section_at(match.start()) in ("allergies", "family_history"):
            continue
        for entity in _substances(page, *listed):
            if is_denied(folded, match.start()):
                entity["substance"]["assertion"] = Assertion.ABSENT.value
            yield entity


def _problems(page: Page, section: Section) -> Iterator[Entity]:
    assessed = section.name.startswith("assessment")
    for sentence in item_sentences(page, *list_body(page, section)):
        start, end = sentence.start, sentence.end
        # In an assessment "Label: prose" explains, and "s/p colectomy" tells what was done.
        explains = assessed and (page.folded.find(": ", start, end) > 0 or page.folded.startswith(("s/p", "status post"), start))
        if explains or sentence.prose or OPERATIONS.match(page.folded, start, end):
            continue
        whole = sentence.marked or assessed
        for first, last in [(start, end)] if whole else _rejoined(page.folded, cut_pieces(page.folded, start, end, words=False)):
            problem = _problem(page, first, last, None)
            if problem is not None:
                yield problem


def _rejoined(folded: str, pieces: Sequence[Span]) -> list[Span]:
    """Pieces that are no problem by themselves put back: "localized, primary osteoarthritis", "carcinoma of lung, stage 1"."""
    joined: list[Span] = []
    for start, end in pieces:
        if joined and (_GRADE.match(folded, start, end) or _ADJECTIVE.fullmatch(folded, *joined[-1])):
            joined[-1] = joined[-1][0], end
        else:
            joined.append((start, end))
    return joined


def _problem(page: Page, start: int, end: int, said: Assertion | None) -> Entity | None:
    folded = page.folded
    start = _ARTICLE.match(folded, start, end).end()  # type: ignore[union-attr]
    leading, begin = leading_trigger(folded, start, end)
    trailing, cut = trailing_trigger(folded, begin, end)
    status = _STATUS.search(folded, begin, cut)
    onset = _ONSET.search(folded, begin, end)
    aged = _AGED.search(folded, begin, end)
    first, last = stripped(folded, begin, min(found.start() if found else cut for found in (status, onset, aged)))
    words = folded[first:last].split()
    if not 0 < len(words) <= 9 or not folded[first].isalpha() or last - first < 2 or words[0].strip(".,") in NO_PROBLEM:
        return None
    assertion = said or leading or trailing or Assertion.PRESENT
    return {
        "name": page.leaf(first, last, assertion),
        "onset": page.leaf(*onset.span("year"), assertion) if onset else None,
        "codes": [],
        "readers": ["rules"],
    }


def _introduced_problems(page: Page) -> Iterator[Entity]:
    """ "Past medical history of asthma, gout and a stroke, who presents ...": read up to the first piece that is prose."""
    folded = page.folded
    for match, end in _introductions(_HISTORY_OF, page.words):
        if is_denied(folded, match.start()):
            continue
        said = Assertion.FAMILY if match.group("who").startswith("f") else None
        for first, last in _rejoined(folded, cut_pieces(folded, match.end(), end, words=True)):
            if has_word(folded, (first, last), PROSE):
                break
            after = _IN_RELATIVE.search(folded, first, last) if said else None
            problem = _problem(page, first, after.start() if after else last, said)
            if problem is not None:
                yield problem


def _family(page: Page, section: Section) -> Iterator[Entity]:
    """Problems of relatives: "asthma in mother", "Mother: asthma", "father had a stroke"."""
    folded = page.folded
    for sentence in item_sentences(page, *list_body(page, section)):
        for first, last in cut_pieces(folded, sentence.start, sentence.end, words=False):
            relative = _RELATIVE_FIRST.match(folded, first, last)
            lead = relative or _FAMILY_LEAD.match(folded, first, last)
            begin = lead.end() if lead else first
            after = _IN_RELATIVE.search(folded, begin, last)
            stop = after.start() if after else last
            denied, _ = leading_trigger(folded, begin, stop)
            guessed = sentence.prose and not (relative or after)
            if denied is Assertion.ABSENT or guessed or has_word(folded, (begin, stop), PROSE):
                continue
            problem = _problem(page, begin, stop, Assertion.FAMILY)
            if problem is not None:
                yield problem
