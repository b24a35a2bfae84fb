"""Records of notes: read by rules, by a model (`transforms/record_model.py`) or by both, merged, with normal forms and codes.

The rules fill age, sex, readings, lists under headings and what running text names, with offsets. They prefer precision: what they cannot
place they leave out. Cost: one pass per kind of pattern, each linear in the length of the note.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import apache_beam as beam
import pyarrow as pa

from schemas.record import RECORD_FIELDS, RECORD_TYPE
from schemas.rejection import Reason, Stage
from transforms.batch import NoteBatch, guarded, timed
from transforms.context import Context, read_context
from transforms.demographics import read_age_group, read_demographics, read_sex_of_pronouns
from transforms.drug_mentions import read_drug_mentions
from transforms.follow_up_mentions import read_follow_up
from transforms.headed_lists import read_lists
from transforms.labs import read_labs
from transforms.normalization import normalize_record
from transforms.normalization.times import DateOrder, NoteTime
from transforms.problem_mentions import read_problem_mentions
from transforms.procedures import read_told_procedures
from transforms.record_merge import merge_entities, merge_records
from transforms.record_model import RecordTask, RecordWriter, WrittenNote, count_written, write_notes
from transforms.sections import Page, read_page
from transforms.segment import sentence_spans
from transforms.shared_engine import LoadCounter, LoadedEngine, SharedEngine, SharedEngines
from transforms.terminology import Terminology, TerminologyFile, code_record, load_terminology
from transforms.terms import find_terms
from transforms.vitals import read_vitals

Record = dict[str, Any]
Entity = dict[str, Any]
Span = tuple[int, int]

RECORD_COLUMN = pa.field("record", RECORD_TYPE)


def parse_record(text: str) -> Record:
    """Read a note into the shape of RECORD_TYPE: leaves as dicts (None where the note does not say), entities as lists.

    Every leaf holds `text[start:end]` of the note, end exclusive, in characters.
    """
    page = read_page(text)
    return _by_rules(page, page_context(page))


def _by_rules(page: Page, context: Context) -> Record:
    age, sex = read_demographics(page)
    age, sex = age or read_age_group(page), sex or read_sex_of_pronouns(page)
    vitals = read_vitals(page)
    labs = read_labs(page, _places(vitals))
    observations = sorted([*vitals, *labs], key=lambda observation: int(observation["value"]["start"]))
    return {
        "age": age,
        "sex": sex,
        **_with_mentions(page, context, read_lists(page), _places(observations)),
        "observations": observations,
        "follow_up": merge_entities("follow_up", read_follow_up(page)),
    }


def page_context(page: Page) -> Context:
    """What running text says of what stands on a page."""
    return read_context(page.words, [end for _, end in _headings(page)])


def _with_mentions(page: Page, context: Context, lists: Mapping[str, list[Entity]], readings: Sequence[Span]) -> dict[str, list[Entity]]:
    """The lists of a note, with what running text says beside them."""
    terms = find_terms(page.lined)
    procedures = [*lists["procedures"], *read_told_procedures(page, terms, context, readings)]
    closed = [*readings, *_places(procedures), *_places(lists["allergies"]), *_headings(page)]
    drugs = read_drug_mentions(page, terms, context, [*closed, *_places(lists["medications"])])
    problems = read_problem_mentions(page, terms, context, [*closed, *_places(lists["problems"])], lists["problems"])
    found = {**lists, "procedures": procedures, "medications": [*lists["medications"], *drugs], "problems": [*lists["problems"], *problems]}
    return {field: merge_entities(field, entities) for field, entities in found.items()}


def _places(entities: Iterable[Entity]) -> list[Span]:
    """From the first to the last character of each entity, end exclusive."""
    leaves = ([leaf for leaf in entity.values() if isinstance(leaf, dict)] for entity in entities)
    return [(min([leaf["start"] for leaf in found]), max([leaf["end"] for leaf in found])) for found in leaves]


def _headings(page: Page) -> Iterator[Span]:
    return ((section.heading, section.start) for section in (*page.sections, *page.inline))


def join_record(text: str, written: WrittenNote, with_rules: bool) -> Record:
    """What a model wrote of a note's windows as one record of the note, with what the rules read where they are asked too.

    What both found is one entity with both as its readers; where they contradict each other, both stay, the rules' first.
    """
    page = read_page(text)
    context = page_context(page)
    return merge_records([*([_by_rules(page, context)] if with_rules else []), *written.records(page, context)])


@dataclass(frozen=True, slots=True)
class RecordSettings:
    """What a job says of records: who reads them, the order of day and month in dates of digits, and where its terminology lies, None
    without one. `task`: the model's, for the readers that need one."""

    date_order: DateOrder = DateOrder.UNKNOWN
    terminology: TerminologyFile | None = None
    reader: Literal["rules", "model", "both", "off"] = "rules"
    task: RecordTask | None = None

    def load(self) -> Terminology | None:
        """The terminology, from the process's cache. Raises ConfigurationError."""
        return load_terminology(self.terminology) if self.terminology else None

    def writer(self, loaded: LoadedEngine) -> RecordWriter:
        """The task with its engine and the model's place on this machine. Raises ConfigurationError if the model has no room for a note."""
        assert self.task is not None, "only a model writes"
        writer = RecordWriter(loaded.engine, replace(self.task, model=loaded.model))
        writer.task.language(loaded.engine)
        return writer

    def step(self, loaded: LoadedEngine | None = None) -> Callable[[NoteBatch], NoteBatch]:
        """The record stage as one function; `loaded`: the task's engine. It does nothing where no records are wanted."""
        if self.reader == "off":
            return lambda batch: batch
        assert (loaded is None) == (self.task is None), "a task needs its engine"
        writer = None if loaded is None else self.writer(loaded)
        return partial(record_batch, order=self.date_order, terminology=self.load(), writer=writer)


def read_record(
    text: str,
    written_at: str | None,
    order: DateOrder = DateOrder.UNKNOWN,
    terminology: Terminology | None = None,
    written: WrittenNote | None = None,
    with_rules: bool = True,
) -> Record:
    """A note's record with normal forms, for which the note's date is needed, and codes. `written`: what a model wrote; None for the rules'
    record alone."""
    found = parse_record(text) if written is None else join_record(text, written, with_rules)
    record = normalize_record(found, NoteTime.of(written_at, order))
    return code_record(record, terminology) if terminology else record


def record_batch(
    batch: NoteBatch,
    order: DateOrder = DateOrder.UNKNOWN,
    terminology: Terminology | None = None,
    writer: RecordWriter | None = None,
) -> NoteBatch:
    """Add the column `record`, one per live note; a note that a reader fails on becomes a rejection. Without a writer by rules alone; with
    one, SEGMENT_FIELDS are needed."""
    if writer is None:
        written: list[WrittenNote | None] = [None] * batch.notes.num_rows
    else:
        batch, written = _written(batch, writer)
    with_rules = writer is None or writer.task.with_rules
    rows = zip(batch.column("text"), batch.column("written_at"), written, strict=True)
    records, done = batch.each(
        rows, lambda row: read_record(row[0], row[1], order, terminology, row[2], with_rules), Stage.RECORD, Reason.RECORD_FAILED
    )
    return done.with_columns([RECORD_COLUMN], {"record": records}).counted(fields=filled_fields(records))


def _written(batch: NoteBatch, writer: RecordWriter) -> tuple[NoteBatch, list[WrittenNote | None]]:
    """The notes that the model did not fail on, and what it wrote of each. The others become rejections with its reason."""
    notes = write_notes(batch.column("text"), sentence_spans(batch), writer)
    rejected = {i: batch.rejection(i, Stage.RECORD, Reason(note.error)) for i, note in enumerate(notes) if note.error}
    return batch.reject(rejected).counted(records=count_written(notes)), [note for note in notes if not note.error]


def filled_fields(records: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Notes whose record has at least one value, by field."""
    counts = {field.name: sum(1 for record in records if record[field.name]) for field in RECORD_FIELDS}
    return {name: count for name, count in counts.items() if count}


class _Parse(beam.DoFn):  # type: ignore[misc]
    def __init__(self, settings: RecordSettings, engine: SharedEngine | None) -> None:
        self._settings = settings
        self._shared = engine
        self._loaded: LoadedEngine | None = None
        self._step: Callable[[NoteBatch], NoteBatch] | None = None
        self._loads = LoadCounter()

    def setup(self) -> None:
        with guarded("record"):
            if self._shared is not None:
                self._loaded, loads = self._shared.acquire()
                self._loads.loaded(loads)
            self._step = self._settings.step(self._loaded)

    def process(self, batch: NoteBatch) -> Iterator[NoteBatch]:
        self._loads.report()
        assert self._step is not None
        yield timed("record", self._step, batch)

    def teardown(self) -> None:
        self._loaded = None
        self._step = None


class ParseRecords(beam.PTransform):  # type: ignore[misc]
    """NoteBatch -> NoteBatch with the column `record`. `engines`: needed where a model reads; with the same handles as GenerateTexts one
    engine does for both."""

    def __init__(self, settings: RecordSettings | None = None, engines: SharedEngines | None = None) -> None:
        super().__init__()
        self._settings = settings or RecordSettings()
        task = self._settings.task
        self._engine = engines.of(task.model) if engines is not None and task is not None else None

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        return batches | beam.ParDo(_Parse(self._settings, self._engine))
