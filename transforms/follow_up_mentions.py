"""Follow-up: who or what is to be seen, tested or done next, and when.

`what` is the service, person, test or visit ("cardiology", "repeat CBC"); where none is named, the words for the visit itself ("return to
clinic"). `when` is the time that the same item gives. Read are what a plan asks for ("will follow up with ... in 2 weeks", "refer to ...",
"schedule ..."), items that end with a time to come ("GP review in 10 days"), and lists under headings for follow-up. What is past, denied
or waits for a condition that stands before it is left out (`transforms.requested`), and so are warnings without a time ("return if
worse"). It knows no grammar. Every look around a word is bounded: linear in the length of the note.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from schemas.record import Assertion
from transforms.care_names import MAX_WORDS, care_name, further_names, is_known, is_self, is_service, is_whole
from transforms.lexicon import PROSE, word_set
from transforms.list_items import has_word, item_sentences, stripped
from transforms.planned_times import PlannedTimes
from transforms.requested import BEFORE, HEADED, TOLD, came_about, is_considered, is_refused, is_requested
from transforms.sections import SENTENCE_END, Page, list_body
from transforms.words import Phrases, word_edge

Span = tuple[int, int]
Entity = dict[str, Any]
# What, and when.
Found = tuple[Span, Span | None]

_VISIT = r"follow[- ]?up|f/u"
_CALL = Phrases(
    r"(?<![\w/-])(?:"
    rf"(?P<visit>(?:{_VISIT})(?:[ ](?:appointments?|appts?|visits?))?)|(?P<seen>be[ ]seen(?:[ ]again)?)"
    r"|(?P<back>(?:return|come[ ]back)(?:[ ]to[ ](?:(?:the|our|my|this)[ ])?(?:clinic|office|practice|ed|er|a&e|hospital"
    r"|emergency[ ](?:department|room)))?|rtc)"
    r"|(?P<refer>refer(?:[ ](?:him|her|them|pt|patient|the[ ]patient|back|on|urgently)){0,3}[ ]to|be[ ]referred(?:[ ]back)?[ ]to"
    r"|referrals?(?:[ ](?:was|were|is|has[ ]been|have[ ]been|will[ ]be))?(?:[ ](?:placed|sent|made|provided|given|requested|ordered))?"
    r"[ ](?:to|for)(?:[ ](?:(?:him|her|the[ ]patient)[ ]to[ ])?see)?)"
    r"|(?P<again>repeat|re-?check)|(?P<see>see|consult)"
    r"|(?P<set>(?:re-?)?schedule|arrange(?:[ ]for)?|book(?:ed)?|(?:is|are)[ ]scheduled[ ](?:for|to[ ](?:have|see|undergo))"
    r"|make(?=[ ](?:an?[ ]|the[ ]|your[ ])?(?:appointment|appt)))"
    r")(?![\w-])",
    "arra are be book come cons f foll is make re rech refe repe resc retu rtc sche see",
)
_ITEM_END = re.compile(rf"{SENTENCE_END.pattern}|;")
_WITH = re.compile(r"[ ](?:(?:again|back|closely|outpatient|as[ ]an[ ]outpatient|up)[ ]){0,2}(?P<how>with|by|in|at|for|on)[ ]|[ ]w/[ ]?")
_FIXED = re.compile(
    r"[ ](?:with[ ](?P<who>[^.,;:\n]{2,40}?)[ ])?(?:is|are|was|has[ ]been|will[ ]be|to[ ]be)[ ](?:already[ ])?"
    r"(?:scheduled|arranged|planned|booked|recommended|advised)(?!\w)"
)
# Who follows up with the patient is no visit.
_PATIENT = re.compile(
    r"(?:him|her(?=[ ]*(?:$|[.,;:\n]|[ ](?:in|on|after|to|via|by|once|when)[ ]))|them|you|the patient|patient|pt(?=[ ]))(?!\w)"
)
_SOMEBODY = re.compile(r"[ ](?:him|her|them|you|pt|patient|the[ ]patient|me|us)(?:[ ](?:back|again))?(?!\w)")
_NO_RETURN = (" to ", " precaution", " of ", " home")
_CONDITIONS = ("if ", "when ", "once ")
# "Please refer to the chart" sends nobody anywhere.
_PAPERS = word_set(
    "chart charts note notes report reports record records result results labs history documentation dictation flowsheet table figure",
    "sheet above below summary list order orders",
)
_TODAY = re.compile(r"[^.;\n]{0,30}?(?<!\w)(?:today|tonight|now|this[ ](?:morning|afternoon|evening))(?!\w)")
_VALUE = re.compile(r"[ ]?[:=]?[ ]?\d")
_FREE_NUMBER = re.compile(r"(?<![\w-])\d")

_PIECE = re.compile(r".*(?:[\n.;:,\u2022|>)](?!\d)|[ ][-\u2013][ ])", re.DOTALL)
_LEAD = re.compile(
    r"[ \t*#\u2022\u2013+-]*(?:\(?\d{1,2}[.)][ \t]+)?(?P<lead>(?:(?:please|arranged?|booked?|scheduled?|order|needs?|for|with|to|then|and"
    rf"|has|have|plan(?:ned)?|next|also|will|get|obtain|recommend(?:ed)?|{_VISIT}|we|go|attend|an?|the|his|her|your)[ :]{{1,2}}){{0,6}})"
)
# An item that opens with one of these is about a drug, a habit, or what has been.
_NO_ITEM = word_set(
    "start begin commence continue stop hold take increase decrease taper titrate resume give given started improved improvement resolved",
    "resolution symptoms pain onset last no not without wean finish complete completed discharge discharged admitted died return call",
    "at on in during of by from under over per when while since before after if expected expect until and rest avoid keep use apply change",
    "switch reduce post status s/p",
)
_BEHIND = 140  # characters behind a call that its item may go on for
_NEAR = 12  # characters between the words for a visit, or "see him back", and its day
_MAX_LISTED = 5  # words of an item without a time


@dataclass(frozen=True, slots=True)
class _Call:
    """A word that calls for something, characters [start, end), and where its item ends at the latest."""

    folded: str = field(repr=False)
    times: PlannedTimes
    kind: str
    start: int
    end: int
    limit: int

    @property
    def span(self) -> Span:
        return self.start, self.end

    @property
    def behind(self) -> int:
        """Where a name may begin: behind a blank or a colon."""
        return self.end + 1 + self.folded.startswith(": ", self.end)

    def when(self, offset: int) -> Span | None:
        return self.times.behind(offset, self.limit)

    def name(self, offset: int) -> Span | None:
        own = offset >= self.limit or is_self(self.folded, offset, self.limit)
        return None if own else care_name(self.folded, offset, self.limit)


def read_follow_up(page: Page) -> list[Entity]:
    """Follow-up, in order of the note; what it says twice is there twice."""
    times = PlannedTimes(page.words)
    found = _in_order(_told(page, times))
    found = _in_order([*found, *_timed(page, times, found)])
    return [_entity(page, *item) for item in _in_order([*found, *_listed(page, found)])]


def _in_order(found: Iterable[Found]) -> list[Found]:
    return sorted(found, key=lambda item: item[0])


def _entity(page: Page, what: Span, when: Span | None) -> Entity:
    said = Assertion.POSSIBLE if is_considered(page.folded, what[0]) else Assertion.PRESENT
    return {"what": page.leaf(*what, said), "when": page.leaf(*when, said) if when else None, "codes": [], "readers": ["rules"]}


def _told(page: Page, times: PlannedTimes) -> Iterator[Found]:
    """What words ask for; of a list, each thing with the time of all."""
    free = 0
    for match, later in pairwise([*_CALL.finditer(page.words), None]):
        assert match is not None
        closed = match.start() < free or page.in_heading(match.start()) or page.section_at(match.start()) in TOLD
        if closed or not is_requested(page, match):
            continue
        call = _Call(page.folded, times, str(match.lastgroup), *match.span(), _limit(page.folded, match.end(), later))
        found = _READERS[call.kind](call)
        if found:
            free = (found[1] or found[0])[1]
            yield found
            # "with her oncologist, Dr. Grey" is one visit.
            others = further_names(page.folded, found[0][1], call.limit, commas=call.kind in ("again", "set"))
            yield from ((other, found[1]) for other in others)


def _limit(folded: str, start: int, later: re.Match[str] | None) -> int:
    """Where the item of a call that ends at `start` ends: with its sentence, before the call behind it, after so many characters."""
    # "Follow-up is scheduled" is one call.
    limit = min(start + _BEHIND, later.start() if later and later.start() > start + 1 else len(folded))
    stop = _ITEM_END.search(folded, start, limit)
    return stop.start() if stop else word_edge(folded, start, limit)


def _visit(call: _Call) -> Found | None:
    """ "Follow up with ... in ...", "F/U GP review in 1 week", "follow-up is scheduled for ..."."""
    fixed = _FIXED.match(call.folded, call.end, call.limit)
    if fixed:
        who = care_name(call.folded, *fixed.span("who")) if fixed["who"] else None
        return who or call.span, call.when(fixed.end())
    joint = _WITH.match(call.folded, call.end, call.limit)
    if joint is None:
        return _next_to(call)
    if _PATIENT.match(call.folded, joint.end(), call.limit):
        return None
    name = call.name(joint.end())
    if name and (is_known(call.folded, name) or (joint["how"] in ("with", None) and call.kind == "visit")):
        return name, call.when(name[1])
    return _by_itself(call)


def _next_to(call: _Call) -> Found | None:
    when = call.when(call.end)
    name = call.name(call.behind) if when is None or when[0] > call.behind else None
    if name is None or not is_known(call.folded, name):
        return _by_itself(call)
    when = call.when(name[1])
    return (name, when) if when or call.folded[name[1] : name[1] + 1] in ("", ".", ",", ";", "\n") else None


def _by_itself(call: _Call) -> Found | None:
    """A visit that is called nothing else needs its time near it."""
    when = call.when(call.end)
    if when is None or when[0] - call.end > BEFORE or call.folded.startswith(" of ", call.end):
        return None
    if _FREE_NUMBER.search(call.folded, call.end, when[0]) or _is_report(call, when):
        return None
    return _met(call, when[1]) or call.span, when


def _is_report(call: _Call, when: Span) -> bool:
    """Whether a day is that of a report: "Follow-up on 3/4/2031: ...", "follow-up received on 3/4/2031"."""
    if not call.folded.startswith("on ", when[0]):
        return False
    return when[0] - call.end > _NEAR or call.folded.startswith(":", when[1]) or not is_whole(call.folded, when[1])


def _met(call: _Call, offset: int) -> Span | None:
    """Whom a visit is with that is told behind its time: "in 2 weeks with cardiology"."""
    joint = _WITH.match(call.folded, offset, call.limit)
    name = call.name(joint.end()) if joint and joint["how"] in ("with", None) else None
    return name if name and is_known(call.folded, name) else None


def _return(call: _Call) -> Found | None:
    """A return to the clinic; without a time of its own it is a warning."""
    when = call.when(call.end)
    if when is None or when[0] - call.end > BEFORE or call.folded.startswith(_CONDITIONS, when[0]):
        return None
    return None if call.folded.startswith(_NO_RETURN, call.end) else (call.span, when)


def _repeated(call: _Call) -> Found | None:
    """ "Repeat CBC in 1 week": the call belongs to the name. What is done today is none."""
    name = call.name(call.end + 1) if call.folded.startswith(" ", call.end) else None
    if name is None or _FREE_NUMBER.search(call.folded, *name) or _TODAY.match(call.folded, name[1]):
        return None
    when = call.when(name[1])
    if when is None and (_VALUE.match(call.folded, name[1]) or not is_known(call.folded, name)):
        return None
    return (call.start, name[1]), when


def _see(call: _Call) -> Found | None:
    """ "See PCP", "see him back in 3 months"."""
    somebody = _SOMEBODY.match(call.folded, call.end, call.limit)
    if somebody:
        when = call.when(somebody.end())
        return ((call.start, somebody.end()), when) if when and when[0] - somebody.end() <= _NEAR else None
    found = _named(call)
    return found if found and is_service(call.folded, found[0]) else None


def _referred(call: _Call) -> Found | None:
    found = _named(call)
    if found is None or (call.folded.find(" for", call.start, call.end) >= 0 and not is_known(call.folded, found[0])):
        return None
    return None if has_word(call.folded, found[0], _PAPERS) else found


def _set(call: _Call) -> Found | None:
    found = _named(call)
    return found if found and is_known(call.folded, found[0]) else None


def _named(call: _Call) -> Found | None:
    name = call.name(call.behind)
    return None if name is None or _TODAY.match(call.folded, name[1]) else (name, call.when(name[1]))


_READERS: dict[str, Callable[[_Call], Found | None]] = {
    "visit": _visit, "seen": _visit, "back": _return, "refer": _referred, "again": _repeated, "see": _see, "set": _set,
}  # fmt: skip


class _Taken:
    """The stretches of a note that items take up, in order; none overlaps another."""

    def __init__(self, found: Sequence[Found]) -> None:
        self._starts = [what[0] for what, _ in found]
        self._ends = [max(what[1], when[1] if when else 0) for what, when in found]

    def touches(self, start: int, end: int) -> bool:
        """Whether one reaches into [start, end)."""
        index = bisect_left(self._starts, end)
        return index > 0 and self._ends[index - 1] > start


def _timed(page: Page, times: PlannedTimes, found: Sequence[Found]) -> Iterator[Found]:
    """Items that end with a time: "GP review in 10 days"."""
    taken = _Taken(found)
    for match in times.matches:
        if match.lastgroup != "open" and not taken.touches(*match.span()):
            section = page.section_at(match.start())
            what = None if section in TOLD else _before(page.folded, match, section in HEADED)
            if what and not taken.touches(*what):
                yield what, match.span()


def _before(folded: str, time: re.Match[str], headed: bool) -> Span | None:
    """What an item names before its time. A day needs a heading: what was done has one too."""
    low = max(0, time.start() - BEFORE)
    piece = _PIECE.match(folded, low, time.start())
    if (piece is None and low) or not is_whole(folded, time.end()):
        return None
    lead = _LEAD.match(folded, piece.end() if piece else low, time.start())
    first, last = stripped(folded, lead.end() if lead else low, time.start())
    asked = headed or bool(lead and lead["lead"])
    dated = time.lastgroup == "date" and not headed
    return (first, last) if not dated and _is_item(folded, (first, last), asked) else None


def _is_item(folded: str, span: Span, asked: bool) -> bool:
    words = folded[slice(*span)].split()
    if not 0 < len(words) <= MAX_WORDS or not folded[span[0]].isalpha() or words[0].strip(".,") in _NO_ITEM:
        return False
    if has_word(folded, span, PROSE) or _FREE_NUMBER.search(folded, *span) or is_refused(folded, span[0]):
        return False
    return is_known(folded, span) and (asked or not came_about(folded, span[0]))


def _listed(page: Page, found: Sequence[Found]) -> Iterator[Found]:
    """Items without a time under a heading for follow-up: "- Cardiology"."""
    taken = _Taken(found)
    for section in (*page.sections, *page.inline):
        if section.name in HEADED:
            for sentence in item_sentences(page, *list_body(page, section)):
                span = sentence.start, sentence.end
                free = not sentence.prose and not taken.touches(*span) and not _CALL.search(page.words, *span)
                named = sentence.marked or is_service(page.folded, span)
                if free and named and len(page.folded[slice(*span)].split()) <= _MAX_LISTED and _is_item(page.folded, span, asked=True):
                    yield span, None
