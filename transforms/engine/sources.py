"""Requests to token ids, and generated ids to completions: what the backends that run transformers models share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch

from transforms.engine import DEADLINE, GENERATION_FAILED, OUT_OF_MEMORY, Completion, Request
from transforms.engine.constraint_machine import Reading
from transforms.engine.constraint_plan import Plan, Planner, plain_settings
from transforms.engine.deadline import DeadlineExceeded
from transforms.engine.tokens import SourceTokenizer

# Config keys that bound the source of models with absolute positions (`n_positions`: what T5 was trained with).
_SOURCE_LIMITS = ("max_encoder_position_embeddings", "max_position_embeddings", "n_positions")
_TARGET_LIMITS = ("max_decoder_position_embeddings", "max_position_embeddings")
# A tokenizer that knows no limit says 1e30.
_NO_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True)
class Source:
    """A tokenised request: its place in the call, its ids with special tokens, how many are the text's, and how many the limit cut off.
    `plan`: what its output has to be, if the request tells."""

    index: int
    ids: tuple[int, ...] = field(repr=False)
    tokens: int
    truncated: int
    plan: Plan | None = field(default=None, repr=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Limits:
    """`source`: tokens of a text, special tokens not counted. `target`: tokens that the decoder can come to."""

    source: int
    target: int


def limits_of(config: Any, tokenizer: SourceTokenizer) -> Limits:
    known = [getattr(config, key, None) for key in _SOURCE_LIMITS] + [tokenizer.model_limit]
    source = min((n for n in known if n and n < _NO_LIMIT), default=_NO_LIMIT)
    target = min((n for key in _TARGET_LIMITS if (n := getattr(config, key, None))), default=_NO_LIMIT)
    return Limits(source - tokenizer.special_count, target)


def settled(requests: Sequence[Request]) -> list[Request]:
    """The requests with the decode settings that hold: under a constraint not all do."""
    return [request if request.constraint is None else replace(request, decode=plain_settings(request.decode)) for request in requests]


def limit_of(request: Request, limits: Limits) -> int:
    """Most tokens to generate."""
    return min(request.decode.max_new_tokens, limits.target - len(request.decoder_prefix))


def read_sources(
    requests: Sequence[Request],
    tokenizer: SourceTokenizer,
    limits: Limits,
    completions: list[Completion | None],
    planner: Planner | None = None,
) -> Iterator[Source]:
    """Tokenised requests. One that cannot be tokenised, asks for what the backend lacks, or has a decoder prefix that leaves no position to
    generate at, gets its failed completion at once. `planner`: none where constraints are not offered."""
    encoded = tokenizer.encode([request.text for request in requests])
    for index, (request, ids) in enumerate(zip(requests, encoded, strict=True)):
        if isinstance(ids, Exception):
            completions[index] = Completion.failed(GENERATION_FAILED, type(ids).__name__)
        elif len(request.decoder_prefix) >= limits.target:
            completions[index] = Completion.failed(GENERATION_FAILED, "ValueError")
        else:
            kept = ids[: limits.source]
            try:
                plan = _plan(request, len(kept), limits, planner)
            except (NotImplementedError, TypeError, ValueError) as error:
                completions[index] = Completion.failed(GENERATION_FAILED, type(error).__name__)
                continue
            yield Source(index, tuple(tokenizer.with_specials(kept)), len(kept), len(ids) - len(kept), plan=plan)


def _plan(request: Request, tokens: int, limits: Limits, planner: Planner | None) -> Plan | None:
    if request.constraint is None:
        return None
    if planner is None:
        raise NotImplementedError
    return planner.plan(request.text, request.constraint, tokens, limit_of(request, limits))


def completion_of(
    source: Source,
    ids: Sequence[int],
    text: str,
    logprob: float | None,
    finish: Literal["stop", "length"],
    padded: int = 0,
    reading: Reading | None = None,
    token_logprobs: Sequence[float] = (),
) -> Completion:
    """`reading`: what the ids say under a constraint; then it also says whether the limit cut them off, and `token_logprobs` are kept."""
    if reading is not None:
        finish = "length" if reading.cut else "stop"
    values = reading.values if reading else ()
    return Completion(
        text=text,
        token_ids=tuple(ids),
        spans=tuple((value.start, value.end) for value in values if value.start is not None and value.end is not None),
        values=values,
        logprob=logprob,
        token_logprobs=tuple(token_logprobs),
        source_tokens=source.tokens,
        source_truncated=source.truncated > 0,
        finish=finish,
        truncated_tokens=source.truncated,
        padded_tokens=padded,
    )


def finish_of(ids: Sequence[int], limit: int, forced_eos: bool, eos_ids: Sequence[int]) -> Literal["stop", "length"]:
    """At the limit, a forced end-of-sequence token says nothing about whether the model was done."""
    return "length" if len(ids) >= limit and (forced_eos or ids[-1] not in eos_ids) else "stop"


def failure_of(error: Exception) -> Completion:
    """The failed completion for what a model raised: a reason and the exception's class, never its message."""
    if isinstance(error, DeadlineExceeded):
        return Completion.failed(DEADLINE, type(error).__name__)
    return Completion.failed(OUT_OF_MEMORY if ran_out_of_memory(error) else GENERATION_FAILED, type(error).__name__)


def ran_out_of_memory(error: Exception) -> bool:
    told = str(error)
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and ("can't allocate memory" in told or "ALLOC_FAILED" in told)
    )
