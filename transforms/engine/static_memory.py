"""What decoding keeps of sources and of its own past where launches are dear and padding is cheap: the same few tensors at every step.

Each slot has room for the longest source and the most positions; masks say what a slot has really kept. A step for all slots is then a
fixed list of operations on fixed tensors, which a CUDA graph replays. Beams never move: each row writes where it stands, all rows of a
request are read together, once for all its beams, and `seen` says which row's past is whose.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from transforms.engine.architecture import Architecture, DecoderLayer
from transforms.engine.schedule import slot_bytes

# Keys of an attention come in multiples of this: kernels read masks in aligned pieces.
_ALIGNED = 64
# Requests that decode at once where memory allows. Their source keys and values are nearly all that a step reads, so that more of them
# bring little.
REQUESTS = 256
# Of the free memory of a device, what keys, values and scores may take. The encoder and the allocator need the rest.
_SHARE = 0.8
# Copies of the scores of a step, float32, that a search has at once.
_SCORES = 3


@dataclass(frozen=True, slots=True)
class Spans:
    """How many source and own positions a step reads of every slot."""

    source: int
    own: int


def span(length: int, parts: int) -> int:
    """`length` rounded up, never down for a longer one: to a power of two or one of the `parts` // 2 - 1 steps before it, at least 64."""
    step = max(_ALIGNED, (1 << (length - 1).bit_length()) // parts)
    return -(-length // step) * step


def source_span(length: int) -> int:
    """At most a quarter more than the length (but for short ones): these keys and values are most of what a step reads."""
    return span(length, 8)


def own_span(length: int) -> int:
    """Powers of two: positions grow and shrink with every refill, and each span is a graph of its own."""
    return span(length, 1)


def aligned(length: int) -> int:
    return -(-length // _ALIGNED) * _ALIGNED


def device_slots(model: Architecture, wanted: int | None, longest: int, capacity: int, width: int, free: int) -> int:
    """Requests that decode at once: as wanted, else up to 256, as far as a share of `free` bytes of the device's memory holds.

    `longest`: tokens of the longest source; `capacity`: most decoder positions; `width`: rows of a request.
    """
    kept = slot_bytes(model, source_span(longest), aligned(capacity), width)
    scores = _SCORES * torch.float32.itemsize * width * model.vocabulary
    return max(1, min(wanted or REQUESTS, int(free * _SHARE) // (kept + scores)))


def free_bytes() -> int:
    """Bytes that this process can still get on the current CUDA device, with what torch holds in reserve."""
    return torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()


class StaticMemory:
    """Memory of `slots` requests with `width` rows each, sources of up to `longest` tokens and `capacity` decoder positions.

    Rows are numbered slot by slot. What a slot has not kept is zero and masked, so that no slot ever computes a number that is none.
    """

    def __init__(self, model: Architecture, slots: int, width: int, longest: int, capacity: int) -> None:
        self._model, self._slots, self._width = model, slots, width
        self.longest, self.capacity = source_span(longest), aligned(capacity)
        learned = model.decoder_embedding.positions
        self._last = (capacity if learned is None else min(capacity, len(learned))) - 1
        layers, heads, dtype, device = len(model.decoder_layers), model.heads, model.kept, model.device
        self._source = torch.zeros(layers, 2, slots, heads, self.longest, model.head_width, dtype=dtype, device=device)
        self._source_mask = torch.full((slots, 1, 1, self.longest), float("-inf"), dtype=dtype, device=device)
        self._source_mask[..., 0] = 0.0
        self._own = torch.zeros(layers, slots, self.capacity, width, 2, heads, model.head_width, dtype=dtype, device=device)
        # Slot, reading row, position, row that wrote there.
        self._seen = torch.zeros(slots, width, self.capacity, width, dtype=torch.bool, device=device)
        self._self_only = torch.eye(width, dtype=torch.bool, device=device)[None, :, None, :].expand(slots, -1, -1, -1)
        self._row = torch.arange(slots * width, device=device)
        # Where each row of a slot writes at position 0.
        self._first = self._row + self._row // width * width * (self.capacity - 1)
        self._position = torch.arange(self.capacity, device=device)
        self._biases = None if model.decoder_biases is None else model.decoder_biases(self.capacity).to(model.kept)
        self._zero, self._never = torch.zeros((), dtype=dtype, device=device), torch.full((), float("-inf"), dtype=dtype, device=device)

    def fill(self, slot: int, source: Tensor, length: int) -> None:
        """A new request: its projected source [layers, 2, heads, n, head width], of which `length` tokens count, and no past."""
        n = source.shape[3]
        self._source[:, :, slot, :, :n].copy_(source)
        # What another source left behind is masked, yet not a number times nothing is not a number.
        self._source[:, :, slot, :, n:].zero_()
        self._source_mask[slot, ..., :length] = 0.0
        self._source_mask[slot, ..., length:] = float("-inf")
        self._own[:, slot].zero_()
        self._seen[slot] = False

    def within(self, at: Tensor) -> Tensor:
        """A finished row is fed its last token on and on, which may stand one place after the last that the model has."""
        return at.clamp(max=self._last)

    def enter(self, at: Tensor, own: int) -> tuple[Tensor, Tensor]:
        """Rows read now the tokens at positions `at` [rows]: where they write, and the mask [slots, heads or 1, width, own * width]."""
        places = at.view(self._slots, self._width)
        here = places[:, :, None, None].expand(-1, -1, 1, self._width)
        self._seen.scatter_(2, here, self._self_only)
        biases = self._zero if self._biases is None else self._distances(places, own)
        mask = torch.where(self._seen[:, None, :, :own], biases, self._never)
        return self._first + at * self._width, mask.flatten(3)

    def _distances(self, places: Tensor, own: int) -> Tensor:
        """Relative biases [slots, heads, width, own, 1] for queries at `places` [slots, width]."""
        assert self._biases is not None
        index = self._position[:own] - places[:, :, None] + self.capacity - 1
        return self._biases[:, index].transpose(0, 1)[..., None]

    def look_back(self, layer: int, qkv: Tensor, where: Tensor, mask: Tensor) -> Tensor:
        """Keeps keys and values of qkv [rows, 3 * inner] at `where`; each row looks at its past: [rows, inner]."""
        model = self._model
        wide = qkv.to(model.kept).view(-1, 3, model.heads, model.head_width)
        own = self._own[layer]
        own.view(-1, 2, model.heads, model.head_width).index_copy_(0, where, wide[:, 1:])
        # [slots, positions, width, 2, heads, head width] to twice [slots, heads, positions * width, head width]
        keys, values = own[:, : mask.shape[-1] // self._width].flatten(1, 2).permute(2, 0, 3, 1, 4).unbind()
        return self._attend(wide[:, 0], keys, values, mask).to(qkv.dtype)

    def look_at_source(self, layer: int, query: Tensor, length: int) -> Tensor:
        """query [rows, inner]: all rows of a slot look at the first `length` positions of its source."""
        keys, values = self._source[layer, :, :, :, :length].unbind()
        return self._attend(query.to(self._model.kept), keys, values, self._source_mask[..., :length]).to(query.dtype)

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
        model = self._model
        queries = query.reshape(self._slots, self._width, model.heads, model.head_width).transpose(1, 2)
        looked = scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=model.scale)
        return looked.transpose(1, 2).reshape(-1, model.inner)

    def follow(self, parents: Tensor) -> None:
        """Each row goes on from the past of row `parents[row]`, which is one of the same slot."""
        self._seen.copy_(self._seen.flatten(0, 1).index_select(0, parents).view_as(self._seen))


def decode(model: Architecture, memory: StaticMemory, tokens: Tensor, at: Tensor, spans: Spans) -> Tensor:
    """Logits [rows, vocabulary], float32, for `tokens` at positions `at`, both [rows], of all slots."""
    at = memory.within(at)
    where, mask = memory.enter(at, spans.own)
    x = model.decoder_embedding(tokens, at)
    step = _pre_norm if model.pre_norm else _post_norm
    for index, layer in enumerate(model.decoder_layers):
        x = step(index, layer, x, memory, where, mask, spans.source)
    x = model.decoder_norm(x)
    return model.head(x if model.head_scale == 1.0 else x * model.head_scale).float()


def _pre_norm(index: int, layer: DecoderLayer, x: Tensor, memory: StaticMemory, where: Tensor, mask: Tensor, length: int) -> Tensor:
    own, cross, feed = layer.attention, layer.cross, layer.feed
    x = x + own.out(memory.look_back(index, own.qkv(own.norm(x)), where, mask))
    x = x + cross.out(memory.look_at_source(index, cross.query(cross.norm(x)), length))
    return x + feed(feed.norm(x))


def _post_norm(index: int, layer: DecoderLayer, x: Tensor, memory: StaticMemory, where: Tensor, mask: Tensor, length: int) -> Tensor:
    own, cross, feed = layer.attention, layer.cross, layer.feed
    x = own.norm(x + own.out(memory.look_back(index, own.qkv(x), where, mask)))
    x = cross.norm(x + cross.out(memory.look_at_source(index, cross.query(x), length)))
    return feed.norm(x + feed(x))
