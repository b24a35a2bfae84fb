"""The canary tests again, on bad days: a storage with faults, credentials that expire, a full disk, a kill, a note that crashes the engine.

Whatever a command was doing when it went wrong, nothing that it says or leaves behind holds a word of a note.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import count, cycle
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.canaries import LENIENT, Canaries, Said, assert_files_clean, assert_private, command, data_of, every_log_record, plant
from tests.conftest import note_rows, read_rows, write_notes
from tests.planted_failures.sitecustomize import CRASH
from tests.s3_faults import FAULTS, Expiring, faulty_s3, reached_through
from tests.test_restart import children_of, is_alive, planted_run, wait_until
from tests.test_s3 import KMS_KEY, download, upload

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

# How much of a command is done before the fault comes, in requests or writes: one command after the other has another of them.
MOMENTS = (9, 0, 20)
Fault = Callable[[int], AbstractContextManager[None]]


def commands(notes: str, out: str, exported: str, *encryption: str) -> Iterator[Sequence[str]]:
    """All that read or write the output of a run, in the order in which people call them."""
    job = ("--input", notes, "--output", out, "--engine", "echo", "--shard-notes", "5", *encryption)
    yield "plan", *job, "--json"
    yield "run", *job, *LENIENT, "--set", "run.limit=10", "--set", "run.metrics=emf", "--log-format", "json"
    yield "run", *job, "--set", "run.metrics=emf", "--json"
    yield "report", out, *encryption, "--accept", "--reason", "a test", "--json"
    yield "audit", out, "--data", "--json"
    kms = ("--encryption", "kms", "--kms-key", KMS_KEY) if encryption else ()
    yield "export", out, "--to", "fhir", "--output", exported, *kms, "--json"
    yield "doctor", "--set", f"output.uri={out}", "--set", "engine.backend=echo", *encryption, "--json"


def call_all(calls: Iterator[Sequence[str]], fault: Fault, said: Said, capfd: pytest.CaptureFixture[str]) -> int:
    """Each command, while the fault comes, and again when it is over; how many failed of it."""
    failures = 0
    for call, moment in zip(calls, cycle(MOMENTS), strict=False):
        with fault(moment):
            failures += command(capfd, said, *call) == 1
        code = command(capfd, said, *call)
        assert code in ((0, 1) if call[0] == "doctor" else (0, 3)), (call[0], code, said.parts[-1][1])
    assert not any("Traceback" in text for _, text in said.parts)
    return failures


@pytest.mark.s3
@pytest.mark.parametrize("fault", ["faults", "expired"])
def test_no_command_quotes_a_note_when_s3_fails(
    fault: str, bucket: str, tmp_path: Path, canaries: Canaries, said: Said, s3_endpoint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    upload(plant(tmp_path / "notes", canaries), bucket, "in")
    encryption = ("--set", "output.encryption.mode=kms", "--set", f"output.encryption.kms_key={KMS_KEY}")
    calls = commands(*(f"s3://{bucket}/{prefix}/" for prefix in ("in", "out", "new")), *encryption)
    met: Counter[str] = Counter()
    failures = call_all(calls, lambda moment: failing_s3(fault, s3_endpoint, moment, met), said, capfd)
    # Whether a command bears the faults depends on the machine, too.
    assert met.total() > 20 if fault == "faults" else failures > 4
    said.assert_clean(canaries)
    output = download(bucket, "out/", tmp_path / "out")
    assert_files_clean(output, canaries)
    assert canaries["note id"] in data_of(output)


@contextmanager
def failing_s3(fault: str, endpoint: str, moment: int, met: Counter[str]) -> Iterator[None]:
    """In the body S3 has faults, or knows no credentials any more after so many requests. What came of it is added to `met`."""
    with faulty_s3(endpoint, dict.fromkeys(FAULTS, 0.05) if fault == "faults" else {}, seed=moment) as proxy, reached_through(proxy):
        proxy.refuse = Expiring(moment) if fault == "expired" else None
        yield
        met.update(proxy.faults)


def test_no_command_quotes_a_note_when_the_disk_is_full(
    tmp_path: Path, canaries: Canaries, said: Said, capfd: pytest.CaptureFixture[str]
) -> None:
    notes, output, new = plant(tmp_path / "notes", canaries), tmp_path / "out", tmp_path / "new"
    with every_log_record(said):
        failures = call_all(commands(str(notes), str(output), str(new)), lambda writes: disk_full(writes, canaries), said, capfd)
    assert failures > 2
    said.assert_clean(canaries)
    assert_files_clean(output, canaries)
    for folder in (output, new):
        assert_private(folder)
        assert not list(folder.rglob(".tmp-*"))


@contextmanager
def disk_full(writes: int, canaries: Canaries) -> Iterator[None]:
    """After so many writes none reaches the disk, and the system says which file it was about."""
    numbers = count()

    def fail(descriptor: int) -> None:
        if next(numbers) >= writes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"/data/{canaries['path that the system quotes']}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        yield


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for TMPDIR with a short path, since sockets lie in it."""
    with TemporaryDirectory(prefix="cm-") as folder:
        yield Path(folder)


def test_a_kill_and_a_crash_leave_no_trace(tmp_path: Path, temporary: Path, canaries: Canaries) -> None:
    """A run is killed under way, and its worker process does not outlive it; the next run loses its worker to a note, and goes on."""
    rows = note_rows(5, 100)
    rows[3] |= {"text": f"{rows[3]['text']} {CRASH} {canaries['text that crashes']}", "note_id": canaries["id of what crashes"]}
    notes, output = plant(tmp_path / "notes", canaries), tmp_path / "out"
    write_notes(notes / "crash.parquet", rows)
    worker = ("--", "--direct_running_mode=multi_processing", "--direct_num_workers=1")
    first = planted_run(notes, output, "--engine", "echo", "--set", "engine.delay_ms=200", *worker, TMPDIR=str(temporary))
    wait_until(lambda: first.poll() is not None or any(output.glob("_runs/*/commits/*.json")), 500)
    processes = children_of(first.pid)
    first.kill()
    told = [*first.communicate(timeout=60)]
    assert len(processes) == 2
    wait_until(lambda: not any(map(is_alive, processes)))
    second = planted_run(notes, output, "--engine", "echo", *worker, TMPDIR=str(temporary))
    told += second.communicate(timeout=600)
    assert second.returncode == 0 and "a worker process died; it goes on" in told[-1], told[-1]
    for text in told:
        canaries.assert_absent("what a run said", text)
    for path in temporary.rglob("*"):
        canaries.assert_absent("a temporary file", path.name.encode() + (path.read_bytes() if path.is_file() else b""))
    assert_files_clean(output, canaries)
    assert_private(output)
    assert (canaries["id of what crashes"], "CRASHED") in [(row["note_id"], row["reason"]) for row in read_rows(output, "rejections")]
