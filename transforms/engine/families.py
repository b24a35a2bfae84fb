"""Which models the torch backend's own loop runs, from their configuration as JSON. Imports no torch, so planning may ask."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NATIVE_FAMILIES = ("bart", "mbart", "marian", "pegasus", "t5", "mt5")


def runs_natively(config: Mapping[str, Any]) -> bool:
    """Whether a model of this configuration is decoded by our own loop; others are left to `model.generate()`, which has no int8."""
    return config.get("model_type") in NATIVE_FAMILIES


def folder_runs_natively(folder: Path) -> bool:
    """The same of a model folder; False where config.json is no JSON object. Raises OSError, and ValueError for what is no JSON."""
    config = json.loads((folder / "config.json").read_text("utf-8"))
    return isinstance(config, dict) and runs_natively(config)
