"""Findings that the summary affirms and the note denies, or the reverse."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import islice, takewhile

from transforms.checks.case import Case, Flag, Span
from transforms.checks.wording import FUNCTION_WORDS, Wording
from transforms.lexicon import word_set
from transforms.negation import Scopes, is_within

_MAX_PHRASE = 4
_MIN_HEAD = 3  # letters
# Words around a finding that show which mention in the note it comes from, in words to either side.
_SUMMARY_REACH = 8
_NOTE_REACH = 12
# So many of them must be shared.
_MIN_SHARED = 2
# A word that the note says more often is not one finding.
_MAX_MENTIONS = 40
# Too wide to be one finding: it is denied of one thing and affirmed of another.
_WIDE = word_set(
    "evidence sign symptom history change finding problem issue disease patient case time abnormality complaint other difference effect",
    "result lesion medical past known significant response way use data cause condition level able available used seen found noted",
    "present well normal only year test presence control assistance surgical day week month further",
)
# A denial with one of these tells that something was there before.
_AGAIN = word_set("residual new recurrent further additional more remaining subsequent persistent progressive longer post postoperative")
# Behind a finding these end it.
_TAIL = word_set("seen found present detected identified noted observed visualised visualized reported evident appreciated demonstrated")


def check_negation(case: Case) -> Iterator[Flag]:
    """NEGATION: a finding that the summary affirms and the note denies, or the reverse.

    A finding is the last words of a denied item that the other text has too. It is compared with the mention in the note whose
    sentence, then whose surroundings, are most like its own; a mention that the note leaves open speaks for both.
    """
    if case.is_all_copied:
        return
    flagged: set[int] = set()
    for place, length in dict.fromkeys((*_denied_in_summary(case), *_denied_in_note(case))):
        start, end = case.summary_wording.span(place, place + length - 1)
        if start in flagged or case.is_copied(start):
            continue
        source = _contradicting(case, place, length)
        if source is not None:
            flagged.add(start)
            yield Flag("NEGATION", start, end, *case.note_wording.span(source, source + length - 1))


def _denied_in_summary(case: Case) -> Iterator[Span]:
    """(place, length) of the findings that the summary denies, as far as the note has their words."""
    for span in case.summary_scopes.denied:
        first, phrase = _finding(case.summary_wording, *span)
        for skipped in range(len(phrase)):
            if next(case.note_wording.find(phrase[skipped:]), None) is not None:
                yield first + skipped, len(phrase) - skipped
                break


def _denied_in_note(case: Case) -> Iterator[Span]:
    """(place, length) in the summary of findings that the note denies and the summary affirms."""
    summary = case.summary_wording
    for span in case.note_scopes.denied:
        _, phrase = _finding(case.note_wording, *span)
        for skipped in range(len(phrase)):
            places = list(summary.find(phrase[skipped:]))
            if places:
                yield from ((place, len(phrase) - skipped) for place in places if not _is_qualified(summary, place))
                break


def _contradicting(case: Case, place: int, length: int) -> int | None:
    """The place in the note of the mention that contradicts the one at `place` of the summary; None where the best mentions agree."""
    summary, note = case.summary_wording, case.note_wording
    said = _polarity(case.summary_scopes, summary.starts[place])
    mentions = list(islice(note.find(summary.stems[place : place + length]), _MAX_MENTIONS + 1))
    if said == "open" or not 0 < len(mentions) <= _MAX_MENTIONS:
        return None
    own = summary.around(place, length, _SUMMARY_REACH)
    shared = [len(own & note.around(mention, length, _NOTE_REACH)) for mention in mentions]
    inside = [len(own & _sentence_around(note, case.sentences, mention, length, _NOTE_REACH)) for mention in mentions]
    against = [{said, _polarity(case.note_scopes, note.starts[mention])} == {"denied", "affirmed"} for mention in mentions]
    best = max(range(len(mentions)), key=lambda i: (inside[i], shared[i], not against[i]))
    return mentions[best] if against[best] and shared[best] >= min(_MIN_SHARED, len(own)) else None


def _sentence_around(wording: Wording, sentences: Sequence[Span], place: int, length: int, reach: int) -> frozenset[str]:
    """The content words around a finding in its sentence."""
    index = bisect_right(sentences, wording.starts[place], key=lambda span: span[0]) - 1
    start, end = sentences[index] if index >= 0 else (0, 0)
    return wording.around(place, length, reach, bisect_left(wording.starts, start), bisect_left(wording.starts, end))


def _finding(wording: Wording, start: int, end: int) -> tuple[int, Sequence[str]]:
    """The place of its first word, and the stems of a finding: the words of a denied item up to the first preposition."""
    first, stop = bisect_left(wording.starts, start), bisect_left(wording.starts, end)
    while first < stop and wording.words[first] in FUNCTION_WORDS:
        first += 1
    words = list(takewhile(lambda word: word not in FUNCTION_WORDS, wording.words[first:stop]))
    while words and words[-1] in _TAIL:
        words.pop()
    stems = wording.stems[first : first + len(words)]
    if not stems or len(stems[-1]) < _MIN_HEAD or stems[-1] in _WIDE or stems[-1].endswith("ly") or not _AGAIN.isdisjoint(words):
        return first, ()
    kept = min(len(words), _MAX_PHRASE)
    return first + len(words) - kept, stems[-kept:]


def _is_qualified(wording: Wording, place: int) -> bool:
    """Whether another word stands before a finding and so makes it another finding."""
    return place > 0 and wording.words[place - 1] not in FUNCTION_WORDS


def _polarity(scopes: Scopes, offset: int) -> str:
    if is_within(scopes.open, offset):
        return "open"
    return "denied" if is_within(scopes.denied, offset) else "affirmed"
