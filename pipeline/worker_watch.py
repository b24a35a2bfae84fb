"""A worker process of FnApiRunner that dies ends the run: Beam itself would wait for its answer for ever."""

from __future__ import annotations

import threading
from functools import cache

from pipeline.restart import tell_worker_died
from schemas.errors import ChartmillError


class WorkerDied(ChartmillError):
    """A process that the runner had started is gone, and with it what it was working on."""


@cache
def watch_workers() -> None:
    """Have Beam start its worker processes through a handler that notices their death."""
    from apache_beam.portability import python_urns
    from apache_beam.runners.portability.fn_api_runner.worker_handlers import SubprocessSdkWorkerHandler, WorkerHandler
    from apache_beam.runners.portability.local_job_service import SubprocessSdkWorker

    class Watched(SubprocessSdkWorkerHandler):  # type: ignore[misc]
        def start_worker(self) -> None:
            command, address = self._worker_command_line, self.control_address
            self.worker = SubprocessSdkWorker(command, address, self.provision_info, self.worker_id)
            self.worker_thread = threading.Thread(name="run_worker", target=self._run, daemon=True)
            self.worker_thread.start()

        def _run(self) -> None:
            try:
                self.worker.run()
            except RuntimeError:  # Beam's word for an exit code
                tell_worker_died()
                self.control_conn.abort(WorkerDied("a worker process died; run again: what is committed stays"))

    WorkerHandler.register_environment(python_urns.SUBPROCESS_SDK, bytes)(Watched)
