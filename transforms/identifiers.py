"""Personal identifiers in a text, found by how they are written. It knows only forms: a name without a title is not found.

The kinds follow the identifiers that the HIPAA Privacy Rule lists for Safe Harbor de-identification, 45 CFR 164.514(b)(2)(i): names,
places, dates, ages over 89, telephone numbers, e-mail addresses, and numbers of social security, records, plans and accounts. This is an
alarm for places where there should be none at all. It does not de-identify, and its silence proves nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identifier:
    """Characters [start, end) of the text look like an identifier of this kind (a key of KINDS)."""

    kind: str
    start: int
    end: int


# A capitalised word, as far as a regular expression can say it: `_named` looks at the letters' case.
_WORD = r"[^\W\d_][^\W\d_]{0,29}(?:['\u2019-][^\W\d_]{1,29})?"
_PARTICLES = r"(?:(?:d[aeiu]|la|le|van|von|der|den|el|al|bin|ter|ten)[ -]){0,3}"
_NAME = rf"{_PARTICLES}(?P<name>(?:[^\W\d_]\.[ ]?)?{_WORD})"
_LINK = r"[ _\t]{0,3}(?:number|no\b\.?|num\b\.?|id\b|code)?[ \t]{0,2}(?:is\b|[:#=.-]){0,2}[ \t]{0,3}#?"
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]{0,6}\.?"
_DATE = (
    rf"(?:\d{{1,2}}[/.-]\d{{1,2}}[/.-]\d{{2,4}}|\d{{4}}[/.-]\d{{1,2}}[/.-]\d{{1,2}}"
    rf"|\d{{1,2}}(?:st|nd|rd|th)?[ -]{_MONTH}[ ,-]{{1,2}}\d{{2,4}}|{_MONTH}[ ]\d{{1,2}}(?:st|nd|rd|th)?,?[ ]\d{{4}})"
)
_STREET = (
    r"(?:street|st|avenue|ave|road|rd|drive|dr|lane|ln|boulevard|blvd|court|ct|way|place|pl|terrace|close|crescent|square|trail|circle"
    r"|parkway|highway|mews|grove)"
)
_STRASSE = r"(?:stra(?:\u00df|ss)e|str\.|weg|allee|gasse|platz|ring|ufer|damm)"
_STATE = r"(?:A[AEKLPRZ]|C[AOT]|D[CE]|FL|G[AU]|HI|I[ADLN]|K[SY]|LA|M[ADEINOPST]|N[CDEHJMVY]|O[HKR]|P[AR]|RI|S[CD]|T[NX]|UT|V[AIT]|W[AIVY])"


def _named(match: re.Match[str]) -> bool:
    return all(part[0].isupper() for part in match.groupdict().values())


def _dialled(match: re.Match[str]) -> bool:
    """E.164 (ITU-T, 2010): at most 15 digits; fewer than 8 are no international number."""
    return 8 <= sum(character.isdigit() for character in match[0]) <= 15


def _is_nhs_number(match: re.Match[str]) -> bool:
    """The check digit of the NHS Data Model and Dictionary: 11 less the weighted sum modulo 11."""
    digits = [int(character) for character in match[0] if character.isdigit()]
    check = 11 - sum(digit * weight for digit, weight in zip(digits, range(10, 1, -1), strict=False)) % 11
    return len(digits) == 10 and check % 11 == digits[9]


def _always(match: re.Match[str]) -> bool:
    return True


_Rule = tuple[str, re.Pattern[str], Callable[[re.Match[str]], bool]]


def _rule(kind: str, pattern: str, holds: Callable[[re.Match[str]], bool] = _always, flags: re.RegexFlag = re.IGNORECASE) -> _Rule:
    return kind, re.compile(pattern, flags), holds


_AS_WRITTEN = re.RegexFlag(0)
_GAP = r"[ \t]{0,3}"
_TITLE = r"(?:Mr|Mrs|Ms|Miss|Mx|Dr|Prof|Herr|Frau|Mme)\.?"
_NAME_LABEL = r"(?:(?:patient|pt)(?:'s)?(?:[ _](?:full[ _])?name)?|(?:(?:first|last|full|family|given)[ _])?name|surname|forename)"
_TELEPHONE_LABEL = r"(?:tel|telephone|phone|ph|mobile|cell|fax|pager)(?:[ ]?(?:number|no))?\.?"
_EXTENSION = r"(?:[ ]?(?:x|ext\.?)[ ]?\d{1,6})?"
_EVENT = r"(?:admitted|admission|discharged?|died|deceased|death|seen|visited|visit|operated|surgery|transferred)(?:[ ]date)?(?:[ ]on)?"
_RECORD_LABEL = (
    r"(?:mrn|mr#|medical[ ]record|hospital|chart|patient|account|acct|member|policy|health[ ]plan|insurance|encounter|visit|case"
    r"|licen[cs]e|certificate|accession)"
)
# Every repetition is bounded, so that each pattern is linear in the length of the text.
_RULES: tuple[_Rule, ...] = (
    _rule("name", rf"(?<!\w){_TITLE}[ \t]{{1,3}}{_NAME}", _named, _AS_WRITTEN),
    _rule("name", rf"(?<!\w){_NAME_LABEL}{_GAP}[:=]{_GAP}{_NAME}", _named),
    _rule("name", rf"(?<!\w)(?:[Pp]atient|Pt\.?)[ ]{_NAME}[ ](?P<last>{_WORD})", _named, _AS_WRITTEN),
    _rule("social security number", r"(?<![\w.-])(?!000|666|9)\d{3}([ -])(?!00)\d{2}\1(?!0000)\d{4}(?![\w-])"),
    _rule("social security number", rf"(?<!\w)(?:ssn|social security){_LINK}\d{{9}}(?!\w)"),
    _rule("nhs number", r"(?<![\w.-])\d{3}([ -])\d{3}\1\d{4}(?![\w-])", _is_nhs_number),
    _rule("nhs number", rf"(?<!\w)nhs{_LINK}\d{{10}}(?!\w)"),
    _rule(
        "telephone number",
        rf"(?<![\w.+-])(?:(?:\+|00)?1[ .-]?)?(?:\([2-9]\d{{2}}\)[ ]?|[2-9]\d{{2}}[ .-])[2-9]\d{{2}}[ .-]\d{{4}}{_EXTENSION}(?![\w-])",
    ),
    _rule("telephone number", rf"(?<![\w.+-])\+[1-9][\d ().-]{{6,20}}\d{_EXTENSION}(?!\w)", _dialled),
    _rule("telephone number", r"(?<![\w.+-])(?:\(0\d{2,5}\)[ ]?|0\d{2,5}[ -])\d{3,8}(?:[ -]\d{3,4})?(?![\w-])", _dialled),
    _rule("telephone number", r"(?<![\w.+-])0[1-9]\d{8,9}(?![\w.-])"),
    _rule("telephone number", rf"(?<!\w){_TELEPHONE_LABEL}{_GAP}[:#]?{_GAP}\(?\d[\d ().-]{{5,16}}\d{_EXTENSION}(?!\w)"),
    _rule("e-mail address", r"(?<![\w.+-])[\w.+-]{1,64}@(?:[a-z0-9-]{1,63}\.){1,4}[a-z]{2,24}(?!\w)"),
    _rule("date of birth", rf"(?<!\w)(?:dob|d\.o\.b\.?|date of birth|birth[ ]?date|born(?: on)?){_LINK}{_DATE}(?!\w)"),
    _rule("date", rf"(?<!\w){_EVENT}{_LINK}{_DATE}(?!\w)"),
    _rule("age over 89", r"(?<![\w.])(?:9\d|1[01]\d)[ -]{0,2}(?:years?|yrs?|y)[ /-]{0,2}(?:old|o)(?!\w)"),
    _rule("age over 89", r"(?<!\w)aged?[ :]{1,2}(?:9\d|1[01]\d)(?![\w.])"),
    _rule("record number", rf"(?<!\w){_RECORD_LABEL}{_LINK}(?:[a-z]{{1,4}}-?)?\d[\d-]{{3,18}}\d(?!\w)"),
    _rule("address", rf"(?<![\w.])\d{{1,5}}[a-z]?[ ]{_NAME}(?:[ ]{_WORD})?[ ]{_STREET}(?!\w)", _named),
    _rule("address", r"(?<!\w)P\.?[ ]?O\.?[ ]Box[ ]\d{1,6}(?!\w)"),
    _rule("address", rf"(?<=[A-Za-z]),?[ ]{_STATE},?[ ]\d{{5}}(?:-\d{{4}})?(?![\w.])", flags=_AS_WRITTEN),
    _rule("address", rf"(?<!\w)zip{_LINK}\d{{5}}(?:-\d{{4}})?(?!\w)"),
    _rule("address", r"(?<!\w)[A-Z]{1,2}\d[A-Z\d]?[ ]\d[A-Z]{2}(?!\w)", flags=_AS_WRITTEN),
    _rule("address", rf"(?<!\w)post[ ]?code{_GAP}:?{_GAP}[a-z]{{1,2}}\d[a-z\d]?[ ]?\d[a-z]{{2}}(?!\w)"),
    _rule("address", rf"(?<!\w)(?P<name>[^\W\d_]{{2,30}})-?{_STRASSE}[ ]\d{{1,4}}(?!\w)", _named),
)
# Words in lower case and our hashes: most of what a commit record holds, and no rule finds anything there.
_PLAIN = re.compile(r"[a-z_ .-]*|[0-9a-f]{12}|[0-9a-f]{16}|[0-9a-f]{64}")
KINDS = tuple(dict.fromkeys(kind for kind, _, _ in _RULES))


def find_identifiers(text: str) -> Iterator[Identifier]:
    """What looks like an identifier, by kind and then by place; one place may look like two kinds."""
    if _PLAIN.fullmatch(text):
        return
    for kind, pattern, holds in _RULES:
        for match in pattern.finditer(text):
            if holds(match):
                yield Identifier(kind, match.start(), match.end())
