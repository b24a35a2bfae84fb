"""Learning to write records: targets that the constraint allows, a loss over what is left to choose, and a model that has learned it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.training.curriculum import materials_of
from pipeline.training.folder import LOG, RunFolder
from pipeline.training.material import Material, batch_of
from pipeline.training.objective import token_loss
from pipeline.training.rows import Row
from pipeline.training.run import train
from pipeline.training.settings import TrainJob
from pipeline.training.start import Start, prepare_start
from schemas.errors import ConfigurationError
from tests.training_jobs import tiny_job, write_pairs
from transforms.engine import DecodeSettings, EngineSettings, Request, load_engine
from transforms.engine.constraint import Constraint
from transforms.engine.constraint_plan import Planner
from transforms.models import resolve_model
from transforms.record_format import RecordFormat, load_record_format
from transforms.record_lines import RECORD_GRAMMAR

NOTE = "The patient reports mild pain. She was given two tablets. He denies a low fever."


def leaf(text: str, note: str = NOTE) -> dict[str, Any]:
    return {"text": text, "start": note.index(text), "end": note.index(text) + len(text), "assertion": "present"}


def record(**fields: Any) -> dict[str, Any]:
    return {"age": None, "sex": None, "problems": [], "medications": [], **fields}


TABLETS = record(
    problems=[{"name": leaf("mild pain")}, {"name": {**leaf("low fever"), "assertion": "absent"}}],
    medications=[{"name": leaf("tablets"), "dose": leaf("two")}],
)


def record_job(folder: Path, **settings: Any) -> TrainJob:
    return tiny_job(folder, tasks__summary__objective="record", tasks__summary__max_target_tokens=60, **settings)


def material_of(job: TrainJob, rows: list[Row], needed: bool = True) -> tuple[Start, Material]:
    start = prepare_start(job, resolve_model(job.model.start), ())
    [material] = materials_of(job, {"summary": rows}, start, needed=needed)
    return start, material


def row(held: Any, text: str = NOTE) -> Row:
    return Row(text, held if isinstance(held, str) else json.dumps(held))


def told(start: Start, target: list[int], text: str = NOTE) -> list[tuple[str, str, str]]:
    """(line, field, value) of a target, read as an output under the constraint is."""
    planner = Planner(start.codec.sources, [start.codec.end], len(start.codec.tokenizer))
    reading = planner.plan(text, Constraint(RECORD_GRAMMAR), 1000, 60).close(target)
    return [(v.line_name, v.field, v.choice or text[v.start : v.end]) for v in reading.values]


def target_of(material: Material, index: int = 0) -> list[int]:
    return material.draw(index, np.random.default_rng(0))[1]


def test_a_target_says_what_the_record_does(tmp_path: Path) -> None:
    start, material = material_of(record_job(tmp_path), [row(TABLETS)])
    assert told(start, target_of(material)) == [
        ("problem", "name", "mild pain"),
        ("medication", "name", "tablets"),
        ("medication", "dose", "two"),
        ("problem", "name", "low fever"),
        ("problem", "assertion", "absent"),
    ]


def test_what_cannot_be_copied_is_left_out(tmp_path: Path) -> None:
    half = record(problems=[{"name": leaf("mild")}, {"name": leaf("fev")}])
    start, material = material_of(record_job(tmp_path), [row(half)])
    assert told(start, target_of(material)) == [("problem", "name", "mild")]


def test_a_note_without_findings_teaches_the_end(tmp_path: Path) -> None:
    start, material = material_of(record_job(tmp_path), [row(record())])
    assert target_of(material) == [start.codec.end]


def test_what_is_no_record_and_what_is_too_long_is_left_out_and_counted(tmp_path: Path) -> None:
    rows = [row("no JSON"), row("[1]"), row(record(), NOTE * 40), row(record())]
    _, material = material_of(record_job(tmp_path), rows)
    assert (len(material), material.cut) == (1, 3)


def test_of_a_long_record_the_first_lines_are_learned(tmp_path: Path) -> None:
    job = record_job(tmp_path)
    job = job.model_copy(update={"tasks": {"summary": job.tasks["summary"].model_copy(update={"max_target_tokens": 8})}})
    start, material = material_of(job, [row(TABLETS)])
    target = target_of(material)
    assert len(target) <= 8
    assert target[-1] == start.codec.end


def test_the_loss_is_over_what_is_left_to_choose(tmp_path: Path) -> None:
    start, material = material_of(record_job(tmp_path), [row(TABLETS), row(record())])
    start.model.eval()
    batch = batch_of(material, [0, 1], start.codec, np.random.default_rng)
    with torch.no_grad():
        loss = float(token_loss(start.model, batch, 0.0, torch.float32))
        logits = start.model(input_ids=batch.source, attention_mask=batch.mask, decoder_input_ids=batch.decoder_input).logits
    expected = 0.0
    for index in (0, 1):
        assert material.offered is not None
        for place, (token, ids) in enumerate(zip(target_of(material, index), material.offered(index), strict=True)):
            chances = torch.log_softmax(logits[index, place, torch.from_numpy(ids)], dim=0)
            expected -= float(chances[ids.tolist().index(token)])
    assert loss == pytest.approx(expected, rel=1e-4)
    assert math.isfinite(loss)


def test_rouge_is_not_asked_for(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "records.jsonl", [{"text": NOTE, "record": TABLETS}] * 4)
    job = record_job(tmp_path, dev__score="rouge", tasks__summary__reference_column="record", tasks__summary__data=[str(path)])
    result = train(job, style="none")
    assert set(result["dev"]) == {"loss"}


@pytest.mark.slow
def test_a_trained_model_is_a_record_model(tmp_path: Path) -> None:
    notes = [(NOTE, TABLETS), ("She walks daily.", record())]
    path = write_pairs(tmp_path / "records.parquet", [{"text": text, "record": json.dumps(held)} for text, held in notes * 8])
    job = record_job(tmp_path, tasks__summary__reference_column="record", tasks__summary__data=[str(path)], fit__max_steps=40)
    folder = Path(train(job, style="none")["model"])
    losses = [line["loss"] for line in RunFolder(Path(job.output)).read_lines(LOG) if "loss" in line]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    assert load_record_format(folder) == RecordFormat("", 160, 60)
    engine = load_engine(EngineSettings(model_folder=str(folder), dtype="float32", threads=1))
    decode = DecodeSettings(max_new_tokens=60)
    for completion in engine.generate([Request(text, decode, Constraint(RECORD_GRAMMAR)) for text, _ in notes]):
        assert completion.error is None


def test_a_start_with_a_broken_format_is_refused(tmp_path: Path) -> None:
    job = record_job(tmp_path)
    (Path(job.model.start) / "chartmill.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"model\.start"):
        prepare_start(job, resolve_model(job.model.start), ())
