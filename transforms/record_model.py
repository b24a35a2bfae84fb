"""The second record reader: a model that writes what a note says as tagged lines, every value copied from the note.

A note is read in windows of as many sentences as the model was made for, all windows of a shard in one call. A note of which one window
failed has no record: half of one could not be told from a whole one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any

from schemas.commit import digest
from schemas.errors import ConfigurationError
from transforms.context import Context
from transforms.engine import Completion, Constraint, DecodeSettings, Engine, Request, count_usage, decode_settings
from transforms.engine.constraint import Value
from transforms.engine.constraint_plan import plain_settings
from transforms.models import ModelFiles
from transforms.prompts import Passage, PlainLanguage, Prompts, window_prompts
from transforms.record_format import RecordFormat, load_record_format
from transforms.record_lines import RECORD_GRAMMAR, RECORD_TAGS, likely_lines, record_of
from transforms.sections import Page
from transforms.selection import load_selection_format
from transforms.shared_engine import ask
from transforms.windows import Span

Record = dict[str, Any]

# Special tokens around a source, which a format counts and engines do not.
_SPECIAL_TOKENS = 2
# Of a note: about 40 words. Shorter ones may well hold nothing that a record has a field for.
_TELLING_TOKENS = 64
# Of a line that has to add to what the rules read: more likely right than wrong.
_LIKELY = 0.5
# What a constrained output knows of a job's decode settings; rules that ban or force tokens would contradict the grammar.
DECODE_KEYS = ("num_beams", "max_new_tokens", "length_penalty")


@dataclass(frozen=True, slots=True)
class RecordTask:
    """What to write records with.

    `prefix` stands before every window; None for what the model's folder says. `decode`: overrides by name of DECODE_KEYS, None meaning "as
    the model's folder says". `max_source_tokens`: of prefix and window at most, special tokens not counted; it may lower what the
    folder says, never raise it. `overlap_sentences`: what neighbouring windows share. `with_rules`: the rules read the note too.
    `min_probability`: of a line (0-1); None for what `least_probability` says.
    """

    model: ModelFiles
    prefix: str | None = None
    decode: Mapping[str, Any] = field(default_factory=dict)
    max_source_tokens: int | None = None
    overlap_sentences: int = 1
    with_rules: bool = False
    min_probability: float | None = None

    def format(self) -> RecordFormat | None:
        """What the model's folder says of records; None if nothing. Raises ConfigurationError for a folder that says it badly, and for one
        of a selection model, which writes markers."""
        assert self.model.folder is not None, "only a model in a folder writes records"
        try:
            if load_selection_format(self.model.folder) is not None:
                raise ConfigurationError(
                    f"tasks.record.model: {self.model.id!r} is a selection model: it writes which sentences to keep, not records; "
                    "choose a model that `chartmill train` made with objective: record"
                )
            return load_record_format(self.model.folder)
        except ValueError as error:
            raise ConfigurationError(f"tasks.record.model: {error}") from None

    def check_tags(self) -> None:
        """Raise ConfigurationError unless the model's tokenizer knows the tags of the lines, as far as a file tells without loading it."""
        from tokenizers import Tokenizer

        assert self.model.folder is not None, "only a model in a folder writes records"
        path = self.model.folder / "tokenizer.json"
        if not path.is_file():
            return
        tokenizer = Tokenizer.from_file(str(path))
        lacking = [tag for tag in RECORD_TAGS if tokenizer.token_to_id(tag) is None]
        if lacking:
            raise ConfigurationError(
                f"tasks.record.model: {self.model.id!r} cannot write records: its tokenizer lacks {len(lacking)} of {len(RECORD_TAGS)} "
                f"tags, such as {lacking[0]}; choose a model that `chartmill train` made with objective: record"
            )

    def decode_settings(self) -> DecodeSettings:
        """The folder's settings with the job's on top, as far as a constraint leaves them. Raises ConfigurationError. Reads JSON only."""
        fmt = self.format()
        said = {} if fmt is None else {"max_new_tokens": fmt.max_new_tokens}
        given = {name: value for name, value in self.decode.items() if value is not None}
        try:
            return plain_settings(decode_settings(self.model.folder, said | given))
        except ValueError as error:
            raise ConfigurationError(f"tasks.record.{error}") from None

    def least_probability(self) -> float:
        """Of a line that is kept, 0 for all lines. Beside the rules, whose values are there anyhow, a line has to be more likely than not
        unless the job says otherwise. Beams tell no probabilities: with them all lines are kept, and ConfigurationError is raised where
        the job asks for more."""
        beams = self.decode_settings().num_beams > 1
        if beams and self.min_probability:
            raise ConfigurationError(
                f"tasks.record.min_probability: {self.min_probability:g} needs the probabilities of lines, which beams do not tell; "
                "choose tasks.record.decode.num_beams=1, or min_probability=0"
            )
        if self.min_probability is not None:
            return self.min_probability
        return _LIKELY if self.with_rules and not beams else 0.0

    def said(self) -> dict[str, Any]:
        """What changes the rows beside the model itself: settings as they come to be, and the grammar."""
        fmt, decode = self.format(), self.decode_settings()
        return {
            "prefix": self._prefix(fmt),
            **{name: getattr(decode, name) for name in (*DECODE_KEYS, "early_stopping")},
            "max_source_tokens": min(self._limits(fmt), default=None),
            "min_probability": self.least_probability(),
            "grammar": digest(repr(RECORD_GRAMMAR), length=12),
        }

    def language(self, engine: Engine) -> PlainLanguage:
        """How the model is asked: prefix and window. Raises ConfigurationError if that leaves no room for a window."""
        fmt = self.format()
        limit = min([*self._limits(fmt), engine.max_source_tokens])
        prefix = self._prefix(fmt)
        room = limit - len(engine.tokenize([prefix])[0])
        if room < 1:
            raise ConfigurationError(f"tasks.record.prefix: {limit} tokens with it leave no room for a note")
        return PlainLanguage(prefix, limit, room)

    def _limits(self, fmt: RecordFormat | None) -> list[int]:
        """Tokens of prefix and window at most, special tokens not counted, as the job and the folder say; empty if neither does."""
        said = (self.max_source_tokens, fmt.max_source_tokens - _SPECIAL_TOKENS if fmt else None)
        return [limit for limit in said if limit is not None]

    def _prefix(self, fmt: RecordFormat | None) -> str:
        return self.prefix if self.prefix is not None else fmt.prefix if fmt else ""


@dataclass(frozen=True, slots=True)
class RecordWriter:
    """An engine with the task that it is for, its model's folder being one on this machine."""

    engine: Engine = field(repr=False)
    task: RecordTask


@dataclass(frozen=True, slots=True)
class WrittenNote:
    """What a model wrote of one note, window by window. `offsets`: what to add to the characters of a window's values to get those of the
    note. `dropped`: tokens of the note that stand in no window. `least`: probability of a line that counts."""

    offsets: tuple[int, ...]
    completions: tuple[Completion, ...] = field(repr=False)
    dropped: int = 0
    least: float = 0.0

    @property
    def error(self) -> str | None:
        """Why the note has no record: the code of the first window that failed."""
        return next((completion.error for completion in self.completions if completion.error), None)

    @property
    def is_dead(self) -> bool:
        """Nothing was written of any window of a note long enough to say something."""
        read = sum(completion.source_tokens for completion in self.completions)
        return read >= _TELLING_TOKENS and not any(completion.values for completion in self.completions)

    @property
    def is_cut(self) -> bool:
        """A limit withheld something: of what is written, or of what is read."""
        return bool(self.dropped) or any(one.finish == "length" or one.source_truncated for one in self.completions)

    def records(self, page: Page, context: Context) -> Iterator[Record]:
        """The record of each window, with the offsets of the whole note, whose page and context these are."""
        for offset, completion in zip(self.offsets, self.completions, strict=True):
            yield record_of(self._likely(completion), offset, page, context)

    def lines(self) -> tuple[int, int]:
        """How many lines the model wrote, and how many of them are likely enough to count."""
        return (
            sum(_line_count(completion.values) for completion in self.completions),
            sum(_line_count(self._likely(completion)) for completion in self.completions),
        )

    def _likely(self, completion: Completion) -> Sequence[Value]:
        return likely_lines(completion.values, completion.token_logprobs, self.least) if self.least else completion.values


def write_notes(texts: Sequence[str], sentences: Sequence[Sequence[Span]], writer: RecordWriter) -> list[WrittenNote]:
    """What the model writes of each text, in order; `sentences`: character spans of each."""
    engine, task = writer.engine, writer.task
    language, decode = task.language(engine), task.decode_settings()
    notes = [_windows(text, spans, language, task.overlap_sentences, engine) for text, spans in zip(texts, sentences, strict=True)]
    least = task.least_probability()
    constraint = Constraint(RECORD_GRAMMAR, start=len(language.prefix))
    requests = [Request(prompt.source, decode, constraint) for note in notes for prompt in note.prompts]
    completions = ask(engine, requests) if requests else []
    bounds = accumulate((len(note.prompts) for note in notes), initial=0)
    parts = [tuple(completions[first:last]) for first, last in pairwise(bounds)]
    return [_written(note, part, len(language.prefix), least) for note, part in zip(notes, parts, strict=True)]


def _windows(text: str, sentences: Sequence[Span], language: PlainLanguage, overlap: int, engine: Engine) -> Prompts:
    return window_prompts(Passage(text, 0, len(text), tuple(sentences)), language, overlap, engine)


def _written(note: Prompts, completions: tuple[Completion, ...], prefix: int, least: float) -> WrittenNote:
    return WrittenNote(tuple(prompt.passage.start - prefix for prompt in note.prompts), completions, note.dropped, least)


def _line_count(values: Sequence[Value]) -> int:
    return len({value.line for value in values})


def count_written(notes: Sequence[WrittenNote]) -> dict[str, int]:
    """Notes that a model read, their windows and tokens; of those without an error the lines, how many of them were too unlikely to count,
    and how many records are empty or else cut off."""
    done = [note for note in notes if note.error is None]
    lines = [note.lines() for note in done]
    usage = count_usage(completion for note in notes for completion in note.completions)
    return {
        "notes": len(notes),
        "windows": sum(len(note.completions) for note in notes),
        "lines": sum(written for written, _ in lines),
        "unlikely": sum(written - kept for written, kept in lines),
        "dead": sum(note.is_dead for note in done),
        "cut": sum(note.is_cut and not note.is_dead for note in done),
        "source_tokens": usage.source,
        "generated_tokens": usage.generated,
    }
