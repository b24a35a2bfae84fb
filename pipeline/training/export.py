"""The trained model as a folder for `chartmill run --model`: safetensors, tokenizer, decode settings, and the format if it selects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.training.selecting import writes_once
from pipeline.training.settings import TaskSection
from pipeline.training.start import Start
from transforms.selection import save_selection_format


def save_model(model: Any, start: Start, task: TaskSection, marker: int | None, folder: Path) -> None:
    """Write into an empty folder. `task`: what the model is for; `marker`: the token that each of its outputs begins with."""
    _set_decoding(model, start, task, marker)
    model.save_pretrained(folder)
    start.codec.tokenizer.save_pretrained(folder)
    if task.objective == "selection" and start.fmt is not None:
        save_selection_format(start.fmt, folder)


def _set_decoding(model: Any, start: Start, task: TaskSection, marker: int | None) -> None:
    decoding = model.generation_config
    if task.objective == "selection" and start.fmt is not None:
        decoding.num_beams, decoding.no_repeat_ngram_size = 1, int(writes_once(start.codec))
        decoding.max_new_tokens = start.fmt.max_new_tokens
        decoding.forced_bos_token_id, decoding.min_length, decoding.min_new_tokens = None, 0, None
        decoding.early_stopping, decoding.length_penalty = False, 1.0
    else:
        decoding.max_new_tokens = task.max_target_tokens
        if start.selected:  # its markers came once each; words do not
            decoding.no_repeat_ngram_size = 0
    if marker is not None:
        decoding.forced_bos_token_id = marker
