"""What running text says of what stands in it: denied, possible, past, of the family, or only talked about.

Trigger phrases with a scope, after NegEx (Chapman et al. 2001, doi 10.1006/jbin.2001.1029) and ConText (Harkema et al. 2009,
doi 10.1016/j.jbi.2009.05.002): their categories negated, possible, historical, hypothetical and experiencer. What is denied comes from
`transforms.negation`; the other triggers were compiled for this project. A scope ends with its sentence, at a word that begins a new
statement, or after so many characters; an adjective ("possible", "prior") reaches only its own item. Linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from schemas.record import Assertion
from transforms.negation import find_scopes, is_within
from transforms.words import Phrases, Words, word_edge

Span = tuple[int, int]

_RELATIVES = (
    r"(?:maternal |paternal |half[ -]|great[ -]|his |her |both )?(?:grand)?(?:mother|father|parents?|brothers?|sisters?|siblings?|sons?"
    r"|daughters?|children|aunts?|uncles?|cousins?|mom|dad|nephews?|nieces?|relatives?|family members?|mgm|mgf|pgm|pgf)"
)
# What a relative has, not what a relative says: "mother had noticed" tells of the patient.
_HAS = (
    r"(?:with|had|has|have|having|suffers? from|suffered from|died (?:of|from|at)|(?:is |was |were )?(?:diagnosed|affected) with"
    r"|(?:is |are |was )?(?:alive|living|deceased|dead)|who (?:had|has|died))(?!,? (?:not |also |been |recently )?(?:noted|noticed|seen"
    r"|given|observed|brought|tried|reported|called|felt|found|concern|questions|taken|denie|state|said|been (?:giving|using|trying)))"
)
# A "three-day history" is of what the patient comes with.
_NOT_FOR = "".join(rf"(?<!{unit}[ -])" for unit in "hour day days week weeks month months year years long".split())
# Name of the group -> phrases.
_TRIGGERS = {
    "family": rf"family (?:medical )?(?:history|hx)|fam(?:ily)? ?hx|fhx?|runs in (?:the|his|her) family|{_RELATIVES}(?: {_HAS}|[ ]?:)",
    "hypothetical": r"if|unless|in case of|return for|(?:at |increased |high |higher |low |reduced |the )?risk(?: factors?)? (?:of|for)"
    r"|to prevent|prevention of|prophylaxis (?:for|against)|to (?:screen|monitor|watch|evaluate|assess|check) for|screen(?:ing|ed) for"
    r"|monitor(?:ing)? for|watch(?:ing)?(?: out)? for|signs? (?:and symptoms )?of|(?:as needed|prn) for|avoid(?:ing)?|educated (?:on|about)"
    r"|discussed (?:the )?(?:risks?|possibility)|risks? includ(?:e|ing)|vaccin(?:e|ation|ated) (?:for|against)|indicated for"
    r"|call (?:for|with)",
    "possible": r"suspicion (?:of|for)|suspicious for|concern(?:s|ed|ing)? (?:for|about)|r/o|rule[ -]out|differential(?: diagnos[ie]s)?"
    r"(?: includes?| of|:)|(?:cannot|can't|could not|unable to|not) (?:exclude|rule out)|(?:could|may|might|would) (?:be|represent|have"
    r"|reflect)(?: due to)?|question of|worr(?:y|isome|ied) (?:for|about)|suggest(?:s|ed|ing|ive)?(?: of)?|indeterminate for",
    "supposed": r"possible|possibly|probable|probably|suspected|presumed|presumptive|questionable|(?<!un)(?<!less )likely",
    "historical": rf"{_NOT_FOR}(?:history|hx) (?:(?:significant|notable|remarkable|positive|pertinent) (?:of|for)|of|includ(?:es"
    "|ing))|h/o|s/p"
    "|status[ -]post",
    "former": r"previous(?:ly)?|prior|past|former(?:ly)?|remote|resolved|old",
}
_TRIGGER = Phrases(
    r"(?<![\w-])(?:" + "|".join(f"(?P<{kind}>{phrases})" for kind, phrases in _TRIGGERS.items()) + r")(?![\w-])",
    "as at aunt avoi both brot call can cann chil conc coul cous dad daug diff disc educ fam famh fami fath fh fhx form gran grea"
    " h half her high his hist hx if in incr inde indi like low mate may mgf mgm migh mom moni moth neph niec not old pare past"
    " pate pgf pgm poss pres prev prio prn prob prop ques r redu rela remo reso retu risk rule runs s scre sibl sign sist son sons"
    " stat sugg susp the to unab uncl unle vacc watc worr woul",
)
# Not the history of a disease: headings, relations in time.
_NO_TRIGGER = re.compile(
    r"(?:history|hx) of present|(?:prior|previous|previously|past) (?:to|medical|surgical|psychiatric|history|visit|\d|(?:few |two "
    r"|several )?"
    r"(?:day|week|month|year|hour)s?|day|week|month|year|hour|night|exam|note|stud|imaging|noted|mentioned|described|seen|well|healthy)"
    r"|old (?:male|female|man|woman|boy|girl|lady|gentleman|records?|patient|[mf]\b|who|with|right|left)"
)
_BACK = {
    "ruled": r"(?:is|are|was|were|been|seems?|appears?|felt to be) (?:now |thought |very |highly |less )?(?:unlikely|improbable)"
    "|was negative",
    "doubted": r"(?:is|are|was|were|remains?|be|been)(?: also| still| highly| very| most)? (?:possible|suspected|probable|likely|considered"
    r"|questionable|presumed|in question|a (?:concern|possibility|consideration))|not (?:ruled out|excluded)|cannot be (?:ruled out"
    r"|excluded)",
    "gone": r"(?:has |have |had |now |since |is |was )*(?:resolved|subsided|in remission)|in the (?:remote )?past|(?:months?|years?"
    "|decades?) ago"
    r"|in childhood|as a (?:child|teenager|baby)|in (?:her|his) (?:youth|twenties|thirties|teens)",
    "relative": rf"in (?:his |her |the |a |an |one |two |multiple |both |several )*{_RELATIVES}",
}
_BEHIND = Phrases(
    r"(?<![\w-])(?:" + "|".join(f"(?P<{kind}>{phrases})" for kind, phrases in _BACK.items()) + r")(?![\w-])",
    "appe are as be been cann deca felt had has have in is mont not now rema reso seem sinc subs was were year",
)
_ANSWERED = re.compile(r":[ ]?(?:no\b|none|neg(?:ative)?\b|absent|denie[sd]|not present)")
_KINDS = {
    "family": Assertion.FAMILY, "relative": Assertion.FAMILY, "possible": Assertion.POSSIBLE, "supposed": Assertion.POSSIBLE,
    "doubted": Assertion.POSSIBLE, "historical": Assertion.HISTORICAL, "former": Assertion.HISTORICAL, "gone": Assertion.HISTORICAL,
    "ruled": Assertion.ABSENT,
}  # fmt: skip
_SENTENCE_STOP = re.compile(r"[.!?\n](?!\d)|;")
_STOP = re.compile(
    r"[.;:!?\n](?!\d)|\b(?:but|however|although|though|except|apart from|who|which|whose|while|whereas|presents?|presented|presenting"
    r"|here for"
    r"|comes|came|complain\w*|c/o|reports?|reported|denies|denied|he|she|they|pt|patient|now|today|currently|admitted|brought|on exam"
    r"|underwent|treated|takes|taking|status|seen|since|because|when|after|before|until)\b"
)
_ITEM_STOP = re.compile(r"[.;:!?\n](?!\d)|,|\b(?:and|or|but|with|who|which|that|in|on|for|is|was|were|are|has|had|he|she|presents?)\b")
# Where the scope of a trigger ends: an adjective's with its item, a condition's with its sentence, others' with their list.
_STOPS = {"supposed": _ITEM_STOP, "former": _ITEM_STOP, "hypothetical": _SENTENCE_STOP}
# The last one of a stretch: what stands before it is skipped first.
_CLAUSE_START = re.compile(r".*(?:[.;:!?,\n](?!\d)|\b(?:and|but|while|although|however|with|of|for|had|has|that)\b)", re.DOTALL)
_DENIED = re.compile(r"\b(?:no|not|denies|denied|without|never|negative for)\b(?:(?!\bbut\b|\bwith\b)[^.;:\n]){0,45}$")
# Slips of typing in triggers, mended to the same length.
_MISSPELT = {
    "deneis": "denies", "deines": "denies", "dneies": "denies", "denys": "deny ", "faimly": "family", "famliy": "family",
    "fmaily": "family", "hisotry": "history", "histroy": "history", "hsitory": "history", "histoyr": "history", "wihtout": "without",
    "withuot": "without", "negaitve": "negative", "neagtive": "negative", "possbile": "possible", "resovled": "resolved",
    "mohter": "mother", "fahter": "father",
}  # fmt: skip
_MISSPELT_TRIGGER = Phrases(
    rf"\b(?:{'|'.join(_MISSPELT)})\b", "dein dene deny dnei faht faim faml fmai hiso hist hsit moht neag nega poss reso wiht with"
)
_REACH = 160  # characters that a trigger reaches at most
_BACK_REACH = 60


@dataclass(frozen=True, slots=True)
class Context:
    """Characters [start, end) of a text, in order, by what is said of what stands in them."""

    hypothetical: tuple[Span, ...] = field(repr=False)
    scopes: tuple[tuple[Assertion, tuple[Span, ...]], ...] = field(repr=False)

    def said(self, offset: int) -> Assertion | None:
        """What is said of a finding that begins at `offset`; None where it is only talked about, and where the family does not have it."""
        if is_within(self.hypothetical, offset):
            return None
        return next((said for said, spans in self.scopes if is_within(spans, offset)), Assertion.PRESENT)


def read_context(written: Words, headings: Sequence[int] = ()) -> Context:
    """The scopes of a text in lower case. Of two that overlap, the first of absent, family, possible and historical counts.

    `headings`: where headings end, in characters; what stands behind them answers no question.
    """
    words, ends = _mended(written), frozenset(headings)
    folded = words.folded
    found: dict[Assertion | None, list[Span]] = {said: [] for said in (None, *_ORDER)}
    found[Assertion.ABSENT].extend(find_scopes(folded, words.runs, words.starts).denied)
    for match in _TRIGGER.finditer(words):
        if _NO_TRIGGER.match(folded, match.start()) is None:
            kind = _KINDS.get(str(match.lastgroup))
            # What the family does not have says nothing of anybody.
            nobody = kind is Assertion.FAMILY and is_denied(folded, match.start())
            found[None if nobody else kind].append(_behind(folded, match))
    for match in _BEHIND.finditer(words):
        found[_KINDS[str(match.lastgroup)]].append(_before(folded, match.start()))
    for match in (answer for answer in _ANSWERED.finditer(folded) if answer.start() + 1 not in ends):
        found[Assertion.ABSENT].append(_before(folded, match.start()))
    return Context(tuple(sorted(found[None])), tuple((said, tuple(sorted(found[said]))) for said in _ORDER))


def is_denied(folded: str, offset: int) -> bool:
    """Whether a denial stands earlier in the clause: "no personal or" before "family history"."""
    return _DENIED.search(folded, max(0, offset - _BACK_REACH), offset) is not None


_ORDER = (Assertion.ABSENT, Assertion.FAMILY, Assertion.POSSIBLE, Assertion.HISTORICAL)


def _mended(words: Words) -> Words:
    """The same without slips of typing in triggers; they are rare, and most texts stay as they are."""
    if _MISSPELT_TRIGGER.search(words) is None:
        return words
    return Words(_MISSPELT_TRIGGER.pattern.sub(lambda match: _MISSPELT[match.group()], words.folded))


def _behind(folded: str, trigger: re.Match[str]) -> Span:
    start = trigger.end()
    limit = word_edge(folded, start, start + _REACH)
    stop = _STOPS.get(str(trigger.lastgroup), _STOP).search(folded, start + (folded[start : start + 1] == ":"), limit)
    return start, stop.start() if stop else limit


def _before(folded: str, end: int) -> Span:
    start = max(0, end - _BACK_REACH)
    match = _CLAUSE_START.match(folded, start, end)
    return match.end() if match else start, end
