"""What a model that writes records starts from: the layers of a BERT, in a BART that plain transformers loads and the trainer trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, BertConfig, BertModel

from pipeline.default_model.record_start import build_start, main
from pipeline.default_model.warm_start import POSITION_OFFSET
from pipeline.training.run import train
from pipeline.training.settings import load_train_job
from tests.training_jobs import losses_of, write_pairs
from transforms.record_format import load_record_format

TEXTS = ["the patient reports mild pain.", "she was given two tablets of warm tea.", "he denies a low fever."]
SOURCE_TOKENS = 256
LAYERS = 6
# Ours to BERT's, within an attention.
ATTENTION = {
    "q_proj": "attention.self.query",
    "k_proj": "attention.self.key",
    "v_proj": "attention.self.value",
    "out_proj": "attention.output.dense",
}


def make_encoder(folder: Path, layers: int = LAYERS) -> Path:
    """A tiny random BERT with a vocabulary of our texts' words and all letters."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,:<>()"
    words = sorted({word.strip(".") for text in TEXTS for word in text.split()} - set(letters))
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters), *words]
    backend = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    marks = [("[CLS]", pieces.index("[CLS]")), ("[SEP]", pieces.index("[SEP]"))]
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair=None, special_tokens=marks)
    backend.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    folder.mkdir(exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 24}
    BertModel(BertConfig(vocab_size=len(pieces), max_position_embeddings=SOURCE_TOKENS, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def start(encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    build_start(encoder, TEXTS, folder, n_tokens=110)
    return folder


@pytest.fixture(scope="module")
def loaded(encoder: Path, start: Path) -> tuple[Any, Any, Any]:
    """The BERT, the start, and the start's tokenizer, all by plain transformers."""
    return BertModel.from_pretrained(encoder), AutoModelForSeq2SeqLM.from_pretrained(start), AutoTokenizer.from_pretrained(start)


def assert_same(ours: Any, theirs: Any) -> None:
    for name, weight in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], weight), name


def assert_same_attention(ours: Any, layer: Any) -> None:
    for name, theirs in ATTENTION.items():
        assert_same(ours.get_submodule(name), layer.get_submodule(theirs))


@pytest.mark.parametrize(("side", "numbers"), [("encoder", range(LAYERS)), ("decoder", (2, 5))])
def test_the_layers_are_those_of_the_bert(loaded: tuple[Any, Any, Any], side: str, numbers: Any) -> None:
    bert, model, _ = loaded
    layers = getattr(model.model, side).layers
    assert len(layers) == len(numbers)
    for ours, theirs in zip(layers, (bert.encoder.layer[number] for number in numbers), strict=True):
        assert_same_attention(ours.self_attn, theirs)
        assert_same(ours.self_attn_layer_norm, theirs.attention.output.LayerNorm)
        assert_same(ours.fc1, theirs.intermediate.dense)
        assert_same(ours.fc2, theirs.output.dense)
        assert_same(ours.final_layer_norm, theirs.output.LayerNorm)


def test_the_decoder_reads_the_source_as_the_bert_its_own_text(loaded: tuple[Any, Any, Any]) -> None:
    bert, model, _ = loaded
    for ours, number in zip(model.model.decoder.layers, (2, 5), strict=True):
        assert_same_attention(ours.encoder_attn, bert.encoder.layer[number])
        assert_same(ours.encoder_attn_layer_norm, bert.encoder.layer[number].attention.output.LayerNorm)


def test_words_and_places_are_those_of_the_bert(loaded: tuple[Any, Any, Any], encoder: Path) -> None:
    bert, model, tokenizer = loaded
    old = Tokenizer.from_file(str(encoder / "tokenizer.json")).get_vocab()
    for token, index in tokenizer.get_vocab().items():
        assert torch.equal(model.model.shared.weight[index], bert.embeddings.word_embeddings.weight[old[token]]), token
    places = bert.embeddings.position_embeddings.weight + bert.embeddings.token_type_embeddings.weight[0]
    for side in (model.model.encoder, model.model.decoder):
        assert torch.equal(side.embed_positions.weight[POSITION_OFFSET:], places)
        assert_same(side.layernorm_embedding, bert.embeddings.LayerNorm)


@torch.no_grad()
def test_the_encoder_reads_as_the_bert_does(loaded: tuple[Any, Any, Any], encoder: Path) -> None:
    bert, model, tokenizer = loaded
    full = Tokenizer.from_file(str(encoder / "tokenizer.json"))
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt")["input_ids"]
        assert tokenizer.convert_ids_to_tokens(ids[0].tolist()) == full.encode(text).tokens
        theirs = bert.eval()(torch.tensor([full.encode(text).ids])).last_hidden_state
        # Their layer norms differ in the smallest divisor.
        assert torch.allclose(model.eval().get_encoder()(ids).last_hidden_state, theirs, atol=1e-3)


def test_the_vocabulary_is_cut_to_what_the_texts_use(loaded: tuple[Any, Any, Any]) -> None:
    _, model, tokenizer = loaded
    assert model.config.vocab_size == len(tokenizer) <= 110
    assert tokenizer.unk_token_id not in tokenizer(" ".join(TEXTS))["input_ids"]


def test_the_same_seed_gives_the_same_bytes(encoder: Path, start: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.parquet"
    pq.write_table(pa.table({"note": TEXTS}), texts)
    main(["--texts", f"{texts}:note", "--encoder", str(encoder), "--n-tokens", "110", "--output", str(tmp_path / "again")])
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (tmp_path / "again" / name).read_bytes() == (start / name).read_bytes(), name


def test_too_small_a_vocabulary_is_refused(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="n_tokens must be at least"):
        build_start(encoder, TEXTS, tmp_path, n_tokens=20)


def test_an_encoder_without_the_layers_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IndexError):
        build_start(make_encoder(tmp_path / "bert", layers=3), TEXTS, tmp_path / "start", n_tokens=110)


def example(text: str, problem: str) -> dict[str, str]:
    leaf = {"text": problem, "start": text.index(problem), "end": text.index(problem) + len(problem), "assertion": "present"}
    return {"text": text, "reference": json.dumps({"age": None, "sex": None, "problems": [{"name": leaf}]})}


@pytest.mark.slow
def test_it_learns_to_write_records(start: Path, tmp_path: Path) -> None:
    rows = [example(TEXTS[0], "mild pain"), example(TEXTS[2], "low fever")] * 4
    settings = {
        "output": str(tmp_path / "run"), "model.start": str(start), "tasks.record.objective": "record",
        "tasks.record.data": [str(write_pairs(tmp_path / "pairs.parquet", rows))], "tasks.record.max_target_tokens": 40,
        "dev.share": 0.25, "dev.score": "loss", "dev.every": 1, "dev.patience": None, "fit.max_steps": 1, "fit.epochs": 1,
        "fit.tokens_per_batch": 400, "fit.learning_rate": 1e-3, "machine.log_every": 1, "machine.threads": 1, "machine.dtype": "float32",
    }  # fmt: skip
    train(load_train_job(None, (), settings))
    losses = losses_of(tmp_path / "run")
    assert len(losses) == 1 and all(0 < loss < 100 for loss in losses.values())
    [trained] = {path.parent for path in (tmp_path / "run").rglob("chartmill.json")}
    assert load_record_format(trained) is not None
    before, after = (AutoModelForSeq2SeqLM.from_pretrained(folder).get_encoder().layers[0].fc1.weight for folder in (start, trained))
    assert not torch.equal(before, after)
