"""Headings of a clinical note and what stands under them.

A heading opens a line ("ALLERGIES: ...", or alone on its line) or, for well-known names with a colon, stands inside a line
("... pmh: asthma. rx: nil."). The list of names was compiled for this project from common usage; its kinds of sections were
checked against SecTag (Denny et al. 2009, doi 10.1197/jamia.M3037), the classes of MTS-Dialog (Ben Abacha et al. 2023,
doi 10.18653/v1/2023.eacl-main.168) and the CARE headings of case reports (Gagnier et al. 2013, doi 10.1186/1752-1947-7-223).
One pass over the lines and one over the colons: linear in the length of the note.
What it does not know: tables, and headings that nobody else writes inside a line.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.record import Assertion
from transforms.lexicon import word_set
from transforms.words import Words

_NAMES = {
    "allergies": "allergies|allergy|drug allergies|drug allergy|medication allergies|known allergies"
    "|allergies and intolerances|allergies and reactions|allergy list"
    "|allergies/intolerances|allergies and adverse reactions|allergies/adverse reactions|allergy history|allergies to medications|all",
    "medications": "medications|medication|meds|current medications|current medication|current meds|home medications"
    "|home meds|medication list"
    "|outpatient medications|current outpatient medications|discharge medications|medicines"
    "|medicines to take home|medicines on discharge|regular medicines|medications to take home"
    "|medications on admission|medications at admission"
    "|admission medications|medications on discharge|medications at discharge|medications prior to admission|active medications"
    "|prior to admission medications|regular medications|regular medication|prescriptions|prescribed medications|drug history|rx",
    "past_medications": "past medications|previous medications|prior medications|discontinued medications|stopped medications"
    "|medications stopped",
    "problem_list": "problem list|problems|active problems|active problem list|current problems|medical problems|chronic problems"
    "|comorbidities",
    "past_medical_history": "past medical history|pmh|pmhx|past medical hx|medical history|medical hx|past history"
    "|past medical and surgical history|significant past medical history",
    "diagnoses": "diagnoses|diagnosis|dx|final diagnosis|final diagnoses|discharge diagnosis|discharge diagnoses|admission diagnosis"
    "|admission diagnoses|admitting diagnosis|principal diagnosis|primary diagnosis|secondary diagnoses|working diagnosis",
    "assessment": "assessment|impression|a",
    "assessment_and_plan": "assessment and plan|assessment/plan|assessment & plan|a/p|a&p|ap|impression and plan|impression/plan",
    "procedures": "procedures|procedure|procedures performed|procedure performed|operations|operations performed|operation",
    "past_surgical_history": "past surgical history|surgical history|psh|pshx|past surgical hx|surgical hx",
    "vital_signs": "vital signs|vitals|vs|vital signs on admission|admission vitals|observations|obs",
    "family_history": "family history|family hx|family medical history|fh|fhx|famhx",
    "social_history": "social history|social hx|sh|shx|personal and social history|occupational history|substance use history",
    "gynecologic_history": "gynecologic history|gynecological history|gynaecological history|gyn history|gyn hx|obstetric history"
    "|ob history|ob/gyn history|obstetric and gynecologic history",
    "birth_history": "birth history|developmental history|birth and developmental history",
    "psychiatric_history": "psychiatric history|past psychiatric history",
    "history_of_present_illness": "history of present illness|hpi|present illness|history of presenting complaint|hpc|interval history",
    "chief_complaint": "chief complaint|chief complaints|cc|reason for visit|presenting complaint|reason for consultation"
    "|reason for admission",
    "review_of_systems": "review of systems|ros",
    "physical_examination": "physical examination|physical exam|examination|exam|pe|on examination|o/e|physical findings"
    "|examination findings|mental status examination|mental status exam",
    "subjective": "subjective|s",
    "objective": "objective|o",
    "results": "results|labs|laboratory data|laboratory results|lab results|laboratory|laboratories|investigations|imaging|diagnostics"
    "|pertinent results|diagnostic studies|test results|laboratory studies|laboratory findings|imaging studies|imaging findings|radiology"
    "|pathology|microbiology|diagnostic tests",
    "plan": "plan|p|recommendations|treatment plan|plan of care",
    "follow_up": "follow up|follow-up|follow-up and outcomes|follow-up and outcome|outcome and follow-up|followup|disposition"
    "|discharge disposition",
    "hospital_course": "hospital course|brief hospital course|clinical course|emergency department course|ed course"
    "|emergency room course|hospital course by problem",
    "immunizations": "immunizations|immunisations|vaccinations|immunization history|immunization status",
    "patient_information": "patient information|case presentation|case report|case description",
    "clinical_findings": "clinical findings",
    "diagnostic_assessment": "diagnostic assessment",
    "therapeutic_intervention": "therapeutic intervention|therapeutic interventions",
    "timeline": "timeline",
    "discussion": "discussion|conclusion|conclusions|patient perspective|informed consent",
    "instructions": "instructions|discharge instructions|patient instructions",
}
HEADINGS = {phrase: name for name, phrases in _NAMES.items() for phrase in phrases.split("|")}

# Sections that are read as lists: an unknown "Word: text" line inside them is an item, not a heading.
LISTS = word_set(
    "allergies medications past_medications problem_list past_medical_history diagnoses assessment assessment_and_plan procedures",
    "past_surgical_history family_history",
)

# Too short to be a heading without a colon, or too ordinary a word to be one inside a line.
_NEEDS_COLON = word_set("a s o p all ap cc dx fh pe rx sh vs obs exam operation procedure problems drugs")
_LINE_ONLY = word_set(
    "a s o p ap all obs observations problems procedure operation operations results plan examination exam imaging"
    " medication prescriptions",
    "allergy diagnosis disposition instructions laboratory diagnostics timeline discussion conclusion conclusions",
    "radiology pathology microbiology",
)
# These open a line and a value follows; they are measurements, not sections.
_MEASURES = word_set(
    "bp hr rr temp pulse weight height spo2 bmi resp respirations pain temperature heart rate blood pressure o2 sat wt ht age sex gender"
)
_EMPTY_LIST = re.compile(r"\s*(?:nk|no known|none|nil|no )")

_LINE_HEADING = re.compile(
    r"^(?P<mark>[ \t>•*-]{0,6}(?:\d{1,2}[.)][ \t]+)?)[#*_ ]{0,6}(?P<name>[A-Za-z][A-Za-z0-9 &/'’()-]{0,59}?)[ \t*_]{0,4}"
    r"(?P<stop>:[*_]{0,2}|$|[ \t]-(?=[ \t]))",
    re.MULTILINE,
)
_ODD_SPACES = "\u00a0\u2002\u2003\u2007\u2009\u200a\u202f\u3000"
_SPACES = dict.fromkeys(map(ord, _ODD_SPACES), " ")
_SLUG = re.compile(r"[^a-z0-9]+")
_WORD = re.compile(r"[^\s.;,(]+")
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
# A full stop that ends a sentence, not the last one of "q.d." or "p.o.", or the end of the line.
# It opens with what is rare in a text, so that the engine skips fast; what stands before is looked at afterwards.
SENTENCE_END = re.compile(r"\.(?=\s|$)(?<![. ][a-z]\.)(?<!\bmr\.)(?<!\bms\.)(?<!\bmrs\.)(?<!\bdr\.)|\n")


@dataclass(frozen=True, slots=True)
class Section:
    """`name` is canonical (a value of HEADINGS) or the heading's own words in lower snake case.

    Characters: the heading begins at `heading`, what stands under it is [start, end).
    """

    name: str = field(repr=False)
    heading: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Page:
    """A note ready to be read. `headings`: where those of `inline` and of `sections` begin.

    `lined` and `folded` have the note's length, so that one offset serves all three: line ends are "\\n" and blanks
    plain spaces in both, `folded` is lower case. `words` are those of `folded`.
    """

    text: str = field(repr=False)
    lined: str = field(repr=False)
    folded: str = field(repr=False)
    sections: tuple[Section, ...] = field(repr=False)
    inline: tuple[Section, ...] = field(repr=False)
    headings: tuple[Sequence[int], Sequence[int]] = field(repr=False)
    words: Words = field(repr=False)

    def section_at(self, offset: int) -> str | None:
        """Name of the innermost section around a character, None before the first heading."""
        inline, lines = self.headings
        if (index := bisect_right(inline, offset)) and offset < self.inline[index - 1].end:
            return self.inline[index - 1].name
        if (index := bisect_right(lines, offset)) and offset < self.sections[index - 1].end:
            return self.sections[index - 1].name
        return None

    def in_heading(self, offset: int) -> bool:
        """Whether a character belongs to a heading."""
        inline, lines = self.headings
        if (index := bisect_right(inline, offset)) and offset < self.inline[index - 1].start:
            return True
        return (index := bisect_right(lines, offset)) > 0 and offset < self.sections[index - 1].start

    def leaf(self, start: int, end: int, assertion: Assertion = Assertion.PRESENT, normal: str | None = None) -> dict[str, Any]:
        """A LEAF of schemas.record for the characters [start, end)."""
        return {
            "text": self.text[start:end],
            "start": start,
            "end": end,
            "section": self.section_at(start) if self.sections or self.inline else None,
            "assertion": assertion.value,
            "normal": normal,
            "number": None,
            "ucum": None,
        }


def fold(text: str) -> str:
    """Lower case of exactly the same length: U+0130 is the one character whose lower case is longer, so it stays an "i"."""
    return (text if text.isascii() else text.replace("\u0130", "I")).lower()


def read_page(text: str) -> Page:
    """Find the headings of a note."""
    lined = text.replace("\r\n", " \n").replace("\r", "\n") if "\r" in text else text
    lined = lined.translate(_SPACES) if not lined.isascii() and any(space in lined for space in _ODD_SPACES) else lined
    folded = fold(lined)
    sections = tuple(_line_sections(lined, folded))
    inline = tuple(_inline_sections(folded, sections)) if ":" in folded else ()
    headings = [section.heading for section in inline], [section.heading for section in sections]
    return Page(text, lined, folded, sections, inline, headings, Words(folded))


def list_body(page: Page, section: Section) -> tuple[int, int]:
    """The part [start, end) of a section that may hold its list.

    It ends before a heading inside a line; after text on the heading's own line it also ends at the first blank line, because what follows
    such a line is a new paragraph. A list that begins below its heading goes on until the next heading.
    """
    end = section.end
    index = bisect_right(page.headings[0], section.start)
    if index < len(page.inline):
        end = max(section.start, min(end, page.inline[index].heading))
    line_end = page.folded.find("\n", section.start, end)
    if line_end >= 0 and page.folded[section.start : line_end].strip():
        blank = _BLANK_LINE.search(page.folded, line_end, end)
        end = blank.start() if blank else end
    return section.start, end


def _line_sections(lined: str, folded: str) -> Iterator[Section]:
    """Sections whose heading opens a line, in order, each up to the next."""
    open_name, heading, body = "", 0, 0
    for match in _LINE_HEADING.finditer(lined):
        name = _heading_name(lined, folded, match, open_name in LISTS)
        if name is None:
            continue
        if open_name:
            yield Section(open_name, heading, body, match.start())
        open_name, heading, body = name, match.start(), match.end()
    if open_name:
        yield Section(open_name, heading, body, len(lined))


def _heading_name(lined: str, folded: str, match: re.Match[str], in_list: bool) -> str | None:
    """Canonical name of the heading that `match` may be; None where it is none."""
    start, end = match.span("name")
    phrase = folded[start:end]
    phrase = " ".join(phrase.split()) if "  " in phrase else phrase
    known = HEADINGS.get(phrase)
    stop, marked = match.group("stop").strip(), bool(match.group("mark").strip())
    if known:
        plain = not marked and (phrase not in _NEEDS_COLON or (len(phrase) > 3 and lined[start:end].isupper()))
        accepted = stop[:1] == ":" or (stop == "" and plain) or (stop == "-" and lined[start:end].isupper())
        return known if accepted else None
    if marked or stop == "-" or len(phrase) < 4 or phrase.split()[0] in _MEASURES or phrase.count(" ") > 5:
        return None
    if not _opens_section(lined, match, start, end, stop, in_list):
        return None
    return _SLUG.sub("_", phrase).strip("_")[:40] or None


def _opens_section(lined: str, match: re.Match[str], start: int, end: int, stop: str, in_list: bool) -> bool:
    """Whether an unknown name at the start of a line is set like a heading."""
    upper = lined[start:end].isupper()
    line_end = lined.find("\n", match.end())
    alone = not lined[match.end() : line_end if line_end >= 0 else len(lined)].strip()
    paragraph = not lined[lined.rfind("\n", 0, max(0, match.start() - 1)) + 1 : match.start()].strip()
    if not stop:
        return upper and paragraph
    if alone:
        return upper or paragraph
    return (upper and not in_list) or (paragraph and (upper or in_list))


def _inline_sections(folded: str, sections: tuple[Section, ...]) -> Iterator[Section]:
    """Well-known headings inside a line: each reaches to the end of its sentence, of its line, or to the next heading."""
    taken = {section.start for section in sections}
    found: list[tuple[str, int, int]] = []
    for colon in _colons(folded):
        if colon + 1 not in taken and (hit := _inline_heading(folded, colon, bool(found))):
            found.append(hit)
    for index, (name, heading, body) in enumerate(found):
        limit = found[index + 1][1] if index + 1 < len(found) else len(folded)
        stop = SENTENCE_END.search(folded, body, limit)
        yield Section(name, heading, body, stop.start() if stop else limit)


def _colons(folded: str) -> Iterator[int]:
    """Colons that may close a heading: a letter or a space stands before them, and so no time of day."""
    colon = folded.find(":")
    while colon >= 0:
        if colon and (folded[colon - 1].isalpha() or folded[colon - 1] == " "):
            yield colon
        colon = folded.find(":", colon + 1)


def _inline_heading(folded: str, colon: int, terse: bool) -> tuple[str, int, int] | None:
    """(name, heading start, body start) of the longest known heading that ends at the colon.

    "all:" is an ordinary word; it counts before an empty list and in a `terse` note, which has set headings inside its lines before.
    """
    window = max(0, colon - 40)
    line = folded.rfind("\n", window, colon) + 1
    begin = max(window, line)
    words = [match.start() for match in _WORD.finditer(folded, begin, colon)]
    if words and words[0] == window and window and folded[window - 1].isalnum():
        words.pop(0)
    for start in words[-5:]:
        phrase = folded[start:colon].rstrip()
        name = HEADINGS.get(phrase)
        if name and (phrase not in _LINE_ONLY or (phrase == "all" and (terse or _EMPTY_LIST.match(folded, colon + 1)))):
            return name, start, colon + 1
    return None
