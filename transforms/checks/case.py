"""What the checks look at: one note and its summary, with what several checks need worked out once, when first asked for."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import repeat
from typing import Any

from transforms.checks.facts import Fact, find_facts
from transforms.checks.naming import Naming
from transforms.checks.wording import Wording
from transforms.dates import Date, find_dates
from transforms.negation import Scopes, find_scopes
from transforms.quantities import Quantity, quantities
from transforms.sections import Page, fold, read_page
from transforms.sentences import split_sentences
from transforms.terms import Term, find_terms, parts
from transforms.words import by_alphabet

# The engine takes an optional group more quickly than a repeated one, and most words have one part or two.
_WORD = re.compile(r"[^\W_]++(?:[.,'\u2019/-][^\W_]++(?:[.,'\u2019/-][^\W_]++)*+)?+")
_word_in = by_alphabet(_WORD)
# Rows of EVIDENCE_TYPE.
Evidence = Sequence[Mapping[str, Any]]
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Flag:
    """A reason to look twice. Characters, ends exclusive.

    [start, end) of the summary, None when it is about the whole or about what the summary leaves out; [source_start, source_end) of the
    note that it is compared with, None when there are none.
    """

    code: str
    start: int | None = None
    end: int | None = None
    source_start: int | None = None
    source_end: int | None = None


class Case:
    """One note and its summary as the checks see them. Words are in lower case; spans are characters, ends exclusive.

    `evidence`: what stands behind the summary's sentences. `finish`: how generation ended (stop, length, ...). `tokens_dropped`: tokens of
    the note that the model did not see.
    """

    def __init__(
        self,
        text: str,
        summary: str,
        evidence: Evidence | None = None,
        finish: str = "stop",
        tokens_dropped: int = 0,
        sentences: Sequence[Span] | None = None,
    ) -> None:
        self.text = text
        self.summary = summary
        self.evidence: Evidence = evidence or ()
        self.finish = finish
        self.tokens_dropped = tokens_dropped
        if sentences is not None:
            self.__dict__["sentences"] = sentences

    def __repr__(self) -> str:
        return f"Case(note={len(self.text)} characters, summary={len(self.summary)} characters)"

    @cached_property
    def sentences(self) -> Sequence[Span]:
        """The note's sentences."""
        return split_sentences(self.text)

    @cached_property
    def page(self) -> Page:
        """The note with its sections."""
        return read_page(self.text)

    @cached_property
    def summary_page(self) -> Page:
        return read_page(self.summary)

    @cached_property
    def note_words(self) -> list[str]:
        return words(self.text)

    @cached_property
    def summary_words(self) -> list[str]:
        return words(self.summary)

    @cached_property
    def note_lower(self) -> str:
        return fold(self.text)

    @cached_property
    def summary_lower(self) -> str:
        return fold(self.summary)

    @cached_property
    def note_wording(self) -> Wording:
        return Wording(self.note_lower)

    @cached_property
    def summary_wording(self) -> Wording:
        return Wording(self.summary_lower)

    @cached_property
    def note_scopes(self) -> Scopes:
        return find_scopes(self.note_lower, self.note_wording.words, self.note_wording.starts)

    @cached_property
    def summary_scopes(self) -> Scopes:
        return find_scopes(self.summary_lower, self.summary_wording.words, self.summary_wording.starts)

    @cached_property
    def note_dates(self) -> Sequence[Date]:
        return find_dates(self.text)

    @cached_property
    def summary_dates(self) -> Sequence[Date]:
        """The dates that the summary states outside of copied spans."""
        if self.is_all_copied:
            return ()
        return [date for date in find_dates(self.summary) if not self.is_copied(date.start)]

    @cached_property
    def note_terms(self) -> Sequence[Term]:
        return find_terms(self.text)

    @cached_property
    def summary_terms(self) -> Sequence[Term]:
        return find_terms(self.summary)

    @cached_property
    def note_naming(self) -> Naming:
        return Naming(self.note_terms, self.note_wording.words)

    @cached_property
    def summary_naming(self) -> Naming:
        return Naming(self.summary_terms, self.summary_wording.words)

    @cached_property
    def facts(self) -> Sequence[Fact]:
        """The note's drugs, problems and procedures with their weights, in order."""
        return find_facts(self.note_terms, self.page, self.note_scopes)

    @cached_property
    def omitted(self) -> Sequence[Fact]:
        """The facts that the summary does not name: of a combined drug no part, of other things no kind."""
        return [fact for fact in self.facts if not self._tells(fact.term)]

    def _tells(self, term: Term) -> bool:
        if term.kind == "drug":
            return not self.summary_naming.concepts.isdisjoint(parts(term.concept))
        return self.summary_naming.has(term.concept, self.text[term.start : term.end])

    @cached_property
    def is_whole(self) -> bool:
        """Whether the summary is the note, but for white space around it."""
        return self.summary.strip() == self.text.strip()

    @cached_property
    def verbatim_at(self) -> int | None:
        """Where the summary stands in the note as it is, with white space or an end of the note on either side; None if it does not."""
        start = self.text.find(self.summary) if self.summary.strip() else -1
        end = start + len(self.summary)
        whole = start >= 0 and (not start or self.text[start - 1].isspace()) and (end == len(self.text) or self.text[end].isspace())
        return start if whole else None

    @property
    def is_verbatim(self) -> bool:
        return self.verbatim_at is not None

    @cached_property
    def copies(self) -> Sequence[tuple[int, int, int]]:
        """(start, end, where it ends in the note) of the spans of the summary that are exact copies, as evidence says and as is true."""
        if self.verbatim_at is not None:
            return [(0, len(self.summary), self.verbatim_at + len(self.summary.rstrip()))]
        return list(self._copies())

    @cached_property
    def copied(self) -> tuple[Span, ...]:
        return tuple((start, end) for start, end, _ in self.copies)

    def _copies(self) -> Iterator[tuple[int, int, int]]:
        for row in self.evidence:
            start, end, source_end = row["summary_start"], row["summary_end"], row["source_end"]
            if row["kind"] == "exact" and self.summary[start:end].split() == self.text[row["source_start"] : source_end].split():
                yield start, end, source_end

    def is_copied(self, start: int) -> bool:
        """Whether this character of the summary lies in a copied span."""
        return any(low <= start < high for low, high in self.copied)

    @cached_property
    def is_all_copied(self) -> bool:
        """Whether nothing but white space lies outside the copied spans: then the summary states nothing of its own."""
        reach = 0
        for start, end in sorted(self.copied):
            if self.summary[reach:start].strip():
                return False
            reach = max(reach, end)
        return not self.summary[reach:].strip()

    @cached_property
    def extractiveness(self) -> tuple[float | None, float | None]:
        """Coverage and density; a summary that stands in the note as one piece needs no search for fragments."""
        if self.is_verbatim:
            return 1.0, float(len(self.summary_words))
        return extractiveness(self.note_words, self.summary_words)

    @cached_property
    def stated(self) -> tuple[Quantity, ...]:
        """The quantities that the summary states outside of copied spans."""
        if self.is_all_copied:
            return ()
        dates = self.summary_dates
        wording = self.summary_wording
        found = (q for q in quantities(self.summary, wording.words, wording.starts) if q.stated and not self.is_copied(q.start))
        return tuple(sorted((q for q in found if not any(d.start <= q.start < d.end for d in dates)), key=lambda q: q.start))

    @cached_property
    def note_quantities(self) -> tuple[Quantity, ...]:
        return tuple(quantities(self.text, self.note_wording.words, self.note_wording.starts))

    @cached_property
    def numbers(self) -> Mapping[str, Sequence[Quantity]]:
        """The note's quantities by number."""
        found: dict[str, list[Quantity]] = defaultdict(list)
        for quantity in self.note_quantities:
            found[quantity.number].append(quantity)
        return dict(found)

    @cached_property
    def units(self) -> Mapping[str | None, Sequence[Quantity]]:
        """The note's quantities by unit."""
        found: dict[str | None, list[Quantity]] = defaultdict(list)
        for quantity in self.note_quantities:
            found[quantity.unit].append(quantity)
        return dict(found)

    @cached_property
    def supported(self) -> Mapping[str, frozenset[str | None]]:
        """Number -> units that the note writes behind it, None among them where it stands alone."""
        return {number: frozenset(quantity.unit for quantity in found) for number, found in self.numbers.items()}

    @cached_property
    def supported_measures(self) -> frozenset[tuple[str, Fraction] | None]:
        """What the note states in units with exact conversions."""
        return frozenset(measure for quantity in self.note_quantities if (measure := quantity.measure))


def words(text: str) -> list[str]:
    """The words and numbers of a text in lower case, without punctuation around them."""
    return _word_in(text).findall(text.lower())


def word_spans(text: str) -> list[Span]:
    """Where `words` stand, in characters."""
    return [match.span() for match in _WORD.finditer(text)]


def extractiveness(source: Sequence[str], summary: Sequence[str]) -> tuple[float | None, float | None]:
    """Coverage and density of a summary (Grusky et al. 2018, section 4); (None, None) for no words."""
    if not summary:
        return None, None
    lengths = list(_fragments(source, summary))
    return sum(lengths) / len(summary), sum(length * length for length in lengths) / len(summary)


def _fragments(source: Sequence[str], summary: Sequence[str]) -> Iterator[int]:
    """Lengths of the shared fragments: from left to right the longest run of summary words that stands in the source."""
    # A character for each word, so that a search of runs of words is one of strings.
    letters = {word: chr(index) for index, word in enumerate(dict.fromkeys(source))}
    read = "".join(map(letters.__getitem__, source))
    said = "".join(map(letters.get, summary, repeat(chr(len(letters)))))
    start = 0
    while start < len(said):
        length = _longest(said, start, read)
        if length:
            yield length
        start += max(1, length)


def _longest(said: str, start: int, read: str) -> int:
    """The length of the longest string that stands in `read` and begins at `start` of `said`; the more, the longer it takes."""
    if said[start:] in read:
        return len(said) - start
    low, high = 0, 1  # the first `low` stand there, the first `high` do not or may not
    while said[start : start + high] in read:
        low, high = high, 2 * high
    return low + bisect_left(range(low + 1, high), True, key=lambda length: said[start : start + length] not in read)
