"""Doctor's check of the model: there, safetensors only, of a known configuration, its files whole and, of the packaged one, unchanged."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from pipeline.config import Job
from pipeline.doctor_finding import Finding, failed, ok, warning
from transforms.models import DEFAULT_MODEL_FOLDER, PACKAGED, ModelFiles, resolve_model

# How pickle weights are usually called. They are never opened; they only take room, and somebody might mistake them for what is used.
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt")
# Of the packaged models.
_FOLDERS = frozenset(folder.name for folder in PACKAGED.values())


def check_model(job: Job) -> Iterator[Finding]:
    """The model of the job, brought to this machine as a run would. Raises ConfigurationError that says why it cannot be had."""
    if job.engine.backend == "echo":
        yield ok("model", "echo needs none")
        return
    model = resolve_model(job.tasks.summary.model, allow_download=job.engine.allow_download)
    yield from _described("", model)
    if model.source in PACKAGED:
        yield packaged()


def check_record_model(job: Job) -> Iterator[Finding]:
    """The model that reads records, if the job has one, and whether its output can be constrained here. Raises ConfigurationError."""
    if not job.tasks.record.by_model:
        return
    from pipeline.prepare import prepare_records

    task = prepare_records(job).record.task
    assert task is not None, "a reader with a model has a task"
    yield from _described("record ", task.model)
    if task.model.source in PACKAGED and job.tasks.summary.model not in PACKAGED:
        yield packaged()


def _described(of: str, model: ModelFiles) -> Iterator[Finding]:
    """`of`: what stands before the names of the checks."""
    folder = model.folder or DEFAULT_MODEL_FOLDER
    yield ok(f"{of}model", f"{model.size / 2**20:,.0f} MiB, sha256 {model.sha256}")
    for finding in (_weights(folder), _configuration(folder)):
        yield replace(finding, check=f"{of}{finding.check}")


def _weights(folder: Path) -> Finding:
    broken = sum(not is_whole(path) for path in folder.glob("*.safetensors"))
    if broken:
        return failed("weights", f"{broken} safetensors files are cut short or broken", "fetch the model again")
    if any(found for pattern in _PICKLES for found in folder.glob(pattern)):
        return warning("weights", "safetensors; the folder holds pickle weights too, which are never loaded", "delete them")
    return ok("weights", "safetensors only, each as long as its header says")


def is_whole(path: Path) -> bool:
    """Whether a safetensors file is as long as its header says (https://github.com/huggingface/safetensors#format)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > size - 8:
            return False
        try:
            tensors = json.loads(file.read(length))
            ends = [tensor["data_offsets"][1] for name, tensor in tensors.items() if name != "__metadata__"]
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            return False
    return bool(size == 8 + length + max(ends, default=0))


def _configuration(folder: Path) -> Finding:
    """Loaded as the engine loads it, after forbidding downloads; a model that brings code of its own is refused."""
    from transforms.engine import forbid_hub_traffic

    raw = json.loads((folder / "config.json").read_text("utf-8"))
    if "auto_map" in raw:
        return failed("model configuration", "it asks for code of its own (auto_map), which is never run", "choose another model")
    forbid_hub_traffic()
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception:  # noqa: BLE001 - whatever the library raises for a configuration that it cannot read, the message may quote paths
        return failed("model configuration", "config.json cannot be loaded", "choose a folder that transformers can load")
    if not getattr(config, "is_encoder_decoder", False):
        return failed("model configuration", f"{config.model_type} is no encoder-decoder", "choose a BART, T5, Marian or Pegasus model")
    return ok("model configuration", f"{config.model_type}, runs no code of its own")


def packaged() -> Finding:
    """The packaged models' files against the hashes that the installer recorded."""
    recorded = [file for file in metadata.files("chartmill") or () if not _FOLDERS.isdisjoint(file.parts) and file.hash]
    if not recorded:
        return ok("packaged model", "installed in place (editable): there are no recorded hashes to compare with")
    changed = sum(_differs(Path(str(file.locate())), str(file.hash and file.hash.value)) for file in recorded)
    if changed:
        return failed("packaged model", f"{changed} of {len(recorded)} files are not as they were installed", "install chartmill again")
    return ok("packaged model", f"{len(recorded)} files as they were installed")


def _differs(path: Path, recorded: str) -> bool:
    """Recorded hashes are sha256 in URL-safe base64 without padding."""
    if not path.is_file():
        return True
    return base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=").decode() != recorded
