"""Scoring and timing records that a model reads: as a job would read them, with what came out empty or cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.bench_records import FreeEngine, Work, contenders, figures_of, print_records
from pipeline.config import load_job
from pipeline.evaluation.record_measure import RecordOptions, measure_records
from pipeline.prepare import prepare_records
from pipeline.record_alarm import written_figures
from schemas.errors import ConfigurationError
from tests.conftest import note_rows
from tests.tiny_record_models import make_record_model
from transforms.engine import Constraint, DecodeSettings, EngineSettings, Request, load_engine
from transforms.record import parse_record
from transforms.record_lines import RECORD_GRAMMAR


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_record_model(tmp_path_factory.mktemp("records"))


@pytest.fixture(scope="module")
def gold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Notes with the rules' own records as right ones."""
    rows = [{"text": row["text"], "gold": json.dumps({"record": parse_record(row["text"])})} for row in note_rows(4)]
    path = tmp_path_factory.mktemp("gold") / "gold.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def measured(gold: Path, reader: str, model: Path | None) -> dict[str, Any]:
    settings = {"input.uris": [str(gold)], "tasks.record.reader": reader, "tasks.record.model": str(model) if model else None}
    settings |= {"engine.device": "cpu", "engine.dtype": "float32", "engine.threads": 1}
    return measure_records(load_job(None, (), settings), RecordOptions("chartmill", resamples=10))


def test_a_model_is_scored_beside_the_rules(gold: Path, folder: Path) -> None:
    rules, both, model = measured(gold, "rules", None), measured(gold, "both", folder), measured(gold, "model", folder)
    assert (rules["micro_f1"], rules["written"], rules["model"]) == (100, None, None)
    assert both["micro_recall"] == 100
    for figures in (both, model):
        assert figures["grounded_share"] == 1.0 and figures["values"]
        assert figures["written"]["notes"] == figures["n"] == 4
        assert figures["written"]["cut_share"] == figures["written"]["cut"] / 4
        assert figures["model"]["sha256"] and figures["model"]["dtype"] == "float32"
    assert str(folder.parent) not in json.dumps(both)


def test_records_that_nobody_reads_are_not_scored(gold: Path) -> None:
    with pytest.raises(ConfigurationError, match="off reads no records"):
        measured(gold, "off", None)


def test_a_records_model_is_resolved_without_a_summary(folder: Path) -> None:
    job = load_job(None, (), {"tasks.record.reader": "model", "tasks.record.model": str(folder), "tasks.summary.model": "nowhere"})
    task = prepare_records(job).record.task
    assert task is not None and task.model.folder == folder


def test_more_than_a_half_percent_of_dead_or_cut_records_is_an_alarm() -> None:
    assert written_figures({}) is None
    fine = written_figures({"notes": 1000, "windows": 1500, "dead": 2, "cut": 3})
    assert fine is not None and (fine["dead_share"], fine["cut_share"], fine["alarm"]) == (0.002, 0.003, "")
    worse = written_figures({"notes": 1000, "windows": 1500, "dead": 3, "cut": 3})
    assert worse is not None and "6 of 1,000 records" in worse["alarm"]


def test_the_report_raises_the_alarm() -> None:
    from pipeline.report import render_report

    page = render_report({"records": {"notes": 10, "windows": 12, "dead": 1, "cut": 0}})
    assert "A model read 10 notes in 12 windows" in page and "1 of 10 records by the model are empty or cut off" in page
    assert "by the model" not in render_report({"records": {}})


def test_a_free_output_counts_only_where_it_is_what_the_constraint_would_allow(folder: Path) -> None:
    engine = load_engine(EngineSettings(model_folder=str(folder), device="cpu", dtype="float32", threads=1))
    free = FreeEngine(engine, folder)
    request = Request("She reports mild pain.", DecodeSettings(max_new_tokens=12), Constraint(RECORD_GRAMMAR))
    [constrained], [alone] = engine.generate([request]), free.generate([request])
    assert constrained.values and not alone.values
    assert free.unreadable == 1
    told = FreeEngine(_Writes(engine, constrained.token_ids), folder)
    [read] = told.generate([request])
    assert (read.values, told.unreadable) == (constrained.values, 0)


class _Writes:
    """An engine that writes these tokens whatever it is asked."""

    def __init__(self, engine: Any, ids: tuple[int, ...]) -> None:
        self._engine, self._ids = engine, ids

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def generate(self, requests: Any) -> Any:
        from dataclasses import replace

        assert all(request.constraint is None for request in requests)
        return [replace(one, token_ids=self._ids) for one in self._engine.generate(requests)]


def test_the_bench_tells_what_each_contender_came_to(folder: Path) -> None:
    work = Work(tuple(row["text"] for row in note_rows(3)), str(folder), 1, ("engine.dtype=float32", "engine.device=cpu"))
    makers = {name: make for name, make in contenders(work).items() if name != "summaries"}
    found = {name: figures_of([make().turn()]) for name, make in makers.items()}
    assert found["model"]["output_tokens"] == found["drafting"]["output_tokens"] > 0
    assert found["model"]["written"] == found["drafting"]["written"]
    assert found["drafting"]["drafted_tokens"] >= found["drafting"]["kept_tokens"]
    assert (found["model"]["acceptance"], found["model"]["steps"] > 0) == (None, True)
    assert found["free"]["unreadable_windows"] == found["free"]["written"]["windows"] >= 3
    assert all(each["notes_per_second"] > 0 and not each["failed"] for each in found.values())
    assert "written" not in found["rules"]
    print_records({"contenders": found, "machine": {"cpu": "any"}})
