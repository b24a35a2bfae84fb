"""The loss of a batch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.training.material import IGNORED, Tensors


def token_loss(model: Any, batch: Tensors, label_smoothing: float, dtype: torch.dtype, once: bool = False) -> Tensor:
    """Sum over target tokens of the cross-entropy, in float32; with smoothing as Szegedy et al. 2016 (arXiv 1512.00567).

    `once`: among tokens that the decoder has not read yet, as when it writes with no_repeat_ngram_size 1. Where a batch has choices: among
    those.
    """
    with torch.autocast(batch.source.device.type, dtype, enabled=dtype != torch.float32):
        output = model(input_ids=batch.source, attention_mask=batch.mask, decoder_input_ids=batch.decoder_input, use_cache=False)
    logits = output.logits.float()
    if once:
        logits = logits.masked_fill(_read_before(batch.decoder_input, logits.shape[-1]), -torch.inf)
    if batch.choices is not None:
        logits = logits.masked_fill(~_offered(batch, logits.shape[-1]), -torch.inf)
    return nn.functional.cross_entropy(
        logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED, reduction="sum", label_smoothing=label_smoothing
    )


def _read_before(tokens: Tensor, vocabulary: int) -> Tensor:
    """Which tokens a decoder has read at each position, its own included: (rows, positions, vocabulary)."""
    read = torch.zeros(*tokens.shape, vocabulary, dtype=torch.uint8, device=tokens.device)
    return read.scatter_(2, tokens[..., None], 1).cummax(dim=1).values.bool()


def _offered(batch: Tensors, vocabulary: int) -> Tensor:
    """Which tokens may be written at each position: (rows, positions, vocabulary). Where nothing is learned, all."""
    assert batch.choices is not None
    offered = (batch.labels == IGNORED)[..., None].repeat(1, 1, vocabulary)
    offered[tuple(batch.choices.unbind(dim=1))] = True
    return offered
