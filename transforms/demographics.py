"""Age and sex of the patient, as the note words them.

The first mention that is set like a description of the patient counts ("83-year-old", "41YOM", "6-month-old girl", "age: 45"); ages of
relatives, of onset and of things ("3-day-old wound") are passed over. Every quantifier is bounded, so the cost is linear.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from transforms.sections import Page
from transforms.words import Phrases

_ONES = [
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
]
_ONES += ["sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = {"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90}
_NUMBERS = {word: i + 1 for i, word in enumerate(_ONES)} | _TENS

_UNIT = {"y": "Y", "m": "M", "w": "W", "d": "D", "h": "H"}
# Oldest plausible age by unit: the oldest documented person reached 122 years; in smaller units people say so for small children only.
_LIMIT = {"Y": 122, "M": 48, "W": 104, "D": 120, "H": 96}

_FEMALE = r"female|woman|girl|lady"
_MALE = r"male|man|boy|gentleman"
_PERSON = rf"(?:{_FEMALE}|{_MALE}|infant|baby|babies|child|toddler|neonate|newborn|patient|pt|adolescent|teenager|preterm|term)\b"
_PERSON_NEAR = re.compile(rf"[^.;\n]{{0,40}}?\b{_PERSON}")
# "6 mo female": the abbreviation alone ("follow-up in 6 mo") is a duration.
_PERSON_NEXT = re.compile(rf"[ ,]{{0,2}}(?:old[ ])?{_PERSON}")
_RELATIVE = re.compile(
    r"\b(?:mother|father|mom|dad|sister|brother|wife|husband|spouse|aunt|uncle|cousin|sibling|grandmother|grandfather|daughter|son|partner"
    r"|roommate|friend|donor)(?:'s)?\b"
)
_TELLS_OF = re.compile(r"\b(?:of|that|concerning|regarding)[ ](?:[a-z'-]{1,7}[ ]){0,2}$")

# "45-year-old", "45 year old", "45 y/o", "45 yo", "45YOM", "7 MOF", "45 yr old"
_DIGITS = re.compile(
    r"(?P<age>\d{1,3})(?P<half>\.5|½)?[ \t\n-]{0,2}"
    r"(?:(?P<unit>y)(?:ea)?r?s?\.?[ \n-]{0,2}(?:o(?:ld)?\b|/o\b|o\.)|(?P<short>[ymwd])[./]?[ ]?o\.?(?P<sex>[mf])?(?![^\W\d_])"
    r"|(?P<small>m|w|d|h)(?:onth|o|eek|k|ay|our|r)s?\.?[ \n-]{1,2}old\b)"
)
_WORDS = Phrases(
    rf"\b(?P<age>(?:{'|'.join(_TENS)})(?:[ -](?:{'|'.join(_ONES[:9])}))?|{'|'.join(reversed(_ONES))})[ -]{{1,2}}"
    r"(?P<unit>year|month|week|day|hour)s?[ -]{1,2}old\b",
    "eigh elev fift five fort four nine one seve six sixt ten thir thre twel twen two",
)
# "age: 45", "Age 45", "aged 45", "45 years of age"
_LABEL = re.compile(r"\b(?:age(?:/sex)?[ \t]{0,3}[:=][ \t]{0,3}|aged[ ])(?P<age>\d{1,3})(?P<unit>[ ]?(?:y|m|w|d)[a-z]{0,5})?\b(?![./]\d)")
_OF_AGE = re.compile(r"(?P<age>\d{1,3})[ ](?P<unit>year|month|week|day)s?[ ]of[ ]age\b")
# "82M", "33 F", "45/M", "28YM": without a unit only where a patient is introduced, because "98 F" is a temperature.
_LETTER = re.compile(
    r"(?P<age>\d{1,3})(?P<unit>[ ]?[yY](?:[rR][sS]?)?)?(?:[ ]?/[ ]?|[ ]?)(?P<sex>[MF]|(?<=\d)W(?! ?(?:\d|gest|preg)))(?![\w'\u2019°/.])"
)
_LETTER_REACH = 16  # more characters than a match has, and what it looks at behind it
_INTRODUCES = re.compile(r"(?:^|[\n.;*])[ \t]{0,4}$|\b(?:is a|is an|pt|patient|this|age/sex|hpi|s|a)[ :,]{1,2}$")
_WORD_SEX = re.compile(rf"(?P<age>\d{{1,3}})(?P<unit>[ -]?(?:years?|yrs?|y)\b\.?)?[ ](?P<sex>{_FEMALE}|{_MALE})\b")

_SEX_LABEL = re.compile(
    r"\b(?:sex|gender)[ \t]{0,3}[:=][ \t]{0,3}(?P<sex>female|male|f|m|woman|man)\b"
    r"|\bage/sex[ :]{1,3}\d{1,3}[a-z]?[ ]?/[ ]?(?P<slash>[mf])\b"
)
_SEX_NEAR = re.compile(rf"[^.;\n]{{0,60}}?\b(?P<sex>{_FEMALE}|{_MALE})\b")
_SEX_LETTER = re.compile(r"(?:[ ]old)?[ ,]{0,2}/?[ ]?(?P<sex>[MF]|(?<=\d)W)\b(?!['\u2019/.])")
_SEX_ALONE = Phrases(
    rf"\b(?:(?:a|an|the|this|pt|patient)[ ](?:(?:is|a|an|[a-z]{{3,12}})[ ]){{0,2}}(?P<sex>{_FEMALE}|{_MALE})\b"
    rf"|(?P<first>female|male)[ ](?:patient|pt|infant|child|neonate|newborn|baby)\b)"
    r"(?![ ]{1,2}(?:physician|nurse|doctor|pharmacist|donor|partner|friend|colleague|relative|reporter|sex|genital"
    r"|urethra|pattern|catheter|breast|who called))",
    "a an fema male pati pt the this",
)
_AGE_GROUP = Phrases(
    r"\b(?P<age>elderly|middle[- ]aged)(?=[ ](?:[a-z]{3,12}[ ])?(?:patient|man|woman|male|female|lady|gentleman|person)\b)"
    r"|\b(?:in an?|this|of an?|case of an?|previously healthy|the)[ ](?:[a-z-]{3,14}[ ]){0,2}"
    r"(?P<young>infant|neonate|newborn|toddler|child|adolescent|teenager)\b(?![ ](?:care|protection|health|abuse|restraint|seat))",
    "case elde in midd of prev the this",
)
_PRONOUN = Phrases(r"\b(?:he|she)\b", "he she")
_TITLE = re.compile(r"\b(?P<sex>Mr|Mrs|Ms|Miss)\b\.?(?=[ ][A-Z*])")
_TITLE_SEX = {"Mr": "male", "Mrs": "female", "Ms": "female", "Miss": "female"}


def read_demographics(page: Page) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """(age leaf, sex leaf). `normal` of an age is an ISO 8601 duration (P83Y, P6M, P2W, P3D, PT12H), of a sex `male` or `female`."""
    found = _age(page)
    age = None if found is None else page.leaf(found[0], found[1], normal=found[2])
    span = _sex(page, found)
    return age, None if span is None else page.leaf(*span, normal=_sex_normal(page, *span))


def read_age_group(page: Page) -> dict[str, Any] | None:
    """An age leaf of a patient whose age is told in words only ("an elderly man", "the infant"); it has no normal form."""
    match = next((hit for hit in _AGE_GROUP.finditer(page.words) if not _of_relative(page.folded, hit.start(), hit.end())), None)
    return None if match is None else page.leaf(*match.span(match.lastgroup or 0))


def read_sex_of_pronouns(page: Page) -> dict[str, Any] | None:
    """A sex leaf of a patient who is only called "he" or "she": the first of these, if all are alike and no relative is named."""
    pronouns = list(_PRONOUN.finditer(page.words))
    if len({match.group() for match in pronouns}) != 1 or _RELATIVE.search(page.folded):
        return None
    return page.leaf(*pronouns[0].span(), normal="female" if pronouns[0].group() == "she" else "male")


def _sex_normal(page: Page, start: int, end: int) -> str:
    word = page.lined[start:end]
    if word in _TITLE_SEX:
        return _TITLE_SEX[word]
    return "female" if word.lower() in ("f", "w", "female", "woman", "girl", "lady") else "male"


def _age(page: Page) -> tuple[int, int, str] | None:
    """(start, end, normal) of the first mention of the patient's age; rarer wordings are looked for where the usual ones are absent."""
    worded = next((hit for match in _DIGITS.finditer(page.folded) if (hit := _worded(page, match))), None)
    # Of two mentions the first counts: behind a worded one nothing has to be looked for.
    limit = worded[0] + _LETTER_REACH if worded else len(page.lined)
    lettered = next((hit for match in _LETTER.finditer(page.lined, 0, limit) if (hit := _lettered(page, match))), None)
    usual = [hit for hit in (worded, lettered) if hit]
    return min(usual) if usual else min(_rare_ages(page), default=None)


def _rare_ages(page: Page) -> Iterator[tuple[int, int, str]]:
    folded = page.folded
    if "old" in folded:
        yield from (hit for match in _WORDS.finditer(page.words) if (hit := _worded(page, match)))
    if "age" in folded:
        yield from (hit for match in _LABEL.finditer(folded) if (hit := _worded(page, match)))
        yield from (hit for match in _OF_AGE.finditer(folded) if (hit := _of_age(page, match)))
    if "male" in folded or "man" in folded:
        yield from (hit for match in _WORD_SEX.finditer(folded) if (hit := _lettered(page, match)))


def _worded(page: Page, match: re.Match[str]) -> tuple[int, int, str] | None:
    groups = match.groupdict()
    number, start = groups["age"], match.start("age")
    unit = _UNIT[(groups.get("unit") or groups.get("short") or groups.get("small") or "y").strip()[0]]
    value = int(number) if number[0].isdigit() else sum(_NUMBERS[word] for word in number.replace("-", " ").split())
    if _is_part(page.folded, start) or value > _LIMIT[unit] or _of_relative(page.folded, start, match.end()):
        return None
    person = _PERSON_NEXT if groups.get("short") else _PERSON_NEAR
    if unit != "Y" and not groups.get("sex") and not person.match(page.folded, match.end()):
        return None
    end = match.start("sex") if groups.get("sex") else match.end()
    return start, end, _duration(value, unit, bool(groups.get("half")))


def _of_age(page: Page, match: re.Match[str]) -> tuple[int, int, str] | None:
    """ "45 years of age", but not "at 45 years of age", which tells when something happened."""
    if page.folded.endswith(("at ", "until ", "since ", "before ", "after ", "than ", "by "), 0, match.start()):
        return None
    return _worded(page, match)


def _lettered(page: Page, match: re.Match[str]) -> tuple[int, int, str] | None:
    """An age that only the sex beside it shows to be one."""
    start, end = match.span("age")
    value = int(match.group("age"))
    introduced = _INTRODUCES.search(page.folded, max(0, start - 12), start)
    if not (introduced or match.group("unit")) or value > _LIMIT["Y"] or _is_part(page.folded, start):
        return None
    return start, match.end("unit") if match.group("unit") else end, _duration(value, "Y", False)


def _is_part(folded: str, start: int) -> bool:
    """Whether the digits at `start` continue a longer number or a word."""
    return start > 0 and (folded[start - 1].isalnum() or (folded[start - 1] in "./-" and start > 1 and folded[start - 2].isdigit()))


def _of_relative(folded: str, start: int, end: int) -> bool:
    """Whether the clause before the age speaks of somebody else ("his brother, a 30-year-old", but not "the mother of a 3-year-old")."""
    clause = max(max(folded.rfind(mark, max(0, start - 40), start) for mark in ".;\n") + 1, start - 40, 0)
    return _RELATIVE.search(folded, clause, start) is not None and not _TELLS_OF.search(folded, clause, start)


def _duration(value: int, unit: str, half: bool) -> str:
    if half and unit == "Y":
        return f"P{value}Y6M"
    return f"PT{value}H" if unit == "H" else f"P{value}{unit}"


def _sex(page: Page, age: tuple[int, int, str] | None) -> tuple[int, int] | None:
    """Characters of the word or letter that tells the patient's sex: by a label, beside the age, in a description, or by a title."""
    if age is not None:
        letter = _SEX_LETTER.match(page.lined, age[1])
        if letter:
            return letter.span("sex")
        near = _SEX_NEAR.match(page.folded, age[1], age[1] + 90)
        if near:
            return near.span("sex")
    if "sex" in page.folded or "gender" in page.folded:
        label = _SEX_LABEL.search(page.folded)
        if label:
            return label.span("sex" if label.group("sex") else "slash")
    return _described(page) or _titled(page)


def _described(page: Page) -> tuple[int, int] | None:
    if not any(word in page.folded for word in ("male", "man", "girl", "boy", "lady")):
        return None
    for match in _SEX_ALONE.finditer(page.words):
        if not _of_relative(page.folded, match.start(), match.end()):
            return match.span("sex" if match.group("sex") else "first")
    return None


def _titled(page: Page) -> tuple[int, int] | None:
    """The first title, if all titles of the note tell the same sex."""
    if "M" not in page.text:
        return None
    titles = list(_TITLE.finditer(page.lined))
    sexes = {_TITLE_SEX[match.group("sex")] for match in titles}
    return titles[0].span("sex") if len(sexes) == 1 else None
