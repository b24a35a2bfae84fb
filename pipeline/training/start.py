"""What training starts from: a checkpoint, or random weights of its shape, with the tokens, positions and vocabulary that are asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.training.material import Codec
from pipeline.training.pointing import is_pointer, keep_pointer
from pipeline.training.positions import extend_positions
from pipeline.training.settings import TrainJob
from pipeline.training.vocabulary import cut_vocabulary
from schemas.errors import ConfigurationError
from transforms.engine import EngineError
from transforms.engine.loading import load_model, load_tokenizer, special_ids
from transforms.engine.sources import limits_of
from transforms.engine.tokens import SourceTokenizer
from transforms.models import ModelFiles
from transforms.record_lines import RECORD_TAGS
from transforms.selection import SelectionFormat, load_selection_format

_MASK = "<mask>"
_NO_LIMIT = 100_000
# Logit biases this low forbid a token, as the packaged model forbids all that are no markers.
_FORBIDDING = -50.0


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """A model ready to be trained, in float32 on the CPU, with its tokenizer.

    `fmt`: of tasks that select. `selected`: whether the start was a selection model. `markers`: the decoder marker's id of every task that
    has one. `mask`: the token that hides. `points`: the decoder is a pointer and stays one.
    """

    model: Any = field(repr=False)
    codec: Codec = field(repr=False)
    fmt: SelectionFormat | None
    selected: bool
    markers: dict[str, int]
    mask: int | None
    points: bool = False


def prepare_start(job: TrainJob, files: ModelFiles, texts: Iterable[str], reference_words: int = 100) -> Start:
    """Load and change the start as the job asks. `texts`: what a smaller vocabulary is chosen by. `reference_words`: of a usual reference.

    Raises ConfigurationError for what this kind of model cannot be given.
    """
    assert files.folder is not None
    torch.manual_seed(job.seed)
    try:
        tokenizer = load_tokenizer(files.folder)
        model = load_model(files.folder, "float32") if job.model.from_config is None else _random(files, job.model.from_config)
        special_ids(model)
    except EngineError as error:
        raise ConfigurationError(str(error)) from None
    grows = any(task.objective != "generation" or task.decoder_marker for task in job.tasks.values())
    if getattr(model.config, "share_encoder_decoder_embeddings", True) is False and (grows or job.model.vocabulary is not None):
        raise ConfigurationError(
            "model.start: it reads and writes by two vocabularies; it can only learn generation, without decoder_marker"
        )
    if job.model.vocabulary is not None:
        tokenizer = cut_vocabulary(model, tokenizer, job.model.vocabulary, texts)
    if job.model.max_source_tokens is not None:
        extend_positions(model, tokenizer, job.model.max_source_tokens)
    if job.fit.dropout is not None:
        _set_dropout(model, job.fit.dropout)
    objectives: set[str] = {task.objective for task in job.tasks.values()}
    fmt = _format(job, files, limit_of(model, tokenizer), reference_words) if "selection" in objectives else None
    _add_tokens(model, tokenizer, fmt, [t.decoder_marker for t in job.tasks.values() if t.decoder_marker], objectives)
    if objectives - {"selection"}:
        _allow_all(model)
    points = objectives == {"selection"} and is_pointer(model)
    if points:
        keep_pointer(model)
    return Start(model, codec_of(model, tokenizer), fmt, _selects(files.folder), _markers(job, tokenizer), _mask_id(tokenizer), points)


def _selects(folder: Path) -> bool:
    try:
        return load_selection_format(folder) is not None
    except ValueError as error:
        raise ConfigurationError(f"model.start: {error}") from None


def codec_of(model: Any, tokenizer: Any) -> Codec:
    ids = special_ids(model)
    sources = SourceTokenizer(tokenizer)
    return Codec(tokenizer, sources, limit_of(model, tokenizer), ids["decoder_start_token_id"], ids["eos_token_id"][0], ids["pad_token_id"])


def limit_of(model: Any, tokenizer: Any) -> int:
    """The most tokens of a source, special tokens included."""
    sources = SourceTokenizer(tokenizer)
    return min(limits_of(model.config, sources).source + sources.special_count, _NO_LIMIT)


def _random(files: ModelFiles, changes: dict[str, Any]) -> Any:
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, GenerationConfig

    config = AutoConfig.from_pretrained(files.folder, local_files_only=True, trust_remote_code=False)
    unknown = [name for name in changes if not hasattr(config, name)]
    if unknown:
        raise ConfigurationError(f"model.from_config: {type(config).__name__} has no key {unknown[0]!r}")
    for name, value in changes.items():
        setattr(config, name, value)
    try:
        model = AutoModelForSeq2SeqLM.from_config(config, dtype=torch.float32)
    except (ValueError, RuntimeError, TypeError, ZeroDivisionError) as error:
        raise ConfigurationError(f"model.from_config: no {type(config).__name__} can be made of it: {error}") from None
    model.generation_config = GenerationConfig.from_model_config(config)
    return model


def _set_dropout(model: Any, share: float) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = share
        elif isinstance(getattr(module, "dropout", None), float):  # BART's layers call the function with their own share
            module.dropout = share


def _format(job: TrainJob, files: ModelFiles, limit: int, reference_words: int) -> SelectionFormat:
    """The start's own format, else the job's, with the job's budget."""
    assert files.folder is not None
    budget = reference_words if job.selection.budget_words == "auto" else job.selection.budget_words
    try:
        own = load_selection_format(files.folder)
        fmt = own or SelectionFormat(
            **job.selection.model_dump(exclude={"budget_words"}),
            budget_words=budget,
            max_source_tokens=limit,
            max_new_tokens=job.selection.n_markers + 1,
        )
        longest = limit if job.model.max_source_tokens is not None else fmt.max_source_tokens
        wanted = job.tasks[job.first_task].max_source_tokens
        return replace(fmt, budget_words=budget, max_source_tokens=longest if wanted == "auto" else min(longest, wanted))
    except ValueError as error:
        raise ConfigurationError(f"selection: {error}") from None


def _add_tokens(model: Any, tokenizer: Any, fmt: SelectionFormat | None, markers: Sequence[str], objectives: set[str]) -> None:
    """Tokens that the tasks need and the start does not know, each with an embedding of its own."""
    from transformers import AddedToken

    known = len(tokenizer)
    if fmt is not None:
        # Ordinary tokens, since special ones are left out when outputs are decoded. The space before one belongs to it.
        names = [name for name in fmt.tokens() if tokenizer.convert_tokens_to_ids(name) in (None, tokenizer.unk_token_id)]
        tokenizer.add_tokens([AddedToken(name, lstrip=True, normalized=False) for name in names])
    if {"denoise", "gap_sentences"} & objectives and tokenizer.mask_token_id is None:
        tokenizer.add_special_tokens({"mask_token": _MASK})
    if "record" in objectives:
        names = [tag for tag in RECORD_TAGS if tokenizer.convert_tokens_to_ids(tag) in (None, tokenizer.unk_token_id)]
        tokenizer.add_tokens([AddedToken(name, lstrip=True, normalized=False) for name in names])
    if markers:
        tokenizer.add_tokens([AddedToken(name, normalized=False, special=True) for name in dict.fromkeys(markers)], special_tokens=True)
    if len(tokenizer) > known:
        _grow(model, known, len(tokenizer))


@torch.no_grad()
def _grow(model: Any, known: int, size: int) -> None:
    """Rows for new tokens: directions of their own, as long as other words' on average.

    Told apart from the first step on: with rows drawn around one mean, as `resize_token_embeddings` draws them, markers begin alike.
    """
    rows = model.get_input_embeddings().weight
    length = rows[:known].norm(dim=1).mean()
    if size > len(rows):
        model.resize_token_embeddings(size, mean_resizing=False)
    rows = model.get_input_embeddings().weight
    fresh = nn.init.orthogonal_(torch.empty(size - known, rows.shape[1]))
    rows[known:size] = fresh / fresh.norm(dim=1, keepdim=True) * length
    output = model.get_output_embeddings().weight
    if output.data_ptr() != rows.data_ptr():
        output[known:size] = rows[known:size] / length * output[:known].norm(dim=1).mean()


@torch.no_grad()
def _allow_all(model: Any) -> None:
    """Let prose be written by a model that was made to write markers only."""
    bias = getattr(model, "final_logits_bias", None)
    if bias is not None:
        bias[bias <= _FORBIDDING] = 0.0


def _markers(job: TrainJob, tokenizer: Any) -> dict[str, int]:
    """The decoder marker's id of every task that has one."""
    return {name: tokenizer.convert_tokens_to_ids(task.decoder_marker) for name, task in job.tasks.items() if task.decoder_marker}


def _mask_id(tokenizer: Any) -> int | None:
    mask: int | None = tokenizer.mask_token_id
    return mask
