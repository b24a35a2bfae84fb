"""What a text names, made ready to be asked whether it has what another text names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

from transforms.checks.wording import FUNCTION_WORDS
from transforms.lexicon import word_set
from transforms.terms import Term, fold_name, fold_word, parts, places

# Letters of a word that tell it from others: fracture, fractured, fracturing.
_ROOT = 5
# Roots that many names share: they tell no problem from another.
_GENERAL = word_set(
    "acute chron disea syndr disor left right sever pain type prima secon injur probl failu cance tumor neopl carci loss abnor dysfu",
    "distu sympt bilat infec defic lesio aller acqui bacte viral conge idiop hered high low blood",
)


class Naming:
    """The terms and words of one text."""

    def __init__(self, terms: Sequence[Term], words: Iterable[str]) -> None:
        self.terms = terms
        self._words = words

    def __repr__(self) -> str:
        return f"Naming({len(self.terms)} terms)"

    @cached_property
    def concepts(self) -> frozenset[str]:
        """What is named; of combined drugs each part."""
        return frozenset(part for term in self.terms for part in parts(term.concept))

    @cached_property
    def words(self) -> frozenset[str]:
        """The words as names are compared by."""
        return frozenset(map(fold_word, set(self._words)))

    @cached_property
    def _roots(self) -> frozenset[str]:
        return frozenset(word[:_ROOT] for word in self.words)

    @cached_property
    def _places(self) -> frozenset[str]:
        return frozenset(place for concept in self.concepts for place in places(concept))

    @cached_property
    def _above(self) -> frozenset[str]:
        return frozenset(above for place in self._places for above in _ancestors(place))

    def has(self, concept: str, name: str) -> bool:
        """Whether a problem or procedure is named, itself, by a kind of it or by what it is a kind of, or by a telling word of `name`."""
        if concept in self.concepts or any(map(self._has_relative, places(concept))):
            return True
        own = frozenset(word[:_ROOT] for word in fold_name(name).split() if word not in FUNCTION_WORDS)
        return own <= self._roots or not self._roots.isdisjoint(own - _GENERAL)

    def _has_relative(self, place: str) -> bool:
        return place in self._above or not self._places.isdisjoint(_ancestors(place))


def _ancestors(place: str) -> list[str]:
    """The places above one in the MeSH tree: C14 and C14.907 of C14.907.489."""
    steps = place.split(".")
    return [".".join(steps[:length]) for length in range(1, len(steps))]
