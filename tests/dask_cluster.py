"""A real Dask cluster: a scheduler and workers, each a process that is forked after the imports, over TLS.

A script, so that no test's threads are forked. Each line on stdin starts a worker; its process id comes back on stdout. Two words in a note
make a worker do what bad days do: raise an exception that quotes the note, or die.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.killed_runs import import_all
from tests.conftest import free_port, wait_for_port

ROOT = Path(__file__).resolve().parent.parent
RAISES = "unpronounceable"
DIES = "unmentionable"


@dataclass
class Cluster:
    """`workers`: process ids. `logs`: everything that scheduler and workers say, at level DEBUG."""

    address: str
    folder: Path
    process: subprocess.Popen[str]
    workers: list[int]

    def add_worker(self) -> int:
        assert self.process.stdin and self.process.stdout
        print(file=self.process.stdin, flush=True)
        self.workers.append(int(self.process.stdout.readline()))
        return self.workers[-1]

    def kill_worker(self) -> None:
        os.kill(self.workers.pop(), signal.SIGKILL)

    def bury(self) -> None:
        """Forget the workers that are dead."""
        self.workers = [pid for pid in self.workers if Path(f"/proc/{pid}").exists()]

    def logs(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))


def tls_settings(folder: Path) -> dict[str, str]:
    """Dask's settings for both ends of a connection; the certificate vouches for itself."""
    tls = "distributed.comm.tls"
    ends = {f"{tls}.{end}.{part}": str(folder / f"{part}.pem") for end in ("client", "scheduler", "worker") for part in ("cert", "key")}
    return {f"{tls}.ca-file": str(folder / "cert.pem"), **ends}


def make_certificate(folder: Path) -> None:
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "dask.example.com")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
    certificate = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256())
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(key.private_bytes(*form))


@contextmanager
def running_cluster(folder: Path, workers: int) -> Iterator[Cluster]:
    make_certificate(folder)
    address = f"tls://127.0.0.1:{free_port()}"
    # One death more than this, and Dask gives a task up.
    settings = tls_settings(folder) | {"distributed.comm.require-encryption": "True", "distributed.scheduler.allowed-failures": "1"}
    variables = {f"DASK_{name.replace('.', '__').replace('-', '_').upper()}": value for name, value in settings.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.dask_cluster", address, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables, "DASK_LOGGING__DISTRIBUTED": "debug", "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    try:
        cluster = Cluster(address, folder, process, [])
        for _ in range(workers):
            cluster.add_worker()
        yield cluster
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def fork(what: Callable[[], Coroutine[Any, Any, None]], log: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        asyncio.run(what())
    finally:
        os._exit(0)


async def schedule(port: int) -> None:
    from distributed import Scheduler

    async with Scheduler(host="127.0.0.1", port=port, protocol="tls", dashboard=False) as scheduler:
        await scheduler.finished()


async def work(address: str, folder: Path) -> None:
    from distributed import Worker

    async with Worker(address, nthreads=1, local_directory=str(folder / "scratch"), dashboard=False) as worker:
        await worker.finished()


def have_bad_days() -> None:
    """Let the two words do what they say."""
    import pipeline.direct

    real = pipeline.direct.generate_batch

    def generate_batch(batch: Any, *args: Any, **kwargs: Any) -> Any:
        texts = batch.column("text")
        if any(DIES in text for text in texts):
            os.kill(os.getpid(), signal.SIGKILL)
        if any(RAISES in text for text in texts):
            try:
                raise KeyError(texts)
            except KeyError as error:
                raise ValueError(f"cannot convert {texts!r}", batch.notes.to_pylist()) from error
        return real(batch, *args, **kwargs)

    pipeline.direct.generate_batch = generate_batch


def main() -> None:
    address, folder = sys.argv[1], Path(sys.argv[2])
    port = int(address.rpartition(":")[2])
    # Nobody waits for those that are killed.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # So that forks have it already.
    import_all(torch=False)
    importlib.import_module("distributed")
    have_bad_days()
    fork(lambda: schedule(port), folder / "scheduler.log")
    wait_for_port(port, 60)
    for number, _ in enumerate(sys.stdin):
        print(json.dumps(fork(lambda: work(address, folder), folder / f"worker-{number}.log")), flush=True)


if __name__ == "__main__":
    main()
