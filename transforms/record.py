"""The first record reader: rules that fill age, sex, readings, lists under headings and what running text names, with offsets.

It prefers precision: what it cannot place it leaves out, and it does not read follow-up. What it found then gets its normal forms and,
where the job names a terminology, its codes. Cost: one pass per kind of pattern, each linear in the length of the note.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import apache_beam as beam
import pyarrow as pa

from schemas.record import RECORD_FIELDS, RECORD_TYPE
from schemas.rejection import Reason, Stage
from transforms.batch import NoteBatch, guarded, timed
from transforms.context import read_context
from transforms.demographics import read_age_group, read_demographics, read_sex_of_pronouns
from transforms.drug_mentions import read_drug_mentions
from transforms.headed_lists import read_lists
from transforms.labs import read_labs
from transforms.normalization import normalize_record
from transforms.normalization.times import DateOrder, NoteTime
from transforms.problem_mentions import read_problem_mentions
from transforms.procedures import read_told_procedures
from transforms.record_merge import merge_entities
from transforms.sections import Page, read_page
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
    age, sex = read_demographics(page)
    age, sex = age or read_age_group(page), sex or read_sex_of_pronouns(page)
    vitals = read_vitals(page)
    labs = read_labs(page, _places(vitals))
    observations = sorted([*vitals, *labs], key=lambda observation: int(observation["value"]["start"]))
    return {
        "age": age,
        "sex": sex,
        **_with_mentions(page, read_lists(page), _places(observations)),
        "observations": observations,
        "follow_up": [],
    }


def _with_mentions(page: Page, lists: Mapping[str, list[Entity]], readings: Sequence[Span]) -> dict[str, list[Entity]]:
    """The lists of a note, with what running text says beside them."""
    terms, context = find_terms(page.lined), read_context(page.folded, [end for _, end in _headings(page)])
    procedures = [*lists["procedures"], *read_told_procedures(page, terms, context, readings)]
    closed = [*readings, *_places(procedures), *_places(lists["allergies"]), *_headings(page)]
    drugs = read_drug_mentions(page, terms, context, [*closed, *_places(lists["medications"])])
    problems = read_problem_mentions(page, terms, context, [*closed, *_places(lists["problems"])], lists["problems"])
    found = {**lists, "procedures": procedures, "medications": [*lists["medications"], *drugs], "problems": [*lists["problems"], *problems]}
    return {field: merge_entities(field, entities) for field, entities in found.items()}


def _places(entities: Iterable[Entity]) -> list[Span]:
    """From the first to the last character of each entity, end exclusive."""
    leaves = ([leaf for leaf in entity.values() if isinstance(leaf, Mapping)] for entity in entities)
    return [(min(leaf["start"] for leaf in found), max(leaf["end"] for leaf in found)) for found in leaves]


def _headings(page: Page) -> Iterator[Span]:
    return ((section.heading, section.start) for section in (*page.sections, *page.inline))


@dataclass(frozen=True, slots=True)
class RecordSettings:
    """What a job says of records: the order of day and month in dates of digits, and where its terminology lies, None without one."""

    date_order: DateOrder = DateOrder.UNKNOWN
    terminology: TerminologyFile | None = None

    def load(self) -> Terminology | None:
        """The terminology, from the process's cache. Raises ConfigurationError."""
        return load_terminology(self.terminology) if self.terminology else None


def read_record(text: str, written_at: str | None, order: DateOrder = DateOrder.UNKNOWN, terminology: Terminology | None = None) -> Record:
    """`parse_record`, with normal forms, for which the note's date is needed, and codes."""
    record = normalize_record(parse_record(text), NoteTime.of(written_at, order))
    return code_record(record, terminology) if terminology else record


def record_batch(batch: NoteBatch, order: DateOrder = DateOrder.UNKNOWN, terminology: Terminology | None = None) -> NoteBatch:
    """Add the column `record`, one per live note; a note that a reader fails on becomes a rejection."""
    rows = zip(batch.column("text"), batch.column("written_at"), strict=True)
    records, done = batch.each(rows, lambda row: read_record(row[0], row[1], order, terminology), Stage.RECORD, Reason.RECORD_FAILED)
    return done.with_columns([RECORD_COLUMN], {"record": records}).counted(fields=filled_fields(records))


def filled_fields(records: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Notes whose record has at least one value, by field."""
    counts = {field.name: sum(1 for record in records if record[field.name]) for field in RECORD_FIELDS}
    return {name: count for name, count in counts.items() if count}


class _Parse(beam.DoFn):  # type: ignore[misc]
    def __init__(self, settings: RecordSettings) -> None:
        self._settings = settings
        self._terminology: Terminology | None = None

    def setup(self) -> None:
        with guarded("record"):
            self._terminology = self._settings.load()

    def process(self, batch: NoteBatch) -> Iterator[NoteBatch]:
        yield timed("record", partial(record_batch, order=self._settings.date_order, terminology=self._terminology), batch)


class ParseRecords(beam.PTransform):  # type: ignore[misc]
    """NoteBatch -> NoteBatch with the column `record`."""

    def __init__(self, settings: RecordSettings | None = None) -> None:
        super().__init__()
        self._settings = settings or RecordSettings()

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        return batches | beam.ParDo(_Parse(self._settings))
