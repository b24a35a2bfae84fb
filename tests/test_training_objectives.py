"""What is to be learned from a row: greedy oracle, noise, gaps, and how token ids are laid out."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.training.curriculum import materials_of
from pipeline.training.export import save_model
from pipeline.training.material import IGNORED, lay_out
from pipeline.training.objective import token_loss
from pipeline.training.pointing import is_pointer
from pipeline.training.rows import Row
from pipeline.training.run import train
from pipeline.training.selecting import greedy_oracle
from pipeline.training.settings import TrainJob
from pipeline.training.start import Start, prepare_start
from pipeline.training.unpaired import infill, telling_sentences
from tests.tiny_models import sentences
from tests.training_jobs import tiny_job
from transforms.engine import decode_settings
from transforms.engine.loading import load_model
from transforms.models import resolve_model
from transforms.selection import SelectionFormat, expand_markers, load_selection_format, mark_source
from transforms.sentences import split_sentences

FORMAT = SelectionFormat(8, 4, (10, 20), 40, 0.9, 160, 9)
MASK = 999


def start_of(job: TrainJob) -> Start:
    return prepare_start(job, resolve_model(job.model.start), ())


def drawn(start: Start, job: TrainJob, rows: list[Row], seed: int = 0) -> tuple[Any, list[tuple[list[int], list[int]]]]:
    [material] = materials_of(job, {"summary": rows}, start)
    return material, [material.draw(i, np.random.default_rng(seed)) for i in range(len(material))]


def test_the_oracle_takes_the_sentences_of_the_reference_in_order_of_gain() -> None:
    units = ["Sleeps well.", "Fever since Monday with a cough and chills.", "Walks daily.", "Chest clear today."]
    assert greedy_oracle(units, f"{units[1]} {units[3]}") == [1, 3]


def test_the_oracle_stops_where_nothing_is_gained() -> None:
    units = ["Cough for a week.", "Cough for a week.", "The chest is clear and the heart is regular in rate and rhythm."]
    assert greedy_oracle(units, "Cough for a week.") == [0]
    assert greedy_oracle(units, "Walks daily.") == []


def test_a_selection_target_expands_to_the_reference(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, tasks__summary__objective="selection", selection__n_markers=8, selection__budget_share=0.9)
    start = start_of(job)
    own = sentences(5)
    text = " ".join(own)
    _, examples = drawn(start, job, [Row(text, f"{own[1]} {own[4]}")], seed=5)
    [(source, target)] = examples
    tokenizer = start.codec.tokenizer
    assert start.fmt is not None
    assert target[-1] == start.codec.end and len(source) <= start.fmt.max_source_tokens
    # The markers are turned by a drawn number; the source says by how many.
    decoded = tokenizer.decode(source)
    turn = int(decoded.split("<m", 1)[1].split(">", 1)[0])
    marked = mark_source(text, split_sentences(text), start.fmt, first_marker=turn)
    assert expand_markers(tokenizer.decode(target), marked, text, start.fmt).text == f"{own[1]} {own[4]}"


def test_markers_cost_a_token_each(tmp_path: Path) -> None:
    """What `fit_sentences` counts on, with a tokenizer that makes spaces tokens too."""
    start = start_of(tiny_job(tmp_path, tasks__summary__objective="selection", selection__n_markers=8))
    own = sentences(4)
    assert start.fmt is not None
    marked = mark_source(" ".join(own), split_sentences(" ".join(own)), start.fmt)
    pieces = start.codec.pieces([f" {sentence}" for sentence in own])
    assert len(start.codec.pieces([marked.source])[0]) == sum(map(len, pieces)) + 2 * len(own) + 1


def test_a_decoder_marker_is_given_not_learned(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, tasks__summary__decoder_marker="<plan>")
    start = start_of(job)
    material, [(source, target)] = drawn(start, job, [Row("She reports warm tea.", "Warm tea.")])
    tensors = lay_out([(source, target)], start.codec.start, start.codec.pad, material.given)
    assert target[0] == start.markers["summary"] and tensors.labels[0, 0] == IGNORED
    assert tensors.decoder_input[0].tolist() == [start.codec.start, *target[:-1]]
    assert tensors.labels[0, 1:].tolist() == target[1:]


@pytest.mark.parametrize("family", ["bart", "t5", "marian"])
def test_sources_are_what_the_engine_reads(tmp_path: Path, family: str) -> None:
    from transforms.engine import EngineSettings, load_engine

    job = tiny_job(tmp_path, family, tasks__summary__prefix="sum: ")
    start = start_of(job)
    text = " ".join(sentences(3))
    _, [(source, _)] = drawn(start, job, [Row(text, "A fever.")])
    engine = load_engine(EngineSettings(model_folder=job.model.start, dtype="float32", threads=1))
    assert list(engine.tokenize([f"sum: {text}"])[0].ids) == start.codec.pieces([f"sum: {text}"])[0]
    assert start.codec.source(start.codec.pieces([f"sum: {text}"])[0], 10**6) == source


def test_long_references_are_cut_and_counted(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, tasks__summary__max_target_tokens=6)
    start = start_of(job)
    material, [(_, target)] = drawn(start, job, [Row("She denies a fever.", " ".join(sentences(6)))])
    assert len(target) == 6 and target[-1] == start.codec.end and material.cut == 1


@given(st.integers(1, 300), st.floats(0.05, 0.6), st.integers(0, 9))
def test_infilling_hides_its_share_behind_single_masks(size: int, share: float, seed: int) -> None:
    tokens = list(range(size))
    noised = infill(tokens, share, MASK, np.random.default_rng(seed))
    kept = [token for token in noised if token != MASK]
    assert kept == sorted(kept) and len(kept) == size - round(share * size)
    assert not any(a == b == MASK for a, b in pairwise(noised))
    assert (MASK in noised) == (round(share * size) > 0)


def test_denoising_restores_the_text_and_draws_anew(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, tasks__summary__objective="denoise", tasks__summary__max_source_tokens=60)
    start = start_of(job)
    text = " ".join(sentences(12))
    material, first = drawn(start, job, [Row(text)], seed=1)
    _, second = drawn(start, job, [Row(text)], seed=2)
    restored = "".join(start.codec.tokenizer.decode(target, skip_special_tokens=True) for _, target in first)
    assert " ".join(restored.split()) == text
    assert [s for s, _ in first] != [s for s, _ in second] and [t for _, t in first] == [t for _, t in second]
    for i, (source, target) in enumerate(first):
        assert len(source) <= material.lengths[i, 0] <= 60 and len(target) == material.lengths[i, 1]
        assert start.mask in source


def test_gap_sentences_are_those_that_share_most_words() -> None:
    told = ["Warm tea helps.", "The fever and the cough are better.", "The cough is better.", "Plays chess."]
    assert telling_sentences(told, 2) == [1, 2]
    assert telling_sentences(["Alone."], 1) == [0]


def test_gap_sentences_move_from_source_to_target(tmp_path: Path) -> None:
    job = tiny_job(tmp_path, tasks__summary__objective="gap_sentences")
    start = start_of(job)
    own = sentences(6)
    _, [(source, target)] = drawn(start, job, [Row(" ".join(own)), Row("Too short.")])
    decode = start.codec.tokenizer.decode
    missing = [sentence for sentence in own if sentence not in decode(source)]
    assert len(missing) == 2 == source.count(start.mask)
    assert decode(target, skip_special_tokens=True).strip() == " ".join(missing)


def test_what_was_written_is_no_choice_any_more() -> None:
    tensors = lay_out([([3, 4], [5, 6, 2]), ([3], [6, 2])], start=0, pad=1)
    logits = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))

    def model(**_: Any) -> Any:
        return SimpleNamespace(logits=logits)

    wanted = 0.0
    for row, target in enumerate(([5, 6, 2], [6, 2])):
        for place, token in enumerate(target):
            open_ = [t for t in range(8) if t not in {0, *target[:place]}]
            wanted -= float(logits[row, place, open_].log_softmax(0)[open_.index(token)])
    assert float(token_loss(model, tensors, 0.0, torch.float32, once=True)) == pytest.approx(wanted, rel=1e-5)
    assert float(token_loss(model, tensors, 0.0, torch.float32)) > wanted


@pytest.mark.parametrize(("family", "once"), [("bart", 0), ("t5", 1)])
def test_markers_come_once_unless_that_forbids_the_end(tmp_path: Path, family: str, once: int) -> None:
    """BART's decoder starts with the token that ends."""
    job = tiny_job(tmp_path, family, tasks__summary__objective="selection", selection__n_markers=8)
    start = start_of(job)
    (tmp_path / "model").mkdir()
    save_model(start.model, start, job.tasks["summary"], None, tmp_path / "model")
    assert decode_settings(tmp_path / "model", {}).no_repeat_ngram_size == once
    assert load_selection_format(tmp_path / "model") == start.fmt


def pointer_job(folder: Path, **changes: Any) -> TrainJob:
    """Of a start whose decoder reads nothing of what was written."""
    job = tiny_job(folder, tasks__summary__objective="selection", selection__n_markers=8, **changes)
    model = load_model(Path(job.model.start), "float32")
    with torch.no_grad():
        model.get_decoder().layernorm_embedding.weight.zero_()
        model.get_decoder().layernorm_embedding.bias.zero_()
    model.save_pretrained(job.model.start)
    return job


def test_the_packaged_model_is_known_for_a_pointer(tmp_path: Path) -> None:
    model = load_model(Path(str(resolve_model("default").folder)), "float32")
    assert is_pointer(model)
    assert not is_pointer(start_of(tiny_job(tmp_path)).model)
    assert not is_pointer(start_of(tiny_job(tmp_path, "t5")).model)


def test_a_trained_pointer_is_a_pointer(tmp_path: Path) -> None:
    job = pointer_job(tmp_path, fit__max_steps=2, fit__weight_decay=0.1, dev__share=0)
    before = start_of(job).model.state_dict()
    folder = Path(train(job, "none")["model"])
    model = load_model(folder, "float32")
    assert is_pointer(model)
    assert not torch.equal(model.state_dict()["model.decoder.layers.0.fc2.weight"], before["model.decoder.layers.0.fc2.weight"])
    fmt = load_selection_format(folder)
    assert fmt is not None and decode_settings(folder, {}).min_new_tokens == fmt.max_new_tokens // 2


def test_a_pointer_is_not_taught_the_end(tmp_path: Path) -> None:
    own = sentences(5)
    job = pointer_job(tmp_path)
    start = start_of(job)
    _, [(_, target)] = drawn(start, job, [Row(" ".join(own), f"{own[1]} {own[4]}")])
    assert start.points and len(target) == 2 and start.codec.end not in target


def test_a_pointer_that_is_to_write_words_learns_as_a_whole(tmp_path: Path) -> None:
    job = pointer_job(tmp_path, tasks__noise={"objective": "denoise", "data": [str(tmp_path / "pairs.parquet")]})
    start = start_of(job)
    assert not start.points
    assert all(parameter.requires_grad for parameter in start.model.parameters())


@pytest.mark.slow
def test_a_pointer_that_learned_to_write_words_may_be_brief(tmp_path: Path) -> None:
    first = pointer_job(tmp_path, fit__max_steps=1)
    job = tiny_job(tmp_path, model__start=train(first, "none")["model"], output=str(tmp_path / "words"))
    start = start_of(job)
    (tmp_path / "model").mkdir()
    save_model(start.model, start, job.tasks["summary"], None, tmp_path / "model")
    assert decode_settings(tmp_path / "model", {}).min_new_tokens == 0
