from __future__ import annotations

import apache_beam as beam
import pyarrow as pa
from apache_beam.testing.util import assert_that, equal_to

from schemas.summary import SEGMENT_FIELDS
from tests.test_generate import make_batch
from transforms.segment import SegmentNotes, segment_batch

TEXT = "  She slept well. No fever\n\nPlan: walk daily. "


def test_sentences_are_spans_of_the_text() -> None:
    batch = segment_batch(make_batch([TEXT, ""]))
    first, empty = batch.column("sentences")
    assert [TEXT[span["start"] : span["end"]] for span in first] == ["She slept well.", "No fever", "Plan: walk daily."]
    assert empty == []
    assert batch.notes.schema.field("sentences") == SEGMENT_FIELDS[0]


def test_a_batch_without_notes_gets_the_column_too() -> None:
    assert segment_batch(make_batch([])).notes.column("sentences").type == SEGMENT_FIELDS[0].type


def test_beam_adds_the_same_column_and_the_seconds() -> None:
    batch = make_batch([TEXT])
    direct: pa.Table = segment_batch(batch).notes

    def sees(batches: list[object]) -> None:
        [done] = batches
        assert done.notes.equals(direct)  # type: ignore[attr-defined]
        assert done.stats.seconds["segment"] > 0  # type: ignore[attr-defined]

    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        segmented = pipeline | beam.Create([batch], reshuffle=False) | SegmentNotes()
        assert_that(segmented | beam.Map(lambda done: done.shard.id), equal_to([batch.shard.id]), label="shard")
        assert_that(segmented, sees, label="columns")
