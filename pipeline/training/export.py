"""The trained model as a folder for `chartmill run --model`: safetensors, tokenizer, decode settings, and the format if it selects."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from pipeline.training.pointing import least_markers
from pipeline.training.selecting import writes_once
from pipeline.training.settings import TaskSection
from pipeline.training.start import Start
from transforms.engine.compact_weights import save_compact
from transforms.record_format import RecordFormat, save_record_format
from transforms.selection import save_selection_format


def save_model(model: Any, start: Start, task: TaskSection, marker: int | None, folder: Path, weights: str = "float32") -> None:
    """Write into an empty folder. `task`: what the model is for; `marker`: the token that each of its outputs begins with; `weights`: the
    format of numbers that they are stored in, float32, bfloat16 or int8."""
    _set_decoding(model, start, task, marker)
    if weights == "int8":
        save_compact(model, folder)
    else:
        stored = model if weights == "float32" else deepcopy(model).to(getattr(torch, weights))
        stored.save_pretrained(folder)
    start.codec.tokenizer.save_pretrained(folder)
    if task.objective == "selection" and start.fmt is not None:
        save_selection_format(start.fmt, folder)
    if task.objective == "record":
        save_record_format(RecordFormat(task.prefix, _source_tokens(start, task), task.max_target_tokens), folder)


def _source_tokens(start: Start, task: TaskSection) -> int:
    limit = start.codec.limit
    return limit if task.max_source_tokens == "auto" else min(limit, task.max_source_tokens)


def _set_decoding(model: Any, start: Start, task: TaskSection, marker: int | None) -> None:
    decoding = model.generation_config
    if task.objective == "selection" and start.fmt is not None:
        decoding.num_beams, decoding.no_repeat_ngram_size = 1, int(writes_once(start.codec))
        decoding.max_new_tokens = start.fmt.max_new_tokens
        decoding.forced_bos_token_id, decoding.min_length = None, 0
        decoding.min_new_tokens = least_markers(start.fmt) if start.points else None
        decoding.early_stopping, decoding.length_penalty = False, 1.0
    else:
        decoding.max_new_tokens = task.max_target_tokens
        if start.selected:  # its markers came once each, and so many at least; words do not
            decoding.no_repeat_ngram_size, decoding.min_new_tokens = 0, None
    if marker is not None:
        decoding.forced_bos_token_id = marker
