"""How good a model in training is: ROUGE of its summaries, made by our own engine as a job makes them, or its loss."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.training.batches import cut_batches
from pipeline.training.material import Codec, Material, batch_of
from pipeline.training.objective import token_loss
from pipeline.training.rows import Row
from pipeline.training.settings import TaskSection
from schemas.errors import ConfigurationError

Figures = dict[str, float]


def check_scorer() -> None:
    """Raise ConfigurationError where ROUGE is not installed."""
    if find_spec("rouge_score") is None:
        raise ConfigurationError("dev.score: rouge needs `pip install chartmill[train]`; or choose loss")


def rouge_of_folder(folder: Path, rows: Sequence[Row], task: TaskSection, device: str, threads: int | None) -> Figures:
    """ROUGE F1 (percent) of greedy summaries by the model in the folder, and `score`, the mean of the three. A text that fails scores 0."""
    from pipeline.rouge import score_rouge
    from pipeline.summarize import load_summarizer

    dtype = "float32" if device == "cpu" else "auto"
    summarizer = load_summarizer(
        str(folder), dtype=dtype, device=device, threads=threads, prefix=task.prefix, decode={"num_beams": 1}, checks=()
    )
    summaries = summarizer.summarize([row.text for row in rows])
    scores = score_rouge([summary.text for summary in summaries], [row.reference for row in rows])
    figures = {"rouge1": scores.rouge1, "rouge2": scores.rouge2, "rougeLsum": scores.rouge_lsum}
    return {**figures, "score": sum(figures.values()) / 3}


@torch.no_grad()
def loss_of(model: Any, materials: Sequence[Material], codec: Codec, tokens: int, device: torch.device, dtype: torch.dtype) -> float:
    """Mean loss per target token over all examples of all tasks, without dropout and smoothing, noise always the same."""
    training = model.training
    model.eval()
    total = learned = 0.0
    for task, material in enumerate(materials):
        for batch in cut_batches(np.arange(len(material)), material.lengths, tokens):
            tensors = batch_of(material, batch, codec, partial(_chance, task)).to(device)
            total += float(token_loss(model, tensors, 0.0, dtype, material.once))
            learned += tensors.learned
    model.train(training)
    return total / max(learned, 1.0)


def _chance(task: int, index: int) -> np.random.Generator:
    return np.random.default_rng([task, index])
