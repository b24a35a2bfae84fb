"""The engine on a CUDA device: `pytest -m gpu` where there is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.near_ties import Reference, first_difference
from tests.static_lanes import RULES, TEXTS, Bench, bench, forced_errors, outcomes, requests_of
from tests.tiny_models import FAMILIES
from transforms.engine import DecodeSettings, EngineSettings, Request, load_engine
from transforms.engine.refill import Lane, Outcome
from transforms.engine.static_lane import step
from transforms.engine.static_memory import Spans, StaticMemory, device_slots, free_bytes

pytestmark = [pytest.mark.gpu]

DEVICE = "cpu"
STYLES: tuple[dict[str, Any], ...] = ({}, RULES, {"num_beams": 3, **RULES}, {"num_beams": 4, "early_stopping": "never"})
IDS = ["greedy", "rules", "beams with rules", "beams"]

BenchOf = Callable[..., Bench]


@pytest.fixture(scope="module")
def bench_of(tmp_path_factory: pytest.TempPathFactory) -> BenchOf:
    folders: dict[str, Path] = {}

    def of(family: str, dtype: str = "float32", device: str = DEVICE) -> Bench:
        if family not in folders:
            folders[family] = bench(family, tmp_path_factory.mktemp(family)).folder
        return Bench(folders[family], dtype, device)

    return of


def refuse(one: Callable[[], None], pool: Any) -> Callable[[], None]:
    """A recorder that leaves every step eager."""
    raise RuntimeError("not recorded")


def written(done: list[Outcome]) -> list[list[int]]:
    assert not [outcome.error for outcome in done if outcome.error]
    return [outcome.ids for outcome in done]


@pytest.mark.parametrize("style", STYLES, ids=IDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_float32_equals_generate(family: str, style: dict[str, Any], bench_of: BenchOf) -> None:
    """But where two tokens all but tie: sums are added up in another order than on the reference's CPU."""
    spot, requests = bench_of(family), requests_of(style)
    reference = Reference(spot.folder)
    answers = [reference.answer(request).token_ids for request in requests]
    others = [ids for ids, answer in zip(written(spot.run(requests)), answers, strict=True) if first_difference(ids, answer) is not None]
    assert len(others) <= 1


@pytest.mark.parametrize("style", STYLES, ids=IDS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_graph_gives_what_its_steps_give(dtype: str, style: dict[str, Any], bench_of: BenchOf) -> None:
    spot, requests = bench_of("t5", dtype), requests_of(style)
    lane = spot.lane(spot.tasks(requests), requests[0].decode, 3)
    recorded = written(outcomes(lane))
    assert lane.graphs > 0
    assert recorded == written(spot.run(requests, recorder=refuse))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("dtype", "room"), [("float32", 10), ("bfloat16", 1.3)])
def test_logits_are_near_the_truth(dtype: str, room: float, family: str, bench_of: BenchOf) -> None:
    mine, theirs = forced_errors(bench_of(family, dtype))
    assert 0 < mine < room * theirs


@pytest.mark.parametrize("style", STYLES, ids=IDS)
def test_a_step_never_waits_for_the_device(style: dict[str, Any], bench_of: BenchOf) -> None:
    spot = bench_of("bart")
    search = spot.search(DecodeSettings(**style), slots := 4, 20)
    memory, groups = StaticMemory(spot.model, slots, search.width, 100, 20), torch.arange(slots, device=DEVICE)
    for slot in range(slots):
        search.start(slot, (2,), 0, 9)
    with torch.inference_mode():
        step(spot.model, memory, search, groups, Spans(64, 64))
        torch.cuda.set_sync_debug_mode("error")
        try:
            step(spot.model, memory, search, groups, Spans(64, 64))
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("style", STYLES[::2], ids=IDS[::2])
def test_the_lane_for_cpus_gives_the_same(style: dict[str, Any], bench_of: BenchOf) -> None:
    requests = requests_of(style)
    mine, theirs = written(bench_of("marian").run(requests)), written(bench_of("marian", device="cpu").run(requests, kind=Lane))
    assert sum(one != other for one, other in zip(mine, theirs, strict=True)) <= 1


@pytest.fixture
def little_memory() -> Iterator[None]:
    """What is reserved now and 192 MiB more: enough for the libraries' workspaces and a few hundred slots."""
    torch.cuda.empty_cache()
    most = torch.cuda.memory_reserved() + (192 << 20)
    torch.cuda.set_per_process_memory_fraction(most / torch.cuda.mem_get_info()[1])
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("style", STYLES[::2], ids=IDS[::2])
def test_too_little_memory_halves_the_slots(style: dict[str, Any], bench_of: BenchOf) -> None:
    spot, requests = bench_of("bart"), requests_of(style)
    few = written(spot.run(requests, slots=3))
    lane = spot.lane(spot.tasks(requests), requests[0].decode, 4_096)
    assert written(outcomes(lane)) == few
    assert 1 <= lane.slots < 4_096


def test_slots_that_are_promised_fit(bench_of: BenchOf) -> None:
    spot, requests = bench_of("t5"), requests_of({})
    slots = device_slots(spot.model, None, 160, 20, 1, free_bytes())
    lane = spot.lane(spot.tasks(requests), requests[0].decode, slots)
    written(outcomes(lane))
    assert lane.slots == slots


def test_memory_goes_with_the_lane(bench_of: BenchOf) -> None:
    spot, requests = bench_of("bart"), requests_of({})
    spot.run(requests, slots=50)
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        spot.run(requests, slots=50)
    assert torch.cuda.memory_allocated() <= before


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_engine_answers_in_order_whatever_is_asked(dtype: str, bench_of: BenchOf) -> None:
    folder = bench_of("bart").folder
    engine = load_engine(EngineSettings(backend="torch", model_folder=str(folder), device=DEVICE, dtype=dtype, slots=4))
    requests = requests_of({"no_repeat_ngram_size": 2})
    bad = Request(TEXTS[0], DecodeSettings(max_new_tokens=4), decoder_prefix=(10**6,))
    expected = engine.generate(requests)
    assert engine.identity.device == "cuda"
    assert engine.generate([*requests[:3], bad, *requests[3:]])[4:] == expected[3:]
    assert [completion.token_ids for completion in engine.generate(requests[::-1])[::-1]] == [answer.token_ids for answer in expected]
