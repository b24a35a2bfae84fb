"""Telling FHIR from other JSON by the first level of a text's first object. It reads no more of the text than that."""

from __future__ import annotations

import re
from typing import NamedTuple

_MARK = re.compile(r'["{}\[\]]')
_IN_STRING = re.compile(r'[^"\\]*')
# The value may be cut off, or be no string.
_RESOURCE_TYPE = re.compile(r'"resourceType"\s*(?:\Z|:\s*"?(\w*))')


class FirstObject(NamedTuple):
    """`resource_type`: of the FHIR resource that it is, empty if that is cut off, None where it is none.

    `is_told`: whether the text goes on to where that is certain.
    """

    resource_type: str | None
    is_told: bool = True

    @property
    def format(self) -> str:
        return "jsonl" if self.resource_type is None else "fhir"


def first_object(head: str) -> FirstObject:
    """`head` is the beginning of a file, cut anywhere.

    A resource names its type in its first level, often first and often last; a note whose text quotes one does not.
    """
    text = head.lstrip("\ufeff \t\r\n").removeprefix("[").lstrip()
    if not text.startswith("{"):
        return FirstObject(None)
    depth = position = 0
    while found := _MARK.search(text, position):
        position = found.end()
        if found[0] == '"':
            if depth == 1 and (named := _RESOURCE_TYPE.match(text, found.start())):
                return FirstObject(named[1] or "")
            position = _after_string(text, position)
            continue
        depth += 1 if found[0] in "{[" else -1
        if depth <= 0:
            return FirstObject(None)
    return FirstObject(None, is_told=False)


def _after_string(text: str, position: int) -> int:
    """Where the string ends in which `position` lies."""
    while True:
        position = _IN_STRING.match(text, position).end()  # type: ignore[union-attr]
        if not text.startswith("\\", position):
            return position + 1
        position += 2
