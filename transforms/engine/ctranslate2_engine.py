"""The CTranslate2 backend: BART, mBART, Marian, Pegasus, T5 and mT5 in int8 on any CPU, from the same model folders.

Laws that hold in float32: batched = one by one, order, limits, a bad request spoils no neighbour, and greedy output equals
`model.generate()` token for token, near-ties aside, with forced tokens, decoder prefixes, minimum length, suppressed tokens and
sequences, and forbidden repetitions. (In transformers the decoder's start token counts among what may not be repeated, here not: it
differs only for models that write their start token.)

Beams equal `generate()` with `early_stopping` and `renormalize_logits`; other settings are decoded so too, and `approximations` says
what that changes. In beam search the length penalty also counts the decoder prefix, and forced tokens may change which beam wins.
`begin_suppress_tokens` and constraints are not offered: such a request fails. In int8 the weights are quantized per output channel, the
activations per token, so neighbours and padding change nothing but the order of sums.

Finished rows leave their batch and are not refilled: a batch lasts as long as its longest output. Threads share the weights and take
batches from one queue.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

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
from transforms.engine.ctranslate2_model import converted_model, default_cache_folder, open_translator
from transforms.engine.hardware import usable_cores
from transforms.engine.loading import check_folder, load_tokenizer, special_ids
from transforms.engine.profile import Profile
from transforms.engine.sources import Source, completion_of, finish_of, limits_of
from transforms.engine.tokens import SourceTokenizer

logger = logging.getLogger(__name__)

# Padded source tokens times beams per batch where the settings leave it open.
TOKENS_PER_BATCH = {"cpu": 4_096, "cuda": 65_536}

# CTranslate2's names for a dtype: weights and linear layers, then everything else.
_COMPUTE_TYPES = {"float32": "float32", "bfloat16": "bfloat16", "int8": "int8_float32"}


@dataclass(frozen=True, slots=True)
class _Source(Source):
    """`prefix`: what the decoder is given."""

    prefix: tuple[int, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Plan:
    """Decode settings, with `given`: tokens of the decoder prefix, which CTranslate2 counts as its output and which are no part of the
    completion; and `longest`: the most tokens that a completion may have."""

    decode: DecodeSettings
    given: int
    longest: int

    @property
    def forced_end(self) -> int | None:
        return self.decode.forced_eos_token_id


def approximations(decode: DecodeSettings) -> tuple[str, ...]:
    """Settings that this backend honours in its own way, each with what differs from transformers; () if none does."""
    found = []
    if decode.repetition_penalty != 1.0:
        found.append("repetition_penalty: the decoder's start token is not penalised, and in beam search logits are, not log probabilities")
    if decode.num_beams == 1:
        return tuple(found)
    if decode.early_stopping is not True:
        found.append(f"early_stopping: beam search ends as with true, not {str(decode.early_stopping).lower()}")
    masks = decode.min_new_tokens or decode.no_repeat_ngram_size or decode.suppress_tokens or decode.bad_words_ids
    if masks and not decode.renormalize_logits:
        found.append("renormalize_logits: beams are scored as with true")
    return tuple(found)


class CTranslate2Engine:
    """See the module. Raises EngineError if the folder, the architecture, the dtype or the device cannot be had."""

    def __init__(self, settings: EngineSettings) -> None:
        device = resolve_device(settings.device)
        dtype = resolve_dtype(settings.dtype, device, "ctranslate2")
        folder = Path(settings.model_folder)
        check_folder(folder)
        self._tokenizer = SourceTokenizer(load_tokenizer(folder))
        config = _configuration(folder)
        self._special = special_ids(SimpleNamespace(config=config, generation_config=_shipped_ids(folder)))
        self._ends = frozenset(self._special["eos_token_id"])
        self._vocabulary_size: int = config.vocab_size
        self._limits = limits_of(config, self._tokenizer)
        self._tokens_per_batch = settings.tokens_per_batch or TOKENS_PER_BATCH[device]
        self._identity = EngineIdentity("ctranslate2", settings.model_id or folder.name, settings.model_sha256, dtype, device)
        self._warned: set[str] = set()
        self.profile = Profile()
        cache = Path(settings.cache_folder) if settings.cache_folder else default_cache_folder()
        model = converted_model(folder, settings.model_sha256, _COMPUTE_TYPES[dtype], cache)
        lanes = settings.threads or (usable_cores() if device == "cpu" else 1)
        self._translator = open_translator(model, _COMPUTE_TYPES[dtype], device, lanes)

    @property
    def identity(self) -> EngineIdentity:
        return self._identity

    @property
    def max_source_tokens(self) -> int:
        return self._limits.source

    def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
        return self._tokenizer.tokenize(texts)

    def reset_profile(self) -> None:
        """Start to count anew. CTranslate2 tells no times of its own: `decode_seconds` is all of its work, encoding included."""
        self.profile = Profile()

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        completions: list[Completion | None] = [None] * len(requests)
        by_plan: dict[_Plan, list[_Source]] = {}
        for source in self._sources(requests, completions):
            by_plan.setdefault(self._plan(requests[source.index]), []).append(source)
        for plan, sources in by_plan.items():
            self._warn(plan.decode)
            started = time.perf_counter()
            for index, completion in self._complete(sources, plan):
                completions[index] = completion
            self.profile.add(Profile(decode_seconds=time.perf_counter() - started))
        return [completion for completion in completions if completion is not None]

    def _sources(self, requests: Sequence[Request], completions: list[Completion | None]) -> Iterator[_Source]:
        """Tokenised requests; a request that cannot be tokenised, or asks for what this backend lacks, fails at once."""
        encoded = self._tokenizer.encode([request.text for request in requests])
        for index, (request, ids) in enumerate(zip(requests, encoded, strict=True)):
            cause = type(ids).__name__ if isinstance(ids, Exception) else self._refusal(request, ids)
            if cause or isinstance(ids, Exception):
                completions[index] = Completion.failed(GENERATION_FAILED, cause)
            else:
                kept = ids[: self._limits.source]
                framed = tuple(self._tokenizer.with_specials(kept))
                yield _Source(index, framed, len(kept), len(ids) - len(kept), _given_tokens(request))

    def _refusal(self, request: Request, ids: list[int]) -> str:
        """The name of the exception that the request deserves, or an empty string. Unknown ids would silently become other tokens."""
        if request.constraint is not None or request.decode.begin_suppress_tokens:
            return "NotImplementedError"
        if not all(0 <= token < self._vocabulary_size for token in (*ids, *_given_tokens(request))):
            return "IndexError"
        return "" if len(request.decoder_prefix) < self._limits.target else "ValueError"

    def _plan(self, request: Request) -> _Plan:
        given = len(request.decoder_prefix)
        return _Plan(request.decode, given, min(request.decode.max_new_tokens, self._limits.target - given))

    def _warn(self, decode: DecodeSettings) -> None:
        for told in approximations(decode):
            if told not in self._warned:
                self._warned.add(told)
                logger.warning("ctranslate2 decodes in its own way; %s", told)

    def _complete(self, sources: list[_Source], plan: _Plan) -> Iterator[tuple[int, Completion]]:
        budget = max(1, self._tokens_per_batch // plan.decode.num_beams)
        batches = plan_batches([len(source.ids) for source in sources], budget)
        pending = [[sources[i] for i in batch] for batch in batches]
        while pending:
            # All are handed over before the first is waited for: the translator's threads take them from one queue.
            running = [(batch, self._start(batch, plan)) for batch in pending]
            pending = []
            for batch, started in running:
                completions = self._finish(batch, plan, started)
                if isinstance(completions, list):
                    yield from zip((source.index for source in batch), completions, strict=True)
                elif len(batch) == 1:
                    yield batch[0].index, completions
                else:
                    half = len(batch) // 2
                    pending += [batch[:half], batch[half:]]

    def _start(self, batch: list[_Source], plan: _Plan) -> list[Any] | Exception:
        prefixes = [_names(source.prefix) for source in batch]
        try:
            return self._translator.translate_batch(
                [_names(source.ids) for source in batch],
                prefixes if any(prefixes) else None,
                asynchronous=True,
                **_options(plan, self._special["eos_token_id"], self._vocabulary_size),
            )
        # Whatever a text provokes in the model stays with that text.
        except Exception as error:  # noqa: BLE001
            return error

    def _finish(self, batch: list[_Source], plan: _Plan, started: list[Any] | Exception) -> list[Completion] | Completion:
        """The batch's completions, or, if it failed, the failure that a batch of one would have to report."""
        try:
            if isinstance(started, Exception):
                raise started
            return self._completions(batch, plan, [future.result() for future in started])
        except Exception as error:  # noqa: BLE001 - as above
            failure = _failure(error)
        logger.warning("a batch of %d texts failed: %s (%s)", len(batch), failure.error, failure.cause)
        return failure

    def _completions(self, batch: list[_Source], plan: _Plan, results: list[Any]) -> list[Completion]:
        width = max(len(source.ids) for source in batch)
        if not all(result.hypotheses[0] for result in results):
            # With its end token, an output has at least one token; a source that was skipped has none.
            raise ValueError("no output")
        written = [[int(name) for name in result.hypotheses[0]][plan.given :] for result in results]
        rows = [self._ended(row, plan) for row in written]
        self.profile.add(_work(batch, rows, plan))
        texts = self._tokenizer.decode(rows)
        return [
            completion_of(source, row, text, _mean_logprob(result.scores[0], row, plan), self._reason(row, plan), width - len(source.ids))
            for source, row, text, result in zip(batch, rows, texts, results, strict=True)
        ]

    def _ended(self, row: list[int], plan: _Plan) -> list[int]:
        """With the forced end-of-sequence token, if there is one and the model did not end by itself."""
        if plan.forced_end is None or (row and row[-1] in self._ends):
            return row
        return [*row[: plan.longest - 1], plan.forced_end]

    def _reason(self, row: list[int], plan: _Plan) -> Literal["stop", "length"]:
        return finish_of(row, plan.longest, plan.forced_end is not None, self._special["eos_token_id"])


def _configuration(folder: Path) -> Any:
    try:
        return transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise EngineError(f"engine.model: the configuration in {str(folder)!r} does not load ({type(error).__name__})") from None


def _shipped_ids(folder: Path) -> Any:
    """The special tokens that the folder's generation_config.json names, if it has one."""
    if not (folder / "generation_config.json").is_file():
        return None
    return transformers.GenerationConfig.from_pretrained(folder, local_files_only=True)


def _names(ids: Sequence[int]) -> list[str]:
    return [str(token) for token in ids]


def _given_tokens(request: Request) -> tuple[int, ...]:
    """What the decoder starts from. As in transformers, the forced first token is forced only right after the start token."""
    forced = request.decode.forced_bos_token_id
    return request.decoder_prefix or (() if forced is None else (forced,))


def _options(plan: _Plan, ends: list[int], vocabulary_size: int) -> dict[str, Any]:
    """Decode settings by CTranslate2's names. Its lengths count the prefix; a forced end is put on afterwards, so it needs a place."""
    decode = plan.decode
    room = max(plan.longest - (plan.forced_end is not None), 1)
    return {
        "beam_size": decode.num_beams,
        # Greedy: 0, so that the score is the sum of the log probabilities.
        "length_penalty": decode.length_penalty if decode.num_beams > 1 else 0.0,
        "max_decoding_length": room + plan.given,
        "min_decoding_length": min(decode.min_new_tokens, room) + plan.given,
        "no_repeat_ngram_size": decode.no_repeat_ngram_size,
        "repetition_penalty": decode.repetition_penalty,
        "suppress_sequences": _suppressed(decode, ends, vocabulary_size) or None,
        "end_token": ends,
        "return_end_token": True,
        "return_scores": True,
        "max_input_length": 0,
    }


def _suppressed(decode: DecodeSettings, ends: list[int], vocabulary_size: int) -> list[list[str]]:
    """Tokens and sequences that are never written. As in transformers, a bad word that is an end-of-sequence token is let pass."""
    words: list[tuple[int, ...]] = [(token,) for token in decode.suppress_tokens]
    words += [word for word in decode.bad_words_ids if len(word) > 1 or word[0] not in ends]
    return [_names(word) for word in words if all(0 <= token < vocabulary_size for token in word)]


def _work(batch: list[_Source], rows: list[list[int]], plan: _Plan) -> Profile:
    """What one batch took, forced ends included."""
    width, steps = max(len(source.ids) for source in batch), max(map(len, rows))
    tokens, beams = sum(map(len, rows)), plan.decode.num_beams
    return Profile(
        encoded_tokens=width * len(batch),
        encoded_padding=width * len(batch) - sum(len(source.ids) for source in batch),
        steps=steps,
        row_steps=tokens * beams,
        idle_row_steps=(steps * len(rows) - tokens) * beams,
        cross_positions=width * tokens,
    )


def _mean_logprob(total: float, row: list[int], plan: _Plan) -> float | None:
    """Forced tokens count with probability 1, as in a softmax over what may come next."""
    if plan.decode.num_beams > 1 or not row:
        return None
    return 0.0 if plan.forced_end is not None and plan.longest == 1 else total / len(row)


def _failure(error: Exception) -> Completion:
    starved = isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "out of memory" in str(error))
    return Completion.failed(OUT_OF_MEMORY if starved else GENERATION_FAILED, type(error).__name__)
