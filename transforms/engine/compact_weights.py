"""Weights of a model folder in one byte each: int8 rows with a scale per row, half the size of bfloat16. They are computed with as float32.

Rounding to the nearest of 255 steps of each row's largest value, as in weight-only quantization (Jacob et al. 2018, arXiv 1712.05877).
Vectors (biases, norms) stay as they are. It is a way of storing: which number format is computed in is the engine's affair.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

FILE = "model.int8.safetensors"
_SCALE = ".scale"
_STEPS = 127


def save_compact(model: Any, folder: Path) -> None:
    """Write the configuration and the weights of a model into a folder; tied tensors are written once."""
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tied = set(_tied(model))
    tensors = {name: value for name, value in model.state_dict().items() if name not in tied}
    save_file(packed(tensors), folder / FILE, metadata={"format": "pt"})


def load_compact(folder: Path, dtype: torch.dtype) -> Any:
    """The model of a folder that `save_compact` has written. Raises ValueError if its tensors are not those of the model, OSError and what
    safetensors raises for a file that cannot be read."""
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, GenerationConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    model = AutoModelForSeq2SeqLM.from_config(config, dtype=torch.float32)
    found = model.load_state_dict(unpacked(load_file(folder / FILE)), strict=False)
    lacking = set(found.missing_keys) - set(_tied(model))
    if lacking or found.unexpected_keys:
        raise ValueError(f"{FILE} lacks {len(lacking)} tensors of the model and has {len(found.unexpected_keys)} that it does not know")
    model.tie_weights()
    model.generation_config = GenerationConfig.from_pretrained(folder, local_files_only=True)
    return model.to(dtype).eval()


def _tied(model: Any) -> Mapping[str, str]:
    """Tensors that are another's, by name."""
    return getattr(model, "all_tied_weights_keys", None) or {}


def packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices as int8 with `NAME.scale`, float32, shape (rows, 1); everything else in float32."""
    stored: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if value.dim() == 2 and value.is_floating_point():
            stored[name], stored[name + _SCALE] = _rows(value.detach().float())
        else:
            stored[name] = value.detach().float().contiguous()
    return stored


def _rows(matrix: Tensor) -> tuple[Tensor, Tensor]:
    scale = matrix.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / _STEPS
    return (matrix / scale).round().clamp(-_STEPS, _STEPS).to(torch.int8), scale


def unpacked(stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All in float32; each value within half a step of its row of what was packed. Raises ValueError for rows without their scale."""
    tensors = {name: value for name, value in stored.items() if not name.endswith(_SCALE)}
    unscaled = [name for name, value in tensors.items() if value.dtype == torch.int8 and name + _SCALE not in stored]
    if unscaled:
        raise ValueError(f"{FILE}: {len(unscaled)} tensors have no scale")
    return {name: value.float() * stored[name + _SCALE] if value.dtype == torch.int8 else value for name, value in tensors.items()}
