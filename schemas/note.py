"""Rows in: what a note looks like once it has been read.

Offsets everywhere in the project are characters (Python code points) of `text` exactly as stored here; starts are
inclusive, ends exclusive.
"""

from __future__ import annotations

import pyarrow as pa

# Columns a job file may map. `text` is large_string so that a shard of very long notes cannot overflow 32-bit offsets.
NOTE_SCHEMA = pa.schema(
    [
        pa.field("note_id", pa.string()),
        pa.field("text", pa.large_string()),
        pa.field("patient_id", pa.string()),
        pa.field("encounter_id", pa.string()),
        pa.field("note_type", pa.string()),
        # ISO 8601 when the source column is a date or timestamp, otherwise the source string untouched: the contract judges it.
        pa.field("written_at", pa.string()),
    ]
)

REQUIRED_COLUMNS = ("note_id", "text")
OPTIONAL_COLUMNS = ("patient_id", "encounter_id", "note_type", "written_at")

# Where a row came from: the file's number in the plan, the zero-based row in that file, and the one-based line on which the row begins
# (null where the format has no lines).
PLACE_SCHEMA = pa.schema([pa.field("source_file", pa.int32()), pa.field("source_row", pa.int64()), pa.field("source_line", pa.int64())])

# Pass-through columns travel under this prefix so that no input column can collide with one of ours.
PASSTHROUGH_PREFIX = "in:"

# One shard's notes as ReadNotes yields them, before the pass-through columns.
BATCH_SCHEMA = pa.schema([*NOTE_SCHEMA, *PLACE_SCHEMA])
