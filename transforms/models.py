"""Where a model comes from: packaged, a local folder, an `s3://` prefix, or (only when allowed) the Hugging Face hub. Imports no torch.

Whatever its source, a model ends up as a local folder with safetensors weights and one sha256 over every file that can change its output.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import secrets
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlparse

from schemas.errors import ChartmillError, ConfigurationError
from transforms.private_files import make_private_folder
from transforms.store import s3_client, s3_error_code
from transforms.store_failure import advice, is_passing
from transforms.store_retries import read_object

DEFAULT_MODEL_FOLDER = Path(__file__).parent / "engine" / "default_model"
DEFAULT_RECORD_MODEL = "default-record"
# By the name that a job gives.
PACKAGED = {"default": DEFAULT_MODEL_FOLDER, DEFAULT_RECORD_MODEL: Path(__file__).parent / "engine" / "default_record_model"}

# Everything of a model folder that is read: weights, configuration, tokenizer, and our own chartmill.json.
MODEL_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "chartmill.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "target_vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.spm",
    "spiece.model",
    "sentencepiece*.model",
)

_CHOICES = "choices: default, default-record, a local folder, s3://bucket/prefix, or a hub id (org/name@revision) with --allow-download"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?(@[\w.-]+)?")
_READ_SIZE = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model on this machine.

    `id`: its public name for provenance (of a local folder only the last part). `folder`: None for an engine that needs no model.
    `sha256`: over MODEL_FILES; "" without a folder. `size`: bytes of those files. `source`: the name it was asked for by.
    """

    id: str
    folder: Path | None
    sha256: str
    size: int
    source: str


# The echo engine's "model".
NO_MODEL = ModelFiles("echo", None, "", 0, "echo")


def resolve_model(name: str, *, allow_download: bool = False, cache_dir: Path | None = None) -> ModelFiles:
    """Find a model by name and bring it to this machine.

    A name of PACKAGED: what comes with the package. A folder: used in place. `s3://bucket/prefix`: the files directly under the prefix,
    fetched once per content into `cache_dir` (default `$XDG_CACHE_HOME/chartmill/models`). A hub id, with a pinned revision after `@` (else
    the newest; its commit becomes part of `id`): only with `allow_download`. Raises ConfigurationError that names what was found and the
    choices.
    """
    if name in PACKAGED:
        return _described(name, PACKAGED[name], name)
    if name.startswith("s3://"):
        return _described(name.rstrip("/"), _fetch_s3(name, cache_dir or _default_cache()), name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _described(folder.resolve().name, folder.resolve(), name)
    if folder.exists() or not _HUB_ID.fullmatch(name):
        raise ConfigurationError(f"model: {name!r} is not a folder; {_CHOICES}")
    if not allow_download:
        raise ConfigurationError(f"model: there is no folder {name!r} here, and downloads are not allowed; {_CHOICES}")
    snapshot, commit = _fetch_hub(name)
    return _described(f"{name.partition('@')[0]}@{commit}", snapshot, name)


def model_on_this_machine(model: ModelFiles) -> ModelFiles:
    """The same model where a worker may run on another machine than the one that planned: resolved again if its folder is not here.

    Raises ConfigurationError if what is found is not the model that was planned: rows would be said to be of another than they are.
    """
    if model.folder is None:
        return model
    # The plan's machine was allowed to download it, so this one is.
    found = model if model.folder.is_dir() else resolve_model(model.source, allow_download=True)
    here = model_sha256(model.folder) if found is model else found.sha256
    if here != model.sha256:
        raise ConfigurationError(
            f"model: {model.id!r} here has sha256 {here[:12]}, but the run was planned with {model.sha256[:12]}: "
            "its *.safetensors or another of its files was replaced"
        )
    return found


def _described(model_id: str, folder: Path, source: str) -> ModelFiles:
    paths = model_files(folder)
    if not (folder / "config.json").is_file():
        raise ConfigurationError(f"model: {source!r} is not a model folder (no config.json); {_CHOICES}")
    if not any(path.suffix == ".safetensors" for path in paths):
        raise ConfigurationError(
            f"model: {source!r} holds no *.safetensors; pickle weights (.bin, .pt) are never loaded, convert them first"
        )
    return ModelFiles(model_id, folder, model_sha256(folder), sum(path.stat().st_size for path in paths), source)


def model_files(folder: Path) -> list[Path]:
    """The files of MODEL_FILES in this folder itself, by name."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_file() and _wanted(path.name))


def model_sha256(folder: Path) -> str:
    """sha256 over the names and contents of the model's files: equal for equal models wherever they lie."""
    total = hashlib.sha256()
    for path in model_files(folder):
        status = path.stat()
        total.update(f"{path.name} {_file_sha256(str(path), status.st_size, status.st_mtime_ns)}\n".encode())
    return total.hexdigest()


@cache
def _file_sha256(path: str, size: int, mtime_ns: int) -> str:
    """Size and time are only the cache's key: a changed file is read again."""
    content = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_READ_SIZE):
            content.update(chunk)
    return content.hexdigest()


def _wanted(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in MODEL_FILES)


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chartmill" / "models"


def _fetch_s3(uri: str, cache_dir: Path) -> Path:
    """The folder of the cache that holds exactly the objects now under the prefix; fetched if it is not there yet."""
    bucket, prefix, objects = _list_s3(uri)
    state = "\n".join(f"{item['Key']} {item['Size']} {item['ETag']}" for item in objects)
    target = cache_dir / hashlib.sha256(f"{bucket}\n{state}".encode()).hexdigest()[:24]
    if target.is_dir():
        return target
    make_private_folder(cache_dir)
    partial = cache_dir / f".partial-{secrets.token_hex(8)}"
    partial.mkdir(mode=0o700)
    try:
        for item in objects:
            _fetch_object(bucket, item, partial / item["Key"].removeprefix(prefix))
        _settle(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _list_s3(uri: str) -> tuple[str, str, list[dict[str, Any]]]:
    """Bucket, prefix ending in `/`, and the listing of the model's files directly under it, by key."""
    from botocore.exceptions import BotoCoreError, ClientError

    parsed = urlparse(uri)
    prefix = f"{parsed.path.strip('/')}/" if parsed.path.strip("/") else ""
    try:
        pages = s3_client().get_paginator("list_objects_v2").paginate(Bucket=parsed.netloc, Prefix=prefix, Delimiter="/")
        objects = [item for page in pages for item in page.get("Contents", ()) if _wanted(item["Key"].removeprefix(prefix))]
    except (BotoCoreError, ClientError) as error:
        if is_passing(error):
            raise ChartmillError(f"model: {uri!r} cannot be listed now: {advice(error)}") from None
        why = s3_error_code(error) if isinstance(error, ClientError) else error
        raise ConfigurationError(f"model: {uri!r} cannot be listed: {why}") from None
    if not objects:
        raise ConfigurationError(f"model: no model files directly under {uri!r}; {_CHOICES}")
    return parsed.netloc, prefix, sorted(objects, key=lambda item: str(item["Key"]))


def _fetch_object(bucket: str, item: dict[str, Any], path: Path) -> None:
    """One object, exactly as listed: the ETag is a condition of the request, boto3 checks its checksum, we its size."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:

        def write(body: BinaryIO) -> int:
            file.seek(0)
            file.truncate()
            shutil.copyfileobj(body, file, _READ_SIZE)
            return file.tell()

        size = read_object(s3_client(), write, Bucket=bucket, Key=item["Key"], IfMatch=item["ETag"])
    if size != item["Size"]:
        raise ConfigurationError(f"model: an object under the prefix came with {size} bytes instead of {item['Size']}; try again")


def _settle(partial: Path, target: Path) -> None:
    """Give the finished folder its name; somebody who was faster has the same content."""
    try:
        partial.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def _fetch_hub(name: str) -> tuple[Path, str]:
    """The hub's snapshot folder, named after the commit, and that commit."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, revision = name.partition("@")
    try:
        folder = Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(MODEL_FILES)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ConfigurationError(f"model: {name!r} cannot be had from the hub ({type(error).__name__}); {_CHOICES}") from None
    return folder, folder.name
