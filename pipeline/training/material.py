"""What a task trains on: token ids, fixed or drawn anew each epoch, and how they are laid out as tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from transforms.engine.tokens import SourceTokenizer

IGNORED = -100  # as torch's cross-entropy has it

# Token ids of a source and of what is to be written, special tokens included, the decoder's start token not.
Drawn = tuple[list[int], list[int]]


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """The examples of one task.

    lengths: at most so many source and target tokens, shape (examples, 2). draw: an example's token ids; chance comes from the generator.
    given: leading target tokens that the decoder is given, so that nothing is learned from them. cut: examples that were too long.
    once: no token is written twice, which decoding sees to, so what has been written is no choice any more.
    offered: where decoding leaves only some tokens to choose, an example's choices before each target token.
    """

    name: str
    weight: float
    label_smoothing: float
    lengths: NDArray[np.int64] = field(repr=False)
    draw: Callable[[int, np.random.Generator], Drawn] = field(repr=False)
    given: int = 0
    cut: int = 0
    once: bool = False
    offered: Callable[[int], list[NDArray[np.int64]]] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.lengths)


def fixed(name: str, weight: float, smoothing: float, examples: Sequence[Drawn], given: int = 0, cut: int = 0) -> Material:
    """Material whose examples are the same in every epoch."""
    return Material(name, weight, smoothing, lengths_of(examples), lambda index, _: examples[index], given, cut)


def lengths_of(examples: Sequence[Drawn]) -> NDArray[np.int64]:
    """Shape (examples, 2)."""
    return np.array([(len(source), len(target)) for source, target in examples], dtype=np.int64).reshape(-1, 2)


@dataclass(frozen=True, slots=True)
class Tensors:
    """A batch. `source`, `mask`: (rows, source tokens). `decoder_input`, `labels`: (rows, target tokens), IGNORED: not learned.
    `choices`: (choices, 3), the row, the target token and the id of each token that may be written there; None: any token, anywhere.
    """

    source: Tensor = field(repr=False)
    mask: Tensor = field(repr=False)
    decoder_input: Tensor = field(repr=False)
    labels: Tensor = field(repr=False)
    choices: Tensor | None = field(default=None, repr=False)

    @property
    def learned(self) -> int:
        """Target tokens that count."""
        return int((self.labels != IGNORED).sum())

    @property
    def tokens(self) -> int:
        """Source and target tokens without padding."""
        return int(self.mask.sum()) + self.learned

    def to(self, device: torch.device) -> Tensors:
        values = [getattr(self, name) for name in self.__slots__]
        moved: list[Any] = [None if value is None else value.to(device, non_blocking=True) for value in values]
        return Tensors(*moved)


def batch_of(material: Material, indices: Sequence[int], codec: Codec, chance: Callable[[int], np.random.Generator]) -> Tensors:
    """Some examples of a task as a batch. `chance`: an example's own."""
    drawn = [material.draw(index, chance(index)) for index in indices]
    tensors = lay_out(drawn, codec.start, codec.pad, material.given)
    if material.offered is None:
        return tensors
    return replace(tensors, choices=_choices(list(map(material.offered, indices))))


def _choices(offered: Sequence[Sequence[NDArray[np.int64]]]) -> Tensor:
    places = [(row, place, ids) for row, steps in enumerate(offered) for place, ids in enumerate(steps)]
    return torch.from_numpy(np.concatenate([np.stack((np.full_like(i, r), np.full_like(i, p), i), axis=1) for r, p, i in places]))


def lay_out(drawn: Sequence[Drawn], start: int, pad: int, given: int = 0) -> Tensors:
    """Pad to the right; the decoder reads its start token and all but the last target token."""
    sources, targets = [source for source, _ in drawn], [target for _, target in drawn]
    labels = _padded([[*[IGNORED] * given, *target[given:]] for target in targets], IGNORED)
    inputs = _padded([[start, *target[:-1]] for target in targets], pad)
    mask = _padded([[1] * len(source) for source in sources], 0)
    return Tensors(_padded(sources, pad), mask, inputs, labels)


def _padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows], dtype=torch.long)


@dataclass(frozen=True, slots=True)
class Codec:
    """A model's tokenizer as the engine uses it, and for targets. `limit`: the most tokens of a source, special ones included."""

    tokenizer: Any = field(repr=False)
    sources: SourceTokenizer = field(repr=False)
    limit: int
    start: int
    end: int
    pad: int

    def source(self, ids: list[int], limit: int) -> list[int]:
        """With special tokens, cut so that all of it is at most `limit` tokens."""
        return self.sources.with_specials(ids[: max(1, limit - self.sources.special_count)])

    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids without special tokens. Texts that the tokenizer refuses come out empty."""
        return [ids if isinstance(ids, list) else [] for ids in self.sources.encode(texts)]

    def target(self, text: str, limit: int) -> tuple[list[int], bool]:
        """Ids to be written, the end included, and whether they were cut. A leading start token is left to the decoder."""
        ids = list(self.tokenizer(text_target=text)["input_ids"])
        ids = ids[1:] if ids[:1] == [self.start] and len(ids) > 1 else ids
        ids = ids if ids and ids[-1] == self.end else [*ids, self.end]
        return (ids, False) if len(ids) <= limit else ([*ids[: limit - 1], self.end], True)
