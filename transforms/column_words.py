"""Which names of columns may stand in a message: those made of words that columns are usually made of. It knows no file.

In a file without a header the first note stands where the names should be, and keys of JSON objects may be names of patients. No form
tells `Ward` from `Woods`, so that only known words are repeated.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_WORDS = frozenset(
    """
    abstract accession account admission admit age amended answer assessment at attachment author birth blob bmi body by case category
    chart charttime class clinic clinical clinician code column comment complaint content count country created dataset date datetime
    day department description diagnoses diagnosis dialog dialogue dictation discharge display doc doctype document domain dose drug
    encounter end ethnicity event facility field file filename findings first fulltext gender group hadm hash history hospital icd id
    identifier impression index input instruction issued key kind lab label language last length line link list location loinc main map
    master md5 meaning medical medication message meta metadata mime modified mrn name narrative nhs note notes nr number observation of
    order organization output page parent parsed path patient patientid period person physician plan prompt provider question race raw
    reason received record reference referral region report resource response result role row rowid rownum rxnorm score section sentence
    seq sequence service sex sha256 signed site snomed source specialty split ssn start status sub subject summary symptom system tag
    target test text time timestamp title token transcript transcription type unit unnamed updated uri url uuid value vendor version
    visit vital vitals ward written year zip
    """.split()
)
# `noteText`, `NOTE_TEXT`, `note-text` and `noteText2` are the same two words.
_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+|[^A-Za-z0-9]")
_JOINTS = frozenset("_- .:/")


def said_names(names: Iterable[str]) -> str:
    """The names that may be repeated, and how many others there are."""
    found = list(names)
    known = [name for name in found if _is_known(name)]
    hidden = len(found) - len(known)
    others = f"{hidden} not repeated here, since they may be data (is there a header?)" if hidden else ""
    return (", ".join(known) + (" and " if known and others else "") + others) or "none"


def _is_known(name: str) -> bool:
    if name.lower() in _WORDS:
        return True
    return name[:1].isalpha() and all(_is_plain(part) for part in _PART.findall(name))


def _is_plain(part: str) -> bool:
    """A known word, its plural, a joint, or a number of one digit: longer ones may be anybody's."""
    word = part.lower()
    return part in _JOINTS or word in _WORDS or word.removesuffix("s") in _WORDS or (len(part) == 1 and part.isdigit())
