"""Optimizer steps: batches shared among processes, gradients summed over target tokens, warm-up and cosine. A function of seed and step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.training.average import Average
from pipeline.training.batches import BatchStream
from pipeline.training.material import Codec, Material, Tensors, batch_of
from pipeline.training.objective import token_loss
from pipeline.training.ranks import Ranks, summed
from pipeline.training.settings import FitSection
from schemas.errors import ChartmillError, ConfigurationError


@dataclass(frozen=True, slots=True)
class StepFigures:
    """Of one optimizer step. `losses`: mean per learned token of every task that came up in it, over all processes."""

    losses: dict[str, float]
    learned: dict[str, float]
    tokens: float
    gradient_norm: float
    learning_rate: float

    @property
    def loss(self) -> float:
        """Mean per learned token over all tasks."""
        return sum(loss * self.learned[name] for name, loss in self.losses.items()) / sum(self.learned.values())


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """What is learned from, in which order, for how long. `seed` decides dropout and noise."""

    materials: Sequence[Material] = field(repr=False)
    stream: BatchStream = field(repr=False)
    codec: Codec = field(repr=False)
    steps: int
    seed: int


class Trainer:
    """The model with its optimizer. `model` is the plain model, on the device."""

    def __init__(self, model: Any, course: Course, fit: FitSection, ranks: Ranks, dtype: torch.dtype) -> None:
        if fit.batches_per_step % ranks.world:
            raise ConfigurationError(f"fit.batches_per_step: {fit.batches_per_step} is not a multiple of the {ranks.world} processes")
        self.model = model.to(ranks.device)
        self.average = Average(self.model, fit.average) if fit.average is not None else None
        self._course, self._fit, self._ranks, self._dtype = course, fit, ranks, dtype
        self._optimizer = _optimizer(self.model, fit)
        self._schedule = _schedule(self._optimizer, fit, course.steps, 0)
        self._shared = _shared(self.model, ranks)
        self.model.train()

    def step(self, number: int) -> StepFigures:
        """Do step `number`, counted from 0. Raises ChartmillError when the gradient is not a number."""
        numbers = self._mine(number)
        batches = [self._drawn(n) for n in numbers]
        learned = self._ranks.total([*self._per_task([(task, float(t.learned)) for task, t in batches]), sum(t.tokens for _, t in batches)])
        every = sum(learned[:-1])
        losses = []
        for place, (n, (task, tensors)) in enumerate(zip(numbers, batches, strict=True)):
            torch.manual_seed(self._course.seed * 1_000_003 + n)
            with self._in_step(last=place == len(numbers) - 1):
                material = self._course.materials[task]
                loss = token_loss(self._shared, tensors, material.label_smoothing, self._dtype, material.once)
                # Processes' gradients are averaged, and a step's loss is a mean over all their tokens.
                torch.autograd.backward(loss * (self._ranks.world / every))
            losses.append((task, loss.detach()))
        per_task = [summed([loss for t, loss in losses if t == task]) for task in range(len(self._course.materials))]
        return self._updated(number, self._ranks.total(per_task), learned)

    def _updated(self, number: int, losses: Sequence[float], learned: Sequence[float]) -> StepFigures:
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), self._fit.max_gradient))
        if not math.isfinite(norm):
            raise ChartmillError(
                f"the gradient of step {number + 1} is not a number; lower fit.learning_rate, or set machine.dtype=float32"
            )
        rate = float(self._schedule.get_last_lr()[0])
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.follow(self.model, number + 1)
        names = [material.name for material in self._course.materials]
        seen = {name: count for name, count in zip(names, learned[:-1], strict=True) if count}
        means = {name: loss / seen[name] for name, loss in zip(names, losses, strict=True) if name in seen}
        return StepFigures(means, seen, learned[-1], norm, rate)

    def _mine(self, step: int) -> list[int]:
        """The numbers of this process' batches: every world-th."""
        first = step * self._fit.batches_per_step
        return list(range(first + self._ranks.rank, first + self._fit.batches_per_step, self._ranks.world))

    def _drawn(self, number: int) -> tuple[int, Tensors]:
        course = self._course
        batch = course.stream[number]
        drawn = batch_of(
            course.materials[batch.task],
            batch.examples,
            course.codec,
            lambda i: np.random.default_rng([course.seed, batch.epoch, batch.task, i]),
        )
        return batch.task, drawn.to(self._ranks.device)

    def _per_task(self, counts: Sequence[tuple[int, float]]) -> list[float]:
        sums = [0.0] * len(self._course.materials)
        for task, count in counts:
            sums[task] += count
        return sums

    @contextmanager
    def _in_step(self, last: bool) -> Iterator[None]:
        """Gradients travel between processes once a step, with the last batch."""
        with nullcontext() if last or self._ranks.world == 1 else self._shared.no_sync():
            yield

    def state(self) -> dict[str, Any]:
        """What a later process needs to go on as this one would."""
        average = {} if self.average is None else self.average.weights
        return {"model": self.model.state_dict(), "average": average, "optimizer": self._optimizer.state_dict()}

    def resume(self, state: dict[str, Any], step: int) -> None:
        """Go on where `step` steps had been done."""
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load(state["average"])
        self._schedule = _schedule(self._optimizer, self._fit, self._course.steps, step)


def _shared(model: Any, ranks: Ranks) -> Any:
    if ranks.world == 1:
        return model
    return nn.parallel.DistributedDataParallel(model, device_ids=[ranks.device] if ranks.device.type == "cuda" else None)


def _optimizer(model: Any, fit: FitSection) -> torch.optim.Optimizer:
    """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101); gains and biases do not decay."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": fit.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=fit.learning_rate)


def _schedule(optimizer: torch.optim.Optimizer, fit: FitSection, steps: int, done: int) -> Any:
    """`done`: steps before this process. Warm-up begins with the second step's share, so that no step is for nothing."""
    from transformers import get_cosine_schedule_with_warmup

    for group in optimizer.param_groups:
        group["initial_lr"] = fit.learning_rate
    warmup = round(fit.warmup_share * steps)
    # One place on: at place 0 the rate is 0.
    return get_cosine_schedule_with_warmup(optimizer, warmup, steps + 1, last_epoch=done)
