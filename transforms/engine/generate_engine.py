"""The generate backend: transformers' own `model.generate()` over batches of sources of like length, for any
`AutoModelForSeq2SeqLM` folder.

All requests are tokenised at once, sorted by length and cut into batches by a budget of padded tokens; the answers go back to the order of
the requests. A batch that fails is halved until the culprit stands alone, so one bad text spoils no neighbour. A batch lasts as long as its
longest output. The `torch` backend takes its place for the families that it does not run itself.
"""

from __future__ import annotations

import gc
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import transformers

from transforms.engine import (
    OUT_OF_MEMORY,
    Completion,
    DecodeSettings,
    EngineIdentity,
    EngineSettings,
    Request,
    Tokenized,
    resolve_device,
    resolve_dtype,
)
from transforms.engine.batching import plan_batches
from transforms.engine.constraint_choice import ConstraintProcessor
from transforms.engine.constraint_machine import Reading
from transforms.engine.constraint_plan import Planner
from transforms.engine.deadline import Stopwatch
from transforms.engine.loading import load_model, load_tokenizer, special_ids
from transforms.engine.profile import Profile
from transforms.engine.sources import Source, completion_of, failure_of, finish_of, limits_of, read_sources, settled
from transforms.engine.tokens import SourceTokenizer

logger = logging.getLogger(__name__)

# Padded source tokens times beams per batch where the settings leave it open.
TOKENS_PER_BATCH = {"cpu": 8_192, "cuda": 131_072}


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


class _Watch(transformers.StoppingCriteria):  # type: ignore[misc]
    """Stops nothing, but raises DeadlineExceeded between the steps of a batch that takes too long."""

    def __init__(self, seconds: float | None) -> None:
        self._watch = Stopwatch(seconds)
        self._watch.start(0)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        self._watch.check()
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


class GenerateEngine:
    """See the module. Raises EngineError if the folder, the dtype or the device cannot be had. `model`: already loaded from the folder.

    `int8` is not offered: transformers has no such linear layers on a CPU; `auto` means float32 there.
    """

    def __init__(self, settings: EngineSettings, model: Any = None) -> None:
        device = resolve_device(settings.device)
        dtype = resolve_dtype(settings.dtype, device, "generate")
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        folder = Path(settings.model_folder)
        self._model = (load_model(folder, dtype) if model is None else model.to(getattr(torch, dtype))).to(device).eval()
        self._tokenizer = SourceTokenizer(load_tokenizer(folder))
        self._identity = EngineIdentity("generate", settings.model_id or folder.name, settings.model_sha256, dtype, device)
        self._tokens_per_batch = settings.tokens_per_batch or TOKENS_PER_BATCH[device]
        self._text_seconds = settings.text_seconds
        self._special = special_ids(self._model)
        # What a checkpoint ships must not fill in what a request leaves at its default: keep the special tokens only.
        self._model.generation_config = transformers.GenerationConfig(**self._special)
        self._limits = limits_of(self._model.config, self._tokenizer)
        scored = self._model.get_output_embeddings().weight.shape[0]
        self._planner = Planner(self._tokenizer, self._special["eos_token_id"], scored)
        self.profile = Profile()

    @property
    def identity(self) -> EngineIdentity:
        return self._identity

    @property
    def max_source_tokens(self) -> int:
        return self._limits.source

    def reset_profile(self) -> None:
        self.profile = Profile()

    def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
        return self._tokenizer.tokenize(texts)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        requests = settled(requests)
        completions: list[Completion | None] = [None] * len(requests)
        alike: dict[tuple[DecodeSettings, tuple[int, ...]], list[Source]] = {}
        for source in read_sources(requests, self._tokenizer, self._limits, completions, self._planner):
            request = requests[source.index]
            alike.setdefault((request.decode, request.decoder_prefix), []).append(source)
        for (decode, prefix), sources in alike.items():
            for index, completion in self._complete(sources, decode, prefix):
                completions[index] = completion
        return [completion for completion in completions if completion is not None]

    def _complete(self, sources: list[Source], decode: DecodeSettings, prefix: tuple[int, ...]) -> Iterator[tuple[int, Completion]]:
        budget = max(1, self._tokens_per_batch // decode.num_beams)
        plan = plan_batches([len(source.ids) for source in sources], budget)
        pending = deque([sources[i] for i in batch] for batch in plan)
        while pending:
            batch = pending.popleft()
            completions = self._attempt(batch, decode, prefix)
            if isinstance(completions, list):
                yield from zip((source.index for source in batch), completions, strict=True)
            elif len(batch) == 1:
                yield batch[0].index, completions
            else:
                half = len(batch) // 2
                pending.extendleft((batch[half:], batch[:half]))

    def _attempt(self, batch: list[Source], decode: DecodeSettings, prefix: tuple[int, ...]) -> list[Completion] | Completion:
        """The batch's completions, or, if it fails, the failure that a batch of one would have to report."""
        try:
            return self._decode(batch, decode, prefix)
        # Whatever a text provokes in the model stays with that text.
        except Exception as error:  # noqa: BLE001
            failure = failure_of(error)
        # Out of the handler: only now is the traceback gone, and with it the tensors that it held.
        if failure.error == OUT_OF_MEMORY and self._identity.device == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
        logger.warning("a batch of %d texts failed: %s (%s)", len(batch), failure.error, failure.cause)
        return failure

    @torch.inference_mode()
    def _decode(self, batch: list[Source], decode: DecodeSettings, prefix: tuple[int, ...]) -> list[Completion]:
        width = max(len(source.ids) for source in batch)
        input_ids = torch.full((len(batch), width), self._special["pad_token_id"])
        attention_mask = torch.zeros((len(batch), width), dtype=torch.long)
        for row, source in enumerate(batch):
            input_ids[row, : len(source.ids)] = torch.tensor(source.ids)
            attention_mask[row, : len(source.ids)] = 1
        device = self._identity.device
        config = generation_config(decode, self._special, self._limits.target - len(prefix))
        meter = _LogprobMeter()
        plans = [source.plan for source in batch]
        constraint = [ConstraintProcessor(plans, 1 + len(prefix), config.num_beams)] if any(plans) else []
        given = torch.tensor([[self._special["decoder_start_token_id"], *prefix]] * len(batch))
        output = self._model.generate(
            input_ids=input_ids.to(device),
            attention_mask=attention_mask.to(device),
            decoder_input_ids=given.to(device),
            generation_config=config,
            stopping_criteria=[_Watch(self._text_seconds)],
            logits_processor=[*constraint, *([meter] if config.num_beams == 1 else [])] or None,
        ).cpu()
        # The first columns are what the decoder was given, which may look like an end.
        rows = [self._trimmed(row) for row in output[:, given.shape[1] :].tolist()]
        readings = [plan.close(row) if plan else None for plan, row in zip(plans, rows, strict=True)]
        gains = _token_logprobs(meter, rows)
        texts = self._tokenizer.decode(rows)
        forced, ends = config.forced_eos_token_id is not None, self._special["eos_token_id"]
        return [
            self._completion(source, row, text, finish_of(row, config.max_new_tokens, forced, ends), width, reading, gained)
            for source, row, text, reading, gained in zip(batch, rows, texts, readings, gains, strict=True)
        ]

    def _completion(
        self,
        source: Source,
        row: list[int],
        text: str,
        finish: Literal["stop", "length"],
        width: int,
        reading: Reading | None,
        gained: list[float],
    ) -> Completion:
        """`gained`: the log probability of each token of the row; empty for beams."""
        count = max(1, reading.chosen) if reading else len(row)
        logprob = sum(gained) / count if gained and row else None
        return completion_of(source, row, text, logprob, finish, width - len(source.ids), reading, gained if reading else ())

    def _trimmed(self, row: list[int]) -> list[int]:
        """The row up to and with its first end-of-sequence token; what follows is filling."""
        ends = self._special["eos_token_id"]
        return row[: next((i + 1 for i, token in enumerate(row) if token in ends), len(row))]


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


def _token_logprobs(meter: _LogprobMeter, rows: list[list[int]]) -> list[list[float]]:
    """Of each token of each row; empty where nothing was noted."""
    if not meter.steps:
        return [[] for _ in rows]
    steps = torch.stack(meter.steps).cpu()
    return [steps[: len(row), i].tolist() for i, row in enumerate(rows)]
