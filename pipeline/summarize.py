"""Summaries of texts in memory, through the very stages of a job, without Beam and without a disk: what `evaluate` and `compare` measure.

It knows no contract: texts are not validated, only blank ones are set aside.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from pipeline.config import Job, OutputSection, load_job
from pipeline.prepare import prepare
from schemas.commit import Shard
from schemas.errors import ConfigurationError
from schemas.note import BATCH_SCHEMA
from schemas.rejection import Reason
from transforms.batch import NoteBatch, compose, timed
from transforms.checks import CHECKS
from transforms.engine import Engine, EngineError, load_engine
from transforms.evidence import LEXICAL, Aligner, evidence_batch, load_aligner
from transforms.generate import SummaryTask, generate_batch
from transforms.segment import segment_batch
from transforms.shared_engine import bound
from transforms.verify import verify_batch


@dataclass(frozen=True, slots=True)
class Summarized:
    """What became of one text.

    `text`: the summary, empty where there is none. `flags`: how often each code was raised. `source_tokens`, `generated_tokens`: as in
    SUMMARY_SCHEMA. `coverage` (share 0-1), `density` (words), `compression` (note words per summary word): Grusky et al. 2018 (arXiv
    1804.11283). `failed`: the code of the reason for which there is no summary.
    """

    text: str = field(default="", repr=False)
    flags: Mapping[str, int] = field(default_factory=dict)
    source_tokens: int = 0
    generated_tokens: int = 0
    coverage: float | None = None
    density: float | None = None
    compression: float | None = None
    failed: str | None = None

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Summarized:
        """From a row of SUMMARY_SCHEMA."""
        flags = Counter(flag["code"] for flag in row["flags"] or ())
        figures = {name: row[name] for name in ("source_tokens", "generated_tokens", "coverage", "density", "compression")}
        return cls(row["summary"], dict(sorted(flags.items())), **figures)

    @property
    def tokens(self) -> int:
        """Tokens that the model wrote."""
        return self.generated_tokens


@dataclass(frozen=True, slots=True)
class Summarizer:
    """A loaded model with all that a job does to its notes."""

    engine: Engine = field(repr=False)
    task: SummaryTask
    checks: tuple[str, ...] = CHECKS
    aligner: Aligner = LEXICAL

    def summarize(self, texts: Sequence[str]) -> list[Summarized]:
        """As `summarize_texts`."""
        return summarize_texts(texts, self.task, self.engine, self.checks, self.aligner)


def summarize_texts(
    texts: Sequence[str], task: SummaryTask, engine: Engine, checks: Sequence[str] = CHECKS, aligner: Aligner = LEXICAL
) -> list[Summarized]:
    """One per text, in order: segmented, generated, traced and checked as in a job. A text that fails spoils no other.

    Raises StageError, which quotes no text, when a stage itself fails.
    """
    steps: dict[str, Callable[[NoteBatch], NoteBatch]] = {
        "segment": segment_batch,
        "generate": partial(generate_batch, engine=engine, task=task),
        "evidence": partial(evidence_batch, aligner=aligner),
        "verify": partial(verify_batch, checks=checks),
    }
    done = compose([partial(timed, name, step) for name, step in steps.items()])(_batch(texts))
    results = {i: Summarized(failed=str(unusable(text))) for i, text in enumerate(texts)}
    results |= {rejection.source_row or 0: Summarized(failed=str(rejection.reason)) for rejection in done.rejections}
    results |= {row["source_row"]: Summarized.of_row(row) for row in _rows(done)}
    return [results[position] for position in range(len(texts))]


def _batch(texts: Sequence[str]) -> NoteBatch:
    """The usable texts, each known by its place in the list."""
    usable = [(i, text) for i, text in enumerate(texts) if unusable(text) is None]
    rows = [{"note_id": str(i), "text": text, "source_file": 0, "source_row": i} for i, text in usable]
    return NoteBatch(Shard("texts", "texts", ()), pa.Table.from_pylist(rows, schema=BATCH_SCHEMA))


def unusable(text: str) -> Reason | None:
    """Why reading and validating would have set a text aside before any stage here."""
    if not text.strip():
        return Reason.MISSING_TEXT
    # Half of a surrogate pair is no Unicode; Arrow would refuse the whole table and quote it.
    return Reason.ROW_UNREADABLE if any("\ud800" <= character <= "\udfff" for character in text) else None


def _rows(batch: NoteBatch) -> Iterator[dict[str, Any]]:
    wanted = ("source_row", "summary", "flags", "source_tokens", "generated_tokens", "coverage", "density", "compression")
    yield from batch.notes.select(wanted).to_pylist()


def load_summarizer(
    model: str,
    *,
    backend: str = "torch",
    dtype: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    decode: Mapping[str, Any] | None = None,
    prefix: str = "",
    checks: Sequence[str] = CHECKS,
) -> Summarizer:
    """Load a model as a job with these keys would. `model`: as `resolve_model` takes it; nothing is downloaded. `decode`: by field of the
    job file's section, None meaning "as the checkpoint ships". `threads`: of the CPU; None for all cores.

    Raises ConfigurationError for whatever cannot be had.
    """
    settings = {
        "tasks.summary.model": model,
        "tasks.summary.prefix": prefix,
        "tasks.summary.decode": dict(decode or {}),
        "engine.backend": backend,
        "engine.dtype": dtype,
        "engine.device": device,
        "engine.threads": threads,
        "verify.checks": tuple(checks),
    }
    return job_summarizer(load_job(None, (), settings))


def job_summarizer(job: Job) -> Summarizer:
    """Load what a job would summarize with; its input and output play no part. Raises ConfigurationError where it cannot be had."""
    # Preparing a job asks what its output folder holds; nothing is written there.
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(job.model_copy(update={"output": OutputSection(uri=folder)}))
    task, verify = prepared.task, prepared.job.verify
    try:
        engine = load_engine(bound(prepared.engine, task.model))
    except EngineError as error:  # it names the value and the choices
        raise ConfigurationError(str(error)) from None
    task.check(engine)
    return Summarizer(engine, task, verify.checks, load_aligner(verify.evidence))
