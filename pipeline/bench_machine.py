"""What a measurement was made on: processor, libraries, day."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from transforms.engine.hardware import cpu_features, usable_cores

# What decides how fast which number format is.
_TOLD_FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "asimd", "bf16", "i8mm", "sve")
_LIBRARIES = ("torch", "transformers", "ctranslate2")


def describe_machine() -> dict[str, Any]:
    """JSON: names and versions only; None for a library that is not installed."""
    features = cpu_features()
    return {
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "features": [name for name in _TOLD_FEATURES if name in features],
        "python": platform.python_version(),
        **{name: _version(name) for name in _LIBRARIES},
        "date": datetime.now(UTC).date().isoformat(),
    }


def cpu_name() -> str:
    """As the processor calls itself; its architecture where the system does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text("ascii", errors="ignore").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None
