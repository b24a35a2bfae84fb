"""From a quotation to the place in the note where it stands, and from a summary's sentences to the sentences of the note behind them.

It says where to look, not whether what the summary says is true.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.utils.shared import Shared

from schemas.errors import ConfigurationError
from schemas.rejection import Reason, Stage
from schemas.summary import EVIDENCE_TYPE
from transforms.alignment import Support, lexical_support
from transforms.batch import NoteBatch, guarded, timed
from transforms.sections import fold
from transforms.segment import sentence_spans
from transforms.sentences import split_sentences
from transforms.similarity import SentenceEncoder, encoder_folder

Span = tuple[int, int]
# One row of EVIDENCE_TYPE. Characters, ends exclusive.
Row = dict[str, Any]

_WORD = re.compile(r"\S+")


def locate(quote: str, text: str) -> tuple[int, int] | None:
    """Characters [start, end) of `text` that hold `quote`, None where nothing does or the quote is blank.

    Tried in this order: the exact characters as whole words, the same words in any case and with any white space between them, the exact
    characters within words, and the loose form within words. The first place counts. Linear in the length of the text.
    """
    quote = quote.strip()
    if not quote:
        return None
    loose_text, starts, spans = _loosened(text)
    loose_quote = " ".join(fold(quote).split())
    for whole in (True, False):
        exact = _find(quote, text, whole)
        if exact is not None:
            return exact, exact + len(quote)
        loose = _find(loose_quote, loose_text, whole)
        if loose is not None:
            return _original(loose, starts, spans), _original(loose + len(loose_quote) - 1, starts, spans) + 1
    return None


def _find(quote: str, text: str, whole: bool) -> int | None:
    at = text.find(quote)
    while at >= 0:
        if not whole or (_is_edge(text, at) and _is_edge(text, at + len(quote))):
            return at
        at = text.find(quote, at + 1)
    return None


def _is_edge(text: str, offset: int) -> bool:
    """Whether a word may begin or end between the characters `offset - 1` and `offset`."""
    return offset in (0, len(text)) or not (text[offset - 1].isalnum() and text[offset].isalnum())


def _loosened(text: str) -> tuple[str, list[int], list[tuple[int, int]]]:
    """The words of the text in lower case with one space between, where each word starts in that, and its span in the text."""
    spans = [match.span() for match in _WORD.finditer(text)]
    starts = list(accumulate((end - start + 1 for start, end in spans), initial=0))[:-1]
    return " ".join(fold(text).split()), starts, spans


def _original(offset: int, starts: list[int], spans: list[tuple[int, int]]) -> int:
    word = bisect_right(starts, offset) - 1
    return spans[word][0] + offset - starts[word]


@dataclass(frozen=True, slots=True)
class Aligner:
    """How rewritten sentences are traced. `kind` is what their rows say; `support(text, sentences, rewritten)` gives their sources."""

    kind: str
    support: Callable[[str, Sequence[Span], Sequence[str]], list[Support | None]]


LEXICAL = Aligner("lexical", lexical_support)


def check_mode(mode: str) -> str:
    """The mode of `verify.evidence`. Raises ConfigurationError for an unknown one, or when the package that it needs is not installed."""
    if mode not in ("lexical", "semantic"):
        raise ConfigurationError(f"verify.evidence: {mode!r}; choices: lexical, semantic")
    if mode == "semantic":
        encoder_folder()
    return mode


def load_aligner(mode: str) -> Aligner:
    """The aligner of a mode. Raises ConfigurationError as `check_mode` does."""
    return LEXICAL if check_mode(mode) == "lexical" else Aligner("semantic", SentenceEncoder().support)


def trace_summary(text: str, sentences: Sequence[Span], summary: str, known: Iterable[Row] = (), aligner: Aligner = LEXICAL) -> list[Row]:
    """Rows of EVIDENCE_TYPE for a summary of the note `text` with these sentences, in the order of the summary, the best source first.

    Exact rows of `known` stay. A sentence that stands in the note word for word is exact too; of the others the aligner names the sources,
    or the row says `unsupported`. A sentence without content words has no row.
    """
    rows = [row for row in known if row["kind"] == "exact"]
    note = _Note(text, sentences)
    whole = None if rows else note.find(summary, 0, len(summary))
    if whole is not None:
        return list(note.copied(*whole))
    rewritten: list[Span] = []
    for span in split_sentences(summary):
        if any(row["summary_start"] <= span[0] and span[1] <= row["summary_end"] for row in rows):
            continue
        found = note.find(summary, *span)
        if found is None:
            rewritten.append(span)
        else:
            rows.append(_row(span, found[1], 1.0, "exact"))
    rows += _aligned(note, summary, rewritten, aligner) if rewritten else []
    return sorted(rows, key=lambda row: int(row["summary_start"]))


def _aligned(note: _Note, summary: str, rewritten: Sequence[Span], aligner: Aligner) -> Iterator[Row]:
    supports = aligner.support(note.text, note.sentences, [summary[start:end] for start, end in rewritten])
    for span, support in zip(rewritten, supports, strict=True):
        for index, score in support or ():
            yield _row(span, note.sentences[index], score, aligner.kind)
        if support == []:
            yield _row(span, (None, None), 0.0, "unsupported")


def _row(summary: Span, source: tuple[int | None, int | None], score: float, kind: str) -> Row:
    return {
        "summary_start": summary[0],
        "summary_end": summary[1],
        "source_start": source[0],
        "source_end": source[1],
        "score": score,
        "kind": kind,
    }


class _Note:
    """A note in which whole words are looked for, white space counting as one space."""

    def __init__(self, text: str, sentences: Sequence[Span]) -> None:
        self.text = text
        self.sentences = sentences

    def find(self, summary: str, start: int, end: int) -> tuple[Span, Span] | None:
        """Where the words of summary[start:end] stand one after the other: (their characters in the summary, those in the note)."""
        words = summary[start:end].strip()
        if not words:
            return None
        start = summary.index(words, start)
        span = start, start + len(words)
        at = _find_between_spaces(words, self.text)
        if at is not None:
            return span, (at, at + len(words))
        folded = f" {' '.join(words.split())} "
        at = self._folded.find(folded)
        if at < 0:
            return None
        first = self._folded.count(" ", 0, at)
        return span, (self._words[first][0], self._words[first + folded.count(" ") - 2][1])

    @cached_property
    def _folded(self) -> str:
        return f" {' '.join(self.text.split())} "

    @cached_property
    def _words(self) -> list[Span]:
        return [match.span() for match in _WORD.finditer(self.text)]

    def copied(self, summary: Span, source: Span) -> Iterator[Row]:
        """Exact rows for a stretch that stands in the note character for character, cut as the note's sentences are."""
        shift = summary[0] - source[0]
        if summary[1] - summary[0] != source[1] - source[0]:  # only the white space differs, and with it the offsets
            yield _row(summary, source, 1.0, "exact")
            return
        for index in range(bisect_right(self.sentences, source[0], key=lambda span: span[1]), len(self.sentences)):
            start, end = self.sentences[index]
            if start >= source[1]:
                return
            start, end = max(start, source[0]), min(end, source[1])
            yield _row((start + shift, end + shift), (start, end), 1.0, "exact")


def _find_between_spaces(words: str, text: str) -> int | None:
    """White space on both sides, not merely another character: "5 mg" must not be found in "0.5 mg"."""
    at = text.find(words)
    while at >= 0:
        end = at + len(words)
        if (not at or text[at - 1].isspace()) and (end == len(text) or text[end].isspace()):
            return at
        at = text.find(words, at + 1)
    return None


def evidence_batch(batch: NoteBatch, aligner: Aligner = LEXICAL) -> NoteBatch:
    """Complete the column `evidence` from text, sentences and summary; a note that the aligner fails on becomes a rejection.

    Counts the sentences of the summaries by the kind of their evidence.
    """
    done = batch if _is_settled(batch) else _traced(batch, aligner)
    return done.counted(sentences=sentence_kinds(done.notes.column("evidence")))


def sentence_kinds(evidence: pa.ChunkedArray) -> dict[str, int]:
    """Sentences of summaries by the kind of their best evidence: that of the first of the rows about the same characters of a summary."""
    column = evidence.combine_chunks()
    rows = column.flatten()
    starts = rows.field("summary_start").to_numpy(zero_copy_only=False)
    notes = np.repeat(np.arange(len(column)), column.value_lengths().to_numpy(zero_copy_only=False))
    first = np.ones(len(rows), bool)
    first[1:] = (starts[1:] != starts[:-1]) | (notes[1:] != notes[:-1])
    counts = rows.field("kind").filter(pa.array(first)).value_counts()
    return {count["values"]: count["counts"] for count in counts.to_pylist()}


def _traced(batch: NoteBatch, aligner: Aligner) -> NoteBatch:
    def trace(row: tuple[str, Sequence[Span], str, Sequence[Row]]) -> list[Row]:
        return trace_summary(*row, aligner)

    rows = zip(batch.column("text"), sentence_spans(batch), batch.column("summary"), batch.column("evidence"), strict=True)
    traced, done = batch.each(rows, trace, Stage.EVIDENCE, Reason.EVIDENCE_FAILED)
    column = pa.array(traced, EVIDENCE_TYPE)
    return replace(done, notes=done.notes.set_column(done.notes.schema.get_field_index("evidence"), "evidence", column))


def _is_settled(batch: NoteBatch) -> bool:
    """Whether every summary consists of exact copies with one character between them, as a selection model's do."""
    evidence, summaries = batch.notes.column("evidence").combine_chunks(), batch.notes.column("summary")
    rows = evidence.flatten()
    counts = evidence.value_lengths().to_numpy(zero_copy_only=False)
    lengths = pc.subtract(rows.field("summary_end"), rows.field("summary_start")).to_numpy(zero_copy_only=False)
    reach = np.concatenate([[0], np.cumsum(lengths)])[np.concatenate([[0], np.cumsum(counts)])]
    whole = np.diff(reach) + counts - 1 == pc.utf8_length(summaries).to_numpy()
    return bool(whole.all() and pc.all(pc.equal(rows.field("kind"), "exact"), min_count=0).as_py())


class _Locate(beam.DoFn):  # type: ignore[misc]
    """Holds one aligner per process: `shared` is made once, where the graph is built."""

    def __init__(self, mode: str, shared: Shared) -> None:
        self._mode = mode
        self._shared = shared
        self._aligner = LEXICAL

    def setup(self) -> None:
        if self._mode != LEXICAL.kind:
            with guarded("loading the sentence encoder"):
                self._encoder = self._shared.acquire(SentenceEncoder, tag=self._mode)
                self._aligner = Aligner(self._mode, self._encoder.support)

    def process(self, batch: NoteBatch) -> Iterator[NoteBatch]:
        yield timed("evidence", lambda notes: evidence_batch(notes, self._aligner), batch)


class LocateEvidence(beam.PTransform):  # type: ignore[misc]
    """NoteBatch -> NoteBatch whose column `evidence` covers every sentence of the summary.

    Raises ConfigurationError when it is made: for an unknown mode, or when the mode's package is not installed.
    """

    def __init__(self, mode: str = "lexical") -> None:
        super().__init__()
        self._mode = check_mode(mode)

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        return batches | beam.ParDo(_Locate(self._mode, Shared()))
