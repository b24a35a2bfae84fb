"""Contenders that come to grief, or tell of their turns; in a module of their own, for each of their processes imports it."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from pipeline.bench_turns import Contender, Turn
from schemas.errors import ConfigurationError

SECRET = "Quill-Ostrander"


class Failing:
    """A contender that comes to grief in the given turn, counted from 0, or never."""

    def __init__(self, how: str = "", when: int = 99) -> None:
        self._how, self._left = how, when

    def turn(self) -> Turn:
        self._left -= 1
        if self._left < 0:
            match self._how:
                case "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "refused":
                    raise ConfigurationError("engine.dtype: choose another")
                case _:
                    raise ValueError(SECRET)
        return Turn(1, 0, 1, 1)


class Telling:
    """A contender that writes into a file in which process and when its turns were."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def turn(self) -> Turn:
        started = time.monotonic()
        with self._path.open("a") as file:
            file.write(f"{os.getpid()} {started} {time.monotonic()}\n")
        return Turn(1, 0, 1, 1)


def never() -> Contender:
    raise ValueError(SECRET)
