"""`chartmill doctor`: each check says ok where all is well, and finds what it is there to find."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import cli
from pipeline.config import Job, load_job
from pipeline.doctor import examine
from pipeline.doctor_finding import Finding
from pipeline.doctor_machine import check_cores, check_downloads, check_packages, check_runner
from pipeline.doctor_model import check_model, is_whole, packaged
from pipeline.doctor_network import PUBLIC_HOSTS, check_egress, reachable
from pipeline.doctor_storage import FOLDER, check_output, probe
from pipeline.prepare import prepare
from pipeline.run import run_job
from schemas.errors import ConfigurationError
from tests.canaries import Canaries, every_log_record
from tests.conftest import echo_job, note_rows, write_notes
from tests.tiny_models import make_model
from transforms.store import INSECURE_VARIABLE, LocalStore, _s3_client, check_endpoint, s3_client

CLOSED_PORT = ("127.0.0.1", 9)


def job(**settings: Any) -> Job:
    return load_job(None, (), {"engine.backend": "echo", **settings})


def by_name(findings: Iterator[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


def statuses(findings: Iterator[Finding]) -> dict[str, str]:
    return {finding.check: finding.status for finding in findings}


def test_every_finding_that_is_not_ok_says_what_to_do(tmp_path: Path) -> None:
    jobs = [job(), job(**{"output.uri": str(tmp_path)}), job(**{"run.runner": "NoSuchRunner", "engine.threads": 4000})]
    findings = [finding for one in jobs for finding in examine(one)]
    assert {finding.status for finding in findings} == {"ok", "warning", "failed"}
    assert all(bool(finding.todo) == (finding.status != "ok") and finding.said for finding in findings)


# --- the machine


def test_packages_are_compared_with_what_is_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = [
        "pyarrow<26,>=25",
        "torch==2.13.0",
        "nosuchpackage==1",
        'nosuchextra==1; extra == "x"',
        "typer==0.1",
        'rich==1; extra == "x"',
    ]
    monkeypatch.setattr("pipeline.doctor_machine.metadata.requires", lambda _: declared)
    found = by_name(check_packages(job()))
    assert found["packages"].status == "failed" and found["packages of extras"].status == "warning"
    said = found["packages"].said
    assert "nosuchpackage is missing" in said and f"typer {metadata.version('typer')} instead of ==0.1" in said
    assert "torch" not in said and "pyarrow" not in said and "nosuchextra" not in said


def test_threads_beyond_the_cores() -> None:
    assert [f.status for f in check_cores(job(**{"engine.threads": 4000}))] == ["warning"]
    assert [f.status for f in check_cores(job())] == ["ok"]


def test_downloads_are_a_warning() -> None:
    assert [f.status for f in check_downloads(job(**{"engine.allow_download": True}))] == ["warning"]


def test_runners(tmp_path: Path) -> None:
    assert statuses(check_runner(job())) == {"runner": "ok"}
    assert statuses(check_runner(job(**{"run.runner": "PortableRunner"}))) == {"runner": "ok"}
    assert statuses(check_runner(job(**{"run.runner": "NoSuchRunner"}))) == {"runner": "failed"}
    refused = by_name(examine(job(**{"run.runner": "DirectRunner"})))["runner"]
    assert refused.status == "failed" and "Prism" in refused.said


# --- the model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model("bart", tmp_path / "model")


def model_job(folder: Path) -> Job:
    return load_job(None, (), {"tasks.summary.model": str(folder)})


def test_a_model_is_examined(model: Path) -> None:
    found = by_name(check_model(model_job(model)))
    assert {f.status for f in found.values()} == {"ok"} and "bart" in found["model configuration"].said
    (model / "pytorch_model.bin").write_bytes(b"x")
    assert statuses(check_model(model_job(model)))["weights"] == "warning"


def test_a_model_that_is_cut_short(model: Path) -> None:
    weights = next(model.glob("*.safetensors"))
    assert is_whole(weights)
    data = weights.read_bytes()
    for damaged in (data[:-1], data + b"x", data[:4], b"", data[:8] + b"[" + data[9:], b"\xff" * 8 + data[8:]):
        weights.write_bytes(damaged)
        assert not is_whole(weights)
    assert statuses(check_model(model_job(model)))["weights"] == "failed"


def test_a_model_with_code_of_its_own(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoConfig": "mine.Config"}}))
    assert statuses(check_model(model_job(model)))["model configuration"] == "failed"
    (model / "config.json").write_text('{"model_type": "no such type"}')
    assert statuses(check_model(model_job(model)))["model configuration"] == "failed"


def test_the_packaged_model_is_compared_with_what_the_installer_recorded(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = []
    for path in sorted(model.iterdir()):
        hashed = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=").decode()
        file = metadata.PackagePath("default_model", path.name)
        file.hash, file.dist = metadata.FileHash(f"sha256={hashed}"), SimpleNamespace(locate_file=lambda f: model / f.name)  # type: ignore[assignment]
        record.append(file)
    monkeypatch.setattr("pipeline.doctor_model.metadata.files", lambda _: record)
    assert packaged().status == "ok" and f"{len(record)} files" in packaged().said
    (model / "config.json").write_text("{}")
    next(model.glob("*.safetensors")).unlink()
    assert packaged().status == "failed" and packaged().said.startswith("2 of ")
    monkeypatch.setattr("pipeline.doctor_model.metadata.files", lambda _: None)
    assert packaged().status == "ok"


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    found = by_name(examine(model_job(tmp_path / "none")))["model"]
    assert found.status == "failed" and "is not a folder" in found.said


# --- the output


def test_the_output_is_as_it_was(tmp_path: Path) -> None:
    out = tmp_path / "new" / "deep"
    assert statuses(check_output(job(**{"output.uri": str(out)}))) == {"output": "ok", "disk space": "ok"}
    assert list(tmp_path.iterdir()) == []
    out.mkdir(parents=True, mode=0o755)
    (out / "kept").write_text("x")
    assert statuses(check_output(job(**{"output.uri": str(out)})))["output permissions"] == "warning"
    assert [path.name for path in out.iterdir()] == ["kept"] and stat.S_IMODE(out.stat().st_mode) == 0o755


def test_an_output_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    found = by_name(check_output(job(**{"output.uri": str(tmp_path / "file" / "out")})))["output"]
    assert found.status == "failed" and "Not a directory" in found.said and str(tmp_path) not in found.said


def test_put_once_that_does_not_hold_is_found(tmp_path: Path) -> None:
    class Forgetful(LocalStore):
        def put_once(self, key: str, data: bytes) -> bool:
            self.put(key, data)
            return True

    assert [f.status for f in probe(Forgetful(tmp_path))] == ["failed"]
    assert not list((tmp_path / FOLDER).iterdir())


def test_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    for free, status in ((1 << 20, "failed"), (1 << 30, "warning"), (1 << 40, "ok")):
        monkeypatch.setattr("shutil.disk_usage", lambda _, free=free: usage._replace(free=free))
        assert statuses(check_output(job(**{"output.uri": str(tmp_path)})))["disk space"] == status


def s3_job(bucket: str, mode: str = "aes256", **settings: Any) -> Job:
    key = {"kms_key": os.environ.get("CHARTMILL_TEST_S3_KMS_KEY", "k")} if mode == "kms" else {}
    return job(**{"output.uri": f"s3://{bucket}/out", "output.encryption": {"mode": mode, **key}, **settings})


@pytest.mark.s3
@pytest.mark.parametrize("mode", ["aes256", "kms"])
def test_s3(bucket: str, mode: str) -> None:
    found = by_name(check_output(s3_job(bucket, mode)))
    assert found["output"].status == found["encryption"].status == found["bucket"].status == "ok"
    assert found["endpoint"].status == "warning", "the tests' server speaks plain http"
    assert found["credentials"].status == "warning" and "testing" not in str(found), "keys from the environment are long-lived"
    assert bucket not in str(found)
    assert s3_client().list_objects_v2(Bucket=bucket)["KeyCount"] == 0


@pytest.mark.s3
def test_s3_that_says_no(bucket: str) -> None:
    found = by_name(check_output(s3_job("chartmill-no-such-bucket")))["output"]
    assert found.status == "failed" and "404" in found.said and "create the bucket" in found.todo
    unencrypted = job(**{"output.uri": f"s3://{bucket}/out"})
    assert by_name(examine(unencrypted))["output"].said.startswith("output.encryption: not set")


# --- the network


@pytest.mark.parametrize("host", ["minio.example:9000", "10.0.0.7", "127.0.0.1.example", "[2001:db8::1]"])
def test_plain_http_is_refused_unless_allowed(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(INSECURE_VARIABLE, raising=False)
    for url in (f"http://{host}", f"ftp://{host}", host):
        with pytest.raises(ConfigurationError, match=r"output\.allow_insecure_endpoint"):
            check_endpoint(url)
    check_endpoint(f"https://{host}")
    monkeypatch.setenv(INSECURE_VARIABLE, "1")
    check_endpoint(f"http://{host}")


@pytest.mark.parametrize("host", ["127.0.0.1:5000", "127.8.0.1", "[::1]:9000", "localhost:9000"])
def test_this_machine_is_not_refused(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(INSECURE_VARIABLE, raising=False)
    check_endpoint(f"http://{host}")


@pytest.fixture
def plain_endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An S3 under a name that nobody has (RFC 2606)."""
    variables = {
        "AWS_ENDPOINT_URL": "http://s3.example",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(INSECURE_VARIABLE, "0")
    _s3_client.cache_clear()
    yield
    _s3_client.cache_clear()


@pytest.mark.usefixtures("plain_endpoint")
def test_a_job_with_a_plain_endpoint_is_refused_or_allowed(tmp_path: Path) -> None:
    refused = s3_job("b")
    found = by_name(examine(refused))["output"]
    assert found.status == "failed" and found.said.startswith("output.allow_insecure_endpoint: false")
    write_notes(tmp_path / "notes" / "a.parquet", note_rows(3))
    with pytest.raises(ConfigurationError, match=r"output\.allow_insecure_endpoint"):
        run_job(echo_job(tmp_path / "notes", "s3://b/out", **{"output.encryption": {"mode": "aes256"}}))
    prepare(s3_job("b", **{"output.allow_insecure_endpoint": True}))
    assert s3_client().meta.endpoint_url == "http://s3.example"


def test_egress_is_found_and_its_absence_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = server.getsockname()[:2]
        assert reachable([CLOSED_PORT, host]) == [host]
        found = by_name(check_egress([host]))["no egress"]
        assert found.status == "failed" and "127.0.0.1" in found.said and found.todo
    # Names under .invalid never resolve (RFC 2606).
    assert by_name(check_egress([CLOSED_PORT, ("host.invalid", 443)]))["no egress"].status == "ok"
    assert len(PUBLIC_HOSTS) >= 3


def test_a_proxy_is_named_but_not_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "user:password@proxy.example")
    found = by_name(check_egress([CLOSED_PORT]))["proxy"]
    assert found.status == "warning" and "password" not in str(found)


# --- the command


def test_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["doctor", "--set", "engine.backend=echo", "--set", f"output.uri={tmp_path / 'out'}", "--json"]
    assert cli.main(arguments) == 0
    said = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert said["exit_code"] == 0 and {check["status"] for check in said["checks"]} <= {"ok", "warning"}
    assert cli.main([*arguments, "--set", "run.runner=NoSuchRunner"]) == 1
    assert "-> set run.runner" in capfd.readouterr().out


def test_nothing_private_is_told(tmp_path: Path, canaries: Canaries, said: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """Names of folders, models and keys may be private; what a check cannot do may fail with any message."""
    folder = tmp_path / canaries["folder"]
    folder.mkdir()
    (folder / canaries["file"]).write_text("x")
    jobs = [
        ["--set", f"output.uri={folder}", "--set", "engine.backend=echo"],
        ["--set", f"output.uri={folder / canaries['file'] / 'x'}", "--set", "engine.backend=echo"],
    ]
    with every_log_record(said):
        for settings in jobs:
            cli.main(["doctor", *settings, "--json"])
    said.add("terminal", "".join(capfd.readouterr()))
    said.assert_clean(canaries)
