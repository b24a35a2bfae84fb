"""Preparing a job: model, device, contract and version are resolved before anything is read; nothing is loaded, nothing is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata, util
from pathlib import Path
from typing import Any

from pipeline.config import EngineSection, Job
from pipeline.planning import PlanSettings
from pipeline.prepare_record import backend_of, check_dtype, record_maker, record_said, record_settings
from pipeline.runners import worker_processes
from schemas.errors import ConfigurationError
from schemas.expectations import Suite, load_suite
from transforms.columns import ColumnMap
from transforms.commit import CommitSettings, Provenance
from transforms.engine import DTYPES, EngineError, EngineSettings, resolve_device, resolve_dtype
from transforms.engine.hardware import usable_cores
from transforms.evidence import check_mode
from transforms.formats.layout import ReadOptions
from transforms.generate import SummaryTask
from transforms.ledger import plan_entries
from transforms.models import NO_MODEL, ModelFiles, resolve_model
from transforms.record import RecordSettings
from transforms.store import Store, open_store
from transforms.verify import VerifySummaries
from transforms.version import run_version

# One shard per commit: on a CPU that is a few minutes' work.
_SHARD_NOTES = {"cpu": 1000, "cuda": 4000}
_REPORTED_PACKAGES = ("apache-beam", "great-expectations", "pyarrow", "torch", "transformers")


@dataclass(frozen=True, slots=True)
class PreparedJob:
    """A job with everything resolved that does not depend on the notes: nothing is loaded, nothing is written."""

    job: Job
    store: Store
    suite: Suite
    task: SummaryTask
    record: RecordSettings
    engine: EngineSettings
    version: str
    provenance: Provenance
    record_provenance: Provenance | None
    shard_notes: int

    def plan_settings(self) -> PlanSettings:
        section = self.job.input
        columns = ColumnMap(section.columns, section.passthrough)
        reading = ReadOptions(section.format, section.encoding, section.delimiter)
        return PlanSettings(section.uris, columns, section.duplicates, self.shard_notes, self.job.run.limit, reading)

    def commit_settings(self, run_id: str) -> CommitSettings:
        makers = (self.provenance, self.record_provenance)
        return CommitSettings(self.version, run_id, code_version(), *makers, self.job.output.keep_rejected_text)

    def said_in_plan(self) -> dict[str, Any]:
        """What publishing needs later, without the job file."""
        job = self.job
        return {
            "gate": job.gate.model_dump(),
            # For `inspect`, which reads notes again. Plans may hold file names; what is published must not.
            "input": job.input.model_dump(mode="json") | {"uris": [_absolute(uri) for uri in job.input.uris]},
            "suite": dict(self.suite.raw),
            "model": {**model_said(self.provenance), **self._record_model_said()},
            "versions": {"chartmill": code_version(), **{name: metadata.version(name) for name in _REPORTED_PACKAGES}},
            "settings": {
                "tasks": job.tasks.model_dump(exclude={"summary": {"model"}, "record": True}) | {"record": record_said(job, self.record)},
                "contract": self.suite.name,
                "duplicates": job.input.duplicates,
                "evidence": job.verify.evidence,
                "checks": list(job.verify.checks),
                "shard_notes": self.shard_notes,
                "limit": job.run.limit,
                "runner": job.run.runner,
            },
        }

    def _record_model_said(self) -> dict[str, Any]:
        said = self.record_provenance
        return {"record": model_said(said)} if said is not None and self.record.task is not None else {}


def model_said(said: Provenance) -> dict[str, Any]:
    named = {"id": said.model_id, "sha256": said.model_sha256}
    return {**named, "backend": said.backend, "dtype": said.dtype, "decode": json.loads(said.decode)}


def _absolute(uri: str) -> str:
    return uri if "://" in uri else str(Path(uri).absolute())


def code_version() -> str:
    return metadata.version("chartmill")


def prepare(job: Job, beam_options: Sequence[str] = ()) -> PreparedJob:
    """Resolve model, device, number format, threads, contract and version. Raises ConfigurationError for whatever cannot work, before any
    note is read. `beam_options`: what the runner will get; some of them start processes that share the cores.
    """
    try:
        return _prepared(job, beam_options)
    except ValueError as error:  # EngineError, SuiteError: they name the value and the choices
        raise ConfigurationError(str(error)) from None


def _prepared(job: Job, beam_options: Sequence[str]) -> PreparedJob:
    if not job.output.uri:
        raise ConfigurationError("output.uri: empty; give a folder or an s3:// prefix (--output)")
    encryption = job.output.encryption.settings() if job.output.encryption else None
    store = open_store(job.output.uri, encryption, allow_insecure_endpoint=job.output.allow_insecure_endpoint)
    suite = load_suite(job.contract.suite)
    _check_backend(job.engine.backend)
    echo = job.engine.backend == "echo"
    device = "cpu" if echo else resolve_device(job.engine.device)
    model = NO_MODEL if echo else resolve_model(job.tasks.summary.model, allow_download=job.engine.allow_download)
    task = _summary_task(job, model)
    decode = json.dumps(asdict(task.decode_settings()), sort_keys=True)
    record = record_settings(job, device, lambda: model)
    said = Provenance(model.id, model.sha256, job.engine.backend, "none", decode)
    if not echo:
        begun = None
        if job.engine.dtype == "auto":
            begun = _begun_dtype(store, lambda dtype: _version(job, suite, record, replace(said, dtype=dtype)))
        said = replace(said, dtype=_dtype(job.engine, device, task, begun))
        check_dtype(record, job.engine.backend, said.dtype, device)
    check_mode(job.verify.evidence)
    VerifySummaries(job.verify.checks)  # names unknown checks now rather than in a worker
    engine = _engine_settings(job, device, said.dtype, beam_options)
    shard_notes = _SHARD_NOTES[device] if job.engine.shard_notes == "auto" else job.engine.shard_notes
    version = _version(job, suite, record, said)
    maker = record_maker(record, said.backend, said.dtype)
    return PreparedJob(job, store, suite, task, record, engine, version, said, maker, shard_notes)


@dataclass(frozen=True, slots=True)
class PreparedRecords:
    """The record task of a job by itself, resolved. `maker`: what its rows say of their making."""

    record: RecordSettings
    engine: EngineSettings
    maker: Provenance | None


def prepare_records(job: Job) -> PreparedRecords:
    """As `prepare`, for a job's records alone: the summaries' model is looked for only where it reads the records too.

    The number format is the job's; `auto` is the fastest of this machine. Raises ConfigurationError.
    """
    try:
        return _prepared_records(job)
    except ValueError as error:  # EngineError: it names the value and the choices
        raise ConfigurationError(str(error)) from None


def _prepared_records(job: Job) -> PreparedRecords:
    section, wanted = job.engine, job.tasks.record.by_model
    device = resolve_device(section.device) if wanted and section.backend != "echo" else "cpu"
    record = record_settings(job, device, lambda: resolve_model(job.tasks.summary.model, allow_download=section.allow_download))
    backend, dtype = section.backend, "none"
    if record.task is not None:
        _check_backend(backend)
        dtype = resolve_dtype(section.dtype, device, backend_of(record.task.model, backend))
    return PreparedRecords(record, _engine_settings(job, device, dtype, ()), record_maker(record, backend, dtype))


def _check_backend(backend: str) -> None:
    if backend == "ctranslate2" and util.find_spec("ctranslate2") is None:
        raise ConfigurationError("engine.backend: ctranslate2 is not installed; pip install chartmill[ctranslate2], or choose torch")


def _begun_dtype(store: Store, version_of: Callable[[str], str]) -> str | None:
    """The number format in which runs of this job have begun in this output folder, the last one's if there are several.

    The format is part of the version: were `auto` resolved again on another kind of CPU, that machine would begin all notes anew.
    """
    begun = {dtype: max((plan.modified for plan in plan_entries(store, version_of(dtype))), default=0.0) for dtype in DTYPES[1:]}
    newest = max(begun, key=lambda dtype: begun[dtype])
    return newest if begun[newest] else None


def _dtype(section: EngineSection, device: str, task: SummaryTask, begun: str | None) -> str:
    """What the weights will be in, so that provenance says what happened also where `torch` leaves a model to `generate()`."""
    form = task.selection_format()
    wanted = form.auto_dtype if section.dtype == "auto" and form and form.auto_dtype else section.dtype
    try:
        return resolve_dtype(begun or wanted, device, backend_of(task.model, section.backend))
    except EngineError as error:
        if begun is None:
            raise
        raise ConfigurationError(
            f"{error}. This output folder was begun in {begun}: go on where that can be had, or set engine.dtype to write all notes again"
        ) from None


def _engine_settings(job: Job, device: str, dtype: str, beam_options: Sequence[str]) -> EngineSettings:
    section = job.engine
    return EngineSettings(
        backend=section.backend,
        dtype="auto" if section.backend == "echo" else dtype,
        device=device,
        threads=_threads(worker_processes(job.run.runner, beam_options)) if section.threads == "auto" else section.threads,
        tokens_per_batch=None if section.tokens_per_batch == "auto" else section.tokens_per_batch,
        slots=None if section.slots == "auto" else section.slots,
        draft=section.draft,
        delay_ms=section.delay_ms,
        text_seconds=section.note_seconds,
    )


def _threads(processes: int | None) -> int | None:
    """Threads of each process' engine: an equal share of the usable cores, so that processes times threads never exceeds them.

    Each process holds one engine, and its threads generate one shard at a time with all of the engine's threads, so only processes share
    the cores. Workers elsewhere (None) take all the cores that they find there: where a runner starts several on one machine,
    `engine.threads` has to say how many each may have. More processes than cores get a thread each.
    """
    return None if processes is None else max(1, usable_cores() // processes)


def _summary_task(job: Job, model: ModelFiles) -> SummaryTask:
    section = job.tasks.summary
    segment = job.segment
    limit = None if segment.max_source_tokens == "auto" else segment.max_source_tokens
    return SummaryTask(model, section.prefix, section.decode.model_dump(), limit, segment.overlap_sentences, segment.by)


def _version(job: Job, suite: Suite, record: RecordSettings, said: Provenance) -> str:
    return run_version(
        {
            "columns": job.input.columns,
            "passthrough": job.input.passthrough,
            "reading": [job.input.format, job.input.encoding, job.input.delimiter],
            "suite": suite.digest(),
            "segment": job.segment.model_dump(),
            "summary": {"prefix": job.tasks.summary.prefix, "decode": said.decode, "sha256": said.model_sha256},
            "record": record_said(job, record),
            "backend": said.backend,
            "dtype": said.dtype,
            "evidence": job.verify.evidence,
            "checks": list(job.verify.checks),
        }
    )
