"""Doctor's check that nothing can leave: connections to well-known public hosts, which on a closed network must all fail."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator, Sequence

from pipeline.doctor_finding import Finding, failed, ok, warning

# Hosts that packages, models and code come from, and two public resolvers by their addresses, for networks without names.
PUBLIC_HOSTS = (("pypi.org", 443), ("huggingface.co", 443), ("github.com", 443), ("1.1.1.1", 443), ("8.8.8.8", 53))
TIMEOUT_S = 2.0
_PROXIES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY")


def check_egress(hosts: Sequence[tuple[str, int]] = PUBLIC_HOSTS) -> Iterator[Finding]:
    """Fails when any host accepts a TCP connection within two seconds. Nothing is sent."""
    reached = reachable(hosts)
    names = ", ".join(host for host, _ in hosts)
    if reached:
        todo = "close the network: private subnets, security groups without egress, VPC endpoints for what AWS is needed for"
        yield failed("no egress", f"can be reached from here: {', '.join(host for host, _ in reached)}", todo)
    else:
        yield ok("no egress", f"cannot be reached from here within {TIMEOUT_S:g} s: {names}")
    proxies = sorted({name for name in os.environ if name.upper() in _PROXIES and os.environ[name]})
    if proxies:
        yield warning("proxy", f"set here, and may lead out: {', '.join(proxies)}", "unset them, or see what the proxy lets through")


def reachable(hosts: Sequence[tuple[str, int]], timeout_s: float = TIMEOUT_S) -> list[tuple[str, int]]:
    """The hosts that accept a connection. All are tried at once; looking up a name counts as part of the time."""
    reached: list[tuple[str, int]] = []
    # Daemons: a name server that does not answer would hold the process for longer than the time-out.
    threads = [threading.Thread(target=_try, args=(host, timeout_s, reached), daemon=True) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * timeout_s)
    return [host for host in hosts if host in reached]


def _try(host: tuple[str, int], timeout_s: float, reached: list[tuple[str, int]]) -> None:
    try:
        with socket.create_connection(host, timeout_s):
            reached.append(host)
    except OSError:
        pass
