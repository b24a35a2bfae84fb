"""Worker processes of FnApiRunner: one that dies ends the run, a run that is interrupted ends them, and none of them outlives it.

Left alone, Beam waits for ever for the answer of one that is dead and, when it is interrupted, for the end of whole bundles: hours.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import grpc  # type: ignore[import-untyped]
from apache_beam.portability import python_urns
from apache_beam.portability.api import beam_fn_api_pb2_grpc, endpoints_pb2
from apache_beam.runners.portability.fn_api_runner.worker_handlers import (
    EmbeddedGrpcWorkerHandler,
    SubprocessSdkWorkerHandler,
    WorkerHandler,
)
from apache_beam.runners.portability.local_job_service import BeamFnLoggingServicer
from apache_beam.utils.thread_pool_executor import shared_unbounded_instance
from google.protobuf import json_format, text_format  # type: ignore[import-untyped]

from pipeline.interrupt import tell_killed
from pipeline.restart import tell_worker_died
from pipeline.runners import was_interrupted
from schemas.errors import ChartmillError

# Signals that ask for an end. What dies of others has crashed.
_ASKED = {-signal.SIGINT, -signal.SIGTERM, -signal.SIGHUP}


class WorkerDied(ChartmillError):
    """A process that the runner had started is gone, and with it what it was working on."""


@cache
def watch_workers() -> None:
    """Have Beam start its workers through the handlers below."""
    WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)(_Processes)
    WorkerHandler.register_environment(python_urns.EMBEDDED_PYTHON_GRPC, bytes)(_Threads)


class WorkerProcess:
    """A process that is started once, and may be killed at any time by another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._unwanted = False

    def run(self, env: Mapping[str, str]) -> int:
        """Start it and wait for its end. The exit code, negative for the signal that ended it; 0 if it was killed by `kill`."""
        command = [sys.executable, "-m", "pipeline.beam_worker", str(os.getpid())]
        with self._lock:
            if self._unwanted:
                return 0
            # Of a session of its own: Ctrl-C is for the run, which then ends it.
            self._process = subprocess.Popen(command, env=env, start_new_session=True)
        code = self._process.wait()
        return 0 if self._unwanted else code

    def kill(self) -> None:
        with self._lock:
            self._unwanted = True
            if self._process is not None and self._process.poll() is None:
                self._process.kill()
                tell_killed(self._process.pid)


class _Processes(SubprocessSdkWorkerHandler):  # type: ignore[misc]
    """Of `--direct_running_mode=multi_processing`."""

    def start_worker(self) -> None:
        self.worker = WorkerProcess()
        self.worker_thread = threading.Thread(name="run_worker", target=self._run, daemon=True)
        self.worker_thread.start()

    def _run(self) -> None:
        with _log_server() as address:
            code = self.worker.run(self._environment(address))
        if code in _ASKED:
            self.control_conn.abort(KeyboardInterrupt())
        elif code:
            tell_worker_died()
            self.control_conn.abort(WorkerDied("a worker process died; run again: what is committed stays"))

    def _environment(self, log_address: str) -> dict[str, str]:
        """What Beam's worker reads; see SubprocessSdkWorker in Beam's local_job_service.py."""
        return {
            **os.environ,
            "CONTROL_API_SERVICE_DESCRIPTOR": _descriptor(self.control_address),
            "LOGGING_API_SERVICE_DESCRIPTOR": _descriptor(log_address),
            "PIPELINE_OPTIONS": json_format.MessageToJson(self.provision_info.provision_info.pipeline_options),
            "WORKER_ID": self.worker_id,
        }

    def close(self) -> None:
        if _is_interrupted():
            self.worker.kill()
            self.control_conn.abort(KeyboardInterrupt())
        super().close()


class _Threads(EmbeddedGrpcWorkerHandler):  # type: ignore[misc]
    """Of `--direct_running_mode=multi_threading`: threads of this process, which end with it."""

    def close(self) -> None:
        if not _is_interrupted():
            super().close()


def _is_interrupted() -> bool:
    """Whether Beam is tidying up after an interrupt; then its threads keep silent about the streams that break."""
    if not was_interrupted(sys.exc_info()[1]):
        return False
    _keep_silent()
    return True


@cache
def _keep_silent() -> None:
    tell = threading.excepthook

    def tell_others(failure: threading.ExceptHookArgs) -> None:
        if not issubclass(failure.exc_type, grpc.RpcError):
            tell(failure)

    threading.excepthook = tell_others


def _descriptor(address: str) -> str:
    return str(text_format.MessageToString(endpoints_pb2.ApiServiceDescriptor(url=address)))


@contextmanager
def _log_server() -> Iterator[str]:
    """The address at which a worker can log."""
    server: Any = grpc.server(shared_unbounded_instance())
    beam_fn_api_pb2_grpc.add_BeamFnLoggingServicer_to_server(BeamFnLoggingServicer(), server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    try:
        yield f"localhost:{port}"
    finally:
        server.stop(0)
