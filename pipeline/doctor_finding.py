"""What a check of `chartmill doctor` found: ok, warning or failed, in a sentence, and what to do about it. No secrets, no patient text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found: `said` is what is so; `todo` is empty for ok."""

    check: str
    status: Literal["ok", "warning", "failed"]
    said: str
    todo: str = ""

    def as_json(self) -> dict[str, str]:
        return asdict(self)


def ok(check: str, said: str) -> Finding:
    return Finding(check, "ok", said)


def warning(check: str, said: str, todo: str) -> Finding:
    return Finding(check, "warning", said, todo)


def failed(check: str, said: str, todo: str) -> Finding:
    return Finding(check, "failed", said, todo)
