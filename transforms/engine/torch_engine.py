"""The torch backend: encoder-decoders by our own decode loop, with continuous refill, on CPU lanes or one CUDA device.

All requests are tokenised at once and wait in one queue, longest source first. Each lane, one thread with one core, encodes sources
without padding, keeps their cross-attention keys and values, and decodes its slots step by step; a finished request's slot goes to the
next one at once. Lanes share the packed weights. Families that the loop does not know are left to `model.generate()`, and a log line says
so when the engine is loaded.

Outputs with a constraint are decoded on a CPU only: the step of a GPU lane is a recorded graph and waits for no choice made outside it.

Only safetensors weights are loaded, only from a local folder, and no code that comes with a model is run.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from transforms.engine import (
    DRAFTS,
    Completion,
    DecodeSettings,
    Engine,
    EngineError,
    EngineIdentity,
    EngineSettings,
    Request,
    Tokenized,
    resolve_device,
    resolve_dtype,
)
from transforms.engine.architecture import is_native, pack
from transforms.engine.beams import BeamSearch
from transforms.engine.constraint_plan import Planner
from transforms.engine.draft import Drafter, StepCost
from transforms.engine.generate_engine import GenerateEngine
from transforms.engine.greedy import GreedySearch
from transforms.engine.hardware import usable_cores
from transforms.engine.loading import load_model, load_tokenizer, special_ids
from transforms.engine.profile import Profile
from transforms.engine.refill import Lane, Outcome
from transforms.engine.schedule import CPU_BYTES, Queue, Task, capacity_of, fitting_slots, slot_bytes
from transforms.engine.sources import (
    Source,
    completion_of,
    failure_of,
    finish_of,
    limit_of,
    limits_of,
    ran_out_of_memory,
    read_sources,
    settled,
)
from transforms.engine.static_lane import StaticLane
from transforms.engine.static_memory import device_slots, free_bytes
from transforms.engine.step_cost import measure_step_cost
from transforms.engine.tokens import SourceTokenizer

logger = logging.getLogger(__name__)


def load_torch_engine(settings: EngineSettings) -> Engine:
    """Our own loop, or `model.generate()` for a family that it does not know. Raises EngineError for what cannot be had."""
    device = resolve_device(settings.device)
    dtype = resolve_dtype(settings.dtype, device)
    model = load_model(Path(settings.model_folder), "float32" if dtype == "int8" else dtype)
    if is_native(model):
        return TorchEngine(settings, model)
    dtype = "float32" if dtype == "int8" else dtype
    logger.warning("models of the type %s are run by model.generate() in %s, without continuous refill", model.config.model_type, dtype)
    return GenerateEngine(replace(settings, dtype=dtype), model)


class TorchEngine:
    """See the module. `model`: loaded from the settings' folder in the dtype they resolve to (float32 for int8)."""

    def __init__(self, settings: EngineSettings, model: Any) -> None:
        if settings.draft not in DRAFTS:
            raise EngineError(f"engine.draft: {settings.draft!r} is not one of {', '.join(DRAFTS)}")
        folder = Path(settings.model_folder)
        device = resolve_device(settings.device)
        dtype = resolve_dtype(settings.dtype, device)
        self._tokenizer = SourceTokenizer(load_tokenizer(folder))
        self._identity = EngineIdentity("torch", settings.model_id or folder.name, settings.model_sha256, dtype, device)
        self._special = special_ids(model)
        self._limits = limits_of(model.config, self._tokenizer)
        with torch.inference_mode():
            self._model = pack(model.eval(), dtype, device)
        self._lanes = (settings.threads or usable_cores()) if device == "cpu" else 1
        self._slots = settings.slots
        self._text_seconds = settings.text_seconds
        self._drafts = settings.draft == "auto" and device == "cpu"
        self._step_cost: StepCost | None = None
        # A step on a GPU waits for nothing, least of all for a choice that is made here.
        self._planner = Planner(self._tokenizer, self._special["eos_token_id"], self._model.vocabulary) if device == "cpu" else None
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
        alike: dict[DecodeSettings, list[Source]] = {}
        for source in read_sources(requests, self._tokenizer, self._limits, completions, self._planner):
            alike.setdefault(_shared(requests[source.index].decode), []).append(source)
        for decode, sources in alike.items():
            tasks = [self._task(source, requests[source.index]) for source in sources]
            by_index = {source.index: source for source in sources}
            outcomes = self._run(tasks, decode)
            texts = self._tokenizer.decode([outcome.ids for outcome in outcomes])
            for outcome, text in zip(outcomes, texts, strict=True):
                completions[outcome.task.index] = self._completion(outcome, by_index[outcome.task.index], text, decode)
        return [completion for completion in completions if completion is not None]

    def _task(self, source: Source, request: Request) -> Task:
        prefix = (self._special["decoder_start_token_id"], *request.decoder_prefix)
        limit = limit_of(request, self._limits)
        return Task(source.index, source.ids, prefix, min(request.decode.min_new_tokens, limit), limit, source.plan)

    def _run(self, tasks: list[Task], decode: DecodeSettings) -> list[Outcome]:
        queue = Queue(tasks)
        count = max(1, min(self._lanes, len(tasks)))
        drafters = [self._drafter(decode) for _ in range(count)]
        try:
            lanes = [self._lane(tasks, decode, queue, count, drafter) for drafter in drafters]
        except Exception as error:  # noqa: BLE001 - memory for what somebody asks for may not be had
            return [Outcome(task, error=error) for task in tasks]
        with ThreadPoolExecutor(count, "lane") as pool:
            try:
                outcomes = [outcome for done in pool.map(_run_lane, lanes) for outcome in done]
            except BaseException:
                # Interrupted: leaving the pool waits for its lanes, and they could be at it for minutes.
                queue.close()
                raise
        for lane, drafter in zip(lanes, drafters, strict=True):
            self.profile.add(lane.profile)
            if drafter is not None:
                self.profile.add(Profile(drafted_tokens=drafter.drafted, kept_tokens=drafter.kept))
        return outcomes

    def _drafter(self, decode: DecodeSettings) -> Drafter | None:
        if not self._drafts or decode.num_beams > 1:
            return None
        if self._step_cost is None:
            self._step_cost = measure_step_cost(self._model)
        return Drafter(self._step_cost)

    def _lane(self, tasks: list[Task], decode: DecodeSettings, queue: Queue, count: int, drafter: Drafter | None) -> Lane | StaticLane:
        capacity = capacity_of(tasks)
        longest = max(len(task.ids) for task in tasks)
        slots = min(self._slots_for(longest, capacity, decode.num_beams, count), -(-len(tasks) // count))
        described = decode, self._special["eos_token_id"], slots, capacity, self._identity.device, any(task.minimum for task in tasks)
        search = GreedySearch(*described, drafter) if decode.num_beams == 1 else BeamSearch(*described)
        lane = StaticLane if self._identity.device == "cuda" else Lane
        return lane(self._model, queue, search, slots, capacity, self._free_memory, text_seconds=self._text_seconds)

    def _slots_for(self, longest: int, capacity: int, width: int, lanes: int) -> int:
        """Requests that decode at once in each lane, as far as memory holds."""
        if self._identity.device == "cuda":
            return device_slots(self._model, self._slots, longest, capacity, width, free_bytes())
        return fitting_slots(self._slots, width, slot_bytes(self._model, longest, capacity, width), CPU_BYTES // lanes)

    def _free_memory(self, error: Exception) -> bool:
        """Whether the error was a lack of memory; then what torch holds in reserve is given back."""
        starved = ran_out_of_memory(error)
        if starved and self._identity.device == "cuda":
            torch.cuda.empty_cache()
        logger.warning("a decode step failed: %s", type(error).__name__)
        return starved

    def _completion(self, outcome: Outcome, source: Source, text: str, decode: DecodeSettings) -> Completion:
        if outcome.error is not None:
            return failure_of(outcome.error)
        forced = decode.forced_eos_token_id is not None
        finish = finish_of(outcome.ids, outcome.task.limit, forced, self._special["eos_token_id"])
        logprob = outcome.found.score if decode.num_beams == 1 else None
        return completion_of(source, outcome.ids, text, logprob, finish, 0, outcome.reading, outcome.found.token_logprobs)


def _shared(decode: DecodeSettings) -> DecodeSettings:
    """What requests must have in common to decode side by side: all but the lengths."""
    return replace(decode, max_new_tokens=1, min_new_tokens=0)


@torch.inference_mode()
def _run_lane(lane: Lane | StaticLane) -> list[Outcome]:
    # Of this thread alone. Two lanes of one thread beat one lane of two: they never wait for each other.
    torch.set_num_threads(1)
    return list(lane.run())
