"""Signs that a summary is about another patient than its note."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from transforms.checks.case import Case, Flag, Span
from transforms.checks.wording import Wording
from transforms.demographics import read_demographics

_PRONOUNS = {"female": ("she", "her", "hers", "herself"), "male": ("he", "his", "him", "himself")}
_TITLE = re.compile(r"\b(?:Mr|Mrs|Ms|Miss)\b\.? (?P<name>[A-Z][a-z'\u2019-]+)")
_TITLE_IN_NOTE = re.compile(r"\b(?:mr|mrs|ms|miss)\b\.? [a-z][a-z'\u2019-]+")
# So many pronouns of one sex, and this share of all, tell a patient's sex where no description does; others are of relatives.
_MIN_PRONOUNS = 4
_SHARE = 0.9


def check_patient(case: Case) -> Iterator[Flag]:
    """PATIENT_MISMATCH: the summary states another age, another sex or another name than the note does."""
    if case.is_all_copied:
        return
    its_age, its_sex = read_demographics(case.summary_page)
    told = _sex_of(case.summary_wording, its_sex)
    if its_age or told:
        age, sex = read_demographics(case.page)
        yield from _age(case, age, its_age)
        yield from _sex(case, _sex_of(case.note_wording, sex) if told else None, told)
    yield from _names(case)


def _age(case: Case, known: dict[str, Any] | None, stated: dict[str, Any] | None) -> Iterator[Flag]:
    """Another age, if the note does not give it elsewhere, as in a history."""
    if known and stated and known["normal"] != stated["normal"] and not case.is_copied(stated["start"]):
        number = re.sub(r"\D", "", stated["normal"])
        if not {"year", "month", "week", "day", None} & case.supported.get(number, frozenset()):
            yield Flag("PATIENT_MISMATCH", stated["start"], stated["end"], known["start"], known["end"])


def _sex(case: Case, known: tuple[str, Span] | None, stated: tuple[str, Span] | None) -> Iterator[Flag]:
    if known and stated and known[0] != stated[0] and not case.is_copied(stated[1][0]):
        yield Flag("PATIENT_MISMATCH", *stated[1], *known[1])


def _sex_of(wording: Wording, leaf: dict[str, Any] | None) -> tuple[str, Span] | None:
    """The sex that a text tells and where: by a description that the pronouns do not contradict, or by many pronouns alone."""
    if leaf is None:
        return _sex_by_pronouns(wording, _MIN_PRONOUNS)
    told = _sex_by_pronouns(wording, _MIN_PRONOUNS // 2)
    return None if told and told[0] != leaf["normal"] else (leaf["normal"], (leaf["start"], leaf["end"]))


def _sex_by_pronouns(wording: Wording, least: int) -> tuple[str, Span] | None:
    places = {sex: [place for word in words for place in wording.places(word)] for sex, words in _PRONOUNS.items()}
    total = sum(map(len, places.values()))
    for sex, found in places.items():
        if len(found) >= max(least, _SHARE * total):
            return sex, wording.span(min(found), min(found))
    return None


def _names(case: Case) -> Iterator[Flag]:
    """A title with a name that the note has nowhere, if the note names anybody so."""
    named = [match for match in _TITLE.finditer(case.summary) if match["name"].lower() not in case.note_lower]
    known = _TITLE_IN_NOTE.search(case.note_lower) if named else None
    for match in named if known else ():
        if not case.is_copied(match.start()):
            yield Flag("PATIENT_MISMATCH", *match.span(), *(known.span() if known else ()))
