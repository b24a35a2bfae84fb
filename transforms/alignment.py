"""Which sentences of a note a rewritten sentence was made from, by the words and numbers that they share. Knows no grammar and no synonyms.

The choice is the greedy one of Nallapati et al. 2017 (SummaRuNNer, arXiv 1611.04230) for a weighted coverage of words. That is submodular,
so greedy reaches at least 1 - 1/e of the best (Lin & Bilmes 2011, ACL P11-1052). The fewer of the note's sentences hold a word, the more it
weighs.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

from transforms.sections import fold

Span = tuple[int, int]
# (index of a source sentence, score 0-1), the best first.
Support = list[tuple[int, float]]

MAX_SOURCES = 3

# Sum of what the chosen sentences add, as a share of the sentence's weight. Below it the sentence counts as unsupported.
# From the 497 reference summaries of MultiClinSum gold_train (zenodo 15459174): of their sentences 92 % stay below it when compared with
# another patient's report, 8 % with their own; on the 95 of gold_dev, which did not choose it, 91 % and 14 %.
MIN_SUPPORT = 0.30
# A second or third sentence must add this share, or it is no evidence but chance.
_MIN_GAIN = 0.07

_WORD = re.compile(r"[^\W_]+(?:[.,'\u2019/-][^\W_]+)*")
# Words are compared without the endings of inflection and by their first letters, which serves for derivation ("hypertension" and
# "hypertensive"). A longer list of suffixes did not tell right from wrong reports better.
_ENDING = re.compile(r"(?<=[a-z]{3})(?:ing|ed|es|s|e)$")
_STEM_LETTERS = 7
_FUNCTION_WORDS = frozenset(
    """
    a an the and or nor but of to in on at for with without by from as is are was were be been being am this that these those it its he she
    his her hers him they them their we us our i my me you your who whom whose which what when where why how while after before during then
    than there here also not no so if into over under up down out off about above below between through due because however both each
    other such any all some more most had has have having do does did done can could may might will would shall should must one two
    """.split()
)
# Stand in nearly every note, so that sharing them says little of where a sentence comes from. Compiled for this project.
_EVERYDAY_WORDS = frozenset(
    """
    patient patients year years old year-old male female man woman case report presented presentation reported revealed showed shown found
    noted diagnosed diagnosis history treatment treated clinical medical findings symptoms underwent performed admitted discharged follow-up
    followup month months week weeks day days hospital initial initially following subsequently further significant normal came come went go
    gone got get given give made make taken take took seen started began became well good
    """.split()
)
_EVERYDAY_WEIGHT = 0.3


def lexical_support(text: str, sentences: Sequence[Span], rewritten: Sequence[str]) -> list[Support | None]:
    """For each rewritten sentence up to MAX_SOURCES of the note's sentences, with the share (0-1) of its weight that each holds.

    Empty where they stay below MIN_SUPPORT together; None where a rewritten sentence has no content words, and so states nothing.
    """
    asked = [_stems(fold(sentence)) for sentence in rewritten]
    index = _SentenceIndex(text, sentences, {stem for stems in asked for stem in stems})
    return [index.support(stems) for stems in asked]


class _SentenceIndex:
    """The sentences of one note by those of their words that are asked for."""

    def __init__(self, text: str, sentences: Sequence[Span], asked: set[str]) -> None:
        self._holders: dict[str, list[int]] = defaultdict(list)
        self._count = len(sentences)
        folded = fold(text)
        for index, (start, end) in enumerate(sentences):
            for stem in asked.intersection(map(_stem, _WORD.findall(folded[start:end]))):
                self._holders[stem].append(index)

    def support(self, stems: Iterable[str]) -> Support | None:
        weights = {stem: self._weight(stem) for stem in stems}
        total = sum(weights.values())
        if not total:
            return None
        chosen, held = self._chosen(weights, _MIN_GAIN * total)
        if held < MIN_SUPPORT * total:
            return []
        own = self._held(weights)
        return sorted(((index, min(own[index] / total, 1.0)) for index in chosen), key=lambda pair: -pair[1])

    def _chosen(self, weights: Mapping[str, float], least: float) -> tuple[list[int], float]:
        """Sentences picked one by one for what they add, the earliest of equals, and the weight that they hold together."""
        left = dict(weights)
        chosen: list[int] = []
        held = 0.0
        while len(chosen) < MAX_SOURCES and (gains := self._held(left)):
            best = max(gains, key=lambda index: (gains[index], -index))
            if chosen and gains[best] < least:
                break
            chosen.append(best)
            held += gains[best]
            left = {stem: weight for stem, weight in left.items() if best not in self._holders.get(stem, ())}
        return chosen, held

    def _held(self, weights: Mapping[str, float]) -> dict[int, float]:
        held: dict[int, float] = defaultdict(float)
        for stem, weight in weights.items():
            for index in self._holders.get(stem, ()):
                held[index] += weight
        return held

    def _weight(self, stem: str) -> float:
        # A word that the note lacks weighs as much as its rarest.
        rarity = math.log1p(self._count / len(self._holders.get(stem, "1")))
        return rarity * _EVERYDAY_WEIGHT if stem in _EVERYDAY_STEMS else rarity


def _stems(folded: str) -> dict[str, None]:
    """The content words of a text in lower case, shortened, and its numbers, in order of appearance, each once."""
    found = dict.fromkeys(map(_stem, _WORD.findall(folded)))
    found.pop("", None)
    return found


@lru_cache(maxsize=32_768)
def _stem(word: str) -> str:
    """Empty for a function word; numbers, doses and dates stay whole."""
    if word in _FUNCTION_WORDS:
        return ""
    if not word.isalpha():
        return word
    stem = _ENDING.sub("", word)
    # "stopped": the doubled consonant goes with the ending.
    doubled = len(stem) < len(word) and len(stem) > 3 and stem[-1] == stem[-2] and stem[-1] not in "ls"
    return stem[: min(_STEM_LETTERS, len(stem) - doubled)]


_EVERYDAY_STEMS = frozenset(map(_stem, _EVERYDAY_WORDS))
