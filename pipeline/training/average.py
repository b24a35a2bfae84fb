"""A moving average of a model's weights (Polyak and Juditsky 1992, doi 10.1137/0330046)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class Average:
    """Follows the parameters with a decay that grows from 0.1 to its full size, so that the start is soon forgotten."""

    def __init__(self, model: Any, decay: float) -> None:
        self._decay = decay
        self.weights = {name: value.detach().clone() for name, value in model.named_parameters()}

    @torch.no_grad()
    def follow(self, model: Any, step: int) -> None:
        """After step number `step`, counted from 1."""
        share = 1 - min(self._decay, step / (step + 9))
        for name, value in model.named_parameters():
            self.weights[name].lerp_(value.detach(), share)

    def load(self, weights: Mapping[str, Tensor]) -> None:
        for name, value in weights.items():
            self.weights[name].copy_(value)


@contextmanager
def averaged(model: Any, average: Average | None) -> Iterator[None]:
    """Give the model the averaged weights while the body runs."""
    if average is None:
        yield
        return
    own = {name: value.detach().clone() for name, value in model.named_parameters()}
    _set(model, average.weights)
    try:
        yield
    finally:
        _set(model, own)


@torch.no_grad()
def _set(model: Any, weights: Mapping[str, Tensor]) -> None:
    for name, value in model.named_parameters():
        value.copy_(weights[name])
