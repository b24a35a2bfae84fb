"""Examples for a selection model: which sentences of a note a reference summary calls for.

A sentence is worth the unigrams and bigrams it shares with the reference, per word it costs; the target is a softmax of that
worth. So the model learns to rank, and to prefer dense sentences, which is what a summary with a word budget needs. (A
greedy oracle in the manner of Nallapati et al. 2017, arXiv 1611.04230, made soft and divided by length: trained on the
undivided gain, a linear ranker lost 2 points of ROUGE-1 to its longest sentences.)
"""

import itertools
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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
_MIN_NOTE_UNITS = 6  # shorter notes are not worth gathering from


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
    wanted_words: words of the reference.
    """

    unit_ids: list[list[int]] = field(repr=False)
    words: IntArray = field(repr=False)
    counts: IntArray = field(repr=False)
    limits: IntArray = field(repr=False)
    weights: FloatArray = field(repr=False)
    wanted_words: int

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
        )


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


def make_example(pair: Pair, fmt: SelectionFormat, tokenize: Tokenize) -> Example | None:
    """Turn a pair into an example; None if the note has fewer than two units or shares no word with the reference."""
    units = [pair.text[start:end] for start, end in note_units(pair.text, fmt, tokenize)]
    return _example(units, tokenize(units), rouge_words(pair.reference), len(pair.reference.split()))


def sample_window(unit_ids: Sequence[list[int]], rng: np.random.Generator) -> list[list[int]]:
    """Return 6 to 18 neighbouring units of a note, fewer if it has no more."""
    size = int(rng.integers(6, 19))
    first = int(rng.integers(0, max(1, len(unit_ids) - size + 1)))
    return list(unit_ids[first : first + size])


def rouge_words(text: str) -> list[str]:
    """Return the words ROUGE compares: lower-case runs of ASCII letters and digits."""
    return _ROUGE_WORD.findall(text.lower())


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """What is trained on: examples with references, and the units of notes without, as token ids."""

    examples: list[Example] = field(repr=False)
    notes: list[list[list[int]]] = field(repr=False)

    def indices(self, step: int, count: int, seed: int) -> Iterator[int]:
        """Yield the indices of `count` examples for a step, every example once per epoch, each epoch shuffled."""
        for position in range(step * count, (step + 1) * count):
            epoch, index = divmod(position, len(self.examples))
            yield int(np.random.default_rng([seed, 1_000_000 + epoch]).permutation(len(self.examples))[index])


def make_corpus(pairs: Sequence[Pair], texts: Sequence[str], fmt: SelectionFormat, tokenize: Tokenize) -> Corpus:
    """Prepare everything training draws from; the notes of pairs also serve as notes without references."""
    examples = [make_example(pair, fmt, tokenize) for pair in pairs]
    notes = []
    for text in [*(pair.text for pair in pairs), *texts]:
        units = [text[start:end] for start, end in note_units(text, fmt, tokenize)]
        if len(units) >= _MIN_NOTE_UNITS:
            notes.append(tokenize(units))
    return Corpus([example for example in examples if example is not None], notes)


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
    shared = np.minimum(example.counts, example.limits) @ example.weights
    worth: FloatArray = (shared / (example.words + _LENGTH_OFFSET)).astype(np.float32)
    return worth


def _example(units: Sequence[str], unit_ids: list[list[int]], reference: Sequence[str], wanted_words: int) -> Example | None:
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
    return Example(unit_ids, words, counts, np.array(list(grams.values()), dtype=np.int64), weights, wanted_words)


def _grams(words: Sequence[str]) -> list[tuple[str, ...]]:
    return [*((word,) for word in words), *itertools.pairwise(words)]
