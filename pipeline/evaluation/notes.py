"""Notes with reference texts, read as a run reads notes: any format, disk or S3. What cannot be scored is counted, never shown."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config import Job
from pipeline.planning import PlanSettings, plan_run
from schemas.errors import ConfigurationError
from schemas.note import PASSTHROUGH_PREFIX
from transforms.batch import NoteBatch
from transforms.columns import ColumnMap
from transforms.formats.layout import ReadOptions
from transforms.read import read_segment
from transforms.store import LocalStore

_NOTES_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class ReferencedNote:
    """A note and, by column, the right texts about it, none blank. `note_id`: as the input has it."""

    text: str = field(repr=False)
    references: Mapping[str, str] = field(repr=False)
    note_id: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Collected:
    """What can be scored, in the order of the input. `left_out`: rows that cannot, by why; `not_read`: there were more after the limit."""

    notes: tuple[ReferencedNote, ...] = field(repr=False)
    left_out: Mapping[str, int] = field(default_factory=dict)
    not_read: bool = False


def collect_notes(
    job: Job, columns: Sequence[str], limit: int | None = None, with_ids: bool = False, option: str = "--reference"
) -> Collected:
    """The first `limit` rows of the job's input that have a text and a reference in one of `columns` (no columns: that have a text); all of
    them without a limit. `option`: what names the columns on the command line.

    Raises ConfigurationError when the input cannot be used, lacks such a column, or holds nothing to score.
    """
    notes: list[ReferencedNote] = []
    left_out: Counter[str] = Counter()
    missing = set(columns)
    for batch in _batches(job, columns, with_ids):
        missing = {name for name in missing if PASSTHROUGH_PREFIX + name not in batch.notes.schema.names}
        left_out["unreadable"] += len(batch.rejections)
        for note in _notes(batch, columns):
            if limit is not None and len(notes) == limit:
                return Collected(tuple(notes), _counted(left_out), not_read=True)
            if not note.text.strip():
                left_out["no_text"] += 1
            elif columns and not note.references:
                left_out["no_reference"] += 1
            else:
                notes.append(note)
    if missing:
        raise ConfigurationError(
            f"{option}: no column {', '.join(sorted(missing))} in the input; name the columns that hold the references"
        )
    if not notes:
        raise ConfigurationError(
            f"--input: no row has both a text and a reference ({_told(left_out)}); name the columns with --text-column and {option}"
        )
    return Collected(tuple(notes), _counted(left_out))


def _batches(job: Job, columns: Sequence[str], with_ids: bool) -> Iterator[NoteBatch]:
    section = job.input
    # Pairs of a text and a reference often have no ids; where none are needed, the text stands in.
    ids = {} if with_ids else {"note_id": section.columns.get("text", "text")}
    located = ColumnMap({**section.columns, **ids}, tuple(columns))
    reading = ReadOptions(section.format, section.encoding, section.delimiter)
    settings = PlanSettings(section.uris, located, "all", _NOTES_AT_ONCE, None, reading)
    # Planning asks what the output folder holds; nothing is written there.
    with tempfile.TemporaryDirectory() as folder:
        planned = plan_run(LocalStore(Path(folder)), "v0", "evaluate", settings, {}, save=False)
        for segment in planned.to_do:
            yield from read_segment(segment, located)


def _notes(batch: NoteBatch, columns: Sequence[str]) -> Iterator[ReferencedNote]:
    named = {name: PASSTHROUGH_PREFIX + name for name in columns}
    there = {name: batch.column(column) for name, column in named.items() if column in batch.notes.schema.names}
    for i, (note_id, text) in enumerate(zip(batch.column("note_id"), batch.column("text"), strict=True)):
        found = {name: values[i] for name, values in there.items()}
        yield ReferencedNote(text or "", {name: value for name, value in found.items() if _is_text(value)}, note_id)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _counted(left_out: Counter[str]) -> dict[str, int]:
    return {reason: count for reason, count in sorted(left_out.items()) if count}


def _told(left_out: Counter[str]) -> str:
    return ", ".join(f"{reason.replace('_', ' ')}: {count}" for reason, count in _counted(left_out).items()) or "no rows"
