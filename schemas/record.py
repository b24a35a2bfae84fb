"""The structured form of a note. Every leaf carries its words and where in the note they stand.

A leaf is `text, start, end` (characters of the note as stored, end exclusive: `note[start:end] == text`), the `section`
it stands in (null when the note has none), its `assertion`, and `normal`, a normalized form where one is certain
(ISO date, canonical unit, number), else null. `number` and `ucum` are a quantity to compute with: a dose, times per day (`/d`), a duration,
an age, the value of an observation, the time from the note to a date ("2 weeks ago" is -2 wk); null where not certain.
FHIR and OMOP are views of this schema; it is nested so that a record stays one row.
"""

from __future__ import annotations

from enum import StrEnum

import pyarrow as pa

from schemas.summary import OUTPUT_SCHEMA_VERSION, PROVENANCE_FIELDS


class Assertion(StrEnum):
    """What the note says of a finding."""

    PRESENT = "present"
    ABSENT = "absent"
    POSSIBLE = "possible"
    FAMILY = "family"
    HISTORICAL = "historical"


LEAF = pa.struct(
    [
        pa.field("text", pa.string()),
        pa.field("start", pa.int32()),
        pa.field("end", pa.int32()),
        pa.field("section", pa.string()),
        pa.field("assertion", pa.string()),
        pa.field("normal", pa.string()),
        pa.field("number", pa.float64()),
        pa.field("ucum", pa.string()),
    ]
)
# From the terminology that the job names; `display` is null where it has none.
CODES = pa.list_(pa.struct([pa.field("system", pa.string()), pa.field("code", pa.string()), pa.field("display", pa.string())]))
# Which readers found it (`rules`, `model`); two names mean that they agree.
READERS = pa.list_(pa.string())


def _entity(*leaves: str, plain: tuple[pa.Field, ...] = ()) -> pa.DataType:
    fields = [*plain, *(pa.field(name, LEAF) for name in leaves), pa.field("codes", CODES), pa.field("readers", READERS)]
    return pa.list_(pa.struct(fields))


RECORD_FIELDS = [
    pa.field("age", LEAF),
    pa.field("sex", LEAF),
    pa.field("problems", _entity("name", "onset")),
    pa.field("medications", _entity("name", "dose", "route", "frequency", "duration", "reason")),
    pa.field("allergies", _entity("substance", "reaction")),
    # `category` is vital or lab.
    pa.field("observations", _entity("name", "value", "unit", plain=(pa.field("category", pa.string()),))),
    pa.field("procedures", _entity("name", "date")),
    pa.field("follow_up", _entity("what", "when")),
]

RECORD_TYPE = pa.struct(RECORD_FIELDS)

RECORD_SCHEMA = pa.schema(
    [
        pa.field("note_id", pa.string()),
        pa.field("source_file", pa.int32()),
        pa.field("source_row", pa.int64()),
        pa.field("note_sha256", pa.string()),
        *RECORD_FIELDS,
        *PROVENANCE_FIELDS,
    ],
    metadata={"chartmill_schema_version": str(OUTPUT_SCHEMA_VERSION)},
)
