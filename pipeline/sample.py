"""Synthetic notes with gold records: `write_sample`, for demos, tests and load.

Every word was written for this project (see sample_templates and sample_styles); nobody is described. Note i of a seed is the same whatever
the number of notes or files. A share of the rows is dirty in known ways, told in the summary and nowhere in the rows.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from functools import lru_cache
from math import ceil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import sample_draft as d
from pipeline.sample_patients import Dice, Visit, make_patient, make_visit
from pipeline.sample_styles import style_for
from pipeline.sample_templates import DEPARTMENTS
from schemas.note import NOTE_SCHEMA
from schemas.record import RECORD_TYPE
from schemas.rejection import Reason

ROWS_PER_GROUP = 1_000
# Two or three notes in a row are of one patient.
PATIENTS_PER_NOTE = 0.4
# One rotation of dirty rows in so many has a huge note, or they would outweigh all the others.
HUGE_EVERY = 50
HUGE_CHARACTERS = 201_000

SAMPLE_SCHEMA = pa.schema([*NOTE_SCHEMA, pa.field("department", pa.string())])
GOLD_SCHEMA = pa.schema([pa.field("note_id", pa.string()), pa.field("record", RECORD_TYPE)])


class Dirt(StrEnum):
    """What may be wrong with a row."""

    MISSING_ID = "missing_id"
    DUPLICATE_ID = "duplicate_id"
    BLANK_TEXT = "blank_text"
    SHORT_TEXT = "short_text"
    ENCODING_DAMAGE = "encoding_damage"
    CONTROL_CHARACTERS = "control_characters"
    MOJIBAKE = "mojibake"
    TRUNCATION_MARK = "truncation_mark"
    IMPOSSIBLE_DATE = "impossible_date"
    UNKNOWN_NOTE_TYPE = "unknown_note_type"
    HUGE_NOTE = "huge_note"


# What the default contract (or, for duplicates, the planner) finds in each, and whether it sets the row aside or only warns.
EXPECTED: dict[Dirt, tuple[Reason, bool]] = {
    Dirt.MISSING_ID: (Reason.MISSING_ID, True),
    Dirt.DUPLICATE_ID: (Reason.DUPLICATE_ID, True),
    Dirt.BLANK_TEXT: (Reason.MISSING_TEXT, True),
    Dirt.SHORT_TEXT: (Reason.TEXT_TOO_SHORT, True),
    Dirt.ENCODING_DAMAGE: (Reason.ENCODING_DAMAGE, True),
    Dirt.CONTROL_CHARACTERS: (Reason.UNPRINTABLE, True),
    Dirt.MOJIBAKE: (Reason.ENCODING_DAMAGE, False),
    Dirt.TRUNCATION_MARK: (Reason.TRUNCATED, False),
    Dirt.IMPOSSIBLE_DATE: (Reason.BAD_DATE, False),
    Dirt.UNKNOWN_NOTE_TYPE: (Reason.NOTE_TYPE, False),
    Dirt.HUGE_NOTE: (Reason.TEXT_TOO_LONG, False),
}
# Rows whose text is as composed, or begins with it, so that the gold offsets hold.
_GOLD_HOLDS = frozenset({None, Dirt.IMPOSSIBLE_DATE, Dirt.UNKNOWN_NOTE_TYPE, Dirt.HUGE_NOTE})

_BLANKS = (None, "", "   \n\n ", "\t")
_SCRAPS = ("r/v Mon", "BP fine", "pt well", "rang son")
_CUTS = ("... [truncated]", " [note truncated]", "…")
_BAD_DATES = ("2021-02-30", "0021-06-14", "2023-13-05T08:00:00", "31.11.2020", "2987-01-01")
_ODD_TYPES = ("ZZ-TEMPLATE-17", "scan0004.tif", "DO NOT USE", "Kitchen order")
_ADDENDA = (
    "Seen again with the family present; nothing to change.",
    "Spelling of the surname corrected at the front desk.",
    "Copy sent on request.",
)


@dataclass(frozen=True, slots=True)
class SampleSummary:
    """What was written. `dirty`: rows per kind of dirt, all kinds listed; `styles`: rows per note type before any dirt."""

    notes: int
    files: tuple[Path, ...]
    gold: Path
    gold_records: int
    dirty: dict[str, int] = field(default_factory=dict)
    styles: dict[str, int] = field(default_factory=dict)

    @property
    def reasons_expected(self) -> dict[str, int]:
        """Rows that the default contract and the planner set aside, by reason code."""
        found: Counter[str] = Counter()
        for kind, count in self.dirty.items():
            reason, critical = EXPECTED[Dirt(kind)]
            if critical and count:
                found[str(reason)] += count
        return dict(found)


@dataclass(frozen=True, slots=True)
class _Composed:
    """A note as its writer meant it."""

    note_id: str
    text: str
    note_type: str
    visit: Visit
    record: dict[str, Any]


def compose(seed: int, number: int) -> _Composed:
    """Note `number` of this seed, clean. `record` is shaped like RECORD_TYPE; leaves it does not know are left out."""
    patient_number = int(number * PATIENTS_PER_NOTE)
    first = ceil(patient_number / PATIENTS_PER_NOTE)
    dice = Dice(f"{seed}:note:{number}")
    visit = make_visit(dice, make_patient(seed, patient_number), number - first)
    write, note_types = style_for(visit, dice.draw())
    draft = d.Draft(visit, dice)
    write(draft)
    return _Composed(f"N{number:08d}", draft.text(), dice.pick(note_types), visit, draft.record)


@lru_cache(maxsize=8)
def _dirty_row(seed: int, stretch: int, start: int, stop: int) -> int:
    return Dice(f"{seed}:dirt:{stretch}").between(start + 1, stop - 1)


@dataclass(frozen=True, slots=True)
class DirtPlan:
    """Which rows are dirty and how: in every stretch of 1 / share rows one row, never the stretch's first, the kinds taking turns."""

    seed: int
    share: float

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 0.5:
            raise ValueError(f"dirty_share must lie in 0-0.5, got {self.share}")

    def _start(self, stretch: int) -> int:
        return ceil(stretch / self.share)

    def kind(self, row: int) -> Dirt | None:
        if not self.share:
            return None
        stretch = int(row * self.share)
        # Rounding may put a row that opens a stretch into the one before.
        stretch += self._start(stretch + 1) <= row
        start, stop = self._start(stretch), self._start(stretch + 1)
        if row != _dirty_row(self.seed, stretch, start, stop):
            return None
        rotation, turn = divmod(stretch, len(Dirt))
        kind = tuple(Dirt)[turn]
        return Dirt.MOJIBAKE if kind is Dirt.HUGE_NOTE and rotation % HUGE_EVERY else kind

    def original(self, row: int) -> int:
        """The clean row that a duplicate at `row` amends: the first of this stretch or of one of the 40 before."""
        stretch = int(row * self.share)
        return self._start(max(0, stretch - Dice(f"{self.seed}:amends:{row}").between(0, 40)))


def write_sample(notes: int, output: Path, seed: int = 0, dirty_share: float = 0.06, files: int = 4) -> SampleSummary:
    """Write `output/notes/part-*.parquet` and `output/gold/records.parquet`.

    Gold: one record per note id whose text stands in a row as composed; offsets are characters, end exclusive. An amended note (duplicate
    id, later `written_at`) is the original with an addendum behind it, so the gold holds for both. Rows stream: memory does not grow with
    `notes`. `codes` and `readers` are null. The same arguments give the same rows; files of the same names are replaced.

    Raises ValueError for notes < 1, files < 1 or a share outside 0-0.5, FileExistsError where `output/notes` holds anything else.
    """
    if notes < 1 or files < 1:
        raise ValueError(f"notes and files must be at least 1, got notes={notes}, files={files}")
    files = min(files, notes)
    plan = DirtPlan(seed, dirty_share)
    paths = tuple(output / "notes" / f"part-{i:04d}.parquet" for i in range(files))
    _check_folder(output / "notes", {path.name for path in paths})
    gold = output / "gold" / "records.parquet"
    for folder in (output / "notes", gold.parent):
        folder.mkdir(parents=True, exist_ok=True)
    dirty: Counter[str] = Counter({kind.value: 0 for kind in Dirt})
    styles: Counter[str] = Counter()
    records = 0
    with _no_cycle_search(), pq.ParquetWriter(gold, GOLD_SCHEMA, compression="zstd") as gold_writer:
        for i, path in enumerate(paths):
            with pq.ParquetWriter(path, SAMPLE_SCHEMA, compression="zstd") as writer:
                for group in _groups(i * notes // files, (i + 1) * notes // files):
                    rows, golds = _rows(group, plan, dirty, styles)
                    writer.write_table(pa.Table.from_pylist(rows, schema=SAMPLE_SCHEMA))
                    gold_writer.write_table(pa.Table.from_pylist(golds, schema=GOLD_SCHEMA))
                    records += len(golds)
    return SampleSummary(notes, paths, gold, records, dict(dirty), dict(styles))


@contextmanager
def _no_cycle_search() -> Iterator[None]:
    """Without the cyclic collector: a note has no cycles, and searching its thousands of small dicts takes a quarter of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _check_folder(folder: Path, names: set[str]) -> None:
    others = sorted({path.name for path in folder.iterdir()} - names) if folder.is_dir() else []
    if others:
        raise FileExistsError(f"{folder} holds {len(others)} other file(s), such as {others[0]!r}: name an empty folder")


def _groups(start: int, stop: int) -> Iterator[range]:
    for low in range(start, stop, ROWS_PER_GROUP):
        yield range(low, min(low + ROWS_PER_GROUP, stop))


def _rows(numbers: range, plan: DirtPlan, dirty: Counter[str], styles: Counter[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows and gold of these notes; counts what is dirty."""
    rows, golds = [], []
    for number in numbers:
        kind = plan.kind(number)
        note = compose(plan.seed, plan.original(number) if kind is Dirt.DUPLICATE_ID else number)
        row = _row(note)
        styles[note.note_type] += 1
        if kind:
            dirty[kind.value] += 1
            _soil(row, kind, note, number, Dice(f"{plan.seed}:soil:{number}"))
        if kind in _GOLD_HOLDS:
            golds.append({"note_id": note.note_id, "record": note.record})
        rows.append(row)
    return rows, golds


def _row(note: _Composed) -> dict[str, Any]:
    visit = note.visit
    return {
        "note_id": note.note_id,
        "text": note.text,
        "patient_id": visit.patient.id,
        "encounter_id": "E" + note.note_id[1:],
        "note_type": note.note_type,
        "written_at": visit.at.isoformat(),
        "department": DEPARTMENTS[len(note.text) % len(DEPARTMENTS)],
    }


def _soil(row: dict[str, Any], kind: Dirt, note: _Composed, number: int, dice: Dice) -> None:
    """Spoil a row in the way of `kind`."""
    text = note.text
    match kind:
        case Dirt.MISSING_ID:
            row["note_id"] = None
        case Dirt.DUPLICATE_ID:
            # Later by the distance, so that two amendments of one note differ.
            later = note.visit.at + timedelta(hours=2 + number - int(note.note_id[1:]))
            row["written_at"] = later.isoformat()
            row["text"] = f"{text}\n\nAddendum {later:%d/%m/%Y %H:%M}: {dice.pick(_ADDENDA)}"
        case Dirt.BLANK_TEXT:
            row["text"] = dice.pick(_BLANKS)
        case Dirt.SHORT_TEXT:
            row["text"] = dice.pick(_SCRAPS)
        case Dirt.ENCODING_DAMAGE:
            # As if every sixth byte had been lost on the way.
            row["text"] = "".join("\ufffd" if i % 6 == 5 else character for i, character in enumerate(text))
        case Dirt.CONTROL_CHARACTERS:
            # UTF-16 read byte by byte.
            row["text"] = "\x00".join(text)
        case Dirt.MOJIBAKE:
            # UTF-8 read as Windows-1252.
            row["text"] = text.replace(", ", " – ", 3).encode().decode("cp1252", errors="replace")
        case Dirt.TRUNCATION_MARK:
            row["text"] = text[: int(len(text) * dice.within(0.5, 0.8))] + dice.pick(_CUTS)
        case Dirt.IMPOSSIBLE_DATE:
            row["written_at"] = dice.pick(_BAD_DATES)
        case Dirt.UNKNOWN_NOTE_TYPE:
            row["note_type"] = dice.pick(_ODD_TYPES)
        case Dirt.HUGE_NOTE:
            row["text"] = text + _flowsheet(dice, HUGE_CHARACTERS - len(text))


def _flowsheet(dice: Dice, characters: int) -> str:
    """Lines of a monitor pasted under a note, at least so many characters."""
    lines, length = ["\n\nMONITOR DOWNLOAD"], 0
    while length < characters:
        lines.append(f"row {len(lines)} channel {dice.between(1, 4)} level {dice.between(40, 180)} quality {dice.between(1, 9)}.")
        length += len(lines[-1]) + 1
    return "\n".join(lines)
