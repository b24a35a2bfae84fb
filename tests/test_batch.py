"""NoteBatch between processes."""

from __future__ import annotations

import copy
import pickle

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.commit import RunStats, Shard
from schemas.note import BATCH_SCHEMA
from schemas.record import RECORD_SCHEMA
from schemas.rejection import Reason, Rejection, Stage
from tests.conftest import note_rows
from transforms.batch import NoteBatch


def batch_of(count: int) -> NoteBatch:
    rows = [{**row, "source_file": 0, "source_row": i} for i, row in enumerate(note_rows(count))]
    notes = pa.Table.from_pylist(rows, schema=BATCH_SCHEMA)
    rejection = Rejection(0, 9, Stage.READ, Reason.DUPLICATE_ID, note_id="x")
    return NoteBatch(Shard("shard", "cut", ()), notes, (rejection,), RunStats(notes_in=count))


@given(counts=st.lists(st.integers(0, 3), max_size=4))
def test_a_pickled_batch_is_the_same_batch(counts: list[int]) -> None:
    """Whatever chunks its columns have, nested ones and such that hold nulls only among them."""
    tables = [batch_of(count).notes for count in counts] or [batch_of(0).notes]
    notes = pa.concat_tables(tables).append_column("nothing", pa.nulls(sum(counts)))
    notes = notes.append_column("nested", pa.nulls(sum(counts), pa.struct(list(RECORD_SCHEMA))))
    batch = NoteBatch(batch_of(0).shard, notes, batch_of(0).rejections, batch_of(2).stats)
    for twin in (pickle.loads(pickle.dumps(batch)), copy.deepcopy(batch)):
        assert twin == batch
        assert twin.notes.schema.equals(notes.schema, check_metadata=True)


def test_a_pickled_batch_leaves_the_rows_behind_that_it_was_cut_from() -> None:
    whole = batch_of(2_000)
    cut = NoteBatch(whole.shard, whole.notes.slice(5, 2))
    assert len(pickle.dumps(cut)) < len(pickle.dumps(whole)) / 50
    assert pickle.loads(pickle.dumps(cut)).notes.equals(whole.notes.slice(5, 2))


def test_text_that_is_no_utf8_travels_too() -> None:
    broken = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")])
    batch = NoteBatch(batch_of(0).shard, pa.table({"text": broken}))
    assert pickle.loads(pickle.dumps(batch)).notes.equals(batch.notes)
    with pytest.raises(UnicodeDecodeError):
        batch.column("text")
