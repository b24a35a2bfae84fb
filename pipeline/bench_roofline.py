"""How fast this machine could run an encoder-decoder at best: its measured speeds, and the work that a set of requests cannot avoid.

After Williams et al. 2009, "Roofline" (doi 10.1145/1498765.1498785), in its strictest form: arithmetic and memory traffic are added up, as
if neither hid behind the other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

# Bytes of a number of a weight, and of a key or value that the engine keeps.
_WEIGHT_BYTES = {"int8": 1, "bfloat16": 2, "float32": 4}
_KEPT_BYTES = {"int8": 2, "bfloat16": 2, "float32": 4}

# A square product of this size fits the caches and fills the units; what is read does not fit any cache that we know.
_SIDE = 1024
_READ_BYTES = 512 << 20
_PROBE_SECONDS = 0.4


@dataclass(frozen=True, slots=True)
class Layout:
    """Sizes of an encoder-decoder. `inner`: heads times their width. `matrices`: feed-forward matrices, 3 if gated."""

    width: int
    inner: int
    encoder: tuple[int, int]
    decoder: tuple[int, int]
    vocabulary: int
    matrices: int = 2

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Layout | None:
        """From a model folder's config.json; `encoder`, `decoder`: layers and feed-forward width. None for a family not known here."""
        if config.get("model_type") in ("t5", "mt5"):
            layers = config["num_layers"], config.get("num_decoder_layers") or config["num_layers"]
            encoder, decoder = [(count, config["d_ff"]) for count in layers]
            gated = str(config.get("feed_forward_proj", "")).startswith("gated")
            return cls(config["d_model"], config["num_heads"] * config["d_kv"], encoder, decoder, config["vocab_size"], 3 if gated else 2)
        if config.get("model_type") in ("bart", "mbart", "marian", "pegasus"):
            encoder, decoder = [(config[f"{side}_layers"], config[f"{side}_ffn_dim"]) for side in ("encoder", "decoder")]
            return cls(config["d_model"], config["d_model"], encoder, decoder, config["vocab_size"])
        return None

    def encoder_flops(self, tokens: int) -> int:
        """Of one source; with the decoder's keys and values of it."""
        layers, forward = self.encoder
        weights = 4 * self.width * self.inner + self.matrices * self.width * forward
        attention = 4 * tokens * tokens * self.inner
        crossed = self.decoder[0] * 2 * self.width * self.inner
        return layers * (2 * tokens * weights + attention) + 2 * tokens * crossed

    def decoder_weights(self) -> int:
        """Numbers that a decode step reads whatever its rows; each row multiplies with each of them."""
        layers, forward = self.decoder
        return layers * (6 * self.width * self.inner + self.matrices * self.width * forward) + self.width * self.vocabulary

    def attention_numbers(self, positions: int) -> int:
        """Keys and values of so many positions in all decoder layers."""
        return self.decoder[0] * 2 * self.inner * positions


@dataclass(frozen=True, slots=True)
class Traffic:
    """What requests cost at least. `sources`, `outputs`: tokens of each. `profile`: the engine's counters."""

    sources: Sequence[int]
    outputs: Sequence[int]
    profile: Mapping[str, float]


def floor_seconds(layout: Layout, traffic: Traffic, dtype: str, speed: Mapping[str, float]) -> dict[str, float]:
    """Seconds that arithmetic and memory traffic of these requests take at the machine's speeds, by part.

    The steps, their rows and the source positions that they read are those that the engine counted; sources are unpadded.
    """
    rows, crossed = int(traffic.profile["row_steps"]), int(traffic.profile["cross_positions"])
    # On the average a row of a request sees half of the request's output.
    beams = rows / max(1, sum(traffic.outputs))
    own = round(beams * sum(n * (n + 1) // 2 for n in traffic.outputs))
    kept = layout.attention_numbers(crossed + own)
    weights = layout.decoder_weights()
    return {
        "encode": sum(map(layout.encoder_flops, traffic.sources)) / speed["flops"],
        "decode": (2 * rows * weights + 2 * kept) / speed["flops"],
        "read": (traffic.profile["steps"] * weights * _WEIGHT_BYTES[dtype] + kept * _KEPT_BYTES[dtype]) / speed["bytes"],
    }


def probe(dtype: str, threads: int) -> dict[str, float]:
    """The machine's best: `flops` (operations a second of packed linear layers in this dtype) and `bytes` (read a second), all threads."""
    import torch

    from transforms.engine.linear import pack_linear

    def product() -> Callable[[], Any]:
        layer = pack_linear(torch.randn(_SIDE, _SIDE), None, dtype, "cpu")
        rows = torch.randn(_SIDE, _SIDE).to(torch.float32 if dtype == "int8" else getattr(torch, dtype))
        prepared = layer.prepare(rows)
        return lambda: layer.apply(prepared)

    def reading() -> Callable[[], Any]:
        numbers = torch.zeros(_READ_BYTES // threads // 8, dtype=torch.int64)
        return lambda: numbers.max()

    return {
        "flops": _together(product, threads) * 2 * _SIDE**3,
        "bytes": _together(reading, threads) * (_READ_BYTES // threads),
    }


def _together(make: Callable[[], Callable[[], Any]], threads: int) -> float:
    """Calls a second, of all threads, each with its own work and one thread of torch's."""
    import torch

    def one(_: int) -> float:
        torch.set_num_threads(1)
        with torch.inference_mode():
            call = make()
            call()
            started, calls = time.perf_counter(), 0
            while (seconds := time.perf_counter() - started) < _PROBE_SECONDS:
                call()
                calls += 1
        return calls / seconds

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(one, range(threads)))
