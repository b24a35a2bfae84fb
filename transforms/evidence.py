"""From a quotation to the place in the note where it stands."""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import accumulate

from transforms.sections import fold

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
