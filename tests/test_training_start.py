"""Changes to a start: a smaller vocabulary, more positions, new tokens, random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.training.export import save_model
from pipeline.training.material import lay_out
from pipeline.training.start import Start, prepare_start
from pipeline.training.vocabulary import cut_spec, kept_pieces
from schemas.errors import ConfigurationError
from tests.tiny_models import make_model, sentences
from tests.training_jobs import tiny_job
from transforms.engine.loading import load_model, load_tokenizer
from transforms.models import resolve_model

FAMILIES = ("bart", "t5", "marian", "pegasus", "t5-v1.1")


def start_of(folder: Path, family: str = "bart", texts: list[str] | None = None, **changes: Any) -> Start:
    job = tiny_job(folder, family, **changes)
    return prepare_start(job, resolve_model(job.model.start), texts or [])


def logits(model: Any, start: int, source: list[int], target: list[int]) -> torch.Tensor:
    tensors = lay_out([(source, target)], start, 1)
    with torch.no_grad():
        return model.eval()(input_ids=tensors.source, attention_mask=tensors.mask, decoder_input_ids=tensors.decoder_input).logits[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_cut_model_says_of_kept_tokens_what_it_said_before(tmp_path: Path, family: str) -> None:
    texts = sentences(24)
    folder = make_model(family, tmp_path / f"start-{family}")
    old_model, old_tokenizer = load_model(folder, "float32"), load_tokenizer(folder)
    used = {index for ids in old_tokenizer(texts, add_special_tokens=False)["input_ids"] for index in ids}
    cut = start_of(tmp_path, family, texts, model__vocabulary=len(used) + 320 if family == "bart" else len(used) + 60)
    assert len(cut.codec.tokenizer) < len(old_tokenizer)
    text = texts[3]
    old_ids, [new_ids] = old_tokenizer(text, add_special_tokens=False)["input_ids"], cut.codec.pieces([text])
    assert cut.codec.tokenizer.convert_ids_to_tokens(new_ids) == old_tokenizer.convert_ids_to_tokens(old_ids)
    assert cut.codec.tokenizer.decode(new_ids) == old_tokenizer.decode(old_ids)
    old_start = old_model.config.decoder_start_token_id
    before, after = logits(old_model, old_start, old_ids, old_ids[:5]), logits(cut.model, cut.codec.start, new_ids, new_ids[:5])
    assert torch.allclose(before[:, old_ids], after[:, new_ids], atol=1e-5)
    assert after.shape[1] == len(cut.codec.tokenizer) == cut.model.config.vocab_size


def test_texts_with_dropped_tokens_still_come_back_whole(tmp_path: Path) -> None:
    for family in ("bart", "t5"):
        cut = start_of(tmp_path, family, ["She reports mild pain."], model__vocabulary=300 if family == "bart" else 64)
        for text in sentences(20):
            [ids] = cut.codec.pieces([text])
            assert cut.codec.tokenizer.decode(ids).strip() == text


def test_word_pieces_are_cut_too() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {piece: i for i, piece in enumerate(["[UNK]", "f", "##e", "##v", "##r", "##ever", "fever", "e", "v", "r", "cough"])}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    spec = json.loads(tokenizer.to_str())
    kept = kept_pieces(spec, 9, {"fever": 3, "##ever": 1})
    assert kept == ["[UNK]", "f", "##e", "##v", "##r", "fever", "e", "v", "r"]
    small = Tokenizer.from_str(json.dumps(cut_spec(spec, {piece: i for i, piece in enumerate(kept)})))
    assert small.encode("fever fer").tokens == ["fever", "f", "##e", "##r"]


def test_too_few_tokens_and_other_tokenizers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="tokens at least"):
        start_of(tmp_path, "bart", ["x"], model__vocabulary=100)
    with pytest.raises(ConfigurationError, match="type WordLevel cannot be cut"):
        kept_pieces({"added_tokens": [], "model": {"type": "WordLevel", "vocab": {}}}, 9, {})


@pytest.mark.parametrize("family", ["bart", "t5", "marian", "pegasus", "led"])
def test_more_positions_leave_short_sources_as_they_were(tmp_path: Path, family: str) -> None:
    folder = make_model(family, tmp_path / f"start-{family}")
    before = load_model(folder, "float32")
    longer = start_of(tmp_path, family, model__max_source_tokens=320)
    assert longer.codec.limit == 320
    ids = longer.codec.source(longer.codec.pieces([sentences(1)[0]])[0], 320)
    old, new = (logits(model, longer.codec.start, ids, ids[:4]) for model in (before, longer.model))
    assert torch.allclose(old, new, atol=1e-5)
    long = (ids * 40)[:300]
    assert torch.isfinite(logits(longer.model, longer.codec.start, long, ids[:4])).all()


def test_learned_positions_are_copied_in_order(tmp_path: Path) -> None:
    weight = start_of(tmp_path, model__max_source_tokens=400).model.get_encoder().embed_positions.weight
    assert len(weight) == 402
    assert torch.equal(weight[2:162], weight[162:322]) and torch.equal(weight[2:82], weight[322:])


def test_fewer_positions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="the start has 160 positions"):
        start_of(tmp_path, model__max_source_tokens=64)


@pytest.mark.parametrize("family", FAMILIES)
def test_new_tokens_have_directions_of_their_own(tmp_path: Path, family: str) -> None:
    start = start_of(tmp_path, family, tasks__summary__objective="selection", selection__n_markers=8, selection__n_places=4)
    assert start.fmt is not None
    rows = start.model.get_input_embeddings().weight.detach()
    ids = start.codec.tokenizer.convert_tokens_to_ids(start.fmt.tokens())
    fresh = torch.nn.functional.normalize(rows[ids], dim=1)
    assert float((fresh @ fresh.T - torch.eye(len(ids))).abs().max()) < 1e-4
    others = rows[: min(ids)].norm(dim=1).mean()
    assert torch.allclose(rows[ids].norm(dim=1), others.expand(len(ids)), rtol=1e-3)
    assert start.model.get_output_embeddings().weight.shape[0] >= len(start.codec.tokenizer)


def test_two_vocabularies_get_no_new_tokens(tmp_path: Path) -> None:
    assert start_of(tmp_path, "marian-separate").model is not None
    for changes in ({"model__vocabulary": 90}, {"tasks__summary__objective": "denoise"}):
        with pytest.raises(ConfigurationError, match="two vocabularies"):
            start_of(tmp_path, "marian-separate", **changes)


def test_random_weights_of_another_shape(tmp_path: Path) -> None:
    start = start_of(tmp_path, model__from_config={"encoder_layers": 1, "d_model": 16})
    assert len(start.model.get_encoder().layers) == 1 and start.model.config.d_model == 16
    with pytest.raises(ConfigurationError, match="has no key 'layerz'"):
        start_of(tmp_path, model__from_config={"layerz": 1})


def test_dropout_is_set_everywhere(tmp_path: Path) -> None:
    for family in ("bart", "t5"):
        model = start_of(tmp_path, family, fit__dropout=0.0).model.train()
        ids = [5, 6, 7, 2]
        first, second = (model(input_ids=torch.tensor([ids]), decoder_input_ids=torch.tensor([ids])).logits for _ in range(2))
        assert torch.equal(first, second)


def test_a_model_that_wrote_markers_only_may_write_words(tmp_path: Path) -> None:
    """The packaged model forbids all that are no markers."""
    job = tiny_job(tmp_path, model__start="default")
    start = prepare_start(job, resolve_model("default"), [])
    assert float(start.model.final_logits_bias.min()) > -50 and start.selected and start.fmt is None


@pytest.mark.parametrize(("weights", "least", "most"), [("bfloat16", 1.9, 2.1), ("int8", 2.5, 4.1)])
def test_a_model_may_be_stored_in_fewer_bytes(tmp_path: Path, weights: str, least: float, most: float) -> None:
    job = tiny_job(tmp_path)
    start = prepare_start(job, resolve_model(job.model.start), ())
    folders = {name: tmp_path / name for name in ("float32", weights)}
    for name, folder in folders.items():
        folder.mkdir()
        save_model(start.model, start, job.tasks["summary"], None, folder, name)
    sizes = [sum(path.stat().st_size for path in folder.glob("*.safetensors")) for folder in folders.values()]
    assert least < sizes[0] / sizes[1] < most
    plain, stored = (load_model(folder, "float32").state_dict() for folder in folders.values())
    assert all(torch.allclose(stored[name], value, atol=float(value.abs().max()) / 100) for name, value in plain.items())
    # What goes on being trained is not rounded.
    assert all(torch.equal(value, plain[name]) for name, value in start.model.state_dict().items() if name in plain)
