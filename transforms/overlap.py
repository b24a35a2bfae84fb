"""What two bodies of text share: words in a row, ids, hashes of ids. One is indexed, the other streams past. It knows nothing of files."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

# Words in a row that two texts do not share by chance.
SHINGLE = 5
# Shorter ids are not looked for, as they stand in any text; one without a digit may be an ordinary word.
SHORTEST_ID, SHORTEST_PLAIN_ID = 6, 12
# Of longer ids only this many words are compared.
LONGEST_RUN = 8
_WORD = re.compile(r"[^\W_]+")
_HASHES = ("md5", "sha1", "sha256")
# Hex digits that are compared, so that a hash that was cut short is found too.
_HASH_DIGITS = 16
_HEX = re.compile(r"[0-9a-f]{16,}")


def words_of(text: str) -> list[str]:
    """Letters and digits in a row, without case; `_` separates."""
    return _WORD.findall(text.casefold())


@dataclass(slots=True)
class Overlap:
    """Index texts with `add`, then stream the others past with `meet_text` and `meet_id`; `shared` counts what of a text was met."""

    _runs: set[str] = field(default_factory=set, repr=False)
    _hashes: set[str] = field(default_factory=set, repr=False)
    _met: dict[str, str] = field(default_factory=dict, repr=False)

    def add(self, text: str) -> None:
        words = words_of(text)
        self._runs.update(_runs(words))
        self._hashes.update(word[:_HASH_DIGITS] for word in words if _HEX.fullmatch(word))

    def meet_text(self, text: str) -> None:
        """Compare all runs of SHINGLE words, at least two of which are letters only."""
        words = words_of(text)
        for i in range(len(words) - SHINGLE + 1):
            run = " ".join(words[i : i + SHINGLE])
            if run in self._runs and sum(word.isalpha() for word in words[i : i + SHINGLE]) >= 2:
                self._met[run] = "text"

    def meet_id(self, value: str, kind: str = "id") -> None:
        """Compare an id, and its plain md5, sha1 and sha256: they can be undone by trying all ids."""
        if len(value) < (SHORTEST_ID if any(character.isdigit() for character in value) else SHORTEST_PLAIN_ID):
            return
        run = " ".join(words_of(value)[:LONGEST_RUN])
        if run in self._runs:
            self._met[run] = kind
        if self._hashes:
            self._meet_hashes(hashlib.new(name, value.encode("utf-8", "replace")).hexdigest() for name in _HASHES)

    def _meet_hashes(self, hashes: Iterable[str]) -> None:
        for digits in (value[:_HASH_DIGITS] for value in hashes):
            if digits in self._hashes:
                self._met[digits] = "hash of an id"

    def shared(self, text: str) -> Counter[str]:
        """How much of the text was met, by kind: text (in words), id, hash of an id, or another kind that `meet_id` was given."""
        if not self._met:
            return Counter()
        words = words_of(text)
        hashes = (word[:_HASH_DIGITS] for word in words if _HEX.fullmatch(word))
        return Counter(kind for found in (*_runs(words), *hashes) if (kind := self._met.get(found)))


def _runs(words: list[str]) -> Iterator[str]:
    """All runs of 1 to LONGEST_RUN words, joined by spaces, that are long enough to be compared."""
    for i in range(len(words)):
        for size in range(1, min(LONGEST_RUN, len(words) - i) + 1):
            run = " ".join(words[i : i + size])
            if len(run) >= SHORTEST_ID:
                yield run
