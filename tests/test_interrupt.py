"""SIGTERM is an interrupt: asked for once, felt in the main thread, and no shard is blamed for it."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from pipeline.interrupt import attempts_dropped, stopped_by_sigterm, tell_killed
from transforms.ledger import attempts, mark_attempt
from transforms.store import LocalStore

VERSION = "v000000000000"


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.01)


def test_sigterm_interrupts_once() -> None:
    before = signal.getsignal(signal.SIGTERM)
    tidied = False
    with pytest.raises(KeyboardInterrupt), stopped_by_sigterm():
        try:
            terminate()
        finally:
            terminate()  # asked again while tidying up
            tidied = True
    assert tidied and signal.getsignal(signal.SIGTERM) is before


def test_other_threads_are_left_alone() -> None:
    reached: list[object] = []

    def body() -> None:
        with stopped_by_sigterm():
            reached.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert reached == [signal.getsignal(signal.SIGTERM)]


def test_marks_of_what_was_under_way_are_taken_away(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for shard in ("a", "b", "other"):
        mark_attempt(store, VERSION, shard)
    for path in (tmp_path / "_runs" / VERSION / "attempts").glob("b-*"):
        os.utime(path, (time.time() - 60,) * 2)  # an earlier crash, which counts
    with pytest.raises(KeyboardInterrupt), attempts_dropped(store, VERSION, {"a", "b"}):
        mark_attempt(store, VERSION, "b")
        raise KeyboardInterrupt
    assert attempts(store, VERSION) == {"b": 1, "other": 1}


def test_what_killed_workers_had_half_written_is_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.interrupt._killed", set())
    folder = tmp_path / "summaries" / "version=v000000000000"
    folder.mkdir(parents=True)
    for pid in (77, 777):
        (folder / f".tmp-{pid}-0123456789abcdef").write_bytes(b"half")
    tell_killed(77)
    with pytest.raises(KeyboardInterrupt), attempts_dropped(LocalStore(tmp_path), VERSION, set()):
        raise KeyboardInterrupt
    assert [path.name for path in folder.iterdir()] == [".tmp-777-0123456789abcdef"]


def test_a_crash_leaves_its_mark(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    with pytest.raises(ValueError, match="x"), attempts_dropped(store, VERSION, {"a"}):
        mark_attempt(store, VERSION, "a")
        raise ValueError("x")
    assert attempts(store, VERSION) == {"a": 1}


def test_a_storage_that_is_gone_does_not_hide_the_interrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(self: LocalStore, prefix: str) -> None:
        raise OSError("gone")

    monkeypatch.setattr(LocalStore, "list", gone)
    with pytest.raises(KeyboardInterrupt), attempts_dropped(LocalStore(tmp_path), VERSION, {"a"}):
        raise KeyboardInterrupt
