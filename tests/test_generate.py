from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from schemas.commit import RunStats, Shard
from schemas.errors import ConfigurationError
from schemas.note import BATCH_SCHEMA
from schemas.rejection import Reason, Stage
from schemas.summary import GENERATE_FIELDS
from tests.tiny_models import edit_json, make_model, sentences
from transforms.batch import NoteBatch
from transforms.engine import Engine, EngineSettings, load_engine, loads
from transforms.engine.echo import EchoEngine
from transforms.generate import GenerateTexts, SummaryTask, bound, generate_batch
from transforms.models import DEFAULT_MODEL_FOLDER, NO_MODEL, resolve_model
from transforms.segment import SegmentNotes, segment_batch
from transforms.selection import SelectionFormat, save_selection_format

CPU = EngineSettings(device="cpu", threads=1)
ECHO = EngineSettings(backend="echo")
ECHO_TASK = SummaryTask(NO_MODEL, decode={"max_new_tokens": 12})

needs_default_model = pytest.mark.skipif(not any(DEFAULT_MODEL_FOLDER.glob("*.safetensors")), reason="the default model is not in the tree")


def make_batch(texts: Sequence[str], shard: str = "shard-1") -> NoteBatch:
    rows = [{"note_id": f"n{i}", "text": text, "patient_id": None, "source_file": 3, "source_row": 10 + i} for i, text in enumerate(texts)]
    return NoteBatch(Shard(shard, "cut-1", ()), pa.Table.from_pylist(rows, schema=BATCH_SCHEMA))


def segmented(texts: Sequence[str], shard: str = "shard-1") -> NoteBatch:
    return segment_batch(make_batch(texts, shard))


@pytest.fixture(scope="module")
def bart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model("bart", tmp_path_factory.mktemp("bart"))


@pytest.fixture(scope="module")
def selector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random selection model: it writes nonsense, of which its markers are a part."""
    folder = make_model("bart", tmp_path_factory.mktemp("selector"))
    fmt = SelectionFormat(6, 8, (10, 30), budget_words=12, budget_share=0.5, max_source_tokens=120, max_new_tokens=8)
    save_selection_format(fmt, folder)
    return folder


def engine_of(task: SummaryTask, settings: EngineSettings = CPU) -> Engine:
    return load_engine(bound(settings, task.model))


def rows_of(batch: NoteBatch) -> list[dict[str, Any]]:
    return batch.notes.select([f.name for f in GENERATE_FIELDS]).to_pylist()


def test_every_note_gets_its_summary_and_its_figures() -> None:
    texts = [" ".join(sentences(n)) for n in (1, 4, 2)]
    batch = generate_batch(segmented(texts), EchoEngine(), ECHO_TASK)
    assert [row["summary"] for row in rows_of(batch)] == [sentences(1)[0], " ".join(sentences(2)), " ".join(sentences(2))]
    assert batch.notes.schema.names[-len(GENERATE_FIELDS) :] == [f.name for f in GENERATE_FIELDS]
    assert [row["finish"] for row in rows_of(batch)] == ["stop"] * 3
    assert all(row["source_characters_cut"] == 0 and row["evidence"] == [] for row in rows_of(batch))
    assert batch.stats.tokens["source"] == sum(len(text.split()) for text in texts) == sum(row["source_tokens"] for row in rows_of(batch))
    assert batch.stats.tokens["generated"] == sum(row["generated_tokens"] for row in rows_of(batch))


def test_no_notes_no_rows() -> None:
    batch = generate_batch(segmented([]), EchoEngine(), ECHO_TASK)
    assert batch.notes.num_rows == 0
    assert batch.notes.schema.field("evidence") == GENERATE_FIELDS[1]
    assert batch.rejections == ()


def test_a_note_over_the_limit_is_cut_at_a_sentence_and_counted() -> None:
    parts = sentences(6)
    text = " ".join(parts) + "\n"
    words = [len(part.split()) for part in parts]
    task = replace(ECHO_TASK, prefix="summarize: ", decode={"max_new_tokens": 500}, max_source_tokens=1 + sum(words[:3]) + 2)
    batch = generate_batch(segmented([text, parts[0]]), EchoEngine(), task)
    long, short = rows_of(batch)
    assert long["summary"] == "summarize: " + " ".join(parts[:3])
    assert long["source_characters_cut"] == len(text) - len(" ".join(parts[:3]))
    assert batch.stats.tokens["truncated"] == sum(words[3:])
    assert batch.stats.tokens["source"] == long["source_tokens"] + short["source_tokens"] == 2 + sum(words[:3]) + words[0]
    assert short["source_characters_cut"] == 0


def test_a_first_sentence_over_the_limit_is_cut_inside() -> None:
    task = replace(ECHO_TASK, max_source_tokens=3)
    [row] = rows_of(generate_batch(segmented(["one two three four five"]), EchoEngine(), task))
    assert row["summary"] == "one two three"
    assert row["source_characters_cut"] == len(" four five")


def test_the_cut_counts_tokens_of_a_real_tokenizer(bart: Path) -> None:
    task = SummaryTask(resolve_model(str(bart)), decode={"max_new_tokens": 5, "min_new_tokens": 2})
    engine = engine_of(task)
    text = "\n".join(sentences(70))
    batch = generate_batch(segmented([text]), engine, task)
    total = len(engine.tokenize([text])[0])
    [row] = rows_of(batch)
    seen = text[: len(text) - row["source_characters_cut"]]
    assert seen.endswith(".")
    assert row["source_tokens"] == len(engine.tokenize([seen])[0]) <= engine.max_source_tokens
    assert row["source_tokens"] + batch.stats.tokens["truncated"] == total


def test_failures_and_empty_output_are_set_aside_alone(bart: Path) -> None:
    """An encoder that refuses a marked word; a decoder that is told to end at once on all others but one."""
    import torch

    task = SummaryTask(resolve_model(str(bart)), decode={"max_new_tokens": 6, "min_new_tokens": 3, "no_repeat_ngram_size": 2})
    engine = engine_of(task)
    marked = "zebra"
    marker = list(engine.tokenize([marked])[0].ids[-2:])

    def refuse(module: object, args: object, kwargs: dict[str, torch.Tensor]) -> None:
        if any(row[i : i + 2] == marker for row in kwargs["input_ids"].tolist() for i in range(len(row))):
            raise torch.OutOfMemoryError("synthetic")

    texts = [" ".join(sentences(2)), marked, sentences(1)[0]]
    expected = rows_of(generate_batch(segmented([texts[0], texts[2]]), engine, task))
    engine._model.get_encoder().register_forward_pre_hook(refuse, with_kwargs=True)  # type: ignore[attr-defined]
    batch = generate_batch(segmented(texts), engine, task)
    [rejection] = batch.rejections
    assert (rejection.stage, rejection.reason, rejection.note_id) == (Stage.GENERATE, Reason.OUT_OF_MEMORY, "n1")
    assert (rejection.source_file, rejection.source_row) == (3, 11)
    assert batch.column("note_id") == ["n0", "n2"]
    assert [row["summary"] for row in rows_of(batch)] == [row["summary"] for row in expected]

    empty = generate_batch(segmented([texts[0]]), engine, replace(task, decode={"max_new_tokens": 1, "forced_eos_token_id": 2}))
    assert [r.reason for r in empty.rejections] == [Reason.EMPTY_SUMMARY]
    assert empty.notes.num_rows == 0


def test_selection_models_give_sentences_with_exact_evidence(selector: Path) -> None:
    task = SummaryTask(resolve_model(str(selector)), decode={"max_new_tokens": 100})
    assert task.decode_settings().max_new_tokens == 8
    text = "\n\n".join(sentences(5))
    batch = generate_batch(segmented([text, sentences(1)[0]]), engine_of(task), task)
    for row, source in zip(rows_of(batch), (text, sentences(1)[0]), strict=True):
        assert row["evidence"]
        for e in row["evidence"]:
            assert row["summary"][e["summary_start"] : e["summary_end"]] == source[e["source_start"] : e["source_end"]]
            assert (e["score"], e["kind"]) == (1.0, "exact")


def test_selection_cuts_at_a_sentence_and_never_beyond_its_limit(selector: Path) -> None:
    task = SummaryTask(resolve_model(str(selector)))
    engine = engine_of(task)
    text = " ".join(sentences(40))
    batch = generate_batch(segmented([text]), engine, task)
    [row] = rows_of(batch)
    assert 0 < row["source_characters_cut"] < len(text)
    assert text[: len(text) - row["source_characters_cut"]].endswith(".")
    assert batch.stats.tokens["truncated"] > 0


@needs_default_model
def test_the_default_model_summarizes_from_the_note() -> None:
    task = SummaryTask(resolve_model("default"))
    text = " ".join(sentences(30))
    engine = engine_of(task)
    batch = generate_batch(segmented([text, text * 20, "Short."]), engine, task)
    assert batch.rejections == ()
    short, long, tiny = rows_of(batch)
    assert tiny["summary"] == "Short."
    assert short["source_characters_cut"] == 0 < long["source_characters_cut"]
    assert long["source_tokens"] <= engine.max_source_tokens
    for row, source in ((short, text), (long, text * 20)):
        assert 0 < len(row["summary"]) < len(source)
        assert row["summary"] == " ".join(source[e["source_start"] : e["source_end"]] for e in row["evidence"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"max_source_tokens": 9_999_999}, "segment.max_source_tokens: 9999999 is not within 1 and the model's limit, 1000000"),
        ({"prefix": "a b c ", "max_source_tokens": 3}, "its 3 tokens leave no room"),
    ],
)
def test_a_task_that_asks_too_much_of_its_engine_is_told(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        replace(ECHO_TASK, **change).check(EchoEngine())


def test_a_selection_model_takes_no_prefix(selector: Path) -> None:
    with pytest.raises(ConfigurationError, match="is a selection model and takes none"):
        SummaryTask(resolve_model(str(selector)), prefix="summarize: ").check(EchoEngine())


def test_bad_settings_of_job_or_model_are_configuration_errors(bart: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"tasks\.summary\.decode\.top_p is not a decode setting"):
        SummaryTask(resolve_model(str(bart)), decode={"top_p": 1}).decode_settings()
    folder = make_model("bart", tmp_path)
    (folder / "chartmill.json").write_text('{"objective": "selection", "format_version": 99}')
    with pytest.raises(ConfigurationError, match="format_version 99"):
        SummaryTask(resolve_model(str(folder))).selection_format()


def test_shipped_decode_settings_count_unless_overridden(tmp_path: Path) -> None:
    folder = make_model("bart", tmp_path)
    edit_json(folder / "generation_config.json", num_beams=3, max_length=10)
    model = resolve_model(str(folder))
    assert SummaryTask(model).decode_settings().num_beams == 3
    assert SummaryTask(model, decode={"num_beams": 1, "max_new_tokens": None}).decode_settings().max_new_tokens == 9


def run_beam(batches: list[NoteBatch], task: SummaryTask, settings: EngineSettings, *options: str) -> tuple[list[NoteBatch], int]:
    """What GenerateTexts yields for these batches, and the model loads that Beam counted."""
    found: list[NoteBatch] = []
    lock = threading.Lock()
    pipeline = beam.Pipeline(runner="FnApiRunner", options=PipelineOptions(list(options)))
    key = f"results-{id(found)}"
    _COLLECTED[key] = (found, lock)
    # Reshuffled, so that the batches reach the stage in several bundles.
    pipeline | beam.Create(batches) | beam.Reshuffle() | GenerateTexts(task, settings) | beam.Map(_collect, key)
    result = pipeline.run()
    result.wait_until_finish()
    [counter] = result.metrics().query(beam.metrics.MetricsFilter().with_name("model_loads"))["counters"]
    return sorted(found, key=lambda batch: batch.shard.id), counter.committed


_COLLECTED: dict[str, tuple[list[NoteBatch], threading.Lock]] = {}


def _collect(batch: NoteBatch, key: str) -> None:
    found, lock = _COLLECTED[key]
    with lock:
        found.append(batch)


@pytest.mark.parametrize("mode", [(), ("--direct_num_workers=3", "--direct_running_mode=multi_threading")], ids=["in_memory", "threads"])
def test_beam_equals_direct_and_loads_once(bart: Path, mode: tuple[str, ...]) -> None:
    task = SummaryTask(resolve_model(str(bart)), decode={"max_new_tokens": 5, "min_new_tokens": 3})
    batches = [segmented([" ".join(sentences(1 + (i + j) % 4)) for j in range(3)], f"shard-{i}") for i in range(6)]
    engine = engine_of(task)
    direct = [generate_batch(batch, engine, task) for batch in batches]
    before = loads()
    beamed, counted = run_beam(batches, task, CPU, *mode)
    assert (loads() - before, counted) == (1, 1)
    assert len(beamed) == len(direct)
    for one, other in zip(beamed, direct, strict=True):
        assert one.notes.drop(["logprob"]).equals(other.notes.drop(["logprob"]))
        assert one.stats.tokens == other.stats.tokens
        assert one.stats.seconds["generate"] > 0


@pytest.mark.slow
def test_worker_processes_get_what_they_need_by_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
    batches = [segmented([sentences(1)[0]], f"shard-{i}") for i in range(3)]
    options = PipelineOptions(["--direct_num_workers=2", "--direct_running_mode=multi_processing"])
    with beam.Pipeline(runner="FnApiRunner", options=options) as pipeline:
        written = pipeline | beam.Create(batches) | beam.Reshuffle() | GenerateTexts(ECHO_TASK, ECHO)
        _ = written | beam.Map(_write, str(tmp_path))
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {f"shard-{i}": sentences(1)[0] for i in range(3)}


def _write(batch: NoteBatch, folder: str) -> None:
    (Path(folder) / batch.shard.id).write_text("".join(batch.column("summary")))


def test_tasks_and_settings_pickle(bart: Path) -> None:
    task = SummaryTask(resolve_model(str(bart)), decode={"num_beams": 2})
    assert pickle.loads(pickle.dumps((task, CPU))) == (task, CPU)


def test_threads_that_share_an_engine_each_count_their_own_tokens() -> None:
    engine = EchoEngine()
    batches = [segmented([" ".join(sentences(1 + i))] * 20) for i in range(4)]
    expected = [generate_batch(batch, engine, ECHO_TASK).stats for batch in batches]
    got: list[RunStats | None] = [None] * len(batches)

    def work(i: int) -> None:
        for _ in range(10):
            got[i] = generate_batch(batches[i], engine, ECHO_TASK).stats

    threads: list[threading.Thread] = [threading.Thread(target=work, args=(i,)) for i in range(len(batches))]
    run: Callable[[threading.Thread], None]
    for run in (threading.Thread.start, threading.Thread.join):
        for thread in threads:
            run(thread)
    assert got == expected


def test_beam_stage_composes_with_segmentation() -> None:
    found: list[NoteBatch] = []
    _COLLECTED["composed"] = (found, threading.Lock())
    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        batches = pipeline | beam.Create([make_batch([sentences(1)[0]])]) | SegmentNotes() | GenerateTexts(ECHO_TASK, ECHO)
        _ = batches | beam.Map(_collect, "composed")
    assert [batch.column("summary") for batch in found] == [[sentences(1)[0]]]
