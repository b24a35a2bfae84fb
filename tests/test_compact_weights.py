"""Weights stored in one byte each: what comes back, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.tiny_models import make_model, sentences
from transforms.engine import DecodeSettings, EngineError, EngineSettings, Request, load_engine
from transforms.engine.compact_weights import FILE, packed, save_compact, unpacked
from transforms.engine.loading import load_model, load_tokenizer
from transforms.models import resolve_model


@settings(max_examples=20)
@given(st.integers(0, 1000), st.floats(1e-6, 1e6))
def test_each_value_is_within_half_a_step_of_its_row(seed: int, size: float) -> None:
    matrix = torch.randn(5, 7, generator=torch.Generator().manual_seed(seed)) * size
    [back] = unpacked(packed({"w": matrix})).values()
    steps = matrix.abs().amax(dim=1, keepdim=True) / 127
    assert ((back - matrix).abs() <= steps * 0.5001).all()


def test_rows_of_zeros_and_vectors_come_back_as_they_were() -> None:
    tensors = {"w": torch.zeros(3, 4), "b": torch.randn(4)}
    back = unpacked(packed(tensors))
    assert all(torch.equal(back[name], value) for name, value in tensors.items())


@pytest.fixture(scope="module", params=["bart", "t5"])
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model as it was, and stored in one byte each."""
    plain = make_model(request.param, tmp_path_factory.mktemp("plain"))
    compact = tmp_path_factory.mktemp("compact")
    save_compact(load_model(plain, "float32"), compact)
    load_tokenizer(plain).save_pretrained(compact)
    return plain, compact


def test_it_is_the_same_model_but_for_the_rounding(folders: tuple[Path, Path]) -> None:
    plain, compact = (load_model(folder, "float32").state_dict() for folder in folders)
    assert set(plain) == set(compact)
    assert all(torch.allclose(compact[name], plain[name], atol=float(plain[name].abs().max()) / 250) for name in plain)


def test_it_is_a_model_like_any_other(folders: tuple[Path, Path]) -> None:
    assert resolve_model(str(folders[1])).size < resolve_model(str(folders[0])).size / 2
    engine = load_engine(EngineSettings(model_folder=str(folders[1]), dtype="float32", threads=1))
    for completion in engine.generate([Request(text, DecodeSettings(max_new_tokens=8)) for text in sentences(3)]):
        assert completion.error is None


def test_tied_weights_are_stored_once(folders: tuple[Path, Path]) -> None:
    model = load_model(folders[1], "float32")
    assert model.get_input_embeddings().weight.data_ptr() == model.get_output_embeddings().weight.data_ptr()
    assert not {"lm_head.weight", "model.encoder.embed_tokens.weight"} & set(load_file(folders[1] / FILE))


@pytest.mark.parametrize("harm", ["lacking", "unscaled", "unknown", "broken"])
def test_what_is_not_the_model_is_refused(folders: tuple[Path, Path], tmp_path: Path, harm: str) -> None:
    for path in folders[1].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = load_file(tmp_path / FILE)
    scale = next(name for name in tensors if name.endswith(".scale"))
    if harm == "lacking":
        del tensors[scale], tensors[scale.removesuffix(".scale")]
    elif harm == "unscaled":
        del tensors[scale]
    else:
        tensors["stranger"] = torch.zeros(2)
    save_file(tensors, tmp_path / FILE, metadata={"format": "pt"})
    if harm == "broken":
        (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-100])
    with pytest.raises(EngineError, match="does not load"):
        load_model(tmp_path, "float32")
