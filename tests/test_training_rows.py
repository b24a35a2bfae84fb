"""Reading pairs, holding some out, and cutting them into batches."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.batches import BatchStream, cut_batches, plan_epoch
from pipeline.training.material import Material
from pipeline.training.rows import Columns, Row, hold_out, read_rows
from schemas.errors import ConfigurationError
from tests.training_jobs import pair_rows, write_pairs

PAIRED = Columns("text", "reference")


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".ndjson"])
def test_rows_are_read_and_bad_ones_counted(tmp_path: Path, suffix: str) -> None:
    rows = [*pair_rows(4), {"note_id": "x", "patient_id": "p", "text": " ", "reference": "Gone."}]
    path = write_pairs(tmp_path / f"pairs{suffix}", [*rows, {**rows[0], "reference": None}])
    found, [facts] = read_rows([str(path)], PAIRED, "tasks.summary.data")
    assert [(row.text, row.reference) for row in found] == [(row["text"], row["reference"]) for row in rows[:4]]
    assert (facts.rows, facts.left_out) == (6, 2) and facts.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_folders_globs_and_files_are_found_once(tmp_path: Path) -> None:
    for name in ("a.jsonl", "deep/b.parquet", "_hidden.jsonl"):
        write_pairs(tmp_path / name, pair_rows(2))
    assert len(read_rows([str(tmp_path)], PAIRED, "d")[1]) == 2
    assert len(read_rows([str(tmp_path / "*.jsonl"), str(tmp_path / "a.jsonl")], PAIRED, "d")[1]) == 2


def test_what_cannot_be_read_is_named_by_number(tmp_path: Path) -> None:
    secret = "Marigold"
    good = write_pairs(tmp_path / f"{secret}.jsonl", pair_rows(2))
    broken = tmp_path / f"{secret}-2.jsonl"
    broken.write_text(f'{{"text": "{secret}')
    odd = tmp_path / f"{secret}.docx"
    odd.write_text(secret)
    for patterns, told in (
        ([str(good), str(broken)], "file 2 cannot be read"),
        ([str(tmp_path / secret / "*.jsonl")], "entry 1 names no file"),
        ([str(odd)], "file 1 is not one of .parquet"),
    ):
        with pytest.raises(ConfigurationError, match=told) as caught:
            read_rows(patterns, PAIRED, "tasks.summary.data")
        assert secret not in str(caught.value)
    with pytest.raises(ConfigurationError, match="file 1 has no column 'summary'"):
        read_rows([str(good)], Columns("text", "summary"), "tasks.summary.data")


@given(st.lists(st.integers(0, 6), min_size=2, max_size=40), st.floats(0.01, 0.9), st.integers(0, 99))
def test_rows_are_held_out_by_group(groups: list[int], share: float, seed: int) -> None:
    rows = [Row(f"text {i}", "r", f"p{group}") for i, group in enumerate(groups)]
    train, dev = hold_out(rows, share, seed)
    assert sorted(row.text for row in (*train, *dev)) == sorted(row.text for row in rows)
    assert not {row.group for row in train} & {row.group for row in dev}
    assert (train and dev) if len(set(groups)) > 1 else not dev
    assert hold_out(rows, share, seed) == (train, dev)


def material(lengths: list[tuple[int, int]], weight: float = 1.0) -> Material:
    return Material("task", weight, 0.0, np.array(lengths, dtype=np.int64).reshape(-1, 2), lambda index, rng: ([index], [index]))


LENGTHS = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 20)), min_size=1, max_size=60)


@given(LENGTHS, st.integers(30, 300))
def test_a_batch_keeps_to_its_tokens(lengths: list[tuple[int, int]], tokens: int) -> None:
    array = np.array(lengths, dtype=np.int64)
    batches = list(cut_batches(np.arange(len(lengths)), array, tokens))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * (array[list(batch), 0].max() + array[list(batch), 1].max()) <= tokens


@given(LENGTHS, st.sampled_from([0.25, 0.5, 1.0, 1.5, 3.0]))
def test_weight_says_how_often_examples_come(lengths: list[tuple[int, int]], weight: float) -> None:
    counts = np.zeros(len(lengths), dtype=int)
    for batch in plan_epoch([material(lengths, weight)], 100, seed=1, epoch=0):
        for index in batch.examples:
            counts[index] += 1
    assert set(counts.tolist()) <= {int(weight), int(weight) + 1}
    assert counts.sum() == max(round(weight % 1 * len(lengths)) + int(weight) * len(lengths), 1)


def test_a_batch_is_the_same_however_one_comes_to_it() -> None:
    materials = [material([(i % 7 + 1, 3) for i in range(30)]), material([(9, 9)] * 5, 2.0)]
    stream = BatchStream(materials, 40, seed=3)
    whole = [stream[number] for number in range(stream.count(3))]
    assert [BatchStream(materials, 40, seed=3)[number] for number in reversed(range(len(whole)))] == whole[::-1]
    assert {batch.epoch for batch in whole} == {0, 1, 2}
    first, second = ([b.examples for b in whole if b.epoch == epoch] for epoch in (0, 1))
    assert first != second
    assert stream.count(0.5) == -(-sum(b.epoch == 0 for b in whole) // 2)
