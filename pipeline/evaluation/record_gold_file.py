"""Gold in a Parquet file of its own, with a column `note_id` and one of records: as `chartmill sample` writes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import ConfigurationError

_COLUMNS = ("record", "gold")


def read_gold_file(path: str, column: str) -> dict[str, str | Mapping[str, Any]]:
    """Gold by note id: JSON, or rows of RECORD_TYPE. The column is `column`, else `record`. Raises ConfigurationError, naming no path."""
    try:
        table = pq.ParquetFile(Path(path))
        names = table.schema_arrow.names
        found = next((name for name in (column, *_COLUMNS) if name in names), None)
        rows = table.read(columns=["note_id", found]).to_pylist() if found and "note_id" in names else None
    except (OSError, pa.ArrowException):
        raise ConfigurationError("--gold: cannot be read as a Parquet file") from None
    if rows is None:
        raise ConfigurationError(f"--gold: lacks the columns note_id and {column} or record")
    return {row["note_id"]: row[found] for row in rows if row["note_id"] is not None and row[found] is not None}
