"""A shard as flat CSV for people: one table per kind of entity, one row per entity, every value with its offsets; and the summaries.

A cell that a spreadsheet would run as a formula gets an apostrophe before it; the offsets still belong to the note's own words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from schemas.record import CODES, LEAF, READERS, RECORD_FIELDS
from transforms.exports.csv_files import csv_bytes, harmless
from transforms.exports.shard import Exported, ExportNote, ExportSettings, Part, printable

_WHOSE = ("note_id", "patient_id", "encounter_id", "written_at", "note_sha256")
_MADE = ("ai_generated", "review_status", "model_id", "model_sha256", "version")
_PARTS = tuple(LEAF.field(index).name for index in range(LEAF.num_fields))
# Age and sex: one row per note.
DEMOGRAPHICS = "demographics"
_PERSONAL = tuple(field for field in RECORD_FIELDS if field.type == LEAF)
_LISTS = tuple(field for field in RECORD_FIELDS if field.type != LEAF)


def csv_shard(notes: Sequence[ExportNote], settings: ExportSettings) -> Exported:
    """The CSV files of a shard, only those with rows. Counts in `altered` the cells that got an apostrophe."""
    guarded: Counter[str] = Counter()
    parts = []
    for name, header in headers().items():
        rows = [[_cell(value, name, guarded) for value in row] for note in notes for row in _rows(name, note)]
        if rows:
            parts.append(Part(name, "csv", len(rows), csv_bytes(header, rows)))
    return Exported(tuple(parts), altered=guarded)


def headers() -> dict[str, list[str]]:
    """The columns of every table."""
    tables = {"summaries": [*_WHOSE, "note_type", "summary", "flags", *_MADE]}
    tables[DEMOGRAPHICS] = [*_WHOSE, *(column for field in _PERSONAL for column in _columns(field)), *_MADE]
    for field in _LISTS:
        inner = field.type.value_type
        columns = [column for index in range(inner.num_fields) for column in _columns(inner.field(index))]
        tables[field.name] = [*_WHOSE, *columns, *_MADE]
    return tables


def _columns(field: pa.Field) -> list[str]:
    if field.type != LEAF:
        return [field.name]
    return [field.name if part == "text" else f"{field.name}_{part}" for part in _PARTS]


def _rows(table: str, note: ExportNote) -> Iterator[list[Any]]:
    row, record = note.summary, note.record
    whose = [row[name] for name in _WHOSE]
    if table == "summaries":
        flags = "; ".join(flag["code"] for flag in row["flags"] or ())
        yield [*whose, row["note_type"], row["summary"], flags, *(row[name] for name in _MADE)]
        return
    made = [record[name] for name in _MADE]
    if table == DEMOGRAPHICS:
        if any(record.get(field.name) for field in _PERSONAL):
            yield [*whose, *(cell for field in _PERSONAL for cell in _cells(field, record)), *made]
        return
    inner = next(field.type.value_type for field in _LISTS if field.name == table)
    for entity in record.get(table) or ():
        yield [*whose, *(cell for index in range(inner.num_fields) for cell in _cells(inner.field(index), entity)), *made]


def _cells(field: pa.Field, entity: Mapping[str, Any]) -> list[Any]:
    value = entity.get(field.name)
    if field.type == LEAF:
        return [value.get(part) for part in _PARTS] if value else [None] * len(_PARTS)
    if field.type == CODES:
        return ["; ".join(f"{code['system']}|{code['code']}" for code in value or ())]
    return ["; ".join(value or ())] if field.type == READERS else [value]


def _cell(value: Any, table: str, guarded: Counter[str]) -> Any:
    if not isinstance(value, str):
        return value
    plain = printable(value)
    shown = harmless(plain)
    if shown != plain:
        guarded[f"{table} cells behind an apostrophe"] += 1
    return shown
