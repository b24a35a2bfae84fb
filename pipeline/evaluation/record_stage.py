"""Records of texts in memory, through the record stage of a job, without Beam and without a summary.

It knows no contract: texts are not validated, only blank ones are set aside; nor the dates of the notes, so relative dates stay unresolved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa

from pipeline.summarize import unusable
from schemas.commit import RunStats, Shard
from schemas.note import BATCH_SCHEMA
from transforms.batch import NoteBatch, compose, timed
from transforms.record import RecordSettings
from transforms.segment import segment_batch
from transforms.shared_engine import LoadedEngine

_NOTES_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Recorded:
    """A text's record in the shape of RECORD_TYPE; empty, with the code of the reason, where there is none."""

    record: Mapping[str, Any] = field(default_factory=dict, repr=False)
    failed: str | None = None


@dataclass(frozen=True, slots=True)
class RecordedTexts:
    """One record per text, in order. `written`: what a model's part came to, as RunStats.records; empty where no model read."""

    records: tuple[Recorded, ...] = field(repr=False)
    written: Mapping[str, int] = field(default_factory=dict)


def read_records(texts: Sequence[str], settings: RecordSettings, loaded: LoadedEngine | None = None) -> RecordedTexts:
    """`loaded`: the engine of the task, where there is one. A text that fails spoils no other.

    Raises StageError, which quotes no text, when the stage itself fails.
    """
    # Only windows need sentences.
    steps = ({} if loaded is None else {"segment": segment_batch}) | {"record": settings.step(loaded)}
    step = compose([partial(timed, name, stage) for name, stage in steps.items()])
    results = {i: Recorded(failed=str(unusable(text))) for i, text in enumerate(texts)}
    stats: list[RunStats] = []
    for start in range(0, len(texts), _NOTES_AT_ONCE):
        results |= _stretch(texts, range(start, min(start + _NOTES_AT_ONCE, len(texts))), step, stats)
    return RecordedTexts(tuple(results[position] for position in range(len(texts))), RunStats.sum(stats).records)


def _stretch(texts: Sequence[str], places: range, step: Callable[[NoteBatch], NoteBatch], stats: list[RunStats]) -> dict[int, Recorded]:
    done = step(_batch(texts, places))
    stats.append(done.stats)
    failed = {rejection.source_row or 0: Recorded(failed=str(rejection.reason)) for rejection in done.rejections}
    return failed | {row["source_row"]: Recorded(row["record"]) for row in _rows(done)}


def _batch(texts: Sequence[str], places: range) -> NoteBatch:
    """The usable texts, each known by its place in the list."""
    rows = [{"note_id": str(i), "text": texts[i], "source_file": 0, "source_row": i} for i in places if unusable(texts[i]) is None]
    return NoteBatch(Shard("texts", "texts", ()), pa.Table.from_pylist(rows, schema=BATCH_SCHEMA))


def _rows(batch: NoteBatch) -> Iterator[dict[str, Any]]:
    yield from batch.notes.select(("source_row", "record")).to_pylist()
