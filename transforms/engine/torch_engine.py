"""The torch backend: any `AutoModelForSeq2SeqLM` folder (BART, T5, Marian, Pegasus and their kin), on CPU or one CUDA device.

All requests are tokenised at once, sorted by length and cut into batches by a budget of padded tokens; `model.generate()` decodes each
batch, and the answers go back to the order of the requests. A batch that fails is halved until the culprit stands alone, so one bad text
spoils no neighbour. Only safetensors weights are loaded, only from a local folder, and no code that comes with a model is run.

It does not refill finished rows: a batch lasts as long as its longest output.
"""

from __future__ import annotations

import gc
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

from transforms.engine import (
    GENERATION_FAILED,
    OUT_OF_MEMORY,
    Completion,
    DecodeSettings,
    EngineError,
    EngineIdentity,
    EngineSettings,
    Request,
    Tokenized,
    resolve_device,
    resolve_dtype,
)
from transforms.engine.batching import plan_batches
from transforms.engine.tokens import SourceTokenizer

logger = logging.getLogger(__name__)

# Padded source tokens times beams per batch where the settings leave it open.
TOKENS_PER_BATCH = {"cpu": 8_192, "cuda": 131_072}

# Config keys that bound the source of models with absolute positions (`n_positions`: what T5 was trained with).
_SOURCE_LIMITS = ("max_encoder_position_embeddings", "max_position_embeddings", "n_positions")
_TARGET_LIMITS = ("max_decoder_position_embeddings", "max_position_embeddings")
# A tokenizer that knows no limit says 1e30.
_NO_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True)
class _Source:
    """A tokenised request: its position, its ids with special tokens, and what the limit cut off."""

    index: int
    ids: list[int] = field(repr=False)
    tokens: int
    truncated: int


class _LogprobMeter:
    """A logits processor that changes nothing and notes the log probability of each row's best token at each step.

    One pass over the step's logits; keeping `output_scores` instead would hold all steps times the vocabulary in memory.
    """

    def __init__(self) -> None:
        self.steps: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        wide = scores.float()
        self.steps.append(wide.amax(-1) - wide.logsumexp(-1))
        return scores


class TorchEngine:
    """See the module. Raises EngineError if the folder, the dtype or the device cannot be had."""

    def __init__(self, settings: EngineSettings) -> None:
        device = resolve_device(settings.device)
        dtype = resolve_dtype(settings.dtype, device)
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        folder = Path(settings.model_folder)
        self._model = _load_model(folder, dtype).to(device).eval()
        self._tokenizer = SourceTokenizer(_load_tokenizer(folder))
        self._identity = EngineIdentity("torch", settings.model_id or folder.name, settings.model_sha256, dtype, device)
        self._tokens_per_batch = settings.tokens_per_batch or TOKENS_PER_BATCH[device]
        self._special = _special_ids(self._model)
        # What a checkpoint ships must not fill in what a request leaves at its default: keep the special tokens only.
        self._model.generation_config = transformers.GenerationConfig(**self._special)
        config = self._model.config
        limits = [getattr(config, key, None) for key in _SOURCE_LIMITS] + [self._tokenizer.model_limit]
        self._source_limit = min((n for n in limits if n and n < _NO_LIMIT), default=_NO_LIMIT) - self._tokenizer.special_count
        self._target_limit = min((n for key in _TARGET_LIMITS if (n := getattr(config, key, None))), default=_NO_LIMIT)

    @property
    def identity(self) -> EngineIdentity:
        return self._identity

    @property
    def max_source_tokens(self) -> int:
        return self._source_limit

    def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
        return self._tokenizer.tokenize(texts)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        completions: list[Completion | None] = [None] * len(requests)
        by_decode: dict[DecodeSettings, list[_Source]] = {}
        for source in self._sources(requests, completions):
            by_decode.setdefault(requests[source.index].decode, []).append(source)
        for decode, sources in by_decode.items():
            for index, completion in self._complete(sources, decode):
                completions[index] = completion
        return [completion for completion in completions if completion is not None]

    def _sources(self, requests: Sequence[Request], completions: list[Completion | None]) -> Iterator[_Source]:
        """Tokenised requests; a request that cannot be tokenised, or asks for what this backend lacks, fails at once."""
        encoded = self._tokenizer.encode([request.text for request in requests])
        for index, (request, ids) in enumerate(zip(requests, encoded, strict=True)):
            if isinstance(ids, Exception):
                completions[index] = Completion.failed(GENERATION_FAILED, type(ids).__name__)
            elif request.constraint is not None:
                completions[index] = Completion.failed(GENERATION_FAILED, "NotImplementedError")
            else:
                kept = ids[: self._source_limit]
                yield _Source(index, self._tokenizer.with_specials(kept), len(kept), len(ids) - len(kept))

    def _complete(self, sources: list[_Source], decode: DecodeSettings) -> Iterator[tuple[int, Completion]]:
        budget = max(1, self._tokens_per_batch // decode.num_beams)
        plan = plan_batches([len(source.ids) for source in sources], budget)
        pending = deque([sources[i] for i in batch] for batch in plan)
        while pending:
            batch = pending.popleft()
            completions = self._attempt(batch, decode)
            if isinstance(completions, list):
                yield from zip((source.index for source in batch), completions, strict=True)
            elif len(batch) == 1:
                yield batch[0].index, completions
            else:
                half = len(batch) // 2
                pending.extendleft((batch[half:], batch[:half]))

    def _attempt(self, batch: list[_Source], decode: DecodeSettings) -> list[Completion] | Completion:
        """The batch's completions, or, if it fails, the failure that a batch of one would have to report."""
        try:
            return self._decode(batch, decode)
        # Whatever a text provokes in the model stays with that text.
        except Exception as error:  # noqa: BLE001
            failure = _failure(error)
        # Out of the handler: only now is the traceback gone, and with it the tensors that it held.
        if failure.error == OUT_OF_MEMORY and self._identity.device == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
        logger.warning("a batch of %d texts failed: %s (%s)", len(batch), failure.error, failure.cause)
        return failure

    @torch.inference_mode()
    def _decode(self, batch: list[_Source], decode: DecodeSettings) -> list[Completion]:
        width = max(len(source.ids) for source in batch)
        input_ids = torch.full((len(batch), width), self._special["pad_token_id"])
        attention_mask = torch.zeros((len(batch), width), dtype=torch.long)
        for row, source in enumerate(batch):
            input_ids[row, : len(source.ids)] = torch.tensor(source.ids)
            attention_mask[row, : len(source.ids)] = 1
        device = self._identity.device
        config = generation_config(decode, self._special, self._target_limit)
        meter = _LogprobMeter()
        output = self._model.generate(
            input_ids=input_ids.to(device),
            attention_mask=attention_mask.to(device),
            generation_config=config,
            logits_processor=[meter] if config.num_beams == 1 else None,
        ).cpu()
        # Column 0 is the decoder's start token, which may look like an end.
        rows = [self._trimmed(row) for row in output[:, 1:].tolist()]
        logprobs = _mean_logprobs(meter, rows)
        texts = self._tokenizer.decode(rows)
        return [
            Completion(
                text=texts[i],
                token_ids=tuple(rows[i]),
                logprob=logprobs[i],
                source_tokens=source.tokens,
                source_truncated=source.truncated > 0,
                finish=self._finish(rows[i], config),
                truncated_tokens=source.truncated,
                padded_tokens=width - len(source.ids),
            )
            for i, source in enumerate(batch)
        ]

    def _trimmed(self, row: list[int]) -> list[int]:
        """The row up to and with its first end-of-sequence token; what follows is filling."""
        ends = self._special["eos_token_id"]
        return row[: next((i + 1 for i, token in enumerate(row) if token in ends), len(row))]

    def _finish(self, row: list[int], config: Any) -> Any:
        # At the limit, a forced end-of-sequence token says nothing about whether the model was done.
        if len(row) >= config.max_new_tokens and (config.forced_eos_token_id is not None or row[-1] not in self._special["eos_token_id"]):
            return "length"
        return "stop"


def generation_config(decode: DecodeSettings, special: dict[str, Any], target_limit: int) -> Any:
    """A fresh transformers GenerationConfig: greedy or beams as `decode` says, no sampling, output within `target_limit` tokens."""
    longest = min(decode.max_new_tokens, target_limit)
    return transformers.GenerationConfig(
        **special,
        do_sample=False,
        num_beams=decode.num_beams,
        max_new_tokens=longest,
        min_new_tokens=min(decode.min_new_tokens, longest) or None,
        length_penalty=decode.length_penalty,
        early_stopping=decode.early_stopping,
        no_repeat_ngram_size=decode.no_repeat_ngram_size,
        repetition_penalty=decode.repetition_penalty,
        renormalize_logits=decode.renormalize_logits,
        forced_bos_token_id=decode.forced_bos_token_id,
        forced_eos_token_id=decode.forced_eos_token_id,
        bad_words_ids=[list(word) for word in decode.bad_words_ids] or None,
        suppress_tokens=list(decode.suppress_tokens) or None,
        begin_suppress_tokens=list(decode.begin_suppress_tokens) or None,
    )


def _failure(error: Exception) -> Completion:
    told = str(error)
    starved = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in told or "ALLOC_FAILED" in told)
    )
    return Completion.failed(OUT_OF_MEMORY if starved else GENERATION_FAILED, type(error).__name__)


def _mean_logprobs(meter: _LogprobMeter, rows: list[list[int]]) -> list[float | None]:
    if not meter.steps:
        return [None] * len(rows)
    steps = torch.stack(meter.steps).cpu()
    return [float(steps[: len(row), i].mean()) if row else None for i, row in enumerate(rows)]


def _special_ids(model: Any) -> dict[str, Any]:
    """The token ids that `generate()` needs; `eos_token_id` always as a list."""
    shipped, config = model.generation_config, model.config
    ids = {
        name: _first(getattr(shipped, name, None), getattr(config, name, None))
        for name in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
    }
    eos = ids["eos_token_id"]
    ids["eos_token_id"] = eos if isinstance(eos, list) else [] if eos is None else [eos]
    if not ids["eos_token_id"]:
        raise EngineError(f"the model's {type(config).__name__} names no eos_token_id: it could never stop")
    ids["pad_token_id"] = _first(ids["pad_token_id"], ids["eos_token_id"][0])
    return ids


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def check_folder(folder: Path) -> None:
    """Raise EngineError unless the folder holds a config and safetensors weights."""
    if not (folder / "config.json").is_file():
        raise EngineError(f"engine.model: {str(folder)!r} is not a model folder (it holds no config.json)")
    if not any(folder.glob("*.safetensors")):
        raise EngineError(f"engine.model: {str(folder)!r} holds no *.safetensors; other weights (pickle .bin, .pt, .h5) are never loaded")


def _load_model(folder: Path, dtype: str) -> Any:
    check_folder(folder)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        model, report = transformers.AutoModelForSeq2SeqLM.from_pretrained(
            folder,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise EngineError(f"engine.model: {str(folder)!r} does not load as a sequence-to-sequence model: {error}") from None
    # transformers fills what the file lacks with random numbers and carries on; that must not become somebody's summary.
    lacking = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if lacking:
        raise EngineError(f"engine.model: the weights in {str(folder)!r} lack {len(lacking)} tensors of the model, first {lacking[0]}")
    return model


def _load_tokenizer(folder: Path) -> Any:
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise EngineError(f"engine.model: the tokenizer in {str(folder)!r} does not load: {error}") from None
