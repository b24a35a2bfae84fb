"""The engine: text in, text out, for any sequence-to-sequence model. It knows nothing of Beam, notes or medicine.

    from transforms.engine import DecodeSettings, EngineSettings, Request, load_engine

    engine = load_engine(EngineSettings(backend="torch", model_folder="path/to/model"))
    [completion] = engine.generate([Request("A long text ...", DecodeSettings(max_new_tokens=60))])
    print(completion.text)

Backends: `torch` (any `AutoModelForSeq2SeqLM` folder) and `echo` (leading words; needs no model and imports no torch). Importing this
module imports neither.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from transforms.engine.decode import DecodeSettings, decode_settings, shipped_decode

__all__ = [
    "BACKENDS",
    "DEVICES",
    "DTYPES",
    "Completion",
    "DecodeSettings",
    "Engine",
    "EngineError",
    "EngineIdentity",
    "EngineSettings",
    "Request",
    "Tokenized",
    "Usage",
    "count_usage",
    "decode_settings",
    "load_engine",
    "loads",
    "resolve_device",
    "resolve_dtype",
    "shipped_decode",
]

BACKENDS = ("torch", "echo")
DTYPES = ("auto", "float32", "bfloat16")
DEVICES = ("auto", "cpu", "cuda")

# What `Completion.error` can be.
OUT_OF_MEMORY = "OUT_OF_MEMORY"
GENERATION_FAILED = "GENERATION_FAILED"

# Device files of a machine with an NVIDIA driver (the last one: WSL). Without them there is no need to import torch to know.
_GPU_DEVICE_FILES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))


class EngineError(ValueError):
    """The engine cannot be had as asked: names the value, what was found and the choices."""


@dataclass(frozen=True, slots=True)
class Request:
    """One text to generate from. `constraint` is for backends that can restrict their output; those that cannot fail the request."""

    text: str = field(repr=False)
    decode: DecodeSettings = field(default_factory=DecodeSettings)
    constraint: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Completion:
    """The answer to one request.

    `text`: decoded, without special tokens, stripped. `token_ids`: as generated, the end-of-sequence token included, the decoder's start
    token and padding not. `spans`: source characters [start, end) that the output copies, where a backend knows them.
    `logprob`: mean natural-log probability per generated token under the decode settings (greedy only, else None).
    `source_tokens`: tokens of the text that were read, special tokens not counted; `truncated_tokens`: those over the model's limit that
    were not; `padded_tokens`: positions computed beside them only to fill the batch.
    `finish`: `stop` (the model ended), `length` (it was cut), `error` (then `error` is OUT_OF_MEMORY or GENERATION_FAILED and `cause` the
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

    `model_folder`, `model_id`, `model_sha256`: the model; `echo` needs none. `threads`: CPU threads of torch (None: as torch finds best).
    `tokens_per_batch`: padded source tokens times beams that one batch may hold (None: by device). `delay_ms`: how long `echo` pretends to
    work on each text.
    """

    backend: str = "torch"
    model_folder: str = ""
    model_id: str = ""
    model_sha256: str = ""
    dtype: str = "auto"
    device: str = "auto"
    threads: int | None = None
    tokens_per_batch: int | None = None
    delay_ms: float = 0.0


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


def resolve_dtype(dtype: str, device: str) -> str:
    """`float32` or `bfloat16` for a requested dtype on a resolved device; auto: float32 on CPU, bfloat16 on CUDA. Raises EngineError."""
    if dtype not in DTYPES:
        raise EngineError(f"engine.dtype: {dtype!r} is not one of {', '.join(DTYPES)}")
    if device != "cuda" or dtype == "float32":
        return "float32" if dtype == "auto" else dtype
    import torch

    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bfloat16"
    if dtype == "bfloat16":
        raise EngineError("engine.dtype: this GPU has no bfloat16; choose float32 or auto")
    return "float32"


_loads_lock = threading.Lock()
_loads = 0


def loads() -> int:
    """How many engines this process has loaded."""
    return _loads


def load_engine(settings: EngineSettings) -> Engine:
    """Load the engine that the settings name. Raises EngineError for what cannot be had."""
    global _loads
    engine: Engine
    match settings.backend:
        case "torch":
            # Before transformers is first imported: it reads the environment then.
            forbid_hub_traffic()
            from transforms.engine.torch_engine import TorchEngine

            engine = TorchEngine(settings)
        case "echo":
            from transforms.engine.echo import EchoEngine

            engine = EchoEngine(model_id=settings.model_id or "echo", delay_ms=settings.delay_ms)
        case other:
            raise EngineError(f"engine.backend: {other!r} is not one of {', '.join(BACKENDS)}")
    with _loads_lock:
        _loads += 1
    return engine


def forbid_hub_traffic() -> None:
    """Switch off downloads and telemetry of the Hugging Face libraries; they read these once, when first imported."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["DO_NOT_TRACK"] = "1"
