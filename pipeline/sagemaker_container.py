"""Inside a SageMaker Processing container: which host this is, what the job is called, and the message that the job leaves behind.

SageMaker writes two JSON files under `/opt/ml/config` and shows the beginning of `/opt/ml/output/message` in DescribeProcessingJob
(https://docs.aws.amazon.com/sagemaker/latest/dg/build-your-own-processing-container.html). On any other machine there are no such files.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.hosts import Host, why_failed
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from pipeline.run import Outcome

# Where the two files are looked for, for tests.
ROOT_VARIABLE = "CHARTMILL_ML_ROOT"
_MESSAGE_BYTES = 1024
# What a host that does not publish says.
_SHORT_MESSAGE_BYTES = 48
_TRAILING_NUMBER = re.compile(r"\d+$")


def ml_root() -> Path:
    return Path(os.environ.get(ROOT_VARIABLE, "/opt/ml"))


def this_host() -> Host | None:
    """This host as SageMaker numbers it; None on any other machine. Raises ConfigurationError for files that make no sense."""
    resources = _config("resourceconfig.json")
    if resources is None:
        return None
    hosts, current = resources.get("hosts"), resources.get("current_host")
    if not isinstance(hosts, list) or current not in hosts or len(set(hosts)) != len(hosts):
        raise ConfigurationError("resourceconfig.json: current_host is not one of hosts, or hosts are not different")
    name = (_config("processingjobconfig.json") or {}).get("ProcessingJobName")
    if len(hosts) > 1 and not name:
        raise ConfigurationError("processingjobconfig.json: has no ProcessingJobName, by which hosts know that their job is the same")
    return Host(sorted(hosts, key=_host_order).index(current), len(hosts), name or None)


def _host_order(name: str) -> tuple[int, str]:
    """`algo-2` before `algo-10`: all hosts only have to sort alike, but people look for host 0 in the log of algo-1."""
    number = _TRAILING_NUMBER.search(name)
    return int(number.group()) if number else 0, name


def _config(name: str) -> dict[str, Any] | None:
    path = ml_root() / "config" / name
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        raise ConfigurationError(f"{name}: cannot be read, or is not JSON") from None
    if not isinstance(said, dict):
        raise ConfigurationError(f"{name}: is not a JSON object")
    return said


@contextmanager
def exit_message(host: Host | None) -> Iterator[Callable[[Outcome], None]]:
    """Call what this gives with the run's outcome; that, or what the body raises, is written to `output/message`."""

    def tell(outcome: Outcome) -> None:
        write_message(host, outcome_message(outcome, host or Host()))

    try:
        yield tell
    except KeyboardInterrupt:
        write_message(host, "exit=stopped")
        raise
    except BaseException as error:
        write_message(host, f"exit=failed error={why_failed(error)}")
        raise


def write_message(host: Host | None, message: str) -> None:
    """A line of UTF-8, cut at a space. A disk that cannot be written must not change what the run came to."""
    if host is None:
        return
    # SageMaker puts the messages of all hosts one behind the other and cuts the whole.
    room = max(_MESSAGE_BYTES - _SHORT_MESSAGE_BYTES * (host.count - 1), _MESSAGE_BYTES // 4) - 1
    data = message.encode()
    if len(data) > room:
        data = data[:room].rsplit(b" ", 1)[0]
    data += b"\n"
    path = ml_root() / "output" / "message"
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


_COUNTS = {"notes_in": "notes", "notes_summarized": "summarized", "notes_quarantined": "quarantined", "notes_flagged": "flagged"}


def outcome_message(outcome: Outcome, host: Host) -> str:
    """Counts and reason codes as `name=value` words, the most telling first."""
    report = outcome.published.report
    words = [f"exit={outcome.exit_code}", f"host={host.index + 1}/{host.count}", f"shards_left={report['remaining_shards']}"]
    if not outcome.elsewhere:
        words.append(f"released={str(outcome.published.released).lower()}")
        words += [f"{short}={report[name]}" for name, short in _COUNTS.items()]
        words += _held_by(report) + _most_frequent(report["reasons"])
    return " ".join(words)


def _held_by(report: Mapping[str, Any]) -> list[str]:
    return [f"held_by={check['name']}" for check in report["gate"]["checks"] if not check["passed"]]


def _most_frequent(reasons: Mapping[str, int]) -> list[str]:
    return [f"{reason}={count}" for reason, count in sorted(reasons.items(), key=lambda item: (-item[1], item[0]))]
