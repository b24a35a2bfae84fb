"""The audit trail: whole after every kind of run, and any line that is changed, moved or missing is found."""

from __future__ import annotations

import json
import multiprocessing as mp
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import cli
from pipeline.audit import Trail, check_trail
from pipeline.publish import publish
from pipeline.run import run_job
from schemas.errors import ConfigurationError
from tests.canaries import Canaries, assert_files_clean, plant
from tests.conftest import echo_job, note_rows, write_notes
from tests.test_resume import kill_and_rerun
from transforms.audit import AUDIT, FIRST, KEY_VARIABLE, Chain, line_hash, open_chain, who
from transforms.ledger import load_commits
from transforms.store import LocalStore, open_store

VERSION = "v0123456789ab"
AT = "2026-01-01T00:00:00+00:00"
LENIENT = {"gate.max_quarantined_share": 1, "gate.max_flagged_share": 1, "gate.contract": "ignore"}


@pytest.fixture(scope="module")
def once_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run over the same files as notes_folder's."""
    folder = tmp_path_factory.mktemp("once")
    write_notes(folder / "notes" / "a.parquet", note_rows(25))
    write_notes(folder / "notes" / "b.parquet", note_rows(40, 25), row_group_size=16)
    write_notes(folder / "notes" / "c.parquet", note_rows(5, 65))
    assert run_job(echo_job(folder / "notes", folder / "out", **LENIENT)).published.released
    return folder / "out"


@pytest.fixture
def output(once_run: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return shutil.copytree(once_run, tmp_path / "out")


def lines_of(output: Path) -> list[Path]:
    return sorted((output / AUDIT).rglob("*.json"))


def trail_of(output: Path, **options: Any) -> Trail:
    return check_trail(LocalStore(output), **options)


def kinds(output: Path, **options: Any) -> set[str]:
    return {fault.kind for fault in trail_of(output, **options).faults}


def test_a_run_has_a_line_for_each_shard_and_two_of_its_own(output: Path, notes_folder: Path) -> None:
    lines = [json.loads(path.read_text()) for path in lines_of(output)]
    shards = [line for line in lines if line["event"] == "shard-committed"]
    records = load_commits(LocalStore(output), lines[0]["version"])
    assert {line["shard"] for line in shards} == records.keys() and len(shards) == len(lines) - 2
    assert [lines[0]["event"], lines[-1]["event"], lines[-1]["outcome"]] == ["run-begun", "run-ended", "released"]
    assert sum(line["counts"]["notes_in"] for line in shards) == lines[-1]["counts"]["notes_in"] == 70
    assert all(line["who"]["user"] and line["at"] and line["code_version"] for line in lines)
    trail = trail_of(output, data=True)
    assert trail.faults == [] and len(trail.runs) == len(trail.ended) == 1 and len(trail.commits) == len(records)


def test_increments_and_acceptances_lengthen_the_trail(output: Path, notes_folder: Path) -> None:
    before = {path: path.read_bytes() for path in lines_of(output)}
    write_notes(notes_folder / "d.parquet", note_rows(5, 100))
    run_job(echo_job(notes_folder, output, **{**LENIENT, "gate.max_flagged_share": 0, "gate.max_quarantined_share": 0}))
    publish(LocalStore(output), accept="a test")
    assert all(path.read_bytes() == data for path, data in before.items())
    assert len(lines_of(output)) >= len(before) + 3 and kinds(output, data=True) == set()


def test_superseded_and_revised_shards_are_no_faults(output: Path, notes_folder: Path) -> None:
    amended = [{**note_rows(1)[0], "written_at": "2026-01-01"}]
    write_notes(notes_folder / "d.parquet", amended)
    run_job(echo_job(notes_folder, output, **LENIENT, **{"input.duplicates": "latest"}))
    write_notes(notes_folder / "a.parquet", note_rows(8, 500))
    run_job(echo_job(notes_folder, output, **LENIENT, **{"input.duplicates": "latest"}))
    assert kinds(output, data=True) == set()


def change(path: Path, **said: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **said}))


def resealed(path: Path, **said: Any) -> None:
    """Changed by somebody who knows how lines are hashed."""
    line = {**json.loads(path.read_text()), **said}
    change(path, **{**line, "hash": line_hash(line)})


def swapped(lines: list[Path]) -> None:
    a, b = lines[2].read_bytes(), lines[3].read_bytes()
    lines[2].write_bytes(b)
    lines[3].write_bytes(a)


DAMAGE: dict[str, tuple[Callable[[list[Path]], Any], set[str]]] = {
    "a changed count": (lambda lines: change(lines[3], counts={"notes_in": 9}), {"line changed", "commit without line"}),
    "a changed user": (lambda lines: change(lines[-1], who={"user": "nobody"}), {"line changed"}),
    "a line hashed anew": (lambda lines: resealed(lines[3], who={"user": "nobody"}), {"link broken"}),
    "another count, hashed anew": (
        lambda lines: resealed(lines[3], counts={"notes_in": 9}),
        {"link broken", "commit differs from its line"},
    ),
    "a missing line": (lambda lines: lines[4].unlink(), {"line missing", "commit without line"}),
    "no first line": (lambda lines: lines[0].unlink(), {"line missing"}),
    "lines that changed places": (swapped, {"line moved", "commit without line"}),
    "half a line": (lambda lines: lines[2].write_bytes(lines[2].read_bytes()[:50]), {"line unreadable", "commit without line"}),
    "something that is no line": (lambda lines: (lines[0].parent / "x.json").write_text("{}"), {"foreign object"}),
    "all lines gone": (lambda lines: [line.unlink() for line in lines], {"commit without line"}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found(damage: str, output: Path) -> None:
    spoil, expected = DAMAGE[damage]
    spoil(lines_of(output))
    assert kinds(output) == expected


def test_an_end_that_is_cut_off_is_found_by_the_runs_last_line_of_another_chain(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    chains = [Chain(store, VERSION, "run", f"{number:016x}") for number in range(2)]
    for chain in chains:
        chain.append("run-begun", AT, {})
        chain.append("run-begun", AT, {})
    chains[0].append("run-ended", AT, {"chains": {chain.id: [chain.lines, chain.head] for chain in chains}})
    assert kinds(tmp_path) == set()
    lines_of(tmp_path)[-1].unlink()
    assert kinds(tmp_path) == {"end of chain missing or changed"}


def test_data_files_are_compared_when_asked_for(output: Path) -> None:
    first, second, *_ = sorted((output / "summaries").rglob("*.parquet"))
    first.write_bytes(first.read_bytes() + b"x")
    second.unlink()
    assert kinds(output) == set() and kinds(output, data=True) == {"data file changed", "data file missing"}


def test_with_a_key_nobody_else_can_make_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes, output = write_notes(tmp_path / "notes" / "a.parquet", note_rows(12)).parent, tmp_path / "out"
    monkeypatch.setenv(KEY_VARIABLE, "a key of this test")
    run_job(echo_job(notes, output, **LENIENT))
    assert kinds(output) == set()
    assert b"a key of this test" not in b"".join(path.read_bytes() for path in lines_of(output))
    monkeypatch.delenv(KEY_VARIABLE)
    trail = trail_of(output)
    assert trail.faults == [] and trail.unchecked == trail.lines
    resealed(lines_of(output)[-1], who={"user": "nobody"}, keyed=False)
    assert kinds(output) == set(), "without the key nobody can tell"
    monkeypatch.setenv(KEY_VARIABLE, "a key of this test")
    assert kinds(output) == {"line without key"}
    monkeypatch.setenv(KEY_VARIABLE, "another key")
    assert "line changed" in kinds(output)


def test_writers_at_the_same_time_each_keep_their_chain(tmp_path: Path) -> None:
    """Threads share one chain; processes that are forked from this one have their own."""
    store = LocalStore(tmp_path)

    def write() -> None:
        for _ in range(10):
            open_chain(store, VERSION, "run").append("run-begun", AT, {})

    children = [mp.get_context("fork").Process(target=write) for _ in range(2)]
    open_chain(store, VERSION, "run").append("run-begun", AT, {})
    for child in children:
        child.start()
    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for worker in (*threads, *children):
        worker.join()
    trail = trail_of(tmp_path)
    assert trail.faults == [] and trail.lines == 61 and sorted(head[0] for head in trail.heads.values()) == [10, 10, 41]


def test_an_answer_that_was_lost_costs_no_line(tmp_path: Path) -> None:
    """The put was done but its answer never came, so the caller tries the shard again: both lines stand, in one chain."""

    class Losing(LocalStore):
        def put_once(self, key: str, data: bytes) -> bool:
            won = super().put_once(key, data)
            if key.endswith("000002.json") and won:
                raise TimeoutError
            return won

    chain = Chain(Losing(tmp_path), VERSION, "run", "0" * 16)
    chain.append("run-begun", AT, {"try": 1})
    with pytest.raises(TimeoutError):
        chain.append("run-begun", AT, {"try": 2})
    chain.append("run-begun", AT, {"try": 3})
    assert [json.loads(path.read_text())["try"] for path in lines_of(tmp_path)] == [1, 2, 3]
    assert trail_of(tmp_path).faults == [] and chain.lines == 3 and chain.head != FIRST


def test_a_run_that_fails_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, canaries: Canaries) -> None:
    notes = write_notes(tmp_path / "notes" / "a.parquet", note_rows(12)).parent

    def fail(*_: Any, **__: Any) -> None:
        raise ValueError(canaries["quoted"])

    monkeypatch.setattr("pipeline.run.publish", fail)
    with pytest.raises(ValueError, match=r"^"):
        run_job(echo_job(notes, tmp_path / "out", **LENIENT))
    last = lines_of(tmp_path / "out")[-1].read_text()
    canaries.assert_absent("the audit line", last)
    assert json.loads(last)["outcome"] == "failed" and json.loads(last)["error"].startswith("ValueError")
    assert kinds(tmp_path / "out") == set()


@pytest.mark.slow
def test_killed_runs_leave_a_trail_that_holds(notes_folder: Path, tmp_path: Path) -> None:
    """Killed just before a change of the output folder, and run again or not."""
    settings = {"input.uris": [str(notes_folder)], "engine.backend": "echo", "engine.shard_notes": 20, **LENIENT}
    changes = {"settings": settings, "changes": [["graph", "publish"], 12]}
    specs = [{**changes, "outputs": str(tmp_path / str(rerun)), "rerun": rerun} for rerun in (False, True)]
    left, resumed = kill_and_rerun(*specs)
    assert len(left["kills"]) >= 4
    trails = [trail_of(Path(output)) for told in (left, resumed) for output in told["outputs"]]
    assert [trail.faults for trail in trails] == [[]] * len(trails)
    assert any(trail.runs - trail.ended and trail.commits for trail in trails)
    assert all(trail_of(Path(output)).ended for output in resumed["outputs"])


def test_nothing_of_a_patient_is_in_the_trail(tmp_path: Path, canaries: Canaries) -> None:
    notes, output = plant(tmp_path / "notes", canaries), tmp_path / "out"
    run_job(echo_job(notes, output, **LENIENT))
    assert lines_of(output)
    assert_files_clean(output, canaries)


def test_who_is_the_account_and_the_role_that_are_known_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USER", "LOGNAME"):
        monkeypatch.setenv(name, "somebody else")
    monkeypatch.delenv("AWS_ROLE_ARN", raising=False)
    monkeypatch.setenv("CHARTMILL_ML_ROOT", str(tmp_path))
    who.cache_clear()
    assert set(who()) == {"user"} and who()["user"] != "somebody else"
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "processingjobconfig.json").write_text('{"RoleArn": "arn:aws:iam::123456789012:role/notes"}')
    who.cache_clear()
    assert who()["role"] == "arn:aws:iam::123456789012:role/notes"
    who.cache_clear()


@pytest.mark.s3
@pytest.mark.slow
def test_the_trail_is_the_same_on_s3(bucket: str, tmp_path: Path) -> None:
    notes = write_notes(tmp_path / "notes" / "a.parquet", note_rows(20)).parent
    job = echo_job(notes, f"s3://{bucket}/out", **LENIENT, **{"output.encryption": {"mode": "aes256"}})
    run_job(job)
    trail = check_trail(open_store(f"s3://{bucket}/out", job.output.encryption and job.output.encryption.settings()), data=True)
    assert trail.faults == [] and (trail.lines, len(trail.commits)) == (4, 2)


def test_the_command(output: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["audit", str(output), "--data", "--json"]) == 0
    said = capfd.readouterr().out
    assert "The trail is whole." in said and json.loads(said.splitlines()[-1])["faults"] == []
    change(lines_of(output)[1], who={})
    assert cli.main(["audit", str(output), "--json"]) == 1
    said = capfd.readouterr().out
    assert "FAULT  line changed, version v" in said and json.loads(said.splitlines()[-1])["exit_code"] == 1


def test_where_there_is_no_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["audit", str(tmp_path)]) == 2 and "no run has been planned" in capfd.readouterr().err
    with pytest.raises(ConfigurationError):
        trail_of(tmp_path)
