"""What goes wrong in the lane for GPUs, on a CPU: requests that fail, memory that runs out, numbers that are none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.near_ties import Reference, Tally
from tests.static_lanes import TEXTS, Bench, assert_right, bench, outcomes, requests_of
from transforms.engine import DecodeSettings, Request
from transforms.engine import static_lane as module
from transforms.engine.greedy import GreedySearch
from transforms.engine.padded_encoder import PaddedEncoder
from transforms.engine.static_memory import Spans, StaticMemory

BenchOf = Callable[[str], Bench]
ReferenceOf = Callable[[str], Reference]


@pytest.fixture(scope="module")
def bench_of(tmp_path_factory: pytest.TempPathFactory) -> BenchOf:
    kept = {family: bench(family, tmp_path_factory.mktemp(family)) for family in ("bart", "t5")}
    return kept.__getitem__


@pytest.fixture(scope="module")
def reference_of(bench_of: BenchOf) -> ReferenceOf:
    kept = {family: Reference(bench_of(family).folder) for family in ("bart", "t5")}
    return kept.__getitem__


@pytest.fixture(scope="module")
def tally() -> Any:
    counted = Tally()
    yield counted
    counted.check()


class Breaking(GreedySearch):
    """Fails at every step in which a request with this prefix takes part."""

    poison = 77
    poisoned: frozenset[int] = frozenset()

    def start(self, group: int, prefix: Any, minimum: int, limit: int) -> None:
        super().start(group, prefix, minimum, limit)
        self.poisoned = self.poisoned | {group} if self.poison in prefix else self.poisoned - {group}

    def inputs(self, groups: torch.Tensor) -> torch.Tensor:
        if self.poisoned:
            raise LookupError("what a library says may quote the text")
        return super().inputs(groups)


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_a_request_that_fails_takes_none_with_it(slots: int, bench_of: BenchOf, reference_of: ReferenceOf, tally: Tally) -> None:
    spot, decode = bench_of("bart"), DecodeSettings(max_new_tokens=6)
    requests = [Request(text, decode, decoder_prefix=(Breaking.poison,) if i == 5 else ()) for i, text in enumerate(TEXTS)]
    done = spot.run(requests, slots, search=Breaking(decode, [2], slots, 20), check_every=2)
    assert isinstance(done[5].error, LookupError)
    assert done[5].ids == []
    good = [outcome for outcome in done if outcome.task.index != 5]
    assert len(good) == len(TEXTS) - 1
    for outcome in good:
        request = requests[outcome.task.index]
        tally.add(len(outcome.ids), reference_of("bart").shortfall(request, outcome.ids))


def test_a_token_that_the_model_lacks_never_reaches_the_device(bench_of: BenchOf) -> None:
    spot, decode = bench_of("bart"), DecodeSettings(max_new_tokens=3)
    fit, *others = spot.tasks([Request(TEXTS[1], decode)] * 7)
    prefixes, sources = ((10**6,), (-5,), (9,) * 170), ((10**6,), (5,) * 170, ())
    unfit = [replace(task, prefix=prefix) for task, prefix in zip(others[:3], prefixes, strict=True)]
    unfit += [replace(task, ids=ids) for task, ids in zip(others[3:], sources, strict=True)]
    done = outcomes(spot.lane([*unfit, fit], decode, 2))
    assert done[0].ids
    assert [type(outcome.error) for outcome in done[1:]] == [IndexError] * 6


class Short(StaticMemory):
    """Memory for two slots and no more."""

    def __init__(self, model: Any, slots: int, *rest: int) -> None:
        if slots > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        super().__init__(model, slots, *rest)


@pytest.mark.parametrize("style", [{}, {"num_beams": 2}], ids=["greedy", "beams"])
def test_too_little_memory_for_the_slots_halves_them(
    style: dict[str, Any], bench_of: BenchOf, reference_of: ReferenceOf, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "StaticMemory", Short)
    requests, spot = requests_of(style), bench_of("t5")
    lane = spot.lane(spot.tasks(requests), requests[0].decode, 9)
    assert_right(reference_of("t5"), requests, outcomes(lane), tally)
    assert lane.slots == 2
    assert spot.starved[-2:] == [True, True]


def test_memory_that_runs_out_in_a_step_halves_the_slots(bench_of: BenchOf, reference_of: ReferenceOf, tally: Tally) -> None:
    """All that was under way begins anew."""
    left = [7]

    def recorder(one: Callable[[], None], pool: Any) -> Callable[[], None]:
        def replay() -> None:
            left[0] -= 1
            if not left[0]:
                raise torch.OutOfMemoryError("CUDA out of memory")
            one()

        return replay

    requests, spot = requests_of({}), bench_of("t5")
    lane = spot.lane(spot.tasks(requests), requests[0].decode, 4, recorder=recorder)
    assert_right(reference_of("t5"), requests, outcomes(lane), tally)
    assert lane.slots == 2


def test_memory_that_never_suffices_fails_each_request(bench_of: BenchOf) -> None:
    def recorder(one: Callable[[], None], pool: Any) -> Callable[[], None]:
        raise torch.OutOfMemoryError("CUDA out of memory")

    decode = DecodeSettings(max_new_tokens=9, min_new_tokens=9)
    done = bench_of("t5").run([Request(text, decode) for text in TEXTS], 4, recorder=recorder)
    assert [type(outcome.error) for outcome in done] == [torch.OutOfMemoryError] * len(TEXTS)


def test_sources_too_many_for_one_pass_are_encoded_in_parts(
    bench_of: BenchOf, reference_of: ReferenceOf, tally: Tally, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = PaddedEncoder.project

    def project(encoder: PaddedEncoder, sources: Any) -> torch.Tensor:
        if len(sources) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return whole(encoder, sources)

    monkeypatch.setattr(PaddedEncoder, "project", project)
    requests = requests_of({})
    assert_right(reference_of("bart"), requests, bench_of("bart").run(requests, pass_tokens=500), tally)


def test_what_is_no_number_stays_in_its_request(bench_of: BenchOf) -> None:
    """A slot whose last source or past was none computes as a new one does."""
    spot = bench_of("t5")
    used, new = (StaticMemory(spot.model, 2, 1, 100, 20) for _ in range(2))
    shape = (len(spot.model.decoder_layers), 2, spot.model.heads, 96, spot.model.head_width)
    for memory, before in ((used, torch.full(shape, float("nan"))), (new, torch.zeros(shape))):
        memory.fill(0, before, 96)
        module.step(spot.model, memory, spot.search(DecodeSettings(), 2, 20), torch.arange(2), Spans(128, 64))
        memory.fill(0, torch.ones(shape)[..., :16, :], 10)
        memory.fill(1, torch.ones(shape)[..., :16, :], 10)
    tokens, at, spans = torch.tensor([5, 5]), torch.tensor([0, 0]), Spans(128, 64)
    mine, other = (module.decode(spot.model, memory, tokens, at, spans) for memory in (used, new))
    assert torch.isfinite(mine).all()
    assert torch.equal(mine, other)
