"""What decoding keeps of sources and of its own past: keys and values, in memory that is laid out once and used again.

Row memory reads exactly the positions that a row has, one row after the other: nothing is padded, and a row's result does not depend on
its neighbours. That is what a CPU wants, where reading memory is most of a decode step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from transforms.engine.architecture import Architecture


@dataclass(slots=True)
class SourceMemory:
    """Keys and values of one encoded source: a pair for each decoder layer, each [1, heads, tokens, head width].

    `users`: how many requests decode from it. Beams and tasks share one.
    """

    buffer: Tensor = field(repr=False)
    layers: list[tuple[Tensor, Tensor]] = field(repr=False)
    tokens: int
    users: int = 0


class SourceBuffers:
    """Memory for sources: a returned buffer serves the next source that fits, so that long runs neither grow nor ask for pages anew."""

    def __init__(self, model: Architecture) -> None:
        self._model = model
        self._free: list[Tensor] = []

    def project(self, encoded: Tensor, lengths: Sequence[int]) -> list[SourceMemory]:
        """Keys and values of encoded tokens [sum of lengths, width], source by source."""
        model = self._model
        sources = [self._laid_out(length) for length in lengths]
        # All layers read the same input: it is brought into their form once.
        prepared = model.decoder_layers[0].cross.key_value.prepare(encoded)
        for index, layer in enumerate(model.decoder_layers):
            parts = torch.split(layer.cross.key_value.apply(prepared), list(lengths))
            for source, part in zip(sources, parts, strict=True):
                for kept, fresh in zip(source.layers[index], part.view(len(part), 2, model.heads, model.head_width).unbind(1), strict=True):
                    kept[0].copy_(fresh.transpose(0, 1))
        return sources

    def release(self, source: SourceMemory) -> None:
        """One user less; the last one gives the memory back."""
        source.users -= 1
        if not source.users:
            self._free.append(source.buffer)

    def _laid_out(self, length: int) -> SourceMemory:
        model = self._model
        size, layers = 2 * model.inner * length, len(model.decoder_layers)
        buffer = self._buffer(size * layers)
        kept = buffer[: size * layers].view(layers, 2, 1, model.heads, length, model.head_width)
        return SourceMemory(buffer, [(keys, values) for keys, values in map(Tensor.unbind, kept.unbind())], length)

    def _buffer(self, size: int) -> Tensor:
        """The smallest free buffer that fits; else the largest is let go for a new one."""
        self._free.sort(key=len)
        for index, buffer in enumerate(self._free):
            if len(buffer) >= size:
                return self._free.pop(index)
        if self._free:
            self._free.pop()
        return torch.empty(size, dtype=self._model.kept, device=self._model.device)


class Past:
    """Keys and values of what rows have decoded so far: [layers, 2, rows, heads, positions, head width]."""

    def __init__(self, model: Architecture, rows: int, positions: int) -> None:
        self._model = model
        shape = (len(model.decoder_layers), 2, rows, model.heads, positions, model.head_width)
        self._kept = torch.empty(shape, dtype=model.kept, device=model.device)
        # Views are dear beside the small sums of a step: those of single rows, each [1, heads, positions, head width], are made once.
        self._of_row = [[layer[:, row : row + 1].unbind() for row in range(rows)] for layer in self._kept]
        self._biases = None if model.decoder_biases is None else model.decoder_biases(positions).to(model.kept)
        self._positions = positions

    def attend(self, layer: int, qkv: Tensor, rows: Tensor, at: Tensor, places: Sequence[tuple[int, int]]) -> Tensor:
        """Keeps the keys and values of qkv [n, 3 * inner] for `rows` at positions `at`, and lets each row look at its own: [n, inner].

        `places`: rows and positions once more, as Python numbers.
        """
        model = self._model
        queries, keys, values = qkv.to(model.kept).view(-1, 3, model.heads, 1, model.head_width).unbind(1)
        kept_keys, kept_values = self._kept[layer]
        kept_keys[rows, :, at], kept_values[rows, :, at] = keys[:, :, 0], values[:, :, 0]
        looked = []
        for query, (row, position) in zip(torch.split(queries, 1), places, strict=True):
            past_keys, past_values = self._of_row[layer][row]
            past = past_keys.narrow(2, 0, position + 1), past_values.narrow(2, 0, position + 1)
            looked.append(scaled_dot_product_attention(query, *past, attn_mask=self._bias(position), scale=model.scale))
        return torch.cat(looked).view(-1, model.inner).to(qkv.dtype)

    def _bias(self, position: int) -> Tensor | None:
        """[1, heads, 1, position + 1] for a query at this position."""
        if self._biases is None:
            return None
        first = self._positions - 1 - position
        return self._biases[None, :, None, first : self._positions]

    def move(self, rows: Tensor, origins: Tensor, longest: int) -> None:
        """Row `rows[i]` goes on from what row `origins[i]` has kept, of which no row has more than `longest` positions."""
        moved = (rows != origins).nonzero().flatten()
        if len(moved):
            self._kept[:, :, rows[moved], :, :longest] = self._kept[:, :, origins[moved], :, :longest]


def look_at_sources(
    model: Architecture, layer: int, query: Tensor, sources: Sequence[SourceMemory], width: int, counts: Sequence[int] = ()
) -> Tensor:
    """query [requests * width, inner]: each request's rows look at its source together, which is read once for all of them.

    `counts`: how many tokens of its one row each request has, where they differ; query is [sum of counts, inner] then.
    """
    if counts:
        return _look_ahead(model, layer, query, sources, counts)
    n = len(query)
    queries = query.to(model.kept).view(n // width, width, model.heads, model.head_width).transpose(1, 2)
    looked = [
        scaled_dot_product_attention(mine, *source.layers[layer], scale=model.scale)
        for mine, source in zip(torch.split(queries, 1), sources, strict=True)
    ]
    return torch.cat(looked).transpose(1, 2).reshape(n, model.inner).to(query.dtype)


def _look_ahead(model: Architecture, layer: int, query: Tensor, sources: Sequence[SourceMemory], counts: Sequence[int]) -> Tensor:
    """Tokens of one row stand side by side within each head, as if they were heads that share keys and values. So a source is read once,
    and each token gets, to the bit, the numbers that it gets alone: as queries of one head they would be added up in another order."""
    queries = query.to(model.kept).view(-1, model.heads, 1, model.head_width)
    looked = []
    for mine, source in zip(torch.split(queries, list(counts)), sources, strict=True):
        keys, values = (kept.transpose(0, 1).expand(-1, len(mine), -1, -1) for kept in source.layers[layer])
        looked.append(scaled_dot_product_attention(mine.transpose(0, 1), keys, values, scale=model.scale).transpose(0, 1))
    return torch.cat(looked).reshape(-1, model.inner).to(query.dtype)
