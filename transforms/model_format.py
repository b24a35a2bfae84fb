"""`chartmill.json` of a model's folder: what the model is for and how it is asked, in a version of its own for each objective."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FORMAT_FILE = "chartmill.json"


def read_format(folder: Path, objective: str, version: int) -> dict[str, Any] | None:
    """What the file says beside objective and version; None if there is none or it is of another objective.

    Raises ValueError if the file cannot be read or is of another version.
    """
    path = folder / FORMAT_FILE
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise ValueError(f"{path} is not valid JSON") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a JSON object, found {type(values).__name__}")
    if values.pop("objective", None) != objective:
        return None
    found = values.pop("format_version", None)
    if found != version:
        raise ValueError(f"{path}: format_version {found!r} is not supported, only {version}")
    return values


def write_format(folder: Path, objective: str, version: int, values: Mapping[str, Any]) -> None:
    said = {"objective": objective, "format_version": version, **values}
    (folder / FORMAT_FILE).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
