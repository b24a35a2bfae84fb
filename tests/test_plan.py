"""Planning, the pure part: cuts, duplicates, current shards, segments."""

from __future__ import annotations

import hashlib
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.commit import InputFile
from schemas.errors import ConfigurationError
from schemas.rejection import Reason
from transforms.plan import (
    MAX_SEGMENT_SHARDS,
    NEVER_WRITTEN,
    NoteIds,
    RowPlaces,
    current_shards,
    cut_files,
    cut_segments,
    decide_duplicates,
    limit_shards,
    superseded_files,
)

row_groups = st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=6), min_size=1, max_size=8)


def planned(groups: list[list[int]]) -> tuple[list[InputFile], dict[int, RowPlaces]]:
    files = [InputFile(i, f"f{i}.parquet", f"id{i}", sum(g), 1000) for i, g in enumerate(groups)]
    return files, {i: RowPlaces(g) for i, g in enumerate(groups)}


@given(row_groups, st.integers(1, 50))
def test_every_row_is_in_exactly_one_cut(groups: list[list[int]], shard_notes: int) -> None:
    files, by_file = planned(groups)
    cuts = cut_files(files, by_file, shard_notes)
    rows = [(p.file, row) for cut in cuts for p in cut.pieces for row in range(p.start, p.stop)]
    assert sorted(rows) == [(f.number, row) for f in files for row in range(f.rows)]
    assert all(cut.rows <= shard_notes for cut in cuts)
    assert len({cut.id for cut in cuts}) == len(cuts)


@given(row_groups, st.integers(1, 50))
def test_a_piece_names_the_row_groups_that_hold_it(groups: list[list[int]], shard_notes: int) -> None:
    files, by_file = planned(groups)
    for cut in cut_files(files, by_file, shard_notes):
        for piece in cut.pieces:
            starts = np.concatenate([[0], np.cumsum(by_file[piece.file].row_groups)])
            holding = [i for i in range(len(starts) - 1) if starts[i] < piece.stop and starts[i + 1] > piece.start]
            assert list(piece.row_groups) == holding


def test_many_small_files_become_few_shards() -> None:
    files, by_file = planned([[1]] * 1000)
    assert len(cut_files(files, by_file, 100)) == 10


def test_cut_ids_do_not_depend_on_file_numbers() -> None:
    file = InputFile(0, "x.parquet", "id", 10, 1)
    moved = InputFile(7, "x.parquet", "id", 10, 1)
    assert cut_files([file], {0: RowPlaces([10])}, 4)[1].id == cut_files([moved], {7: RowPlaces([10])}, 4)[1].id


def test_an_unreadable_file_is_a_cut_without_rows() -> None:
    bad = InputFile(0, "x.parquet", "id", 0, 1, Reason.FILE_CORRUPT)
    [cut] = cut_files([bad], {}, 10)
    assert (cut.rows, len(cut.pieces)) == (0, 1)


def test_shards_of_no_notes_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="shard_notes: 0"):
        cut_files([], {}, 0)


def ids_of(rows: list[tuple[str, int, int, int]]) -> NoteIds:
    """From (id, file, row, written_at)."""
    raw = b"".join(hashlib.blake2b(name.encode(), digest_size=16).digest() for name, *_ in rows)
    return NoteIds(
        np.frombuffer(raw, np.uint64).reshape(-1, 2),
        np.array([w for *_, w in rows], np.int64),
        np.array([f for _, f, _, _ in rows], np.int32),
        np.array([r for _, _, r, _ in rows], np.int64),
    )


@st.composite
def id_rows(draw: st.DrawFn) -> list[tuple[str, int, int, int]]:
    places = draw(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 9)), unique=True, min_size=1, max_size=40))
    dates = st.sampled_from([int(NEVER_WRITTEN), 0, 1_700_000_000_000, 1_700_000_000_001])
    return [(draw(st.sampled_from("abcdef")), file, row, draw(dates)) for file, row in sorted(places)]


def losers(rows: list[tuple[str, int, int, int]], key: Any) -> set[tuple[int, int]]:
    """By brute force: everything but the smallest by `key` of each id."""
    best: dict[str, tuple[str, int, int, int]] = {}
    for row in rows:
        if row[0] not in best or key(row) < key(best[row[0]]):
            best[row[0]] = row
    return {(file, row) for name, file, row, _ in rows if best[name][1:3] != (file, row)}


@given(id_rows())
def test_first_keeps_the_first_planned(rows: list[tuple[str, int, int, int]]) -> None:
    decided = decide_duplicates(ids_of(rows), "first")
    assert {(f, r) for f, rs in decided.items() for r in rs} == losers(rows, lambda r: (r[1], r[2]))


@given(id_rows())
def test_latest_keeps_the_last_written(rows: list[tuple[str, int, int, int]]) -> None:
    decided = decide_duplicates(ids_of(rows), "latest")
    assert {(f, r) for f, rs in decided.items() for r in rs} == losers(rows, lambda r: (-r[3], -r[1], -r[2]))


@given(id_rows())
def test_ignored_files_take_no_part(rows: list[tuple[str, int, int, int]]) -> None:
    rest = [row for row in rows if row[1] not in (0, 3)]
    assert decide_duplicates(ids_of(rows), "first", {0, 3}) == (decide_duplicates(ids_of(rest), "first") if rest else {})


def test_all_keeps_all_and_unknown_policies_are_refused() -> None:
    rows = [("a", 0, 0, 0), ("a", 0, 1, 0)]
    assert decide_duplicates(ids_of(rows), "all") == {}
    with pytest.raises(ConfigurationError, match="'newest'; choices: first, latest, all"):
        decide_duplicates(ids_of(rows), "newest")


def test_a_superseded_file_loses_its_pieces_and_its_own_cuts() -> None:
    files = [InputFile(0, "a", "1", 3, 1), InputFile(1, "b", "1", 3, 1), InputFile(2, "b", "2", 4, 1)]
    cuts = cut_files(files[:2], {0: RowPlaces([3]), 1: RowPlaces([3])}, 10) + cut_files(files[2:], {2: RowPlaces([4])}, 10)
    gone = superseded_files(files)
    assert gone == {1}
    shards = current_shards(cuts, gone, {})
    assert [[p.file for p in s.pieces] for s in shards] == [[0], [2]]
    assert shards[0].id != cuts[0].id and shards[0].cut == cuts[0].id
    assert shards[1].id == cuts[1].id


def test_duplicates_are_part_of_a_shards_identity() -> None:
    files, by_file = planned([[20]])
    cuts = cut_files(files, by_file, 10)
    plain, marked = current_shards(cuts, set(), {}), current_shards(cuts, set(), {0: (3, 17, 18)})
    assert [s.duplicates for s in marked] == [{0: (3,)}, {0: (17, 18)}]
    assert {s.id for s in plain}.isdisjoint(s.id for s in marked)


def test_limit_takes_whole_shards() -> None:
    files, by_file = planned([[100]])
    shards = current_shards(cut_files(files, by_file, 30), set(), {})
    assert [len(limit_shards(shards, n)) for n in (None, 1, 30, 31, 1000)] == [4, 1, 1, 2, 4]
    with pytest.raises(ConfigurationError, match="--limit 0"):
        limit_shards(shards, 0)


@given(row_groups, st.integers(1, 50))
def test_segments_keep_order_and_share_no_row_group_unless_too_long(groups: list[list[int]], shard_notes: int) -> None:
    files, by_file = planned(groups)
    shards = current_shards(cut_files(files, by_file, shard_notes), set(), {})
    segments = cut_segments(shards, {f.number: f for f in files}, {f.number: "there" for f in files})
    assert [s.id for segment in segments for s in segment.shards] == [s.id for s in shards]
    for left, right in itertools.pairwise(segments):
        last, first = left.shards[-1].pieces[-1], right.shards[0].pieces[0]
        shared = last.file == first.file and set(last.row_groups) & set(first.row_groups)
        assert not shared or len(left.shards) == MAX_SEGMENT_SHARDS


def test_one_huge_row_group_is_spread_over_segments() -> None:
    files, by_file = planned([[1000]])
    shards = current_shards(cut_files(files, by_file, 1), set(), {})
    assert len(cut_segments(shards, {0: files[0]}, {0: "x"})) == -(-1000 // MAX_SEGMENT_SHARDS)
