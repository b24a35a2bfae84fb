"""Synthetic notes with references: true by the note's record, split by patient, the same for the same seed."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.sample import compose
from pipeline.sample_pairs import PAIRS_SCHEMA, summary_of, write_pairs


def test_what_a_reference_names_stands_in_the_note() -> None:
    for number in range(300):
        note = compose(7, number)
        reference = summary_of(note.visit, note.record)
        head, *facts = re.split(r"(?<=[a-z%)])\. ", reference.rstrip("."))
        assert str(note.visit.years) in head or str(note.visit.months) in head
        listed = [head.partition(" with ")[2], *facts]
        words = {word for part in listed for word in re.findall(r"\w+", part.lower())} - {"started", "on", "next", "and", ""}
        assert words <= set(re.findall(r"\w+", note.text.lower())), number


def test_references_are_short_and_never_empty() -> None:
    counts = [len(summary_of(note.visit, note.record).split()) for note in (compose(3, number) for number in range(300))]
    assert min(counts) >= 8 and max(counts) <= 90


def test_sides_share_no_patient(tmp_path: Path) -> None:
    counts = write_pairs(200, tmp_path, seed=1)
    tables = {side: pq.read_table(tmp_path / "pairs" / f"{side}.parquet") for side in counts}
    assert all(table.schema.equals(PAIRS_SCHEMA) and table.num_rows == counts[side] for side, table in tables.items())
    train, test = (set(table.column("patient_id").to_pylist()) for table in tables.values())
    assert not train & test and sum(counts.values()) == 200 and 20 <= counts["test"] <= 60
    write_pairs(200, tmp_path / "again", seed=1)
    assert pq.read_table(tmp_path / "again" / "pairs" / "test.parquet").equals(tables["test"])
