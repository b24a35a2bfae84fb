"""Drugs, problems, procedures and tests named in a text, found by an open vocabulary: the longest name wins, one pass over the words.

It knows names and their synonyms, not meaning: neither negation nor who has the problem. Sources and licences of the names:
`transforms/vocabulary/README.md`; the file is built by `pipeline/build_vocabulary.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib import resources
from itertools import accumulate, pairwise

from transforms.words import by_alphabet

KINDS = ("drug", "problem", "procedure", "test")

_WORD = re.compile(r"(\w++(?:['\u2019]s\b)?+)")
_word_in = by_alphabet(_WORD)
# What ends a name: the words on either side of it do not belong together.
_BREAK = re.compile(r"[^\w\s'\u2019/-]|\n\s*\n")
_SPELLINGS = (
    ("haem", "hem"), ("aem", "em"), ("paed", "ped"), ("aesth", "esth"), ("rrhoea", "rrhea"), ("oedem", "edem"), ("oesoph", "esoph"),
    ("tumour", "tumor"), ("gynaec", "gynec"), ("faec", "fec"), ("leuco", "leuko"), ("oestr", "estr"), ("foet", "fet"), ("aetio", "etio"),
    ("isation", "ization"), ("sulph", "sulf"), ("pnoea", "pnea"), ("caec", "cec"), ("dyskinaes", "dyskines"),
)  # fmt: skip
# Greek plurals: -es stands for -is.
_GREEK = ("stases", "gnoses", "theses", "croses", "choses", "uroses", "lyses", "enoses", "boses", "rhoses", "physes", "leroses", "broses")


@dataclass(frozen=True, slots=True)
class Term:
    """A name in a text: characters, `end` exclusive. `kind`: one of KINDS. `concept`: the same for all names of one thing.

    The concept of a combined drug has its parts joined by "+".
    """

    start: int
    end: int
    kind: str
    concept: str = field(repr=False)


@dataclass(frozen=True, slots=True, repr=False)
class Vocabulary:
    """`names`: folded words, joined by blanks -> (kind, concept); a name in capitals counts only where the text has it in capitals.

    `heads`: first words of names -> second words of names -> words of the longest such name; no second words for names of one word.
    `trees`: concept -> its places in the MeSH tree of diseases, where it has any.
    """

    names: Mapping[str, tuple[str, str]]
    heads: Mapping[str, Mapping[str, int]]
    trees: Mapping[str, tuple[str, ...]]


@lru_cache(maxsize=65536)
def fold_word(word: str) -> str:
    """A word in lower case without possessive or plural ending, in American spelling: what names are compared by."""
    word = word.lower()
    if word.endswith(("'s", "\u2019s")):
        word = word[:-2]
    if "ae" in word or "oe" in word or "our" in word or "sulph" in word or "isation" in word or "leuco" in word:
        for british, american in _SPELLINGS:
            word = word.replace(british, american)
    return _singular(word)


def fold_name(name: str) -> str:
    """A name as `find_terms` looks it up: its folded words, joined by blanks. Names in capitals of one word stay as they are."""
    return " ".join(map(fold_word, _WORD.findall(name)))


def find_terms(text: str) -> list[Term]:
    """The terms of a text in order; none overlaps another. Linear in the length of the text."""
    return list(_terms(text))


def places(concept: str) -> tuple[str, ...]:
    """Where a problem stands in the MeSH tree of diseases ("C14.907.489"), once in each branch; none for what is not in it."""
    return vocabulary().trees.get(concept, ())


def parts(concept: str) -> list[str]:
    """The drugs of a combination; of anything else, itself."""
    return concept.split("+")


@cache
def vocabulary() -> Vocabulary:
    """The shipped vocabulary, read once per process: about 50 ms."""
    return parse_vocabulary(resources.files("transforms").joinpath("vocabulary", "terms.txt").read_text(encoding="utf-8"))


def parse_vocabulary(lines: str) -> Vocabulary:
    """Read lines of `kind|concept|trees|name|name...`; the first line that has a name keeps it. Lines with # are left out."""
    names: dict[str, tuple[str, str]] = {}
    heads: dict[str, dict[str, int]] = {}
    trees: dict[str, tuple[str, ...]] = {}
    for line in lines.splitlines():
        if line.startswith("#"):
            continue
        kind, concept, places, *found = line.split("|")
        if places:
            trees[concept] = tuple(places.split())
        entry = (kind, concept)
        for name in found:
            names.setdefault(name, entry)
            first, _, others = name.partition(" ")
            behind = heads.setdefault(fold_word(name) if name.isupper() and not others else first, {})
            if others:
                second = others.partition(" ")[0]
                behind[second] = max(behind.get(second, 0), name.count(" ") + 1)
    return Vocabulary(names, heads, trees)


# What a word says of names: folded; the second words of the names that it opens, None where it opens none; the name that it is by itself.
_Look = tuple[str, Mapping[str, int] | None, tuple[str, str] | None]
_NO_WORD: _Look = ("", None, None)


@lru_cache(maxsize=65536)
def _look(word: str) -> _Look:
    known, folded = vocabulary(), fold_word(word)
    alone = known.names.get(folded) or (known.names.get(word) if word.isupper() else None)
    behind = known.heads.get(folded)
    return (folded, behind, alone) if behind or (alone and behind is not None) else (folded, None, None)


def _terms(text: str) -> Iterator[Term]:
    pieces = _word_in(text).split(text)  # what stands between the words, and the words
    ends = list(accumulate(map(len, pieces)))
    looks = [*map(_look, pieces[1::2]), _NO_WORD]
    free = 0
    # Many ordinary words open a name, and few of them stand before the second word of one.
    opened = [
        (index, alone, behind.get(second, 0))
        for index, ((_, behind, alone), (second, _, _)) in enumerate(pairwise(looks))
        if behind is not None and (alone or second in behind)
    ]
    for index, alone, reach in opened:
        if index < free:
            continue
        length, entry = 1, alone
        if reach:
            folded = [folded for folded, _, _ in looks[index : index + reach]]
            unbroken = (named for named in _longer(folded) if not _BREAK.search(text, ends[2 * index], ends[2 * (index + named[0]) - 1]))
            length, entry = next(unbroken, (1, alone))
        if entry:
            yield Term(ends[2 * index], ends[2 * (index + length) - 1], *entry)
            free = index + length


def _longer(folded: Sequence[str]) -> Iterator[tuple[int, tuple[str, str]]]:
    """Number of words, kind and concept of the names of several words that the folded words begin with, the longest first."""
    names = vocabulary().names
    for length in range(len(folded), 1, -1):
        if entry := names.get(" ".join(folded[:length])):
            yield length, entry


def _singular(word: str) -> str:
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is", "os")):
        return word
    if word.endswith("as") and not word.endswith(("ias", "omas", "emas", "ulas")):  # pancreas
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(_GREEK):
        return word[:-2] + "is"
    return word[:-2] if word.endswith(("sses", "xes", "ches", "shes")) else word[:-1]
