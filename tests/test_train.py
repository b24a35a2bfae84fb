"""`chartmill train` as users meet it: a model that `run` takes, a folder without a word of any note, refusals that name the choices."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from pipeline.summarize import load_summarizer
from pipeline.train import TEMPLATE
from pipeline.training.checkpoint import Stand
from pipeline.training.curves import draw_curves, round_ticks
from pipeline.training.run import train
from pipeline.training.settings import TrainJob, load_train_job
from schemas.errors import ConfigurationError
from tests.canaries import Canaries, Said, assert_private, command, every_log_record
from tests.tiny_models import make_model, sentences
from tests.training_jobs import log_of, losses_of, pair_rows, tiny_job, tiny_settings, write_pairs


def test_the_template_holds_every_key_and_its_default() -> None:
    raw = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8"))
    assert TrainJob.model_validate(raw).model_dump(mode="json") == json.loads(
        TrainJob(output="training/", tasks={"summary": {"objective": "selection", "data": ["pairs.parquet"]}}).model_dump_json()
    )
    shipped = TrainJob.model_validate(raw)
    for section, values in raw.items():
        if isinstance(values, dict) and section != "tasks":
            assert list(values) == list(type(getattr(shipped, section)).model_fields), section
    assert list(raw) == list(TrainJob.model_fields)
    assert list(raw["tasks"]["summary"]) == list(type(shipped.tasks["summary"]).model_fields)


def test_the_record_recipe_s_settings_are_a_job() -> None:
    job = load_train_job(TEMPLATE.parent / "default_model" / "record.yaml")
    assert {task.objective for task in job.tasks.values()} == {"record"} and job.first_task == "notes"
    assert (job.weights, job.fit.max_steps) == ("int8", 1150)


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("fit.epoch=3", r"fit.epoch: unknown key \(did you mean epochs\?\)"),
        ("tasks.summary.objektive=x", r"tasks.summary.objektive: unknown key \(did you mean objective\?\)"),
        ("tasks.summary.objective=write", "objective: should be 'generation', 'selection', 'record', 'denoise' or 'gap_sentences'"),
        ("tasks.summary.data=[]", "name at least one file"),
        ("tasks={}", "tasks: name at least one"),
        ("output=s3://bucket/x", "give a local folder"),
        ("dev.score=bleu", "dev.score: should be 'rouge' or 'loss'"),
    ],
)
def test_bad_settings_name_the_key_and_the_choices(tmp_path: Path, override: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        load_train_job(None, [override], tiny_settings(tmp_path))


@pytest.mark.parametrize("family", ["bart", "t5", *(pytest.param(name, marks=pytest.mark.slow) for name in ("marian", "pegasus"))])
def test_generation_is_learned_and_exported(tmp_path: Path, family: str) -> None:
    # One pair over and over: a tiny model learns it by heart, and must then write it through the engine.
    own = sentences(3)
    row = {"text": " ".join(own), "reference": own[1]}
    write_pairs(tmp_path / "pairs.parquet", [row] * 2)
    fit = {"max_steps": 50, "epochs": 50, "batches_per_step": 1, "label_smoothing": 0.0, "dropout": 0.0, "learning_rate": 1e-2}
    layers = ("num_layers", "num_decoder_layers") if family == "t5" else ("encoder_layers", "decoder_layers")
    job = tiny_job(tmp_path, family, dev__share=0, model__from_config=dict.fromkeys(layers, 1), fit=fit)
    result = train(job, "none")
    losses = list(losses_of(tmp_path / "run").values())
    assert losses[-1] < losses[0] / 5
    [summary] = load_summarizer(result["model"], dtype="float32", threads=1).summarize([row["text"]])
    assert summary.text == row["reference"]


def test_a_mix_with_a_look_by_rouge(tmp_path: Path) -> None:
    """Three objectives in one model; the first is what it is for."""
    data = str(write_pairs(tmp_path / "more.jsonl", pair_rows(20)))
    job = tiny_job(
        tmp_path,
        tasks__summary__objective="selection",
        tasks__prose={"data": [data], "decoder_marker": "<prose>", "weight": 0.5, "max_target_tokens": 20},
        tasks__texts={"data": [data], "objective": "denoise", "weight": 0.5},
        selection__n_markers=8,
        selection__n_places=4,
        dev__score="rouge",
        dev__every=2,
        dev__max_examples=3,
        fit__max_steps=4,
        fit__average=0.9,
    )
    result = train(job, "none")
    assert set(result["dev"]) == {"loss", "rouge1", "rouge2", "rougeLsum"} and result["stand"]["best_step"] in (0, 2, 4)
    assert set(result["tasks"]) == {"summary", "prose", "texts"}
    texts = [row["text"] for row in pair_rows(2)]
    summaries = load_summarizer(result["model"], dtype="float32", threads=1).summarize(texts)
    assert all(sentence in text for summary, text in zip(summaries, texts, strict=True) for sentence in summary.text.split(". "))
    assert not (tmp_path / "run" / "look").exists()


def test_the_first_task_s_marker_begins_what_run_writes(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, tasks__summary__decoder_marker="<plan>", fit__max_steps=1, dev__share=0)
    model = Path(train(job, "none")["model"])
    marker = json.loads((model / "tokenizer.json").read_text())["added_tokens"][-1]
    decoding = json.loads((model / "generation_config.json").read_text())
    assert marker["content"] == "<plan>" and decoding["forced_bos_token_id"] == marker["id"]


def test_a_teacher_writes_the_references_once(tmp_path: Path) -> None:
    teacher = make_model("t5", tmp_path / "teacher")
    teaching = {"model": str(teacher), "decode": {"max_new_tokens": 8}}
    job = tiny_job(tmp_path, tasks__summary__teacher=teaching, fit__max_steps=2, dev__share=0)
    result = train(job, "none")
    lines = [json.loads(line) for line in (tmp_path / "run" / "taught" / "summary.jsonl").read_text().splitlines()]
    assert len(lines) == 24 == len({line["key"] for line in lines}) and result["tasks"]["summary"]["examples"] == 24
    texts = [row["text"] for row in pair_rows(24)]
    summaries = load_summarizer(str(teacher), dtype="auto", threads=1, decode={"max_new_tokens": 8}).summarize(texts)
    assert [line["text"] for line in lines] == [summary.text for summary in summaries]
    assert_private(tmp_path / "run")


def test_training_stops_where_looks_no_longer_get_better(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, dev__every=1, dev__patience=2, fit__learning_rate=1e-30)
    result = train(job, "none")
    assert result["stand"]["stopped_early"] and result["stand"]["step"] == 3
    assert "stopped early" in (tmp_path / "run" / "MODEL_CARD.md").read_text()


def test_training_that_only_harms_returns_the_start(tmp_path: Path) -> None:
    """At a rate that ruins, the weights of the start come out, those that a step at no rate leaves."""
    harmed = train(tiny_job(tmp_path, dev__every=1, dev__patience=2, fit__learning_rate=0.9, fit__warmup_share=0), "none")
    assert harmed["stand"]["best_step"] == 0 < harmed["stand"]["step"] and harmed["stand"]["stopped_early"]
    assert "of the start, which no step made better" in (tmp_path / "run" / "MODEL_CARD.md").read_text()
    looks = [line["look"]["loss"] for line in log_of(tmp_path / "run") if "look" in line]
    assert (
        len(looks) == harmed["stand"]["step"] + 1
        and harmed["dev"]["loss"] == pytest.approx(looks[0], abs=1e-4)
        and min(looks[1:]) > looks[0]
    )
    kept = train(tiny_job(tmp_path, output=str(tmp_path / "kept"), dev__every=1, fit__max_steps=1, fit__learning_rate=1e-30), "none")
    assert harmed["model_sha256"] == kept["model_sha256"]


def test_getting_worse_first_does_not_stop_a_training_that_then_gets_better() -> None:
    stand = Stand()
    seen = []
    for step, score in enumerate((10.0, 3.0, 4.0, 5.0, 4.5, 11.0, 10.5)):
        stand.step = step
        best = stand.judged({"score": score})
        seen.append((best, stand.best_step, stand.looks_since_best))
    assert seen == [
        (True, 0, 0), (False, 0, 0), (False, 0, 0), (False, 0, 0), (False, 0, 1), (True, 5, 0), (False, 5, 1)
    ]  # fmt: skip


def test_the_run_folder_tells_figures_only(tmp_path: Path, canaries: Canaries, said: Said, capfd: pytest.CaptureFixture[str]) -> None:
    rows = [
        {**row, "text": f"{row['text']} {canaries['text']} was here.", "reference": f"{row['reference']} {canaries['reference']}."}
        for row in pair_rows(12)
    ]
    rows[0]["note_id"], rows[0]["patient_id"] = canaries["note id"], canaries["patient id"]
    settings = tiny_settings(tmp_path)
    settings["tasks.summary.data"] = [str(write_pairs(tmp_path / f"{canaries['file name']}.parquet", rows))]
    settings |= {"dev.group_column": "patient_id", "fit.max_steps": 4, "dev.every": 2, "dev.score": "rouge", "model.vocabulary": 380}
    job = tmp_path / "job.yaml"
    job.write_text(yaml.safe_dump(unflat(settings)))
    with every_log_record(said):
        assert command(capfd, said, "train", "--config", str(job), "--log-format", "plain", "--json") == 0
        broken = tmp_path / f"{canaries['broken file name']}.jsonl"
        broken.write_text(f'{{"text": "{canaries["malformed line"]}')
        for bad in (f"tasks.summary.data=[{broken}]", f"tasks.summary.data=[/data/{canaries['missing file']}.parquet]"):
            assert command(capfd, said, "train", "--config", str(job), "--set", bad, "--output", str(tmp_path / "other")) == 2
    said.assert_clean(canaries)
    for path in sorted((tmp_path / "run").rglob("*")):
        canaries.assert_absent("a file name", path.name)
        if path.is_file():
            canaries.assert_absent(path.name, path.read_bytes())
    assert_private(tmp_path / "run")
    told = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.yaml", "data.json", "log.jsonl", "curves.svg", "MODEL_CARD.md", "result.json", "model", "checkpoint.pt"} <= told
    ElementTree.parse(tmp_path / "run" / "curves.svg")


def unflat(settings: dict[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in settings.items():
        *sections, last = key.split(".")
        inner = nested
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    return nested


def test_curves_of_any_log_are_drawn() -> None:
    log = [{"step": step, "loss": 2 / step} for step in range(1, 30)]
    looks = [{"step": step, "look": {"loss": 1.0, "rouge1": 30.0, "rouge2": 9.0}} for step in (10, 20)]
    for lines in ([], log[:1], log, [*log, *looks]):
        svg = ElementTree.fromstring(draw_curves(lines))
        assert len(svg.findall(".//{http://www.w3.org/2000/svg}path[@class='line train']")) == bool(lines) + (len(lines) > 29)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (3.2, 3.2), (0, 0), (-2, 7), (31.4, 33.9), (0, 12345)])
def test_ticks_are_round_and_enclose(low: float, high: float) -> None:
    ticks = round_ticks(low, high)
    assert ticks[0] <= low and ticks[-1] >= high and 2 <= len(ticks) <= 9


def test_the_command_begins_with_its_file(tmp_path: Path, capfd: pytest.CaptureFixture[str], said: Said) -> None:
    path = tmp_path / "train.yaml"
    assert command(capfd, said, "train", "--init", str(path)) == 0 and path.read_text() == TEMPLATE.read_text()
    assert command(capfd, said, "train", "--init", str(path), "--json") == 2 and "exists already" in said.parts[-1][1]
    assert command(capfd, said, "train") == 2 and "--init" in said.parts[-1][1]
    assert command(capfd, said, "train", "--help") == 0 and "torchrun" in said.parts[-2][1]
