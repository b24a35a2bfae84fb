"""The processes of one training run: a single one, or those that torchrun started."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from schemas.errors import ConfigurationError
from transforms.engine import resolve_device
from transforms.engine.hardware import best_cpu_dtype, cpu_features

# While the first process judges the model, the others wait.
_PATIENCE = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process among `world`; the one with rank 0 writes and speaks."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        return self.rank == 0

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes."""
        sums = torch.tensor(list(values), dtype=torch.float64 if self.device.type == "cpu" else torch.float32, device=self.device)
        if self.world > 1:
            dist.all_reduce(sums)
        return sums.tolist()

    def from_first(self, values: Sequence[float] | None) -> list[float]:
        """What the first process gives, to all. The others' values only tell how many there are."""
        told: list[Any] = [list(values or ())]
        if self.world > 1:
            dist.broadcast_object_list(told, src=0)
        return list(told[0])

    def wait(self) -> None:
        if self.world > 1:
            dist.barrier()


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join the processes that torchrun started, if it did. Raises ConfigurationError for a device that is not here."""
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    try:
        kind = resolve_device(device)
    except ValueError as error:
        raise ConfigurationError(str(error).replace("engine.device", "machine.device")) from None
    place = torch.device(kind, int(os.environ.get("LOCAL_RANK", "0"))) if kind == "cuda" else torch.device("cpu")
    if kind == "cuda":
        torch.cuda.set_device(place)
    if world == 1:
        yield Ranks(0, 1, place)
        return
    dist.init_process_group("nccl" if kind == "cuda" else "gloo", timeout=_PATIENCE)
    try:
        yield Ranks(rank, world, place)
    finally:
        dist.destroy_process_group()


def autocast_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """What matrix products are computed in; weights stay float32. auto: bfloat16 where it is fast."""
    if dtype == "auto":
        fast = (
            torch.cuda.is_bf16_supported(including_emulation=False)
            if device.type == "cuda"
            else best_cpu_dtype(cpu_features()) == "bfloat16"
        )
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if dtype == "bfloat16" else torch.float32


class Asked:
    """Whether this process was asked to stop: by SIGTERM, or by Ctrl-C, whose second one takes effect at once."""

    def __init__(self) -> None:
        self.stop = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.stop = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    @contextmanager
    def listening(self) -> Iterator[Asked]:
        """Only the main thread can listen; elsewhere nothing is changed."""
        try:
            before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:
            yield self
            return
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def summed(values: Sequence[Tensor]) -> float:
    """Sum of scalars, read from the device once."""
    return float(torch.stack(list(values)).sum()) if values else 0.0
