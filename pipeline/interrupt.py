"""SIGTERM ends a run as Ctrl-C does: the shard under way is dropped, what is committed stays, and running again goes on."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from schemas.errors import ChartmillError
from transforms.batch import StorageFailure
from transforms.ledger import forget_attempts_since
from transforms.private_files import TEMPORARY
from transforms.store import LocalStore, Store, storage_errors

_killed: set[int] = set()


@contextmanager
def stopped_by_sigterm() -> Iterator[None]:
    """In the body SIGTERM raises KeyboardInterrupt, once. The first process of a container would not even notice it otherwise.

    Only a process' main thread may handle signals; in others this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(number: int, frame: Any) -> None:
    # Whoever stops a machine may ask several times; the tidying up must not be interrupted.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


@contextmanager
def attempts_dropped(store: Store, version: str, shards: Set[str]) -> Iterator[None]:
    """When the body is interrupted, or the storage fails, take away the marks of the shards that were under way: it is not their fault.

    And what workers had half written that were killed for it.
    """
    started = time.time()
    try:
        yield
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, StorageFailure, *storage_errors())):
            # A storage that fails now leaves a mark behind, which is no harm.
            with suppress(ChartmillError, *storage_errors()):
                forget_attempts_since(store, version, shards, started)
                _drop_half_written(store)
        raise


def tell_killed(pid: int) -> None:
    """Called when a worker process is killed because the run was interrupted: it may leave a file half written."""
    _killed.add(pid)


def _drop_half_written(store: Store) -> None:
    begun = tuple(f"{TEMPORARY}{pid}-" for pid in _killed)
    if begun and isinstance(store, LocalStore):
        for folder, _, names in os.walk(store.root):
            for name in (name for name in names if name.startswith(begun)):
                Path(folder, name).unlink(missing_ok=True)
