"""A model folder in CTranslate2's own format: converted once, proved against the model, kept in a private cache.

The weights are loaded as everywhere in the engine, from safetensors and by the library, and handed to CTranslate2's loaders of
single architectures. Its own converter is not used: it would load pickles, and with transformers 5 it fails on some BART folders and
scales the logits of T5 v1.1. Its vocabulary of words is replaced by token ids written as decimals, so that no tokenizer is asked twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy
import torch

from transforms.engine import EngineError
from transforms.engine.loading import check_folder, load_model, special_ids

try:
    import ctranslate2
    from ctranslate2.converters.transformers import BartLoader, T5Loader
except ModuleNotFoundError:
    raise EngineError("engine.backend: ctranslate2 is not installed; pip install chartmill[ctranslate2], or choose torch") from None

# Goes up with each change here that changes what is written.
_FORMAT = 1

# Layer norm before each block rather than after it; layer norm of the embeddings. The configurations of transformers 5 name neither.
_BART_KIN = {"bart": (False, True), "mbart": (True, True), "marian": (False, False), "pegasus": (True, False)}
_FAMILIES = (*_BART_KIN, "t5", "mt5")

# Tokens of the made-up source and target that a conversion is proved on, and how far a log probability may be off: float32
# sums in another order gave up to 1e-4, the wrong number of heads 1.
_PROOF_TOKENS = 24
_PROOF_TOLERANCE = 1e-2


def default_cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "chartmill" / "ctranslate2"


def converted_model(folder: Path, model_sha256: str, quantization: str, cache_folder: Path) -> Path:
    """The folder of the cache with this model in this quantization (CTranslate2's names), converted if it is not there yet.

    Any number of processes may ask at once: each writes a folder of its own, and renaming it is all that others see. Raises EngineError
    for weights that are not safetensors, for architectures that are not offered and for conversions that compute something else.
    """
    check_folder(folder)
    target = cache_folder / _key(folder, model_sha256, quantization)
    if target.is_dir():
        return target
    cache_folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=cache_folder))
    try:
        _convert(load_model(folder, "float32"), quantization, partial)
        _settle(partial / "model", target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def open_translator(model: Path, compute_type: str, device: str, lanes: int) -> Any:
    """`lanes` batches side by side, each on one core, rather than one batch on several: nothing waits at the end of each small product.

    Raises EngineError where this machine cannot compute in that type.
    """
    try:
        return ctranslate2.Translator(
            str(model), device, compute_type=compute_type, inter_threads=lanes, intra_threads=1, max_queued_batches=-1
        )
    except (RuntimeError, ValueError) as error:
        cause = type(error).__name__
        raise EngineError(f"engine.backend: ctranslate2 cannot run {compute_type} on {device} here ({cause}); choose torch") from None


def _key(folder: Path, model_sha256: str, quantization: str) -> str:
    """Changes with the model, with CTranslate2 and with what we ask of it. The configuration is always read, for it is small."""
    weights = sorted(folder.glob("*.safetensors"))
    content = model_sha256 or _sha256(weights)
    sizes = [(path.name, path.stat().st_size) for path in weights]
    plain = (_FORMAT, ctranslate2.__version__, quantization, content, sizes, _sha256(sorted(folder.glob("*config.json"))))
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()[:32]


def _sha256(paths: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def _settle(written: Path, target: Path) -> None:
    """Rename into place. Where another process was faster, its folder holds the same and stays."""
    try:
        written.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def _convert(model: Any, quantization: str, partial: Path) -> None:
    start = special_ids(model)["decoder_start_token_id"]
    if start is None:
        raise EngineError("engine.backend: ctranslate2 needs a model whose configuration names a decoder_start_token_id; choose torch")
    exact = partial / "exact"
    _save(_specification(model, start), "float32", exact)
    _prove(model, start, exact)
    if quantization == "float32":
        exact.rename(partial / "model")
    else:
        _save(_specification(model, start), quantization, partial / "model")


def _save(specification: Any, quantization: str, folder: Path) -> None:
    folder.mkdir(mode=0o700)
    specification.validate()
    specification.optimize(quantization=quantization)
    specification.save(str(folder))


@torch.no_grad()
def _specification(model: Any, start: int) -> Any:
    """CTranslate2's description of the model with its weights and a vocabulary of ids. Raises EngineError."""
    config = model.config
    family = config.model_type
    if family not in _FAMILIES:
        raise EngineError(f"engine.backend: ctranslate2 has no {family} here; choices: a model of {', '.join(_FAMILIES)}, or torch")
    if family in _BART_KIN:
        config.normalize_before, config.normalize_embedding = _BART_KIN[family]
    else:
        # transformers 5 says that all weights are tied, and apart from that whether T5 scales its output; mT5 never does.
        config.tie_word_embeddings = getattr(config, "scale_decoder_outputs", False)
    try:
        specification = (BartLoader() if family in _BART_KIN else T5Loader()).get_model_spec(model)
    except (AttributeError, KeyError, NotImplementedError, TypeError, ValueError) as error:
        raise EngineError(f"engine.backend: ctranslate2 cannot convert this {family} ({type(error).__name__}); choose torch") from None
    if family in _BART_KIN:
        # The loader gives the decoder the encoder's.
        specification.decoder.num_heads = numpy.int16(config.decoder_attention_heads)
    [sources] = specification.get_source_vocabulary_size()
    targets = specification.get_target_vocabulary_size()
    specification.register_source_vocabulary([str(token) for token in range(sources)])
    specification.register_target_vocabulary([str(token) for token in range(targets)])
    names = specification.config
    # The ends of a sequence are told with each request. A source that is nothing but the end named here would be skipped, and an empty
    # text is just that in T5: name a token that never stands alone.
    names.bos_token = names.decoder_start_token = str(start)
    names.eos_token = names.unk_token = str(targets - 1)
    return specification


@torch.inference_mode()
def _prove(model: Any, start: int, folder: Path) -> None:
    """Compare log probabilities on made-up tokens. Raises EngineError if they differ by more than rounding."""
    size = model.config.vocab_size
    source, target = ([(step * i + 5) % size for i in range(_PROOF_TOKENS)] for step in (7, 11))
    logits = model.eval()(input_ids=torch.tensor([source]), decoder_input_ids=torch.tensor([[start, *target[:-1]]])).logits
    expected = logits[0].log_softmax(-1).gather(-1, torch.tensor(target)[:, None])[:, 0]
    translator = ctranslate2.Translator(str(folder), compute_type="float32", intra_threads=1)
    [scored] = translator.score_batch([list(map(str, source))], [list(map(str, target))], max_input_length=0)
    off = (torch.tensor(scored.log_probs[: len(target)]) - expected).abs()
    # Not `off > tolerance`: that lets NaN pass.
    if not bool((off < _PROOF_TOLERANCE).all()):
        raise EngineError(
            f"engine.backend: ctranslate2 computes this {model.config.model_type} differently (log probabilities off by up to "
            f"{float(off.max()):.2g}); choose torch"
        )
