"""A selection model in a folder: write it, load it, summarize with it one note at a time.

The run itself summarizes through the engine; this is the plain path that training scores with: tokenizer, `generate()`,
`expand_markers`.
"""

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, BartForConditionalGeneration, PreTrainedTokenizerFast

from pipeline.default_model.examples import Tokenize, note_units
from transforms.selection import (
    MarkedSource,
    Selection,
    SelectionFormat,
    expand_markers,
    load_selection_format,
    mark_source,
    save_selection_format,
)


def tokenize_with(tokenizer: PreTrainedTokenizerFast) -> Tokenize:
    """Return a function from texts to their token ids without special tokens."""

    def tokenize(texts: Sequence[str]) -> list[list[int]]:
        return list(tokenizer(list(texts), add_special_tokens=False)["input_ids"]) if texts else []

    return tokenize


@torch.no_grad()
def summarize(
    model: BartForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    fmt: SelectionFormat,
    texts: Iterable[str],
) -> list[Selection]:
    """Summarize notes one by one, greedily: tokenizer, `generate()`, `expand_markers`."""
    model.eval()
    selections = []
    for text in texts:
        marked = mark_note(text, tokenizer, fmt)
        encoded = tokenizer(marked.source, return_tensors="pt", truncation=True, max_length=fmt.max_source_tokens)
        ids = model.generate(**encoded)
        output = tokenizer.decode(ids[0], skip_special_tokens=True)
        selections.append(expand_markers(output, marked, text, fmt))
    return selections


def mark_note(text: str, tokenizer: PreTrainedTokenizerFast, fmt: SelectionFormat) -> MarkedSource:
    """Mark the sentences of a note, as many as the model can read."""
    return mark_source(text, note_units(text, fmt, tokenize_with(tokenizer)), fmt)


def publish_model(model: BartForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, fmt: SelectionFormat, output: Path) -> None:
    """Write weights (bfloat16), tokenizer and format into `output`, each file replaced whole."""
    partial = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    partial.mkdir(parents=True)
    try:
        small = BartForConditionalGeneration(model.config)
        small.load_state_dict(model.state_dict())
        small.generation_config = model.generation_config
        small.to(torch.bfloat16).save_pretrained(partial)
        # What was last read with it may have left its limit there, which readers of a file would not expect.
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.save_pretrained(partial)
        save_selection_format(fmt, partial)
        output.mkdir(parents=True, exist_ok=True)
        for path in sorted(partial.iterdir()):
            path.chmod(0o644)  # weights are written 0600, which a package's users could not read
            path.replace(output / path.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load_model(folder: Path) -> tuple[BartForConditionalGeneration, PreTrainedTokenizerFast, SelectionFormat]:
    """Load a published model in float32; ValueError if the folder holds no selection model."""
    fmt = load_selection_format(folder)
    if fmt is None:
        raise ValueError(f"{folder} holds no selection model")
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(folder), fmt
