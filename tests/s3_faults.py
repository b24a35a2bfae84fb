"""A proxy before an S3 server that has bad days: it refuses, resets, keeps silent, cuts and dawdles, each for its share of the requests.

What happens to the n-th request of a method depends on the seed alone. The proxy can also refuse by a rule (credentials, clocks) and tell
another time than the machine's.
"""

from __future__ import annotations

import http.client
import os
import random
import re
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any
from urllib.parse import urlparse

import pytest

SLOW_DOWN, RESET, TIME_OUT, TRUNCATED, SLOW = FAULTS = ("slow down", "reset", "time-out", "truncated", "slow first byte")
# In each block of so many requests a fault comes exactly as often as its share says: no luck, however short the test.
_BLOCK = 20
_SLOW_S = 0.15
_MOST_PATIENT_S = 30.0
_PER_HOP = ("connection", "expect", "transfer-encoding", "content-length", "server")
_LISTED_TIME = re.compile(rb"<LastModified>([^<]+)</LastModified>")
# How long clients wait where a proxy may be silent, and where it never is: a busy machine must not look like that.
_IMPATIENT_S, _PATIENT_S = 1.0, 25.0

# Method and headers of a request -> the code with which it is refused; empty to let it pass.
Refuse = Callable[[str, Mapping[str, str]], str]
_STATUS = {"SlowDown": 503}


def schedule(shares: Mapping[str, float], seed: object) -> Iterator[str]:
    """Faults without end, "" for none: shares (0-1, multiples of 1/20) of each block, in an order that the seed decides."""
    chance = random.Random(str(seed))
    block = [fault for fault, share in shares.items() for _ in range(round(share * _BLOCK))]
    block += [""] * (_BLOCK - len(block))
    while True:
        chance.shuffle(block)
        yield from block


class FaultyS3(ThreadingHTTPServer):
    """`faults`: how often each has been met, by `METHOD fault`. `refuse`, and `clock_s` (seconds that its clock is ahead), may change."""

    daemon_threads = True

    def __init__(self, real: str, shares: Mapping[str, float], seed: int) -> None:
        super().__init__(("127.0.0.1", 0), _Relay)
        self.real = urlparse(real).netloc
        self.faults: Counter[str] = Counter()
        self.requests = 0
        self.refuse: Refuse | None = None
        self.clock_s = 0.0
        self._shares, self._seed = shares, seed
        self._schedules: dict[str, Iterator[str]] = {}
        self._resets = count()
        self._lock = threading.Lock()

    @property
    def is_silent(self) -> bool:
        """Whether it leaves some requests without an answer."""
        return TIME_OUT in self._shares

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def next_fault(self, method: str) -> str:
        with self._lock:
            self.requests += 1
            mine = self._schedules.setdefault(method, schedule(self._shares, f"{self._seed} {method}"))
            fault = next(mine)
            if fault:
                self.faults[f"{method} {fault}"] += 1
            return fault

    def met(self, fault: str) -> int:
        return sum(times for name, times in self.faults.items() if name.endswith(f" {fault}"))

    def before_forwarding(self) -> bool:
        """Whether this time the request is lost; otherwise its answer is."""
        return next(self._resets) % 2 == 0

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients are killed, or lose patience, in the middle of requests here."""


class _Relay(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyS3

    def _relay(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        code = self.server.refuse(self.command, self.headers) if self.server.refuse else ""
        fault = "" if code else self.server.next_fault(self.command)
        if code or fault == SLOW_DOWN:
            self._refuse(code or "SlowDown")
            return
        if fault in (RESET, TIME_OUT) and self.server.before_forwarding():
            self._vanish(fault)
            return
        status, headers, whole = self._asked(body)
        if fault in (RESET, TIME_OUT):
            self._vanish(fault)
            return
        time.sleep(_SLOW_S if fault == SLOW else 0)
        self._answer(status, headers, whole, cut=fault == TRUNCATED)

    def _asked(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """What the real server answers."""
        connection = http.client.HTTPConnection(self.server.real, timeout=30)
        try:
            connection.request(self.command, self.path, body, {n: v for n, v in self.headers.items() if n.lower() not in _PER_HOP})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def _refuse(self, code: str) -> None:
        xml = f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>No.</Message><RequestId>1</RequestId></Error>"
        self._answer(_STATUS.get(code, 403), {"Content-Type": "application/xml"}, xml.encode())

    def _vanish(self, fault: str) -> None:
        """Without an answer: at once, by a reset, or when the client has given up."""
        self.close_connection = True
        if fault == TIME_OUT:
            select.select([self.connection], [], [], _MOST_PATIENT_S)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes, cut: bool = False) -> None:
        told = {name: value for name, value in headers.items() if name.lower() not in _PER_HOP}
        told, body = _shifted(told, body, self.server.clock_s)
        length = next((v for n, v in headers.items() if n.lower() == "content-length"), "0") if self.command == "HEAD" else str(len(body))
        lines = [f"HTTP/1.1 {status} {self.responses.get(status, ('',))[0]}", *(f"{n}: {v}" for n, v in told.items())]
        head = "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()
        content = b"" if self.command == "HEAD" else body
        if cut:
            self.close_connection = True
            head, content = (head, content[: len(content) // 2]) if len(content) > 1 else (head[: len(head) // 2], b"")
        self.wfile.write(head + content)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _relay

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _shifted(headers: Mapping[str, str], body: bytes, seconds: float) -> tuple[dict[str, str], bytes]:
    """The same, told by a clock that is ahead."""
    if not seconds:
        return dict(headers), body
    ahead = timedelta(seconds=seconds)

    def listed(found: re.Match[bytes]) -> bytes:
        moment = datetime.fromisoformat(found[1].decode()).astimezone(UTC) + ahead
        return f"<LastModified>{moment:%Y-%m-%dT%H:%M:%S}.000Z</LastModified>".encode()

    told = dict(headers)
    for name in [name for name in told if name.lower() in ("last-modified", "date")]:
        told[name] = format_datetime(parsedate_to_datetime(told[name]) + ahead, usegmt=True)
    return told, _LISTED_TIME.sub(listed, body)


@dataclass
class Expiring:
    """Refuses everything with one code after so many requests, until it is renewed."""

    after: int
    code: str = "ExpiredToken"
    refused: int = 0
    _seen: Iterator[int] = field(default_factory=count)

    def __call__(self, method: str, headers: Mapping[str, str]) -> str:
        if next(self._seen) < self.after:
            return ""
        self.refused += 1
        return self.code

    def renew(self) -> None:
        self.after = 1 << 60


@contextmanager
def faulty_s3(endpoint: str, shares: Mapping[str, float] | None = None, seed: int = 0) -> Iterator[FaultyS3]:
    """The proxy before `endpoint`, in threads of this process."""
    with FaultyS3(endpoint, shares or {}, seed) as proxy:
        threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield proxy
        finally:
            proxy.shutdown()


@contextmanager
def reached_through(proxy: FaultyS3) -> Iterator[FaultyS3]:
    """In the body this process' S3 clients are new ones that know the proxy's address only, and pause for thousandths of seconds."""
    from botocore.retries.standard import ExponentialBackoff

    backoff = {"throttling_base_scale": 0.004, "non_throttling_base_scale": 0.002}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", proxy.url)
        patch.setattr(ExponentialBackoff, "_DEFAULT_BACKOFF_CONFIG", backoff)
        patch.setattr("transforms.store.S3_READ_S", _IMPATIENT_S if proxy.is_silent else _PATIENT_S)
        _forget_clients()
        try:
            yield proxy
        finally:
            _forget_clients()


def _forget_clients() -> None:
    from transforms import store
    from transforms.store_retries import take_retries

    store._s3_client.cache_clear()
    take_retries()
