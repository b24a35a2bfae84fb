"""A full disk, a read-only folder, credentials that expire, clocks that are off, models that are not what they were.

Each ends a run with a plain sentence and the right exit code, loses nothing, quotes nothing, and the next run goes on.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import load_job
from pipeline.planning import RunPlan
from pipeline.prepare import prepare
from pipeline.publish import publish
from pipeline.run import run_job
from schemas.errors import ConfigurationError
from tests.canaries import LENIENT, Canaries, Said, assert_files_clean, assert_private, command, plant
from tests.conftest import all_rows, echo_job, note_rows, write_notes
from tests.s3_faults import Expiring, faulty_s3, reached_through
from tests.test_s3 import KMS, KMS_KEY, download, upload
from tests.tiny_models import edit_json, make_model
from transforms import store
from transforms.ledger import newest_plan
from transforms.private_files import write_temporary
from transforms.store import LocalStore, Store
from transforms.store_failure import advice, is_passing

Rows = dict[str, list[dict[str, Any]]]
ECHO = ("--engine", "echo", "--shard-notes", "5", *LENIENT)


def straight_rows(notes: Path, output: Path) -> Rows:
    lenient = {"gate.max_quarantined_share": 1.0, "gate.max_flagged_share": 1.0, "gate.contract": "ignore"}
    # The same shards, for which columns are passed through is a matter of each.
    assert run_job(echo_job(notes, output, **lenient, **{"engine.shard_notes": 5})).exit_code == 0
    return all_rows(output)


# --- disks


@contextmanager
def disk_full_after(writes: int) -> Iterator[None]:
    """From that write on the disk takes half a file and then nothing more."""
    numbers = count()

    def write(folder: Path, save: Any) -> Path:
        if next(numbers) < writes:
            return write_temporary(folder, save)

        def broken(file: Any) -> None:
            file.write(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))

        return write_temporary(folder, broken)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "write_temporary", write)
        yield


def test_a_write_that_fails_leaves_the_old_and_no_half(tmp_path: Path) -> None:
    folder = LocalStore(tmp_path)
    folder.put("a/b", b"old")
    with disk_full_after(0):
        for write in (folder.put, folder.put_once):
            with pytest.raises(OSError, match="No space left"):
                write("a/b", b"new")
    assert folder.get("a/b") == b"old" and [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


@pytest.mark.slow
@pytest.mark.parametrize("writes", [0, 13])
def test_a_full_disk(writes: int, tmp_path: Path, canaries: Canaries, said: Said, capfd: pytest.CaptureFixture[str]) -> None:
    notes, output = plant(tmp_path / "notes", canaries), tmp_path / "out"
    run = ("run", "--input", str(notes), "--output", str(output), *ECHO, "--json")
    for _ in range(2 if writes else 1):
        with disk_full_after(writes):
            assert command(capfd, said, *run) == 1
        assert "(ENOSPC)" in said.parts[-1][1] and "the disk is full; free some space. What is committed stays" in said.parts[-1][1]
        assert not list(output.rglob(".tmp-*"))
    # A full disk is no note's fault: no shard is set apart for it.
    assert not any(output.glob("_runs/*/attempts/*"))
    assert command(capfd, said, *run) == 0
    said.assert_clean(canaries)
    assert_files_clean(output, canaries)
    assert_private(output)
    if writes:
        assert all_rows(output) == straight_rows(notes, tmp_path / "straight")


# In a mount namespace of its own: a file system of 160 KiB that fills up, is made larger, and one that cannot be written.
SCRIPT = """
mkdir -p "$1/small" "$1/fixed"
mount -t tmpfs -o size=160k none "$1/small" && mount -t tmpfs -o ro none "$1/fixed" || exit 77
run() { "$PY" -m pipeline.cli run --input "$NOTES" --output "$1" --engine echo --shard-notes 5 --log-format none; echo "code=$?" >&2; }
run "$1/fixed/out"
run "$1/small/out"
mount -o remount,size=50m none "$1/small"
run "$1/small/out"
cp -r "$1/small/out" "$1/copied"
"""


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_a_real_disk_that_fills_up_and_one_that_is_read_only(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    write_notes(notes / "a.parquet", note_rows(60))
    unshare = ["unshare", "--mount", *(["--user", "--map-root-user"] if os.geteuid() else []), "sh", "-c", SCRIPT, "sh", str(tmp_path)]
    if not shutil.which("unshare"):
        pytest.skip("no unshare here")
    done = subprocess.run(
        unshare, capture_output=True, text=True, check=False, timeout=600, env={**os.environ, "PY": sys.executable, "NOTES": str(notes)}
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("this machine lets nobody mount anything")
    errors = [line for line in done.stderr.splitlines() if line.startswith(("error", "code="))]
    assert [line for line in errors if line.startswith("code=")] == ["code=2", "code=1", "code=0"], done.stderr
    assert errors[0].startswith("error: output.uri: cannot be written: it is read-only")
    assert "(ENOSPC)" in errors[2] and "the disk is full" in errors[2]
    assert all_rows(tmp_path / "copied") == straight_rows(notes, tmp_path / "straight")


# --- what a failure means


@pytest.mark.parametrize(
    ("code", "status", "says", "passes"),
    [
        ("ExpiredToken", 400, "the credentials have expired", True),
        ("RequestTimeTooSkewed", 403, "clock is more than 15 minutes off", True),
        ("SlowDown", 503, "fewer requests", True),
        ("AccessDenied", 403, "the right to do that is missing", False),
        ("403", 403, "the right to do that is missing", False),
        ("InvalidAccessKeyId", 403, "does not accept the credentials", False),
    ],
)
def test_advice_by_code_of_s3(code: str, status: int, says: str, passes: bool) -> None:
    from botocore.exceptions import ClientError

    error = ClientError({"Error": {"Code": code, "Message": "secret"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject")
    assert says in advice(error) and "running again goes on" in advice(error) and "secret" not in advice(error)
    assert is_passing(error) == passes


def test_advice_by_kind_and_by_errno() -> None:
    from botocore.exceptions import EndpointConnectionError, NoCredentialsError, ReadTimeoutError

    assert "no credentials" in advice(NoCredentialsError()) and not is_passing(NoCredentialsError())
    for unreachable in (EndpointConnectionError(endpoint_url="u"), ReadTimeoutError(endpoint_url="u")):
        assert "cannot be reached" in advice(unreachable) and is_passing(unreachable)
    assert "read-only" in advice(OSError(errno.EROFS, "x")) and advice(OSError("damaged")) == advice(ValueError("x")) == ""


# --- S3


def s3_job(bucket: str) -> tuple[str, ...]:
    encryption = ("--set", "output.encryption.mode=kms", "--set", f"output.encryption.kms_key={KMS_KEY}")
    return ("run", "--input", f"s3://{bucket}/in/", "--output", f"s3://{bucket}/out/", *ECHO, *encryption, "--json")


REFUSALS = {
    "ExpiredToken": "the credentials have expired; renew them",
    "RequestTimeTooSkewed": "this machine's clock is more than 15 minutes off; set it",
    "AccessDenied": "the right to do that is missing",
}


@pytest.mark.s3
@pytest.mark.slow
def test_refused_in_the_middle(
    bucket: str, tmp_path: Path, canaries: Canaries, said: Said, s3_endpoint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Credentials expire, clocks drift, a right is taken away: at the first request, while planning, and while shards are done."""
    notes = plant(tmp_path / "notes", canaries)
    upload(notes, bucket, "in")
    with faulty_s3(s3_endpoint) as proxy, reached_through(proxy):
        for code, after in (("ExpiredToken", 0), ("ExpiredToken", 60), ("RequestTimeTooSkewed", 30), ("AccessDenied", 100)):
            proxy.refuse = Expiring(after, code)
            assert command(capfd, said, *s3_job(bucket)) == 1, (code, after)
            assert REFUSALS[code] in said.parts[-1][1] and "running again goes on" in said.parts[-1][1], (code, after, said.parts[-1])
        proxy.refuse = None
        assert command(capfd, said, *s3_job(bucket)) == 0
    said.assert_clean(canaries)
    output = download(bucket, "out/", tmp_path / "out")
    assert_files_clean(output, canaries)
    assert all_rows(output) == straight_rows(notes, tmp_path / "straight")


class _Vault(BaseHTTPRequestHandler):
    """Hands out credentials that expire within minutes, new ones each time, as a container's role does."""

    def do_GET(self) -> None:
        number = next(self.server.numbers)  # type: ignore[attr-defined]
        soon = (datetime.now(UTC) + timedelta(minutes=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
        said = {"AccessKeyId": "testing123", "SecretAccessKey": "testing1234", "Token": f"token-{number}", "Expiration": soon}
        body = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def vault() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Vault) as server:
        server.numbers = count()  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/credentials"
        server.shutdown()


@pytest.mark.s3
@pytest.mark.slow
@pytest.mark.skipif("CHARTMILL_TEST_S3_ENDPOINT" in os.environ, reason="a real server knows no tokens of ours")
def test_a_roles_credentials_are_renewed_while_a_run_lasts(
    bucket: str, tmp_path: Path, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload(write_notes(tmp_path / "notes" / "a.parquet", note_rows(30)).parent, bucket, "in")
    tokens: list[str] = []

    def refuse(method: str, headers: Mapping[str, str]) -> str:
        tokens.append(headers.get("X-Amz-Security-Token", ""))
        # A token is good for this and for eight more: whoever holds on to one is refused.
        return "" if tokens[-1] and len(tokens) - tokens.index(tokens[-1]) < 9 else "ExpiredToken"

    with vault() as url, faulty_s3(s3_endpoint) as proxy:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url)
        monkeypatch.setattr("boto3.DEFAULT_SESSION", None)  # it has found the others already
        proxy.refuse = refuse
        with reached_through(proxy):
            outcome = run_job(echo_job(f"s3://{bucket}/in/", f"s3://{bucket}/out/", **KMS))
    assert outcome.exit_code == 0 and outcome.published.report["notes_summarized"] == 30
    assert len(set(tokens)) > 10


@pytest.mark.s3
@pytest.mark.slow
@pytest.mark.parametrize("ahead_s", [-3600.0, 3600.0])
def test_another_clock_makes_nothing_old(bucket: str, tmp_path: Path, s3_endpoint: str, ahead_s: float) -> None:
    """What another run is about to commit is younger than the time of grace, whatever the hour is here."""
    upload(write_notes(tmp_path / "notes" / "a.parquet", note_rows(30)).parent, bucket, "in")
    job = echo_job(f"s3://{bucket}/in/", f"s3://{bucket}/out/", **KMS, **{"run.limit": 10, "run.sweep_after_minutes": 30})
    with faulty_s3(s3_endpoint) as proxy, reached_through(proxy):
        proxy.clock_s = ahead_s
        assert run_job(job).published.released
        target = prepare(job).store
        plan = newest_plan(target)
        assert plan is not None
        later = next(shard for shard in plan.current if not shard.in_scope)
        young = f"summaries/version={plan.version}/{later.id}-0123456789ab.parquet"
        target.put(young, b"about to be named by a commit")
        assert publish(target, sweep_after_s=1800).released and target.exists(young)
        assert publish(target, sweep_after_s=0).released and not target.exists(young)
        done = run_job(echo_job(f"s3://{bucket}/in/", f"s3://{bucket}/out/", **KMS))
    assert done.published.released and done.published.report["notes_summarized"] == 30 and done.published.report["shards_resumed"] == 1


# --- models


def test_pickle_weights_end_with_exit_code_2(tmp_path: Path, said: Said, capfd: pytest.CaptureFixture[str]) -> None:
    notes = write_notes(tmp_path / "notes" / "a.parquet", note_rows(2)).parent
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert command(capfd, said, "run", "--input", str(notes), "--output", str(tmp_path / "out"), "--model", str(model), "--json") == 2
    assert "pickle weights (.bin, .pt) are never loaded" in said.parts[-1][1] and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_weights_that_are_replaced_after_planning_are_refused(tmp_path: Path) -> None:
    """The rows would be said to be of the model that was planned."""
    notes, model = write_notes(tmp_path / "notes" / "a.parquet", note_rows(2)).parent, make_model("bart", tmp_path / "model")
    other = make_model("bart", tmp_path / "other", seed=7)
    settings = {"input.uris": [str(notes)], "output.uri": str(tmp_path / "out"), "tasks.summary.model": str(model), "engine.threads": 1}

    def replace(target: Store, plan: RunPlan) -> Any:
        shutil.copy(other / "model.safetensors", model / "model.safetensors")
        return nullcontext()

    with pytest.raises(ConfigurationError, match=r"but the run was planned with [0-9a-f]{12}: its \*\.safetensors"):
        run_job(load_job(None, (), settings), watch=replace)
    assert not (tmp_path / "out" / "summaries").exists()


@pytest.mark.slow
def test_code_beside_a_model_is_not_run(tmp_path: Path, said: Said, capfd: pytest.CaptureFixture[str]) -> None:
    notes, model = write_notes(tmp_path / "notes" / "a.parquet", note_rows(2)).parent, make_model("bart", tmp_path / "model")
    (model / "mine.py").write_text(f"open({str(tmp_path / 'was-run')!r}, 'w')\nclass Config: ...\nclass Model: ...\n")
    run = ("run", "--input", str(notes), "--output", str(tmp_path / "out"), "--model", str(model), "--set", "engine.threads=1", *LENIENT)
    mine = {"auto_map": {"AutoConfig": "mine.Config", "AutoModelForSeq2SeqLM": "mine.Model"}}
    # A family that is known is loaded as such, another is refused.
    for change, code in ((mine, 0), (mine | {"model_type": "mine"}, 2)):
        edit_json(model / "config.json", **change)
        assert command(capfd, said, *run, "--set", "tasks.summary.decode.max_new_tokens=4", "--json") == code
    assert not (tmp_path / "was-run").exists()
