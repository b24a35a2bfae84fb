"""How to decode: what the checkpoint ships, overridden by what the job asks. Plain JSON in, no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class DecodeSettings:
    """Greedy (num_beams=1) or beam search; never sampling. Names and meanings are those of transformers' GenerationConfig.

    `max_new_tokens` and `min_new_tokens` count generated tokens, the end-of-sequence token included, the decoder's start token not.
    `early_stopping`: True, False or "never" (beams only).
    """

    num_beams: int = 1
    max_new_tokens: int = 160
    min_new_tokens: int = 0
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    no_repeat_ngram_size: int = 0
    repetition_penalty: float = 1.0
    renormalize_logits: bool = False
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | None = None
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, least in (("num_beams", 1), ("max_new_tokens", 1), ("min_new_tokens", 0), ("no_repeat_ngram_size", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"decode.{name}: {value!r} is not a whole number of at least {least}")
        if self.min_new_tokens > self.max_new_tokens:
            raise ValueError(f"decode.min_new_tokens: {self.min_new_tokens} exceeds max_new_tokens, {self.max_new_tokens}")
        if self.early_stopping not in (True, False, "never"):
            raise ValueError(f"decode.early_stopping: {self.early_stopping!r} is not one of true, false, never")
        if self.repetition_penalty <= 0:
            raise ValueError(f"decode.repetition_penalty: {self.repetition_penalty!r} is not above 0")

    def as_json(self) -> str:
        """Canonical JSON of what differs from the defaults, plus the two settings that everybody asks about."""
        plain = asdict(DecodeSettings())
        mine = asdict(self)
        told = {k: v for k, v in mine.items() if v != plain[k] or k in ("num_beams", "max_new_tokens")}
        return json.dumps(told, sort_keys=True, separators=(",", ":"))


# Settings that change greedy or beam output and that this engine does not offer, with the value that means "off".
_NOT_OFFERED: dict[str, Any] = {
    "encoder_no_repeat_ngram_size": 0,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "exponential_decay_length_penalty": None,
    "sequence_bias": None,
    "guidance_scale": None,
    "encoder_repetition_penalty": 1.0,
    "watermarking_config": None,
}


def shipped_decode(folder: Path) -> dict[str, Any]:
    """Decode settings that a checkpoint folder ships, by DecodeSettings field; what it does not say is absent.

    They stand in generation_config.json, in older checkpoints in config.json. `max_length` and `min_length` count the start token too,
    so each becomes one less as `*_new_tokens`. Sampling settings are left out: output must be repeatable. Raises ValueError for settings
    that would change the output and that the engine does not offer.
    """
    path = folder / "generation_config.json"
    raw = _read_json(path if path.is_file() else folder / "config.json")
    for name, off in _NOT_OFFERED.items():
        if raw.get(name) not in (None, off):
            raise ValueError(f"{path.name} sets {name}, which this engine does not offer; remove it from the model's folder")
    shipped = {f.name: _frozen(raw[f.name]) for f in fields(DecodeSettings) if raw.get(f.name) is not None}
    for old, new in (("max_length", "max_new_tokens"), ("min_length", "min_new_tokens")):
        if new not in shipped and raw.get(old):
            shipped[new] = max(int(raw[old]) - 1, 0)
    return shipped


def decode_settings(folder: Path | None, overrides: Mapping[str, Any]) -> DecodeSettings:
    """The checkpoint's settings with the job's on top.

    An override of None means "as the checkpoint ships", a negative forced token id means "force none". Without a folder the defaults are
    DecodeSettings'. Raises ValueError for an unknown name or an impossible value.
    """
    known = [f.name for f in fields(DecodeSettings)]
    for name in overrides:
        if name not in known:
            raise ValueError(f"decode.{name} is not a decode setting; choices: {', '.join(known)}")
    shipped = shipped_decode(folder) if folder else {}
    merged = shipped | {name: _frozen(value) for name, value in overrides.items() if value is not None}
    for name in ("forced_bos_token_id", "forced_eos_token_id"):
        if merged.get(name) is not None and merged[name] < 0:
            merged[name] = None
    # The shipped minimum gives way to a maximum that the job asks for.
    if overrides.get("min_new_tokens") is None and "max_new_tokens" in merged:
        merged["min_new_tokens"] = min(merged.get("min_new_tokens", 0), merged["max_new_tokens"])
    return DecodeSettings(**merged)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path.parent} holds no {path.name}: not a model folder") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{path} is not a JSON object")
    return raw


def _frozen(value: Any) -> Any:
    """Lists as tuples, so that settings can be compared and hashed."""
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
