"""`chartmill bench job`: three ways to the same summaries of the same notes, by turns, and what is made of their times."""

from __future__ import annotations

import io
import json
import os
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from pipeline.bench_job import BareEngine, RowPipeline, WholeJob, Workload, compare, write_notes
from pipeline.bench_shapes import SHAPES, make_model, make_samples
from pipeline.bench_tables import print_job
from pipeline.bench_turns import Contender, Turn, take_turns
from pipeline.cli import main
from schemas.errors import ChartmillError
from tests.failing_contenders import SECRET, Failing, Telling

NOTES = 6


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Workload:
    folder = tmp_path_factory.mktemp("bench")
    write_notes(folder / "notes.parquet", NOTES, "tiny")
    model = make_model(SHAPES["tiny"], folder / "model")
    return Workload(str(folder / "notes.parquet"), str(model), folder, NOTES, 1, ("engine.dtype=float32", "engine.device=cpu"))


def test_three_ways_write_the_same_number_of_tokens_for_the_same_notes(work: Workload) -> None:
    # The bare engine first: it writes the rows.
    turns = [kind(work).turn() for kind in (BareEngine, WholeJob, RowPipeline)]
    bare, whole, rows = turns
    assert [turn.notes for turn in turns] == [NOTES] * 3
    assert bare.output_tokens == whole.output_tokens == rows.output_tokens > NOTES
    assert pq.ParquetFile(work.rows).metadata.num_rows == NOTES
    assert {"read", "validate", "segment", "generate", "evidence", "verify"} <= set(whole.stages)
    assert all(turn.seconds > 0 for turn in turns) and whole.load_seconds > 0 < rows.load_seconds
    assert {path.name for path in work.folder.iterdir()} == {"notes.parquet", "model", "requests.parquet"}


def test_synthetic_notes_are_as_long_as_the_shape_says(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_notes(tmp_path / name, 20, "tiny", seed=3)
    rows, again = (pq.read_table(tmp_path / name).to_pylist() for name in ("a", "b"))
    assert rows == again and len({row["note_id"] for row in rows}) == 20
    wanted = [sample.source_tokens - 2 for sample in make_samples(SHAPES["tiny"], 20, 3)]
    assert [len(row["text"].split()) for row in rows] == wanted


def turns(*rates: float, **more: Any) -> list[Turn]:
    """Of 10 notes each."""
    return [Turn(10 / rate, 0.5, 10, 100, **more) for rate in rates]


@pytest.fixture
def figures(work: Workload) -> dict[str, Any]:
    whole = turns(4, 5, 8, stages={"read": 0.25, "generate": 1.0})
    return compare({"bare_engine": turns(10, 4, 5), "pipeline": whole, "row_pipeline": turns(2, 1, 1)}, work, "int8")


def test_medians_are_compared(figures: dict[str, Any]) -> None:
    assert figures["ratios"] == {"bare_engine": 1.0, "row_pipeline": 5.0}
    assert figures["contenders"]["pipeline"]["spread"] == [4, 8]
    assert figures["stage_seconds"] == {"read": 0.25, "generate": 1.0, "other": 0.75}
    assert figures["machine"]["dtype"] == "int8"
    assert json.loads(json.dumps(figures)) == figures


def test_the_table_fits_a_terminal(figures: dict[str, Any]) -> None:
    page = io.StringIO()
    print_job(figures, Console(file=page, width=80))
    lines = page.getvalue().splitlines()
    assert lines[3].split() == ["Beam,", "row", "by", "row", "1.00", "1.00", "2.00", "5.00", "x", "100", "0.50", "0"]
    assert "generate 1.00, other 0.75" in page.getvalue() and "…" not in page.getvalue()


def test_contenders_take_turns_in_processes_of_their_own(tmp_path: Path) -> None:
    makers: dict[str, Callable[[], Contender]] = {name: partial(Telling, tmp_path / name) for name in "ab"}
    taken = take_turns(makers, 2)
    assert {name: len(mine) for name, mine in taken.items()} == {"a": 2, "b": 2}
    assert all(turn.peak_mb > 0 for mine in taken.values() for turn in mine)
    told = {name: [line.split() for line in (tmp_path / name).read_text().splitlines()] for name in "ab"}
    assert len({pid for lines in told.values() for pid, _, _ in lines} | {str(os.getpid())}) == 3
    # The first of each does not count.
    order = [name for _, name in sorted((float(start), name) for name, lines in told.items() for _, start, _ in lines)]
    assert order == ["a", "b"] * 3


def test_a_contender_that_fails_is_told_without_its_message() -> None:
    makers: dict[str, Callable[[], Contender]] = {"bad": partial(Failing, "broken", 0)}
    with pytest.raises(ChartmillError, match="the measurement of bad failed: ValueError") as failure:
        take_turns(makers, 1)
    assert SECRET not in str(failure.value)


@pytest.mark.slow
def test_the_command(run_cli: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = run_cli("bench", "job", "--shape", "tiny", "--requests", "8", "--repeats", "1", "--json", timeout=160)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert set(told["ratios"]) == {"bare_engine", "row_pipeline"} and all(told["ratios"].values())


def test_an_unknown_shape_is_told_with_the_choices(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "job", "--shape", "huge", "--json"]) == 2
    assert "--shape: choices: distilbart-6-6" in capfd.readouterr().err
