"""Shared fixtures: notes written by us, jobs with the echo engine, an S3 server."""

from __future__ import annotations

import os

# The tests take one core each already. Before anything that may import torch, which reads it once.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings

from pipeline.config import Job, load_job

if TYPE_CHECKING:
    from tests.canaries import Canaries, Said

os.environ["GX_ANALYTICS_ENABLED"] = "false"
os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")

# Few examples where all tests run at every change; many with the slow tests, by `--hypothesis-profile=thorough`.
settings.register_profile("quick", max_examples=15, deadline=None)
settings.register_profile("thorough", max_examples=100, deadline=None)
settings.load_profile("quick")

SENTENCES = (
    "Walks with a stick since spring.",
    "BP 128/76, pulse 64, weight 71 kg.",
    "Sleeps six hours and wakes once.",
    "Denies fever or night sweats.",
    "Takes metformin 500 mg twice daily.",
    "Allergic to penicillin, which gave a rash.",
    "The wound on the left shin is dry.",
    "Review in two weeks with blood results.",
)


# Started last, one of them would keep one worker busy while the others have nothing left.
LONGEST_FILES = tuple(
    f"test_{name}.py"
    for name in (
        *("end_to_end", "privacy", "engine_laws", "resume", "cli", "default_model_recipe", "constraint_engine", "train", "s3"),
        *("static_lane", "engine", "mixed_histories", "sagemaker_hosts", "ctranslate2_engine"),
    )
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; within a file the order stays."""
    ranks = {name: rank for rank, name in enumerate(LONGEST_FILES)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(ranks)))


@pytest.fixture(autouse=True, scope="session")
def no_waiting_for_the_disk() -> Iterator[None]:
    """What a killed process has written is not lost without fsync, and the tests do not cut the power."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


def note_text(number: int, sentences: int = 4) -> str:
    """A plausible note, different for each number."""
    picked = [SENTENCES[(number * 3 + i) % len(SENTENCES)] for i in range(sentences)]
    return f"{40 + number % 50}-year-old seen on ward {number}. " + " ".join(picked)


def note_rows(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Rows that pass the default contract."""
    return [
        {
            "note_id": f"n{i:06d}",
            "text": note_text(i),
            "patient_id": f"p{i % 7}",
            "written_at": f"2025-03-{1 + i % 28:02d}",
            "ward": f"w{i % 3}",
        }
        for i in range(start, start + count)
    ]


def write_notes(path: Path, rows: Sequence[dict[str, Any]], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path, **options)
    return path


@pytest.fixture
def notes_folder(tmp_path: Path) -> Path:
    return write_three_files(tmp_path / "notes")


def write_three_files(folder: Path) -> Path:
    """25, 40 and 5 notes."""
    write_notes(folder / "a.parquet", note_rows(25))
    write_notes(folder / "b.parquet", note_rows(40, 25), row_group_size=16)
    write_notes(folder / "c.parquet", note_rows(5, 65))
    return folder


def echo_job(notes: Path | str | Sequence[str], output: Path | str, *overrides: str, **settings: Any) -> Job:
    """A job with the echo engine and small shards."""
    uris = [str(notes)] if isinstance(notes, (str, Path)) else list(notes)
    return load_job(
        None,
        overrides,
        {
            "input.uris": uris,
            "output.uri": str(output),
            "engine.backend": "echo",
            "engine.shard_notes": 10,
            "run.sweep_after_minutes": 0,
            **settings,
        },
    )


def read_rows(output: Path, kind: str) -> list[dict[str, Any]]:
    """All rows of a plain listing of `kind`, sorted by where they came from."""
    files = sorted((output / kind).glob("version=*/*.parquet"))
    rows = [row for file in files for row in pq.ParquetFile(file).read().to_pylist()]
    return sorted(rows, key=lambda r: (r["source_file"], -1 if r["source_row"] is None else r["source_row"], r["note_id"] or ""))


def all_rows(output: Path) -> dict[str, list[dict[str, Any]]]:
    return {kind: read_rows(output, kind) for kind in ("summaries", "records", "rejections")}


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def wait_for_port(port: int, seconds: float = 30) -> None:
    for _ in range(int(seconds * 20)):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A real S3 server: CHARTMILL_TEST_S3_ENDPOINT (keys from the environment), else moto's server in a process of its own."""
    given = os.environ.get("CHARTMILL_TEST_S3_ENDPOINT")
    if given:
        yield given
        return
    port = free_port()
    code = "import sys; from moto.server import main; main(['-H', '127.0.0.1', '-p', sys.argv[1]])"
    server = subprocess.Popen([sys.executable, "-c", code, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="session")
def s3_environment(s3_endpoint: str) -> Iterator[dict[str, str]]:
    """The variables a process needs to reach the S3 server, also set in this one."""
    variables = {
        "AWS_ENDPOINT_URL": s3_endpoint,
        "AWS_ACCESS_KEY_ID": os.environ.get("CHARTMILL_TEST_S3_KEY", "testing123"),
        "AWS_SECRET_ACCESS_KEY": os.environ.get("CHARTMILL_TEST_S3_SECRET", "testing1234"),
        "AWS_DEFAULT_REGION": "us-east-1",
        # Arrow's and older servers' S3 do not know the checksum trailers that boto3 sends by default.
        "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield variables


@pytest.fixture
def bucket(s3_environment: dict[str, str]) -> str:
    """A fresh bucket."""
    from transforms.store import s3_client

    name = f"chartmill-{uuid.uuid4().hex[:12]}"
    s3_client().create_bucket(Bucket=name)
    return name


@pytest.fixture
def run_cli() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `chartmill …` as a user would, in a process of its own."""

    def run(*arguments: str, env: dict[str, str] | None = None, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipeline.cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env={**os.environ, **(env or {})})

    return run


@pytest.fixture
def canaries() -> Canaries:
    """Fresh random strings to plant, one per place."""
    from tests.canaries import Canaries

    return Canaries()


@pytest.fixture
def said() -> Said:
    """What a test's runs said, to be searched for them."""
    from tests.canaries import Said

    return Said()
