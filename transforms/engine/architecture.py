"""The families of encoder-decoders that the engine runs itself, brought to one form: BART, mBART, Marian, Pegasus, and T5 with its kin.

They differ in where norms stand, in positions (learned, sinusoidal, relative biases), in scales and in feed-forward layers. Everything
else is the same, so `encoder` and `decoder` know no family.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.activations import ACT2FN

from transforms.engine.families import runs_natively
from transforms.engine.linear import Linear, pack_linear

Norm = Callable[[Tensor], Tensor]
# Heads x distances: the bias of a position `distance` tokens away.
Biases = Callable[[int], Tensor]


@dataclass(frozen=True, slots=True)
class FeedForward:
    """`wide` holds the gate's weights first where `gated`."""

    norm: Norm
    wide: Linear
    narrow: Linear
    activation: Callable[[Tensor], Tensor]
    gated: bool

    def __call__(self, x: Tensor) -> Tensor:
        hidden = self.wide(x)
        if not self.gated:
            return self.narrow(self.activation(hidden))
        gate, value = hidden.chunk(2, dim=-1)
        return self.narrow(self.activation(gate) * value)


@dataclass(frozen=True, slots=True)
class SelfAttention:
    """`qkv`: [rows, 3 * inner], queries scaled but for what `Architecture` says is left."""

    norm: Norm
    qkv: Linear
    out: Linear


@dataclass(frozen=True, slots=True)
class CrossAttention:
    """`query`: [rows, inner], scaled as in self-attention. `key_value`: [tokens, 2 * inner] of the encoder's output."""

    norm: Norm
    query: Linear
    key_value: Linear
    out: Linear


@dataclass(frozen=True, slots=True)
class EncoderLayer:
    attention: SelfAttention
    feed: FeedForward


@dataclass(frozen=True, slots=True)
class DecoderLayer:
    attention: SelfAttention
    cross: CrossAttention
    feed: FeedForward


@dataclass(frozen=True, slots=True)
class Embedding:
    """Token ids [n] and positions [n] to vectors [n, width]."""

    tokens: Tensor
    scale: float
    positions: Tensor | None
    norm: Norm

    def __call__(self, ids: Tensor, positions: Tensor) -> Tensor:
        x = torch.nn.functional.embedding(ids, self.tokens)
        if self.scale != 1.0:
            x = x * self.scale
        if self.positions is not None:
            x = x + torch.nn.functional.embedding(positions, self.positions)
        return self.norm(x)


@dataclass(frozen=True, slots=True)
class Architecture:
    """A model's weights, packed. `heads`, `head_width`: of the decoder. `pre_norm`: norms stand before each part instead of after it.
    `kept`: the dtype of keys and values. `encoder_scale`, `scale`: what dot products of queries and keys are still to be multiplied with.

    `encoder_biases`, `decoder_biases`: T5's relative biases, else none.
    """

    encoder_heads: int
    encoder_scale: float
    heads: int
    scale: float
    head_width: int
    pre_norm: bool
    encoder_embedding: Embedding
    encoder_layers: tuple[EncoderLayer, ...]
    encoder_norm: Norm
    encoder_biases: Biases | None
    decoder_embedding: Embedding
    decoder_layers: tuple[DecoderLayer, ...]
    decoder_norm: Norm
    decoder_biases: Biases | None
    head: Linear
    head_scale: float
    vocabulary: int
    kept: torch.dtype
    device: str

    @property
    def inner(self) -> int:
        return self.heads * self.head_width


def is_native(model: Any) -> bool:
    """Whether the engine runs this loaded transformers model itself."""
    return runs_natively(model.config.to_dict())


def pack(model: Any, dtype: str, device: str) -> Architecture:
    """The packed form of a loaded transformers model. dtype: `float32`, `bfloat16` or `int8`."""
    return _Packer(model, dtype, device).t5() if model.config.model_type in ("t5", "mt5") else _Packer(model, dtype, device).bart()


def _folded(scale: float) -> tuple[float, float]:
    """A factor for the weights of queries, and the rest. Only a power of two changes no digit of a weight."""
    power = 2.0 ** math.floor(math.log2(scale))
    return power, scale / power


def _same(x: Tensor) -> Tensor:
    return x


class _Packer:
    """int8 is for linear layers; everything else is float32 then, and keys and values are kept in bfloat16 (they are read at each step,
    and half the bytes is nearly half the time)."""

    def __init__(self, model: Any, dtype: str, device: str) -> None:
        self.model, self.config = model, model.config
        self.dtype, self.device = dtype, device
        self.plain = torch.float32 if dtype == "int8" else getattr(torch, dtype)
        self.kept = torch.bfloat16 if dtype == "int8" else self.plain

    def bart(self) -> Architecture:
        config, inner = self.config, self.model.model
        pre_norm = config.model_type in ("mbart", "pegasus")
        heads = config.decoder_attention_heads
        folded, scale = _folded((config.d_model // heads) ** -0.5)
        encoder_folded, encoder_scale = _folded((config.d_model // config.encoder_attention_heads) ** -0.5)
        encoder, decoder = inner.encoder, inner.decoder
        return Architecture(
            encoder_heads=config.encoder_attention_heads,
            encoder_scale=encoder_scale,
            heads=heads,
            scale=scale,
            head_width=config.d_model // heads,
            pre_norm=pre_norm,
            encoder_embedding=self._bart_embedding(encoder),
            encoder_layers=tuple(EncoderLayer(self._bart_self(layer, encoder_folded), self._bart_feed(layer)) for layer in encoder.layers),
            encoder_norm=self._norm(getattr(encoder, "layer_norm", None)),
            encoder_biases=None,
            decoder_embedding=self._bart_embedding(decoder),
            decoder_layers=tuple(
                DecoderLayer(self._bart_self(layer, folded), self._bart_cross(layer, folded), self._bart_feed(layer))
                for layer in decoder.layers
            ),
            decoder_norm=self._norm(getattr(decoder, "layer_norm", None)),
            decoder_biases=None,
            head=self._linear([self.model.lm_head.weight], [self.model.final_logits_bias.flatten()]),
            head_scale=1.0,
            vocabulary=self.model.lm_head.weight.shape[0],
            kept=self.kept,
            device=self.device,
        )

    def _bart_embedding(self, half: Any) -> Embedding:
        scale = math.sqrt(self.config.d_model) if self.config.scale_embedding else 1.0
        positions = half.embed_positions
        return Embedding(
            self._tensor(half.embed_tokens.weight),
            scale,
            self._tensor(positions.weight[getattr(positions, "offset", 0) :]),
            self._norm(getattr(half, "layernorm_embedding", None)),
        )

    def _bart_self(self, layer: Any, scale: float) -> SelfAttention:
        a = layer.self_attn
        qkv = self._linear(
            [a.q_proj.weight * scale, a.k_proj.weight, a.v_proj.weight], [a.q_proj.bias * scale, a.k_proj.bias, a.v_proj.bias]
        )
        return SelfAttention(self._norm(layer.self_attn_layer_norm), qkv, self._linear([a.out_proj.weight], [a.out_proj.bias]))

    def _bart_cross(self, layer: Any, scale: float) -> CrossAttention:
        a = layer.encoder_attn
        return CrossAttention(
            self._norm(layer.encoder_attn_layer_norm),
            self._linear([a.q_proj.weight * scale], [a.q_proj.bias * scale]),
            self._linear([a.k_proj.weight, a.v_proj.weight], [a.k_proj.bias, a.v_proj.bias]),
            self._linear([a.out_proj.weight], [a.out_proj.bias]),
        )

    def _bart_feed(self, layer: Any) -> FeedForward:
        return FeedForward(
            self._norm(layer.final_layer_norm),
            self._linear([layer.fc1.weight], [layer.fc1.bias]),
            self._linear([layer.fc2.weight], [layer.fc2.bias]),
            ACT2FN[self.config.activation_function],
            gated=False,
        )

    def t5(self) -> Architecture:
        config, model = self.config, self.model
        encoder, decoder = model.encoder, model.decoder
        return Architecture(
            encoder_heads=config.num_heads,
            encoder_scale=1.0,
            heads=config.num_heads,
            scale=1.0,
            head_width=config.d_kv,
            pre_norm=True,
            encoder_embedding=Embedding(self._tensor(encoder.embed_tokens.weight), 1.0, None, _same),
            encoder_layers=tuple(EncoderLayer(self._t5_self(b.layer[0]), self._t5_feed(b.layer[1])) for b in encoder.block),
            encoder_norm=self._rms(encoder.final_layer_norm),
            encoder_biases=self._t5_biases(encoder.block[0].layer[0].SelfAttention, both_ways=True),
            decoder_embedding=Embedding(self._tensor(decoder.embed_tokens.weight), 1.0, None, _same),
            decoder_layers=tuple(
                DecoderLayer(self._t5_self(b.layer[0]), self._t5_cross(b.layer[1]), self._t5_feed(b.layer[2])) for b in decoder.block
            ),
            decoder_norm=self._rms(decoder.final_layer_norm),
            decoder_biases=self._t5_biases(decoder.block[0].layer[0].SelfAttention, both_ways=False),
            head=self._linear([model.lm_head.weight]),
            head_scale=config.d_model**-0.5 if _scales_output(config) else 1.0,
            vocabulary=model.lm_head.weight.shape[0],
            kept=self.kept,
            device=self.device,
        )

    def _t5_self(self, part: Any) -> SelfAttention:
        a = part.SelfAttention
        return SelfAttention(self._rms(part.layer_norm), self._linear([a.q.weight, a.k.weight, a.v.weight]), self._linear([a.o.weight]))

    def _t5_cross(self, part: Any) -> CrossAttention:
        a = part.EncDecAttention
        return CrossAttention(
            self._rms(part.layer_norm),
            self._linear([a.q.weight]),
            self._linear([a.k.weight, a.v.weight]),
            self._linear([a.o.weight]),
        )

    def _t5_feed(self, part: Any) -> FeedForward:
        dense = part.DenseReluDense
        gated = self.config.is_gated_act
        wide = [dense.wi_0.weight, dense.wi_1.weight] if gated else [dense.wi.weight]
        return FeedForward(
            self._rms(part.layer_norm),
            self._linear(wide),
            self._linear([dense.wo.weight]),
            ACT2FN[self.config.dense_act_fn],
            gated=gated,
        )

    def _t5_biases(self, attention: Any, both_ways: bool) -> Biases:
        """Biases [heads, 2 * reach - 1] for key minus query from -(reach - 1) to reach - 1, as T5 buckets distances (arXiv 1910.10683)."""
        table = self._tensor(attention.relative_attention_bias.weight).to(self.plain)
        buckets, far = attention.relative_attention_num_buckets, attention.relative_attention_max_distance

        def biases(reach: int) -> Tensor:
            distances = torch.arange(-(reach - 1), reach, device=self.device)
            bucket = attention._relative_position_bucket(distances, bidirectional=both_ways, num_buckets=buckets, max_distance=far)
            return table[bucket].t().contiguous()

        return biases

    def _linear(self, weights: list[Tensor], biases: list[Tensor] | None = None) -> Linear:
        """One packed layer out of several that read the same input."""
        return pack_linear(torch.cat(weights), torch.cat(biases) if biases else None, self.dtype, self.device)

    def _tensor(self, tensor: Tensor) -> Tensor:
        return tensor.detach().to(self.device, self.plain)

    def _norm(self, norm: Any) -> Norm:
        if norm is None:
            return _same
        shape, weight, bias, eps = norm.normalized_shape, self._tensor(norm.weight), self._tensor(norm.bias), norm.eps
        return lambda x: torch.nn.functional.layer_norm(x, shape, weight, bias, eps)

    def _rms(self, norm: Any) -> Norm:
        weight, eps = self._tensor(norm.weight), norm.variance_epsilon

        def rms(x: Tensor) -> Tensor:
            wide = x.float()
            scale = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_().div_(wide.shape[-1]).add_(eps).rsqrt_()
            return weight * (wide * scale).to(x.dtype)

        return rms


def _scales_output(config: Any) -> bool:
    """As transformers 5 does: T5 (v1.0) scales what goes into the output layer, mT5 does not. Earlier versions of it asked only whether the
    output layer is tied."""
    return config.model_type == "t5" and bool(getattr(config, "scale_decoder_outputs", config.tie_word_embeddings))
