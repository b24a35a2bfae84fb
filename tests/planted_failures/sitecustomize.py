"""Loaded by every interpreter that has this folder on PYTHONPATH: its engines die or hang on texts that say so."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import transforms.engine
from transforms.pulse import beat

# Names a file that is made when an engine begins.
BEGUN_VARIABLE = "CHARTMILL_TEST_ENGINE_BEGUN"
CRASH, HANG = "Planted: segmentation fault.", "Planted: endless step."


class Planted:
    """An engine that does not survive some texts."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def generate(self, requests: Sequence[Any]) -> Any:
        if said := os.environ.get(BEGUN_VARIABLE):
            Path(said).touch()
        texts = [request.text for request in requests]
        if any(CRASH in text for text in texts):
            os.kill(os.getpid(), signal.SIGSEGV)
        if any(HANG in text for text in texts):
            # As between two decode steps; the next one does not end, and keeps the interpreter's lock.
            beat(1.0)
            ctypes.PyDLL(None).sleep(3600)
        return self._engine.generate(requests)


def planted(load: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda settings: Planted(load(settings))


if __name__ == "sitecustomize":
    transforms.engine.load_engine = planted(transforms.engine.load_engine)
