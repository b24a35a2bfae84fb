"""`chartmill bench kills`: what it counts, and that it finds a loss when there is one."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.bench_kills import Differences, compare_rows, rows_of
from pipeline.killed_runs import Marks, drawn_moment
from tests.canaries import Said, command
from tests.conftest import note_rows, write_notes

Cli = Callable[..., subprocess.CompletedProcess[str]]
USUAL = {"planning": 1.0, "graph": 6.0, "publish": 3.0}
places = st.tuples(st.sampled_from(["summaries", "records"]), st.integers(0, 2), st.integers(0, 3))
rows = st.dictionaries(places, st.lists(st.sampled_from("abc"), min_size=1, max_size=2), max_size=6)


def test_rows_are_compared_by_where_they_came_from() -> None:
    straight = {("summaries", 0, 0): ["a"], ("summaries", 0, 1): ["b"], ("rejections", 1, None): ["c"]}
    assert compare_rows(straight, straight) == Differences()
    found = {("summaries", 0, 0): ["a", "a"], ("summaries", 0, 1): ["x"], ("records", 0, 0): ["a"]}
    assert compare_rows(straight, found) == Differences(lost=1, doubled=2, different=1)


@settings(deadline=None)
@given(rows)
def test_rows_are_the_same_in_any_order(straight: dict[tuple[str, int, int], list[str]]) -> None:
    shuffled = {place: found[::-1] for place, found in reversed(straight.items())}
    assert compare_rows(straight, shuffled) == Differences()


@settings(deadline=None)
@given(rows, rows)
def test_no_difference_means_the_same_rows(one: dict[tuple[str, int, int], list[str]], two: dict[tuple[str, int, int], list[str]]) -> None:
    same = {place: sorted(found) for place, found in one.items()} == {place: sorted(found) for place, found in two.items()}
    assert (compare_rows(one, two) == Differences()) is same
    difference, mirrored = compare_rows(one, two), compare_rows(two, one)
    assert (difference.lost, difference.doubled, difference.different) == (mirrored.doubled, mirrored.lost, mirrored.different)


def test_rows_of_an_output_are_found_by_a_plain_listing(tmp_path: Path) -> None:
    made = [{**row, "source_file": 0, "source_row": i} for i, row in enumerate(note_rows(3))]
    write_notes(tmp_path / "summaries" / "version=v1" / "a.parquet", made)
    assert {place: len(found) for place, found in rows_of(tmp_path).items()} == {("summaries", 0, i): 1 for i in range(3)}
    write_notes(tmp_path / "summaries" / "version=v2" / "b.parquet", made[:1])
    found = rows_of(tmp_path)["summaries", 0, 0]
    assert len(found) == 2 and found[0] == found[1]


def test_moments_are_spread_over_the_whole_run() -> None:
    chance = random.Random(1)
    kills = [drawn_moment(chance.random(), USUAL) for _ in range(1000)]
    assert all(0 <= kill.fraction <= 1 for kill in kills)
    shares = {phase: sum(kill.phase == phase for kill in kills) / 100 for phase in USUAL}
    assert all(abs(shares[phase] - seconds) < 0.6 for phase, seconds in USUAL.items())


def test_a_kill_in_the_graph_hit_a_shard_or_its_commit() -> None:
    marks = Marks()
    assert marks.place() == "plan"
    marks.reach("planning")
    marks.count_change("os.link /_runs/v1/plans/run.json")
    assert marks.place() == "plan"
    marks.reach("graph")
    for change, place in {
        "open /_runs/v1/attempts/.tmp-1": "shard",
        "os.rename /_runs/v1/attempts/s-1": "shard",
        "open /summaries/version=v1/.tmp-2": "commit",
        "os.remove /_runs/v1/attempts/s-1": "commit",
        "open /_runs/v1/attempts/.tmp-3": "shard",
    }.items():
        marks.count_change(change)
        assert marks.place() == place
    marks.reach("publish")
    assert marks.place() == "publish"


def test_an_engine_that_is_none_is_named(capfd: pytest.CaptureFixture[str], said: Said) -> None:
    assert command(capfd, said, "bench", "kills", "--engine", "nonesuch", "--json") == 2
    assert "'nonesuch' is not one of echo, torch" in json.loads(said.parts[0][1].splitlines()[-1])["error"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_runs_lose_nothing(run_cli: Cli) -> None:
    done = run_cli("bench", "kills", "--n", "2", "--notes", "12", "--jobs", "1", "--seed", "3", "--json", timeout=590)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["trials"] == sum(told["hits"].values()) == 2 and set(told["hits"]) == {"plan", "shard", "commit", "publish"}
    assert (told["lost"], told["doubled"], told["different"], told["failed"]) == (0, 0, 0, 0)
