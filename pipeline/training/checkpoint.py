"""Where a run stands, in one file that is replaced whole: a kill at any moment leaves the one before or the new one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from pipeline.training.folder import CHECKPOINT, RunFolder
from schemas.errors import ConfigurationError


@dataclass(slots=True)
class Stand:
    """`step`: steps done. `best`: figures of the best look at the dev set, `score` among them, taken after `best_step` steps.

    `highest_learned`: the best score of looks after the first step, None before one; `looks_since_best` counts from it, so that a training
    that gets worse before it gets better is not stopped by the score it started from.
    """

    step: int = 0
    seconds: float = 0.0
    tokens: float = 0.0
    best_step: int = 0
    best: dict[str, float] = field(default_factory=dict)
    highest_learned: float | None = None
    looks_since_best: int = 0
    stopped_early: bool = False

    def judged(self, figures: dict[str, float]) -> bool:
        """Take in a look at the model as it is; tell whether it is the best so far."""
        best = not self.best or figures["score"] > self.best["score"]
        if best:
            self.best, self.best_step = figures, self.step
        if self.step and (self.highest_learned is None or figures["score"] > self.highest_learned):
            self.highest_learned, self.looks_since_best = figures["score"], 0
        elif self.step:
            self.looks_since_best += 1
        return best


def save_checkpoint(folder: RunFolder, identity: Mapping[str, Any], stand: Stand, state: Mapping[str, Any]) -> None:
    """Make it durable, then remove best weights that it no longer names."""
    content = {"identity": json.dumps(identity, sort_keys=True), "stand": asdict(stand), **state}
    folder.write_with(CHECKPOINT, lambda file: torch.save(content, file))
    for path in folder.root.glob("best-*.pt"):
        if path.name != best_name(stand.best_step):
            path.unlink()


def load_checkpoint(folder: RunFolder, identity: Mapping[str, Any]) -> tuple[Stand, dict[str, Any]] | None:
    """The stand and the trainer's state; None if nothing was saved yet. Raises ConfigurationError if it is another run's."""
    path = folder.path(CHECKPOINT)
    if not path.is_file():
        return None
    content = torch.load(path, map_location="cpu", weights_only=True)
    check_identity(json.loads(content["identity"]), identity)
    return Stand(**content["stand"]), {name: content[name] for name in ("model", "average", "optimizer")}


def check_identity(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ConfigurationError, naming the keys, if a run in the folder was begun with other settings or data."""
    old, new = dict(_leaves("", before)), dict(_leaves("", now))
    other = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    if other:
        raise ConfigurationError(
            f"output: the run in this folder was begun with other settings ({', '.join(other[:5])}); "
            "choose another folder, or the same settings"
        )


def best_name(step: int) -> str:
    return f"best-{step:08d}.pt"


def _leaves(key: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        return [leaf for name, inner in value.items() for leaf in _leaves(f"{key}.{name}".lstrip("."), inner)]
    return [(key, value)]
