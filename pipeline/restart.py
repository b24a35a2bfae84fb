"""A run that takes its process with it is started again, by a parent that does nothing but wait.

A crash in native code, a lack of memory, a step that never ends: nothing of that can be caught where it happens. The parent forks before
anything heavy is imported, so a child costs no second start; the shards that were under way are then done note by note (`isolate`).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from transforms import pulse

# So many deaths are too many for notes to be at fault; every one of them has set at least one shard apart.
MOST_DEATHS = 5
# How a child says that a worker process of its runner died: EX_TEMPFAIL of sysexits.h.
_WORKER_DIED = 75
_POLL_S = 1.0
# A poll that took this much longer means that this process, and so its child, was stopped (Ctrl-Z, a machine that sleeps).
_STOPPED_S = 5.0
_ENDING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_SENT_BY_A_PROCESS = 0  # si_code SI_USER; what a terminal sends goes to the child by itself
_KILL_WITH_PARENT = 1  # PR_SET_PDEATHSIG

_deaths = 0
_worker_died = False


def deaths() -> int:
    """How often the run that this process goes on with has died before."""
    return _deaths


def tell_worker_died() -> None:
    """Called in the child: what it fails with is a death, and worth another start."""
    global _worker_died
    _worker_died = True


def started_again(body: Callable[[], int], most: int = MOST_DEATHS) -> int:
    """The exit code of `body`, which runs in a forked child, and in another one when that dies or hangs, `most` times at most.

    Signals that end a process are passed on to the child. Where the system cannot do this (no sigtimedwait) or this process has threads,
    `body` runs here, once.
    """
    global _deaths
    if not hasattr(signal, "sigtimedwait") or threading.active_count() > 1:
        return body()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_ENDING, signal.SIGCHLD})
    try:
        while True:
            code = _life(body, before)
            if code != _WORKER_DIED and (code >= 0 or -code in _ENDING):
                return code if code >= 0 else 128 - code
            _deaths += 1
            how = "a worker process died" if code == _WORKER_DIED else f"the run died ({signal.Signals(-code).name})"
            if _deaths > most:
                print(f"error: {how}, after {most} deaths before; what is committed stays", file=sys.stderr, flush=True)
                return 1
            print(f"{how}; it goes on, and what was under way is done note by note", file=sys.stderr, flush=True)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _life(body: Callable[[], int], mask: set[signal.Signals | int]) -> int:
    """Exit code of one child, negative for the signal that killed it."""
    pulse.forget()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return _wait(pid)
    code = 1
    try:
        die_with(parent)
        _leave_no_core()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        code = body()
        if _worker_died and code:
            code = _WORKER_DIED
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        # Not by way of the interpreter's end, which waits for threads: of a run that was interrupted some may still decode.
        os._exit(code)


def _wait(pid: int) -> int:
    """Until the child ends; kills it when it hangs. The signals are blocked, so that each is taken here and none is lost."""
    while True:
        began = time.monotonic()
        told = signal.sigtimedwait({*_ENDING, signal.SIGCHLD}, _POLL_S)
        if told is not None and told.si_signo in _ENDING and told.si_code == _SENT_BY_A_PROCESS:
            os.kill(pid, told.si_signo)
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        waited = time.monotonic() - began
        if waited > _POLL_S + _STOPPED_S:
            pulse.extend(waited)
        elif 0 < pulse.silent_until() < time.monotonic():
            os.kill(pid, signal.SIGKILL)


def _leave_no_core() -> None:
    """What the system writes of a process that dies, and of its children, would hold notes."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent is killed: nobody would know of it any more."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_KILL_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
