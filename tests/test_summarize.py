"""Texts summarized in memory are what a job writes about them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from pipeline.config import load_job
from pipeline.direct import run_directly
from pipeline.planning import plan_run
from pipeline.prepare import prepare
from pipeline.summarize import Summarized, job_summarizer, load_summarizer
from schemas.errors import ConfigurationError
from tests.conftest import echo_job, note_rows, read_rows, write_notes
from tests.tiny_models import make_model, sentences
from transforms.engine.echo import EchoEngine
from transforms.generate import SummaryTask
from transforms.models import NO_MODEL


@pytest.fixture(scope="module")
def bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model("bart", tmp_path_factory.mktemp("bart"))


def test_it_is_what_a_job_writes(tmp_path: Path) -> None:
    rows = note_rows(12)
    rows[3]["text"] += " " + " ".join(sentences(40))
    job = echo_job(write_notes(tmp_path / "notes.parquet", rows), tmp_path / "out", "tasks.summary.decode.max_new_tokens=9")
    prepared = prepare(job)
    run_directly(prepared, plan_run(prepared.store, prepared.version, "run", prepared.plan_settings(), prepared.said_in_plan()))
    written = read_rows(tmp_path / "out", "summaries")
    found = job_summarizer(job).summarize([row["text"] for row in rows])
    assert found == [Summarized.of_row(row) for row in written]
    assert found == load_summarizer("default", backend="echo", decode={"max_new_tokens": 9}).summarize([row["text"] for row in rows])
    assert [Counter(one.flags).total() for one in found] == [len(row["flags"]) for row in written]


def test_a_text_that_fails_spoils_no_other_and_keeps_its_place() -> None:
    texts = ["A dry cough.", " \n", "half a \ud83d character", "", "No fever was measured."]
    found = load_summarizer("default", backend="echo").summarize(texts)
    assert [one.failed for one in found] == [None, "MISSING_TEXT", "ROW_UNREADABLE", "MISSING_TEXT", None]
    assert [one.text for one in found] == ["A dry cough.", "", "", "", "No fever was measured."]
    assert found[4].generated_tokens == found[4].tokens == 4


def test_what_the_engine_fails_on_has_the_reason_of_a_rejection() -> None:
    class Failing(EchoEngine):
        def _complete(self, request):  # type: ignore[no-untyped-def]
            from transforms.engine import OUT_OF_MEMORY, Completion

            return Completion.failed(OUT_OF_MEMORY, "MemoryError") if "cough" in request.text else super()._complete(request)

    from pipeline.summarize import summarize_texts

    found = summarize_texts(["A dry cough.", "No fever."], SummaryTask(NO_MODEL), Failing())
    assert [one.failed for one in found] == ["OUT_OF_MEMORY", None]


def test_no_texts_no_summaries() -> None:
    assert load_summarizer("default", backend="echo").summarize([]) == []


def test_a_real_model_in_any_order(bart: Path) -> None:
    summarizer = load_summarizer(str(bart), dtype="float32", device="cpu", threads=1, decode={"max_new_tokens": 12})
    texts = [" ".join(sentences(count)) for count in (3, 2, 5)]
    found = summarizer.summarize(texts)
    assert found == summarizer.summarize(texts[::-1])[::-1]
    assert all(one.tokens <= 12 and one.source_tokens for one in found)
    assert summarizer.engine.identity.dtype == "float32"


def test_checks_are_those_asked_for() -> None:
    text = " ".join(sentences(3))
    assert "LEAD_COPY" in load_summarizer("default", backend="echo", decode={"max_new_tokens": 60}).summarize([text * 8])[0].flags
    assert not load_summarizer("default", backend="echo", checks=("numbers",)).summarize([text * 8])[0].flags


def test_texts_stay_out_of_reprs() -> None:
    assert "cough" not in repr(load_summarizer("default", backend="echo").summarize(["A dry cough."]))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"model": "no/such-model@1"}, "choices: default"),
        ({"model": "default", "backend": "abacus"}, "engine.backend"),
        ({"model": "default", "backend": "echo", "decode": {"beams": 4}}, "choices: num_beams"),
        ({"model": "default", "backend": "echo", "checks": ("spelling",)}, "'spelling'; choices: numbers"),
        ({"model": "default", "dtype": "int3"}, "engine.dtype"),
    ],
)
def test_what_cannot_be_had_is_named(settings: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        load_summarizer(**settings)  # type: ignore[arg-type]


def test_nothing_is_written_where_the_job_would_write(tmp_path: Path) -> None:
    job_summarizer(load_job(None, (), {"engine.backend": "echo", "output.uri": str(tmp_path / "out")}))
    assert not (tmp_path / "out").exists()
