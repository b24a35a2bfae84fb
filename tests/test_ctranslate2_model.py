"""Models in CTranslate2's format: converted once and proved, safe with many processes, refused where they compute something else."""

from __future__ import annotations

import importlib
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.tiny_models import edit_json, make_model
from transforms.engine import EngineError

pytest.importorskip("ctranslate2")

from ctranslate2.converters.transformers import T5Loader

from transforms.engine.ctranslate2_model import converted_model, default_cache_folder


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(model: str) -> Path:
        if model not in made:
            made[model] = make_model(model, tmp_path_factory.mktemp(model))
        return made[model]

    return folder


def test_a_model_is_converted_once(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    cache = tmp_path / "a" / "b"
    first = converted_model(folder_of("bart"), "", "float32", cache)
    written = (first / "model.bin").stat().st_mtime_ns
    assert converted_model(folder_of("bart"), "", "float32", cache) == first
    assert (first / "model.bin").stat().st_mtime_ns == written
    assert [path.name for path in cache.iterdir()] == [first.name]
    assert [path.stat().st_mode & 0o077 for path in (cache, first)] == [0, 0]
    others = {converted_model(folder_of("bart"), "", "int8", cache), converted_model(folder_of("t5"), "", "float32", cache)}
    assert len(others | {first}) == len(list(cache.iterdir())) == 3


def test_a_changed_model_is_converted_again_whatever_sha256_is_told(tmp_path: Path) -> None:
    folder = make_model("marian", tmp_path / "model")
    first = converted_model(folder, "told", "float32", tmp_path / "cache")
    edit_json(folder / "config.json", scale_embedding=True)
    assert converted_model(folder, "told", "float32", tmp_path / "cache") != first


def test_processes_convert_at_once(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    folder, cache = folder_of("t5"), tmp_path / "cache"
    with multiprocessing.get_context("fork").Pool(2) as pool:
        jobs = [pool.apply_async(converted_model, (folder, "", "int8", cache)) for _ in range(2)]
        first, second = [job.get(timeout=60) for job in jobs]
    assert first == second
    assert list(cache.iterdir()) == [first]


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_folder() == tmp_path / "chartmill" / "ctranslate2"


@pytest.fixture
def empty_cache(tmp_path: Path) -> Iterator[Path]:
    """A cache that must hold nothing afterwards."""
    yield tmp_path / "cache"
    assert not list((tmp_path / "cache").glob("*"))


def test_pickle_weights_are_refused(tmp_path: Path, empty_cache: Path) -> None:
    folder = make_model("t5", tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(EngineError, match=r"pickle .* are never loaded"):
        converted_model(folder, "", "float32", empty_cache)


def test_an_architecture_that_is_not_offered_is_refused(folder_of: Callable[[str], Path], empty_cache: Path) -> None:
    with pytest.raises(EngineError, match=r"ctranslate2 has no led here; choices: a model of bart, .*, or torch"):
        converted_model(folder_of("led"), "", "float32", empty_cache)


def test_a_conversion_that_computes_something_else_is_refused(
    folder_of: Callable[[str], Path], empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As CTranslate2's loader does by itself: it scales the logits of T5 v1.1, for transformers 5 says that all weights are tied."""
    loaded = T5Loader.get_model_spec

    def as_if_tied(self: T5Loader, model: object) -> object:
        model.config.tie_word_embeddings = True  # type: ignore[attr-defined]
        return loaded(self, model)

    monkeypatch.setattr(T5Loader, "get_model_spec", as_if_tied)
    with pytest.raises(EngineError, match=r"computes this t5 differently .* choose torch"):
        converted_model(folder_of("t5-v1.1"), "", "float32", empty_cache)


def test_a_machine_without_the_library_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    monkeypatch.delitem(sys.modules, "transforms.engine.ctranslate2_model")
    with pytest.raises(EngineError, match=r"not installed; pip install chartmill\[ctranslate2\], or choose torch"):
        importlib.import_module("transforms.engine.ctranslate2_model")
