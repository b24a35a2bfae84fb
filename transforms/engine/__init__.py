"""The engine: text in, text out, for any sequence-to-sequence model. It knows nothing of Beam, notes or medicine.

    from transforms.engine import DecodeSettings, EngineSettings, Request, load_engine

    engine = load_engine(EngineSettings(backend="torch", model_folder="path/to/model"))
    [completion] = engine.generate([Request("A long text ...", DecodeSettings(max_new_tokens=60))])
    print(completion.text)

Backends: `torch` (our own decode loop, for any `AutoModelForSeq2SeqLM` folder), `generate` (transformers' loop), `ctranslate2` (an extra)
and `echo` (leading words; needs no model and imports no torch). Importing this module imports none of them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from transforms.engine.constraint import Constraint, Value
from transforms.engine.decode import DecodeSettings, decode_settings, shipped_decode
from transforms.engine.hardware import best_cpu_dtype, cpu_features, multiplies_int8

__all__ = [
    "BACKENDS",
    "DEVICES",
    "DRAFTS",
    "DTYPES",
    "Completion",
    "Constraint",
    "DecodeSettings",
    "Engine",
    "EngineError",
    "EngineIdentity",
    "EngineSettings",
    "Request",
    "Tokenized",
    "Usage",
    "Value",
    "check_constraint",
    "count_usage",
    "decode_settings",
    "load_engine",
    "load_seconds",
    "loads",
    "resolve_device",
    "resolve_dtype",
    "shipped_decode",
]

BACKENDS = ("torch", "generate", "ctranslate2", "echo")
DTYPES = ("auto", "float32", "bfloat16", "int8")
DEVICES = ("auto", "cpu", "cuda")
DRAFTS = ("off", "auto")

# What `Completion.error` can be.
OUT_OF_MEMORY = "OUT_OF_MEMORY"
GENERATION_FAILED = "GENERATION_FAILED"
DEADLINE = "DEADLINE"

# What each computes in on a CPU; CTranslate2 has no bfloat16 there.
_DTYPES_OF_BACKEND = {"torch": DTYPES[1:], "generate": ("float32", "bfloat16"), "ctranslate2": ("float32", "int8")}

# Where an output can be constrained, by backend.
_CONSTRAINING = {"torch": ("cpu",), "generate": ("cpu", "cuda")}

# Device files of a machine with an NVIDIA driver (the last one: WSL). Without them there is no need to import torch to know.
_GPU_DEVICE_FILES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))


class EngineError(ValueError):
    """The engine cannot be had as asked: names the value, what was found and the choices."""


@dataclass(frozen=True, slots=True)
class Request:
    """One text to generate from. `constraint`: what the output has to be; of `decode` only beams, how hypotheses are scored, and
    `max_new_tokens` hold then. Backends that cannot restrict their output fail the request (see `check_constraint`).

    `decoder_prefix`: token ids that the decoder is given after its start token; they are no part of the completion.
    """

    text: str = field(repr=False)
    decode: DecodeSettings = field(default_factory=DecodeSettings)
    constraint: Constraint | None = field(default=None, repr=False)
    decoder_prefix: tuple[int, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Completion:
    """The answer to one request.

    `text`: decoded, without special tokens, stripped. `token_ids`: as generated, the end-of-sequence token included, the decoder's start
    token and padding not. `spans`: source characters [start, end) that the output copies, where a backend knows them. `values`: under a
    constraint, every field that was written; the spans are those of its copied ones.
    `logprob`: mean natural-log probability per generated token under the decode settings (greedy only, else None); under a constraint, per
    token that had an alternative. `token_logprobs`: under a constraint and greedily, that of each of `token_ids` among the tokens that were
    offered there; else empty.
    `source_tokens`: tokens of the text that were read, special tokens not counted; `truncated_tokens`: those over the model's limit that
    were not; `padded_tokens`: positions computed beside them only to fill the batch.
    `finish`: `stop` (the model ended), `length` (it was cut; a constrained output is whole then too, but the limit withheld a token that
    might have come), `error` (then `error` is OUT_OF_MEMORY, GENERATION_FAILED or DEADLINE and `cause` the
    name of the exception's class, never its message, which may quote the text).
    """

    text: str = field(repr=False)
    token_ids: tuple[int, ...] = field(default=(), repr=False)
    spans: tuple[tuple[int, int], ...] = field(default=(), repr=False)
    logprob: float | None = None
    source_tokens: int = 0
    source_truncated: bool = False
    finish: Literal["stop", "length", "error"] = "stop"
    error: str | None = None
    cause: str | None = None
    truncated_tokens: int = 0
    padded_tokens: int = 0
    values: tuple[Value, ...] = field(default=(), repr=False)
    token_logprobs: tuple[float, ...] = field(default=(), repr=False)

    @classmethod
    def failed(cls, error: str, cause: str) -> Completion:
        return cls("", finish="error", error=error, cause=cause)


@dataclass(frozen=True, slots=True)
class Tokenized:
    """A text's tokens without special tokens. `offsets[i]`: characters [start, end) of the text that `ids[i]` stands for."""

    ids: tuple[int, ...] = field(repr=False)
    offsets: tuple[tuple[int, int], ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of some completions: read, written, computed as padding, and left out because the source was too long."""

    source: int = 0
    generated: int = 0
    padded: int = 0
    truncated: int = 0


def count_usage(completions: Iterable[Completion]) -> Usage:
    """Sum over completions. Kept out of the engine's state, so that threads that share an engine each count their own."""
    source = generated = padded = truncated = 0
    for completion in completions:
        source += completion.source_tokens
        generated += len(completion.token_ids)
        padded += completion.padded_tokens
        truncated += completion.truncated_tokens
    return Usage(source, generated, padded, truncated)


@dataclass(frozen=True, slots=True)
class EngineIdentity:
    """What was loaded, for provenance."""

    backend: str
    model_id: str
    model_sha256: str
    dtype: str
    device: str


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How to load an engine.

    `model_folder`, `model_id`, `model_sha256`: the model; `echo` needs none. `threads`: CPU threads in all (None: as the backend
    finds best). `tokens_per_batch`: padded source tokens times beams that one batch may hold (None: by device). `slots`: requests that are
    decoded at once by each thread of `torch` (None: by device). `delay_ms`: how long `echo` pretends to work on each text.
    `text_seconds`: what one text may take before it fails with DEADLINE (None: as long as it likes); asked between decode steps, and by
    `ctranslate2` not at all.
    `draft`: `auto` drafts outputs from their sources where that is faster (`torch` on a CPU, greedy; see `draft`), `off` never.
    `cache_folder`: where `ctranslate2` keeps converted models (empty: `$XDG_CACHE_HOME/chartmill/ctranslate2`).
    """

    backend: str = "torch"
    model_folder: str = ""
    model_id: str = ""
    model_sha256: str = ""
    dtype: str = "auto"
    device: str = "auto"
    threads: int | None = None
    tokens_per_batch: int | None = None
    slots: int | None = None
    delay_ms: float = 0.0
    text_seconds: float | None = None
    cache_folder: str = ""
    draft: str = "off"


class Engine(Protocol):
    """What every backend offers. Callers keep `generate` to one thread at a time."""

    @property
    def identity(self) -> EngineIdentity: ...

    @property
    def max_source_tokens(self) -> int:
        """Tokens of a text, special tokens not counted, that one request may have; more are cut off."""

    def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
        """Tokens with character offsets, one entry per text. Raises what the tokenizer raises on text that is not valid Unicode."""

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """One completion per request, in order. Never raises for a bad request: its completion says `error`."""


def resolve_device(device: str) -> str:
    """`cpu` or `cuda` for a requested device. Imports torch only where an NVIDIA driver is present. Raises EngineError."""
    if device not in DEVICES:
        raise EngineError(f"engine.device: {device!r} is not one of {', '.join(DEVICES)}")
    if device == "cpu" or (device == "auto" and not any(path.exists() for path in _GPU_DEVICE_FILES)):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise EngineError("engine.device: cuda was asked for, but torch sees no CUDA device here; choose cpu or auto")
    return "cpu"


def resolve_dtype(dtype: str, device: str, backend: str = "torch") -> str:
    """The number format of the weights for a requested dtype on a resolved device. Raises EngineError for what the two cannot do.

    auto on CUDA: bfloat16 where the GPU has it, else float32; never float16, in which T5 overflows. auto on a CPU: what its linear layers
    run fastest in (`hardware.best_cpu_dtype`); of `generate`, which has no int8, at most bfloat16; of `ctranslate2`, int8, for which it
    has code for every CPU.
    """
    if dtype not in DTYPES:
        raise EngineError(f"engine.dtype: {dtype!r} is not one of {', '.join(DTYPES)}")
    if backend not in _DTYPES_OF_BACKEND:
        raise EngineError(f"engine.backend: {backend!r} is not one of {', '.join(_DTYPES_OF_BACKEND)}")
    return _cuda_dtype(dtype) if device == "cuda" else _cpu_dtype(dtype, backend)


def _cpu_dtype(dtype: str, backend: str) -> str:
    choices = _DTYPES_OF_BACKEND[backend]
    features = cpu_features()
    if dtype == "auto":
        best = "int8" if backend == "ctranslate2" else best_cpu_dtype(features)
        return best if best in choices else "float32"
    if dtype not in choices:
        raise EngineError(f"engine.dtype: {backend} has no {dtype} on a CPU; choices: auto, {', '.join(choices)}")
    if dtype == "int8" and backend == "torch" and not multiplies_int8(features):
        raise EngineError(
            "engine.dtype: int8 needs a CPU with avx512_vnni or amx_int8, for without them sums of products are cut off; "
            "choices here: auto, float32, bfloat16"
        )
    return dtype


def _cuda_dtype(dtype: str) -> str:
    if dtype == "float32":
        return dtype
    if dtype == "int8":
        raise EngineError("engine.dtype: int8 is for CPUs; choices on CUDA: auto, float32, bfloat16")
    import torch

    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bfloat16"
    if dtype == "bfloat16":
        raise EngineError("engine.dtype: this GPU has no bfloat16; choose float32 or auto")
    return "float32"


def check_constraint(backend: str, device: str) -> None:
    """Raise EngineError unless this backend can constrain its output on this device (`cpu` or `cuda`)."""
    if device not in _CONSTRAINING.get(backend, ()):
        choices = ", ".join(f"{name} on {where}" for name, devices in _CONSTRAINING.items() for where in devices)
        raise EngineError(f"engine.backend: {backend} on {device} cannot constrain its output; choices: {choices}")


_loads_lock = threading.Lock()
_loads = 0
_load_seconds = 0.0


def loads() -> int:
    """How many engines this process has loaded."""
    return _loads


def load_seconds() -> float:
    """Wall-clock seconds that this process has spent loading them."""
    return _load_seconds


def load_engine(settings: EngineSettings) -> Engine:
    """Load the engine that the settings name. Raises EngineError for what cannot be had."""
    global _loads, _load_seconds
    started = time.perf_counter()
    engine: Engine
    match settings.backend:
        case "torch":
            # Before transformers is first imported: it reads the environment then.
            forbid_hub_traffic()
            from transforms.engine.torch_engine import load_torch_engine

            engine = load_torch_engine(settings)
        case "generate":
            forbid_hub_traffic()
            from transforms.engine.generate_engine import GenerateEngine

            engine = GenerateEngine(settings)
        case "ctranslate2":
            forbid_hub_traffic()
            from transforms.engine.ctranslate2_engine import CTranslate2Engine

            engine = CTranslate2Engine(settings)
        case "echo":
            from transforms.engine.echo import EchoEngine

            engine = EchoEngine(settings.model_id or "echo", settings.delay_ms, text_seconds=settings.text_seconds)
        case other:
            raise EngineError(f"engine.backend: {other!r} is not one of {', '.join(BACKENDS)}")
    with _loads_lock:
        _loads += 1
        _load_seconds += time.perf_counter() - started
    return engine


def forbid_hub_traffic() -> None:
    """Switch off downloads and telemetry of the Hugging Face libraries; they read these once, when first imported."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["DO_NOT_TRACK"] = "1"
