"""Windows: the parts of a long text that a model with a limit reads one after the other, so that it reads all of it.

Pure: it knows where tokens and sentences stand, and no tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import ceil

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Window:
    """Characters [start, end) of a text, number `index` (from 0) of `count` windows.

    `pieces`: what it is made of, in order: the character spans of whole sentences, and of parts of those that no window can hold.
    """

    start: int
    end: int
    index: int
    count: int
    pieces: tuple[Span, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Piece:
    """Characters [start, end) that stay together, and their number of tokens."""

    start: int
    end: int
    tokens: int


def cut_windows(
    offsets: Sequence[Span], sentences: Sequence[Span], room: int, overlap: int = 0, marks: int = 0, most: int | None = None
) -> tuple[Window, ...]:
    """The windows of a text, in order.

    offsets: character spans [start, end) of the text's tokens, ascending. sentences: character spans, ascending; needed for any token.
    room: tokens per window, at least 1, with `marks` tokens more counted for every piece. overlap: sentences that neighbours share, as far
    as they fill no more than half a window. most: pieces per window. The windows are about equally long.
    Every token lies wholly in a window and every window goes further than the one before. A piece whose own tokens and marks exceed the
    room stands alone; so it goes for a single token only.
    """
    pieces = cut_pieces(offsets, sentences, max(1, room - marks))
    if not pieces:
        return ()
    least = ceil(room / most) if most else 0
    ranges = balance([max(piece.tokens + marks, least) for piece in pieces], room, overlap)
    spans = [tuple((piece.start, piece.end) for piece in pieces[first:last]) for first, last in ranges]
    bounds = [(min(start for start, _ in inner), max(end for _, end in inner)) for inner in spans]
    return tuple(Window(*bound, i, len(spans), inner) for i, (bound, inner) in enumerate(zip(bounds, spans, strict=True)))


def cut_pieces(offsets: Sequence[Span], sentences: Sequence[Span], room: int) -> list[Piece]:
    """Sentences with their tokens, those of more than `room` tokens cut at token boundaries into parts of about the same length.

    White space around a sentence goes with it where a token stands for it.
    """
    if not sentences:
        return []
    places = _spread(offsets)
    bounds = [*_first_tokens(places, sentences), len(places)]
    pieces: list[Piece] = []
    for (start, end), (first, last) in zip(sentences, pairwise(bounds), strict=True):
        if last - first > room:
            pieces += _parts(places, first, last, room)
        else:
            inner = places[first:last]
            pieces.append(Piece(min([start, *(s for s, _ in inner[:1])]), max([end, *(e for _, e in inner)]), last - first))
    return pieces


def _first_tokens(places: Sequence[Span], sentences: Sequence[Span]) -> Iterator[int]:
    """Index of the first token of each sentence; tokens before the first sentence belong to it."""
    token = 0
    for index, (start, _) in enumerate(sentences):
        while index and token < len(places) and places[token][1] <= start:
            token += 1
        yield token


def _parts(places: Sequence[Span], first: int, last: int, room: int) -> Iterator[Piece]:
    count = ceil((last - first) / room)
    cuts = [first + (last - first) * i // count for i in range(count + 1)]
    before = (-1, -1)
    for low, high in pairwise(cuts):
        # Several tokens may stand at one character. A part that begins at theirs would repeat the one before, or not get past it.
        start = places[low][0] if places[low][0] > before[0] else before[1]
        end = max(end for _, end in places[low:high])
        if end > before[1]:
            yield Piece(start, end, high - low)
            before = (start, end)


def _spread(offsets: Sequence[Span]) -> list[Span]:
    """Offsets with each token at a place of its own where a tokenizer gives several the same characters (all of a word); where a word
    has fewer characters than tokens, some of them share one."""
    spread = list(offsets)
    low = 0
    for high in range(1, len(spread) + 1):
        if high < len(spread) and offsets[high] == offsets[low]:
            continue
        start, end = offsets[low]
        if high - low > 1 and end - start > 1:
            cuts = [start + (end - start) * i // (high - low) for i in range(high - low + 1)]
            spread[low:high] = [(at, max(at + 1, to)) for at, to in pairwise(cuts)]
        low = high
    return spread


def balance(costs: Sequence[int], room: int, overlap: int) -> list[Span]:
    """`pack` with the least room that needs no more windows: the last one is not a crumb."""
    best = pack(costs, room, overlap)
    low, high = min(room, max(1, ceil(sum(costs) / len(best)))), room
    while low < high:
        middle = (low + high) // 2
        tried = pack(costs, middle, overlap)
        if len(tried) <= len(best):
            best, high = tried, middle
        else:
            low = middle + 1
    return best


def pack(costs: Sequence[int], room: int, overlap: int) -> list[Span]:
    """Ranges [first, last) over all items, each as long as the room allows, at least one item.

    A range begins up to `overlap` items before the end of the one before, as far as these cost at most half the room and leave enough of
    it for a new item. So at most about twice the items are in all ranges together.
    """
    ranges: list[Span] = []
    first = last = used = 0
    while last < len(costs):
        fresh = last
        while last < len(costs) and (last == fresh or used + costs[last] <= room):
            used += costs[last]
            last += 1
        ranges.append((first, last))
        first, used = _step_back(costs, first, last, room, overlap)
    return ranges


def _step_back(costs: Sequence[int], first: int, last: int, room: int, overlap: int) -> tuple[int, int]:
    """Where the range after [first, last) begins, and what the items that it shares cost."""
    free = min(room // 2, room - costs[last]) if last < len(costs) else 0
    back, shared = last, 0
    while back > first + 1 and last - back < overlap and shared + costs[back - 1] <= free:
        back -= 1
        shared += costs[back]
    return back, shared


def tokens_outside(offsets: Sequence[Span], windows: Sequence[Span]) -> int:
    """How many tokens lie wholly in none of the windows, spans [start, end) in ascending order."""
    outside = index = 0
    for start, end in _spread(offsets):
        # Windows that end before this token are of no use to later ones either.
        while index < len(windows) and windows[index][1] < end:
            index += 1
        outside += index == len(windows) or windows[index][0] > start
    return outside
