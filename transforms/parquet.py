"""Parquet as bytes: what is put in, and taken out of, a store in one request."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq


def to_parquet(table: pa.Table) -> bytes:
    """The table as a Parquet file; equal tables give equal bytes."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def from_parquet(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """The table of a Parquet file, or some of its columns, in the file's order. Raises pa.ArrowInvalid when it is none."""
    # Not read_table: it makes a dataset first, which takes longer than reading a shard's few columns.
    return pq.ParquetFile(pa.BufferReader(data)).read(columns=None if columns is None else list(columns))
