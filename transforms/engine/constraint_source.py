"""What a source offers for copying: a graph of its tokens, with the places where a span may begin and end.

A span consists of whole units (see `constraint_words`), begins with none of . , ; : ! ? ) ] } and ends with none of , ; : ( [ {, and runs
over no blank line.

A node is a token; its edges say what may follow in a span. Most nodes are the source's tokens in a row. A written value may be cut into
tokens in another way than the source (after a tag a word has a space before it, at the start of a line it has none; a word before a
bracket may share a token with it), so where that is so there are chains of other tokens for the same characters beside them. It knows
nothing of grammars or models.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from transforms.engine import Tokenized
from transforms.engine.constraint_automaton import HYPHENED, NEVER, NUMBER
from transforms.engine.constraint_words import units_of

# Texts to tokens with offsets.
Tokenize = Callable[[Sequence[str]], Sequence[Tokenized]]
# A node with the character where its span begins.
Place = tuple[int, int]

_WORD = re.compile(r"\S+")
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n")
# Signs that begin no span, and that end none.
_CLOSING, _OPENING = frozenset(".,;:!?)]}"), frozenset(",;:([{")
# Longer words, and units past these in one, are offered as the source has them only: the work stays linear in the text.
_LONGEST_WORD, _MOST_UNITS = 64, 6


@dataclass(slots=True)
class Nodes:
    """By node: token id, characters [start, end) that it stands for (none: start = end), the nodes that may follow, and whether a token
    boundary lies before and after it (a character may be made of several tokens)."""

    ids: list[int] = field(default_factory=list, repr=False)
    starts: list[int] = field(default_factory=list, repr=False)
    ends: list[int] = field(default_factory=list, repr=False)
    followers: list[tuple[int, ...]] = field(default_factory=list, repr=False)
    closed: list[bool] = field(default_factory=list, repr=False)

    def add(self, token: int, start: int, end: int, followers: tuple[int, ...], closed: bool) -> int:
        self.ids.append(token)
        self.starts.append(start)
        self.ends.append(end)
        self.followers.append(followers)
        self.closed.append(closed)
        return len(self.ids) - 1


@dataclass(frozen=True, slots=True)
class View:
    """What there is of one kind. `entries`: first token to the places that it opens; `firsts`: by character, the first tokens of the spans
    that begin there; `nearest`: of each first token the fewest tokens of a span; `to_end`: by node, tokens after it to the nearest end of a
    span; `single`: a span ends where it first can."""

    entries: dict[int, tuple[Place, ...]] = field(repr=False)
    firsts: dict[int, list[int]] = field(repr=False)
    nearest: dict[int, float] = field(repr=False)
    to_end: list[float] = field(repr=False)
    single: bool


class Source:
    """The graph of characters `span` [start, end) of a text. `tokens`: the text's, as many as the model reads. `banned`: tokens that are
    not copied. `kinds`: of views that will be asked for. `alike`: a word has the same tokens wherever it stands, so that none but the
    source's own are needed."""

    def __init__(
        self,
        text: str,
        span: tuple[int, int],
        tokens: Tokenized,
        banned: Collection[int],
        kinds: Collection[str],
        tokenize: Tokenize,
        alike: bool,
    ) -> None:
        self._text, self._span, self._banned = text, span, banned
        self._units = units_of(text)
        self._unit_starts = sorted(self._units.ends)
        self._hyphens = frozenset(self._units.hyphens if HYPHENED in kinds else ())
        self._count = len(tokens)
        self._raw = tokens.offsets
        self._raw_ends = [end for _, end in tokens.offsets]
        self.nodes = Nodes()
        # By source token: all chains of the word after it, and the first nodes of those that begin with the word.
        self._chains: dict[int, list[range]] = {}
        self._next_words: dict[int, list[int]] = {}
        self._heads: list[tuple[int, int]] = []
        self._lay_out(tokens)
        if not alike:
            self._add_chains(tokenize)
        self._views: dict[str, View] = {}

    def view(self, kind: str) -> View:
        if kind not in self._views:
            self._views[kind] = self._view(kind)
        return self._views[kind]

    def _lay_out(self, tokens: Tokenized) -> None:
        """The source's own tokens as nodes 0 to n - 1."""
        cuts = self._cuts(tokens.offsets, 0, len(self._text))
        cut_ends = [end for _, end in cuts]
        self._breaks = {bisect_right(cut_ends, blank.start()) for blank in _BLANK_LINE.finditer(self._text)}
        copied = [self._is_copied(token, cut) for token, cut in zip(tokens.ids, cuts, strict=True)]
        for i, (token, (start, end)) in enumerate(zip(tokens.ids, cuts, strict=True)):
            last = i + 1 == self._count
            followers = () if last or not copied[i + 1] or not copied[i] or i + 1 in self._breaks else (i + 1,)
            self.nodes.add(token, start, end, followers, last or cuts[i + 1][0] >= end)
        self._copied = copied
        self._heads = [(i, start) for i, start in self._openings(cuts) if copied[i]]

    def _is_copied(self, token: int, cut: tuple[int, int]) -> bool:
        return token not in self._banned and self._span[0] <= cut[0] and cut[1] <= self._span[1]

    def _openings(self, cuts: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Tokens that may open a span, with the character where it begins: a token of its own for the space before it counts too."""
        found = []
        for i, (start, end) in enumerate(cuts):
            if start == end or (i and cuts[i - 1][1] > start):
                continue
            found.append((i, start))
            if i and cuts[i - 1][0] == cuts[i - 1][1] and self._text[self._raw[i - 1][0] : start] in (" ", ""):
                found.append((i - 1, start))
        return found

    def _add_chains(self, tokenize: Tokenize) -> None:
        wanted = list(self._wanted())
        texts = list(dict.fromkeys(self._text[start:end] for start, end, _ in wanted))
        made = dict(zip(texts, tokenize([f" {text}" for text in texts]), strict=True))
        tails = [self._add_chain(start, end, joins, made[self._text[start:end]]) for start, end, joins in wanted]
        for tail, after in (found for found in tails if found):
            self.nodes.followers[tail] = (after + 1, *self._next_words.get(after, ()))
        for before, firsts in self._next_words.items():
            self.nodes.followers[before] += tuple(firsts)

    def _wanted(self) -> list[tuple[int, int, bool]]:
        """Characters [start, end) within one word whose tokens after a space the source does not have; whether they reach its end."""
        spaced = {start for i, start in self._heads if start and self._text[start - 1] == " "}
        token_ends = {end for end, closed in zip(self.nodes.ends, self.nodes.closed, strict=True) if closed}
        wanted = []
        # The model may have read less than the text.
        read = self.nodes.ends[self._count - 1] if self._count else 0
        low, high = self._span
        for word in _WORD.finditer(self._text, low, high):
            if len(word[0]) > _LONGEST_WORD or word.end() > read:
                continue
            units = self._units_in(word.start(), word.end())
            for start in (start for start, _ in units if start not in spaced):
                wanted.append((start, word.end(), True))
            for end in (end for _, end in units if end not in token_ends and end < word.end()):
                wanted += [(start, end, False) for start, _ in units if start < end]
        return wanted

    def _units_in(self, start: int, end: int) -> list[tuple[int, int]]:
        """The first units of a word, those at whose hyphens a span may begin or end in parts."""
        ends = self._units.ends
        found: list[tuple[int, int]] = []
        while start < end and len(found) < _MOST_UNITS:
            stop = ends.get(start, start + 1)
            if start in ends:
                cuts = [at for at in range(start, stop) if at in self._hyphens]
                found += [*zip([start, *(at + 1 for at in cuts)], [*cuts, stop], strict=True)]
            start = stop
        return found

    def _add_chain(self, start: int, end: int, joins: bool, tokens: Tokenized) -> tuple[int, int] | None:
        """If the source goes on after it: the chain's last node, and the source's token that the chain ends with."""
        if not tokens.ids or any(token in self._banned for token in tokens.ids):
            return None
        moved = [(max(start, a + start - 1), max(start, b + start - 1)) for a, b in tokens.offsets]
        cuts = self._cuts(moved, start, end)
        at = bisect_left(self._raw, (end, end)) if joins else self._count
        # The source goes on from here only if one of its tokens begins.
        joins = 0 < at < self._count and at not in self._breaks and self._copied[at] and self._raw[at - 1][1] <= end
        first = len(self.nodes.ids)
        for i, (token, (a, b)) in enumerate(zip(tokens.ids, cuts, strict=True)):
            last = i + 1 == len(cuts)
            self.nodes.add(token, a, b, () if last else (first + i + 1,), last or cuts[i + 1][0] >= b)
        self._heads.append((first, start))
        spaced = start > 0 and self._text[start - 1] == " "
        # The chain's first token holds the space.
        before = bisect_right(self._raw_ends, start - spaced) - 1
        self._chains.setdefault(before, []).append(range(first, first + len(cuts)))
        if before >= 0 and spaced and self._raw_ends[before] == start - 1 and self._copied[before]:
            self._next_words.setdefault(before, []).append(first)
        return (len(self.nodes.ids) - 1, at - 1) if joins else None

    def _view(self, kind: str) -> View:
        starts, ends = self._bounds(kind)
        to_end = self._to_end(ends, self._inside_numbers() if kind == NUMBER else None)
        entries: dict[int, list[Place]] = {}
        firsts: dict[int, list[int]] = {}
        for node, start in self._heads:
            if start in starts and to_end[node] < NEVER:
                entries.setdefault(self.nodes.ids[node], []).append((node, start))
                firsts.setdefault(start, []).append(self.nodes.ids[node])
        nearest = {token: 1 + min(to_end[node] for node, _ in places) for token, places in entries.items()}
        return View({token: tuple(places) for token, places in entries.items()}, firsts, nearest, to_end, kind == NUMBER)

    def _bounds(self, kind: str) -> tuple[Collection[int], Collection[int]]:
        """Characters where a span of this kind may begin, and where it may end."""
        units = self._units
        if kind == NUMBER:
            return units.numbers, {units.ends[start] for start in units.numbers}
        text = self._text
        starts = {start for start, end in units.ends.items() if text[start] not in _CLOSING or text[end - 1].isalnum()}
        ends = {end for start, end in units.ends.items() if text[end - 1] not in _OPENING}
        if kind == HYPHENED:
            starts.update(place + 1 for place in units.hyphens)
            ends.update(units.hyphens)
        return starts, ends

    def _inside_numbers(self) -> list[bool]:
        """By node: whether all of its characters belong to one number."""
        number = {at: start for start in self._units.numbers for at in range(start, self._units.ends[start])}
        pairs = zip(self.nodes.starts, self.nodes.ends, strict=True)
        return [start in number and number[start] == number.get(max(start, end - 1)) for start, end in pairs]

    def _to_end(self, ends: Collection[int], among: Sequence[bool] | None) -> list[float]:
        """By node, tokens after it to the nearest end. `among`: nodes that may be used."""
        nodes = self.nodes
        to_end: list[float] = [NEVER] * len(nodes.ids)

        def settle(node: int) -> None:
            if among is not None and not among[node]:
                return
            if nodes.closed[node] and nodes.ends[node] > nodes.starts[node] and nodes.ends[node] in ends:
                to_end[node] = 0
            else:
                to_end[node] = min((1 + to_end[follower] for follower in nodes.followers[node]), default=NEVER)

        # Backwards, so that what follows is settled first.
        for source in range(self._count - 1, -2, -1):
            for chain in self._chains.get(source, ()):
                for node in reversed(chain):
                    settle(node)
            if source >= 0:
                settle(source)
        return to_end

    def _cuts(self, offsets: Sequence[tuple[int, int]], first: int, last: int) -> list[tuple[int, int]]:
        """The characters that the tokens of characters [first, last) stand for: without white space, and with those of a unit that the
        tokenizer drops at its edges (marks, for one) given to the token next to them."""
        cuts = [_trimmed(self._text, start, end) for start, end in offsets]
        for i, (start, end) in enumerate(cuts):
            if start == end:
                continue
            low = cuts[i - 1][1] if i else first
            high = cuts[i + 1][0] if i + 1 < len(cuts) else last
            if low < start and not self._text[start - 1].isspace():
                start = max(low, self._unit_around(start)[0])
            if end < high and not self._text[end].isspace():
                end = min(high, self._unit_around(end)[1])
            cuts[i] = start, end
        return cuts

    def _unit_around(self, place: int) -> tuple[int, int]:
        """The unit that has characters on both sides of a place; if none has, nothing: the place itself."""
        index = bisect_left(self._unit_starts, place) - 1
        if index < 0:
            return place, place
        start = self._unit_starts[index]
        end = self._units.ends[start]
        return (start, end) if place < end else (place, place)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Without the white space around it; nothing but white space: empty, where it ends."""
    if start < end and (text[start].isspace() or text[end - 1].isspace()):
        inner = text[start:end]
        start += len(inner) - len(inner.lstrip())
        end = max(start, start + len(inner.strip()))
    return start, end
