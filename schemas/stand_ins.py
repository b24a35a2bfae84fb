"""Packages that another package imports and never needs here: until one is used, an empty module stands in for it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


class _StandIn(ModuleType):
    """A module that is imported when the first of its attributes is asked for."""

    def __getattr__(self, name: str) -> Any:
        _take_away(self)
        return getattr(importlib.import_module(self.__name__), name)


@contextmanager
def standing_in(*names: str) -> Iterator[None]:
    """While this is open, `import` binds stand-ins for these modules, unless they were imported before.

    Afterwards they are imported as ever. Whoever has bound a stand-in keeps it, and its attributes are those of the module.
    """
    stand_ins = {name: _StandIn(name) for name in names if name not in sys.modules}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for module in stand_ins.values():
            _take_away(module)


def _take_away(module: ModuleType) -> None:
    if sys.modules.get(module.__name__) is module:
        del sys.modules[module.__name__]
