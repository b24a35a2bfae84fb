"""What of a note is summarized by itself: all of it, or each of its sections; and the summaries of the parts as one again.

Pure. Sections are those whose heading opens a line (`transforms/sections.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from transforms.prompts import Passage, Summary
from transforms.sections import read_page
from transforms.windows import Span

# A section of fewer words is taken over as it is: it is about as long as what clinicians write as the summary of a whole dialogue's section
# (40 words in the mean over MTS-Dialog, Ben Abacha et al. 2023, doi 10.18653/v1/2023.eacl-main.168).
KEPT_WORDS = 40

_MARKS = "#*_:•>- \t\r\n\u00a0"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a note. `title`: its heading as written, without marks; empty for text before the first one and for a whole note.

    `kept`: the part is short enough to be its own summary.
    """

    title: str = field(repr=False)
    passage: Passage
    kept: bool = False


def whole_note(text: str, sentences: Sequence[Span]) -> list[Part]:
    """The note as its only part."""
    return [Part("", Passage(text, 0, len(text), tuple(sentences)))]


def note_sections(text: str, sentences: Sequence[Span]) -> list[Part]:
    """The parts of a note by its headings, in order; those without words are left out. A note without headings is its only part."""
    sections = read_page(text).sections
    if not sections:
        return whole_note(text, sentences)
    bounds = [("", 0, sections[0].heading), *((_title(text[s.heading : s.start]), s.start, s.end) for s in sections)]
    parts = [_part(title, text, start, end, inner) for (title, start, end), inner in zip(bounds, _within(bounds, sentences), strict=True)]
    return [part for part in parts if part.passage.sentences] or whole_note(text, sentences)


def _title(heading: str) -> str:
    return " ".join(heading.strip(_MARKS).split())


def _within(bounds: Sequence[tuple[str, int, int]], sentences: Sequence[Span]) -> Iterator[list[Span]]:
    """The sentences of each part, those that reach over an edge cut there."""
    first = 0
    for _, start, end in bounds:
        while first < len(sentences) and sentences[first][1] <= start:
            first += 1
        index, inner = first, []
        while index < len(sentences) and sentences[index][0] < end:
            inner.append((max(sentences[index][0], start), min(sentences[index][1], end)))
            index += 1
        yield inner


def _part(title: str, text: str, start: int, end: int, sentences: Sequence[Span]) -> Part:
    trimmed = [span for span in (_trimmed(text, *sentence) for sentence in sentences) if span[0] < span[1]]
    passage = Passage(text, start, end, tuple(trimmed))
    return Part(title, passage, len(text[start:end].split()) < KEPT_WORDS)


def _trimmed(text: str, start: int, end: int) -> Span:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip())


def kept_summary(passage: Passage) -> Summary:
    """All sentences of a passage, white space made single spaces, each with its place."""
    pieces = [" ".join(passage.text[start:end].split()) for start, end in passage.sentences]
    evidence, at = [], 0
    for piece, (start, end) in zip(pieces, passage.sentences, strict=True):
        evidence.append((at, at + len(piece), start, end))
        at += len(piece) + 1
    return Summary(" ".join(pieces), tuple(evidence))


def assembled(parts: Sequence[Part], summaries: Sequence[Summary]) -> Summary:
    """One summary of the summaries of a note's parts: lines "Title: text", untitled ones as they are; evidence moves along."""
    lines: list[str] = []
    evidence, at = [], 0
    for part, summary in zip(parts, summaries, strict=True):
        if not summary.text.strip():
            continue
        head = f"{part.title}: " if part.title else ""
        shift = at + len(head)
        evidence += [(low + shift, high + shift, start, end) for low, high, start, end in summary.evidence]
        lines.append(head + summary.text)
        at += len(lines[-1]) + 1
    return Summary("\n".join(lines), tuple(evidence))
