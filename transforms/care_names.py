"""Names of what care consists of, where a phrase says that one follows: services, people, kinds of visits, tests.

The words were compiled for this project from common clinical usage. It tells how far a name goes and whether it is a known one, not what
is said of it. Every look is bounded by the caller's end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from transforms.lexicon import PROSE, word_set
from transforms.list_items import has_word, stripped

Span = tuple[int, int]

# Who sees the patient.
_SERVICES = word_set(
    "pcp gp ent ob/gyn obgyn pt ot dr doctor physician physicians specialist specialists consultant surgeon surgeons surgery surgical",
    "nurse nurses midwife visitor dentist orthopedic orthopedics orthopaedics nutritionist dietitian dietician counselor counsellor",
    "counseling counselling physio rehab rehabilitation clinic clinics hospice pharmacist optometrist team service therapy therapist",
)
_SERVICE_ENDS = tuple("ology ologist ologists iatry iatrist iatrics iatrician otherapy otherapist physiotherapist".split())
# What kind of visit it is, what is examined or done.
_EVENTS = word_set(
    "review reviews check checks checkup check-up recheck visit visits appointment appointments appt follow-up followup f/u consult",
    "consultation assessment reassessment re-assessment evaluation reevaluation re-evaluation screen screening removal session imaging",
    "x-ray x-rays xray xrays cxr mri ct cta scan scans ultrasound us doppler echo ecg ekg eeg emg holter monitor monitoring lab labs",
    "blood bloods bloodwork culture cultures count counts cbc bmp cmp fbc lft lfts tft tfts tsh inr a1c hba1c panel profile level",
    "levels function result results spirometry biopsy diary urinalysis test tests testing dexa density electrolytes creatinine",
    "potassium hemoglobin haemoglobin lipid lipids suture sutures staples injection injections infusion vaccine vaccination procedure",
    "operation resection repair replacement",
)
_EVENT_ENDS = tuple("scopy scopies graphy graphies gram ectomy metry plasty".split())
_PHRASES = ("family medicine", "follow up")
_MARKS = ".,:;()'\"*"

_SELF = re.compile(r"(?:me|myself|us|our|my|this|here)(?!\w)")
_DETERMINER = re.compile(r"(?:(?:a|an|the|his|her|their|your|my|our|some|any|him|another|all|to|for|with|of|have|get|routine|either)[ ])+")
# "appointment with cardiology" is cardiology's.
_MEETING = re.compile(
    r"(?:(?:[a-z-]{2,12}[ ])?(?:appointments?|appts?|visits?|consult(?:ation)?s?|follow[- ]?up|f/u|referrals?)[ ](?:with|to|by)|consult)[ ]"
    r"(?:(?:a|an|the|his|her|their|your|my|our)[ ])?"
)
# A name does not go on behind one of these, nor before a number.
_END = re.compile(
    r"(?<!\bdr)[.](?=\s|$)|[,;:()\[\n]|[ ](?:[-\u2013]|in|within|on|by|at|for|to|if|as|who|which|that|this|was|were|is|are|has|have|had"
    r"|will|would|should|can|could|once|after|before|when|while|and|or|but|prior|regarding|because|since|until|due|next|tomorrow|today"
    r"|tonight|via|per|every|prn|annually|yearly|about|scheduled|ordered|given|sooner|pending|through|so|continue|we|he|she|they|i|it|the"
    r"|provided|placed|sent|made|requested|done|two|three|four|five|six)(?!\w)|[ ]\d"
)
_NO_NAME = word_set("if whether how what where when why that anymore info information received letter")
_AND = re.compile(r"(?:,[ ]and|,|[ ]and)[ ]")
# Behind the whole of an item.
_CLOSED = re.compile(
    r"(?:['\u2019]?s?[ ]time(?!\w))?[ ]*(?:$|[.,;:()\n]|[-\u2013]|(?:for|with|to|at|in|on|within|if|and|or|unless|by|sooner|then|as|next"
    r"|tomorrow)(?!\w))"
)
MAX_WORDS = 7


def is_service(folded: str, span: Span) -> bool:
    """Whether a word of the name is one of those who see patients."""
    words = _bare_words(folded, span)
    return not _SERVICES.isdisjoint(words) or any(word.endswith(_SERVICE_ENDS) for word in words) or "primary care" in folded[slice(*span)]


def is_known(folded: str, span: Span) -> bool:
    """Whether a word of the name is one of a service, a visit or a test."""
    if is_service(folded, span):
        return True
    words, name = _bare_words(folded, span), folded[slice(*span)]
    return not _EVENTS.isdisjoint(words) or any(word.endswith(_EVENT_ENDS) for word in words) or any(each in name for each in _PHRASES)


def _bare_words(folded: str, span: Span) -> list[str]:
    return [word.strip(_MARKS) for word in folded[slice(*span)].split()]


def is_self(folded: str, offset: int, limit: int) -> bool:
    """Whether the writer's own words for themselves stand there: "me", "our clinic"."""
    return _SELF.match(folded, offset, limit) is not None


def is_whole(folded: str, end: int) -> bool:
    """Whether an item may end there."""
    return _CLOSED.match(folded, end) is not None


def care_name(folded: str, start: int, limit: int) -> Span | None:
    """The name that begins at `start`, without determiners; None where there is none or it is too long for one. `limit`: a word's end."""
    for lead in (_DETERMINER, _MEETING):
        match = lead.match(folded, start, limit)
        start = match.end() if match else start
    stop = _END.search(folded, start, limit)
    first, last = stripped(folded, start, stop.start() if stop else limit)
    if first >= last or not folded[first].isalpha() or len(folded[first:last].split()) > MAX_WORDS:
        return None
    return None if has_word(folded, (first, last), PROSE | _NO_NAME) or _SELF.fullmatch(folded, first, last) else (first, last)


def further_names(folded: str, end: int, limit: int, commas: bool) -> Iterator[Span]:
    """The known names that a list goes on with behind its first one: "an MRI, an EEG and neurology review". `commas`: they count too."""
    while joint := _AND.match(folded, end, limit):
        name = care_name(folded, joint.end(), limit) if commas or "and" in joint.group() else None
        if name is None or not is_known(folded, name) or not is_whole(folded, name[1]):
            return
        yield name
        end = name[1]
