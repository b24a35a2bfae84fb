"""The whole job on S3: notes read from, and everything written to, a bucket.

The server is moto's, or the real one that CHARTMILL_TEST_S3_ENDPOINT names.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Job
from pipeline.direct import job_steps
from pipeline.planning import plan_run
from pipeline.prepare import prepare
from pipeline.publish import publish
from pipeline.run import run_job
from schemas.errors import ConfigurationError
from tests.canaries import Said, command
from tests.conftest import all_rows, echo_job, note_rows, write_notes
from tests.s3_faults import RESET, SLOW_DOWN, TRUNCATED, faulty_s3
from tests.test_resume import LENIENT, hits, kill_and_rerun
from tests.tiny_models import make_model
from transforms.commit import commit_batch
from transforms.ledger import load_commits
from transforms.models import model_sha256
from transforms.read import read_segment
from transforms.store import Encryption, open_store, s3_client

pytestmark = pytest.mark.s3

KMS_KEY = os.environ.get("CHARTMILL_TEST_S3_KMS_KEY", "k")
KMS = {"output.encryption": {"mode": "kms", "kms_key": KMS_KEY}}


def upload(folder: Path, bucket: str, prefix: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            s3_client().put_object(Bucket=bucket, Key=f"{prefix}/{path.relative_to(folder).as_posix()}", Body=path.read_bytes())


def keys(bucket: str, prefix: str) -> list[str]:
    pages = s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [item["Key"] for page in pages for item in page.get("Contents", ())]


def download(bucket: str, prefix: str, folder: Path) -> Path:
    """The objects under a prefix as files, so that they are read as a local output is."""
    for key in keys(bucket, prefix):
        path = folder / key.removeprefix(prefix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(s3_client().get_object(Bucket=bucket, Key=key)["Body"].read())
    return folder


@pytest.fixture
def notes(tmp_path: Path, bucket: str) -> Path:
    """30 notes and a file that is none, on disk and under `in/` of the bucket."""
    folder = tmp_path / "notes"
    write_notes(folder / "a.parquet", note_rows(18), row_group_size=7)
    write_notes(folder / "b.parquet", note_rows(12, 18))
    (folder / "c.parquet").write_bytes(b"not parquet")
    upload(folder, bucket, "in")
    return folder


def job(bucket: str, **settings: Any) -> Job:
    return echo_job(f"s3://{bucket}/in/", f"s3://{bucket}/out/", **{**LENIENT, **KMS, **settings})


def local_rows(notes: Path, output: Path, **settings: Any) -> dict[str, list[dict[str, Any]]]:
    assert run_job(echo_job(notes, output, **{**LENIENT, **settings})).exit_code == 0
    return all_rows(output)


def test_s3_to_s3_equals_a_local_run_and_everything_is_encrypted(bucket: str, notes: Path, tmp_path: Path) -> None:
    first = run_job(job(bucket, **{"run.limit": 10}))
    assert first.exit_code == 0 and first.published.report["notes_in"] == 10
    done = run_job(job(bucket))
    assert done.exit_code == 0 and done.published.released
    assert (done.published.report["shards_resumed"], done.published.report["notes_in"]) == (1, 30)
    output = download(bucket, "out/", tmp_path / "out")
    assert all_rows(output) == local_rows(notes, tmp_path / "local")
    live = json.loads((output / json.loads((output / "_CURRENT.json").read_text())["live"]).read_text())["shards"]
    listed = {path.relative_to(output).as_posix() for path in output.glob("*/version=*/*.parquet")}
    assert listed == {path for files in live.values() for path in files.values()}
    heads = {key: s3_client().head_object(Bucket=bucket, Key=key) for key in keys(bucket, "out/")}
    assert {"out/_SUCCESS", "out/report.html", "out/_CURRENT.json"} < heads.keys()
    assert {head.get("ServerSideEncryption") for head in heads.values()} == {"aws:kms"}
    assert all(head["SSEKMSKeyId"].endswith(KMS_KEY) for head in heads.values())
    assert publish(prepare(job(bucket)).store).released and keys(bucket, "out/") == list(heads)


@pytest.mark.slow
def test_a_changed_object_supersedes(bucket: str, notes: Path, tmp_path: Path) -> None:
    run_job(job(bucket))
    write_notes(notes / "a.parquet", note_rows(8, 500))
    upload(notes, bucket, "in")
    outcome = run_job(job(bucket))
    assert outcome.published.released and outcome.published.report["notes_in"] == 20
    expected = [row["note_id"] for row in (*note_rows(12, 18), *note_rows(8, 500))]
    assert sorted(row["note_id"] for row in all_rows(download(bucket, "out/", tmp_path / "out"))["summaries"]) == expected


def test_bytes_are_encrypted_by_the_server_or_not_kept(bucket: str) -> None:
    """Ceph without a key store for it ignores SSE-S3 without a word; S3 and moto do it."""
    store = open_store(f"s3://{bucket}/out", Encryption("aes256"))
    try:
        assert store.put_once("once", b"x")
        store.put("replaced", b"x")
    except ConfigurationError as error:
        assert "the server ignored it" in str(error) and keys(bucket, "out/") == []
    else:
        heads = [s3_client().head_object(Bucket=bucket, Key=key) for key in keys(bucket, "out/")]
        assert [head["ServerSideEncryption"] for head in heads] == ["AES256", "AES256"]


def test_the_command_line_refuses_s3_without_encryption_settings(
    bucket: str, notes: Path, capfd: pytest.CaptureFixture[str], said: Said
) -> None:
    assert command(capfd, said, "run", "--input", str(notes), "--output", f"s3://{bucket}/out/", "--engine", "echo") == 2
    assert "output.encryption: not set" in said.parts[-1][1]
    assert keys(bucket, "out/") == []


def test_who_loses_the_race_for_a_record_deletes_what_it_wrote(bucket: str, notes: Path) -> None:
    prepared = prepare(job(bucket, **{"engine.shard_notes": 100}))
    run_plan = plan_run(prepared.store, prepared.version, "race", prepared.plan_settings(), prepared.said_in_plan())
    [batch, *_] = [b for segment in run_plan.to_do for b in read_segment(segment, prepared.plan_settings().columns)]
    finished = job_steps(prepared)(batch)
    settings = [replace(prepared.commit_settings("race"), code_version=f"{number}.0") for number in range(4)]
    records: list[Any] = []
    threads = [threading.Thread(target=lambda s=s: records.append(commit_batch(finished, prepared.store, s))) for s in settings]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [standing] = load_commits(prepared.store, prepared.version).values()
    assert len(records) == 4 and {r.code_version for r in records} == {standing.code_version}
    data = [key.removeprefix("out/") for kind in ("summaries", "records", "rejections") for key in keys(bucket, f"out/{kind}/")]
    assert sorted(data) == sorted(file.path for file in standing.files.values())
    for file in standing.files.values():
        assert hashlib.sha256(prepared.store.get(file.path)).hexdigest() == file.sha256


def test_a_model_from_a_prefix(bucket: str, notes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    model = make_model("t5", tmp_path / "model")
    upload(model, bucket, "models/tiny")
    torch = {"engine.backend": "torch", "tasks.summary.decode.max_new_tokens": 4, "engine.threads": 1}
    assert run_job(job(bucket, **torch, **{"tasks.summary.model": f"s3://{bucket}/models/tiny", "run.limit": 10})).exit_code == 0
    rows = all_rows(download(bucket, "out/", tmp_path / "out"))["summaries"]
    assert {(row["model_id"], row["model_sha256"]) for row in rows} == {(f"s3://{bucket}/models/tiny", model_sha256(model))}
    assert len(rows) == 10 and len({row["summary"] for row in rows}) > 1


def kill_on_s3(bucket: str, notes: Path, tmp_path: Path, endpoint: str) -> None:
    """Three kills and reruns against this endpoint give the rows of a local run."""
    source = {"engine.backend": "echo", "engine.shard_notes": 10, "run.sweep_after_minutes": 0, "input.uris": [f"s3://{bucket}/in/"]}
    spec = {"settings": {**source, **LENIENT, **KMS}, "outputs": f"s3://{bucket}/outs", "kills": 3, "in_a_row": 3}
    [told] = kill_and_rerun(spec, env={"AWS_ENDPOINT_URL": endpoint})
    assert set(hits(told)) == {"planning", "graph", "publish"}, told["kills"]
    rows = local_rows(notes, tmp_path / "local")
    for number, output in enumerate(told["outputs"]):
        folder = download(bucket, f"{output.removeprefix(f's3://{bucket}/')}/", tmp_path / str(number))
        assert all_rows(folder) == rows, output
        assert (folder / "_SUCCESS").is_file()


@pytest.mark.slow
def test_killed_runs_are_resumed(bucket: str, notes: Path, tmp_path: Path, s3_endpoint: str) -> None:
    kill_on_s3(bucket, notes, tmp_path, s3_endpoint)


@pytest.mark.slow
def test_killed_runs_over_an_unreliable_connection_are_resumed(bucket: str, notes: Path, tmp_path: Path, s3_endpoint: str) -> None:
    faults = (SLOW_DOWN, RESET, TRUNCATED)
    with faulty_s3(s3_endpoint, dict.fromkeys(faults, 0.05)) as proxy:
        kill_on_s3(bucket, notes, tmp_path, proxy.url)
    assert {f"{method} {fault}" for method in ("GET", "PUT") for fault in faults} <= proxy.faults.keys()
