"""What a regular expression may begin with, read off its parse tree: the proof that `Phrases` passes over no match."""

from __future__ import annotations

import re
import string
from collections.abc import Iterable
from typing import Any

from transforms.words import OPENING

# The parser that `re` uses itself; only tests may lean on it.
_parser: Any = re._parser  # type: ignore[attr-defined]
_c: Any = re._constants  # type: ignore[attr-defined]
# (letters so far, whether no further letter can follow them)
Head = tuple[str, bool]
_OTHER = ""  # any character that is no letter a-z


def openings(pattern: str) -> frozenset[str]:
    """The first OPENING letters of the words that a match may begin with. Raises AssertionError for a match that may begin otherwise."""
    heads = _after({("", False)}, _parser.parse(pattern))
    assert all(letters and closed for letters, closed in heads), "a match begins with no letter, or ends within a word"
    return frozenset(letters for letters, _ in heads)


def _after(heads: set[Head], items: Iterable[tuple[Any, Any]]) -> set[Head]:
    for op, argument in items:
        heads = {done for head in heads for done in ([head] if head[1] else _grown(head, op, argument))}
    return heads


def _grown(head: Head, op: Any, argument: Any) -> set[Head]:
    match op:
        case _c.LITERAL:
            return {_with(head, chr(argument))}
        case _c.IN:
            return {_with(head, letter) for letter in _letters(argument)}
        case _c.BRANCH:
            return {done for branch in argument[1] for done in _after({head}, branch)}
        case _c.SUBPATTERN:
            return _after({head}, argument[3])
        case _c.MAX_REPEAT | _c.MIN_REPEAT:
            return _repeated(head, *argument)
        case _c.AT:
            return {(head[0], argument is _c.AT_BOUNDARY and head[0] != "")}
        case _c.ASSERT_NOT if argument[0] > 0 and argument[1][0][0] is _c.IN:
            return {(head[0], head[0] != "" and set(string.ascii_lowercase) <= _letters(argument[1][0][1]))}
        case _c.ASSERT | _c.ASSERT_NOT:
            return {head}
    raise AssertionError(f"not understood: {op}")


def _repeated(head: Head, low: int, high: int, items: Any) -> set[Head]:
    found = {head}
    reached = set(found) if low == 0 else set()
    for count in range(1, min(int(high), low + OPENING) + 1):
        found = _after(found, items)
        reached |= found if count >= low else set()
    return reached


def _with(head: Head, character: str) -> Head:
    if character not in string.ascii_lowercase or not character:
        return head[0], True
    letters = head[0] + character
    return letters, len(letters) == OPENING


def _letters(items: Any) -> set[str]:
    """The letters a-z among the characters of a class, and _OTHER for all else in it."""
    inside: set[str] = set()
    for op, argument in items:
        match op:
            case _c.LITERAL:
                inside |= {chr(argument)}
            case _c.RANGE:
                inside |= {chr(code) for code in range(argument[0], argument[1] + 1)}
            case _c.CATEGORY if argument is _c.CATEGORY_WORD:
                inside |= {*string.ascii_lowercase, _OTHER}
            case _c.CATEGORY:
                inside |= {_OTHER}
            case _c.NEGATE:
                raise AssertionError("a class that is told by what is not in it")
    return {character if character in string.ascii_lowercase else _OTHER for character in inside}
