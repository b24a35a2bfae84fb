"""The encoder over several sources at once without padding: their tokens in one long row of rows, attention source by source."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from transforms.engine.architecture import Architecture, EncoderLayer

# Rows that go through a feed-forward layer together: what lies between its two matrices (4 bytes x 4,096 for BART-large) stays in a core's
# second-level cache. Measured best of 32 to 512.
_TILE = 64


class Encoder:
    """Sources in, for each its encoded tokens."""

    def __init__(self, model: Architecture) -> None:
        self._model = model
        self._biases: Tensor | None = None

    def __call__(self, sources: Sequence[Sequence[int]]) -> Tensor:
        """Encoded tokens of all sources one after the other: [sum of lengths, width]. Ids with special tokens; none may be empty."""
        model = self._model
        lengths = [len(ids) for ids in sources]
        ids = torch.tensor([token for source in sources for token in source], device=model.device)
        positions = torch.cat([torch.arange(length, device=model.device) for length in lengths])
        biases = self._relative(max(lengths))
        x = model.encoder_embedding(ids, positions)
        for layer in model.encoder_layers:
            x = self._layer(layer, x, lengths, biases)
        return model.encoder_norm(x)

    def _layer(self, layer: EncoderLayer, x: Tensor, lengths: list[int], biases: Tensor | None) -> Tensor:
        attention, feed = layer.attention, layer.feed
        if self._model.pre_norm:
            x = x + attention.out(self._attend(attention.qkv(attention.norm(x)), lengths, biases))
            return torch.cat([tile + feed(feed.norm(tile)) for tile in self._tiles(x)])
        x = attention.norm(x + attention.out(self._attend(attention.qkv(x), lengths, biases)))
        return torch.cat([feed.norm(tile + feed(tile)) for tile in self._tiles(x)])

    def _tiles(self, x: Tensor) -> Sequence[Tensor]:
        return torch.split(x, _TILE) if self._model.device == "cpu" else (x,)

    def _attend(self, qkv: Tensor, lengths: list[int], biases: Tensor | None) -> Tensor:
        """[tokens, 3 * inner] to [tokens, inner]: each token looks at those of its own source."""
        heads = self._model.encoder_heads
        looked = []
        for part in torch.split(qkv, lengths):
            q, k, v = part.view(1, len(part), 3, heads, -1).permute(2, 0, 3, 1, 4)
            bias = None if biases is None else biases[None, :, : len(part), : len(part)]
            looked.append(
                scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=self._model.encoder_scale)[0].transpose(0, 1).flatten(1)
            )
        return torch.cat(looked)

    def _relative(self, length: int) -> Tensor | None:
        """Biases [heads, n, n] for n of at least `length`, kept: those of a shorter source are a corner of a longer one's."""
        biases = self._model.encoder_biases
        if biases is None:
            return None
        if self._biases is None or self._biases.shape[1] < length:
            # Row i of the matrix is the window of the list of distances that begins at -i.
            self._biases = biases(length).unfold(1, length, 1).flip(1).contiguous()
        return self._biases
