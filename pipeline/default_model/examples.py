"""Examples for a selection model: which sentences of a note a reference summary calls for.

A sentence is worth the unigrams and bigrams it shares with the reference, per word it costs; the target is a softmax of that
worth. So the model learns to rank, and to prefer dense sentences, which is what a summary with a word budget needs. (A
greedy oracle in the manner of Nallapati et al. 2017, arXiv 1611.04230, made soft and divided by length: trained on the
undivided gain, a linear ranker lost 2 points of ROUGE-1 to its longest sentences.) A teacher's view of each sentence comes beside.
"""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.default_model.teacher import Embed, Features, Teacher, features_of
from transforms.selection import SelectionFormat, Span, fit_sentences, merge_sentences
from transforms.sentences import split_sentences

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
Tokenize = Callable[[Sequence[str]], list[list[int]]]

# As rouge-score tokenises without stemming.
_ROUGE_WORD = re.compile(r"[a-z0-9]+")
_BIGRAM_WEIGHT = 2.0
_LENGTH_OFFSET = 3.0  # words added to every sentence's cost, so that two-word fragments do not win
_TEMPERATURE = 0.25


@dataclass(frozen=True, slots=True)
class Pair:
    """A note and its reference summary."""

    text: str = field(repr=False)
    reference: str = field(repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One note, ready to be sampled.

    unit_ids: token ids of each unit, no special tokens. words: words of each unit, shape (units,).
    counts: how often each unit holds each n-gram of the reference, shape (units, n-grams). limits: how often the
    reference holds it, shape (n-grams,). weights: worth of one such n-gram, shape (n-grams,).
    wanted_words: words of the reference. features: what a teacher is told of the units.
    """

    unit_ids: list[list[int]] = field(repr=False)
    words: IntArray = field(repr=False)
    counts: IntArray = field(repr=False)
    limits: IntArray = field(repr=False)
    weights: FloatArray = field(repr=False)
    wanted_words: int
    features: Features = field(repr=False)

    def subset(self, kept: Sequence[int]) -> "Example":
        """Return the example with only these units, in this order."""
        rows = list(kept)
        return Example(
            [self.unit_ids[i] for i in rows],
            self.words[rows],
            self.counts[rows],
            self.limits,
            self.weights,
            self.wanted_words,
            self.features.subset(rows),
        )

    @property
    def shared(self) -> NDArray[np.float64]:
        """What each unit shares with the reference, n-grams by their weights, shape (units,)."""
        return np.asarray(np.minimum(self.counts, self.limits) @ self.weights, np.float64)


def read_pairs(paths: Sequence[Path], text_column: str = "text", reference_column: str = "reference") -> list[Pair]:
    """Read notes with reference summaries from Parquet files; rows without either are left out."""
    import pyarrow.parquet as pq

    pairs = []
    for path in paths:
        table = pq.read_table(path, columns=[text_column, reference_column])
        columns = (table.column(name).to_pylist() for name in (text_column, reference_column))
        pairs += [Pair(text, reference) for text, reference in zip(*columns, strict=True) if text and reference]
    return pairs


def read_texts(sources: Sequence[str], max_rows: int) -> list[str]:
    """Read texts without references; a source is `FILE` or `FILE:COLUMN` (default column `text`).

    At most `max_rows` evenly spaced rows per file.
    """
    import pyarrow.parquet as pq

    texts: list[str] = []
    for source in sources:
        path, _, column = source.partition(":")
        values = pq.read_table(path, columns=[column or "text"]).column(0).to_pylist()
        step = max(1, len(values) // max_rows)
        texts += [value for value in values[::step][:max_rows] if value]
    return texts


def split_holdout(pairs: Sequence[Pair], n_holdout: int, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Return (training pairs, held-out pairs), drawn by `seed`. Raises ValueError if nothing is left to train on."""
    if not 0 <= n_holdout < len(pairs):
        raise ValueError(f"cannot hold out {n_holdout} of {len(pairs)} pairs")
    order = np.random.default_rng(seed).permutation(len(pairs))
    return [pairs[i] for i in order[n_holdout:]], [pairs[i] for i in order[:n_holdout]]


def note_units(text: str, fmt: SelectionFormat, tokenize: Tokenize) -> list[Span]:
    """Return the units of a note that the model can read: sentences, cut at its limit, then merged."""
    sentences = split_sentences(text)
    counts = [len(ids) for ids in tokenize([text[start:end] for start, end in sentences])]
    return merge_sentences(text, sentences[: fit_sentences(counts, fmt)], fmt.n_markers)


def make_example(pair: Pair, fmt: SelectionFormat, tokenize: Tokenize, embed: Embed) -> Example | None:
    """Turn a pair into an example; None if the note has fewer than two units or shares no word with the reference."""
    units = [pair.text[start:end] for start, end in note_units(pair.text, fmt, tokenize)]
    return _example(units, rouge_words(pair.reference), len(pair.reference.split()), tokenize, embed)


def rouge_words(text: str) -> list[str]:
    """Return the words ROUGE compares: lower-case runs of ASCII letters and digits."""
    return _ROUGE_WORD.findall(text.lower())


@dataclass(frozen=True, slots=True, eq=False)
class Collection:
    """Examples of one kind of text, with their own teacher. `share`: how much of the training is theirs, in any unit."""

    examples: list[Example] = field(repr=False)
    share: float
    teacher: Teacher = field(repr=False)


def make_collection(pairs: Sequence[Pair], share: float, fmt: SelectionFormat, tokenize: Tokenize, embed: Embed) -> Collection:
    """Prepare pairs. Raises ValueError if none of them can be learned from."""
    examples = [example for example in (make_example(pair, fmt, tokenize, embed) for pair in pairs) if example is not None]
    if not examples:
        raise ValueError(f"none of {len(pairs)} pairs can be learned from: their notes need two sentences, and words of the reference")
    return Collection(examples, share, Teacher.fit([(example.features, example.shared) for example in examples]))


def draw_example(collections: Sequence[Collection], position: int, seed: int) -> tuple[Collection, Example]:
    """The example at a position of the endless sequence that a seed gives: a collection by its share, then any of its examples."""
    rng = np.random.default_rng([seed, position, 3])
    shares = np.array([collection.share for collection in collections])
    collection = collections[int(rng.choice(len(collections), p=shares / shares.sum()))]
    return collection, collection.examples[int(rng.integers(len(collection.examples)))]


def drop_units(example: Example, share: float, rng: np.random.Generator) -> Example:
    """Return the example without a random share of its units, at least two kept: other places, other choices."""
    keep = np.flatnonzero(rng.random(len(example.words)) >= share)
    return example.subset(keep.tolist()) if len(keep) >= 2 else example


def first_targets(example: Example) -> FloatArray:
    """Return the target distribution over units for the first choice: a softmax of their worth, shape (units,)."""
    scores = unit_worth(example) / _TEMPERATURE
    powers = np.exp(scores - scores.max())
    targets: FloatArray = (powers / powers.sum()).astype(np.float32)
    return targets


def unit_worth(example: Example) -> FloatArray:
    """Return the worth of each unit by itself: n-grams shared with the reference per word it costs, shape (units,)."""
    worth: FloatArray = (example.shared / (example.words + _LENGTH_OFFSET)).astype(np.float32)
    return worth


def _example(units: Sequence[str], reference: Sequence[str], wanted_words: int, tokenize: Tokenize, embed: Embed) -> Example | None:
    grams = Counter(_grams(reference))
    if len(units) < 2 or not grams:
        return None
    index = {gram: column for column, gram in enumerate(grams)}
    counts = np.zeros((len(units), len(index)), dtype=np.int64)
    for row, unit in enumerate(units):
        for gram in _grams(rouge_words(unit)):
            if gram in index:
                counts[row, index[gram]] += 1
    if not counts.any():
        return None
    weights = np.array([1.0 if len(gram) == 1 else _BIGRAM_WEIGHT for gram in grams], dtype=np.float32)
    words = np.array([len(unit.split()) for unit in units], dtype=np.int64)
    limits = np.array(list(grams.values()), dtype=np.int64)
    return Example(tokenize(units), words, counts, limits, weights, wanted_words, features_of(units, embed))


def _grams(words: Sequence[str]) -> list[tuple[str, ...]]:
    return [*((word,) for word in words), *itertools.pairwise(words)]
