"""What a summary says that its note does not, and other reasons to look twice. Flags, not verdicts.

Every check is a pure function of one note and its summary; none needs a model or a reference. Coverage, density and compression follow
Grusky et al. 2018 (arXiv 1804.11283).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import apache_beam as beam

from schemas.histogram import count_values
from schemas.rejection import Reason, Rejection, Stage
from schemas.summary import VERIFY_FIELDS
from transforms.batch import NoteBatch, timed
from transforms.quantities import Quantity, quantities, same_unit

# Flags that inform without counting against a run: they tell what happened or what the input was like, not that the summary is wrong.
INFORMATIVE = frozenset({"SOURCE_CUT", "NO_COMPRESSION"})

# Share of the summary's words inside fragments shared with the note. Of the 497 author-written summaries of MultiClinSum
# gold_train 1.4 % lie below, of the same summaries beside another patient's report 95 %.
LOW_COVERAGE = 0.55
# A summary is usually about this long; a note shorter than that need not be shortened.
USUAL_SUMMARY_WORDS = 110
NO_COMPRESSION = 0.9
MIN_REPEATED_WORDS = 8
MIN_SENTENCE_WORDS = 4

_WORD = re.compile(r"[^\W_]+(?:[.,'\u2019/-][^\W_]+)*")
_SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?]+(?!\s|\Z)[^.!?\n]*)*")
_CLOSED = re.compile(r"[.!?\u2026:;][\"'\u201d\u2019)\]]*\s*\Z")


@dataclass(frozen=True, slots=True)
class Flag:
    """A reason to look twice; [start, end) are characters of the summary, None when it is about the whole."""

    code: str
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Checked:
    """The flags of one summary and how it was drawn from the note.

    `coverage`: share of summary words inside fragments shared with the note (0-1). `density`: mean squared length of these fragments, in
    words per summary word. `compression`: note words per summary word. All None for a summary without words.
    """

    flags: tuple[Flag, ...]
    coverage: float | None
    density: float | None
    compression: float | None
    note_words: int
    summary_words: int


@dataclass(frozen=True, slots=True)
class Case:
    """One note and its summary as the checks see them.

    `copied`: spans of the summary that evidence says are exact copies and that indeed equal their source. `stated`: the quantities that the
    summary states outside of them. `supported`: number -> units that the note writes behind it, None among them where it stands
    alone; empty where nothing is stated. Words are in lower case.
    """

    text: str = field(repr=False)
    summary: str = field(repr=False)
    copied: tuple[tuple[int, int], ...]
    finish: str
    characters_cut: int
    stated: tuple[Quantity, ...] = field(repr=False)
    supported: Mapping[str, frozenset[str | None]] = field(repr=False)
    note_words: list[str] = field(repr=False)
    summary_words: list[str] = field(repr=False)
    coverage: float | None


Evidence = Sequence[Mapping[str, Any]]


def check_summary(text: str, summary: str, evidence: Evidence | None, checks: Sequence[str], finish: str, characters_cut: int) -> Checked:
    """Run the named checks (of CHECKS) on one summary.

    `evidence`: rows of EVIDENCE_TYPE, or None. `finish`: how generation ended (stop, length, ...). `characters_cut`: characters of the note
    that the model did not see. Raises ValueError for an unknown check.
    """
    known_checks(checks)
    note_words, summary_words = words(text), words(summary)
    coverage, density, copied = _likeness(text, summary, note_words, summary_words, evidence or ())
    stated, supported = _quantities(text, summary, copied)
    case = Case(text, summary, copied, finish, characters_cut, stated, supported, note_words, summary_words, coverage)
    flags = tuple(flag for name in checks for flag in _CHECKS[name](case))
    compression = len(note_words) / len(summary_words) if summary_words else None
    return Checked(flags, coverage, density, compression, len(note_words), len(summary_words))


def known_checks(checks: Sequence[str]) -> tuple[str, ...]:
    """The names as a tuple; ValueError for one that is no check."""
    for name in checks:
        if name not in _CHECKS:
            raise ValueError(f"unknown check {name!r}; choices: {', '.join(CHECKS)}")
    return tuple(checks)


def words(text: str) -> list[str]:
    """The words and numbers of a text in lower case, without punctuation around them."""
    return _WORD.findall(text.lower())


def _likeness(
    text: str, summary: str, note_words: Sequence[str], summary_words: Sequence[str], evidence: Evidence
) -> tuple[float | None, float | None, tuple[tuple[int, int], ...]]:
    """Coverage, density and copied spans; a summary that stands in the note as one piece needs no search for fragments."""
    if _is_verbatim(summary, text):
        return 1.0, float(len(summary_words)), ((0, len(summary)),)
    return *extractiveness(note_words, summary_words), tuple(_copies(text, summary, evidence))


def _is_verbatim(summary: str, text: str) -> bool:
    """Whether the summary has words and stands in the note as it is, with white space or an end of the note on either side."""
    start = text.find(summary) if summary.strip() else -1
    end = start + len(summary)
    return start >= 0 and (not start or text[start - 1].isspace()) and (end == len(text) or text[end].isspace())


def extractiveness(source: Sequence[str], summary: Sequence[str]) -> tuple[float | None, float | None]:
    """Coverage and density of a summary (Grusky et al. 2018, section 4); (None, None) for no words."""
    if not summary:
        return None, None
    lengths = list(_fragments(source, summary))
    return sum(lengths) / len(summary), sum(length * length for length in lengths) / len(summary)


def _fragments(source: Sequence[str], summary: Sequence[str]) -> Iterator[int]:
    """Lengths of the shared fragments: from left to right the longest run of summary words that stands in the source."""
    places = defaultdict(list)
    for place, word in enumerate(source):
        places[word].append(place)
    start = 0
    while start < len(summary):
        length, at = 0, places.get(summary[start], ())
        while at:
            length += 1
            if start + length == len(summary):
                break
            following = summary[start + length]
            at = [place for place in at if place + length < len(source) and source[place + length] == following]
        if length:
            yield length
        start += max(1, length)


def _copies(text: str, summary: str, evidence: Evidence) -> Iterator[tuple[int, int]]:
    for row in evidence:
        start, end = row["summary_start"], row["summary_end"]
        if row["kind"] == "exact" and summary[start:end] == text[row["source_start"] : row["source_end"]]:
            yield start, end


def _quantities(
    text: str, summary: str, copied: Sequence[tuple[int, int]]
) -> tuple[tuple[Quantity, ...], dict[str, frozenset[str | None]]]:
    """`stated` and `supported` of a Case."""
    if _is_covered(summary, copied):
        return (), {}
    stated = tuple(q for q in quantities(summary) if q.stated and not any(start <= q.start < end for start, end in copied))
    units: dict[str, set[str | None]] = defaultdict(set)
    if stated:
        for quantity in quantities(text):
            units[quantity.number].add(quantity.unit)
    return stated, {number: frozenset(found) for number, found in units.items()}


def _is_covered(summary: str, spans: Sequence[tuple[int, int]]) -> bool:
    """Whether nothing but white space lies outside the spans."""
    reach = 0
    for start, end in sorted(spans):
        if summary[reach:start].strip():
            return False
        reach = max(reach, end)
    return not summary[reach:].strip()


def check_numbers(case: Case) -> Iterator[Flag]:
    """UNSUPPORTED_NUMBER: the summary states a number that the note does not."""
    for quantity in case.stated:
        if quantity.number not in case.supported:
            yield Flag("UNSUPPORTED_NUMBER", quantity.start, quantity.end)


def check_units(case: Case) -> Iterator[Flag]:
    """UNSUPPORTED_UNIT: the note has the number, but always with another unit. A number that it also has without unit is not judged."""
    for quantity in case.stated:
        found = case.supported.get(quantity.number)
        if quantity.unit is None or not found or None in found:
            continue
        if not any(same_unit(quantity.unit, unit) for unit in found if unit):
            yield Flag("UNSUPPORTED_UNIT", quantity.start, quantity.end)


def check_repetition(case: Case) -> Iterator[Flag]:
    """REPEATED_TEXT: a sentence comes again, or a run of words does whose 4-grams have all been there before."""
    said = case.summary_words
    grams = list(zip(said, said[1:], said[2:], said[3:], strict=False))
    if len(set(grams)) == len(grams):  # whatever repeats holds a 4-gram that does
        return
    spans = [match.span() for match in _WORD.finditer(case.summary)]
    repeated = sorted({*_repeated_sentences(case.summary), *_repeated_runs(case.summary_words, spans)})
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


def check_truncation(case: Case) -> Iterator[Flag]:
    """TRUNCATED_SUMMARY: generation ran into its limit, or the last sentence is open. SOURCE_CUT: the model did not see the whole note."""
    if case.finish == "length" or (case.summary.strip() and not _CLOSED.search(case.summary) and not _ends_like_source(case)):
        yield Flag("TRUNCATED_SUMMARY")
    if case.characters_cut > 0:
        yield Flag("SOURCE_CUT")


def _ends_like_source(case: Case) -> bool:
    """Whether the summary's end is copied: an item of a list has no full stop in the note either."""
    end = len(case.summary.rstrip())
    if any(stop >= end for _, stop in case.copied):
        return True
    line = case.summary.rstrip()[-24:].rpartition("\n")[2]
    at = case.text.find(line)
    return at >= 0 and not case.text[at + len(line) : at + len(line) + 2].strip(" \t\r")[:1].strip()


def check_coverage(case: Case) -> Iterator[Flag]:
    """LOW_COVERAGE: few of the summary's words stand in the note. NO_COMPRESSION: a note that asks for it was not shortened."""
    if case.coverage is not None and case.coverage < LOW_COVERAGE:
        yield Flag("LOW_COVERAGE")
    long_note = len(case.note_words) > USUAL_SUMMARY_WORDS
    if long_note and len(case.summary_words) >= NO_COMPRESSION * len(case.note_words):
        yield Flag("NO_COMPRESSION")


_CHECKS: dict[str, Callable[[Case], Iterator[Flag]]] = {
    "numbers": check_numbers,
    "units": check_units,
    "repetition": check_repetition,
    "truncation": check_truncation,
    "coverage": check_coverage,
}
CHECKS = tuple(_CHECKS)


def verify_batch(batch: NoteBatch, checks: Sequence[str] = CHECKS) -> NoteBatch:
    """Add VERIFY_FIELDS from the columns text, summary, evidence, finish and source_characters_cut.

    Counts notes by flag, notes with a flag that is not INFORMATIVE, and the histograms. A note that a check fails on becomes a rejection.
    """
    done: list[Checked] = []
    rejected: dict[int, Rejection] = {}
    columns = ("text", "summary", "evidence", "finish", "source_characters_cut")
    for index, (text, summary, evidence, finish, cut) in enumerate(zip(*map(batch.column, columns), strict=True)):
        try:
            done.append(check_summary(text, summary, evidence, checks, finish or "", cut or 0))
        except Exception:  # noqa: BLE001 - the per-note edge: a note must not take its shard down, and its text must not get into a message
            rejected[index] = batch.rejection(index, Stage.VERIFY, Reason.VERIFY_FAILED)
    added: dict[str, Sequence[Any]] = {
        "flags": [[asdict(flag) for flag in checked.flags] for checked in done],
        "coverage": [checked.coverage for checked in done],
        "density": [checked.density for checked in done],
        "compression": [checked.compression for checked in done],
    }
    return batch.reject(rejected).with_columns(VERIFY_FIELDS, added).counted(**_figures(done))


def _figures(done: Sequence[Checked]) -> dict[str, Any]:
    flags: dict[str, int] = defaultdict(int)
    flagged = 0
    for checked in done:
        codes = {flag.code for flag in checked.flags}
        flagged += bool(codes - INFORMATIVE)
        for code in codes:
            flags[code] += 1
    histograms = {
        "note_words": count_values("note_words", (checked.note_words for checked in done)),
        "summary_words": count_values("summary_words", (checked.summary_words for checked in done)),
        "coverage": count_values("coverage", (c.coverage for c in done if c.coverage is not None)),
        "compression": count_values("compression", (c.compression for c in done if c.compression is not None)),
    }
    return {"flags": dict(flags), "notes_flagged": flagged, "histograms": histograms}


class _Verify(beam.DoFn):  # type: ignore[misc]
    def __init__(self, checks: tuple[str, ...]) -> None:
        self._checks = checks

    def process(self, batch: NoteBatch) -> Iterator[NoteBatch]:
        yield timed("verify", lambda notes: verify_batch(notes, self._checks), batch)


class VerifySummaries(beam.PTransform):  # type: ignore[misc]
    """NoteBatch -> NoteBatch with VERIFY_FIELDS. Raises ValueError for an unknown check when it is made."""

    def __init__(self, checks: Sequence[str] = CHECKS) -> None:
        super().__init__()
        self._checks = known_checks(checks)

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        return batches | beam.ParDo(_Verify(self._checks))
