from __future__ import annotations

import shutil
import stat
from pathlib import Path

import pytest

from schemas.errors import ConfigurationError
from tests.tiny_models import edit_json, make_model
from transforms.models import DEFAULT_MODEL_FOLDER, NO_MODEL, ModelFiles, model_on_this_machine, model_sha256, resolve_model
from transforms.store import s3_client


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model("t5", tmp_path_factory.mktemp("models") / "tiny-t5")


def upload(folder: Path, bucket: str, prefix: str) -> None:
    for path in folder.iterdir():
        s3_client().upload_file(str(path), bucket, f"{prefix}/{path.name}")


def test_a_folder_is_used_in_place(folder: Path) -> None:
    model = resolve_model(str(folder))
    assert (model.id, model.folder, model.source) == ("tiny-t5", folder.resolve(), str(folder))
    assert model.sha256 == model_sha256(folder)
    assert model.size == sum(path.stat().st_size for path in folder.iterdir())


def test_the_sha256_covers_what_changes_output_and_nothing_else(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "another-name"))
    assert model_sha256(copy) == model_sha256(folder)
    (copy / "README.md").write_text("words about it")
    assert model_sha256(copy) == model_sha256(folder)
    seen = {model_sha256(folder)}
    for name in ("generation_config.json", "config.json", "tokenizer_config.json"):
        edit_json(copy / name, changed=True)
        seen.add(model_sha256(copy))
    (copy / "chartmill.json").write_text("{}")
    seen.add(model_sha256(copy))
    assert len(seen) == 5


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("/nowhere/model", r"'/nowhere/model' is not a folder; choices: default, default-record, a local folder, s3://"),
        ("org/name@abc", r"downloads are not allowed; choices: .* with --allow-download"),
    ],
)
def test_what_is_not_there_names_the_choices(name: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        resolve_model(name)


def test_a_folder_without_safetensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"not a model folder \(no config\.json\)"):
        resolve_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ConfigurationError, match=r"pickle weights .* are never loaded"):
        resolve_model(str(tmp_path))


def test_the_packaged_model_resolves() -> None:
    if not any(DEFAULT_MODEL_FOLDER.glob("*.safetensors")):
        pytest.skip("the default model is not in the tree")
    model = resolve_model("default")
    assert (model.id, model.folder) == ("default", DEFAULT_MODEL_FOLDER)
    assert model.size <= 40_000_000


def test_a_worker_elsewhere_finds_the_same_model_again(folder: Path) -> None:
    model = resolve_model(str(folder))
    gone = ModelFiles(model.id, Path("/nowhere/on/this/machine"), model.sha256, model.size, model.source)
    assert model_on_this_machine(gone) == model
    assert model_on_this_machine(model) is model
    assert model_on_this_machine(NO_MODEL) is NO_MODEL
    other = ModelFiles(model.id, gone.folder, "0" * 64, model.size, model.source)
    with pytest.raises(ConfigurationError, match="the run was planned with 000000000000"):
        model_on_this_machine(other)


@pytest.mark.s3
def test_a_prefix_is_fetched_once_per_content(folder: Path, bucket: str, tmp_path: Path) -> None:
    upload(folder, bucket, "models/tiny")
    s3_client().put_object(Bucket=bucket, Key="models/tiny/notes.txt", Body=b"not a model's file")
    s3_client().put_object(Bucket=bucket, Key="models/tiny/onnx/config.json", Body=b"{}")
    cache = tmp_path / "cache"
    model = resolve_model(f"s3://{bucket}/models/tiny/", cache_dir=cache)
    assert model.folder is not None
    assert model.id == f"s3://{bucket}/models/tiny"
    assert model.sha256 == model_sha256(folder)
    assert {path.name for path in model.folder.iterdir()} == {path.name for path in folder.iterdir()}
    assert stat.S_IMODE(model.folder.stat().st_mode) == stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in model.folder.iterdir()} == {0o600}
    before = {path.name: path.stat().st_mtime_ns for path in model.folder.iterdir()}
    assert resolve_model(f"s3://{bucket}/models/tiny", cache_dir=cache).folder == model.folder
    assert {path.name: path.stat().st_mtime_ns for path in model.folder.iterdir()} == before

    s3_client().put_object(Bucket=bucket, Key="models/tiny/generation_config.json", Body=b'{"num_beams": 2}')
    changed = resolve_model(f"s3://{bucket}/models/tiny", cache_dir=cache)
    assert changed.sha256 != model.sha256
    assert sorted(path.name for path in cache.iterdir()) == sorted(path.name for path in (model.folder, changed.folder) if path)


@pytest.mark.s3
def test_an_empty_prefix_and_a_missing_bucket_are_told(bucket: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no model files directly under"):
        resolve_model(f"s3://{bucket}/nothing", cache_dir=tmp_path)
    with pytest.raises(ConfigurationError, match="cannot be listed: NoSuchBucket"):
        resolve_model(f"s3://{bucket}-not/nothing", cache_dir=tmp_path)
