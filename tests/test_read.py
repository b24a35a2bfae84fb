"""Reading: every planned row comes out once, as a note or as a rejection, however the file is laid out or damaged."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.commit import Segment
from schemas.note import BATCH_SCHEMA
from schemas.rejection import Reason
from tests.conftest import note_rows, write_notes
from transforms.batch import NoteBatch
from transforms.columns import ColumnMap
from transforms.inputs import list_inputs
from transforms.plan import RowPlaces, current_shards, cut_files, cut_segments
from transforms.read import read_segment
from transforms.scan import scan_file


def segments_of(folder: Path, shard_notes: int, duplicates: dict[int, tuple[int, ...]] | None = None) -> list[Segment]:
    found = list_inputs([str(folder)]).files
    scans = [scan_file(file, i, ColumnMap()) for i, file in enumerate(found)]
    files = {s.file.number: s.file for s in scans}
    cuts = cut_files(list(files.values()), {s.file.number: RowPlaces(s.row_groups, s.offsets, s.lines) for s in scans}, shard_notes)
    return cut_segments(current_shards(cuts, set(), duplicates or {}), files, {i: f.location for i, f in enumerate(found)})


def read_all(segments: Sequence[Segment], columns: ColumnMap | None = None) -> list[NoteBatch]:
    return [batch for segment in segments for batch in read_segment(segment, columns or ColumnMap())]


def places(batches: Sequence[NoteBatch]) -> list[tuple[int, int]]:
    kept = [(f, r) for b in batches for f, r in zip(b.column("source_file"), b.column("source_row"), strict=True)]
    return sorted(kept + [(r.source_file, r.source_row) for b in batches for r in b.rejections if r.source_row is not None])


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(1, 30), st.integers(1, 25))
def test_rows_do_not_depend_on_row_groups_or_shards(tmp_path_factory: Any, rows: int, group: int, shard_notes: int) -> None:
    folder = tmp_path_factory.mktemp("in")
    write_notes(folder / "x.parquet", note_rows(rows), row_group_size=group)
    batches = read_all(segments_of(folder, shard_notes))
    table = pa.concat_tables([b.notes for b in batches])
    assert table.column("note_id").to_pylist() == [row["note_id"] for row in note_rows(rows)]
    assert table.column("source_row").to_pylist() == list(range(rows))
    assert [b.notes.num_rows for b in batches] == [b.shard.rows for b in batches]


def test_shards_are_read_in_any_subset(notes_folder: Path) -> None:
    segments = segments_of(notes_folder, 7)
    everything = {b.shard.id: b.notes for b in read_all(segments)}
    odd = set(sorted(everything)[::2])
    for segment in segments:
        for batch in read_segment(segment, ColumnMap(), lambda shard: shard.id in odd):
            assert batch.notes.equals(everything[batch.shard.id])
            odd.discard(batch.shard.id)
    assert not odd


def test_small_files_share_a_shard_and_keep_their_places(tmp_path: Path) -> None:
    for i in range(9):
        write_notes(tmp_path / f"{i}.parquet", note_rows(1, i))
    [batch] = read_all(segments_of(tmp_path, 100))
    assert places([batch]) == [(i, 0) for i in range(9)]


def test_passthrough_types_that_disagree_between_small_files_become_strings(tmp_path: Path) -> None:
    write_notes(tmp_path / "a.parquet", [{"note_id": "1", "text": "x", "extra": 5}])
    write_notes(tmp_path / "b.parquet", [{"note_id": "2", "text": "y", "extra": {"deep": True}}])
    [batch] = read_all(segments_of(tmp_path, 10))
    assert batch.column("in:extra") == ["5", "{'deep': True}"]


def test_hive_partitions_and_mapping(tmp_path: Path) -> None:
    write_notes(tmp_path / "kind=ED" / "x.parquet", [{"id": 5, "body": "text"}])
    columns = ColumnMap({"note_id": "id", "text": "body", "note_type": "kind"})
    found = list_inputs([str(tmp_path)]).files[0]
    scan = scan_file(found, 0, columns)
    cuts = cut_files([scan.file], {0: RowPlaces(scan.row_groups)}, 10)
    [segment] = cut_segments(current_shards(cuts, set(), {}), {0: scan.file}, {0: found.location})
    [batch] = read_all([segment], columns)
    assert (batch.column("note_id"), batch.column("text"), batch.column("note_type")) == (["5"], ["text"], ["ED"])


def test_rows_that_are_not_unicode_are_set_aside_alone(tmp_path: Path) -> None:
    raw = pa.array([b"fine", b"\xff\xfe broken", b"fine too"])
    text = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    pq.write_table(pa.table({"note_id": ["a", "b", "c"], "text": text}), tmp_path / "x.parquet")
    [batch] = read_all(segments_of(tmp_path, 10))
    assert batch.column("note_id") == ["a", "c"]
    assert [(r.reason, r.note_id, r.source_row) for r in batch.rejections] == [(Reason.ROW_UNREADABLE, "b", 1)]


def test_duplicates_of_the_plan_are_set_aside(notes_folder: Path) -> None:
    batches = read_all(segments_of(notes_folder, 10, {0: (3, 24), 1: (0,)}))
    rejected = sorted((r.source_file, r.source_row, r.note_id) for b in batches for r in b.rejections)
    assert rejected == [(0, 3, "n000003"), (0, 24, "n000024"), (1, 0, "n000025")]
    assert len(places(batches)) == 70


def test_damage_inside_a_file_costs_only_the_rows_behind_it(tmp_path: Path) -> None:
    path = write_notes(tmp_path / "x.parquet", note_rows(60), row_group_size=20, compression="none", use_dictionary=False)
    column = pq.ParquetFile(path).metadata.row_group(1).column(1)
    assert column.path_in_schema == "text"
    data = bytearray(path.read_bytes())
    data[column.data_page_offset : column.data_page_offset + 12] = b"\xff" * 12
    path.write_bytes(data)
    batches = read_all(segments_of(tmp_path, 20))
    assert places(batches) == [(0, row) for row in range(60)]
    lost = [r for b in batches for r in b.rejections]
    assert {r.source_row for r in lost} == set(range(20, 40)) and {r.reason for r in lost} == {Reason.FILE_CORRUPT}


@pytest.mark.parametrize("damage", ["empty", "no_rows", "truncated", "garbage"])
def test_an_unreadable_file_is_one_rejection(tmp_path: Path, damage: str) -> None:
    path = write_notes(tmp_path / "x.parquet", note_rows(0 if damage == "no_rows" else 5) or [])
    if damage == "no_rows":
        pq.write_table(BATCH_SCHEMA.empty_table(), path)
    elif damage != "truncated":
        path.write_bytes(b"" if damage == "empty" else b"PAR1 this is not Parquet at all, not even a little PAR1")
    else:
        path.write_bytes(path.read_bytes()[:-40])
    [batch] = read_all(segments_of(tmp_path, 10))
    expected = Reason.FILE_EMPTY if damage in ("empty", "no_rows") else Reason.FILE_CORRUPT
    assert [(r.reason, r.source_row) for r in batch.rejections] == [(expected, None)]


def test_a_file_that_changed_since_the_plan_is_left_alone(notes_folder: Path) -> None:
    segments = segments_of(notes_folder, 10)
    write_notes(notes_folder / "a.parquet", note_rows(26))
    (notes_folder / "c.parquet").unlink()
    done = {p.file for b in read_all(segments) for p in b.shard.pieces}
    assert done == {1}


def test_a_batch_holds_only_its_own_rows(tmp_path: Path) -> None:
    write_notes(tmp_path / "x.parquet", note_rows(5000))
    batches = read_all(segments_of(tmp_path, 500))
    whole = sum(b.notes.nbytes for b in batches)
    assert all(len(pickle.dumps(b.notes)) < whole / 5 for b in batches)


def test_repr_shows_counts_only(notes_folder: Path) -> None:
    segments = segments_of(notes_folder, 10)
    text = "".join(map(repr, [*segments, *read_all(segments)]))
    assert "ward" not in text and "a.parquet" not in text and "n0000" not in text
