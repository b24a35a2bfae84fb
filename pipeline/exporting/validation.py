"""Checks what an export wrote: read back from the destination, against its hashes and the rules of its format. Tells counts only."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from pipeline.exporting.job import ExportOutcome
from schemas.commit import DataFile
from schemas.errors import ConfigurationError
from transforms.batch import guarded
from transforms.exports import Target
from transforms.exports.shard import ExportSettings
from transforms.parquet import from_parquet
from transforms.store import NotFound, Store

# What a file holds, checked: (rows, problems by kind).
Check = Callable[[str, DataFile, bytes], tuple[int, Counter[str]]]


def validate_export(store: Store, settings: ExportSettings, outcome: ExportOutcome) -> dict[str, Any]:
    """`{rows, problems}`: rows looked at, and what is wrong with how many, by kind.

    Raises ConfigurationError where the packages that FHIR is checked with are not installed.
    """
    check = _checker(settings, outcome)
    rows, problems = 0, Counter[str]()
    with guarded("validate"):
        for table, file in outcome.files:
            data = _stored(store, file)
            if data is None:
                problems[f"{table}: file is gone or damaged"] += 1
                continue
            seen, found = check(table, file, data)
            rows += seen
            problems.update(found)
            if seen != file.rows:
                problems[f"{table}: another number of rows than the record tells"] += 1
        problems.update(check.unresolved() if isinstance(check, _Fhir) else {})
    return {"rows": rows, "problems": dict(sorted(problems.items()))}


def _stored(store: Store, file: DataFile) -> bytes | None:
    try:
        data = store.get(file.path)
    except NotFound:
        return None
    return data if hashlib.sha256(data).hexdigest() == file.sha256 else None


def _checker(settings: ExportSettings, outcome: ExportOutcome) -> Check:
    match settings.target:
        case Target.FHIR:
            return _Fhir([file for table, file in outcome.files if table == "Device"])
        case Target.OMOP:
            return _Omop()
        case Target.CSV:
            return _check_csv


class _Fhir:
    """Resources and their references, shard by shard: files of one shard stand together, and only Devices belong to all."""

    def __init__(self, devices: list[DataFile]) -> None:
        try:
            from pipeline.exporting.fhir_validation import References, check_lines
        except ImportError:
            raise ConfigurationError("--validate: FHIR is checked with fhir.resources; pip install 'chartmill[fhir]'") from None
        self._check_lines = check_lines
        self._references = References()
        self._shared = {file.path for file in devices}

    def __call__(self, table: str, file: DataFile, data: bytes) -> tuple[int, Counter[str]]:
        shard = None if file.path in self._shared else file.path.rsplit("/", 1)[1].split("-", 1)[0]
        return self._check_lines(table, data, shard, self._references)

    def unresolved(self) -> Counter[str]:
        return self._references.unresolved()


class _Omop:
    """Types and widths, and that ids are unique and every note has its entry in the map."""

    def __init__(self) -> None:
        self._seen: dict[str, set[int]] = {"note_nlp": set(), "note_id_map": set()}

    def __call__(self, table: str, file: DataFile, data: bytes) -> tuple[int, Counter[str]]:
        from transforms.exports.omop import SCHEMAS, WIDTHS

        if file.path.endswith(".csv"):
            return _csv_rows(table, data, SCHEMAS[table].names)
        found = from_parquet(data)
        problems = Counter[str]()
        if not found.schema.equals(SCHEMAS[table]):
            problems[f"{table}: other columns or types than the model's"] += 1
            return found.num_rows, problems
        for kind, count in (*_too_wide(found, WIDTHS), *_missing(found), *self._repeated(table, found)):
            problems[f"{table}: {kind}"] += count
        return found.num_rows, +problems

    def _repeated(self, table: str, found: pa.Table) -> Iterator[tuple[str, int]]:
        ids = found.column("note_nlp_id" if table == "note_nlp" else "note_id").to_pylist()
        seen = self._seen[table]
        yield "ids that are not unique", len(ids) - len(set(ids) - seen)
        seen.update(ids)


def _too_wide(found: pa.Table, widths: dict[str, int]) -> Iterator[tuple[str, int]]:
    for name in set(found.column_names) & widths.keys():
        yield f"{name} is too wide", sum(len(value or "") > widths[name] for value in found.column(name).to_pylist())


def _missing(found: pa.Table) -> Iterator[tuple[str, int]]:
    for column in found.schema:
        if not column.nullable:
            yield f"{column.name} is missing", found.column(column.name).null_count


def _check_csv(table: str, file: DataFile, data: bytes) -> tuple[int, Counter[str]]:
    from transforms.exports.tables import headers

    return _csv_rows(table, data, headers()[table])


def _csv_rows(table: str, data: bytes, header: list[str]) -> tuple[int, Counter[str]]:
    """Rows of a CSV file, and how many have another number of fields than its header."""
    rows = list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True))
    problems = Counter[str]()
    if rows[:1] != [header]:
        problems[f"{table}: another header"] += 1
    uneven = sum(len(row) != len(header) for row in rows)
    if uneven:
        problems[f"{table}: rows of another length than the header"] += uneven
    return len(rows) - 1, problems
