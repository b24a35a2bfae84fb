"""Emulated SageMaker: the rendered request, run by several hosts against an S3 server, gives the rows of one machine."""

from __future__ import annotations

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Job, load_job
from pipeline.publish import publish
from pipeline.run import run_job
from pipeline.sagemaker import request_for
from pipeline.sagemaker_request import create_request
from tests.canaries import Canaries, assert_files_clean, plant
from tests.conftest import all_rows, echo_job, note_rows, write_notes
from tests.planted_failures.sitecustomize import CRASH
from tests.sagemaker_emulator import ROOT, run_jobs
from tests.test_resume import LENIENT
from tests.test_s3 import download, keys, upload
from tests.test_sagemaker import EXAMPLE
from transforms.store import Encryption, open_store, s3_client

pytestmark = pytest.mark.s3


def spread_notes(folder: Path, count: int, files: int) -> Path:
    """So many notes in so many files, each of which is a segment."""
    each, rest = divmod(count, files)
    assert not rest, "files of equal size"
    for number in range(files):
        write_notes(folder / f"{number:02d}.parquet", note_rows(each, number * each))
    return folder


def cloud_job(bucket: str, hosts: int, **settings: Any) -> Job:
    kms = {"output.encryption": {"mode": "aes256"}}
    return echo_job(f"s3://{bucket}/in/", f"s3://{bucket}/out/", **{**LENIENT, **kms, "sagemaker.instance_count": hosts, **settings})


def emulated(bucket: str, root: Path, name: str, hosts: int, **more: Any) -> dict[str, Any]:
    """A job for the emulator; `settings` are the job's, the rest is the emulator's."""
    request = create_request(cloud_job(bucket, hosts, **more.pop("settings", {})), name)
    return {"request": request, "root": str(root / name), "output": f"s3://{bucket}/out/", **more}


def single_machine(notes: Path, output: Path, **settings: Any) -> dict[str, list[dict[str, Any]]]:
    run_job(echo_job(notes, output, **{**LENIENT, **settings}))
    return all_rows(output)


def lost_host_and_rerun(
    bucket: str, tmp_path: Path, env: dict[str, str], notes: int, shard_notes: int, commits: int
) -> list[dict[str, Any]]:
    """Three hosts, one killed; three hosts again; then four, for whom nothing is left. The rows are those of one machine."""
    folder = spread_notes(tmp_path / "notes", notes, 8)
    upload(folder, bucket, "in")
    settings = {"engine.shard_notes": shard_notes}
    kill = {"host": 1, "signal": signal.SIGKILL, "commits": commits}
    jobs = [
        emulated(bucket, tmp_path, "lost", 3, stop=kill, settings={**settings, "engine.delay_ms": 40}),
        emulated(bucket, tmp_path, "again", 3, settings=settings),
        emulated(bucket, tmp_path, "nothing-left", 4, settings=settings),
    ]
    results = run_jobs(jobs, env)
    output = download(bucket, "out/", tmp_path / "out")
    assert all_rows(output) == single_machine(folder, tmp_path / "local", **settings)
    assert (output / "_SUCCESS").is_file() and json.loads((output / "report.json").read_text())["notes_in"] == notes
    return results


def assert_lost_and_done(lost: dict[str, Any], again: dict[str, Any], nothing: dict[str, Any], notes: int) -> None:
    assert lost["codes"] == [0, -signal.SIGKILL, 0], lost
    assert "_SUCCESS" not in lost["keys"] and "_CURRENT.json" not in lost["keys"]
    assert all("released" not in message for message in lost["messages"])
    assert again["codes"] == [0, 0, 0] and nothing["codes"] == [0, 0, 0, 0]
    published = [message for message in again["messages"] if "released=true" in message]
    assert published and all(f"notes={notes}" in message for message in published)
    # Four that see at once that everything is there; each publishes.
    assert all("released=true" in message for message in nothing["messages"])


@pytest.mark.slow
def test_a_lost_host_is_made_up_for_by_a_rerun(bucket: str, tmp_path: Path, s3_environment: dict[str, str]) -> None:
    results = lost_host_and_rerun(bucket, tmp_path, s3_environment, notes=504, shard_notes=10, commits=12)
    assert_lost_and_done(*results, notes=504)


@pytest.mark.slow
def test_no_first_host_a_stopped_one_and_an_empty_share(bucket: str, tmp_path: Path, s3_environment: dict[str, str]) -> None:
    folder = spread_notes(tmp_path / "notes", 60, 2)
    upload(folder, bucket, "in")
    stop = {"host": 0, "signal": signal.SIGTERM, "commits": 2}
    jobs = [
        emulated(bucket, tmp_path, "headless", 2, absent=[0], settings={"run.wait_minutes": 0.02}),
        emulated(bucket, tmp_path, "stopped", 1, stop=stop, settings={"engine.delay_ms": 30}),
        emulated(bucket, tmp_path, "four", 4),
    ]
    headless, stopped, four = run_jobs(jobs, s3_environment)
    assert headless["codes"] == [None, 1] and headless["messages"][1] == "exit=failed error=ChartmillError\n"
    assert "the first host has put no plan" in headless["logs"][1]
    assert stopped["codes"] == [1] and stopped["messages"] == ["exit=stopped\n"]
    assert "interrupted; run again to go on" in stopped["logs"][0]
    # No mark is left that would make a suspect of the shard.
    assert not [key for key in stopped["keys"] if "/attempts/" in key]
    assert four["codes"] == [0, 0, 0, 0]
    output = download(bucket, "out/", tmp_path / "out")
    assert all_rows(output) == single_machine(folder, tmp_path / "local")
    assert json.loads((output / "report.json").read_text())["shards_resumed"] >= 2


@pytest.mark.slow
def test_the_shipped_example_works(tmp_path: Path, s3_environment: dict[str, str]) -> None:
    """As it stands, but for the engine: its request, its two hosts, its bucket, its key, its metrics."""
    job = load_job(EXAMPLE, ["engine.backend=echo"])
    bucket = job.output.uri.split("/")[2]
    s3_client().create_bucket(Bucket=bucket)
    upload(spread_notes(tmp_path / "notes", 60, 2), bucket, "notes")
    request = request_for(job)
    [done] = run_jobs([{"request": request, "root": str(tmp_path / "ml"), "output": job.output.uri}], s3_environment)
    assert done["codes"] == [0, 0] and any("released=true notes=60" in message for message in done["messages"])
    lines = [json.loads(line) for log in done["logs"] for line in log.splitlines() if line.startswith('{"_aws"')]
    assert lines and all((line["NotesSummarized"], line["Released"]) == (60, 1) for line in lines)
    current = json.loads(s3_client().get_object(Bucket=bucket, Key="out/_CURRENT.json")["Body"].read())
    assert current["run_id"] == request["ProcessingJobName"]
    head = s3_client().head_object(Bucket=bucket, Key="out/report.json")
    assert head["SSEKMSKeyId"] == job.output.encryption.kms_key  # type: ignore[union-attr]


def test_many_may_publish_at_once(bucket: str, tmp_path: Path) -> None:
    folder = spread_notes(tmp_path / "notes", 24, 3)
    upload(folder, bucket, "in")
    job = cloud_job(bucket, 1)
    assert run_job(job).published.released
    before = all_rows(download(bucket, "out/", tmp_path / "before"))
    store = open_store(job.output.uri, Encryption("aes256"))
    barrier, released = threading.Barrier(4), []

    def together() -> None:
        barrier.wait()
        released.append(publish(store, sweep_after_s=0).released)

    threads = [threading.Thread(target=together) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert released == [True] * 4
    assert all_rows(download(bucket, "out/", tmp_path / "after")) == before


@pytest.mark.slow
def test_hosts_betray_nothing(bucket: str, tmp_path: Path, s3_environment: dict[str, str], canaries: Canaries) -> None:
    """Messages, logs and all that stands outside the data files, with canaries in every place; also when the first host cannot plan."""
    upload(plant(tmp_path / "notes", canaries), bucket, "in")
    settings = {"run.metrics": "emf", "gate.max_quarantined_share": 0.0}
    jobs = [
        emulated(bucket, tmp_path, "canaries", 2, settings=settings),
        emulated(bucket, tmp_path, "failing", 2, settings={"input.uris": [f"s3://{bucket}/{canaries['empty prefix']}/"]}),
    ]
    told, failed = run_jobs(jobs, s3_environment)
    assert 3 in told["codes"] and any("held_by=max_quarantined_share" in message for message in told["messages"])
    assert failed["codes"] == [2, 1] and failed["messages"] == [
        f"exit=failed error={kind}\n" for kind in ("ConfigurationError", "ChartmillError")
    ]
    assert "the first host could not plan (ConfigurationError)" in failed["logs"][1]
    for where, result in (("canaries", told), ("failing", failed)):
        for text in (*result["messages"], *(result["logs"] if where == "canaries" else ())):
            canaries.assert_absent(where, text)
    for key in keys(bucket, "out/"):
        canaries.assert_absent("a key", key)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_note_that_kills_a_host_twice_is_set_aside(
    bucket: str, tmp_path: Path, s3_environment: dict[str, str], canaries: Canaries
) -> None:
    """Its host starts again, does that shard note by note, and is the last: it publishes. Nobody quotes a word of it."""
    rows = note_rows(20, 100)
    rows[7]["text"] += f" {CRASH} {canaries['text that kills']}"
    rows[7]["note_id"] = canaries["id of what kills"]
    folder = plant(tmp_path / "notes", canaries)
    write_notes(folder / "kills.parquet", rows)
    upload(folder, bucket, "in")
    path = os.pathsep.join([str(ROOT / "tests" / "planted_failures"), *filter(None, [os.environ.get("PYTHONPATH")])])
    job = emulated(bucket, tmp_path, "kills", 3, settings={"engine.shard_notes": 5, "run.metrics": "emf"})
    [done] = run_jobs([job], {**s3_environment, "PYTHONPATH": path})
    assert done["codes"] == [0, 0, 0], done["logs"]
    assert ["the run died (SIGSEGV)" in log for log in done["logs"]].count(True) == 1
    [published] = [message for message in done["messages"] if "released=true" in message]
    for text in (published, *done["messages"], *done["logs"], *done["keys"]):
        canaries.assert_absent("a host", text)
    output = download(bucket, "out/", tmp_path / "out")
    assert_files_clean(output, canaries)
    assert not list(output.glob("_runs/*/attempts/*"))
    report = json.loads((output / "report.json").read_text())
    assert report["reasons"]["CRASHED"] == 1 and report["notes_in"] == report["notes_summarized"] + report["notes_quarantined"]
    assert f"notes={report['notes_in']} summarized={report['notes_summarized']}" in published
    assert_but_for_one(all_rows(output), single_machine(folder, tmp_path / "local", **{"engine.shard_notes": 5}), rows[7]["note_id"])


def assert_but_for_one(found: dict[str, list[dict[str, Any]]], whole: dict[str, list[dict[str, Any]]], note_id: str) -> None:
    """The rows of an undisturbed run, but that this note is rejected."""
    [rejected] = [row for row in found["rejections"] if row["note_id"] == note_id]
    assert (rejected["reason"], rejected["stage"]) == ("CRASHED", "generate")
    assert [row for row in found["rejections"] if row is not rejected] == whole["rejections"]
    for kind in ("summaries", "records"):
        assert found[kind] == [row for row in whole[kind] if row["note_id"] != note_id] != whole[kind]
