"""A tiny random model that writes records: real tokenizer, real tags, real constraint. What it writes is whole, and means nothing."""

from __future__ import annotations

from pathlib import Path

from tests.tiny_models import END, make_model
from tests.tiny_tokenizers import make_tokenizer
from transforms.record_format import RecordFormat, save_record_format
from transforms.record_lines import RECORD_TAGS

FORMAT = RecordFormat("record: ", max_source_tokens=100, max_new_tokens=24)


def make_record_model(folder: Path, fmt: RecordFormat | None = FORMAT, seed: int = 0) -> Path:
    """Write a model folder; without a format it does not say that it writes records."""
    import torch

    from transforms.engine.loading import load_model

    tokenizer = make_tokenizer("bpe")
    tokenizer.add_tokens(list(RECORD_TAGS))
    make_model("bart", folder, seed, tokenizer=tokenizer)
    model = load_model(folder, "float32")
    with torch.no_grad():
        # Without the liking for the end that the tiny models have, so that there are lines to look at.
        model.get_output_embeddings().weight[END] *= 0.02
    model.save_pretrained(folder)
    if fmt is not None:
        save_record_format(fmt, folder)
    return folder
