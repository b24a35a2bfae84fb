"""Parts: records go in and come out the same, and what a part says of itself is what its records say."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.commit import RunStats
from tests.commit_records import VERSION, by_shard, made_up
from transforms.rolled import Part, part_of, parts_of

numbers = st.sets(st.integers(0, 60), min_size=1, max_size=20)


@settings(deadline=None, max_examples=30)
@given(numbers)
def test_records_come_out_as_they_went_in(chosen: set[int]) -> None:
    records = by_shard(made_up(number) for number in chosen)
    part = part_of(records.values())
    assert by_shard(part.records(VERSION)) == records
    assert part.ids == sorted(records)
    assert {shard.id: shard for shard in part.shards()} == {name: record.shard for name, record in records.items()}
    assert part.stats == RunStats.sum(record.stats for record in records.values())
    for name, standing in part.standing():
        record = records[name]
        assert standing.files == {kind: file.path for kind, file in record.files.items()}
        assert (standing.notes, standing.run_id, standing.revised) == (record.stats.notes_in, record.run_id, record.revised)


@settings(deadline=None, max_examples=30)
@given(numbers, numbers)
def test_some_of_the_records(chosen: set[int], wanted: set[int]) -> None:
    part = part_of(map(made_up, chosen))
    expected = by_shard(made_up(number) for number in chosen & wanted)
    names = {made_up(number).shard.id for number in wanted}
    assert by_shard(part.records(VERSION, names)) == expected
    assert RunStats.sum(part.stats_of(names)) == RunStats.sum(record.stats for record in expected.values())


def test_the_same_records_make_the_same_bytes() -> None:
    records = [made_up(number) for number in range(30)]
    parts = {part_of(random.Random(seed).sample(records, 30)).data for seed in range(5)}
    assert len(parts) == 1


@pytest.mark.parametrize("count", [1, 7, 8, 9, 20])
def test_rows_put_together_are_cut_anew(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transforms.rolled.PART_RECORDS", 8)
    sources = [part_of([made_up(number)]) for number in range(count)]
    parts = list(parts_of([source.table(source.ids) for source in sources]))
    assert [len(part.ids) for part in parts] == [8] * (count // 8) + ([count % 8] if count % 8 else [])
    assert by_shard(record for part in parts for record in part.records(VERSION)) == by_shard(map(made_up, range(count)))
    assert RunStats.sum(part.stats for part in parts) == RunStats.sum(made_up(number).stats for number in range(count))


def test_a_part_shows_no_record() -> None:
    assert made_up(1).shard.id not in repr(Part("some/key", part_of([made_up(1)]).data))
