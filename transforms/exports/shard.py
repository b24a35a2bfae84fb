"""What goes into an export of a shard and what comes out, whatever the format; and how a record is walked through."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.commit import digest
from schemas.record import LEAF, RECORD_FIELDS
from transforms.exports import CANONICAL, Absent, TableFormat, Target

# Bumped by hand when the same rows give other files; a new number exports every shard again.
SEMANTICS = 1


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """What changes an export's files.

    `canonical`: the URL under which our extensions and identifier systems are named. `patient_system`: of patient ids; by default one
    of ours.
    """

    target: Target
    canonical: str = CANONICAL
    patient_system: str | None = None
    absent: Absent = Absent.REFUTED
    table_format: TableFormat = TableFormat.PARQUET

    @property
    def name(self) -> str:
        """Names exactly these settings and the meaning that this release gives to them."""
        said = (self.target, self.canonical, self.patient_system, self.absent, self.table_format, SEMANTICS)
        return f"{self.target}-{digest(*said, length=8)}"


@dataclass(frozen=True, slots=True)
class ExportNote:
    """One released note: its rows of SUMMARY_SCHEMA and RECORD_SCHEMA.

    `place` names it in ids: 32 hex digits over the version, the cut, the number of the file and the row, so nothing that a guess at a
    note id could be tried against. `number` counts the planned rows of the version from 1. `made_at`: when its shard was committed
    (ISO 8601, UTC).
    """

    place: str
    number: int
    made_at: str
    summary: Mapping[str, Any] = field(repr=False)
    record: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Maker:
    """What made a row, as the row says it."""

    model_id: str
    model_sha256: str
    backend: str
    dtype: str
    decode: str
    code_version: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Maker:
        return cls(*(str(row[name] or "") for name in cls.__slots__))

    @property
    def device_id(self) -> str:
        return f"device-{digest(*(getattr(self, name) for name in self.__slots__), length=32)}"


@dataclass(frozen=True, slots=True)
class Part:
    """One file of an export: a FHIR resource type or a table, of one shard."""

    name: str
    suffix: str
    rows: int
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Exported:
    """What a shard became. `left_out`: entities that the target has no place for, `altered`: values not written as they stand, by kind."""

    parts: tuple[Part, ...]
    makers: tuple[Maker, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    altered: Mapping[str, int] = field(default_factory=dict)


def export_shard(notes: Sequence[ExportNote], settings: ExportSettings) -> Exported:
    """The files of one shard: the same for the same notes and settings."""
    match settings.target:
        case Target.FHIR:
            from transforms.exports.fhir import fhir_shard as export
        case Target.OMOP:
            from transforms.exports.omop import omop_shard as export
        case Target.CSV:
            from transforms.exports.tables import csv_shard as export
    return export(notes, settings)


def entities(record: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(field, entity) of a record in the order of the schema; age and sex as entities of one leaf."""
    for column in RECORD_FIELDS:
        # A release of an earlier schema lacks the columns that came later.
        value = record.get(column.name)
        if column.type == LEAF:
            if value is not None:
                yield column.name, {column.name: value, "codes": [], "readers": []}
        else:
            yield from ((column.name, entity) for entity in value or ())


def leaves(entity: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(name, leaf) of an entity's values that the note states; the first is what the entity is."""
    for name, value in entity.items():
        if isinstance(value, Mapping) and value.get("text") is not None:
            yield name, value


def printable(text: str) -> str:
    """Without what neither XML, FHIR strings nor databases take: control characters and lone surrogates become U+FFFD, one for one.

    FHIR R4 (2.24.0.1) allows no character below U+0020 but tab, line feed and carriage return.
    """
    return text.translate(_UNPRINTABLE) if not text.isprintable() else text


_UNPRINTABLE = dict.fromkeys(
    [code for code in (*range(0x20), *range(0x7F, 0xA0), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF) if code not in (0x09, 0x0A, 0x0D, 0x85)],
    "\ufffd",
)
