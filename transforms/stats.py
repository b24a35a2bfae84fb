"""Figures of a run: merging those of the shards, and counting again from output tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import pyarrow as pa

from schemas.commit import RunStats
from schemas.histogram import count_values
from schemas.record import RECORD_FIELDS
from transforms.checks import INFORMATIVE
from transforms.checks.case import words
from transforms.evidence import sentence_kinds
from transforms.record import filled_fields


def merge_stats(parts: Iterable[RunStats]) -> RunStats:
    """Sum of all parts; RunStats() for none. Order matters only for the last bits of `seconds`."""
    return RunStats.sum(parts)


def output_stats(summaries: pa.Table, records: pa.Table) -> RunStats:
    """What the stages after validation counted, counted again from the rows they left; padding, which rows do not show, is left out."""
    flags = [[flag["code"] for flag in row or ()] for row in summaries.column("flags").to_pylist()]
    counts = [len(words(summary)) for summary in summaries.column("summary").to_pylist()]
    compression = summaries.column("compression").to_pylist()
    # A summary without words does not tell how long its note was.
    note_words = [round(ratio * count) for ratio, count in zip(compression, counts, strict=True) if ratio is not None]
    return RunStats(
        notes_flagged=sum(1 for codes in flags if set(codes) - INFORMATIVE),
        notes_warned=sum(1 for row in summaries.column("contract_warnings").to_pylist() if row),
        flags=dict(Counter(code for codes in flags for code in set(codes))),
        fields=filled_fields(records.select([f.name for f in RECORD_FIELDS]).to_pylist()),
        sentences=sentence_kinds(summaries.column("evidence")),
        tokens={
            name: sum(filter(None, summaries.column(column).to_pylist()))
            for name, column in (("source", "source_tokens"), ("generated", "generated_tokens"), ("truncated", "tokens_dropped"))
        },
        histograms={
            "note_words": count_values("note_words", note_words),
            "summary_words": count_values("summary_words", counts),
            "coverage": count_values("coverage", summaries.column("coverage").drop_null().to_pylist()),
            "compression": count_values("compression", filter(None, compression)),
            "omission": count_values("omission", summaries.column("omission").drop_null().to_pylist()),
            "windows": count_values("windows", summaries.column("windows").to_pylist()),
        },
    )
