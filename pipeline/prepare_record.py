"""The record task of a job, resolved: reader, model and terminology are checked before any note is read; nothing is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.config import Job
from schemas.errors import ConfigurationError
from transforms.commit import Provenance
from transforms.engine import EngineError, check_constraint, resolve_dtype
from transforms.engine.families import folder_runs_natively
from transforms.models import DEFAULT_RECORD_MODEL, ModelFiles, resolve_model
from transforms.normalization.times import DateOrder
from transforms.record import RecordSettings
from transforms.record_model import RecordTask
from transforms.terminology import describe_terminology

SAME = "same"
_RULES_READER = Provenance(model_id="rules", model_sha256="", backend="rules", dtype="", decode="{}")
# Settings of the rules: what a model has beside them is said by what it comes to.
_OF_RULES = ("reader", "date_order")


def record_settings(job: Job, device: str, summary_model: Callable[[], ModelFiles]) -> RecordSettings:
    """What the job says of records. `device`: cpu or cuda. `summary_model`: finds the summaries' model, for records by the same.

    Raises ConfigurationError for a model that cannot write records and a backend that cannot constrain them.
    """
    section = job.tasks.record
    terminology = describe_terminology(_absolute(section.terminology)) if section.terminology else None
    task = _record_task(job, device, summary_model) if section.by_model else None
    return RecordSettings(DateOrder(section.date_order), terminology, section.reader, task)


def _record_task(job: Job, device: str, summary_model: Callable[[], ModelFiles]) -> RecordTask:
    section, backend = job.tasks.record, job.engine.backend
    _check_backend(backend, device)
    same = section.model == SAME
    model = summary_model() if same else _found(section.model or DEFAULT_RECORD_MODEL, job.engine.allow_download)
    limit = None if job.segment.max_source_tokens == "auto" else job.segment.max_source_tokens
    decode = section.decode.model_dump()
    overlap, with_rules = job.segment.overlap_sentences, section.reader == "both"
    task = RecordTask(model, section.prefix, decode, limit, overlap, with_rules, section.min_probability)
    if task.format() is None and same:
        raise ConfigurationError(
            f"tasks.record.model: same, but the folder of {model.id!r} does not say that it writes records (no chartmill.json with "
            "objective record); name a model that does"
        )
    task.check_tags()
    task.least_probability()
    _check_backend(backend_of(model, backend), device)
    return task


def _found(name: str, allow_download: bool) -> ModelFiles:
    try:
        return resolve_model(name, allow_download=allow_download)
    except ConfigurationError as error:
        raise ConfigurationError(f"tasks.record.{error}") from None


def backend_of(model: ModelFiles, backend: str) -> str:
    """What runs a model: `torch` leaves those that it has no loop for to `generate`."""
    left = backend == "torch" and model.folder is not None and not folder_runs_natively(model.folder)
    return "generate" if left else backend


def _check_backend(backend: str, device: str) -> None:
    try:
        check_constraint(backend, device)
    except EngineError as error:
        raise ConfigurationError(f"{error}; or tasks.record.reader: rules or off") from None


def check_dtype(record: RecordSettings, backend: str, dtype: str, device: str) -> None:
    """Raise ConfigurationError unless the record model runs in the number format of the job, which holds for both models."""
    if record.task is None:
        return
    try:
        resolve_dtype(dtype, device, backend_of(record.task.model, backend))
    except EngineError as error:
        raise ConfigurationError(f"tasks.record.model: {error}") from None


def record_maker(record: RecordSettings, backend: str, dtype: str) -> Provenance | None:
    """What rows of records say of their making; None where there are none. By both readers, the model is named: the entities name each."""
    if record.reader == "off":
        return None
    if record.task is None:
        return _RULES_READER
    said = {**record.task.said(), "constraint": "copy", "reader": record.reader}
    model = record.task.model
    return Provenance(model.id, model.sha256, backend, dtype, json.dumps(said, sort_keys=True))


def record_said(job: Job, record: RecordSettings) -> dict[str, Any]:
    """The task's settings with the content of terminology and model in place of their paths: files that move change nothing."""
    said = job.tasks.record.model_dump(include=set(_OF_RULES))
    said["terminology"] = record.terminology.sha256 if record.terminology else None
    return said if record.task is None else {**said, **record.task.said(), "sha256": record.task.model.sha256}


def _absolute(uri: str) -> str:
    return uri if "://" in uri else str(Path(uri).absolute())
