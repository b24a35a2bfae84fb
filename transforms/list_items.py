"""Lists in notes, cut into their items: lines into sentences, sentences into pieces. It knows marks and no words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from transforms.lexicon import PROSE
from transforms.sections import SENTENCE_END, Page

Span = tuple[int, int]

MAX_SENTENCE = 600  # characters: a longer stretch without a full stop is not an item of a list

_BULLET = re.compile(r"[ \t]*(?:[-\u2013•*·o+]+[ \t]+|\(?\d{1,3}[.):][ \t]*(?!\d)|\[[ x]?\][ \t]*)?[ \t]*")
_MARKED = re.compile(r"[ \t]*(?:[-\u2013•*·+]|\(?\d{1,3}[.):])")
_CUT = re.compile(r"[;()\[\]]|,(?!\d{3}(?!\d))|[ \t]and(?=[ \t])")
_DOTTED = re.compile(r"[. ]?[a-z]\.[a-z]\.?$|\.[a-z]\.$")  # the end of "b.i.d." or "p.o."


@dataclass(frozen=True, slots=True)
class Sentence:
    """Characters [start, end) of a sentence of a list, less bullet and white space.

    `marked`: a bullet or a number opens its line. `prose`: its line has words that lists do not have.
    """

    start: int
    end: int
    marked: bool
    prose: bool


def item_sentences(page: Page, start: int, end: int) -> Iterator[Sentence]:
    line = start
    while line < end:
        line_end = page.folded.find("\n", line, end)
        line_end = end if line_end < 0 else line_end
        marked = _MARKED.match(page.folded, line, line_end) is not None
        bullet = _BULLET.match(page.folded, line, line_end)
        begin = bullet.end() if bullet else line
        prose = has_word(page.folded, (begin, line_end), PROSE)
        for first, last in _cut_sentences(page.folded, begin, line_end):
            if first < last <= first + MAX_SENTENCE:
                yield Sentence(first, last, marked, prose)
        line = line_end + 1


def _cut_sentences(folded: str, start: int, end: int) -> Iterator[Span]:
    for match in SENTENCE_END.finditer(folded, start, end):
        yield stripped(folded, start, match.start())
        start = match.end()
    yield stripped(folded, start, end)


def stripped(folded: str, start: int, end: int) -> Span:
    while start < end and (folded[start].isspace() or folded[start] in ",;"):
        start += 1
    while end > start and (folded[end - 1].isspace() or folded[end - 1] in ",;."):
        if folded[end - 1] == "." and _DOTTED.match(folded, max(start, end - 3), end):
            break
        end -= 1
    return start, end


def cut_pieces(folded: str, start: int, end: int, words: bool) -> list[Span]:
    """Cut at semicolons and commas, and at "and" if `words`, none of them inside parentheses."""
    pieces, depth, begin = [], 0, start
    for match in _CUT.finditer(folded, start, end):
        mark = match.group()
        if mark in "([":
            depth += 1
        elif mark in ")]":
            depth = max(0, depth - 1)
        elif depth == 0 and (words or mark in ",;"):
            pieces.append(stripped(folded, begin, match.start()))
            begin = match.end()
    pieces.append(stripped(folded, begin, end))
    return [(first, last) for first, last in pieces if first < last]


def has_word(folded: str, span: Span, words: frozenset[str]) -> bool:
    return any(word.strip(".,:;()") in words for word in folded[span[0] : span[1]].split())


class Closed:
    """Stretches of a note, asked about in order of the note."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self._spans = sorted(spans)
        self._next = 0
        self._reach = 0

    def holds(self, offset: int) -> bool:
        while self._next < len(self._spans) and self._spans[self._next][0] <= offset:
            self._reach = max(self._reach, self._spans[self._next][1])
            self._next += 1
        return offset < self._reach
