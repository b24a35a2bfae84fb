"""Tiny training runs: a random model, a few made-up pairs, a job that takes a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.training.settings import TrainJob, load_train_job
from tests.tiny_models import make_model, sentences


def pair_rows(count: int, size: int = 5) -> list[dict[str, str]]:
    """Texts of a few sentences; the reference is the second one and the last."""
    pool = sentences(count * size)
    rows = []
    for i in range(count):
        own = pool[i * size : (i + 1) * size] if len(pool) >= (i + 1) * size else pool[-size:]
        rows.append({"note_id": f"n{i}", "patient_id": f"p{i // 2}", "text": " ".join(own), "reference": f"{own[1]} {own[-1]}"})
    return rows


def write_pairs(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def tiny_settings(folder: Path, family: str = "bart") -> dict[str, Any]:
    """Dotted keys of a job of 12 steps in `folder`; its model and pairs are made if they are not there yet."""
    model, data = folder / f"start-{family}", folder / "pairs.parquet"
    if not model.exists():
        make_model(family, model)
    if not data.exists():
        write_pairs(data, pair_rows(24))
    return {
        "output": str(folder / "run"),
        "model.start": str(model),
        "tasks.summary.data": [str(data)],
        "tasks.summary.max_target_tokens": 24,
        "dev.share": 0.25,
        "dev.score": "loss",
        "dev.every": 4,
        "dev.patience": None,
        "fit.max_steps": 12,
        "fit.epochs": 20,
        "fit.tokens_per_batch": 300,
        "fit.batches_per_step": 2,
        "fit.learning_rate": 1e-3,
        "machine.checkpoint_every": 4,
        "machine.log_every": 1,
        "machine.threads": 1,
        "machine.dtype": "float32",
    }


def tiny_job(folder: Path, family: str = "bart", **changes: Any) -> TrainJob:
    """Changes by key, with `__` for a dot."""
    return load_train_job(None, (), tiny_settings(folder, family) | {key.replace("__", "."): value for key, value in changes.items()})


def log_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


def losses_of(run: Path) -> dict[int, float]:
    """Training loss by step."""
    return {line["step"]: line["loss"] for line in log_of(run) if "loss" in line}
