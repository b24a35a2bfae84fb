"""Summaries: the requests of a whole shard in one call, so that the engine can sort and pack them; a note that fails is set aside alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import apache_beam as beam

from schemas.errors import ConfigurationError
from schemas.histogram import count_values
from schemas.rejection import Reason, Rejection, Stage
from schemas.summary import GENERATE_FIELDS
from transforms.batch import NoteBatch, guarded, timed
from transforms.engine import Completion, DecodeSettings, Engine, Request, count_usage, decode_settings
from transforms.models import ModelFiles
from transforms.passages import Part, assembled, kept_summary, note_sections, whole_note
from transforms.prompts import Passage, Prompt, Prompts, Summary, language_of, window_prompts
from transforms.reduce import Answer, summarize
from transforms.segment import sentence_spans
from transforms.selection import SelectionFormat, load_selection_format
from transforms.shared_engine import LoadCounter, LoadedEngine, SharedEngine, SharedEngines, ask


@dataclass(frozen=True, slots=True)
class SummaryTask:
    """What to generate.

    `prefix` stands before every note (T5's "summarize: "); selection models take none. `decode`: overrides by DecodeSettings field, None
    meaning "as the checkpoint ships". `max_source_tokens`: None for the model's own limit; otherwise tokens of prefix and note at most.
    `overlap_sentences`: what neighbouring windows of a longer note share. `by`: whether notes or their sections are summarized.
    """

    model: ModelFiles
    prefix: str = ""
    decode: Mapping[str, Any] = field(default_factory=dict)
    max_source_tokens: int | None = None
    overlap_sentences: int = 1
    by: Literal["note", "section"] = "note"

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

    A note over the model's limit is read in windows and its windows' summaries are summarized again (`transforms/reduce.py`); if one window
    fails, the note is rejected with its reason. `evidence` is exact for selection models and for sections taken over as they are, empty
    otherwise. `finish` and `logprob` are those of the pass that wrote the summary; where several did (sections, joined windows), `finish`
    is `length` if any was cut and `logprob` the mean per generated token, null if any is unknown or none was generated.
    """
    fmt, decode = task.selection_format(), task.decode_settings()
    language = language_of(task.prefix, task.max_source_tokens, fmt, engine)
    parts = _parts(batch, task)

    def cut(passage: Passage) -> Prompts:
        return window_prompts(passage, language, task.overlap_sentences, engine)

    def write(prompts: Sequence[Prompt]) -> list[Completion]:
        return ask(engine, [Request(prompt.source, decode) for prompt in prompts])

    answers = iter(summarize([part.passage for note in parts for part in note if not part.kept], language, cut, write))
    notes = [_note_summary(note, [None if part.kept else next(answers) for part in note]) for note in parts]
    done = batch.with_columns(GENERATE_FIELDS, _columns(notes))
    return done.reject(_rejections(batch, notes)).counted(tokens=_tokens(notes), histograms={"windows": _windows(notes)})


def _parts(batch: NoteBatch, task: SummaryTask) -> list[list[Part]]:
    divide = note_sections if task.by == "section" else whole_note
    return [divide(text, sentences) for text, sentences in zip(batch.column("text"), sentence_spans(batch), strict=True)]


@dataclass(frozen=True, slots=True)
class _NoteSummary:
    """What became of one note: its summary and the answers that went into it."""

    summary: Summary = field(repr=False)
    answers: tuple[Answer, ...] = field(repr=False)

    @property
    def error(self) -> str | None:
        return next((answer.error for answer in self.answers if answer.error), None)

    @property
    def windows(self) -> int:
        return sum(answer.windows for answer in self.answers)

    @property
    def dropped(self) -> int:
        return sum(answer.dropped for answer in self.answers)

    @property
    def completions(self) -> list[Completion]:
        return [completion for answer in self.answers for completion in answer.completions]

    @property
    def final(self) -> list[Completion]:
        return [completion for answer in self.answers for completion in answer.final]


def _note_summary(parts: Sequence[Part], answers: Sequence[Answer | None]) -> _NoteSummary:
    given = tuple(answer for answer in answers if answer is not None)
    summaries = [kept_summary(part.passage) if answer is None else answer.summary for part, answer in zip(parts, answers, strict=True)]
    return _NoteSummary(assembled(parts, summaries), given)


def _columns(notes: Sequence[_NoteSummary]) -> dict[str, list[Any]]:
    return {
        "summary": [note.summary.text for note in notes],
        "evidence": [[_evidence(*spans) for spans in note.summary.evidence] for note in notes],
        "source_tokens": [sum(completion.source_tokens for completion in note.completions) for note in notes],
        "generated_tokens": [sum(len(completion.token_ids) for completion in note.completions) for note in notes],
        "windows": [note.windows for note in notes],
        "tokens_dropped": [note.dropped for note in notes],
        "finish": [_finish(note) for note in notes],
        "logprob": [_logprob(note.final) for note in notes],
    }


def _finish(note: _NoteSummary) -> str:
    # A selected summary is whole sentences, however many markers the model would have gone on to write.
    written = [completion for answer in note.answers if not answer.summary.evidence for completion in answer.final]
    finishes = {completion.finish for completion in written}
    return next((finish for finish in ("error", "length") if finish in finishes), "stop")


def _logprob(completions: Sequence[Completion]) -> float | None:
    """Mean per generated token; a single completion's own."""
    if len(completions) == 1:
        return completions[0].logprob
    weighted = [completion.logprob * len(completion.token_ids) for completion in completions if completion.logprob is not None]
    tokens = sum(len(completion.token_ids) for completion in completions)
    return sum(weighted) / tokens if tokens and len(weighted) == len(completions) else None


def _evidence(summary_start: int, summary_end: int, source_start: int, source_end: int) -> dict[str, Any]:
    return {
        "summary_start": summary_start,
        "summary_end": summary_end,
        "source_start": source_start,
        "source_end": source_end,
        "score": 1.0,
        "kind": "exact",
    }


def _rejections(batch: NoteBatch, notes: Sequence[_NoteSummary]) -> dict[int, Rejection]:
    reasons = {
        i: Reason(note.error) if note.error else Reason.EMPTY_SUMMARY
        for i, note in enumerate(notes)
        if note.error or not note.summary.text.strip()
    }
    return {i: batch.rejection(i, Stage.GENERATE, reason) for i, reason in reasons.items()}


def _tokens(notes: Sequence[_NoteSummary]) -> dict[str, int]:
    """source, generated, padded, truncated: of all passes; the last one with tokens that were in no window."""
    tokens = asdict(count_usage(completion for note in notes for completion in note.completions))
    return {**tokens, "truncated": sum(note.dropped for note in notes)}


def _windows(notes: Sequence[_NoteSummary]) -> list[int]:
    """Of the notes that got a summary, as their rows show it."""
    return count_values("windows", (note.windows for note in notes if not note.error and note.summary.text.strip()))


def task_here(task: SummaryTask, loaded: LoadedEngine) -> SummaryTask:
    """The task with the model's place on this machine. Raises ConfigurationError if it asks more of the engine than that can."""
    task = replace(task, model=loaded.model)
    task.check(loaded.engine)
    return task


class _Generate(beam.DoFn):  # type: ignore[misc]
    def __init__(self, task: SummaryTask, shared: SharedEngine) -> None:
        self._task = task
        self._shared = shared
        self._loaded: LoadedEngine | None = None
        self._loads = LoadCounter()

    def setup(self) -> None:
        with guarded("loading the model"):
            self._loaded, loads = self._shared.acquire()
            self._loads.loaded(loads)
            self._here = task_here(self._task, self._loaded)

    def process(self, batch: NoteBatch) -> list[NoteBatch]:
        self._loads.report()
        assert self._loaded is not None
        engine, task = self._loaded.engine, self._here
        return [timed("generate", lambda notes: generate_batch(notes, engine, task), batch)]

    def teardown(self) -> None:
        self._loaded = None


class GenerateTexts(beam.PTransform):  # type: ignore[misc]
    """NoteBatches with GENERATE_FIELDS."""

    def __init__(self, task: SummaryTask, engines: SharedEngines) -> None:
        super().__init__()
        self._task = task
        self._engines = engines

    def expand(self, batches: beam.PCollection[NoteBatch]) -> beam.PCollection[NoteBatch]:
        return batches | beam.ParDo(_Generate(self._task, self._engines.of(self._task.model)))
