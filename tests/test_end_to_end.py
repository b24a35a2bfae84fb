"""The whole job: the same rows whatever the runner, the interruption, the shard size or the order of events."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest

from pipeline.config import Job
from pipeline.direct import run_directly
from pipeline.planning import plan_run
from pipeline.prepare import prepare
from pipeline.publish import publish
from pipeline.run import Outcome, run_job
from schemas.errors import ConfigurationError
from tests.conftest import all_rows, echo_job, note_rows, read_rows, write_notes, write_three_files

LENIENT = "gate.max_quarantined_share=1"


def report_of(output: Path) -> dict[str, Any]:
    return dict(json.loads((output / "report.json").read_text()))


def run_and_read(job: Job, **options: Any) -> dict[str, list[dict[str, Any]]]:
    assert run_job(job, **options).exit_code == 0
    return all_rows(Path(job.output.uri))


@pytest.fixture
def messy(notes_folder: Path) -> Path:
    return messed_up(notes_folder)


def messed_up(notes_folder: Path) -> Path:
    """The three files and: a duplicate, a blank text, a corrupt and an empty file."""
    write_notes(notes_folder / "d.parquet", [note_rows(1)[0], {"note_id": "blank", "text": " "}, *note_rows(3, 100)])
    (notes_folder / "e.parquet").write_bytes(b"not parquet")
    (notes_folder / "f.parquet").write_bytes(b"")
    return notes_folder


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What plain function calls give of the messy notes."""
    folder = tmp_path_factory.mktemp("straight")
    prepared = prepare(echo_job(messed_up(write_three_files(folder / "notes")), folder / "out", LENIENT))
    plan = plan_run(prepared.store, prepared.version, "straight", prepared.plan_settings(), prepared.said_in_plan())
    run_directly(prepared, plan)
    assert publish(prepared.store).released
    return all_rows(folder / "out")


class Ran(NamedTuple):
    """Notes, the output of a run over them, and what it came to."""

    notes: Path
    output: Path
    outcome: Outcome


@pytest.fixture(scope="module")
def messy_run(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A run over the messy notes, to look at."""
    folder = tmp_path_factory.mktemp("messy")
    notes, output = messed_up(write_three_files(folder / "notes")), folder / "out"
    return Ran(notes, output, run_job(echo_job(notes, output, LENIENT)))


@pytest.fixture(scope="module")
def kept_run(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A run over the three files, with copies of both from which they are put back."""
    folder = tmp_path_factory.mktemp("ran")
    notes, output = write_three_files(folder / "notes"), folder / "out"
    outcome = run_job(echo_job(notes, output))
    shutil.copytree(folder, folder / "kept")
    return Ran(notes, output, outcome)


@pytest.fixture
def ran(kept_run: Ran) -> Ran:
    """The three files and the output of a run over them, in the same places for each test, which may change both."""
    for folder in kept_run[:2]:
        shutil.rmtree(folder)
        shutil.copytree(folder.parent / "kept" / folder.name, folder)
    return kept_run


def test_every_note_is_accounted_for(messy_run: Ran) -> None:
    _, output, outcome = messy_run
    report, rows = report_of(output), all_rows(output)
    assert outcome.exit_code == 0 and (output / "_SUCCESS").exists()
    assert report["notes_in"] == 75 == report["notes_summarized"] + report["notes_quarantined"]
    assert (len(rows["summaries"]), len(rows["records"])) == (73, 73)
    assert Counter(r["reason"] for r in rows["rejections"]) == {"DUPLICATE_ID": 1, "MISSING_TEXT": 1, "FILE_CORRUPT": 1, "FILE_EMPTY": 1}
    assert report["reasons"] == Counter(r["reason"] for r in rows["rejections"])
    assert report["files_quarantined"] == 2
    assert {r["ward"] for r in rows["summaries"]} == {"w0", "w1", "w2"}
    assert report["total"]["notes_in"] == 75 and report["run"]["model_loads"] == 1
    current = json.loads((output / "_CURRENT.json").read_text())
    assert current["version"] == report["version"]
    live = json.loads((output / current["live"]).read_text())
    listed = {str(f.relative_to(output)) for f in output.glob("*/version=*/*.parquet")}
    assert listed == {path for paths in live["shards"].values() for path in paths.values()}


def test_in_memory_runner_equals_function_calls(messy_run: Ran, straight: dict[str, Any]) -> None:
    assert all_rows(messy_run.output) == straight


def test_replayed_bundles_change_nothing(messy: Path, tmp_path: Path, straight: dict[str, Any]) -> None:
    job = echo_job(messy, tmp_path / "out", LENIENT)
    assert run_and_read(job, beam_options=["--direct_runner_bundle_repeat=1"]) == straight


@pytest.mark.slow
def test_several_processes_equal_function_calls(messy: Path, tmp_path: Path, straight: dict[str, Any]) -> None:
    job = echo_job(messy, tmp_path / "out", LENIENT)
    assert run_and_read(job, beam_options=["--direct_running_mode=multi_processing", "--direct_num_workers=2"]) == straight


def test_running_again_does_nothing(messy_run: Ran, tmp_path: Path) -> None:
    messy, output = messy_run.notes, Path(shutil.copytree(messy_run.output, tmp_path / "out"))
    before, files = all_rows(output), sorted(output.rglob("version=*/*"))
    run_job(echo_job(messy, output, LENIENT))
    report = report_of(output)
    assert all_rows(output) == before and sorted(output.rglob("version=*/*")) == files
    assert (report["shards_resumed"], report["run"]["shards"], report["notes_in"]) == (report["shards"], 0, 75)


def test_a_resumed_run_reports_like_a_straight_one(messy_run: Ran, tmp_path: Path) -> None:
    run_job(echo_job(messy_run.notes, tmp_path / "two", LENIENT, **{"run.limit": 20}))
    run_job(echo_job(messy_run.notes, tmp_path / "two", LENIENT))
    one, two = report_of(messy_run.output), report_of(tmp_path / "two")
    same = [k for k in one if k not in ("run_id", "created_at", "seconds", "run", "notes_per_second", "shards_resumed", "settings")]
    assert {k: two[k] for k in same} == {k: one[k] for k in same}
    assert two["shards_resumed"] == 2
    assert all_rows(tmp_path / "two") == all_rows(messy_run.output)


def test_limit_releases_whole_shards_only(notes_folder: Path, tmp_path: Path) -> None:
    outcome = run_job(echo_job(notes_folder, tmp_path / "out", **{"run.limit": 11}))
    assert outcome.exit_code == 0 and outcome.published.released
    assert report_of(tmp_path / "out")["notes_in"] == 20


def test_another_shard_size_keeps_the_cuts(notes_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run_job(echo_job(notes_folder, output, **{"run.limit": 20}))
    run_job(echo_job(notes_folder, output, **{"engine.shard_notes": 7}))
    report = report_of(output)
    assert (report["shards_resumed"], report["notes_in"], len(read_rows(output, "summaries"))) == (2, 70, 70)


def test_new_files_are_all_that_runs(ran: Ran) -> None:
    notes_folder, output, _ = ran
    write_notes(notes_folder / "aa.parquet", note_rows(12, 200))
    run_job(echo_job(notes_folder, output))
    report = report_of(output)
    assert (report["run"]["notes"], report["notes_in"]) == (12, 82)


def test_a_changed_file_replaces_its_rows(ran: Ran) -> None:
    notes_folder, output, _ = ran
    write_notes(notes_folder / "a.parquet", note_rows(8, 500))
    run_job(echo_job(notes_folder, output))
    ids = {r["note_id"] for r in read_rows(output, "summaries")}
    assert len(ids) == 53 and "n000000" not in ids and "n000500" in ids
    assert report_of(output)["notes_in"] == 53


def test_a_file_that_went_and_came_back_is_not_lost(ran: Ran) -> None:
    notes_folder, output, _ = ran
    original = (notes_folder / "a.parquet").read_bytes()
    write_notes(notes_folder / "a.parquet", note_rows(8, 500))
    run_job(echo_job(notes_folder, output))
    (notes_folder / "a.parquet").write_bytes(original)
    run_job(echo_job(notes_folder, output))
    assert {r["note_id"] for r in read_rows(output, "summaries")} == {r["note_id"] for r in note_rows(70)}


def test_a_file_that_is_gone_keeps_its_output(ran: Ran) -> None:
    notes_folder, output, _ = ran
    (notes_folder / "b.parquet").unlink()
    outcome = run_job(echo_job(notes_folder, output))
    assert outcome.published.released and len(read_rows(output, "summaries")) == 70


def test_a_file_that_is_gone_before_it_was_done_is_let_go(notes_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run_job(echo_job(notes_folder, output, **{"run.limit": 5}))
    (notes_folder / "b.parquet").unlink()
    outcome = run_job(echo_job(notes_folder, output))
    assert outcome.published.released and len(read_rows(output, "summaries")) == 30


def test_an_amended_note_replaces_the_older_one_even_when_its_file_is_gone(notes_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    settings = {"input.duplicates": "latest"}
    run_job(echo_job(notes_folder, output, **settings))
    (notes_folder / "a.parquet").unlink()
    amended = [{**row, "text": "Amended: " + row["text"], "written_at": "2025-09-09"} for row in note_rows(2, 3)]
    write_notes(notes_folder / "z.parquet", amended)
    run_job(echo_job(notes_folder, output, LENIENT, **settings))
    rows, report = all_rows(output), report_of(output)
    by_id = Counter(r["note_id"] for r in rows["summaries"])
    assert len(by_id) == 70 and set(by_id.values()) == {1}
    assert all(r["summary"].startswith("Amended") for r in rows["summaries"] if r["note_id"] in ("n000003", "n000004"))
    assert Counter(r["reason"] for r in rows["rejections"]) == {"DUPLICATE_ID": 2} == report["reasons"]
    assert (report["notes_in"], report["notes_summarized"], report["notes_quarantined"]) == (72, 70, 2)
    assert sum(report["histograms"]["note_words"]["counts"]) == 70


def test_latest_needs_a_date(tmp_path: Path) -> None:
    write_notes(tmp_path / "in" / "x.parquet", [{"note_id": "a", "text": "Seen today, well."}])
    with pytest.raises(ConfigurationError, match=r"latest goes by written_at.*input\.columns\.written_at"):
        run_job(echo_job(tmp_path / "in", tmp_path / "out", **{"input.duplicates": "latest"}))


def test_amendments_equal_one_run_over_everything(tmp_path: Path) -> None:
    settings = {"input.duplicates": "latest"}
    notes_folder = write_notes(tmp_path / "notes" / "a.parquet", note_rows(14)).parent
    write_notes(notes_folder / "b.parquet", note_rows(26, 14), row_group_size=16)
    run_job(echo_job(notes_folder, tmp_path / "two", **settings))
    write_notes(notes_folder / "z.parquet", [{**row, "written_at": "2026-01-01"} for row in note_rows(5, 30)])
    run_job(echo_job(notes_folder, tmp_path / "two", LENIENT, **settings))
    run_job(echo_job(notes_folder, tmp_path / "one", LENIENT, **settings))
    assert all_rows(tmp_path / "two") == all_rows(tmp_path / "one")
    one, two = report_of(tmp_path / "one"), report_of(tmp_path / "two")
    for key in ("notes_in", "notes_summarized", "notes_quarantined", "reasons", "flags", "fields"):
        assert one[key] == two[key]


def test_two_runs_at_once(tmp_path: Path) -> None:
    notes_folder, output, outcomes = tmp_path / "notes", tmp_path / "out", []
    write_notes(notes_folder / "a.parquet", note_rows(20))
    write_notes(notes_folder / "b.parquet", note_rows(10, 20))
    common = {"engine.delay_ms": 3, "run.sweep_after_minutes": 60}
    jobs = [echo_job(notes_folder, output, **{"engine.shard_notes": size, **common}) for size in (10, 7)]
    threads = [threading.Thread(target=lambda j=job: outcomes.append(run_job(j))) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 2
    assert publish(prepare(jobs[0]).store, sweep_after_s=0).released
    assert Counter(r["note_id"] for r in read_rows(output, "summaries")) == Counter(r["note_id"] for r in note_rows(30))


def test_max_minutes_stops_between_shards_and_goes_on(notes_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    slow = {"engine.delay_ms": 30, "run.max_minutes": 0.015}
    outcome = run_job(echo_job(notes_folder, output, **slow))
    report = report_of(output)
    assert outcome.exit_code == 0 and not outcome.published.released
    assert report["remaining_shards"] > 0 and not (output / "_SUCCESS").exists()
    assert report["notes_in"] + report["remaining_notes"] == 70
    assert run_job(echo_job(notes_folder, output)).published.released
    assert len(read_rows(output, "summaries")) == 70


def held(notes: Path, output: Path, **settings: Any) -> Outcome:
    return run_job(echo_job(notes, output, "gate.max_quarantined_share=0.001", **settings))


def test_a_held_run_is_not_released_until_accepted(messy: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    outcome = held(messy, output)
    assert outcome.exit_code == 3 and not outcome.published.released
    assert not (output / "_SUCCESS").exists() and not (output / "_CURRENT.json").exists()
    accepted = publish(prepare(echo_job(messy, output)).store, accept="looked at all of them")
    assert accepted.released and (output / "_SUCCESS").exists()
    assert report_of(output)["gate"]["accepted"]["reason"] == "looked at all of them"
    # The same rows need no second acceptance; other rows do.
    assert held(messy, output).exit_code == 0
    write_notes(messy / "zz.parquet", [{"note_id": "late", "text": ""}])
    assert held(messy, output).exit_code == 3


def test_a_held_increment_leaves_the_release_as_it_was(ran: Ran) -> None:
    notes_folder, output, _ = ran
    current = (output / "_CURRENT.json").read_text()
    live = json.loads((output / json.loads(current)["live"]).read_text())
    write_notes(notes_folder / "a.parquet", [{"note_id": "x", "text": ""}] * 3)
    assert held(notes_folder, output).exit_code == 3
    assert (output / "_CURRENT.json").read_text() == current
    for paths in live["shards"].values():
        for path in paths.values():
            assert pq.read_metadata(output / path).num_rows > 0


def test_what_changes_rows_changes_the_version_and_nothing_else_does(notes_folder: Path, tmp_path: Path) -> None:
    plain = prepare(echo_job(notes_folder, tmp_path / "out")).version
    same = {"engine.shard_notes": 3, "run.limit": 5, "gate.max_flagged_share": 0.5, "engine.threads": 1, "input.duplicates": "latest"}
    other = {
        "tasks.summary.prefix": "x",
        "verify.checks": ["numbers"],
        "input.passthrough": "none",
        "tasks.summary.decode.max_new_tokens": 9,
    }
    assert {prepare(echo_job(notes_folder, tmp_path / "out", **{k: v})).version for k, v in same.items()} == {plain}
    assert len({prepare(echo_job(notes_folder, tmp_path / "out", **{k: v})).version for k, v in other.items()} | {plain}) == 5


def test_configuration_errors_come_before_anything_is_written(notes_folder: Path, tmp_path: Path) -> None:
    cases = {
        "input.columns.text=body": "no column 'body' for text; found: note_id, text, patient_id, written_at, ward",
        "contract.suite=nowhere.json": "nowhere.json",
        "verify.checks=[numbers, vibes]": "vibes",
        "run.runner=DirectRunner": "Prism",
        "tasks.summary.model=no-such/model": "downloads are not allowed",
    }
    for override, says in cases.items():
        backend = "torch" if "model" in override else "echo"
        with pytest.raises(ConfigurationError, match=says):
            run_job(echo_job(notes_folder, tmp_path / "out", override, **{"engine.backend": backend}))
    assert not (tmp_path / "out" / "summaries").exists()


def test_rejected_text_is_kept_only_when_asked(messy_run: Ran, tmp_path: Path) -> None:
    run_job(echo_job(messy_run.notes, tmp_path / "yes", LENIENT, "output.keep_rejected_text=true"))
    assert "text" not in read_rows(messy_run.output, "rejections")[0]
    blank = [r for r in read_rows(tmp_path / "yes", "rejections") if r["reason"] == "MISSING_TEXT"]
    assert [r["text"] for r in blank] == [" "]


def test_orphans_of_a_killed_run_are_swept(notes_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run_job(echo_job(notes_folder, output, **{"run.limit": 10}))
    done = next(output.glob("summaries/version=*/*.parquet"))
    twin = done.with_name(done.name.split("-")[0] + "-000000000000.parquet")
    twin.write_bytes(done.read_bytes())
    stranger = done.with_name("f" * 16 + "-000000000000.parquet")
    stranger.write_bytes(done.read_bytes())
    run_job(echo_job(notes_folder, output, **{"run.sweep_after_minutes": 60}))
    assert not twin.exists(), "its shard is committed with another file, so nobody can still need it"
    assert stranger.exists(), "another run may be about to commit it"
    time.sleep(0.01)
    run_job(echo_job(notes_folder, output, **{"run.sweep_after_minutes": 0}))
    assert not stranger.exists()
