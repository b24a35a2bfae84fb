"""The version of a run's output: a hash of only what changes rows, so that a release or a bigger machine recomputes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schemas.commit import digest
from schemas.summary import OUTPUT_SCHEMA_VERSION

# Bumped by hand when a stage's rows change meaning or value for the same settings; a new number recomputes every note.
SEMANTICS = {"read": 3, "validate": 1, "segment": 2, "generate": 4, "record": 5, "evidence": 1, "verify": 2}


def run_version(settings: Mapping[str, Any]) -> str:
    """`v` and 12 hex digits over the settings that change rows, the output schema and SEMANTICS."""
    return "v" + digest(settings, OUTPUT_SCHEMA_VERSION, SEMANTICS, length=12)
