"""How long one text may take: asked between decode steps, so a step that never ends is for a watchdog of the process to find."""

from __future__ import annotations

from time import monotonic

from transforms.pulse import beat

# A single step, or the encoding of the next sources, takes less.
_STEP_S = 60.0


class DeadlineExceeded(Exception):
    """A text, or one of those that decode beside it, took longer than is allowed."""


class Stopwatch:
    """When each request that is under way began. `seconds`: what one may take; None for as long as it likes."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._began: dict[int, float] = {}

    def start(self, slot: int) -> None:
        self._began[slot] = monotonic()

    def stop(self, slot: int) -> None:
        self._began.pop(slot, None)

    def check(self) -> None:
        """Called between steps, which also is a sign of life. Raises DeadlineExceeded when a request has been under way for too long."""
        if self._seconds is None or not self._began:
            return
        beat(self._seconds + _STEP_S)
        if monotonic() - min(self._began.values()) > self._seconds:
            raise DeadlineExceeded
