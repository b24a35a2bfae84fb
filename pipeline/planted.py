"""Wrong summaries made of right ones, one error each, by seed: what a check is measured with. It does not know the checks.

Each kind edits one place so that the summary no longer agrees with its note: the new number, drug, date ... does not stand in the note.
Whether a changed negation or a left-out sentence matters clinically is not judged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from pipeline.planted_words import BODY_PARTS, DIAGNOSES, DRUGS, MONTHS, SEXES
from pipeline.sample_patients import Dice
from transforms.quantities import normal_number, quantities
from transforms.sentences import split_sentences


@dataclass(frozen=True, slots=True)
class Pair:
    """A note and a summary of it."""

    text: str = field(repr=False)
    summary: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Planted:
    """A summary with one error at [start, end), in characters; start == end where the error is something left out."""

    summary: str = field(repr=False)
    start: int
    end: int


Edit = tuple[int, int, str]
Planter = Callable[[Pair, Pair, Dice], Planted | None]

_NUMBER = r"(?<![\w.,/–-])(?P<number>\d+(?:\.\d+)?)(?![\w]|[.,/]\d)"
_DOSE = re.compile(
    _NUMBER.replace(r"(?![\w]|[.,/]\d)", r"(?=[ -]?(?P<unit>mg|mcg|µg|g|ml|units?|iu|meq|mmol)(?!\w))"),
    re.IGNORECASE,
)
_LIST_MARK = r"(?!\d+\.\s+[A-Z])"
_ANY_NUMBER = re.compile(_LIST_MARK + _NUMBER)
_AGE = re.compile(r"\b(?P<number>\d{1,3})(?=[ -]?(?:years?|yrs?|months?|weeks?|days?)[ -]old\b|[ ]?y/?o\b)")
_DATED = re.compile(
    rf"\b(?P<month>{'|'.join(MONTHS)})(?=[ ]\d)|\b(?P<year>(?:19|20)\d\d)\b|\b(?P<slash>\d{{1,2}})(?=/\d{{1,2}}/\d{{2,4}}\b)"
)
_SIDE = re.compile(r"\b(?P<side>left|right)\b(?=[ -](?P<first>[a-z]+)(?:[ -](?P<second>[a-z]+))?)", re.IGNORECASE)
_OTHER_SIDE = {"left": "right", "right": "left"}
_UNITS = {
    "mg": "mcg", "mcg": "mg", "µg": "mg", "g": "mg", "kg": "g", "cm": "mm", "mm": "cm", "hours": "days", "hour": "day", "days": "weeks",
    "day": "week", "weeks": "months", "week": "month", "months": "years", "month": "year", "years": "months", "year": "month",
}  # fmt: skip
_UNIT = re.compile(rf"\b(?P<number>\d+(?:\.\d+)?)[ -]?(?P<unit>{'|'.join(sorted(_UNITS, key=len, reverse=True))})\b(?![/-])")


def _any_of(terms: Sequence[str]) -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(terms, key=len, reverse=True)))})(?!\w)", re.IGNORECASE)


# Words behind a negation that count as its place: NegEx lets a trigger reach over five (Chapman et al. 2001, doi 10.1006/jbin.2001.1029).
SCOPE_WORDS = 5
_SCOPE = re.compile(rf"(?:[ \n]+[^\s.;:]+){{0,{SCOPE_WORDS}}}")

_DRUG, _DIAGNOSIS = _any_of(DRUGS), _any_of(DIAGNOSES)

_DENIALS = (
    (r"\bno (?=(?:evidence|signs?|history|complaints?) of\b)", ""),
    (r"\bnegative (?=for\b)", "positive "),
    (r"\b(?:denies|denied)\b", "reports"),
    (r"\bwithout(?= (?!any\b)[a-z])", "with"),
    (r"\b(?<=was )not (?=[a-z])|\b(?<=were )not (?=[a-z])|\b(?<=did )not (?=[a-z])|\b(?<=is )not (?=[a-z])", ""),
    (r"\bno (?=[a-z]{4,})(?!longer|other|more|history|evidence|sign|complaint)", ""),
)
_CLAIMS = (
    (r"\bpositive (?=for\b)", "negative "),
    (r"\b(?:reports|complains of|reported|complained of|endorses)(?= (?!that)[a-z])", "denies"),
    (r"(?<!no )\b(?=(?:evidence|signs?) of\b)", "no "),
    (r"\b(?:(?<=presented )|(?<=presents )|(?<=patient )|(?<=man )|(?<=male )|(?<=boy )|(?<=girl ))with(?= )", "without"),
    (r"\b(?:(?<=showed )|(?<=revealed )|(?<=demonstrated )|(?<=shows )|(?<=reveals ))(?=[a-z])(?!that\b|no\b)", "no "),
    (r"(?<=\bwas )(?=(?:diagnosed|admitted|treated|found|started|performed|noted)\b)", "not "),
    (r"(?<=\bhas )(?=(?:a history|had|been)\b)|(?<=\bhad )(?=(?:a history|been)\b)", "not "),
)


def _replaced(summary: str, edit: Edit) -> Planted:
    """The edit, made; an empty replacement marks the word behind it, which now says the opposite."""
    start, end, new = edit
    wrong = summary[:start] + new + summary[end:]
    if new.strip():
        return Planted(wrong, start + len(new) - len(new.lstrip()), start + len(new.rstrip()))
    following = re.compile(r"\S+").search(wrong, start)
    return Planted(wrong, *(following.span() if following else (start, start)))


def _one_of(pair: Pair, edits: Iterable[Edit], dice: Dice, real: Callable[[Planted], bool]) -> Planted | None:
    """The first edit, in drawn order, that makes a real error."""
    options = list(edits)
    for edit in dice.some(options, len(options)):
        planted = _replaced(pair.summary, edit)
        if planted.summary != pair.summary and real(planted):
            return planted
    return None


def _has_phrase(text: str, phrase: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text, re.IGNORECASE) is not None


def _numbers(text: str) -> frozenset[str]:
    """Every number that the text may be said to hold, as digits or in words, in normal form."""
    return frozenset(q.number for q in quantities(text)) | {normal_number(digits) for digits in re.findall(r"\d+(?:\.\d+)?", text)}


def _new_number(pair: Pair, edits: Iterable[Edit], dice: Dice) -> Planted | None:
    known = _numbers(pair.text)
    return _one_of(pair, (edit for edit in edits if normal_number(edit[2]) not in known), dice, lambda _: True)


def tenfold_dose(pair: Pair, other: Pair, dice: Dice) -> Planted | None:
    """A dose ten times too high or too low."""
    edits = ((*m.span("number"), _times(m["number"], factor)) for m in _DOSE.finditer(pair.summary) for factor in (10, 0.1))
    return _new_number(pair, edits, dice)


def _times(number: str, factor: float) -> str:
    return f"{float(number) * factor:.4f}".rstrip("0").rstrip(".")


def misplaced_dose(pair: Pair, other: Pair, dice: Dice) -> Planted | None:
    """A dose that the note gives to something else, in the same unit."""
    given = {(match["number"], match["unit"].lower()) for match in _DOSE.finditer(pair.text)}
    edits = [
        (*match.span("number"), number)
        for match in _DOSE.finditer(pair.summary)
        for number, unit in sorted(given)
        if unit == match["unit"].lower() and number != match["number"]
    ]
    return _one_of(pair, edits, dice, lambda planted: _is_new_wording(pair, planted))


def changed_number(pair: Pair, other: Pair, dice: Dice) -> Planted | None:
    """Another number with as many digits."""
    edits = ((*m.span("number"), _redrawn(m["number"], dice)) for m in _ANY_NUMBER.finditer(pair.summary) for _ in range(3))
    return _new_number(pair, edits, dice)


def _redrawn(number: str, dice: Dice) -> str:
    """Digits drawn anew; the first stays no zero, so that the length says nothing."""
    drawn = "".join(str(dice.between(1, 9)) if digit.isdigit() else digit for digit in number)
    return drawn if drawn != number else drawn[:-1] + str(int(drawn[-1]) % 9 + 1)


def changed_age(pair: Pair, other: Pair, dice: Dice) -> Planted | None:
    """The age, by 4 to 30 up or down."""
    edits = ((*m.span("number"), _aged(int(m["number"]), dice)) for m in _AGE.finditer(pair.summary))
    return _new_number(pair, edits, dice)


def _aged(age: int, dice: Dice) -> str:
    step = dice.between(4, 30)
    return str(age - step if age > step and dice.chance(0.5) else age + step)


def swapped_unit(pair: Pair, other: Pair, dice: Dice) -> Planted | None:
    """mg for mcg, weeks for months: a unit that the note does not give this number."""
    known = {(quantity.number, quantity.unit) for quantity in quantities(pair.text)}

    def real(planted: Planted) -> bool:
        said = [q for q in quantities(planted.summary) if q.start < planted.end and planted.start < q.end]
        return bool(said) and all((q.number, q.unit) not in known for q in said)

    edits = ((*m.span("unit"), _UNITS[m["unit"]]) for m in _UNIT.finditer(pair.summary))
    return _one_of(pair, edits, dice, real)


def shifted_date(pair: Pair, other: Pair, dice: Dice) -> Planted | None:
    """Another month or year, which the note does not name."""
    edits = (edit for m in _DATED.finditer(pair.summary) for edit in _dates(m, dice))
    return _one_of(pair, edits, dice, lambda planted: not _date_known(pair.text, planted))


def _dates(match: re.Match[str], dice: Dice) -> Iterator[Edit]:
    span = match.span()
    if match["month"]:
        yield *span, dice.pick(MONTHS)
    elif match["year"]:
        yield *span, str(int(match["year"]) + dice.pick((-5, -3, -2, -1, 1, 2, 3)))
    else:
        yield *span, str(int(match["slash"]) % 12 + 1)


def _date_known(text: str, planted: Planted) -> bool:
    """Whether the note names the month (or its first three letters) or the year; of 5/12/2020 the whole."""
    new = planted.summary[planted.start : planted.end]
    if new[0].isalpha():
        return _has_phrase(text, new) or _has_phrase(text, new[:3])
    return new in text if len(new) == 4 else f"{new}{planted.summary[planted.end :][:3]}" in text


def removed_negation(pair: Pair, other: Pair, dice: Dice) -> Planted | None:
    """What the summary denies, it now claims; the place reaches SCOPE_WORDS words on."""
    return _with_scope(_one_of(pair, _turned(pair.summary, _DENIALS), dice, lambda planted: _is_new_wording(pair, planted)))


def added_negation(pair: Pair, other: Pair, dice: Dice) -> Planted | None:
    """What the summary claims, it now denies; the place reaches SCOPE_WORDS words on."""
    return _with_scope(_one_of(pair, _turned(pair.summary, _CLAIMS), dice, lambda planted: _is_new_wording(pair, planted)))


def _turned(summary: str, rules: Sequence[tuple[str, str]]) -> Iterator[Edit]:
    for pattern, new in rules:
        for match in re.finditer(pattern, summary, re.IGNORECASE):
            yield *match.span(), new


def _with_scope(planted: Planted | None) -> Planted | None:
    """With the place reaching over the words whose meaning turned."""
    scope = _SCOPE.match(planted.summary, planted.end) if planted else None
    return Planted(planted.summary, planted.start, scope.end()) if planted and scope else planted


def _is_new_wording(pair: Pair, planted: Planted) -> bool:
    """Whether the note nowhere has the error with the word before it and the word behind it."""
    before = planted.summary[: planted.start].rsplit(maxsplit=1)[-1:]
    behind = planted.summary[planted.end :].split(maxsplit=1)[:1]
    wording = " ".join((*before, planted.summary[planted.start : planted.end], *behind))
    return wording.lower() not in " ".join(pair.text.lower().split())


def swapped_side(pair: Pair, other: Pair, dice: Dice) -> Planted | None:
    """Left for right before a body part that the note has on the other side only."""
    edits = []
    for match in _SIDE.finditer(pair.summary):
        if {str(match["first"]).lower(), str(match["second"]).lower()} & BODY_PARTS:
            edits.append((*match.span("side"), _cased(match["side"], _OTHER_SIDE[match["side"].lower()])))

    def real(planted: Planted) -> bool:
        following = re.compile(r"[ -][a-z]+", re.IGNORECASE).match(planted.summary, planted.end)
        return following is not None and not _has_phrase(pair.text, planted.summary[planted.start : following.end()])

    return _one_of(pair, edits, dice, real)


def swapped_drug(pair: Pair, other: Pair, dice: Dice) -> Planted | None:
    """Another drug: one of the other note where there is one, else a common one; the note names it nowhere."""
    return _swapped(pair, other, DRUGS, _DRUG, dice)


def swapped_diagnosis(pair: Pair, other: Pair, dice: Dice) -> Planted | None:
    """Another diagnosis: one of the other note where there is one, else a common one; the note names it nowhere."""
    return _swapped(pair, other, DIAGNOSES, _DIAGNOSIS, dice)


def _swapped(pair: Pair, other: Pair, terms: Sequence[str], pattern: re.Pattern[str], dice: Dice) -> Planted | None:
    note = pair.text.lower()
    foreign = sorted({m.lower() for m in pattern.findall(other.text)} - {m.lower() for m in pattern.findall(pair.text)})
    pool = [term for term in foreign or terms if term not in note]
    edits = [(*m.span(), _cased(m.group(), dice.pick(pool))) for m in pattern.finditer(pair.summary) if pool]
    return _one_of(pair, edits, dice, lambda _: True)


def _cased(old: str, new: str) -> str:
    return new[0].upper() + new[1:] if old[0].isupper() else new


def swapped_patient(pair: Pair, other: Pair, dice: Dice) -> Planted | None:
    """The other patient's summary."""
    if not other.summary.strip() or other.summary == pair.summary or other.text == pair.text:
        return None
    return Planted(other.summary, 0, len(other.summary))


def swapped_sex(pair: Pair, other: Pair, dice: Dice) -> Planted | None:
    """Every word that tells the patient's sex tells the other one; the first of them is the place."""
    turned = dict(reversed(SEXES)) | {female: male for male, female in SEXES}
    pattern = re.compile(rf"\b(?:{'|'.join(turned)})\b", re.IGNORECASE)
    first = pattern.search(pair.summary)
    if first is None or re.search(r"\b(?:mother|father|wife|husband|son|daughter|sister|brother)\b", pair.summary, re.IGNORECASE):
        return None  # the words may tell of a relative
    wrong = pattern.sub(lambda match: _cased(match.group(), turned[match.group().lower()]), pair.summary)
    return Planted(wrong, first.start(), first.start() + len(turned[first.group().lower()]))


def repeated_sentence(pair: Pair, other: Pair, dice: Dice) -> Planted | None:
    """A sentence of at least six words comes once more, right behind itself or at the end."""
    spans = [(start, end) for start, end in split_sentences(pair.summary) if len(pair.summary[start:end].split()) >= 6]
    if not spans:
        return None
    start, end = dice.pick(spans)
    sentence = pair.summary[start:end].strip()
    at = end if dice.chance(0.5) else len(pair.summary.rstrip())
    return Planted(f"{pair.summary[:at].rstrip()} {sentence} {pair.summary[at:].lstrip()}".rstrip(), at + 1, at + 1 + len(sentence))


def cut_off(pair: Pair, other: Pair, dice: Dice) -> Planted | None:
    """The summary ends within its last sentence, at the end of a word; the last word is the place."""
    spans = split_sentences(pair.summary)
    ends = [match.span() for match in re.finditer(r"[^\W\d_]{2,}(?=\s)", pair.summary) if spans and match.start() >= spans[-1][0]]
    if len(ends) < 3:
        return None
    start, end = dice.pick(ends[1:-1])
    return Planted(pair.summary[:end], start, end)


def omitted_sentence(pair: Pair, other: Pair, dice: Dice) -> Planted | None:
    """Of three sentences or more, the one that names most numbers, drugs and diagnoses is missing; none of these comes up elsewhere."""
    spans = split_sentences(pair.summary)
    scored = sorted(((_facts(pair.summary[start:end]), start, end) for start, end in spans), reverse=True)
    if len(spans) < 3 or scored[0][0] < 2:
        return None
    _, start, end = scored[0]
    return Planted((pair.summary[:start] + pair.summary[end:].lstrip()).rstrip(), start, start)


def _facts(sentence: str) -> int:
    return len({match.lower() for pattern in (_ANY_NUMBER, _DRUG, _DIAGNOSIS) for match in pattern.findall(sentence)})


PLANTERS: dict[str, Planter] = {
    planter.__name__: planter
    for planter in (
        tenfold_dose, misplaced_dose, changed_number, swapped_unit, shifted_date, changed_age, swapped_sex, swapped_patient, swapped_side,
        added_negation, removed_negation, swapped_drug, swapped_diagnosis, repeated_sentence, cut_off, omitted_sentence,
    )
}  # fmt: skip


def plant(kind: str, pair: Pair, other: Pair, seed: str) -> Planted | None:
    """One error of this kind (of PLANTERS) in the pair's summary; None where there is nothing to make it of. Repeatable by seed."""
    return PLANTERS[kind](pair, other, Dice(f"{seed}:{kind}"))
