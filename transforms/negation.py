"""Which characters of a text are denied and which are left open (possible, conditional, asked, of a relative, gone again).

Trigger phrases with a scope, after NegEx (Chapman et al. 2001, doi 10.1006/jbin.2001.1029) and ConText (Harkema et al. 2009,
doi 10.1016/j.jbi.2009.05.002); triggers and the reading of lists were compiled for this project. A scope ends with its sentence, at a word
that begins a new statement, or at the next trigger. Made for comparing two texts: what it is not sure of it calls open.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import compress, count

from transforms.lexicon import word_set

Span = tuple[int, int]

_SEEN = (
    "seen|found|present|detected|detectable|identified|noted|observed|evident|demonstrated|palpable|visible|visuali[sz]ed|apparent"
    "|reported|appreciated|elicited|confirmed|recorded|documented|shown|felt|heard|noticed"
)
# Words between a trigger and what it denies.
_LIGHT = (
    "any|evidence|evident|signs?|symptoms?|complaints?|features?|suggestion|indications?|history|known|obvious|clear|definite|definitive"
    "|apparent|significant|clinical|radiological|radiographic|of|for|a|an|the|have|had|has|having|been|show|shows|reveal|demonstrate"
    "|report|experience|develop|complain|endorse|present|with|detect|find|identify|observe|suggestive|specific|prior|previous|past"
    "|presence|see|feel|hear|appreciate|seem|think|to|particular|associated|personal|real|really|actual|gross|overt|noticeable|visible|detectable"
    "|notice"
)
_DENIALS = {
    # No denial in them.
    "none": r"no (?:doubt|change|changes|increase|decrease|significant changes?)|not only|not just|no\.? ?\d|not until",
    # The thing was there before, or may be there.
    "open": r"no (?:longer|further|new|more|additional|other|residual|recurrent|recurrence of|immediate|relevant|major|serious)"
    r"|without (?:further|new|additional|other|recurrence|residual|significant|complete|major)|not (?:further|yet|always|completely|fully"
    r"|entirely|well|significantly|necessarily|clearly|likely|rule(?:d)? out|be (?:ruled out|excluded)|been ruled out|certain|sure)"
    r"|never again|cannot (?:be )?(?:excluded?|ruled? out)",
    # What stands before it is denied.
    "back": rf"(?:not|never) (?:been )?(?:{_SEEN})\b",
    # A whole list behind it is denied; of some behind "was" what stands before it.
    "list": r"denie[sd]|denying|deny|negative for|absence of|free (?:of|from)|without|lack(?:s|ed|ing)?(?: of)?|neither"
    r"|ruled out|excluded|absent",
    # Only the next item, and more behind "or".
    "item": r"no|nor|never had",
    # Only the next word, unless a light word shows that a finding follows.
    "word": r"not|never|cannot|n['\u2019]t|(?:did|does|do|was|were|is|are|has|have|had|could|would|ca|wo)n['\u2019]?t",
}
_DENIAL = re.compile(
    "(?:" + "|".join(f"(?P<{kind}>{phrases})" for kind, phrases in _DENIALS.items()) + rf")\b(?P<light>(?: (?:{_LIGHT})\b)*)"
)
# Of a word with an apostrophe only what stands before it.
_DENIAL_WORDS = word_set(
    "no not nor never neither without denies denied denying deny negative absence absent free lack lacks lacked lacking ruled excluded",
    "cannot n didn doesn don wasn weren isn aren hasn haven hadn couldn wouldn can won",
)
_OPEN_WORDS = word_set(
    "possible possibly probable probably suspected suspicion suspicious suspect suspects suspecting likely unlikely risk risks rule",
    "exclude if whether unless avoid avoided differential versus vs may might could should would can assess except until before unable",
    "worry worried potential questionable unclear unremarkable normal barely hardly little minimal relief family mother father brother",
    "sister aunt uncle grandmother grandfather parents siblings cousin son daughter resolved resolution resolves free excluding gone",
    "negative negatives sterile failed failure refused attempted",
)
_OPEN_STEMS = word_set("preven prophy screen monito evalua consid disapp subsid reliev improv recove regres hypoth concer ceased resolv")
_TRIGGER_WORDS = _DENIAL_WORDS | _OPEN_WORDS
_OPEN_ONLY = _OPEN_WORDS - _DENIAL_WORDS
_DENIAL_ONLY = _DENIAL_WORDS - _OPEN_WORDS
_STOP = re.compile(
    r"[.;:!?\n](?!\d)|\band (?:an?|the|his|her|no|not)\b|\b(?:but|however|although|though|except|apart from|aside from|other than"
    r"|because|since|due|despite|which|who|whose|that|when|while|then|was|were|is|are|has|had|have|did|does|will|reports?|reported|reveal\w*|show\w*|presents?|presented|complain\w*|he|she"
    r"|they|we|it|his|her|patient|with|after|during|therefore|so|as|until|before|to|he's|she's|underwent|received|positive|only|mild|normal"
    r"|stable|consistent|where|treated|admitted|started|continued?|by|well)\b"
)
_SENTENCE_STOP = re.compile(r"[.;!?\n](?!\d)")
_NEXT_WORD = re.compile(r"\s*[^\W_]+")
_SEPARATOR = re.compile(r"\s*,\s*(?:and |or |nor )?|\s+(?:and/or|and|or|nor)\s+")
# The last one of a stretch: what stands before it is skipped first.
_CLAUSE_START = re.compile(r".*(?:[.;:!?,\n](?!\d)|\b(?:and|but|while|although|however|with|that)\b)", re.DOTALL)
# "[patient] no", or on a line of its own "Patient: Yes". Two patterns that each begin with one character are found sooner than one.
_SAYS = r" {0,2}(?:no|nope|not|none|never|nah|yes|yeah|yep|yup|correct|right|i do|i have|uh|um|mm)\b"
_ANSWERS = (re.compile(rf"\n[a-z_ ]{{1,14}}:{_SAYS}"), re.compile(rf"\[[a-z_]{{1,14}}\]{_SAYS}"))
_STATES = tuple(f"{verb} " for verb in "was were is are been be being".split())
_AFTER_VERB = ("ruled", "excluded", "denied", "absent")
_MAX_ITEM_WORDS = 5
_REACH = 240  # characters that a trigger reaches at most


@dataclass(frozen=True, slots=True)
class Scopes:
    """Characters [start, end), in order. What lies in neither is affirmed.

    `denied`: items, each one finding or one word. `open`: stretches that neither affirm nor deny.
    """

    denied: tuple[Span, ...] = field(repr=False)
    open: tuple[Span, ...] = field(repr=False)


def find_scopes(folded: str, words: Sequence[str], starts: Sequence[int]) -> Scopes:
    """The scopes of a text in lower case, of which the words and where they start are known. Linear in its length."""
    denied: list[Span] = []
    left_open = list(_questions(folded))
    triggers = list(_triggers(folded, words, starts))
    for index, (start, match) in enumerate(triggers):
        limit = triggers[index + 1][0] if index + 1 < len(triggers) else len(folded)
        kind = _kind(folded, match) if match else "open"
        if kind == "open":
            left_open.append(_sentence(folded, start))
        elif kind == "back":
            denied.append(_clause_before(folded, start))
        elif match and kind != "none":
            for is_denied, span in _behind(folded, match, kind, limit):
                (denied if is_denied else left_open).append(span)
    return Scopes(tuple(sorted(denied)), tuple(sorted(left_open)))


def is_within(spans: Sequence[Span], offset: int) -> bool:
    """Whether a character lies in one of the spans, which are in order; of overlapping ones the last four before it are looked at."""
    index = bisect_left(spans, (offset + 1, 0))
    for _, end in spans[max(0, index - 4) : index]:  # noqa: SIM110 - `any` takes twice as long for so few
        if offset < end:
            return True
    return False


def _triggers(folded: str, words: Sequence[str], starts: Sequence[int]) -> Iterator[tuple[int, re.Match[str] | None]]:
    """(start, match of _DENIAL, or None for a word that leaves open), in order, not overlapping."""
    reach = 0
    for index in compress(count(), map(_is_trigger, words)):
        start, word = starts[index], words[index]
        if word not in _OPEN_ONLY and (match := _DENIAL.match(folded, start)):
            if start >= reach:
                reach = match.end()
                yield start, match
        elif word not in _DENIAL_ONLY:
            yield start, None


@lru_cache(maxsize=1 << 15)
def _is_trigger(word: str) -> bool:
    return word in _TRIGGER_WORDS or word[:6] in _OPEN_STEMS


def _kind(folded: str, match: re.Match[str]) -> str:
    kind = next(kind for kind in _DENIALS if match[kind] is not None)
    behind_verb = match[0].startswith(_AFTER_VERB) and folded.endswith(_STATES, max(0, match.start() - 8), match.start())
    return "back" if behind_verb else kind


def _sentence(folded: str, start: int) -> Span:
    """From the beginning of the clause around `start` to the end of the sentence."""
    stop = _SENTENCE_STOP.search(folded, start, start + _REACH)
    return _clause_before(folded, start)[0], stop.start() if stop else min(len(folded), start + _REACH)


def _clause_before(folded: str, end: int) -> Span:
    start = max(0, end - _REACH // 3)
    match = _CLAUSE_START.match(folded, start, end)
    return match.end() if match else start, end


def _behind(folded: str, trigger: re.Match[str], kind: str, limit: int) -> Iterator[tuple[bool, Span]]:
    """(whether denied, span) of the items that stand behind a trigger."""
    start = trigger.end()
    limit = min(limit, start + _REACH)
    if kind == "word" and not trigger["light"]:
        if folded.endswith(_STATES, max(0, trigger.start() - 6), trigger.start()):
            yield False, _clause_before(folded, trigger.start())
        if word := _NEXT_WORD.match(folded, start, limit):
            yield True, word.span()
        return
    stop = _STOP.search(folded, start, limit)
    items = list(_items(folded, start, stop.start() if stop else limit))
    # Without a conjunction that closes it, a comma may as well begin something else.
    closing = ("or", "nor", "and", "and/or") if kind == "list" else ("or", "nor", "and/or")
    last = max((i for i, (joint, _) in enumerate(items) if joint in closing), default=0)
    for index, (_, span) in enumerate(items):
        if index and folded.count(" ", *span) >= _MAX_ITEM_WORDS:
            return
        yield index <= last, span


def _items(folded: str, start: int, end: int) -> Iterator[tuple[str, Span]]:
    """(what joins it to the one before, span) of the items of a list."""
    joint = ""
    for match in _SEPARATOR.finditer(folded, start, end):
        yield joint, (start, match.start())
        joint, start = match.group().strip(" ,"), match.end()
    yield joint, (start, end)


def _questions(folded: str) -> Iterator[Span]:
    """Sentences that ask, and what a speaker says before another answers yes or no."""
    at = folded.find("?")
    while at >= 0:
        start = max(folded.rfind(mark, max(0, at - _REACH), at) for mark in ".?!\n") + 1
        yield max(start, at - _REACH), at
        at = folded.find("?", at + 1)
    for answer in (answer for pattern in _ANSWERS for answer in pattern.finditer(folded)):
        yield max(0, answer.start() - _REACH // 3), answer.start()
