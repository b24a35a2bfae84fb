"""Released rows as the formats that others load: FHIR R4 resources, OMOP NOTE_NLP, flat CSV. Pure functions from notes to bytes.

They know nothing of storage: pipeline.exporting reads a shard's rows, calls `shard.export_shard`, and commits what it gets. Here stand only
the choices that a command line offers.
"""

from __future__ import annotations

from enum import StrEnum

# A name that RFC 2606 keeps free, so that nobody's address is used by accident.
CANONICAL = "https://chartmill.example/fhir"


class Target(StrEnum):
    """What can be exported to."""

    FHIR = "fhir"
    OMOP = "omop"
    CSV = "csv"


class Absent(StrEnum):
    """What becomes of problems and allergies that the note denies, in FHIR."""

    REFUTED = "refuted"
    OMIT = "omit"


class TableFormat(StrEnum):
    """How OMOP tables are written."""

    PARQUET = "parquet"
    CSV = "csv"
