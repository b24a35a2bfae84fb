"""The verify stage: flags and figures of a batch; a note that fails is rejected alone."""

from __future__ import annotations

from typing import Any

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that

from schemas.commit import Piece, Shard
from schemas.histogram import EDGES
from schemas.note import BATCH_SCHEMA
from schemas.rejection import Reason, Stage
from schemas.summary import GENERATE_FIELDS, SEGMENT_FIELDS, VERIFY_FIELDS
from transforms.batch import NoteBatch
from transforms.checks import CHECKS, INFORMATIVE
from transforms.verify import VerifySummaries, verify_batch

NOTE = (
    "He took ramipril 5.0 mg twice daily for three weeks. Weight 1,200 g at birth. BP 140/90 mmHg. Creatinine 95 mg/dL, heparin 10 mg/kg."
)


def test_unknown_check_names_the_value_and_the_choices() -> None:
    with pytest.raises(ValueError, match=r"'speling'.*numbers, units, .*coverage"):
        VerifySummaries(["numbers", "speling"])


def batch_of(*rows: dict[str, Any]) -> NoteBatch:
    schema = pa.schema([*BATCH_SCHEMA, *SEGMENT_FIELDS, *GENERATE_FIELDS])
    filled = [
        dict.fromkeys(schema.names)
        | {"note_id": f"n{i}", "source_file": 0, "source_row": i, "finish": "stop", "windows": 1, "tokens_dropped": 0, "sentences": []}
        | row
        for i, row in enumerate(rows)
    ]
    return NoteBatch(Shard("s", "s", (Piece(0, 0, len(rows)),)), pa.Table.from_pylist(filled, schema=schema))


GOOD = {"text": NOTE, "summary": "BP 140/90 mmHg."}
BAD = {"text": NOTE, "summary": "BP 190/90 mmHg and BP 180/90 mmHg."}
CUT = {"text": NOTE, "summary": "BP 140/90 mmHg.", "tokens_dropped": 7}


def test_batch_columns_and_figures() -> None:
    done = verify_batch(batch_of(GOOD, BAD, CUT), ["numbers", "truncation"])
    assert [done.notes.schema.field(field.name) for field in VERIFY_FIELDS] == VERIFY_FIELDS
    assert [[flag["code"] for flag in flags] for flags in done.column("flags")] == [[], ["UNSUPPORTED_NUMBER"] * 2, ["SOURCE_CUT"]]
    assert done.stats.flags == {"UNSUPPORTED_NUMBER": 1, "SOURCE_CUT": 1}
    assert done.stats.notes_flagged == 1 and "SOURCE_CUT" in INFORMATIVE
    for name in ("note_words", "summary_words", "coverage", "compression"):
        assert sum(done.stats.histograms[name]) == 3 and len(done.stats.histograms[name]) == len(EDGES[name]) + 1


def test_a_note_that_fails_is_rejected_alone() -> None:
    done = verify_batch(batch_of(GOOD, {"text": NOTE, "summary": None}, CUT), CHECKS)
    (rejection,) = done.rejections
    assert (rejection.stage, rejection.reason, rejection.source_row) == (Stage.VERIFY, Reason.VERIFY_FAILED, 1)
    assert done.column("note_id") == ["n0", "n2"]


def test_transform_equals_function() -> None:
    batch = batch_of(GOOD, BAD)

    def check(found: list[NoteBatch]) -> None:
        (done,) = found
        assert done.notes.equals(verify_batch(batch, ["numbers"]).notes)
        assert set(done.stats.seconds) == {"verify"}

    with beam.Pipeline("FnApiRunner") as pipeline:
        assert_that(pipeline | beam.Create([batch]) | VerifySummaries(["numbers"]), check)
