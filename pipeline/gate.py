"""The quality gate: what a run's figures must satisfy before its output is released."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from schemas.commit import RunStats


def check_gate(
    stats: RunStats, contract: Sequence[Mapping[str, Any]], files: Mapping[str, int], limits: Mapping[str, Any]
) -> dict[str, Any]:
    """`{passed, checks: [{name, description, limit, value, passed}]}` for the `gate` section of a job (`limits`).

    Shares are 0-1; a share of nothing is 0.
    """
    quarantined = _share(stats.notes_quarantined, stats.notes_in)
    flagged = _share(stats.notes_flagged, stats.notes_summarized)
    unreadable = _share(files.get("unreadable", 0), files.get("listed", 0))
    most = limits["max_quarantined_share"]
    checks = [
        _at_most("max_quarantined_share", "Share of notes set aside", quarantined, most),
        _at_most("max_unreadable_files_share", "Share of files that could not be read", unreadable, most),
        _at_most("max_flagged_share", "Share of summaries flagged for a second look", flagged, limits["max_flagged_share"]),
    ]
    if limits["contract"] == "pass":
        failed = sum(1 for rule in contract if rule["severity"] == "critical" and not rule["success"])
        checks.append(_at_most("contract", "Critical rules of the input contract that failed", failed, 0))
    return {"passed": all(check["passed"] for check in checks), "checks": checks}


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _at_most(name: str, description: str, value: float, limit: float) -> dict[str, Any]:
    return {"name": name, "description": description, "limit": limit, "value": value, "passed": value <= limit}
