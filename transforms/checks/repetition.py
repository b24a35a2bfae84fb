"""Text that the summary says twice."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from transforms.checks.case import Case, Flag, word_spans, words

MIN_REPEATED_WORDS = 8
MIN_SENTENCE_WORDS = 4

_SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?]+(?!\s|\Z)[^.!?\n]*)*")


def check_repetition(case: Case) -> Iterator[Flag]:
    """REPEATED_TEXT: a sentence comes again, or a run of words does whose 4-grams have all been there before."""
    said = case.summary_words
    grams = list(zip(said, said[1:], said[2:], said[3:], strict=False))
    if len(set(grams)) == len(grams):  # whatever repeats holds a 4-gram that does
        return
    repeated = sorted({*_repeated_sentences(case.summary), *_repeated_runs(said, word_spans(case.summary))})
    reach = 0
    for start, end in repeated:
        if start >= reach:
            yield Flag("REPEATED_TEXT", start, end)
            reach = end


def _repeated_sentences(summary: str) -> Iterator[tuple[int, int]]:
    seen: set[tuple[str, ...]] = set()
    for match in _SENTENCE.finditer(summary):
        sentence = tuple(words(match.group()))
        if len(sentence) >= MIN_SENTENCE_WORDS and sentence in seen:
            start = match.start() + len(match.group()) - len(match.group().lstrip())
            yield start, match.end()
        seen.add(sentence)


def _repeated_runs(said: Sequence[str], spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Runs of at least MIN_REPEATED_WORDS words of which every 4-gram has occurred before."""
    seen: set[tuple[str, ...]] = set()
    first: int | None = None
    for index in range(len(said) - 3):
        gram = tuple(said[index : index + 4])
        if gram in seen:
            first = index if first is None else first
        else:
            yield from _run(first, index + 3, spans)
            first = None
        seen.add(gram)
    yield from _run(first, len(said), spans)


def _run(first: int | None, stop: int, spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    if first is not None and stop - first >= MIN_REPEATED_WORDS:
        yield spans[first][0], spans[stop - 1][1]
