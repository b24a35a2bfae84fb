"""Rows set aside: which note, where it stood, at which stage and why. Never the note's text, unless the job asks to keep it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import pyarrow as pa


class Stage(StrEnum):
    """Where in the job a row was set aside."""

    PLAN = "plan"
    READ = "read"
    VALIDATE = "validate"
    SEGMENT = "segment"
    GENERATE = "generate"
    RECORD = "record"
    EVIDENCE = "evidence"
    VERIFY = "verify"


class Reason(StrEnum):
    """Why a row or a file was set aside. Codes are stable; they appear in reports, metrics and exit messages."""

    FILE_EMPTY = "FILE_EMPTY"
    FILE_CORRUPT = "FILE_CORRUPT"
    NO_NOTES = "NO_NOTES"
    FILE_TRUNCATED = "FILE_TRUNCATED"
    COLUMNS_MISSING = "COLUMNS_MISSING"
    ROW_UNREADABLE = "ROW_UNREADABLE"
    LINE_MALFORMED = "LINE_MALFORMED"
    FIELD_COUNT = "FIELD_COUNT"
    CONTENT_TYPE = "CONTENT_TYPE"
    CONTENT_MISSING = "CONTENT_MISSING"
    CONTENT_UNREADABLE = "CONTENT_UNREADABLE"
    WITHDRAWN = "WITHDRAWN"
    DUPLICATE_ID = "DUPLICATE_ID"
    MISSING_ID = "MISSING_ID"
    MISSING_TEXT = "MISSING_TEXT"
    TEXT_TOO_SHORT = "TEXT_TOO_SHORT"
    TEXT_TOO_LONG = "TEXT_TOO_LONG"
    UNPRINTABLE = "UNPRINTABLE"
    ENCODING_DAMAGE = "ENCODING_DAMAGE"
    TRUNCATED = "TRUNCATED"
    BAD_DATE = "BAD_DATE"
    NOTE_TYPE = "NOTE_TYPE"
    CONTRACT = "CONTRACT"
    CONTRACT_CRASHED = "CONTRACT_CRASHED"
    GENERATION_FAILED = "GENERATION_FAILED"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    EMPTY_SUMMARY = "EMPTY_SUMMARY"
    CRASHED = "CRASHED"
    DEADLINE = "DEADLINE"
    RECORD_FAILED = "RECORD_FAILED"
    EVIDENCE_FAILED = "EVIDENCE_FAILED"
    VERIFY_FAILED = "VERIFY_FAILED"


@dataclass(frozen=True, slots=True)
class Rejection:
    """One row of REJECTION_SCHEMA. `note_id` and `text` stay out of the repr."""

    source_file: int
    source_row: int | None
    stage: Stage
    reason: Reason
    note_id: str | None = field(default=None, repr=False)
    expectation: str | None = None
    text: str | None = field(default=None, repr=False)
    source_line: int | None = None

    def as_row(self) -> dict[str, object]:
        return {
            "note_id": self.note_id,
            "source_file": self.source_file,
            "source_row": self.source_row,
            "source_line": self.source_line,
            "stage": str(self.stage),
            "reason": str(self.reason),
            "expectation": self.expectation,
        }


# `source_row` is null for a file that could not be read at all; `source_line` is the one-based line on which the row begins, null where the
# format has no lines; `expectation` names the failed rule of the contract.
REJECTION_SCHEMA = pa.schema(
    [
        pa.field("note_id", pa.string()),
        pa.field("source_file", pa.int32()),
        pa.field("source_row", pa.int64()),
        pa.field("source_line", pa.int64()),
        pa.field("stage", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("expectation", pa.string()),
    ]
)

# Appended only when `output.keep_rejected_text` is true.
REJECTED_TEXT_FIELD = pa.field("text", pa.large_string())
