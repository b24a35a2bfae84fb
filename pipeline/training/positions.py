"""More positions for a model that was made for shorter sources."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from schemas.errors import ConfigurationError

_LIMITS = ("max_position_embeddings", "max_encoder_position_embeddings", "n_positions")


@torch.no_grad()
def extend_positions(model: Any, tokenizer: Any, tokens: int) -> None:
    """Let the model read sources of `tokens` tokens, special ones included, in place.

    Learned positions beyond the last are copies of the first ones, as in Longformer (Beltagy et al. 2020, arXiv 2004.05150); sinusoids are
    computed; T5 counts distances and needs no more than leave. Raises ConfigurationError for fewer positions than there are, and for other
    kinds of positions.
    """
    config = model.config
    known = next((getattr(config, name) for name in _LIMITS if getattr(config, name, None)), None)
    if known is not None and tokens < known:
        raise ConfigurationError(
            f"model.max_source_tokens: the start has {known} positions, and {tokens} would be fewer; see tasks.*.max_source_tokens"
        )
    for name, module in list(model.named_modules()):
        if name.rpartition(".")[2] != "embed_positions":
            continue
        if not isinstance(module, nn.Embedding):
            raise ConfigurationError(f"model.max_source_tokens: {type(model).__name__} has no positions to extend; leave it null")
        # LED's encoder and decoder have limits of their own; what is written does not grow with what is read.
        if "decoder" not in name or getattr(config, "max_position_embeddings", None):
            _lengthen(module, tokens)
    for name in _LIMITS:
        if getattr(config, name, None):
            setattr(config, name, tokens)
    tokenizer.model_max_length = tokens


def _lengthen(module: Any, tokens: int) -> None:
    offset = int(getattr(module, "offset", 0))  # BART leaves its first rows unused
    old = module.weight
    if hasattr(module, "create_weight"):
        module.weight = nn.Parameter(torch.empty(tokens, old.shape[1]), requires_grad=False)
        module.weight.copy_(module.create_weight())
        module.weight[: len(old)] = old
    else:
        rows = torch.arange(tokens) % (len(old) - offset)
        module.weight = nn.Parameter(torch.cat([old[:offset], old[offset:][rows]]))
    module.num_embeddings = len(module.weight)
