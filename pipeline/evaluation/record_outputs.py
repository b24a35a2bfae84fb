"""What a finished run read from some notes: its records, joined by note id and by the hash of the very text they were read from."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.evaluation.notes import ReferencedNote
from pipeline.evaluation.outputs import newest_commits, refused_notes, rows_of
from pipeline.evaluation.record_stage import Recorded
from schemas.commit import CommitRecord
from schemas.errors import ConfigurationError
from schemas.record import RECORD_FIELDS
from transforms.batch import guarded
from transforms.store import Store

_SHOWN = tuple(leaf.name for leaf in RECORD_FIELDS)


@dataclass(frozen=True, slots=True)
class JoinedRecords:
    """The notes that a run knows, and its record of each. `left_out`: those that it does not, by why."""

    notes: tuple[ReferencedNote, ...] = field(repr=False)
    records: tuple[Recorded, ...] = field(repr=False)
    left_out: Mapping[str, int]


def join_records(store: Store, notes: Sequence[ReferencedNote]) -> JoinedRecords:
    """As `join_run` does with summaries: notes that the run set aside have failed, changed and unknown ones are left out.

    Raises ConfigurationError when nothing was ever planned or no note is found.
    """
    with guarded("evaluate"):
        commits = newest_commits(store)
        wanted = {note.note_id for note in notes if note.note_id is not None}
        made = _records(store, commits, wanted)
        refused = refused_notes(store, commits, wanted)
    found = [(note, _found(note, made, refused)) for note in notes]
    kept = [(note, one) for note, one in found if isinstance(one, Recorded)]
    if not kept:
        raise ConfigurationError("--output-folder: none of the notes with gold is in this run; ids and texts are compared to the letter")
    left_out = Counter(one for _, one in found if isinstance(one, str))
    return JoinedRecords(tuple(note for note, _ in kept), tuple(one for _, one in kept), dict(sorted(left_out.items())))


def _records(store: Store, commits: Sequence[CommitRecord], wanted: set[str]) -> dict[str, dict[str, Recorded]]:
    """By note id and sha256 of the note's text."""
    made: dict[str, dict[str, Recorded]] = defaultdict(dict)
    for row in rows_of(store, commits, "records", ("note_id", "note_sha256", *_SHOWN)):
        if row["note_id"] in wanted:
            record: dict[str, Any] = {name: row[name] for name in _SHOWN}
            made[row["note_id"]][row["note_sha256"]] = Recorded(record)
    return made


def _found(note: ReferencedNote, made: Mapping[str, Mapping[str, Recorded]], refused: Mapping[str, str]) -> Recorded | str:
    """What the run read from a note, or why it is left out."""
    mine = made.get(note.note_id or "")
    if mine:
        return mine.get(hashlib.sha256(note.text.encode("utf-8", "surrogatepass")).hexdigest(), "changed")
    reason = refused.get(note.note_id or "")
    return "not_in_run" if reason is None else Recorded(failed=reason)
