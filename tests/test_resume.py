"""Whatever stops a run, running again gives what an undisturbed run gives: every note once, nothing lost, nothing left over."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.planning import plan_run
from pipeline.prepare import prepare
from pipeline.publish import publish
from pipeline.run import run_job
from schemas.errors import AccountingError
from tests.conftest import all_rows, echo_job, note_rows, write_notes
from tests.tiny_models import make_model
from transforms.ledger import attempts, commit_key, list_commits, load_commits, mark_attempt, put_plan
from transforms.store import LocalStore

SEED = int(os.environ.get("CHARTMILL_TEST_SEED", "20"))
ECHO = {"engine.backend": "echo", "engine.delay_ms": 5}
LENIENT = {"gate.max_quarantined_share": 1.0, "gate.max_flagged_share": 1.0, "gate.contract": "ignore"}

Rows = dict[str, list[dict[str, Any]]]


def kill_and_rerun(*specs: dict[str, Any], env: dict[str, str] | None = None) -> list[dict[str, Any]]:
    """What tests.killed_runs says of each of the specs."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.killed_runs"],
        input=json.dumps([{"seed": SEED, **spec} for spec in specs]),
        capture_output=True,
        text=True,
        timeout=700,
        cwd=Path(__file__).parent.parent,
        # One thread each: no pool of threads has to survive a fork.
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **(env or {})},
    )
    assert process.returncode == 0, f"seed {SEED}: {process.stderr[-4000:]}"
    return list(json.loads(process.stdout))


def hits(told: dict[str, Any]) -> Counter[str]:
    """How many kills hit each phase."""
    return Counter(kill["phase"] for kill in told["kills"] if kill["phase"] != "done")


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """45 notes in shards of several sizes; a duplicate, a blank text and a file that is none."""
    folder = tmp_path_factory.mktemp("resume") / "notes"
    write_notes(folder / "a.parquet", note_rows(25))
    write_notes(folder / "b.parquet", note_rows(20, 25), row_group_size=8)
    write_notes(folder / "c.parquet", [note_rows(1)[0], {"note_id": "blank", "text": " "}])
    (folder / "d.parquet").write_bytes(b"not parquet")
    return folder


@pytest.fixture(scope="module")
def torch_engine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    model = make_model("bart", tmp_path_factory.mktemp("models") / "tiny")
    # A random model may end at once.
    decode = {"tasks.summary.decode.min_new_tokens": 6, "tasks.summary.decode.max_new_tokens": 12}
    return {"engine.backend": "torch", "tasks.summary.model": str(model), **decode}


def settings(notes: Path, engine: dict[str, Any]) -> dict[str, Any]:
    return {"input.uris": [str(notes)], "engine.shard_notes": 12, "run.sweep_after_minutes": 0, **LENIENT, **engine}


def assert_done(output: Path, straight: Rows) -> None:
    """The output is released, holds the rows of the undisturbed run once each, and nothing else."""
    assert all_rows(output) == straight, output
    assert (output / "_SUCCESS").is_file()
    current = json.loads((output / "_CURRENT.json").read_text())
    live = json.loads((output / current["live"]).read_text())["shards"]
    listed = {path.relative_to(output).as_posix() for path in output.glob("*/version=*/*.parquet")}
    assert listed == {path for files in live.values() for path in files.values()}
    assert not list(output.rglob(".tmp-*"))
    store = LocalStore(output)
    single, rolled = list_commits(store, current["version"])
    assert (single, len(rolled)) == ([], 1)
    assert not attempts(store, current["version"])
    report = json.loads((output / "report.json").read_text())
    assert report["complete"] and report["notes_in"] == 47 == len(straight["summaries"]) + report["notes_quarantined"]


def assert_all_done(told: dict[str, Any], kills: int) -> None:
    straight, *others = map(Path, told["outputs"])
    rows = all_rows(straight)
    assert len({row["note_id"] for row in rows["summaries"]}) == len(rows["records"]) == 45
    assert Counter(row["reason"] for row in rows["rejections"]) == {"DUPLICATE_ID": 1, "MISSING_TEXT": 1, "FILE_CORRUPT": 1}
    for output in (straight, *others):
        assert_done(output, rows)
    assert hits(told).total() >= kills, (SEED, told["kills"])
    assert set(hits(told)) == {"planning", "graph", "publish"}, (SEED, told["kills"])


def test_killed_runs_are_resumed(notes: Path, tmp_path: Path) -> None:
    [told] = kill_and_rerun({"settings": settings(notes, ECHO), "outputs": str(tmp_path), "kills": 3, "in_a_row": 3})
    assert_all_done(told, 3)


@pytest.mark.slow
def test_many_kills(notes: Path, tmp_path: Path) -> None:
    """`chartmill bench kills` does a thousand."""
    [told] = kill_and_rerun({"settings": settings(notes, ECHO), "outputs": str(tmp_path), "kills": 12})
    assert_all_done(told, 12)


@pytest.mark.slow
def test_kills_of_a_model(notes: Path, torch_engine: dict[str, Any], tmp_path: Path) -> None:
    [told] = kill_and_rerun({"settings": settings(notes, torch_engine), "outputs": str(tmp_path), "kills": 6})
    assert_all_done(told, 6)


@pytest.mark.slow
def test_killed_before_a_change_of_the_output_folder(notes: Path, tmp_path: Path) -> None:
    """A moment between two changes may last microseconds, and chance would hardly ever hit it."""
    spec = {"settings": settings(notes, ECHO), "outputs": str(tmp_path), "changes": [["planning", "graph", "publish"], 9]}
    [told] = kill_and_rerun(spec)
    assert_all_done(told, len(told["outputs"]) - 1)


def data_without_source_file(output: Path) -> Rows:
    """A file that came back has another number than before; the rows are the same."""
    return {kind: sorted(({**row, "source_file": 0} for row in rows), key=str) for kind, rows in all_rows(output).items()}


@pytest.mark.slow
def test_killed_while_replacing_a_release_and_then_the_old_file_comes_back(notes: Path, tmp_path: Path) -> None:
    notes = Path(shutil.copytree(notes, tmp_path / "notes"))
    chosen = {**settings(notes, {"engine.backend": "echo"}), "input.duplicates": "latest", "run.sweep_after_minutes": 60}
    before = tmp_path / "before"
    run_job(echo_job(notes, before, **chosen))
    original = (notes / "a.parquet").read_bytes()
    write_notes(notes / "a.parquet", note_rows(9, 500))
    write_notes(notes / "z.parquet", [{**row, "written_at": "2026-01-01"} for row in note_rows(3, 30)])
    spec = {"settings": chosen, "outputs": str(tmp_path / "outs"), "before": str(before), "changes": [["publish"], 2], "rerun": False}
    [told] = kill_and_rerun(spec)
    (notes / "a.parquet").write_bytes(original)
    straight, *others = map(Path, told["outputs"])
    for output in others:
        assert missing_data(output) == []
    for output in (straight, *others):
        run_job(echo_job(notes, output, **chosen))
    rows = data_without_source_file(straight)
    assert Counter(row["note_id"] for row in rows["summaries"]) == Counter(row["note_id"] for row in note_rows(45))
    for output in others:
        assert data_without_source_file(output) == rows, output
    assert hits(told).total() == len(others) > 5


def version_of(output: Path) -> str:
    return str(json.loads((output / "_CURRENT.json").read_text())["version"])


def missing_data(output: Path) -> list[str]:
    """Data files that a commit record names and that are not there."""
    store = LocalStore(output)
    records = load_commits(store, version_of(output)).values()
    return [file.path for record in records for file in record.files.values() if not store.exists(file.path)]


@pytest.fixture(scope="module")
def released(notes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of an undisturbed run, to be copied."""
    output = tmp_path_factory.mktemp("released") / "out"
    assert run_job(echo_job(notes, output, **settings(notes, {}))).exit_code == 0
    return output


def unroll(output: Path, keep_rolled: bool = False) -> list[Path]:
    """Take the rolled-up commits apart again; the single records."""
    store, version = LocalStore(output), version_of(output)
    records = load_commits(store, version).values()
    for record in records:
        store.put(commit_key(version, record.shard.id), record.to_bytes())
    if not keep_rolled:
        for key in list_commits(store, version)[1]:
            store.delete(key)
    return sorted(output / commit_key(version, record.shard.id) for record in records)


def unmark(output: Path) -> None:
    (output / "_SUCCESS").unlink()


def data_without_a_record(output: Path) -> None:
    unroll(output)[0].unlink()
    unmark(output)


def other_data_without_a_record(output: Path) -> None:
    """As from an earlier release of the code, whose bytes differ."""
    lost = unroll(output)[0]
    lost.unlink()
    for path in output.glob(f"*/version=*/{lost.stem}-*.parquet"):
        path.rename(path.with_name(f"{lost.stem}-{'0' * 12}.parquet"))
    unmark(output)


def records_but_not_published(output: Path) -> None:
    unroll(output)
    live_json(output)
    current_json(output)
    unmark(output)


def temporary_files(output: Path) -> None:
    """Truncated at every length that a kill may leave, in every folder."""
    for number, folder in enumerate([output, *(path for path in output.rglob("*") if path.is_dir())]):
        (folder / f".tmp-{number:016x}").write_bytes(b"PAR1"[: number % 5])
    unroll(output)[-1].unlink()
    unmark(output)


def single_and_rolled_records(output: Path) -> None:
    unroll(output, keep_rolled=True)
    unmark(output)


def half_of_the_single_records_left(output: Path) -> None:
    for path in unroll(output, keep_rolled=True)[::2]:
        path.unlink()
    unmark(output)


def live_json(output: Path) -> None:
    (output / json.loads((output / "_CURRENT.json").read_text())["live"]).unlink()


def current_json(output: Path) -> None:
    (output / "_CURRENT.json").unlink()


def marks_of_committed_shards(output: Path) -> None:
    store, version = LocalStore(output), version_of(output)
    for shard in load_commits(store, version):
        mark_attempt(store, version, shard)


STATES: Sequence[Callable[[Path], None]] = (
    data_without_a_record,
    other_data_without_a_record,
    records_but_not_published,
    temporary_files,
    single_and_rolled_records,
    half_of_the_single_records_left,
    live_json,
    current_json,
    marks_of_committed_shards,
    unmark,
)


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_what_a_kill_may_leave_is_put_right(notes: Path, released: Path, tmp_path: Path, state: Callable[[Path], None]) -> None:
    output = Path(shutil.copytree(released, tmp_path / "out"))
    state(output)
    assert run_job(echo_job(notes, output, **settings(notes, {}))).exit_code == 0
    assert_done(output, all_rows(released))


def test_data_of_a_retired_shard_goes_although_its_record_went_before(notes: Path, released: Path, tmp_path: Path) -> None:
    """A kill may come between the two; no grace time then keeps rows of two releases in one listing."""
    output = Path(shutil.copytree(released, tmp_path / "out"))
    retired = next(output.glob("summaries/version=*/*.parquet"))
    left_over = retired.with_name(f"{'f' * 16}-{'0' * 12}.parquet")
    shutil.copy(retired, left_over)
    live = output / json.loads((output / "_CURRENT.json").read_text())["live"]
    live.write_text(json.dumps({**json.loads(live.read_text()), "retired": ["f" * 16]}))
    publish(LocalStore(output), sweep_after_s=3600)
    assert not left_over.exists() and retired.exists()
    assert_done(output, all_rows(released))


def test_a_release_with_a_missing_data_file_is_refused(notes: Path, released: Path, tmp_path: Path) -> None:
    output = Path(shutil.copytree(released, tmp_path / "out"))
    next(output.glob("records/version=*/*.parquet")).unlink()
    with pytest.raises(AccountingError, match="its records file is gone"):
        publish(LocalStore(output))


def test_a_plan_that_is_sent_again_is_no_other_run(notes: Path, tmp_path: Path) -> None:
    """A PUT whose answer was lost is sent again by boto3, and then finds itself."""
    prepared = prepare(echo_job(notes, tmp_path / "out", **settings(notes, {})))
    plan = plan_run(prepared.store, prepared.version, "once", prepared.plan_settings(), prepared.said_in_plan()).plan
    assert put_plan(prepared.store, plan)
    assert not put_plan(prepared.store, replace(plan, created_at="2025-01-01T00:00:00+00:00"))
