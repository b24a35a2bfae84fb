"""Items of a medication list, taken apart: name, dose, route, frequency, duration, reason.

The name is what stands before the first attribute. Attributes are closed sets of phrases with bounded quantifiers; what a pattern does not
know stays in the note. Codes of frequencies are those of HL7 v3 GTSAbbreviation (QD, BID ...) with PRN where the note says as needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from schemas.record import Assertion
from transforms.assertion import leading_trigger, trailing_trigger
from transforms.lexicon import DRUG_TAIL, NO_DRUG, word_set
from transforms.sections import Page
from transforms.words import Phrases

Span = tuple[int, int]

_COUNT = r"(?:\d{1,3}|one|two|three|four|five|six|eight|twelve)"
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d{1,4})?|\d{1,7}(?:\.\d{1,4})?|\.\d{1,4}"
_FORM = (
    r"tablets?|tabs?|capsules?|caps?|pills?|puffs?|drops?|gtts?|sprays?|patch(?:es)?|units?|vials?|ampoules?"
    r"|inhalations?|teaspoons?|tsp|lozenges?"
)
DOSE = re.compile(
    rf"(?<![\w.])(?:(?:{_NUMBER})(?:[ ]?(?:-|\u2013|to|/)[ ]?(?:{_NUMBER}))?[ -]{{0,2}}(?:micrograms?|milligrams?|grams?|mcg|µg"
    r"|μg|ug|mg|gm|g|ng|ml"
    rf"|cc|l|iu|unt|meq|mmol|u|%|{_FORM})"
    r"(?:/\d{0,3}(?:\.\d)?[ ]?(?:ml|actuat|act|hr|h|kg|day|dose|spray|puff|mg|g|l|m2|m\(2\)|m²|d|min)){0,2}(?![^\W_])"
    rf"|(?:one|two|three|half|a|1/2|½)[ ](?:and a half[ ])?(?:a[ ])?(?:{_FORM})\b)"
)
_ROUTES = {
    "oral": r"po|p\.o\.|by mouth|orally|oral|per os",
    "intravenous": r"iv|i\.v\.|ivpb|intravenous(?:ly)?",
    "intrathecal": r"intrathecal(?:ly)?",
    "intravitreal": r"intravitreal(?:ly)?",
    "intraperitoneal": r"intraperitoneal(?:ly)?",
    "intraventricular": r"intraventricular(?:ly)?",
    "intra_arterial": r"intra-?arterial(?:ly)?",
    "intraarticular": r"intra-?articular(?:ly)?",
    "intradermal": r"intradermal(?:ly)?",
    "intravesical": r"intravesical(?:ly)?",
    "intralesional": r"intralesional(?:ly)?",
    "subconjunctival": r"subconjunctival(?:ly)?",
    "epidural": r"epidural(?:ly)?",
    "parenteral": r"parenteral(?:ly)?",
    "intramuscular": r"im|i\.m\.|intramuscular(?:ly)?",
    "subcutaneous": r"sc|s\.c\.|sq|subq|sub-q|subcut|subcutaneous(?:ly)?",
    "topical": r"topical(?:ly)?|applied to (?:the )?skin|to affected areas?",
    "inhaled": r"inhaled|inhalation|inh|by inhalation|via nebulizer|nebulized|via inhaler",
    "nasal": r"nasal(?:ly)?|intranasal(?:ly)?|each nostril|both nostrils|in each nostril",
    "sublingual": r"sublingual(?:ly)?|sl|s\.l\.|under the tongue",
    "rectal": r"rectal(?:ly)?|pr|p\.r\.|per rectum",
    "transdermal": r"transdermal(?:ly)?",
    "ophthalmic": r"ophthalmic|(?:both|each|left|right|affected|operative) eyes?|o\.?u\.?|o\.?d\.?|o\.?s\.?",
    "vaginal": r"(?:intra)?vaginal(?:ly)?|per vagina",
    "enteral": r"per g-tube|via g-tube|via peg|per ng(?: tube)?",
}  # fmt: skip
ROUTE = Phrases(
    r"(?<![\w.])(?:" + "|".join(f"(?P<{name}>(?:{words}))" for name, words in _ROUTES.items()) + r")(?![\w])",
    "affe appl both by each epid i im in inh inha intr iv ivpb left nasa nebu o od oper opht oral os ou p pare per po pr rect righ"
    " s sc sl sq sub subc subl subq to topi tran unde vagi via",
)
_PERIOD = r"(?:hours?|hrs?|h|days?|d|weeks?|wks?|months?|minutes?|mins?|morning|evening|night|afternoon|bedtime|meals?)"
_TIMES = (
    r"(?:once|twice|thrice|one time|two times|three times|four times|five times|six times"
    r"|(?:[1-9]|10|12)(?:[ ]?-[ ]?(?:[1-9]|10|12))?(?:[ ]?x|[ ]times)|x[ ]?[1-6])"
)
_WHEN = (
    r"at bedtime|before bedtime|at night|nightly|in the (?:morning|evening|afternoon|am|pm)|with (?:meals|food|breakfast|dinner|lunch)"
    r"|before (?:meals|bed|breakfast)|after meals"
)
FREQUENCY = re.compile(
    r"(?<![\w.-])(?:"
    rf"{_TIMES}[ ]?(?:/[ ]?|(?:a|per|each|every|in a)[ ])?(?:daily|day|week(?:ly)?|month(?:ly)?|d\b)"
    rf"|every[ ](?:other[ ])?(?:{_COUNT}(?:[ ]?(?:-|to)[ ]?{_COUNT})?[ ])?{_PERIOD}"
    r"|\d{1,2}[ -]?hourly"
    r"|q[ ]?\d{1,2}(?:[ ]?-[ ]?\d{1,2})?[ ]?(?:h(?:ours?|rs?)?|min(?:utes)?|d(?:ays?)?|w(?:eeks?|k)?)"
    r"|b\.?i\.?d\.?|t\.?i\.?d\.?|q\.?i\.?d\.?|q\.?o\.?d\.?|q\.?[ah]\.?[sm]\.?|q\.?p\.?m\.?|q\.?d\.?|q[ ](?:day|daily"
    r"|week|month|am|pm|hs)|qday|q/day|qweek(?:ly)?|q(?=[ ]?\d)"
    rf"|(?:once[ ])?(?:daily|weekly|monthly|nightly)|(?:every|a|per|each)[ ]day|as[ ]directed|{_WHEN}|p\.?r\.?n\.?"
    rf"|as needed|when needed|if needed|as required|stat|hs"
    rf")(?![\w/])(?:[ ,]{{0,2}}(?:{_WHEN}|\(?prn\)?|p\.r\.n\.|as needed|as required|if needed|when needed))?"
)
DURATION = re.compile(
    rf"(?<![\w.])(?:(?:for|x|×)[ ]?(?:the next[ ]|a total of[ ])?{_COUNT}(?:[ ]?(?:-|to)[ ]?{_COUNT})?[ -]?(?:days?"
    rf"|weeks?|wks?|months?|d|w)\b"
    rf"|{_COUNT}[ -](?:day|week|month)[ ](?:course|supply))"
)
_OD = re.compile(r"(?<![\w.])od(?!\w)")
_IN_EYES = re.compile(r"drop|gtt|ml|%")
REASON = re.compile(
    r"(?:[ ](?:therapy|treatment|monotherapy|infusions?|injections?|prophylaxis))?[ ,(]{0,3}(?:for|due to|because of)[ ]"
    r"(?:(?:the|his|her|their|an?|treatment of|management of|prevention of|control of|presumed|suspected|possible)[ ]){0,3}"
    r"(?P<reason>(?:type[ ](?:[12]|ii?)[ ])?[a-z][a-z' /-]{2,60})"
)
# A reason ends before one of these.
_REASON_END = re.compile(
    r"[ ](?:who|whom|which|that|with|without|and|or|but|in|on|at|from|after|before|during|since|while|when|was|were|is|are|has|had"
    r"|developed|presented|as|by|to|because|then|until|over|including|if|may|might|can|could|will|would)\b"
)
_TIME = word_set(
    "one two three four five six seven eight nine ten several many years months weeks days hours long short past last more next"
)

_CODES = (
    ("QID", r"q\.?i\.?d|(?:four times|4[ ]?x|x[ ]?4|4 times)"),
    ("TID", r"t\.?i\.?d|(?:thrice|three times|3[ ]?x|x[ ]?3|3 times)"),
    ("BID", r"b\.?i\.?d|(?:twice|two times|2[ ]?x|x[ ]?2|2 times)"),
    ("QOD", r"every other day|q\.?o\.?d"),
    ("QHS", r"at bedtime|nightly|at night|q\.?h\.?s|hs$|every (?:night|evening)|q hs"),
    ("QAM", r"in the morning|q\.?a\.?m|every morning|q am"),
    (
        "QD",
        r"q\.?d\.?$|q\.?d\.?(?![a-z])|daily|(?:every|a|per|each) day|(?:once|one time|1[ ]?x|1 times) (?:a|per"
        r"|each)? ?(?:day|daily)|qday|q day|od$",
    ),
)
_CODE = tuple((code, re.compile(pattern)) for code, pattern in _CODES)
_HOURS = re.compile(r"(?:every|q)[ ]?(?P<n>\d{1,2})(?![\d-]|[ ]?(?:-|to)[ ]?\d)[ ]?h")
_HOURLY = re.compile(r"(?P<n>\d{1,2})[ -]?hourly")
_NEEDED = re.compile(r"p\.?r\.?n|needed|required")
_OTHER_PERIOD = re.compile(r"week|month")

# Heads of an item that are not the drug's name.
_LEAD = re.compile(
    r"(?:(?:and|also|a|an|prophylactic|on|including|include[sd]?|are|is|patient|pt|he|she|they|the|currently"
    r"|presently|new|takes?|taking|uses?|using|continued?|continue on|starts?|started"
    r"|start on|resume|add|occasional(?:ly)?|utilizes|reports|states|medications?|medicines?|meds|he's|she's|:|-)[ :]{1,2}){1,6}"
)
# What follows a drug without naming one: the item belongs to the one before it.
_INSTRUCTION = re.compile(
    r"(?:take|takes|taken|with|before|after|use|apply|inject|instill|refills?|disp(?:ense)?|qty|quantity|until|then"
    r"|when|may|total|last|if|while|for|due|at|in|per|hold)\b|[#\d(]"
)
_MAX_NAME_WORDS = 5


def read_items(page: Page, pieces: Sequence[Span], default: Assertion, marked: bool) -> Iterator[dict[str, Any]]:
    """Medications of one sentence or line of a list, already cut at commas, semicolons and "and".

    A piece that begins with an attribute or an instruction continues the piece before it; in a `marked` line (bullet or number), which
    lists one drug, only a piece with its own dose does not. Nothing is read from a line whose first piece is prose.
    """
    for index, (start, end) in enumerate(_joined(page.folded, pieces, marked)):
        item = _item(page, start, end, default)
        if item is not None:
            yield item
        elif index == 0:
            return


def _joined(folded: str, pieces: Sequence[Span], marked: bool) -> list[Span]:
    joined: list[Span] = []
    for start, end in pieces:
        attribute = next((p for p in (DOSE, ROUTE.pattern, FREQUENCY, DURATION) if p.match(folded, start, end)), None)
        continues = attribute or _INSTRUCTION.match(folded, start, end) or (marked and not DOSE.search(folded, start, end))
        if joined and continues:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined


def _item(page: Page, start: int, end: int, default: Assertion) -> dict[str, Any] | None:
    folded = page.folded
    lead = _LEAD.match(folded, start, end)
    assertion, begin = leading_trigger(folded, lead.end() if lead else start, end)
    spans = {
        "dose": _first(DOSE, folded, begin, end),
        "route": _behind(ROUTE.search(page.words, begin, end), begin),
        "frequency": _first(FREQUENCY, folded, begin, end),
        "duration": _first(DURATION, folded, begin, end),
    }
    spans |= once_daily(folded, spans, begin, end)
    stop = min((span[0] for span in spans.values() if span), default=end)
    stopped, cut = trailing_trigger(folded, begin, end)
    name = _name(folded, begin, min(stop, cut))
    if name is None or assertion is Assertion.ABSENT:
        return None
    said = assertion or stopped or default
    spans["reason"] = read_reason(folded, max((span[1] for span in spans.values() if span), default=name[1]), min(end, max(cut, name[1])))
    leaves = {key: span and page.leaf(*span, said, normal_form(key, folded, span)) for key, span in spans.items()}
    return {"name": page.leaf(*name, said), **leaves, "codes": [], "readers": ["rules"]}


def once_daily(folded: str, spans: Mapping[str, Span | None], start: int, end: int) -> dict[str, Span | None]:
    """What "OD" changes: behind a dose that is no drop for an eye it is no route but once daily."""
    dose = spans["dose"]
    found = _first(_OD, folded, start, end) if dose else None
    if not dose or not found or _IN_EYES.search(folded, *dose):
        return {}
    return {"frequency": spans["frequency"] or found} | ({"route": None} if spans["route"] == found else {})


def _first(pattern: re.Pattern[str], folded: str, start: int, end: int) -> Span | None:
    return _behind(pattern.search(folded, start, end), start)


def _behind(match: re.Match[str] | None, start: int) -> Span | None:
    return match.span() if match and match.start() > start else None


def _name(folded: str, start: int, end: int) -> Span | None:
    """The drug's name within [start, end), None where the words do not look like one."""
    paren = folded.find(" (", start, end)
    dash = folded.find(" - ", start, end)
    end = min([end, *(cut for cut in (paren, dash) if cut > start)])
    while start < end and not folded[start].isalnum():
        start += 1
    while end > start and folded[end - 1] in " \t,;:.-\u2013\n@=([*":
        end -= 1
    words = folded[start:end].split()
    if len(words) > 1 and words[-1] in DRUG_TAIL:
        end -= len(words.pop()) + 1
        return _name(folded, start, end)
    plausible = 0 < len(words) <= _MAX_NAME_WORDS and end - start >= 3 and folded[start].isalnum() and "\n" not in folded[start:end]
    if not plausible or any(word.strip(".,:") in NO_DRUG for word in words) or not any(char.isalpha() for char in folded[start:end]):
        return None
    return start, end


def read_reason(folded: str, start: int, end: int) -> Span | None:
    match = REASON.match(folded, start, end) if start < end else None
    if match is None:
        return None
    begin, stop = match.span("reason")
    stopped = _REASON_END.search(folded, begin, stop)
    stop = stopped.start() if stopped else stop
    words = folded[begin:stop].split()
    if not 0 < len(words) <= 6 or words[0] in NO_DRUG | _TIME:
        return None
    return begin, begin + len(folded[begin:stop].rstrip(" -/'"))


def normal_form(key: str, folded: str, span: Span) -> str | None:
    said = folded[span[0] : span[1]]
    if key == "route":
        match = ROUTE.pattern.match(folded, *span)
        return match.lastgroup if match else None
    if key == "dose":
        return (
            re.sub(r"(?<=\d)(?=[a-zµμ%])", " ", re.sub(r"(?<=\d),(?=\d{3})", "", said))
            .replace("µg", "mcg")
            .replace("μg", "mcg")
            .replace(" ug", " mcg")
        )
    return _frequency_code(said) if key == "frequency" else None


def _frequency_code(said: str) -> str | None:
    """HL7 code of a frequency, "PRN" appended where it is as needed; None where no code says the same."""
    needed = _NEEDED.search(said) is not None
    hours = _HOURS.search(said) or _HOURLY.search(said)
    if hours:
        code: str | None = f"Q{int(hours.group('n'))}H"
    elif _OTHER_PERIOD.search(said):
        code = None
    else:
        code = next((code for code, pattern in _CODE if pattern.search(said)), None)
    if code is None:
        return "PRN" if needed and len(said) < 12 else None
    return f"{code} PRN" if needed else code
