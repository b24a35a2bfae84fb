"""Lists under headings: medications, allergies, problems, procedures, family history. And a few sentences that introduce such a list.

A line is cut into sentences and a sentence into pieces at commas, semicolons and "and"; a piece becomes an item only if it
looks like the name of a thing. Prose under a heading is passed over rather than guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from schemas.record import Assertion
from transforms.assertion import leading_trigger, trailing_trigger
from transforms.lexicon import NO_PROBLEM, NO_SUBSTANCE, PROSE, word_set
from transforms.medications import read_items
from transforms.sections import SENTENCE_END, Page, Section, fold, list_body

Span = tuple[int, int]
Entity = dict[str, Any]

_BULLET = re.compile(r"[ \t]*(?:[-\u2013•*·o+]+[ \t]+|\(?\d{1,3}[.):][ \t]*(?!\d)|\[[ x]?\][ \t]*)?[ \t]*")
_MARKED = re.compile(r"[ \t]*(?:[-\u2013•*·+]|\(?\d{1,3}[.):])")
_CUT = re.compile(r"[;()\[\]]|,(?!\d{3}(?!\d))|[ \t]and(?=[ \t])")
_DOTTED = re.compile(r"[. ]?[a-z]\.[a-z]\.?$|\.[a-z]\.$")  # the end of "b.i.d." or "p.o."
_MAX_SENTENCE = 600  # characters: a longer stretch without a full stop is not an item of a list

_STATUS = re.compile(r"[ ]*(?:[,;(:]|[ ][-\u2013][ ]|\.$).*|[ ](?:currently|on|with good|well[ -]controlled|stable|status)\b.*", re.DOTALL)
# "bowel cancer at 53"; "asthma, diagnosed aged 7".
_AGED = re.compile(r"(?<!\w)(?:(?:diagnosed|treated)[ ])?(?:(?:at[ ])?(?:age|aged)(?:[ ]of)?|at)[ ]\d.*", re.DOTALL)
_OPERATIONS = re.compile(r"(?:previous |past )?(?:operations?|surgery|surgeries): ")
_ARTICLE = re.compile(r"(?:and |a |an )*")
_ONSET = re.compile(r"(?:since|in|dx|diagnosed(?: in)?|onset|\()[ :]{0,2}(?P<year>(?:\d{1,2}/){0,2}(?:19|20)\d{2})\b")
_DATE = re.compile(r"(?<!\d)(?:(?:19|20)\d{2}-\d{2}-\d{2}|\d{1,2}/\d{1,2}/(?:\d{4}|\d{2})|\d{1,2}/(?:19|20)\d{2}|(?:19|20)\d{2})(?!\d)")

_ALLERGY_NONE = re.compile(
    r"\b(?:nkd?f?as?\b|no (?:known |documented |reported |significant )?(?:drug |food |medication |medicine "
    r"|environmental |latex |seasonal |or |and |history of |other ){0,3}"
    r"allerg(?:y|ies)\b(?! to)(?: known\b)?|not allergic to any(?:thing| medications?)|denies (?:any )?(?:known )?(?:drug |food "
    r"|medication )?allergies\b)"
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
_HISTORY_OF = re.compile(
    r"\b(?P<who>past medical history|medical history|pmhx?|background|family history|family medical history|fhx?)[ ]"
    r"(?:(?:is|are|was|also)[ ]){0,2}(?:(?:significant|notable|remarkable|positive)[ ]for|(?<!background )of"
    r"|includes?|included)[ ](?:a[ ])?(?:history[ ]of[ ])?"
)
# A denial earlier in the same clause: "no personal or family history of".
_DENIED = re.compile(r"\b(?:no|not|denies|denied|without|never|negative for)\b(?:(?!\bbut\b|\bwith\b)[^.;:\n]){0,45}$")

# Sentences that introduce a list of drugs without a heading; after a weak one only items with a dose count.
_TAKES = re.compile(
    r"\b(?P<strong>(?:current |home |regular |daily |her |his )medications? (?:include|includes|included|are|were"
    r"|consist of)|currently taking|currently takes|medications include[ds]?)[ :]"
    r"|\b(?:he|she|patient|pt) (?:currently |also )?(?:takes|is (?:currently )?(?:taking|on))[ ]"
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
_PROCEDURES = word_set("procedures past_surgical_history")


def read_lists(page: Page) -> dict[str, list[Entity]]:
    """`medications, allergies, problems, procedures` of a note, in order of the note."""
    found: dict[str, list[Entity]] = {"medications": [], "allergies": [], "problems": [], "procedures": []}
    for section in sorted((*page.sections, *page.inline), key=lambda section: section.heading):
        if section.name in ("medications", "past_medications"):
            found["medications"].extend(_medications(page, section))
        elif section.name == "allergies":
            found["allergies"].extend(_allergies(page, section))
        elif section.name in _PROBLEMS:
            found["problems"].extend(_problems(page, section))
            found["procedures"].extend(_procedures(page, section))
        elif section.name == "family_history":
            found["problems"].extend(_family(page, section))
        elif section.name in _PROCEDURES:
            found["procedures"].extend(_procedures(page, section))
    _add(found["medications"], "name", _introduced_medications(page))
    _add(found["allergies"], "substance", _mentioned_allergies(page))
    _add(found["problems"], "name", _introduced_problems(page))
    return found | {"allergies": _once(found["allergies"], "substance"), "problems": _once(found["problems"], "name")}


def _add(listed: list[Entity], key: str, more: Iterator[Entity]) -> None:
    """Add entities that stand elsewhere than those found already, and keep the order of the note."""
    taken = {entity[key]["start"] for entity in listed}
    listed.extend(entity for entity in more if entity[key]["start"] not in taken)
    listed.sort(key=lambda entity: int(entity[key]["start"]))


def _once(entities: list[Entity], key: str) -> list[Entity]:
    """The first mention of each: a problem of the history comes again in the assessment."""
    first: dict[tuple[str, str], Entity] = {}
    for entity in entities:
        leaf = entity[key]
        first.setdefault((leaf["normal"] or fold(leaf["text"]), leaf["assertion"]), entity)
    return list(first.values())


@dataclass(frozen=True, slots=True)
class _Sentence:
    """Characters [start, end) of a sentence of a list, less bullet and white space.

    `marked`: a bullet or a number opens its line. `prose`: its line has words that lists do not have.
    """

    start: int
    end: int
    marked: bool
    prose: bool


def _sentences(page: Page, start: int, end: int) -> Iterator[_Sentence]:
    line = start
    while line < end:
        line_end = page.folded.find("\n", line, end)
        line_end = end if line_end < 0 else line_end
        marked = _MARKED.match(page.folded, line, line_end) is not None
        bullet = _BULLET.match(page.folded, line, line_end)
        begin = bullet.end() if bullet else line
        prose = _has(page.folded, (begin, line_end), PROSE)
        for first, last in _cut_sentences(page.folded, begin, line_end):
            if first < last <= first + _MAX_SENTENCE:
                yield _Sentence(first, last, marked, prose)
        line = line_end + 1


def _cut_sentences(folded: str, start: int, end: int) -> Iterator[Span]:
    for match in SENTENCE_END.finditer(folded, start, end):
        yield _strip(folded, start, match.start())
        start = match.end()
    yield _strip(folded, start, end)


def _strip(folded: str, start: int, end: int) -> Span:
    while start < end and (folded[start].isspace() or folded[start] in ",;"):
        start += 1
    while end > start and (folded[end - 1].isspace() or folded[end - 1] in ",;."):
        if folded[end - 1] == "." and _DOTTED.match(folded, max(start, end - 3), end):
            break
        end -= 1
    return start, end


def _pieces(folded: str, start: int, end: int, words: bool) -> list[Span]:
    """Cut at semicolons and commas, and at "and" if `words`, none of them inside parentheses."""
    pieces, depth, begin = [], 0, start
    for match in _CUT.finditer(folded, start, end):
        mark = match.group()
        if mark in "([":
            depth += 1
        elif mark in ")]":
            depth = max(0, depth - 1)
        elif depth == 0 and (words or mark in ",;"):
            pieces.append(_strip(folded, begin, match.start()))
            begin = match.end()
    pieces.append(_strip(folded, begin, end))
    return [(first, last) for first, last in pieces if first < last]


def _has(folded: str, span: Span, words: frozenset[str]) -> bool:
    return any(word.strip(".,:;()") in words for word in folded[span[0] : span[1]].split())


def _medications(page: Page, section: Section) -> Iterator[Entity]:
    default = Assertion.HISTORICAL if section.name == "past_medications" else Assertion.PRESENT
    for sentence in _sentences(page, *list_body(page, section)):
        pieces = _pieces(page.folded, sentence.start, sentence.end, words=not sentence.marked)
        yield from read_items(page, pieces, default, sentence.marked)


def _introduced_medications(page: Page) -> Iterator[Entity]:
    if "tak" not in page.folded and "medication" not in page.folded and " is on " not in page.folded:
        return
    for match, end in _introductions(_TAKES, page.folded):
        for item in read_items(page, _pieces(page.folded, match.end(), end, words=True), Assertion.PRESENT, False):
            if match.group("strong") or item["dose"]:
                yield item


def _introductions(pattern: re.Pattern[str], folded: str) -> Iterator[tuple[re.Match[str], int]]:
    """Matches and where the list behind each ends: with its sentence. A match inside the sentence of the one before is part of that."""
    reach = 0
    for match in pattern.finditer(folded):
        if match.start() >= reach:
            limit = min(len(folded), match.end() + _MAX_SENTENCE)
            stop = SENTENCE_END.search(folded, match.end(), limit)
            reach = stop.start() if stop else limit
            yield match, reach


def _allergies(page: Page, section: Section) -> Iterator[Entity]:
    start, end = list_body(page, section)
    none = _LIST_NONE.match(page.folded, start, end)
    if none:
        yield _no_allergy(page, none.span("none"))
        return
    for sentence in _sentences(page, start, end):
        if not _ALLERGY_NONE.search(page.folded, sentence.start, sentence.end):
            yield from _substances(page, sentence.start, sentence.end)


def _substances(page: Page, start: int, end: int) -> Iterator[Entity]:
    """One entity per substance; what names a reaction belongs to the substance before it."""
    latest: Entity | None = None
    for first, last in _pieces(page.folded, start, end, words=True):
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
    start, end = _strip(folded, start, cause.start() if cause else end)
    words = folded[start:end].split()
    if not 0 < len(words) <= 5 or not folded[start].isalnum() or _has(folded, (start, end), NO_SUBSTANCE):
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
    for match in _ALLERGY_NONE.finditer(folded):
        yield _no_allergy(page, match.span())
    for match in _ALLERGIC.finditer(folded):
        listed = _strip(folded, *match.span("list"))
        if page.section_at(match.start()) in ("allergies", "family_history"):
            continue
        for entity in _substances(page, *listed):
            if _DENIED.search(folded, max(0, match.start() - 60), match.start()):
                entity["substance"]["assertion"] = Assertion.ABSENT.value
            yield entity


def _problems(page: Page, section: Section) -> Iterator[Entity]:
    assessed = section.name.startswith("assessment")
    for sentence in _sentences(page, *list_body(page, section)):
        start, end = sentence.start, sentence.end
        # In an assessment "Label: prose" explains, and "s/p colectomy" tells what was done.
        explains = assessed and (page.folded.find(": ", start, end) > 0 or page.folded.startswith(("s/p", "status post"), start))
        if explains or sentence.prose or _OPERATIONS.match(page.folded, start, end):
            continue
        whole = sentence.marked or assessed
        for first, last in [(start, end)] if whole else _pieces(page.folded, start, end, words=False):
            problem = _problem(page, first, last, None)
            if problem is not None:
                yield problem


def _problem(page: Page, start: int, end: int, said: Assertion | None) -> Entity | None:
    folded = page.folded
    start = _ARTICLE.match(folded, start, end).end()  # type: ignore[union-attr]
    leading, begin = leading_trigger(folded, start, end)
    trailing, cut = trailing_trigger(folded, begin, end)
    status = _STATUS.search(folded, begin, cut)
    onset = _ONSET.search(folded, begin, end)
    aged = _AGED.search(folded, begin, end)
    first, last = _strip(folded, begin, min(found.start() if found else cut for found in (status, onset, aged)))
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
    if "history" not in folded and "pmh" not in folded and "background" not in folded and "fh" not in folded:
        return
    for match, end in _introductions(_HISTORY_OF, folded):
        if _DENIED.search(folded, max(0, match.start() - 60), match.start()):
            continue
        said = Assertion.FAMILY if match.group("who").startswith("f") else None
        for first, last in _pieces(folded, match.end(), end, words=True):
            if _has(folded, (first, last), PROSE):
                break
            after = _IN_RELATIVE.search(folded, first, last) if said else None
            problem = _problem(page, first, after.start() if after else last, said)
            if problem is not None:
                yield problem


def _family(page: Page, section: Section) -> Iterator[Entity]:
    """Problems of relatives: "asthma in mother", "Mother: asthma", "father had a stroke"."""
    folded = page.folded
    for sentence in _sentences(page, *list_body(page, section)):
        for first, last in _pieces(folded, sentence.start, sentence.end, words=False):
            relative = _RELATIVE_FIRST.match(folded, first, last)
            lead = relative or _FAMILY_LEAD.match(folded, first, last)
            begin = lead.end() if lead else first
            after = _IN_RELATIVE.search(folded, begin, last)
            stop = after.start() if after else last
            denied, _ = leading_trigger(folded, begin, stop)
            guessed = sentence.prose and not (relative or after)
            if denied is Assertion.ABSENT or guessed or _has(folded, (begin, stop), PROSE):
                continue
            problem = _problem(page, begin, stop, Assertion.FAMILY)
            if problem is not None:
                yield problem


def _procedures(page: Page, section: Section) -> Iterator[Entity]:
    """A list of procedures; in a history of problems only what is labelled: "Operations: appendicectomy in 2001"."""
    for sentence in _sentences(page, *list_body(page, section)):
        label = _OPERATIONS.match(page.folded, sentence.start, sentence.end)
        if sentence.prose or not (label or section.name in _PROCEDURES):
            continue
        start, end = label.end() if label else sentence.start, sentence.end
        for first, last in [(start, end)] if sentence.marked else _pieces(page.folded, start, end, words=False):
            procedure = _procedure(page, first, last)
            if procedure is not None:
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
    name = re.compile(r"[ :\u2013-]*(?:s/p |status post )?(?P<name>.*?)[ :(,\u2013-]*(?:\b(?:in|on))?[ (:,]*$", re.DOTALL).match(
        folded, first, last
    )
    begin, stop = name.span("name") if name else (first, last)
    words = folded[begin:stop].split()
    if not 0 < len(words) <= 12 or not folded[begin].isalnum() or words[0].strip(".,") in NO_PROBLEM:
        return None
    normal = date.group() if date and len(date.group()) == 10 and date.group()[4] == "-" else None
    return {
        "name": page.leaf(begin, stop),
        "date": page.leaf(*date.span(), normal=normal) if date else None,
        "codes": [],
        "readers": ["rules"],
    }
