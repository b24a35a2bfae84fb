"""Which examples are computed together: batches under a token budget, a function of the seed alone, whatever the number of processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from math import ceil

import numpy as np
from numpy.typing import NDArray

from pipeline.training.material import Material

Integers = NDArray[np.int64]

# Examples that are sorted by length together: enough for little padding, few enough that batches stay mixed.
_POOL = 1024


@dataclass(frozen=True, slots=True)
class Batch:
    """Examples of one task that are computed at once. `epoch` counts from 0: noise is drawn anew in each."""

    epoch: int
    task: int
    examples: tuple[int, ...] = field(repr=False)


class BatchStream:
    """Epoch after epoch of batches, numbered from 0. Number n is the same however one came to it."""

    def __init__(self, materials: Sequence[Material], tokens_per_batch: int, seed: int) -> None:
        self._materials = materials
        self._tokens = tokens_per_batch
        self._seed = seed
        self._ends: list[int] = []
        self._epoch: tuple[int, list[Batch]] = (-1, [])

    def __getitem__(self, number: int) -> Batch:
        epoch = 0
        while self._end(epoch) <= number:
            epoch += 1
        return self._batches(epoch)[number - (self._ends[epoch - 1] if epoch else 0)]

    def count(self, epochs: float) -> int:
        """Batches of so many epochs, at least 1."""
        whole, part = int(epochs), epochs - int(epochs)
        full = self._end(whole - 1) if whole else 0
        return max(1, full + (ceil(part * len(self._batches(whole))) if part else 0))

    def _end(self, epoch: int) -> int:
        while len(self._ends) <= epoch:
            before = self._ends[-1] if self._ends else 0
            self._ends.append(before + len(self._batches(len(self._ends))))
        return self._ends[epoch]

    def _batches(self, epoch: int) -> list[Batch]:
        if self._epoch[0] != epoch:
            self._epoch = epoch, plan_epoch(self._materials, self._tokens, self._seed, epoch)
        return self._epoch[1]


def plan_epoch(materials: Sequence[Material], tokens: int, seed: int, epoch: int) -> list[Batch]:
    """The batches of an epoch in their order. Every example comes as often as its task's weight says."""
    batches = [
        Batch(epoch, task, examples)
        for task, material in enumerate(materials)
        for examples in _task_batches(material, tokens, np.random.default_rng([seed, epoch, task]))
    ]
    order = np.random.default_rng([seed, epoch, len(materials)]).permutation(len(batches))
    return [batches[i] for i in order]


def _task_batches(material: Material, tokens: int, rng: np.random.Generator) -> Iterator[tuple[int, ...]]:
    indices = _repeated(len(material), material.weight, rng)
    for start in range(0, len(indices), _POOL):
        yield from cut_batches(indices[start : start + _POOL], material.lengths, tokens)


def _repeated(count: int, weight: float, rng: np.random.Generator) -> Integers:
    """Every index `weight` times in drawn order; of a fraction, a drawn part, at least one index in all."""
    whole, part = int(weight), weight - int(weight)
    rounds = [rng.permutation(count) for _ in range(whole)]
    rounds.append(rng.permutation(count)[: max(round(part * count), 0 if whole else 1)])
    return np.concatenate(rounds).astype(np.int64)


def cut_batches(indices: Integers, lengths: Integers, tokens: int) -> Iterator[tuple[int, ...]]:
    """Examples of like lengths together, padded source and target tokens within `tokens`; a longer example is a batch by itself.

    lengths: source and target tokens of every example, shape (examples, 2).
    """
    order = indices[np.lexsort((lengths[indices, 1], lengths[indices, 0]))]
    batch: list[int] = []
    source = target = 0
    for index in order.tolist():
        wider, deeper = max(source, int(lengths[index, 0])), max(target, int(lengths[index, 1]))
        if batch and (len(batch) + 1) * (wider + deeper) > tokens:
            yield tuple(batch)
            batch, wider, deeper = [], int(lengths[index, 0]), int(lengths[index, 1])
        batch.append(index)
        source, target = wider, deeper
    if batch:
        yield tuple(batch)
