"""The first record reader: rules that fill age, sex, vital signs and what stands in lists under headings, every leaf with its offsets.

It prefers precision: what it cannot place it leaves out. It does not read laboratory values or follow-up, and problems only from lists.
Cost: one pass per kind of pattern, each linear in the length of the note.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import pyarrow as pa

from schemas.record import RECORD_FIELDS, RECORD_TYPE
from schemas.rejection import Reason, Stage
from transforms.batch import NoteBatch, timed
from transforms.demographics import read_demographics
from transforms.headed_lists import read_lists
from transforms.sections import read_page
from transforms.vitals import read_vitals

Record = dict[str, Any]

RECORD_COLUMN = pa.field("record", RECORD_TYPE)


def parse_record(text: str) -> Record:
    """Read a note into the shape of RECORD_TYPE: leaves as dicts (None where the note does not say), entities as lists.

    Every leaf holds `text[start:end]` of the note, end exclusive, in characters.
    """
    page = read_page(text)
    age, sex = read_demographics(page)
    return {"age": age, "sex": sex, **read_lists(page), "observations": read_vitals(page), "follow_up": []}


def record_batch(batch: NoteBatch) -> NoteBatch:
    """Add the column `record`, one per live note; a note that a reader fails on becomes a rejection."""
    records, done = batch.each(batch.column("text"), parse_record, Stage.RECORD, Reason.RECORD_FAILED)
    return done.with_columns([RECORD_COLUMN], {"record": records}).counted(fields=filled_fields(records))


def filled_fields(records: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Notes whose record has at least one value, by field."""
    counts = {field.name: sum(1 for record in records if record[field.name]) for field in RECORD_FIELDS}
    return {name: count for name, count in counts.items() if count}


class _Parse(beam.DoFn):  # type: ignore[misc]
    def process(self, batch: NoteBatch) -> Iterator[NoteBatch]:
        yield timed("record", record_batch, batch)


class ParseRecords(beam.PTransform):  # type: ignore[misc]
    """NoteBatch -> NoteBatch with the column `record`."""

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        return batches | beam.ParDo(_Parse())
