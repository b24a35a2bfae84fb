"""Signs of life that another process can read: until when this one may be silent before it is thought to hang.

Only work on texts is watched, in steps whose length can be told beforehand; storage and runners have time-outs of their own.
A process that holds the interpreter's lock for ever runs no thread of its own that could notice, so the watcher has to be another process:
a parent that imports this module before it forks.
"""

from __future__ import annotations

import mmap
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_TIME = struct.Struct("d")
# Shared with the children that are forked later.
_memory = mmap.mmap(-1, _TIME.size)
_lock = threading.Lock()
_at_work = 0


def silent_until() -> float:
    """Monotonic seconds; 0 while nothing is watched."""
    return _TIME.unpack_from(_memory)[0]


def _set(moment: float) -> None:
    _TIME.pack_into(_memory, 0, moment)


def beat(seconds: float) -> None:
    """A sign of life; the next one comes within so many seconds, or somebody hangs. Nothing outside of `watched`."""
    if _at_work:
        _set(time.monotonic() + seconds)


def extend(seconds: float) -> None:
    """The machine stood still for so long."""
    if moment := silent_until():
        _set(moment + seconds)


def forget() -> None:
    """Watch nothing: the process that was watched is gone."""
    _set(0.0)


@contextmanager
def watched(seconds: float) -> Iterator[None]:
    """The body gives a sign of life within so many seconds, or ends. Of several threads, one that hangs is noticed late."""
    global _at_work
    with _lock:
        _at_work += 1
    beat(seconds)
    try:
        yield
    finally:
        with _lock:
            _at_work -= 1
            if not _at_work:
                forget()
