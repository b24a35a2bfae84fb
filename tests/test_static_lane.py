"""The lane for GPUs, on a CPU: the same code but for the recording of graphs."""

from __future__ import annotations

import gc
import logging
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from tests.near_ties import Reference, Tally
from tests.static_lanes import RULES, TEXTS, Bench, assert_right, bench, forced_errors, outcomes, requests_of
from tests.tiny_models import FAMILIES, VARIANTS, mostly_slow
from transforms.engine import DecodeSettings
from transforms.engine import static_lane as module
from transforms.engine.cuda_graph import WARM_UP, StepGraphs
from transforms.engine.padded_encoder import PaddedEncoder, alike
from transforms.engine.refill import Lane
from transforms.engine.schedule import Queue
from transforms.engine.static_lane import StaticLane, step
from transforms.engine.static_memory import Spans, StaticMemory, device_slots, own_span, source_span

NATIVE = FAMILIES + VARIANTS
STYLES: tuple[dict[str, Any], ...] = (
    {},
    RULES,
    {"no_repeat_ngram_size": 2},
    {"num_beams": 2, "length_penalty": 2.0, "early_stopping": True},
    {"num_beams": 3, **RULES},
    {"num_beams": 4, "early_stopping": "never", "no_repeat_ngram_size": 3},
)
IDS = [f"{style.get('num_beams', 1)} of {len(style)}" for style in STYLES]

BenchOf = Callable[..., Bench]
ReferenceOf = Callable[..., Reference]


@pytest.fixture(scope="module")
def bench_of(tmp_path_factory: pytest.TempPathFactory) -> BenchOf:
    kept: dict[tuple[str, str], Bench] = {}

    def of(family: str, dtype: str = "float32", device: str = "cpu") -> Bench:
        if (family, "float32") not in kept:
            kept[family, "float32"] = bench(family, tmp_path_factory.mktemp(family))
        if (family, dtype + device) not in kept:
            kept[family, dtype + device] = Bench(kept[family, "float32"].folder, dtype, device)
        return kept[family, dtype + device]

    return of


@pytest.fixture(scope="module")
def reference_of(bench_of: BenchOf) -> ReferenceOf:
    kept: dict[tuple[str, str], Reference] = {}

    def of(family: str, dtype: str = "float32") -> Reference:
        if (family, dtype) not in kept:
            kept[family, dtype] = Reference(bench_of(family).folder, dtype)
        return kept[family, dtype]

    return of


@pytest.fixture(scope="module")
def tally() -> Any:
    counted = Tally()
    yield counted
    counted.check()


# The same answers.


@pytest.mark.parametrize("family", mostly_slow(NATIVE))
def test_every_family_equals_generate(family: str, bench_of: BenchOf, reference_of: ReferenceOf, tally: Tally) -> None:
    for number, style in enumerate((STYLES[1], STYLES[5])):
        requests = requests_of(style)[number::3]
        assert_right(reference_of(family), requests, bench_of(family).run(requests), tally)


@settings(deadline=None, derandomize=True, phases=[Phase.generate], max_examples=4)
@given(
    family=st.sampled_from(FAMILIES),
    style=st.sampled_from(STYLES),
    slots=st.sampled_from((1, 2, 5)),
    check_every=st.integers(1, 5),
    pass_tokens=st.sampled_from((1, 90, 400)),
    order=st.permutations(range(len(TEXTS))),
    count=st.integers(1, len(TEXTS)),
)
def test_neither_slots_nor_order_nor_late_looks_change_an_answer(
    family: str,
    style: dict[str, Any],
    slots: int,
    check_every: int,
    pass_tokens: int,
    order: list[int],
    count: int,
    bench_of: BenchOf,
    reference_of: ReferenceOf,
    tally: Tally,
) -> None:
    requests = [requests_of(style)[i] for i in order[:count]]
    done = bench_of(family).run(requests, slots, check_every=check_every, pass_tokens=pass_tokens)
    assert_right(reference_of(family), requests, done, tally)


@pytest.mark.parametrize("style", STYLES, ids=IDS)
@pytest.mark.parametrize("family", mostly_slow(["bart", "t5"], ["bart"]))
def test_it_gives_what_the_lane_for_cpus_gives(family: str, style: dict[str, Any], bench_of: BenchOf) -> None:
    requests = requests_of(style)
    static, plain = (bench_of(family).run(requests, kind=kind) for kind in (StaticLane, Lane))
    for mine, other in zip(static, plain, strict=True):
        assert (mine.task, mine.ids) == (other.task, other.ids)
        assert mine.found.score == pytest.approx(other.found.score, abs=1e-4)


@pytest.mark.parametrize("family", mostly_slow(FAMILIES))
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_logits_are_as_near_to_the_truth_as_transformers_own(family: str, dtype: str, bench_of: BenchOf) -> None:
    """In bfloat16 tokens cannot be compared: these models' logits are off by whole units there, whoever adds them up."""
    mine, theirs = forced_errors(bench_of(family, dtype))
    assert 0 < mine < 1.2 * theirs


@pytest.mark.parametrize("style", [STYLES[0], STYLES[3]], ids=["greedy", "beams"])
def test_bfloat16_answers_every_request(style: dict[str, Any], bench_of: BenchOf) -> None:
    done = bench_of("t5", "bfloat16").run(requests := requests_of(style))
    assert [outcome.task.index for outcome in done] == list(range(len(requests)))
    assert all(outcome.ids for outcome in done)


@pytest.mark.parametrize("style", [STYLES[1], STYLES[5]], ids=["greedy", "beams"])
def test_a_lane_serves_one_queue_after_another(style: dict[str, Any], bench_of: BenchOf, reference_of: ReferenceOf, tally: Tally) -> None:
    """With the memory that it has, until a longer source comes."""
    requests, spot = requests_of(style), bench_of("marian")
    tasks = sorted(spot.tasks(requests), key=lambda task: len(task.ids))
    lane = spot.lane(tasks, requests[0].decode, 2)
    done = []
    for queue in (Queue(tasks[:4]), Queue(tasks[4:6]), Queue(tasks[6:])):
        lane.serve(queue)
        done += outcomes(lane)
        assert lane.profile.steps > 0
    assert_right(reference_of("marian"), requests, sorted(done, key=lambda outcome: outcome.task.index), tally)


# Steps that a graph can hold.

# Operations whose result the host must see before it can go on.
_WAITING = (
    "_local_scalar_dense",
    "nonzero",
    "masked_select",
    "unique",
    "equal.default",
    "is_nonzero",
    "lift_fresh",
    "repeat_interleave.Tensor",
)


class Watch(TorchDispatchMode):
    """Notes what a graph could not hold. The meta device stands for the GPU: it has no numbers to show to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.faults: set[str] = set()
        self.operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [leaf for leaf in torch.utils._pytree.tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
        if any(tensor.device.type != "meta" for tensor in tensors) or any(name in str(func) for name in _WAITING):
            self.faults.add(str(func))
        self.operations += 1
        return result


@pytest.mark.parametrize("style", STYLES, ids=IDS)
@pytest.mark.parametrize("family", mostly_slow(["bart", "t5", "mt5"], ["bart"]))
def test_a_step_never_waits_for_the_device(family: str, style: dict[str, Any], bench_of: BenchOf) -> None:
    spot = bench_of(family, device="meta")
    search = spot.search(DecodeSettings(**style), slots := 4, 20)
    memory, groups = StaticMemory(spot.model, slots, search.width, 100, 20), torch.arange(slots, device="meta")
    # Not in inference mode, where composed operations stay whole.
    with torch.no_grad():
        # Rules are laid out at the first step.
        step(spot.model, memory, search, groups, Spans(64, 64))
        with Watch() as watch:
            step(spot.model, memory, search, groups, Spans(128, 64))
    assert watch.operations > 100
    assert not watch.faults


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_sources_are_encoded_on_the_device(family: str, bench_of: BenchOf) -> None:
    """Nothing on the way to the slots stays on the host."""
    spot = bench_of(family, device="meta")
    projected = PaddedEncoder(spot.model).project([(5,) * 20, (6,) * 17])
    StaticMemory(spot.model, 3, 2, 20, 9).fill(1, projected[1], 17)
    assert projected.device.type == "meta"
    assert projected.shape == (2, len(spot.model.decoder_layers), 2, spot.model.heads, 32, spot.model.head_width)


def test_the_watch_sees_a_host_that_looks() -> None:
    with pytest.raises(RuntimeError), Watch() as watch:
        torch.ones(2, device="meta").sum().item()
    assert watch.operations
    with Watch() as watch:
        torch.zeros(2, device="meta") + torch.zeros((), device="cpu")
    assert watch.faults


def test_steps_are_recorded_once_they_are_warm(bench_of: BenchOf, reference_of: ReferenceOf, tally: Tally) -> None:
    """The recorder stands for CUDA's: it runs nothing when it records, and the step when it replays."""
    recorded: list[int] = []

    def recorder(one: Callable[[], None], pool: Any) -> Callable[[], None]:
        recorded.append(0)
        number = len(recorded) - 1

        def replay() -> None:
            recorded[number] += 1
            one()

        return replay

    requests, spot = requests_of({"num_beams": 2}), bench_of("bart")
    lane = spot.lane(spot.tasks(requests), requests[0].decode, 2, recorder=recorder, check_every=3)
    assert_right(reference_of("bart"), requests, outcomes(lane), tally)
    assert 1 < len(recorded) == lane.graphs <= 3
    eager = lane.profile.steps - sum(recorded)
    assert eager <= WARM_UP * 3


def test_what_cannot_be_recorded_runs_eagerly(
    bench_of: BenchOf, reference_of: ReferenceOf, tally: Tally, caplog: pytest.LogCaptureFixture
) -> None:
    def recorder(one: Callable[[], None], pool: Any) -> Callable[[], None]:
        raise RuntimeError("not while the stream is capturing")

    requests = requests_of({})
    with caplog.at_level(logging.WARNING):
        assert_right(reference_of("t5"), requests, bench_of("t5").run(requests, recorder=recorder), tally)
    assert [record.getMessage() for record in caplog.records] == ["decode steps run without a CUDA graph: RuntimeError"]


def test_each_shape_has_its_own_graph() -> None:
    runs: list[object] = []
    graphs = StepGraphs(runs.append, lambda one, pool: lambda: runs.append("replayed"))
    for key in "aabaabbb":
        graphs(key)
    assert runs == ["a", "a", "b", "replayed", "replayed", "b", "replayed", "replayed"]
    assert graphs.recorded == 2


# What it costs.


def test_profile_counts_what_was_computed(bench_of: BenchOf) -> None:
    requests, spot = requests_of({}), bench_of("bart")
    tasks = spot.tasks(requests)
    lane = spot.lane(tasks, requests[0].decode, 3)
    done = outcomes(lane)
    profile = lane.profile
    assert profile.encoded_tokens - profile.encoded_padding == sum(len(ids) for ids in {task.ids for task in tasks})
    assert profile.row_steps == sum(len(outcome.ids) + len(outcome.task.prefix) - 1 for outcome in done)
    assert profile.idle_row_steps == 0
    assert profile.row_steps + profile.drained_row_steps == 3 * profile.steps
    assert 3 * 64 * profile.steps <= profile.cross_positions <= 3 * 192 * profile.steps
    assert min(profile.encode_seconds, profile.decode_seconds, profile.schedule_seconds) > 0


def test_late_looks_cost_a_few_steps_for_each_request(bench_of: BenchOf) -> None:
    requests, spot = requests_of({}), bench_of("bart")
    steps = []
    for check_every in (1, 4):
        lane = spot.lane(spot.tasks(requests), requests[0].decode, 1, check_every=check_every)
        outcomes(lane)
        steps.append(lane.profile.steps)
    assert steps[0] <= steps[1] <= steps[0] + 3 * len(requests)


def test_memory_goes_with_the_lane(bench_of: BenchOf) -> None:
    """At once: the next lane needs it before a garbage collector would come."""
    requests, spot = requests_of({}), bench_of("bart")
    lane = spot.lane(spot.tasks(requests), requests[0].decode, 2)
    outcomes(lane)
    memory = weakref.ref(lane._graphs)
    gc.disable()
    try:
        del lane
        assert memory() is None
    finally:
        gc.enable()


@given(length=st.integers(1, 20_000))
def test_spans_hold_the_length_and_little_more(length: int) -> None:
    assert length <= source_span(length) <= max(length + 64, length * 1.25)
    assert source_span(length) % 64 == own_span(length) % 64 == 0
    assert source_span(length) <= source_span(length + 1)
    assert length <= own_span(length) < max(65, 2 * length)


def test_as_many_slots_as_memory_holds(bench_of: BenchOf) -> None:
    model = bench_of("bart").model
    counts = [device_slots(model, None, 160, 40, width, free) for width in (1, 4) for free in (0, 10**6, 10**7, 10**12)]
    assert counts[0] == counts[4] == 1
    assert 1 < counts[1] < counts[2] < counts[3] == counts[7] == 256
    assert counts[6] < counts[2]
    assert device_slots(model, 12, 160, 40, 1, 10**12) == 12


def test_sources_of_unlike_length_are_encoded_apart() -> None:
    sources = [(1,) * length for length in (100, 90, 80, 79, 64, 63, 10)]
    assert [[len(source) for source in part] for part in alike(sources)] == [[100, 90, 80], [79, 64], [63], [10]]
    assert list(alike(sources[:1])) == [sources[:1]]


@pytest.mark.slow
def test_the_engine_needs_no_beam() -> None:
    folder = Path(module.__file__).parent
    names = [f"transforms.engine.{path.stem}" for path in folder.glob("*.py") if path.stem != "__init__"]
    assert "transforms.engine.static_lane" in names
    code = f"import sys; sys.modules['apache_beam'] = None\nfor name in {names}: __import__(name)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder.parent.parent, timeout=120)
