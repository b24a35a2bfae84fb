"""One engine per process and model, however many stages, instances and threads ask it. It knows no task."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from apache_beam.metrics import Metrics
from apache_beam.utils.shared import Shared

from schemas.errors import ConfigurationError
from transforms.engine import Completion, Engine, EngineError, EngineSettings, Request, load_engine
from transforms.models import ModelFiles, model_on_this_machine
from transforms.pulse import beat

# Engines are shared by the threads of a process; generation goes one at a time, what surrounds it does not.
_generation = threading.Lock()
# Until the engine gives signs of life itself, between decode steps; CTranslate2 gives none.
_SILENT_S_PER_TEXT = 600.0


def ask(engine: Engine, requests: Sequence[Request]) -> list[Completion]:
    """`Engine.generate`, by one thread of the process at a time."""
    with _generation:
        beat(_SILENT_S_PER_TEXT * (1 + len(requests)))
        return engine.generate(requests)


class LoadedEngine:
    """An engine and where its model lies on this machine. Not slotted: Beam's Shared keeps weak references."""

    def __init__(self, engine: Engine, model: ModelFiles) -> None:
        self.engine = engine
        self.model = model


def load_model(model: ModelFiles, settings: EngineSettings) -> LoadedEngine:
    """The engine of a model on this machine, which may be another than the one that planned. Raises ConfigurationError."""
    model = model_on_this_machine(model)
    try:
        return LoadedEngine(load_engine(bound(settings, model)), model)
    except EngineError as error:  # it names the model and the choices
        raise ConfigurationError(str(error)) from None


def bound(settings: EngineSettings, model: ModelFiles) -> EngineSettings:
    """The settings with the model filled in."""
    folder = "" if model.folder is None else str(model.folder)
    return replace(settings, model_folder=folder, model_id=model.id, model_sha256=model.sha256)


class SharedEngine:
    """A handle of one model's engine. Stages that hold the same handle share the engine: it is made once, where the graph is built."""

    def __init__(self, model: ModelFiles, settings: EngineSettings) -> None:
        self._model = model
        self._settings = settings
        self._shared = Shared()

    def acquire(self) -> tuple[LoadedEngine, int]:
        """The engine of this process, and 1 if it had to be loaded for that, else 0. Raises ConfigurationError."""
        loads: list[LoadedEngine] = []

        def load() -> LoadedEngine:
            loads.append(load_model(self._model, self._settings))
            return loads[0]

        loaded = self._shared.acquire(load, tag=(self._settings, self._model))
        return loaded, len(loads)


class SharedEngines:
    """The handles of a graph, one per model: by the content of its files, wherever they lie."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._handles: dict[str, SharedEngine] = {}

    def of(self, model: ModelFiles) -> SharedEngine:
        return self._handles.setdefault(model.sha256, SharedEngine(model, self._settings))


class LoadCounter:
    """Counts models that were loaded during a DoFn's setup, where metrics have no place to go, once its first batch comes."""

    def __init__(self) -> None:
        self._waiting = 0
        self._counter: Any = Metrics.counter("chartmill", "model_loads")

    def loaded(self, loads: int) -> None:
        self._waiting += loads

    def report(self) -> None:
        self._counter.inc(self._waiting)
        self._waiting = 0
