"""Preparing a job: model, device, contract and version are resolved before anything is read; nothing is loaded, nothing is written."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from pipeline.config import Job
from pipeline.planning import PlanSettings
from schemas.errors import ConfigurationError
from schemas.expectations import Suite, load_suite
from transforms.columns import ColumnMap
from transforms.commit import CommitSettings, Provenance
from transforms.engine import EngineSettings, resolve_device, resolve_dtype
from transforms.evidence import check_mode
from transforms.formats.layout import ReadOptions
from transforms.generate import SummaryTask
from transforms.models import NO_MODEL, ModelFiles, resolve_model
from transforms.store import Store, open_store
from transforms.verify import VerifySummaries
from transforms.version import run_version

# One shard per commit: on a CPU that is a few minutes' work.
_SHARD_NOTES = {"cpu": 1000, "cuda": 4000}
_REPORTED_PACKAGES = ("apache-beam", "great-expectations", "pyarrow", "torch", "transformers")
_RULES_READER = Provenance(model_id="rules", model_sha256="", backend="rules", dtype="", decode="{}")


@dataclass(frozen=True, slots=True)
class PreparedJob:
    """A job with everything resolved that does not depend on the notes: nothing is loaded, nothing is written."""

    job: Job
    store: Store
    suite: Suite
    task: SummaryTask
    engine: EngineSettings
    version: str
    provenance: Provenance
    shard_notes: int

    def plan_settings(self) -> PlanSettings:
        section = self.job.input
        columns = ColumnMap(section.columns, section.passthrough)
        reading = ReadOptions(section.format, section.encoding, section.delimiter)
        return PlanSettings(section.uris, columns, section.duplicates, self.shard_notes, self.job.run.limit, reading)

    def commit_settings(self, run_id: str) -> CommitSettings:
        return CommitSettings(self.version, run_id, code_version(), self.provenance, _RULES_READER, self.job.output.keep_rejected_text)

    def said_in_plan(self) -> dict[str, Any]:
        """What publishing needs later, without the job file."""
        job = self.job
        return {
            "gate": job.gate.model_dump(),
            # For `inspect`, which reads notes again. Plans may hold file names; what is published must not.
            "input": job.input.model_dump(mode="json") | {"uris": [_absolute(uri) for uri in job.input.uris]},
            "suite": dict(self.suite.raw),
            "model": {"id": self.provenance.model_id, "sha256": self.provenance.model_sha256, **_engine_said(self)},
            "versions": {"chartmill": code_version(), **{name: metadata.version(name) for name in _REPORTED_PACKAGES}},
            "settings": {
                "tasks": job.tasks.model_dump(exclude={"summary": {"model"}}),
                "contract": self.suite.name,
                "duplicates": job.input.duplicates,
                "evidence": job.verify.evidence,
                "checks": list(job.verify.checks),
                "shard_notes": self.shard_notes,
                "limit": job.run.limit,
                "runner": job.run.runner,
            },
        }


def _engine_said(prepared: PreparedJob) -> dict[str, Any]:
    said = prepared.provenance
    return {"backend": said.backend, "dtype": said.dtype, "decode": json.loads(said.decode)}


def _absolute(uri: str) -> str:
    return uri if "://" in uri else str(Path(uri).absolute())


def code_version() -> str:
    return metadata.version("chartmill")


def prepare(job: Job) -> PreparedJob:
    """Resolve model, device, contract and version. Raises ConfigurationError for whatever cannot work, before anything is read."""
    try:
        return _prepared(job)
    except ValueError as error:  # EngineError, SuiteError: they name the value and the choices
        raise ConfigurationError(str(error)) from None


def _prepared(job: Job) -> PreparedJob:
    if not job.output.uri:
        raise ConfigurationError("output.uri: empty; give a folder or an s3:// prefix (--output)")
    encryption = job.output.encryption.settings() if job.output.encryption else None
    store = open_store(job.output.uri, encryption)
    suite = load_suite(job.contract.suite)
    echo = job.engine.backend == "echo"
    device = "cpu" if echo else resolve_device(job.engine.device)
    dtype = "none" if echo else resolve_dtype(job.engine.dtype, device)
    model = NO_MODEL if echo else resolve_model(job.tasks.summary.model, allow_download=job.engine.allow_download)
    task = _summary_task(job, model)
    decode = asdict(task.decode_settings())
    engine = EngineSettings(
        backend=job.engine.backend,
        dtype=dtype if not echo else "auto",
        device=device,
        threads=None if job.engine.threads == "auto" else job.engine.threads,
        tokens_per_batch=None if job.engine.tokens_per_batch == "auto" else job.engine.tokens_per_batch,
        delay_ms=job.engine.delay_ms,
    )
    said = Provenance(model.id, model.sha256, job.engine.backend, dtype, json.dumps(decode, sort_keys=True))
    check_mode(job.verify.evidence)
    VerifySummaries(job.verify.checks)  # names unknown checks now rather than in a worker
    shard_notes = _SHARD_NOTES[device] if job.engine.shard_notes == "auto" else job.engine.shard_notes
    return PreparedJob(job, store, suite, task, engine, _version(job, suite, said), said, shard_notes)


def _summary_task(job: Job, model: ModelFiles) -> SummaryTask:
    section = job.tasks.summary
    segment = job.segment
    limit = None if segment.max_source_tokens == "auto" else segment.max_source_tokens
    return SummaryTask(model, section.prefix, section.decode.model_dump(), limit, segment.overlap_sentences, segment.by)


def _version(job: Job, suite: Suite, said: Provenance) -> str:
    return run_version(
        {
            "columns": job.input.columns,
            "passthrough": job.input.passthrough,
            "reading": [job.input.format, job.input.encoding, job.input.delimiter],
            "suite": suite.digest(),
            "segment": job.segment.model_dump(),
            "summary": {"prefix": job.tasks.summary.prefix, "decode": said.decode, "sha256": said.model_sha256},
            "record": job.tasks.record.model_dump(),
            "backend": said.backend,
            "dtype": said.dtype,
            "evidence": job.verify.evidence,
            "checks": list(job.verify.checks),
        }
    )
