"""Lanes driven without an engine around them: requests in, generated ids out, beside the reference."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tests.near_ties import Reference, Tally
from tests.tiny_models import END, make_model, sentences
from transforms.engine import DecodeSettings, Request
from transforms.engine.architecture import Architecture, pack
from transforms.engine.beams import BeamSearch
from transforms.engine.greedy import GreedySearch
from transforms.engine.loading import load_model, load_tokenizer, special_ids
from transforms.engine.padded_encoder import PaddedEncoder
from transforms.engine.refill import Outcome
from transforms.engine.schedule import Queue, Task, capacity_of
from transforms.engine.sources import limits_of, ran_out_of_memory, read_sources
from transforms.engine.static_lane import StaticLane
from transforms.engine.static_memory import Spans, StaticMemory, decode, source_span
from transforms.engine.tokens import SourceTokenizer

# Sentences of each text: of many lengths, in no order, one empty, one over the tiny models' limit.
_COUNTS = (3, 1, 6, 0, 4, 2, 40, 5, 1, 2, 7, 3)
_POOL = sentences(sum(_COUNTS))
TEXTS = tuple(" ".join(_POOL[sum(_COUNTS[:i]) : sum(_COUNTS[: i + 1])]) for i in range(len(_COUNTS)))
# Every rule that looks at tokens or forces them.
RULES: dict[str, Any] = {
    "no_repeat_ngram_size": 2,
    "repetition_penalty": 1.3,
    "bad_words_ids": ((11,), (12, 13)),
    "forced_bos_token_id": 7,
    "forced_eos_token_id": END,
    "suppress_tokens": (9,),
    "begin_suppress_tokens": (30, 31),
    "renormalize_logits": True,
}


@dataclass(slots=True)
class Bench:
    """A tiny model on a device: its packed form, and what turns requests into tasks."""

    folder: Path
    dtype: str = "float32"
    device: str = "cpu"
    model: Architecture = field(init=False, repr=False)
    starved: list[bool] = field(default_factory=list)
    _loaded: Any = field(init=False, repr=False)
    _tokenizer: SourceTokenizer = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._loaded = load_model(self.folder, self.dtype).eval()
        self._tokenizer = SourceTokenizer(load_tokenizer(self.folder))
        with torch.inference_mode():
            self.model = pack(self._loaded, self.dtype, self.device)

    def tasks(self, requests: Sequence[Request]) -> list[Task]:
        start = special_ids(self._loaded)["decoder_start_token_id"]
        limits = limits_of(self._loaded.config, self._tokenizer)
        return [
            Task(source.index, source.ids, (start, *request.decoder_prefix), request.decode.min_new_tokens, request.decode.max_new_tokens)
            for source in read_sources(requests, self._tokenizer, limits, [None] * len(requests))
            for request in (requests[source.index],)
        ]

    def search(self, decode: DecodeSettings, slots: int, capacity: int) -> GreedySearch | BeamSearch:
        kind = GreedySearch if decode.num_beams == 1 else BeamSearch
        return kind(decode, [END], slots, capacity, self.device)

    def lane(self, tasks: Sequence[Task], decode: DecodeSettings, slots: int, kind: Callable[..., Any] = StaticLane, **options: Any) -> Any:
        capacity = capacity_of(tasks)
        search = options.pop("search", None) or self.search(decode, slots, capacity)
        return kind(self.model, Queue(tasks), search, slots, capacity, self.on_starved, **options)

    def on_starved(self, error: Exception) -> bool:
        self.starved.append(ran_out_of_memory(error))
        return self.starved[-1]

    def run(self, requests: Sequence[Request], slots: int = 3, **options: Any) -> list[Outcome]:
        tasks = self.tasks(requests)
        return outcomes(self.lane(tasks, requests[0].decode, slots, **options))


@torch.inference_mode()
def outcomes(lane: Any) -> list[Outcome]:
    """In the order of the requests."""
    return sorted(lane.run(), key=lambda outcome: outcome.task.index)


@torch.inference_mode()
def forced_errors(spot: Bench, positions: int = 10) -> tuple[float, float]:
    """Root mean square errors of our logits and of transformers' own for the same decoder tokens, against transformers in float64."""
    tasks = spot.tasks([Request(text) for text in TEXTS])
    generator = torch.Generator().manual_seed(0)
    tokens = torch.cat([torch.ones(len(tasks), 1), torch.randint(5, 100, (len(tasks), positions - 1), generator=generator)], 1).long()
    exact = copy.deepcopy(Bench(spot.folder)._loaded).double()
    truth, theirs = (_transformers_logits(model, tasks, tokens).double() for model in (exact, spot._loaded))
    mine = _static_logits(spot, tasks, tokens).double()
    return float((mine - truth).square().mean().sqrt()), float((theirs - truth).square().mean().sqrt())


def _transformers_logits(model: Any, tasks: Sequence[Task], tokens: torch.Tensor) -> torch.Tensor:
    rows = zip(tasks, tokens, strict=True)
    return torch.cat([model(input_ids=torch.tensor([task.ids]), decoder_input_ids=row[None]).logits for task, row in rows])


def _static_logits(spot: Bench, tasks: Sequence[Task], tokens: torch.Tensor) -> torch.Tensor:
    """Step by step, a slot for each task."""
    encoder, longest = PaddedEncoder(spot.model), max(len(task.ids) for task in tasks)
    memory = StaticMemory(spot.model, len(tasks), 1, longest, tokens.shape[1])
    for slot, task in enumerate(tasks):
        memory.fill(slot, encoder.project([task.ids])[0], len(task.ids))
    spans, steps = Spans(source_span(longest), memory.capacity), tokens.to(spot.device).unbind(1)
    places = [torch.full_like(step, position) for position, step in enumerate(steps)]
    return torch.stack([decode(spot.model, memory, step, at, spans) for step, at in zip(steps, places, strict=True)], 1).cpu()


def bench(family: str, folder: Path, **options: Any) -> Bench:
    return Bench(make_model(family, folder), **options)


def requests_of(style: dict[str, Any], count: int = len(TEXTS)) -> list[Request]:
    """Of many lengths, some with a prefix and some with a minimum."""
    return [
        Request(
            TEXTS[i % len(TEXTS)],
            DecodeSettings(**style, max_new_tokens=2 + i * 5 % 11, min_new_tokens=i % 3),
            decoder_prefix=((), (), (20,), (9, 21, 22))[i % 4],
        )
        for i in range(count)
    ]


def assert_right(reference: Reference, requests: Sequence[Request], done: Sequence[Outcome], tally: Tally) -> None:
    """Each request has one outcome, which agrees with `generate()`."""
    assert [outcome.task.index for outcome in done] == list(range(len(requests)))
    for request, outcome in zip(requests, done, strict=True):
        assert outcome.error is None, type(outcome.error).__name__
        tally.add(len(outcome.ids), reference.shortfall(request, outcome.ids))
