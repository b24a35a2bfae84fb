"""`chartmill bench scale`: what it writes is what it says, and its runs come out whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.bench_scale import bench_scale, write_notes
from schemas.errors import ConfigurationError


def test_notes_are_as_many_as_said_and_all_different(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.bench_scale.NOTES_PER_FILE", 8)
    write_notes(tmp_path, 0, 20)
    write_notes(tmp_path, 20, 21)
    assert [pq.read_metadata(path).num_rows for path in sorted(tmp_path.iterdir())] == [8, 8, 4, 1]
    table = pq.read_table(tmp_path)
    assert all(len(set(table.column(name).to_pylist())) == 21 for name in ("note_id", "text"))


def test_a_folder_that_is_not_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(ConfigurationError, match="--folder: not empty"):
        bench_scale([10], tmp_path, None, made_up=False)


@pytest.mark.slow
def test_a_few_notes(run_cli: Any, tmp_path: Path) -> None:
    work = str(tmp_path / "work")
    done = run_cli("bench", "scale", "--notes", "40", "--shard-notes", "10", "--made-up", "--folder", work, "--json", timeout=900)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    [size] = told["sizes"]
    runs = size["runs"]
    assert (size["count"], told["made_up"]) == (40, True)
    assert [runs[name]["notes"] for name in ("first", "again", "night")] == [0, 0, 1]
    assert [runs[name]["shards"] for name in ("again", "night")] == [0, 1]
    assert all(run["seconds"] > 0 and run["peak_mb"] > 50 for run in runs.values())
