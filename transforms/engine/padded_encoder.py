"""The encoder over sources of like length as one rectangle, for devices where a launch costs more than padding does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from transforms.engine.architecture import Architecture
from transforms.engine.encoder import Encoder

# Sources run together while the shortest has at least this share of the longest's tokens.
_ALIKE = 0.8
# Rectangles are this many tokens wide or a multiple: kernels read masks in aligned pieces.
_ALIGNED = 16
# Tokens of a pass through the encoder on a GPU. Its matrices are busy from some thousands on.
_TOKENS = 16_384
# Bytes that the biases of a pass with relative positions may take: they grow with the square of the length.
_BIAS_BYTES = 256 << 20


class PaddedEncoder(Encoder):
    """Sources in, their encoded tokens and, for each layer of the decoder, their keys and values out."""

    def __call__(self, sources: Sequence[Sequence[int]]) -> Tensor:
        """Encoded tokens of all sources: [sources * n, width], n tokens each. Ids with special tokens; none may be empty."""
        model = self._model
        lengths = [len(ids) for ids in sources]
        n = padded_length(max(lengths))
        # The last token fills up. Nobody looks at it, and its position exists.
        ids = torch.tensor([[*source, *[source[-1]] * (n - len(source))] for source in sources], device=model.device)
        last = torch.tensor(lengths, device=model.device)[:, None] - 1
        places = torch.arange(n, device=model.device).expand(len(sources), -1)
        mask = self._mask(places <= last, min(lengths) == n)
        x = model.encoder_embedding(ids.flatten(), places.minimum(last).flatten())
        for layer in model.encoder_layers:
            x = self._layer(layer, x, lengths, mask)
        return model.encoder_norm(x)

    def project(self, sources: Sequence[Sequence[int]]) -> Tensor:
        """Cross-attention keys and values: [sources, layers, 2, heads, n, head width]."""
        model, count = self._model, len(sources)
        prepared = model.decoder_layers[0].cross.key_value.prepare(encoded := self(sources))
        shape = (count, len(encoded) // count, 2, model.heads, model.head_width)
        projected = torch.empty(
            (count, len(model.decoder_layers), 2, model.heads, shape[1], model.head_width), dtype=model.kept, device=model.device
        )
        for index, layer in enumerate(model.decoder_layers):
            projected[:, index].copy_(layer.cross.key_value.apply(prepared).view(shape).permute(0, 2, 3, 1, 4))
        return projected

    def _mask(self, within: Tensor, full: bool) -> Tensor | None:
        """What is added to the scores, [sources or 1, heads or 1, n or 1, n]; None where there is nothing to add."""
        biases = self._relative(within.shape[1])
        if biases is not None:
            n = within.shape[1]
            biases = biases[None, :, :n, :n]
        if full:
            return biases
        zero = torch.zeros((), dtype=self._model.encoder_embedding.tokens.dtype, device=within.device)
        return torch.where(within[:, None, None], zero if biases is None else biases, float("-inf"))

    def _attend(self, qkv: Tensor, lengths: list[int], biases: Tensor | None) -> Tensor:
        """[tokens, 3 * inner] to [tokens, inner], all sources at once."""
        q, k, v = qkv.view(len(lengths), len(qkv) // len(lengths), 3, self._model.encoder_heads, -1).permute(2, 0, 3, 1, 4).unbind()
        looked = scaled_dot_product_attention(q, k, v, attn_mask=biases, scale=self._model.encoder_scale)
        return looked.transpose(1, 2).reshape(len(qkv), -1)


def padded_length(length: int) -> int:
    return -(-length // _ALIGNED) * _ALIGNED


def pass_tokens(model: Architecture, longest: int) -> int:
    """Source tokens that one pass through the encoder takes on a GPU."""
    if model.encoder_biases is None:
        return _TOKENS
    return min(_TOKENS, _BIAS_BYTES // (longest * model.encoder_heads * model.kept.itemsize))


def alike(sources: Sequence[tuple[int, ...]]) -> Iterator[Sequence[tuple[int, ...]]]:
    """Sources cut where they become much shorter; they come longest first."""
    cuts = [0]
    for i, source in enumerate(sources):
        if len(source) < _ALIKE * len(sources[cuts[-1]]):
            cuts.append(i)
    return (sources[start:end] for start, end in pairwise([*cuts, len(sources)]))
