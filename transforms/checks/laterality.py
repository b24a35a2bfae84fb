"""Sides of the body that the summary confuses."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from transforms.checks.case import Case, Flag
from transforms.checks.wording import FUNCTION_WORDS, Wording, stem
from transforms.lexicon import word_set

_SIDE = re.compile(
    r"(?P<side>left|right|bilateral|both)(?:[ -]sided?\b)?(?:[ ,]{1,2}|-)(?=[a-z])(?P<words>[a-z]{3,20}(?:[ -][a-z]{3,20}){0,3})"
)
# "L knee" in a note; a small letter is no side.
_LETTER = re.compile(r"(?P<side>[LR])(?<![\w.'/].)[ ](?P<words>[a-z]{3,20}(?:[ -][a-z]{3,20}){0,3})")
_ONE, _OTHER = frozenset(("left",)), frozenset(("right",))
_SIDES = {"left": _ONE, "L": _ONE, "right": _OTHER, "R": _OTHER, "bilateral": _ONE | _OTHER, "both": _ONE | _OTHER}
# They say which part of a body part is meant, or what is done to it; the part itself comes behind them.
_MODIFIERS = word_set(
    "upper lower anterior posterior distal proximal medial lateral inner outer superior inferior middle mid main common deep superficial",
    "internal external great small large dorsal ventral handed hand sided side central peripheral severe mild acute chronic total partial",
)
# What may follow "left" and "right" where they are no sides.
_NO_PART = word_set(
    "now away here before untreated alone open blank bundle hospital home school work care service because sided side hand handed hemi",
)
# "LV", "RLE" and the like in a note: letters behind the side -> parts.
_ABBREVIATED = {
    "v": "ventricle", "vef": "ventricle", "vh": "ventricle", "a": "atrium", "ca": "coronary", "le": "lower extremity",
    "ue": "upper extremity", "ll": "lower lobe", "ul": "upper lobe", "lq": "lower quadrant", "uq": "upper quadrant",
    "ad": "coronary", "cx": "coronary",
}  # fmt: skip
_ABBREVIATION = re.compile(rf"(?P<side>[LR])(?<!\w.)(?P<part>{'|'.join(part.upper() for part in _ABBREVIATED)})\b")
_FORMS = {"ventricular": "ventricle", "atrial": "atrium", "atria": "atrium", "feet": "foot"}
_BOTH = re.compile(r"\b(?:bilateral(?:ly)?|both|each|sides|left and right|right and left)\b")


_WORD = re.compile("[a-z]+")


@dataclass(frozen=True, slots=True)
class _Mention:
    start: int
    end: int
    sides: frozenset[str] = field(repr=False)
    part: str = field(repr=False)


def check_laterality(case: Case) -> Iterator[Flag]:
    """LATERALITY: the summary has a body part on a side, or on both, on which the note never has it, but on the other."""
    if case.is_all_copied:
        return
    stated = [mention for mention in _mentions(case.summary_wording, case.summary_lower, case.summary) if not case.is_copied(mention.start)]
    if not stated:
        return
    known = _by_part(_mentions(case.note_wording, case.note_lower, case.text))
    for mention in stated:
        found = known.get(mention.part, ())
        sides = frozenset(side for other in found for side in other.sides)
        if found and not mention.sides <= sides and not (len(mention.sides) > 1 and _BOTH.search(case.note_lower)):
            yield Flag("LATERALITY", mention.start, mention.end, found[0].start, found[0].end)


def _by_part(mentions: Iterator[_Mention]) -> Mapping[str, list[_Mention]]:
    parts: dict[str, list[_Mention]] = defaultdict(list)
    for mention in mentions:
        parts[mention.part].append(mention)
    return dict(parts)


def _mentions(wording: Wording, lower: str, text: str) -> Iterator[_Mention]:
    """Sides with the body part behind them."""
    for place in sorted(place for side in ("left", "right", "bilateral", "both") for place in wording.places(side)):
        match = _SIDE.match(lower, wording.starts[place])
        if match and lower[match.start() - 1 : match.start()] != "/":
            yield from _mention(match)
    for match in _LETTER.finditer(text):
        yield from _mention(match)
    for match in _ABBREVIATION.finditer(text):
        yield _Mention(*match.span(), _SIDES[match["side"]], _ABBREVIATED[match["part"].lower()])


def _mention(match: re.Match[str]) -> Iterator[_Mention]:
    """A side before a noun; "left the hospital" is none. Modifiers belong to the part: the left lower lobe is not the left upper one."""
    part: list[str] = []
    for word in _WORD.finditer(match.string, *match.span("words")):
        said = word.group()
        if said in FUNCTION_WORDS or said in _NO_PART:
            return
        part.append(_FORMS.get(said, stem(said)))
        if said not in _MODIFIERS:
            yield _Mention(match.start(), word.end(), _SIDES[match["side"]], " ".join(part))
            return
