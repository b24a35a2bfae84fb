"""One step of the decoder for many rows: the tokens that they read now in, the logits of their next tokens out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch import Tensor

from transforms.engine.architecture import Architecture, DecoderLayer
from transforms.engine.memory import Past, SourceMemory, look_at_sources


@dataclass(frozen=True, slots=True)
class Rows:
    """The tokens of a step: `rows` in the past's memory, the position `at` of each; `places` is both as Python numbers. A row may come
    several times, with the positions that follow each other: keys and values of all are kept before any is looked at.

    `sources`: of each request, for `width` tokens in a row, or for as many as `counts` tells.
    """

    rows: Tensor
    at: Tensor
    places: Sequence[tuple[int, int]]
    sources: Sequence[SourceMemory] = field(repr=False)
    width: int
    counts: Sequence[int] = ()


class Decoder:
    def __init__(self, model: Architecture) -> None:
        self._model = model

    def __call__(self, tokens: Tensor, rows: Rows, past: Past, wanted: Tensor | None = None) -> Tensor:
        """Logits [n, vocabulary], float32, for tokens [n]; for those at the places `wanted` alone, if they are told."""
        model = self._model
        x = model.decoder_embedding(tokens, rows.at)
        step = self._pre_norm if model.pre_norm else self._post_norm
        for index, layer in enumerate(model.decoder_layers):
            x = step(index, layer, x, rows, past)
        x = model.decoder_norm(x if wanted is None else x[wanted])
        if model.head_scale != 1.0:
            x = x * model.head_scale
        return model.head(x).float()

    def _pre_norm(self, index: int, layer: DecoderLayer, x: Tensor, rows: Rows, past: Past) -> Tensor:
        own, cross, feed = layer.attention, layer.cross, layer.feed
        x = x + own.out(past.attend(index, own.qkv(own.norm(x)), rows.rows, rows.at, rows.places))
        x = x + cross.out(look_at_sources(self._model, index, cross.query(cross.norm(x)), rows.sources, rows.width, rows.counts))
        return x + feed(feed.norm(x))

    def _post_norm(self, index: int, layer: DecoderLayer, x: Tensor, rows: Rows, past: Past) -> Tensor:
        own, cross, feed = layer.attention, layer.cross, layer.feed
        x = own.norm(x + own.out(past.attend(index, own.qkv(x), rows.rows, rows.at, rows.places)))
        x = cross.norm(x + cross.out(look_at_sources(self._model, index, cross.query(x), rows.sources, rows.width, rows.counts)))
        return feed.norm(x + feed(x))
