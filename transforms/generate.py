"""Summaries: one request per note for a whole shard, so that the engine can sort and pack them; a note that fails is set aside alone."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import apache_beam as beam
from apache_beam.metrics import Metrics
from apache_beam.utils.shared import Shared

from schemas.errors import ConfigurationError
from schemas.rejection import Reason, Rejection, Stage
from schemas.summary import GENERATE_FIELDS
from transforms.batch import NoteBatch, guarded, timed
from transforms.engine import (
    Completion,
    DecodeSettings,
    Engine,
    EngineError,
    EngineSettings,
    Request,
    count_usage,
    decode_settings,
    load_engine,
)
from transforms.models import ModelFiles, model_on_this_machine
from transforms.prompts import Prompt, Summary, limited, plain_prompts, read_output, selection_prompts
from transforms.segment import sentence_spans
from transforms.selection import SelectionFormat, load_selection_format

# Engines are shared by the threads of a process; generation goes one at a time, what surrounds it does not.
_generation = threading.Lock()


@dataclass(frozen=True, slots=True)
class SummaryTask:
    """What to generate.

    `prefix` stands before every note (T5's "summarize: "); selection models take none. `decode`: overrides by DecodeSettings field, None
    meaning "as the checkpoint ships". `max_source_tokens`: None for the model's own limit; otherwise tokens of prefix and note at most.
    """

    model: ModelFiles
    prefix: str = ""
    decode: Mapping[str, Any] = field(default_factory=dict)
    max_source_tokens: int | None = None

    def selection_format(self) -> SelectionFormat | None:
        """How the model marks sentences; None for an ordinary model. Raises ConfigurationError if the model's folder says it badly."""
        try:
            return load_selection_format(self.model.folder) if self.model.folder else None
        except ValueError as error:
            raise ConfigurationError(f"model: {error}") from None

    def decode_settings(self) -> DecodeSettings:
        """The checkpoint's decode settings with the job's on top. Raises ConfigurationError. Reads JSON only, so planning may call it."""
        fmt = self.selection_format()
        try:
            decode = decode_settings(self.model.folder, self.decode)
            # A selection model writes a few markers, not prose: the job's limit may lower theirs, never raise it.
            return replace(decode, max_new_tokens=min(decode.max_new_tokens, fmt.max_new_tokens)) if fmt else decode
        except ValueError as error:
            raise ConfigurationError(f"tasks.summary.{error}") from None

    def check(self, engine: Engine) -> None:
        """Raise ConfigurationError if the task asks more of this engine than it can."""
        limit = engine.max_source_tokens
        if self.max_source_tokens is not None and not 1 <= self.max_source_tokens <= limit:
            raise ConfigurationError(f"segment.max_source_tokens: {self.max_source_tokens} is not within 1 and the model's limit, {limit}")
        if self.prefix and self.selection_format():
            raise ConfigurationError(f"tasks.summary.prefix: {self.model.id!r} is a selection model and takes none; leave it empty")
        prefix = len(engine.tokenize([self.prefix])[0])
        if prefix >= (self.max_source_tokens or limit):
            raise ConfigurationError(f"tasks.summary.prefix: its {prefix} tokens leave no room for a note")


def generate_batch(batch: NoteBatch, engine: Engine, task: SummaryTask) -> NoteBatch:
    """Add GENERATE_FIELDS; notes that the engine fails on, or has nothing to say about, become rejections. Needs SEGMENT_FIELDS.

    `evidence` is exact for selection models and empty for others. `source_tokens` counts what the model read, prefix included, special
    tokens not; `tokens_dropped` the tokens of the note that it did not read.
    """
    fmt, decode = task.selection_format(), task.decode_settings()
    texts = batch.column("text")
    prompts = _prompts(texts, sentence_spans(batch), engine, task, fmt)
    with _generation:
        completions = engine.generate([Request(prompt.source, decode) for prompt in prompts])
    summaries = [read_output(*each, fmt) for each in zip(prompts, completions, texts, strict=True)]
    done = batch.with_columns(GENERATE_FIELDS, _columns(prompts, completions, summaries, texts))
    return done.reject(_rejections(batch, completions, summaries)).counted(tokens=_tokens(prompts, completions))


def _prompts(
    texts: Sequence[str], sentences: Sequence[Sequence[tuple[int, int]]], engine: Engine, task: SummaryTask, fmt: SelectionFormat | None
) -> list[Prompt]:
    if fmt is not None:
        return selection_prompts(texts, sentences, limited(fmt, task.max_source_tokens), engine)
    return plain_prompts(texts, sentences, task.prefix, task.max_source_tokens or engine.max_source_tokens, engine)


def _columns(
    prompts: Sequence[Prompt], completions: Sequence[Completion], summaries: Sequence[Summary], texts: Sequence[str]
) -> dict[str, list[Any]]:
    return {
        "summary": [summary.text for summary in summaries],
        "evidence": [[_evidence(*spans) for spans in summary.evidence] for summary in summaries],
        "source_tokens": [completion.source_tokens for completion in completions],
        "generated_tokens": [len(completion.token_ids) for completion in completions],
        "windows": [1] * len(prompts),
        "tokens_dropped": [p.truncated_tokens + c.truncated_tokens for p, c in zip(prompts, completions, strict=True)],
        # A selected summary is whole sentences, however many markers the model would have gone on to write.
        "finish": ["stop" if summary.evidence else completion.finish for summary, completion in zip(summaries, completions, strict=True)],
        "logprob": [completion.logprob for completion in completions],
    }


def _evidence(summary_start: int, summary_end: int, source_start: int, source_end: int) -> dict[str, Any]:
    return {
        "summary_start": summary_start,
        "summary_end": summary_end,
        "source_start": source_start,
        "source_end": source_end,
        "score": 1.0,
        "kind": "exact",
    }


def _rejections(batch: NoteBatch, completions: Sequence[Completion], summaries: Sequence[Summary]) -> dict[int, Rejection]:
    reasons = {
        i: Reason(completion.error) if completion.error else Reason.EMPTY_SUMMARY
        for i, (completion, summary) in enumerate(zip(completions, summaries, strict=True))
        if completion.error or not summary.text.strip()
    }
    return {i: batch.rejection(i, Stage.GENERATE, reason) for i, reason in reasons.items()}


def _tokens(prompts: Sequence[Prompt], completions: Sequence[Completion]) -> dict[str, int]:
    """source, generated, padded, truncated; the last one with what was cut before the engine saw it."""
    tokens = asdict(count_usage(completions))
    tokens["truncated"] += sum(prompt.truncated_tokens for prompt in prompts)
    return tokens


class _LoadedEngine:
    """What Shared holds: it keeps weak references, which slotted engines would not allow."""

    def __init__(self, engine: Engine, task: SummaryTask) -> None:
        self.engine = engine
        self.task = task


class _Generate(beam.DoFn):  # type: ignore[misc]
    """Holds one engine per process, however many instances and threads there are: `shared` is made once, where the graph is built."""

    def __init__(self, task: SummaryTask, settings: EngineSettings, shared: Shared) -> None:
        self._task = task
        self._settings = settings
        self._shared = shared
        self._loaded: _LoadedEngine | None = None
        self._loads = 0
        self._load_counter = Metrics.counter("chartmill", "model_loads")

    def _load(self) -> _LoadedEngine:
        task = replace(self._task, model=model_on_this_machine(self._task.model))
        try:
            engine = load_engine(bound(self._settings, task.model))
        except EngineError as error:  # it names the model and the choices
            raise ConfigurationError(str(error)) from None
        task.check(engine)
        self._loads += 1
        return _LoadedEngine(engine, task)

    def setup(self) -> None:
        with guarded("loading the model"):
            self._loaded = self._shared.acquire(self._load, tag=(self._settings, self._task.model))

    def process(self, batch: NoteBatch) -> list[NoteBatch]:
        # Counted here: metrics have no place to go during setup.
        self._load_counter.inc(self._loads)
        self._loads = 0
        assert self._loaded is not None
        loaded = self._loaded
        return [timed("generate", lambda notes: generate_batch(notes, loaded.engine, loaded.task), batch)]

    def teardown(self) -> None:
        self._loaded = None


def bound(settings: EngineSettings, model: ModelFiles) -> EngineSettings:
    """The settings with the model filled in."""
    folder = "" if model.folder is None else str(model.folder)
    return replace(settings, model_folder=folder, model_id=model.id, model_sha256=model.sha256)


class GenerateTexts(beam.PTransform):  # type: ignore[misc]
    """NoteBatches with GENERATE_FIELDS. The engine settings need no model: the task's is filled in."""

    def __init__(self, task: SummaryTask, settings: EngineSettings) -> None:
        super().__init__()
        self._task = task
        self._settings = settings

    def expand(self, batches: beam.PCollection[NoteBatch]) -> beam.PCollection[NoteBatch]:
        return batches | beam.ParDo(_Generate(self._task, self._settings, Shared()))
