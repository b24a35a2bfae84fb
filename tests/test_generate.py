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
from transforms.engine import Completion, Engine, EngineSettings, Request, load_engine, loads
from transforms.engine.echo import EchoEngine
from transforms.generate import GenerateTexts, SummaryTask, generate_batch
from transforms.models import DEFAULT_MODEL_FOLDER, NO_MODEL, resolve_model
from transforms.segment import SegmentNotes, segment_batch
from transforms.selection import SelectionFormat, mark_source, save_selection_format
from transforms.sentences import split_sentences
from transforms.shared_engine import SharedEngines, bound

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
    assert all((row["windows"], row["tokens_dropped"], row["evidence"]) == (1, 0, []) for row in rows_of(batch))
    assert batch.stats.tokens["source"] == sum(len(text.split()) for text in texts) == sum(row["source_tokens"] for row in rows_of(batch))
    assert batch.stats.tokens["generated"] == sum(row["generated_tokens"] for row in rows_of(batch))


def test_no_notes_no_rows() -> None:
    batch = generate_batch(segmented([]), EchoEngine(), ECHO_TASK)
    assert batch.notes.num_rows == 0
    assert batch.notes.schema.field("evidence") == GENERATE_FIELDS[1]
    assert batch.rejections == ()


def test_a_note_within_the_limit_makes_the_same_request_as_ever(bart: Path, selector: Path) -> None:
    text = "\n".join(sentences(3)) + "\n "
    engine = Asked(EchoEngine())
    generate_batch(segmented([text]), engine, replace(ECHO_TASK, prefix="summarize: "))
    assert engine.calls == [[Request("summarize: " + text, ECHO_TASK.decode_settings())]]

    task = SummaryTask(resolve_model(str(selector)))
    engine = Asked(engine_of(task))
    generate_batch(segmented([text]), engine, task)
    fmt = task.selection_format()
    assert fmt is not None
    assert engine.calls == [[Request(mark_source(text, split_sentences(text), fmt).source, task.decode_settings())]]


class Asked:
    """An engine that notes what it is asked, one list per call."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.calls: list[list[Request]] = []
        self.identity, self.max_source_tokens, self.tokenize = engine.identity, engine.max_source_tokens, engine.tokenize

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        self.calls.append(list(requests))
        return self._engine.generate(requests)


def test_a_note_over_the_limit_is_read_in_windows_and_reduced() -> None:
    parts = sentences(6)
    text = " ".join(parts) + "\n"
    words = [len(part.split()) for part in parts]
    task = SummaryTask(NO_MODEL, prefix="summarize: ", decode={"max_new_tokens": 6}, max_source_tokens=1 + 18, overlap_sentences=0)
    engine = Asked(EchoEngine())
    batch = generate_batch(segmented([text, parts[0]]), engine, task)
    long, short = rows_of(batch)
    assert [len(call) for call in engine.calls] == [long["windows"] + 1, 1] == [3, 1]
    reduced = engine.calls[1][0].text
    assert reduced.count("\n") == long["windows"] - 1
    assert (long["tokens_dropped"], short["tokens_dropped"], short["windows"]) == (0, 0, 1)
    # Two prefixes, every word once, and then what the reduction read.
    assert long["source_tokens"] == 2 + sum(words) + len(reduced.split())
    assert batch.stats.tokens["source"] == long["source_tokens"] + short["source_tokens"]
    assert batch.stats.tokens["truncated"] == 0
    assert dict(zip(("none", "one", "two", "three"), batch.stats.histograms["windows"], strict=False)) == {
        "none": 0, "one": 1, "two": 1, "three": 0,
    }  # fmt: skip


def test_all_long_notes_share_one_call_per_level() -> None:
    engine = Asked(EchoEngine())
    task = SummaryTask(NO_MODEL, decode={"max_new_tokens": 8}, max_source_tokens=30)
    batch = generate_batch(segmented([" ".join(sentences(n)) for n in (90, 3, 40)]), engine, task)
    sizes = [len(call) for call in engine.calls]
    assert len(sizes) <= 4 and sizes[0] > 20 and sizes == sorted(sizes, reverse=True)
    assert [row["tokens_dropped"] for row in rows_of(batch)] == [0, 0, 0]


def test_a_summary_that_does_not_get_shorter_is_joined() -> None:
    task = SummaryTask(NO_MODEL, decode={"max_new_tokens": 500}, max_source_tokens=20, overlap_sentences=0)
    engine = Asked(EchoEngine())
    text = " ".join(sentences(20))
    [row] = rows_of(generate_batch(segmented([text]), engine, task))
    assert len(engine.calls) == 1
    assert row["summary"].split() == text.split()
    assert row["finish"] == "stop"
    assert row["generated_tokens"] == len(text.split())


@pytest.mark.parametrize("family", ["bart", "selector"])
def test_one_failed_window_rejects_the_whole_note(family: str, request: pytest.FixtureRequest) -> None:
    class Refusing(Asked):
        def generate(self, requests: Sequence[Request]) -> list[Completion]:
            done = super().generate(requests)
            return [
                Completion.failed("OUT_OF_MEMORY", "MemoryError") if "zebra" in one.text else completion
                for one, completion in zip(requests, done, strict=True)
            ]

    task = SummaryTask(resolve_model(str(request.getfixturevalue(family))), decode={"max_new_tokens": 6, "min_new_tokens": 3})
    engine = Refusing(engine_of(task))
    long = [*sentences(60), "A zebra.", *sentences(20)]
    batch = generate_batch(segmented([" ".join(sentences(2)), " ".join(long), " ".join(sentences(30))]), engine, task)
    assert [(r.note_id, r.reason) for r in batch.rejections] == [("n1", Reason.OUT_OF_MEMORY)]
    assert batch.column("note_id") == ["n0", "n2"]


def test_windows_of_a_real_tokenizer_drop_nothing(bart: Path) -> None:
    task = SummaryTask(resolve_model(str(bart)), decode={"max_new_tokens": 5, "min_new_tokens": 2}, overlap_sentences=0)
    engine = Asked(engine_of(task))
    text = "\n".join(sentences(70))
    batch = generate_batch(segmented([text]), engine, task)
    [row] = rows_of(batch)
    sources = [one.text for one in engine.calls[0]]
    assert "".join(sources).replace("\n", "") == text.replace("\n", "")
    assert max(len(tokens) for tokens in engine.tokenize(sources)) <= engine.max_source_tokens
    assert row["windows"] == len(sources) > 3
    assert row["tokens_dropped"] == batch.stats.tokens["truncated"] == 0


def test_failures_and_empty_output_are_set_aside_alone(bart: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder that refuses a marked word; a decoder that is told to end at once on all others but one."""
    import torch

    from transforms.engine.encoder import Encoder

    task = SummaryTask(resolve_model(str(bart)), decode={"max_new_tokens": 6, "min_new_tokens": 3, "no_repeat_ngram_size": 2})
    engine = engine_of(task)
    marked = "zebra"
    marker = engine.tokenize([marked])[0].ids[-2:]
    encode = Encoder.__call__

    def refuse(encoder: Encoder, sources: Sequence[Sequence[int]]) -> torch.Tensor:
        if any(tuple(ids[i : i + 2]) == marker for ids in sources for i in range(len(ids))):
            raise torch.OutOfMemoryError("synthetic")
        return encode(encoder, sources)

    texts = [" ".join(sentences(2)), marked, sentences(1)[0]]
    expected = rows_of(generate_batch(segmented([texts[0], texts[2]]), engine, task))
    monkeypatch.setattr(Encoder, "__call__", refuse)
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


def test_selection_reads_all_windows_and_selects_again(selector: Path) -> None:
    task = SummaryTask(resolve_model(str(selector)))
    engine = Asked(engine_of(task))
    text = " ".join(sentences(60))
    batch = generate_batch(segmented([text]), engine, task)
    [row] = rows_of(batch)
    assert len(engine.calls) > 1
    read = " ".join(one.text for one in engine.calls[0])
    assert set(text.replace(".", " ").split()) <= set(read.replace(".", " ").split())
    assert row["tokens_dropped"] == batch.stats.tokens["truncated"] == 0
    kept = [text[e["source_start"] : e["source_end"]] for e in row["evidence"]]
    # Parts of a sentence that no window holds may begin with white space.
    assert row["summary"].split() == " ".join(kept).split()
    starts = [e["source_start"] for e in row["evidence"]]
    assert starts == sorted(set(starts))
    # What the last pass chose from is what the passes before had chosen.
    last = " ".join(one.text for one in engine.calls[-1])
    assert all(sentence.strip() in last for sentence in kept)


def test_a_few_windows_of_a_selection_take_turns(selector: Path) -> None:
    task = SummaryTask(resolve_model(str(selector)))
    engine = Asked(engine_of(task))
    text = " ".join(sentences(18))
    [row] = rows_of(generate_batch(segmented([text]), engine, task))
    assert len(engine.calls) == 1 and row["windows"] == len(engine.calls[0]) in (2, 3, 4)
    assert row["evidence"] and row["finish"] == "stop" and row["tokens_dropped"] == 0


@needs_default_model
def test_the_default_model_summarizes_from_the_note() -> None:
    task = SummaryTask(resolve_model("default"))
    text = " ".join(sentences(30))
    engine = engine_of(task)
    batch = generate_batch(segmented([text, text * 8, "Short."]), engine, task)
    assert batch.rejections == ()
    short, long, tiny = rows_of(batch)
    assert tiny["summary"] == "Short."
    assert [row["tokens_dropped"] for row in (short, long, tiny)] == [0, 0, 0]
    assert (short["windows"], tiny["windows"]) == (1, 1) and long["windows"] > 1
    for row, source in ((short, text), (long, text * 8)):
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
    pipeline | beam.Create(batches) | beam.Reshuffle() | GenerateTexts(task, SharedEngines(settings)) | beam.Map(_collect, key)
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
        written = pipeline | beam.Create(batches) | beam.Reshuffle() | GenerateTexts(ECHO_TASK, SharedEngines(ECHO))
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
        batches = pipeline | beam.Create([make_batch([sentences(1)[0]])]) | SegmentNotes() | GenerateTexts(ECHO_TASK, SharedEngines(ECHO))
        _ = batches | beam.Map(_collect, "composed")
    assert [batch.column("summary") for batch in found] == [[sentences(1)[0]]]
