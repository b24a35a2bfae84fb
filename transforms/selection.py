"""The language of a selection model: a note with marked sentences in, a list of markers out, a summary again.

A selection model is a sequence-to-sequence model that does not write prose. Its source is the note with a marker token
before every sentence; what it writes is the markers of the sentences worth keeping, most important first. The summary
is those sentences in the order of the note, so it is fluent and grounded by construction.

    source   <l2><m0><p0> first sentence <m1><p1> second sentence ...
    output   <m4> <m0> <m11>
    summary  first sentence. fifth sentence. twelfth sentence.

`<mi>` names a sentence, `<pi>` tells its place in the note, `<li>` the length wanted. This module is pure text: it
knows no tokenizer and no model. Everything is deterministic. The order of output as importance follows the greedy
oracle of Nallapati et al. 2017 (SummaRuNNer, arXiv 1611.04230); markers as output follow the pointer idea of Vinyals
et al. 2015 (arXiv 1506.03134), written into an ordinary vocabulary.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path

from transforms.dialogue import is_dialogue
from transforms.model_format import FORMAT_FILE, read_format, write_format
from transforms.redundancy import Taken

FORMAT_VERSION = 1
OBJECTIVE = "selection"

_TOKENS_AROUND = 3  # begin of sequence, wanted length, end of sequence
_TOKENS_PER_UNIT = 2  # marker, place
_MIN_PLACES = 4

_HEADING_WORDS = 6  # at most, in a heading that stands by itself
_ENDS = (".", "!", "?", ";")

_MARKER = re.compile(r"<m(\d{1,6})>")
# What a note itself may hold that looks like one of our tokens; a space takes its meaning away.
_LOOKALIKE = re.compile(r"<(?=[mplMPL]\d{1,6}>)")

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class SelectionFormat:
    """How one selection model wants its source and how its output is read.

    n_markers: marker tokens `<m0>` ... it knows: the most units a source can have.
    n_places: place tokens `<p0>` ...
    length_bounds: ascending upper bounds in words of the length buckets; one bucket more than bounds.
    budget_words: words a summary should have.
    budget_share: at most this share (0-1] of the note's words, so that a short note is still shortened.
    max_source_tokens: tokens the model reads, special tokens included.
    max_new_tokens: markers it may write, end of sequence included.
    dialogue_words, dialogue_share: budget and share where the note is a conversation; None for the same as of any other note.
    auto_dtype: number format that `engine.dtype: auto` stands for; None for the fastest of the machine. (Sentences of like worth are told
    apart by little: rounded to int8 the default model chose others in most notes.)
    """

    n_markers: int
    n_places: int
    length_bounds: tuple[int, ...]
    budget_words: int
    budget_share: float
    max_source_tokens: int
    max_new_tokens: int
    dialogue_words: int | None = None
    dialogue_share: float | None = None
    auto_dtype: str | None = None

    def __post_init__(self) -> None:
        for name in ("n_markers", "budget_words", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.n_places < _MIN_PLACES:
            raise ValueError(f"n_places must be at least {_MIN_PLACES}, got {self.n_places}")
        if self.max_source_tokens <= _TOKENS_AROUND + _TOKENS_PER_UNIT:
            raise ValueError(f"max_source_tokens leaves no room for text: {self.max_source_tokens}")
        if self.auto_dtype not in (None, "float32", "bfloat16", "int8"):
            raise ValueError(f"auto_dtype must be float32, bfloat16 or int8, got {self.auto_dtype!r}")
        if self.dialogue_words is not None and self.dialogue_words < 1:
            raise ValueError(f"dialogue_words must be at least 1, got {self.dialogue_words}")
        for name in ("budget_share", "dialogue_share"):
            share = getattr(self, name)
            if share is not None and not 0 < share <= 1:
                raise ValueError(f"{name} must be in (0, 1], got {share}")
        if list(self.length_bounds) != sorted(set(self.length_bounds)):
            raise ValueError(f"length_bounds must ascend, got {self.length_bounds}")

    def tokens(self) -> list[str]:
        """Return every token the format adds to a vocabulary: markers, places, lengths."""
        return [
            *(f"<m{i}>" for i in range(self.n_markers)),
            *(f"<p{i}>" for i in range(self.n_places)),
            *(f"<l{i}>" for i in range(len(self.length_bounds) + 1)),
        ]


@dataclass(frozen=True, slots=True)
class MarkedSource:
    """What the engine reads, and what its markers mean.

    source: the marked text.
    units: character spans [start, end) of the note, one per marker in use, in order.
    first_marker: the marker of units[0]; the others follow, modulo n_markers.
    budget_words: words the summary may have; 0 for what `word_budget` gives.
    """

    source: str = field(repr=False)
    units: tuple[Span, ...]
    first_marker: int = 0
    budget_words: int = 0


@dataclass(frozen=True, slots=True)
class SelectedUnit:
    """One piece of a summary and where it stands in the note; characters, ends exclusive."""

    summary_start: int
    summary_end: int
    source_start: int
    source_end: int


@dataclass(frozen=True, slots=True)
class Selection:
    """A summary made of sentences of the note.

    text: the sentences in the order of the note, inner runs of white space made one space, joined by one space.
    units: one per sentence kept, in that order; `text[summary_start:summary_end]` is that piece.
    fallback: the output named no unit, so the first unit was taken.
    ignored: markers of the output that were repeated, or that name no unit.
    left_out: valid markers for which the word budget had no room, or whose sentences nearly repeat others of the summary.
    ranked: character spans of all units named, in the order of the output.
    """

    text: str = field(repr=False)
    units: tuple[SelectedUnit, ...]
    fallback: bool = False
    ignored: int = 0
    left_out: int = 0
    ranked: tuple[Span, ...] = field(default=(), repr=False)


def load_selection_format(folder: Path) -> SelectionFormat | None:
    """Read `chartmill.json` of a model folder; None if it has none or another objective: an ordinary model.

    Raises ValueError if the file is not readable as a format of this version.
    """
    values = read_format(folder, OBJECTIVE, FORMAT_VERSION)
    if values is None:
        return None
    values["length_bounds"] = tuple(values.get("length_bounds", ()))
    try:
        return SelectionFormat(**values)
    except TypeError as error:
        raise ValueError(f"{folder / FORMAT_FILE}: {error}") from None


def save_selection_format(fmt: SelectionFormat, folder: Path) -> None:
    """Write `chartmill.json` into a model folder."""
    write_format(folder, OBJECTIVE, FORMAT_VERSION, {name: getattr(fmt, name) for name in SelectionFormat.__slots__})


def fit_sentences(token_counts: Sequence[int], fmt: SelectionFormat) -> int:
    """Return how many leading sentences fit in `fmt.max_source_tokens`.

    token_counts: tokens of each sentence's text alone, without special tokens and markers. At least 1 is returned for
    a non-empty list: a first sentence that is too long by itself is for the engine to truncate. Never an overestimate:
    a source made by `mark_source` from that many sentences fits.
    """
    used = _TOKENS_AROUND
    for index, count in enumerate(token_counts):
        used += count + (_TOKENS_PER_UNIT if index < fmt.n_markers else 0)
        if used > fmt.max_source_tokens:
            return max(index, 1)
    return len(token_counts)


def merge_sentences(text: str, sentences: Sequence[Span], n_units: int) -> list[Span]:
    """Join neighbouring sentences until there are at most `n_units`; every sentence stays in exactly one unit.

    A bare heading always goes with what it stands over: by itself it says nothing. Then sentences are packed in order
    towards an equal share of characters each, so that a long list of short lines becomes units of similar length.
    Spans are characters [start, end). Raises ValueError if `n_units` < 1.
    """
    if n_units < 1:
        raise ValueError(f"n_units must be at least 1, got {n_units}")
    sentences = _with_headings(text, sentences)
    if len(sentences) <= n_units:
        return sentences
    units: list[Span] = []
    remaining = sum(end - start for start, end in sentences)
    first, size = 0, 0
    for index, (start, end) in enumerate(sentences):
        size += end - start
        free = n_units - len(units)
        full = size * free >= remaining and free > 1
        if full or len(sentences) - index - 1 < free:
            units.append((sentences[first][0], end))
            remaining -= size
            first, size = index + 1, 0
    if first < len(sentences):
        units.append((sentences[first][0], sentences[-1][1]))
    return units


def _with_headings(text: str, sentences: Sequence[Span]) -> list[Span]:
    """Sentences, those after bare headings begun at the first of these."""
    joined: list[Span] = []
    heading: int | None = None
    for start, end in sentences:
        first = start if heading is None else heading
        if _is_heading(text[start:end]):
            heading = first
        else:
            joined.append((first, end))
            heading = None
    return joined if heading is None else [*joined, (heading, sentences[-1][1])]


def _is_heading(piece: str) -> bool:
    words = piece.split()
    return len(words) <= _HEADING_WORDS and (piece.rstrip().endswith(":") or (piece.isupper() and not piece.rstrip().endswith(_ENDS)))


def mark_source(
    text: str,
    sentences: Sequence[Span],
    fmt: SelectionFormat,
    *,
    wanted_words: int | None = None,
    first_marker: int = 0,
) -> MarkedSource:
    """Build the string the engine reads from the sentences of a note.

    sentences: character spans [start, end) of `text`, ascending; more than `fmt.n_markers` are merged into units.
    wanted_words: length to ask for (default: what `word_budget` gives).
    first_marker: marker of the first unit; training moves it, so that every marker is learned.
    Text of the note that looks like a marker is made harmless.
    """
    units = tuple(merge_sentences(text, sentences, fmt.n_markers))
    wanted = word_budget(text, units, fmt) if wanted_words is None else wanted_words
    parts = [f"<l{wanted_bucket(wanted, fmt)}>"]
    for index, (start, end) in enumerate(units):
        marker = (first_marker + index) % fmt.n_markers
        place = place_of(index, len(units), fmt.n_places)
        parts.append(f"<m{marker}><p{place}> {_LOOKALIKE.sub('< ', _collapse(text, start, end))}")
    return MarkedSource(" ".join(parts), units, first_marker % fmt.n_markers, wanted)


def wanted_bucket(words: int, fmt: SelectionFormat) -> int:
    """Return the number of the length token for a summary of `words` words."""
    return bisect_left(fmt.length_bounds, words)


def word_budget(text: str, units: Sequence[Span], fmt: SelectionFormat) -> int:
    """Return how many words the summary of these units may have: at least 1. A conversation may have another budget than a note."""
    words = sum(len(text[start:end].split()) for start, end in units)
    most, share = fmt.budget_words, fmt.budget_share
    if (fmt.dialogue_words or fmt.dialogue_share) and is_dialogue(text):
        most, share = fmt.dialogue_words or most, fmt.dialogue_share or share
    return max(1, min(most, round(words * share)))


def expand_markers(output: str, marked: MarkedSource, text: str, fmt: SelectionFormat) -> Selection:
    """Turn what the model wrote into a summary.

    Units are taken in the order written, as `within_budget` tells, up to the budget of the source. Repeated, unknown
    and malformed markers are ignored and counted. If none is left, the first unit is the summary and `fallback` is set.
    A source without units gives an empty summary.
    """
    if not marked.units:
        return Selection("", (), fallback=True)
    ranked, ignored = _read_markers(output, marked, fmt)
    budget = marked.budget_words or word_budget(text, marked.units, fmt)
    kept = within_budget(ranked or [0], [text[start:end] for start, end in marked.units], budget)
    return replace(
        select_units(text, [marked.units[index] for index in kept]),
        fallback=not ranked,
        ignored=ignored,
        left_out=max(0, len(ranked) - len(kept)),
        ranked=tuple(marked.units[index] for index in ranked or [0]),
    )


def select_units(text: str, units: Sequence[Span]) -> Selection:
    """The summary that these units make: in the order of the note."""
    ordered = sorted(units)
    pieces = [_collapse(text, *unit) for unit in ordered]
    return Selection(" ".join(pieces), tuple(_located(pieces, ordered)))


def merge_rankings(text: str, rankings: Sequence[Sequence[Span]], budget: int) -> Selection:
    """Select up to `budget` words from several rankings of a note's units, by turns: the best of each, then the second of each.

    A unit that shares characters with one before is passed over; windows of a note overlap.
    """
    turns = dict.fromkeys(unit for turn in zip_longest(*rankings) for unit in turn if unit)
    units = list(_disjoint(turns))
    kept = within_budget(range(len(units)), [text[start:end] for start, end in units], budget)
    return select_units(text, [units[index] for index in kept])


def _disjoint(units: Iterable[Span]) -> Iterator[Span]:
    taken: list[Span] = []
    for unit in units:
        at = bisect_left(taken, unit)
        if (at == 0 or taken[at - 1][1] <= unit[0]) and (at == len(taken) or unit[1] <= taken[at][0]):
            taken.insert(at, unit)
            yield unit


def within_budget(ranked: Sequence[int], units: Sequence[str], budget: int) -> list[int]:
    """Return those of `ranked`, in order, that fill `budget` words; never empty unless `ranked` is.

    units: text of each unit, indexed by the values of `ranked`. The first is always taken; a later one is passed over if taking it would
    leave the total further from the budget than it is now, or if it says nearly what was taken (`transforms/redundancy.py`).
    """
    kept: list[int] = []
    total, taken = 0, Taken()
    for index in ranked:
        if total >= budget:
            break
        words = len(units[index].split())
        if kept and (total + words / 2 > budget or taken.repeats(units[index])):
            continue
        kept.append(index)
        total += words
        taken.add(units[index])
    return kept


def _read_markers(output: str, marked: MarkedSource, fmt: SelectionFormat) -> tuple[list[int], int]:
    """Return the indices of the units named, in order, and how many markers were ignored."""
    ranked: list[int] = []
    seen: set[int] = set()
    ignored = 0
    for match in _MARKER.finditer(output):
        marker = int(match.group(1))
        index = (marker - marked.first_marker) % fmt.n_markers
        if marker >= fmt.n_markers or index >= len(marked.units) or index in seen:
            ignored += 1
            continue
        seen.add(index)
        ranked.append(index)
    return ranked, ignored


def _located(pieces: Sequence[str], units: Sequence[Span]) -> Iterator[SelectedUnit]:
    start = 0
    for piece, (source_start, source_end) in zip(pieces, units, strict=True):
        yield SelectedUnit(start, start + len(piece), source_start, source_end)
        start += len(piece) + 1


def place_of(index: int, n_units: int, n_places: int) -> int:
    """Return the place token of a unit: the first and the last ones have their own, the others share by tenths.

    The outer quarter of the tokens on each side names units exactly, counted from that end (a short note gives the
    first ones precedence); the middle tokens divide what lies between evenly.
    """
    exact = n_places // 4
    if index < exact:
        return index
    if n_units - 1 - index < exact:
        return n_places - (n_units - index)
    middle = n_places - 2 * exact
    return exact + (index - exact) * middle // (n_units - 2 * exact)


def _collapse(text: str, start: int, end: int) -> str:
    return " ".join(text[start:end].split())
