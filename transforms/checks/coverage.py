"""How the summary is drawn from the note: too little of its wording, or nearly all of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from transforms.checks.case import Case, Flag

# Share of the summary's words inside fragments shared with the note. Of the 497 author-written summaries of MultiClinSum
# gold_train 1.4 % lie below, of the same summaries beside another patient's report 95 %.
LOW_COVERAGE = 0.55
# A summary is usually about this long; a note shorter than that need not be shortened.
USUAL_SUMMARY_WORDS = 110
NO_COMPRESSION = 0.9
# Of fewer words the share is not steady.
MIN_WORDS = 20
# Who speaks: notes of conversations are summarized in other words.
_SPEAKER = re.compile(
    r"^\[?(?:doctor|dr|patient|pt|nurse|clinician|physician|provider|caregiver|guest\w{0,12})\]? ?:?(?=\s)", re.MULTILINE | re.IGNORECASE
)
_MIN_TURNS = 4


def check_coverage(case: Case) -> Iterator[Flag]:
    """LOW_COVERAGE: few of the summary's words stand in the note. NO_COMPRESSION: a note that asks for it was not shortened.

    Coverage is not judged for conversations, which are summarized in other words, and for very short summaries.
    """
    coverage, _ = case.extractiveness
    if coverage is not None and coverage < LOW_COVERAGE and len(case.summary_words) >= MIN_WORDS and not is_dialogue(case.text):
        yield Flag("LOW_COVERAGE")
    long_note = len(case.note_words) > USUAL_SUMMARY_WORDS
    if long_note and len(case.summary_words) >= NO_COMPRESSION * len(case.note_words):
        yield Flag("NO_COMPRESSION")


def is_dialogue(text: str) -> bool:
    """Whether a text is a conversation with the speakers named at the heads of its lines."""
    return sum(1 for _ in islice(_SPEAKER.finditer(text), _MIN_TURNS)) == _MIN_TURNS
