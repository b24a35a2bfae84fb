"""A storage that refuses, resets, is silent, cuts and dawdles: the rows are those of an undisturbed run, and the report counts retries.

The server is moto's, or the real one that CHARTMILL_TEST_S3_ENDPOINT names; the faults are those of tests/s3_faults.py before it.
"""

from __future__ import annotations

import io
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Job
from pipeline.report import render_report
from pipeline.run import run_job
from schemas.errors import ChartmillError
from schemas.reasons import RETRIES
from tests.canaries import LENIENT as LENIENT_OPTIONS
from tests.canaries import Canaries, Said, assert_files_clean, command, data_of, plant
from tests.conftest import all_rows, echo_job, note_rows, write_notes
from tests.s3_faults import FAULTS, RESET, SLOW, SLOW_DOWN, TIME_OUT, TRUNCATED, FaultyS3, faulty_s3, reached_through, schedule
from tests.test_resume import LENIENT
from tests.test_s3 import KMS, KMS_KEY, download, keys, upload
from transforms.s3_file import ObjectFile
from transforms.store import S3_ATTEMPTS, Encryption, NotFound, S3Store
from transforms.store_retries import take_retries

pytestmark = pytest.mark.s3

# What the fault is counted as; a dawdling server is waited for.
COUNTED = {
    SLOW_DOWN: {"throttled"},
    RESET: {"connection"},
    TIME_OUT: {"timeout"},
    TRUNCATED: {"broken_body", "connection", "server_error"},
    SLOW: set(),
}
Rows = dict[str, list[dict[str, Any]]]


@contextmanager
def bad_day(endpoint: str, *faults: str, share: float = 0.1, seed: int = 1) -> Iterator[FaultyS3]:
    with faulty_s3(endpoint, dict.fromkeys(faults, share), seed) as proxy, reached_through(proxy):
        yield proxy


def test_faults_come_as_often_as_they_should_and_are_the_same_again() -> None:
    drawn = [fault for fault, _ in zip(schedule(dict.fromkeys(FAULTS, 0.1), 7), range(200), strict=False)]
    assert Counter(drawn) == dict.fromkeys(FAULTS, 20) | {"": 100}
    assert drawn == [fault for fault, _ in zip(schedule(dict.fromkeys(FAULTS, 0.1), 7), range(200), strict=False)]


def test_the_report_page_tells_them() -> None:
    page = render_report({"retries": {"throttled": 1234, "timeout": 1}})
    assert "Requests to S3 that were sent again" in page and RETRIES["throttled"] in page and "1,234" in page
    assert "Requests to S3" not in render_report({"retries": {}})


# --- the store


def use_store(bucket: str) -> dict[str, int]:
    """Do all that a store can do; gives the retries that were counted."""
    store = S3Store(bucket, "out/", Encryption("kms", KMS_KEY))
    for number in range(8):
        store.put(f"a/{number}", b"x" * number)
        assert store.get(f"a/{number}") == b"x" * number
        assert store.exists(f"a/{number}") and not store.exists("a/none")
        assert len(list(store.list("a/"))) == number + 1
        store.delete(f"gone/{number}")
    with pytest.raises(NotFound):
        store.get("a/none")
    return take_retries()


@pytest.mark.parametrize("fault", [SLOW_DOWN, *(pytest.param(fault, marks=pytest.mark.slow) for fault in FAULTS[1:])])
def test_the_store_does_what_it_says_and_counts_each_retry(fault: str, bucket: str, s3_endpoint: str) -> None:
    with bad_day(s3_endpoint, fault, share=0.2) as proxy:
        retries = use_store(bucket)
    counted, met = sum(retries.values()), proxy.met(fault)
    assert met >= 4
    # Of an answer whose body says nothing it is no matter how it ends.
    assert 0 < counted <= met if fault == TRUNCATED else counted == (0 if fault == SLOW else met), retries
    assert retries.keys() <= COUNTED[fault] and retries.keys() <= RETRIES.keys()


@pytest.mark.slow
def test_put_once_stands_once_whatever_is_lost(bucket: str, s3_endpoint: str) -> None:
    """A retried put may find its own object, so the answer may be False; what stands is what the first that came through has put."""
    store = S3Store(bucket, "out/", Encryption("kms", KMS_KEY))
    with bad_day(s3_endpoint, RESET, TIME_OUT, TRUNCATED) as proxy:
        won = [(store.put_once(f"k/{n}", b"first"), store.put_once(f"k/{n}", b"second")) for n in range(20)]
        assert [store.get(f"k/{n}") for n in range(20)] == [b"first"] * 20
    assert not any(second for _, second in won)
    assert any(not first for first, _ in won) and proxy.faults.keys() >= {f"PUT {RESET}", f"PUT {TIME_OUT}", f"PUT {TRUNCATED}"}


def test_a_storage_that_never_answers_is_given_up(bucket: str, s3_endpoint: str) -> None:
    from botocore.exceptions import ClientError

    with faulty_s3(s3_endpoint) as proxy, reached_through(proxy):
        proxy.refuse = lambda method, headers: "SlowDown"
        with pytest.raises(ClientError):
            S3Store(bucket, "out/", Encryption("kms", KMS_KEY)).get("a")
        assert take_retries() == {"throttled": S3_ATTEMPTS}


@pytest.mark.slow
def test_an_object_is_read_in_ranges_whatever_breaks(bucket: str, s3_endpoint: str) -> None:
    data = random.Random(5).randbytes(50_000)
    S3Store(bucket, "in/", Encryption("kms", KMS_KEY)).put("large", data)
    with bad_day(s3_endpoint, SLOW_DOWN, RESET, TRUNCATED, share=0.15):
        file = ObjectFile(f"s3://{bucket}/in/large")
        for start in range(0, 50_000, 7_001):
            file.seek(start - 50_000, 2)
            assert file.tell() == start and file.read(9_999) == data[start : start + 9_999]
        assert file.read(1) == b"" and io.BufferedReader(ObjectFile(f"s3://{bucket}/in/large"), 4096).read() == data
    file = ObjectFile(f"s3://{bucket}/in/large")
    S3Store(bucket, "in/", Encryption("kms", KMS_KEY)).put("large", data[::-1])
    with pytest.raises(ChartmillError, match="changed or vanished while it was read"):
        file.read(10)


# --- whole runs


@pytest.fixture
def notes(tmp_path: Path, bucket: str) -> Path:
    """50 notes, lines of JSON and a file that is none, on disk and under `in/` of the bucket."""
    folder = tmp_path / "notes"
    write_notes(folder / "a.parquet", note_rows(18), row_group_size=7)
    write_notes(folder / "b.parquet", note_rows(20, 18))
    (folder / "c.parquet").write_bytes(b"not parquet")
    (folder / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in note_rows(12, 38)))
    upload(folder, bucket, "in")
    return folder


@pytest.fixture
def straight(notes: Path, tmp_path: Path) -> Rows:
    """The rows of an undisturbed run on disk."""
    assert run_job(echo_job(notes, tmp_path / "straight", **LENIENT)).exit_code == 0
    return all_rows(tmp_path / "straight")


def job(bucket: str, **settings: Any) -> Job:
    return echo_job(f"s3://{bucket}/in/", f"s3://{bucket}/out/", **{**LENIENT, **KMS, **settings})


def assert_same(bucket: str, straight: Rows, output: Path) -> dict[str, Any]:
    """Nothing lost, nothing doubled, nothing left over; gives the report."""
    download(bucket, "out/", output)
    assert all_rows(output) == straight
    ids = [row["note_id"] for row in straight["summaries"]]
    assert len(ids) == len(set(ids)) == 50
    live = json.loads((output / json.loads((output / "_CURRENT.json").read_text())["live"]).read_text())["shards"]
    listed = {path.relative_to(output).as_posix() for path in output.glob("*/version=*/*.parquet")}
    assert listed == {path for files in live.values() for path in files.values()}
    assert (output / "_SUCCESS").is_file()
    return dict(json.loads((output / "report.json").read_text()))


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_with_one_request_in_ten_failing(fault: str, bucket: str, straight: Rows, tmp_path: Path, s3_endpoint: str) -> None:
    with bad_day(s3_endpoint, fault) as proxy:
        outcome = run_job(job(bucket))
        assert outcome.exit_code == 0 and outcome.published.released
    report = assert_same(bucket, straight, tmp_path / "out")
    assert proxy.met(fault) >= 8, proxy.faults
    # What publishing met after it had written the report is not in it.
    assert sum(report["retries"].values()) <= proxy.met(fault)
    assert COUNTED[fault] >= report["retries"].keys() and bool(report["retries"]) == (fault != SLOW)
    assert fault == SLOW or sum(report["retries"].values()) >= proxy.met(fault) // 2


@pytest.mark.slow
def test_all_faults_at_once_are_shown_in_the_report(
    bucket: str, straight: Rows, tmp_path: Path, s3_endpoint: str, said: Said, capfd: pytest.CaptureFixture[str]
) -> None:
    """One request in four: the command line tells how many were sent again."""
    settings = ("--set", "output.encryption.mode=kms", "--set", f"output.encryption.kms_key={KMS_KEY}")
    where = ("--input", f"s3://{bucket}/in/", "--output", f"s3://{bucket}/out/", "--engine", "echo", "--shard-notes", "10")
    with bad_day(s3_endpoint, *FAULTS, share=0.05):
        assert command(capfd, said, "run", *where, *settings, *LENIENT_OPTIONS, "--json") == 0
    report = assert_same(bucket, straight, tmp_path / "out")
    out = said.parts[0][1]
    assert report["retries"].keys() >= {"throttled", "connection", "timeout"}
    assert re.search(rf"sent again to S3 +{sum(report['retries'].values())} ", out)
    assert json.loads(out.splitlines()[-1])["report"]["retries"] == report["retries"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Requests to S3 that were sent again" in page and RETRIES["throttled"] in page


@pytest.mark.slow
def test_one_request_in_two_failing_stops_runs_but_loses_nothing(bucket: str, straight: Rows, tmp_path: Path, s3_endpoint: str) -> None:
    """All five faults, each at 10 %: more than any client bears for long. Runs that give up say so, and later ones go on."""
    given_up = []
    with bad_day(s3_endpoint, *FAULTS) as proxy:
        for _ in range(12):
            try:
                outcome = run_job(job(bucket))
            except ChartmillError as error:
                given_up.append(str(error))
                continue
            if outcome.exit_code == 0:
                break
    assert outcome.published.released, given_up
    assert_same(bucket, straight, tmp_path / "out")
    assert sum(proxy.faults.values()) >= 100 and {name.split(" ", 1)[1] for name in proxy.faults} == set(FAULTS)


@pytest.mark.slow
def test_a_bad_day_quotes_nothing(
    bucket: str, tmp_path: Path, canaries: Canaries, said: Said, s3_endpoint: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Canaries in every place, every fault, and a storage that gives up in the middle."""
    upload(plant(tmp_path / "notes", canaries), bucket, "in")
    settings = ("--set", "output.encryption.mode=kms", "--set", f"output.encryption.kms_key={KMS_KEY}", *LENIENT_OPTIONS)
    where = ("--input", f"s3://{bucket}/in/", "--output", f"s3://{bucket}/out/", "--engine", "echo", "--shard-notes", "5")
    with bad_day(s3_endpoint, *FAULTS, share=0.05) as proxy:
        calm = proxy.requests
        assert command(capfd, said, "run", *where, *settings, "--set", "run.limit=20") == 0
        half = (proxy.requests - calm) // 2
        for after in (0, 3, half):
            seen = proxy.requests + after
            proxy.refuse = lambda method, headers, seen=seen: "SlowDown" if proxy.requests >= seen else ""
            assert command(capfd, said, "run", *where, *settings, "--json", "--log-format", "json") == 1
            assert "S3 kept asking for fewer requests" in said.parts[-1][1] or "storage failed" in said.parts[-1][1]
        proxy.refuse = None
        assert command(capfd, said, "run", *where, *settings, "--json") == 0
    said.assert_clean(canaries)
    output = download(bucket, "out/", tmp_path / "out")
    assert_files_clean(output, canaries)
    assert canaries["note id"] in data_of(output) and keys(bucket, "out/_SUCCESS")
