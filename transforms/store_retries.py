"""Requests to S3 that have to be sent again: reading anew what breaks off, and counts by reason for this process."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")
_BODY_ATTEMPTS = 6
_BODY_PAUSE_S = 0.05

# Where a failed attempt leaves its reason for the attempt that follows, if one does. botocore hands one context to all of them.
_FAILED = "chartmill_failed"
_THROTTLED_STATUS = (429, 503)
_counting = threading.Lock()
_counts: Counter[str] = Counter()
# A forked child would tell its parent's once more.
os.register_at_fork(after_in_child=_counts.clear)


def count_retry(reason: str) -> None:
    """One more request sent again. `reason`: one of schemas.reasons.RETRIES."""
    with _counting:
        _counts[reason] += 1


def take_retries() -> dict[str, int]:
    """What was counted since this was last called. Each count is given to one caller only."""
    with _counting:
        taken = dict(sorted(_counts.items()))
        _counts.clear()
    return taken


def watch_retries(client: Any) -> None:
    """Count what botocore itself sends again for this client."""
    client.meta.events.register("needs-retry.s3", _note_failure)
    client.meta.events.register("request-created.s3", _count_if_again)


def _note_failure(
    response: Any, caught_exception: BaseException | None, request_dict: dict[str, Any], attempts: int, **_: Any
) -> float | None:
    """Called after every attempt. Seconds after which another must follow; None leaves that to botocore."""
    cut = response is not None and _is_cut(response[0])
    if caught_exception is not None or cut:
        reason = exception_reason(caught_exception) if caught_exception else "broken_body"
    else:
        reason = _status_reason(response[0].status_code, response[1])
    if reason:
        request_dict["context"][_FAILED] = reason
    return _BODY_PAUSE_S * 2**attempts if cut and attempts < _BODY_ATTEMPTS else None


def _is_cut(response: Any) -> bool:
    """Whether an answer breaks off within its headers: for Python's HTTP client these end there, and what is missing reads as not there.

    S3 tells the length of every answer that has one, among the last of its headers.
    """
    whole = {"content-length", "transfer-encoding", "connection"}
    return response.status_code in (200, 206) and not any(name.lower() in whole for name in response.headers)


def _count_if_again(request: Any, **_: Any) -> None:
    reason = request.context.pop(_FAILED, None)
    if reason:
        count_retry(reason)


def read_object(client: Any, read: Callable[[Any], T], **where: str) -> T:
    """What `read` makes of an object's body, a binary stream. It is called again, with a new body, where one breaks off or comes damaged:
    botocore sends requests again, but does not begin again with an answer. `where`: the arguments of `get_object`.

    Raises botocore errors.
    """
    from botocore.exceptions import FlexibleChecksumError, HTTPClientError, IncompleteReadError

    for attempt in range(1, _BODY_ATTEMPTS):
        body = client.get_object(**where)["Body"]
        try:
            return read(body)
        except (FlexibleChecksumError, HTTPClientError, IncompleteReadError) as error:
            count_retry(exception_reason(error))
            time.sleep(_BODY_PAUSE_S * 2**attempt)
    return read(client.get_object(**where)["Body"])


def exception_reason(error: BaseException) -> str:
    """Why an attempt got no whole answer."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if kinds & {"ReadTimeoutError", "ConnectTimeoutError"}:
        return "timeout"
    return "broken_body" if kinds & {"ResponseStreamingError", "IncompleteReadError", "FlexibleChecksumError"} else "connection"


def _status_reason(status: int, parsed: dict[str, Any]) -> str:
    if status < 300:
        return ""
    code = parsed.get("Error", {}).get("Code")
    if status in _THROTTLED_STATUS or code == "SlowDown":
        return "throttled"
    if code == "RequestTimeout":
        return "timeout"
    return "server_error" if status >= 500 else "other"
