"""A model folder to a model and a tokenizer: safetensors only, from disk only, no code that comes with a model is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from transforms.engine import EngineError, compact_weights


def check_folder(folder: Path) -> None:
    """Raise EngineError unless the folder holds a config and safetensors weights."""
    if not (folder / "config.json").is_file():
        raise EngineError(f"engine.model: {str(folder)!r} is not a model folder (it holds no config.json)")
    if not any(folder.glob("*.safetensors")):
        raise EngineError(f"engine.model: {str(folder)!r} holds no *.safetensors; other weights (pickle .bin, .pt, .h5) are never loaded")


def load_model(folder: Path, dtype: str) -> Any:
    check_folder(folder)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if (folder / compact_weights.FILE).is_file():
        return _compact_model(folder, dtype)
    try:
        model, report = transformers.AutoModelForSeq2SeqLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise EngineError(f"engine.model: {str(folder)!r} does not load as a sequence-to-sequence model: {error}") from None
    # transformers fills what the file lacks with random numbers and carries on; that must not become somebody's summary.
    lacking = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if lacking:
        raise EngineError(f"engine.model: the weights in {str(folder)!r} lack {len(lacking)} tensors of the model, first {lacking[0]}")
    return model


def _compact_model(folder: Path, dtype: str) -> Any:
    try:
        return compact_weights.load_compact(folder, getattr(torch, dtype))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise EngineError(f"engine.model: {str(folder)!r} does not load as a sequence-to-sequence model: {error}") from None


def load_tokenizer(folder: Path) -> Any:
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise EngineError(f"engine.model: the tokenizer in {str(folder)!r} does not load: {error}") from None


def special_ids(model: Any) -> dict[str, Any]:
    """The token ids that `generate()` needs; `eos_token_id` always as a list."""
    shipped, config = model.generation_config, model.config
    ids = {
        name: _first(getattr(shipped, name, None), getattr(config, name, None))
        for name in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    }
    eos = ids["eos_token_id"]
    ids["eos_token_id"] = eos if isinstance(eos, list) else [] if eos is None else [eos]
    if not ids["eos_token_id"]:
        raise EngineError(f"the model's {type(config).__name__} names no eos_token_id: it could never stop")
    ids["pad_token_id"] = _first(ids["pad_token_id"], ids["eos_token_id"][0])
    return ids


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)
