"""The laws of the engine under any mix of requests: equal to `model.generate()` one by one, in any company, order and number of slots."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.near_ties import Reference, Tally, assert_agree
from tests.tiny_models import END, FAMILIES, VARIANTS, make_model, mostly_slow, sentences
from transforms.engine import (
    GENERATION_FAILED,
    Completion,
    DecodeSettings,
    Engine,
    EngineError,
    EngineSettings,
    Request,
    load_engine,
    resolve_dtype,
)

# Engines and references by family and settings, loaded once.
Load = Callable[..., Any]
ReferenceOf = Callable[..., Reference]

NATIVE = FAMILIES + VARIANTS
SLOTS = (1, 2, 3, 7)
# Of many lengths, in no order; one empty, one over the tiny models' limit.
LENGTHS = (3, 1, 6, 0, 4, 2, 40, 5, 1, 2, 7, 3)
POOL = sentences(sum(LENGTHS))
TEXTS = tuple(" ".join(POOL[sum(LENGTHS[:i]) : sum(LENGTHS[: i + 1])]) for i in range(len(LENGTHS)))
# Every setting, most of them beside another one that could disturb it. Token ids that all the tiny vocabularies have.
STYLES: tuple[dict[str, Any], ...] = (
    {},
    {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 1, "suppress_tokens": (9, 40, 77)},
    {"repetition_penalty": 1.4, "begin_suppress_tokens": (END, 30)},
    {"repetition_penalty": 0.7, "renormalize_logits": True, "no_repeat_ngram_size": 3},
    {"forced_bos_token_id": 7, "forced_eos_token_id": END, "no_repeat_ngram_size": 3},
    {"bad_words_ids": ((11,), (12, 13), (30, 31, 32), (1,)), "no_repeat_ngram_size": 2},
    {"forced_eos_token_id": END, "begin_suppress_tokens": (END,), "repetition_penalty": 1.2},
)
BEAM_STYLES: tuple[dict[str, Any], ...] = (
    {"num_beams": 2},
    {"num_beams": 3, "early_stopping": True, "length_penalty": 2.0},
    {"num_beams": 4, "early_stopping": "never", "length_penalty": 0.6},
    {"num_beams": 4, "early_stopping": "never", "length_penalty": -0.5},
    {"num_beams": 3, "length_penalty": 0.0},
)
# (min_new_tokens, max_new_tokens)
SPANS = ((0, 1), (0, 12), (4, 9), (12, 12), (2, 5), (0, 7))
PREFIXES = ((), (), (), (20,), (9, 21, 22))

styles = st.sampled_from(STYLES)
beam_styles = st.builds(lambda style, beams: {**style, **beams}, styles, st.sampled_from(BEAM_STYLES))


@st.composite
def mixes(draw: st.DrawFn, style: st.SearchStrategy[dict[str, Any]], most: int = 7) -> list[Request]:
    """Requests of one or two styles with lengths and prefixes of their own."""
    shared = draw(st.lists(style, min_size=1, max_size=2))

    def request() -> Request:
        least, limit = draw(st.sampled_from(SPANS))
        decode = DecodeSettings(**draw(st.sampled_from(shared)), min_new_tokens=least, max_new_tokens=limit)
        return Request(draw(st.sampled_from(TEXTS)), decode, decoder_prefix=draw(st.sampled_from(PREFIXES)))

    return [request() for _ in range(draw(st.integers(1, most)))]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = make_model(family, tmp_path_factory.mktemp(family))
        return made[family]

    return folder


@pytest.fixture(scope="module")
def load(folder_of: Callable[[str], Path]) -> Callable[..., Engine]:
    kept: dict[tuple[object, ...], Engine] = {}

    def loaded(
        family: str,
        dtype: str = "float32",
        slots: int | None = 3,
        threads: int = 1,
        backend: str = "torch",
    ) -> Engine:
        key = (family, dtype, slots, threads, backend)
        if key not in kept:
            where = {"backend": backend, "model_folder": str(folder_of(family)), "device": "cpu"}
            kept[key] = load_engine(EngineSettings(**where, dtype=dtype, slots=slots, threads=threads))
        return kept[key]

    return loaded


@pytest.fixture(scope="module")
def reference_of(folder_of: Callable[[str], Path]) -> Callable[..., Reference]:
    kept: dict[tuple[str, str], Reference] = {}

    def reference(family: str, dtype: str = "float32") -> Reference:
        if (family, dtype) not in kept:
            kept[family, dtype] = Reference(folder_of(family), dtype)
        return kept[family, dtype]

    return reference


@pytest.fixture(scope="module")
def tally() -> Any:
    """Ties of all tests of the module together, judged when it is through."""
    counted = Tally()
    yield counted
    counted.check()


def needs(dtype: str) -> None:
    try:
        resolve_dtype(dtype, "cpu")
    except EngineError as error:
        pytest.skip(str(error))


def told(completion: Completion) -> tuple[object, ...]:
    """What must not depend on the company."""
    return completion.text, completion.token_ids, completion.finish, completion.source_tokens, completion.truncated_tokens, completion.error


def mixed(count: int, style: Sequence[dict[str, Any]], seed: int = 0) -> list[Request]:
    """A fixed mix, for the laws that need no search for a counterexample."""
    choose = random.Random(seed).choice
    spans = [choose(SPANS) for _ in range(count)]
    return [
        Request(choose(TEXTS), DecodeSettings(**choose(style), min_new_tokens=least, max_new_tokens=limit), decoder_prefix=choose(PREFIXES))
        for least, limit in spans
    ]


# Small cases by construction: shrinking them further would take longer than reading them.
quick = settings(deadline=None, derandomize=True, phases=[Phase.generate], max_examples=4)
thorough = settings(deadline=None, phases=[Phase.generate], max_examples=60)

any_native = st.sampled_from(NATIVE)
any_slots = st.sampled_from(SLOTS)


# Equal to generate().


@quick
@given(family=any_native, slots=any_slots, threads=st.sampled_from((1, 1, 2)), requests=mixes(styles))
def test_greedy_equals_generate_one_by_one(
    family: str, slots: int, threads: int, requests: list[Request], load: Load, reference_of: ReferenceOf, tally: Tally
) -> None:
    assert_agree(reference_of(family), requests, load(family, slots=slots, threads=threads).generate(requests), tally)


@quick
@given(family=any_native, slots=any_slots, requests=mixes(beam_styles, most=5))
def test_beams_equal_generate_one_by_one(
    family: str, slots: int, requests: list[Request], load: Load, reference_of: ReferenceOf, tally: Tally
) -> None:
    assert_agree(reference_of(family), requests, load(family, slots=slots).generate(requests), tally)


@pytest.mark.parametrize("families", [("bart", "t5-v1.1"), pytest.param(NATIVE, marks=pytest.mark.slow)], ids=["two", "all"])
def test_bfloat16_equals_generate_in_bfloat16(families: Sequence[str], load: Load, reference_of: ReferenceOf) -> None:
    counted = Tally("bfloat16")
    for seed, family in enumerate(families):
        requests = mixed(4, STYLES, seed)
        assert_agree(reference_of(family, "bfloat16"), requests, load(family, "bfloat16").generate(requests), counted)
    counted.check()


@pytest.mark.parametrize("style", [STYLES, tuple({**STYLES[i], **beams} for i, beams in enumerate(BEAM_STYLES))], ids=["greedy", "beams"])
def test_generate_backend_keeps_the_same_laws(style: Sequence[dict[str, Any]], load: Load, reference_of: ReferenceOf, tally: Tally) -> None:
    requests = mixed(8, style)
    assert_agree(reference_of("bart"), requests, load("bart", backend="generate").generate(requests), tally)


@pytest.mark.slow
@pytest.mark.timeout(3_000)
@pytest.mark.parametrize("style", [styles, beam_styles], ids=["greedy", "beams"])
def test_a_long_sweep_finds_hardly_a_tie(style: Any, load: Load, reference_of: ReferenceOf) -> None:
    counted = Tally()

    @thorough
    @given(family=any_native, slots=any_slots, threads=st.sampled_from((1, 2)), requests=mixes(style))
    def sweep(family: str, slots: int, threads: int, requests: list[Request]) -> None:
        assert_agree(reference_of(family), requests, load(family, slots=slots, threads=threads).generate(requests), counted)

    sweep()
    counted.check()


# In any company, order and number of slots.


@settings(quick, max_examples=3)
@given(
    family=any_native,
    slots=any_slots,
    threads=st.sampled_from((1, 2)),
    requests=mixes(st.one_of(styles, beam_styles), most=6),
    order=st.randoms(use_true_random=False),
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_neither_company_nor_order_changes_an_answer(
    dtype: str,
    family: str,
    slots: int,
    threads: int,
    requests: list[Request],
    order: random.Random,
    load: Load,
    reference_of: ReferenceOf,
) -> None:
    needs(dtype)
    order.shuffle(requests)
    together = load(family, dtype, slots, threads).generate(requests)
    alone = [load(family, dtype, 1).generate([request])[0] for request in requests]
    for request, one, other in zip(requests, together, alone, strict=True):
        # Each int8 row is rounded by itself and added up exactly, so there it is never a matter of rounding.
        if told(one) != told(other):
            assert dtype != "int8"
            assert_agree(reference_of(family, dtype), [request] * 2, [one, other], Tally(dtype))


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_reversed_in_is_reversed_out(dtype: str, load: Load) -> None:
    needs(dtype)
    requests = mixed(8, STYLES)
    for family in ("bart", "t5"):
        engine = load(family, dtype)
        assert list(map(told, engine.generate(requests[::-1])[::-1])) == list(map(told, engine.generate(requests)))


@pytest.mark.parametrize("family", mostly_slow(["bart-odd", "t5-v1.1", "pegasus"], ["bart-odd"]))
def test_int8_mostly_writes_what_float32_writes(family: str, load: Load) -> None:
    """Weights and activations of 8 bits move every logit: agreement on most first tokens is all that can be asked."""
    needs("int8")
    requests = [Request(text, DecodeSettings(max_new_tokens=6, begin_suppress_tokens=(END,))) for text in TEXTS]
    rounded, plain = load(family, "int8").generate(requests), load(family).generate(requests)
    assert sum(a.token_ids[0] == b.token_ids[0] for a, b in zip(rounded, plain, strict=True)) >= len(TEXTS) // 2


# Every request for itself.


@quick
@given(family=any_native, slots=any_slots, requests=mixes(st.one_of(styles, beam_styles)))
def test_limits_hold_and_the_end_is_told(family: str, slots: int, requests: list[Request], load: Load) -> None:
    engine = load(family, slots=slots)
    for request, completion in zip(requests, engine.generate(requests), strict=True):
        decode, ids = request.decode, completion.token_ids
        assert len(ids) <= decode.max_new_tokens
        assert END not in ids[:-1]
        assert len(ids) >= decode.min_new_tokens
        assert completion.source_tokens <= engine.max_source_tokens
        if completion.finish == "stop":
            assert ids[-1] == END
        else:
            assert len(ids) == decode.max_new_tokens
            assert ids[-1] != END or decode.forced_eos_token_id == END


@pytest.mark.parametrize("family", mostly_slow(["bart", "t5-v1.1", "opus"]))
def test_greedy_logprob_is_the_reference_s(family: str, load: Load, reference_of: ReferenceOf) -> None:
    requests = mixed(10, STYLES)
    for request, completion in zip(requests, load(family).generate(requests), strict=True):
        answer = reference_of(family).answer(request)
        assert completion.token_ids != answer.token_ids or completion.logprob == pytest.approx(answer.logprob, abs=1e-3)


BAD = {
    "a lone surrogate": Request("nothing \ud800 else", DecodeSettings(max_new_tokens=5)),
    "an unknown constraint": Request("nothing else", DecodeSettings(max_new_tokens=5), constraint=object()),
    "a prefix of no token": Request("nothing else", DecodeSettings(max_new_tokens=5), decoder_prefix=(10**6,)),
    "a negative token": Request("nothing else", DecodeSettings(max_new_tokens=5), decoder_prefix=(-5,)),
    "a prefix as long as the output may be": Request("nothing else", DecodeSettings(max_new_tokens=5), decoder_prefix=(9,) * 170),
}


@pytest.mark.parametrize("family", ["bart", "t5"])
@pytest.mark.parametrize("beams", [1, 2])
def test_bad_requests_spoil_no_neighbour_and_leave_no_trace(family: str, beams: int, load: Load) -> None:
    requests = [replace(request, decode=replace(request.decode, num_beams=beams)) for request in (*mixed(6, STYLES[:2]), *BAD.values())]
    good, bad = requests[:6], dict(zip(BAD, requests[6:], strict=True))
    if family == "t5":
        # It has no last position, so a long prefix is no fault there.
        del bad["a prefix as long as the output may be"]
    engine = load(family)
    expected = list(map(told, engine.generate(good)))
    among = engine.generate([request for pair in zip_longest(good, bad.values()) for request in pair if request])
    failed = [completion.error for completion in among if completion.finish == "error"]
    assert failed == [GENERATION_FAILED] * len(bad)
    assert [told(completion) for completion in among if completion.finish != "error"] == expected
    assert list(map(told, engine.generate(good))) == expected


def test_two_threads_may_share_nothing_but_the_engine_s_weights(load: Load) -> None:
    """Lanes in parallel give what one lane gives."""
    requests = mixed(40, STYLES, seed=3)
    assert list(map(told, load("bart", slots=2, threads=4).generate(requests))) == list(map(told, load("bart").generate(requests)))


# What it costs.


@pytest.mark.parametrize(("slots", "threads"), [pytest.param(1, 1, marks=pytest.mark.slow), (3, 1), (3, 2)])
@pytest.mark.parametrize("style", [STYLES[1], BEAM_STYLES[0]], ids=["greedy", "beams"])
def test_no_slot_is_idle_while_requests_wait(slots: int, threads: int, style: dict[str, Any], load: Load) -> None:
    requests = [Request(TEXTS[i % len(TEXTS)], DecodeSettings(**style, max_new_tokens=2 + i * 5 % 11)) for i in range(30)]
    engine = load("t5", slots=slots, threads=threads)
    engine.reset_profile()
    completions = engine.generate(requests)
    profile = engine.profile
    assert profile.idle_row_steps == 0
    assert profile.encoded_padding == 0
    rows = sum(len(completion.token_ids) for completion in completions) * style.get("num_beams", 1)
    # Beams may search on after the hypothesis that wins is found.
    assert profile.row_steps >= rows if "num_beams" in style else profile.row_steps == rows
    engine.reset_profile()
    assert engine.profile.row_steps == 0


def test_a_source_of_two_requests_is_encoded_once(load: Load) -> None:
    """Beside each other in the queue, that is: sources are sorted by length."""
    engine = load("bart", slots=4)
    decode = DecodeSettings(max_new_tokens=4)
    engine.reset_profile()
    engine.generate([Request(TEXTS[2], decode), Request(TEXTS[2], decode, decoder_prefix=(20,))])
    both = engine.profile.encoded_tokens
    engine.reset_profile()
    engine.generate([Request(TEXTS[2], decode)])
    assert both == engine.profile.encoded_tokens > 0


@pytest.mark.slow
@pytest.mark.timeout(1_500)
@pytest.mark.parametrize("beams", [1, 2])
def test_memory_is_flat_over_many_requests(beams: int, load: Load) -> None:
    engine = load("bart", slots=16)
    decodes = [DecodeSettings(num_beams=beams, max_new_tokens=limit) for limit in (2, 5, 9)]
    requests = [Request(TEXTS[i % len(TEXTS)], decodes[i % 3]) for i in range(1_000)]
    for _ in range(3):
        engine.generate(requests)
    before = resident_bytes()
    for _ in range(20):
        engine.generate(requests)
    assert resident_bytes() - before < 20e6


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
