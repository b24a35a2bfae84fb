"""What a model's records came to, in shares, and when that is an alarm. Counts only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Of the notes that a model read, so many records (share 0-1) may be empty or cut off by a limit. More of them say that the model does not
# know such notes, or that its limits are too tight.
MOST_DEAD_OR_CUT = 0.005


def written_figures(written: Mapping[str, int]) -> dict[str, Any] | None:
    """The counts of RunStats.records with the shares (0-1) of dead and cut records; None where no model read a note. `alarm`: what is
    wrong, empty if nothing is."""
    notes = written.get("notes", 0)
    if not notes:
        return None
    shares = {f"{name}_share": round(written.get(name, 0) / notes, 6) for name in ("dead", "cut")}
    return {"lines": 0, "unlikely": 0, **written, **shares, "alarm": _alarm(written.get("dead", 0), written.get("cut", 0), notes)}


def _alarm(dead: int, cut: int, notes: int) -> str:
    if dead + cut <= MOST_DEAD_OR_CUT * notes:
        return ""
    return (
        f"{dead + cut:,} of {notes:,} records by the model are empty or cut off, more than {MOST_DEAD_OR_CUT:.1%}: compare some with their "
        "notes; tasks.record.decode.max_new_tokens is the limit of a window"
    )
