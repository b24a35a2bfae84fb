"""The store on disk and on S3: the same promises, tested the same way."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from schemas.errors import ConfigurationError
from transforms.store import Encryption, LocalStore, NotFound, S3Store, Store, open_store, s3_client

KMS_KEY = os.environ.get("CHARTMILL_TEST_S3_KMS_KEY", "k")


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.s3)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "disk":
        return open_store(str(tmp_path / "out"))
    return open_store(f"s3://{request.getfixturevalue('bucket')}/some/prefix", Encryption("kms", KMS_KEY))


def test_put_replaces_and_get_returns(store: Store) -> None:
    store.put("a/b.json", b"one")
    store.put("a/b.json", b"two")
    assert store.get("a/b.json") == b"two"
    assert store.exists("a/b.json")


def test_a_missing_object(store: Store) -> None:
    assert not store.exists("nothing")
    store.delete("nothing")
    with pytest.raises(NotFound):
        store.get("nothing")


def test_put_once_keeps_the_first(store: Store) -> None:
    assert store.put_once("k/x", b"first")
    assert not store.put_once("k/x", b"second")
    assert store.get("k/x") == b"first"


def test_of_many_writers_exactly_one_wins(store: Store) -> None:
    won: list[int] = []
    barrier = threading.Barrier(8)

    def write(number: int) -> None:
        barrier.wait()
        if store.put_once("race", str(number).encode()):
            won.append(number)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.get("race") == str(won[0]).encode()


def test_list_is_below_the_folder_and_relative(store: Store) -> None:
    for key in ("x/1", "x/y/2", "z/3"):
        store.put(key, b"12345")
    assert {e.key: e.size for e in store.list("x/")} == {"x/1": 5, "x/y/2": 5}
    assert list(store.list("nowhere/")) == []


def test_folders_are_those_right_below(store: Store) -> None:
    for key in ("x/1", "x/y/2", "x/z/w/3", "z/3"):
        store.put(key, b"")
    assert store.folders("x/") == ("y", "z")
    assert store.folders("nowhere/") == ()


def test_delete(store: Store) -> None:
    store.put("gone", b"")
    store.delete("gone")
    assert not store.exists("gone")


def test_disk_files_are_private_and_leave_nothing_temporary(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "out")
    store.put("a/b", b"x")
    store.put_once("a/c", b"x")
    store.put_once("a/c", b"y")
    assert sorted(os.listdir(tmp_path / "out" / "a")) == ["b", "c"]
    assert (tmp_path / "out" / "a" / "b").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "out" / "a").stat().st_mode & 0o777 == 0o700


def test_what_a_kill_leaves_is_neither_listed_nor_kept(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a/b", b"x")
    (tmp_path / "a" / ".tmp-deadbeef").write_bytes(b"half")
    assert [e.key for e in store.list("a/")] == ["a/b"]
    assert store.sweep_temporary(3600) == 0
    assert store.sweep_temporary(-1) == 1


@pytest.mark.s3
def test_s3_objects_carry_the_encryption_asked_for(bucket: str) -> None:
    keyed = S3Store(bucket, "", Encryption("kms", KMS_KEY))
    keyed.put("one", b"x")
    keyed.put_once("two", b"x")
    for key in ("one", "two"):
        head = s3_client().head_object(Bucket=bucket, Key=key)
        assert head["ServerSideEncryption"] == "aws:kms"
        assert head["SSEKMSKeyId"].endswith("k")


def test_s3_without_encryption_settings_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"output\.encryption: not set.*mode=bucket"):
        open_store("s3://bucket/prefix")


@pytest.mark.parametrize(("uri", "says"), [("gs://x/y", "unknown scheme 'gs'"), ("s3:///x", "bucket name")])
def test_unusable_uris_are_refused(uri: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        open_store(uri, Encryption("bucket"))
