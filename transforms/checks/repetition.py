"""Text that the summary says twice."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from transforms.checks.case import Case, Flag, Span, word_spans, words

MIN_REPEATED_WORDS = 8
MIN_SENTENCE_WORDS = 4

_SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?]+(?!\s|\Z)[^.!?\n]*)*")


def check_repetition(case: Case) -> Iterator[Flag]:
    """REPEATED_TEXT: a sentence comes again, or a run of words does whose 4-grams have all been there before, under the same heading."""
    said = case.summary_words
    grams = list(zip(said, said[1:], said[2:], said[3:], strict=False))
    if len(set(grams)) == len(grams):  # whatever repeats holds a 4-gram that does
        return
    repeated = sorted({*_repeated_sentences(case.summary), *_repeated_runs(grams, word_spans(case.summary))})
    reach = 0
    for start, end, first in repeated:
        if start >= reach and _are_under_one_heading(case, first, start):
            yield Flag("REPEATED_TEXT", start, end)
            reach = end


def _are_under_one_heading(case: Case, left: int, right: int) -> bool:
    """A note repeats itself under another heading: the complaint in the history and in the assessment."""
    return case.summary_page.section_at(left) == case.summary_page.section_at(right)


def _repeated_sentences(summary: str) -> Iterator[tuple[int, int, int]]:
    """(start, end, start of the first time)."""
    seen: dict[tuple[str, ...], int] = {}
    for match in _SENTENCE.finditer(summary):
        sentence = tuple(words(match.group()))
        start = match.start() + len(match.group()) - len(match.group().lstrip())
        if len(sentence) >= MIN_SENTENCE_WORDS and sentence in seen:
            yield start, match.end(), seen[sentence]
        seen.setdefault(sentence, start)


def _repeated_runs(grams: Sequence[tuple[str, ...]], spans: Sequence[Span]) -> Iterator[tuple[int, int, int]]:
    """(start, end, start of the first time) of runs of at least MIN_REPEATED_WORDS words of which every 4-gram has occurred before."""
    seen: dict[tuple[str, ...], int] = {}
    first: int | None = None
    for index, gram in enumerate((*grams, ("",))):
        if gram in seen:
            first = index if first is None else first
            continue
        if first is not None and index + 3 - first >= MIN_REPEATED_WORDS:
            yield spans[first][0], spans[index + 2][1], spans[seen[grams[first]]][0]
        first = None
        seen[gram] = index
