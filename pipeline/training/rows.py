"""Texts and references from Parquet and JSON lines, with fingerprints of their files. Files are named by number only."""

from __future__ import annotations

import glob
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from schemas.errors import ConfigurationError

SUFFIXES = (".parquet", ".jsonl", ".ndjson")
_READ_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """A text, its reference (empty where none is needed), and what it must stay together with when rows are held out."""

    text: str = field(repr=False)
    reference: str = field(default="", repr=False)
    group: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class FileFacts:
    """One data file: its content's sha256, its rows, and how many of them had no text or no reference."""

    sha256: str
    rows: int
    left_out: int


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of columns. `reference` None: texts alone. `group` None: every row by itself."""

    text: str
    reference: str | None
    group: str | None = None


def read_rows(patterns: Sequence[str], columns: Columns, key: str) -> tuple[list[Row], list[FileFacts]]:
    """Rows that have a text and, if one is needed, a reference; blank ones are left out and counted.

    `key`: of the training file, for messages. Raises ConfigurationError, naming files by their number, for what cannot be found or read.
    """
    rows: list[Row] = []
    facts = []
    for number, path in enumerate(_files(patterns, key), start=1):
        try:
            table = list(_read(path, columns))
        except KeyError as error:
            raise ConfigurationError(
                f"{key}: file {number} has no column {error.args[0]!r}; text_column and reference_column name them"
            ) from None
        except Exception as error:  # noqa: BLE001 - readers' messages quote rows; only the kind is told
            raise ConfigurationError(f"{key}: file {number} cannot be read ({type(error).__name__})") from None
        good = [row for row in table if row.text.strip() and (columns.reference is None or row.reference.strip())]
        facts.append(FileFacts(_sha256(path), len(table), len(table) - len(good)))
        rows += good
    if not rows:
        raise ConfigurationError(f"{key}: no row has both a text and what is to be learned from it")
    return rows, facts


def hold_out(rows: Sequence[Row], share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """(rows to learn from, rows to judge by). Rows of a group stay together; at least one group stays on either side if there are two."""
    groups = [row.group or f"\0{i}" for i, row in enumerate(rows)]
    names = sorted(set(groups))
    order = np.random.default_rng([seed, len(names)]).permutation(len(names))
    count = min(max(1, round(share * len(names))), len(names) - 1) if share else 0
    held = {names[i] for i in order[:count]}
    kept = [row for row, group in zip(rows, groups, strict=True) if group not in held]
    return kept, [row for row, group in zip(rows, groups, strict=True) if group in held]


def _files(patterns: Sequence[str], key: str) -> list[Path]:
    found: list[Path] = []
    for number, pattern in enumerate(patterns, start=1):
        path = Path(pattern).expanduser()
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES and not file.name.startswith((".", "_")))
        else:
            files = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))] if not path.is_file() else [path]
        if not files:
            raise ConfigurationError(
                f"{key}: entry {number} names no file that exists; choices: a file, folder or glob of {', '.join(SUFFIXES)}"
            )
        found += files
    for number, path in enumerate(found, start=1):
        if path.suffix not in SUFFIXES:
            raise ConfigurationError(f"{key}: file {number} is not one of {', '.join(SUFFIXES)}")
    return list(dict.fromkeys(found))


def _read(path: Path, columns: Columns) -> Iterator[Row]:
    records = _parquet(path, columns) if path.suffix == ".parquet" else _json_lines(path, columns)
    for text, reference, group in records:
        yield Row(_string(text), _string(reference), "" if group is None else str(group))


def _string(value: Any) -> str:
    """Records may come as JSON or as they are."""
    if isinstance(value, dict):
        return json.dumps(value)
    return value if isinstance(value, str) else ""


def _wanted(columns: Columns) -> tuple[str, str | None, str | None]:
    return columns.text, columns.reference, columns.group


def _parquet(path: Path, columns: Columns) -> Iterable[tuple[Any, Any, Any]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        known = set(file.schema_arrow.names)
        for name in _wanted(columns):
            if name is not None and name not in known:
                raise KeyError(name)
        table = file.read(columns=[name for name in dict.fromkeys(_wanted(columns)) if name is not None])
    values = [[None] * table.num_rows if name is None else table.column(name).to_pylist() for name in _wanted(columns)]
    return zip(*values, strict=True)


def _json_lines(path: Path, columns: Columns) -> Iterator[tuple[Any, Any, Any]]:
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.strip():
                record = json.loads(line)
                yield tuple(None if name is None else record[name] for name in _wanted(columns))  # type: ignore[misc]


def _sha256(path: Path) -> str:
    content = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_READ_SIZE):
            content.update(chunk)
    return content.hexdigest()
