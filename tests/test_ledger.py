"""The ledger of many shards: what a run adds is as large as what is new, and rolling up loses and doubles nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.commit import Plan, PlannedShard
from tests.commit_records import VERSION, by_shard, made_up, shard_id
from transforms.ledger import (
    commit_key,
    committed_shards,
    list_commits,
    load_commits,
    load_parts,
    load_plan,
    load_shards,
    newest_header,
    newest_plan,
    put_plan,
    roll_commits,
    rolled_record,
)
from transforms.store import LocalStore


def plan_of(run_id: str, numbers: range | list[int], version: str = VERSION, in_scope: int | None = None, at: int = 0) -> Plan:
    scope = len(numbers) if in_scope is None else in_scope
    shards = tuple(PlannedShard(shard_id(number), 10 + number % 3, place < scope) for place, number in enumerate(numbers))
    return Plan(run_id, version, f"2026-01-01T00:00:{at:02d}", 1, "first", shards, {"listed": 3}, {"gate": {}})


def stored(store: LocalStore, folder: str = "") -> dict[str, int]:
    return {entry.key: entry.size for entry in store.list(folder)}


@pytest.mark.parametrize("in_scope", [0, 3, None])
def test_a_plan_is_loaded_as_it_was_saved(tmp_path: Path, in_scope: int | None) -> None:
    store, plan = LocalStore(tmp_path), plan_of("one", range(3000), in_scope=in_scope)
    assert put_plan(store, plan)
    assert load_plan(store, VERSION, "one") == newest_plan(store) == plan
    assert not put_plan(store, replace(plan, created_at="later"))
    assert put_plan(store, plan)  # sent again


def test_a_plan_of_no_shards(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    assert put_plan(store, plan_of("empty", []))
    assert load_plan(store, VERSION, "empty").current == ()


def test_what_a_plan_adds_is_what_is_new(tmp_path: Path) -> None:
    store, count = LocalStore(tmp_path), 20_000
    put_plan(store, plan_of("first", range(count)))
    before = stored(store)
    put_plan(store, plan_of("again", range(count)))
    again = stored(store)
    assert again.keys() - before.keys() == {f"_runs/{VERSION}/plans/again.json"}
    # Some new ones, and one that is gone from the middle.
    numbers = [number for number in range(count + 200) if number != count // 2]
    put_plan(store, plan_of("night", numbers))
    added = stored(store).keys() - again.keys()
    assert len(added) <= 4 and sum(stored(store)[key] for key in added) < sum(before.values()) / 4
    assert load_plan(store, VERSION, "night") == plan_of("night", numbers)


def test_the_newest_plan_of_all_versions(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    assert newest_header(store) is None and newest_plan(store) is None
    for at, (run_id, version) in enumerate([("a", "v1"), ("b", "v2"), ("c", "v1")]):
        put_plan(store, plan_of(run_id, range(5), version, at=at))
    assert newest_plan(store) == plan_of("c", range(5), "v1", at=2)
    assert newest_plan(store, "v2") == plan_of("b", range(5), "v2", at=1)


def put_single(store: LocalStore, numbers: set[int]) -> None:
    for number in sorted(numbers):
        store.put_once(commit_key(VERSION, shard_id(number)), made_up(number).to_bytes())


def roll(store: LocalStore, live: set[int]) -> None:
    roll_commits(store, VERSION, load_parts(store, VERSION), {shard_id(number) for number in live})


def parts_stored(store: LocalStore) -> list[str]:
    return list_commits(store, VERSION)[1]


@pytest.fixture
def tiny_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transforms.rolled.PART_RECORDS", 8)
    monkeypatch.setattr("transforms.ledger.PART_RECORDS", 8)
    monkeypatch.setattr("transforms.ledger.SMALL_PART", 3)


sets = st.sets(st.integers(0, 30), max_size=31)


@pytest.mark.usefixtures("tiny_parts")
def test_rolling_up_loses_and_doubles_nothing(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nights of commits and of shards that are retired; now and then a stopped run has left the old parts beside the new."""

    @settings(max_examples=8, deadline=None)
    @given(st.lists(st.tuples(sets, sets, st.booleans()), min_size=1, max_size=4))
    def nights(given_nights: list[tuple[set[int], set[int], bool]]) -> None:
        store, alive = LocalStore(tmp_path_factory.mktemp("nights")), set[int]()
        for new, retired, stopped in given_nights:
            put_single(store, new)
            old = {key: store.get(key) for key in parts_stored(store)}
            known, alive = alive | new, (alive | new) - retired
            assert load_commits(store, VERSION) == by_shard(map(made_up, known))
            roll(store, alive)
            if stopped:
                for key, data in old.items():
                    store.put(key, data)
                roll(store, alive)
            for number in retired:  # as publishing does with what was never rolled up
                store.delete(commit_key(VERSION, shard_id(number)))
            assert load_commits(store, VERSION) == by_shard(map(made_up, alive))
            assert committed_shards(store, VERSION) == load_shards(store, VERSION).keys() == {shard_id(number) for number in alive}
            held = [name for part in load_parts(store, VERSION) if part.key for name in part.ids]
            assert sorted(held) == sorted(map(shard_id, alive))

    nights()


@pytest.mark.usefixtures("tiny_parts")
def test_large_parts_stay_and_small_ones_are_put_together(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    put_single(store, set(range(16)))
    roll(store, set(range(16)))
    large = parts_stored(store)
    assert len(large) == 2 and not list_commits(store, VERSION)[0]
    for night in range(16, 20):
        put_single(store, {night})
        roll(store, set(range(night + 1)))
        assert set(large) < set(parts_stored(store)) and len(parts_stored(store)) <= 4
    before = stored(store)
    roll(store, set(range(20)))
    assert stored(store) == before
    assert rolled_record(store, VERSION, shard_id(17)) == made_up(17)
    assert rolled_record(store, VERSION, shard_id(99)) is None


@pytest.mark.usefixtures("tiny_parts")
def test_a_rolled_up_record_is_the_truth(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    put_single(store, {1, 2, 3})
    roll(store, {1, 2, 3})
    other = replace(made_up(2), run_id="too late")
    store.put_once(commit_key(VERSION, shard_id(2)), other.to_bytes())
    assert load_commits(store, VERSION)[shard_id(2)] == made_up(2)
    roll(store, {1, 2, 3})
    assert list_commits(store, VERSION)[0] == []
