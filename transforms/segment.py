"""Where a note's sentences begin and end: the units that cutting, evidence and selection work with."""

from __future__ import annotations

import itertools
from dataclasses import replace

import apache_beam as beam
import pyarrow as pa

from schemas.summary import SEGMENT_FIELDS
from transforms.batch import NoteBatch, timed
from transforms.sentences import split_sentences


def segment_batch(batch: NoteBatch) -> NoteBatch:
    """Add `sentences`: character spans [start, end) of each note's text, in order, not overlapping."""
    spans = [split_sentences(text) for text in batch.column("text")]
    bounds = itertools.accumulate(map(len, spans), initial=0)
    starts, ends = ([span[side] for note in spans for span in note] for side in (0, 1))
    # Built flat: a dictionary per sentence would cost more than the splitting.
    [added] = SEGMENT_FIELDS
    structs = pa.StructArray.from_arrays([pa.array(starts, pa.int32()), pa.array(ends, pa.int32())], fields=list(added.type.value_type))
    column = pa.ListArray.from_arrays(pa.array(bounds, pa.int32()), structs, type=added.type)
    return replace(batch, notes=batch.notes.append_column(added, column))


def sentence_spans(batch: NoteBatch) -> list[list[tuple[int, int]]]:
    """The column `sentences` as character spans [start, end) per note."""
    column = batch.notes.column("sentences").combine_chunks()
    # Nested to_pylist() makes a scalar object of every cell; flat columns are ten times quicker.
    flat = column.flatten()
    spans = list(zip(flat.field("start").to_pylist(), flat.field("end").to_pylist(), strict=True))
    bounds = itertools.accumulate(column.value_lengths().to_pylist(), initial=0)
    return [spans[start:end] for start, end in itertools.pairwise(bounds)]


class _Segment(beam.DoFn):  # type: ignore[misc]
    def process(self, batch: NoteBatch) -> list[NoteBatch]:
        return [timed("segment", segment_batch, batch)]


class SegmentNotes(beam.PTransform):  # type: ignore[misc]
    """NoteBatches with SEGMENT_FIELDS."""

    def expand(self, batches: beam.PCollection[NoteBatch]) -> beam.PCollection[NoteBatch]:
        return batches | beam.ParDo(_Segment())
