"""Drafts from the source: they change how many steps a text takes, never what is written."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from tests.static_lanes import RULES, TEXTS
from tests.tiny_models import END, FAMILIES, VARIANTS, make_model
from transforms.engine import Completion, DecodeSettings, EngineError, EngineSettings, Request, load_engine, resolve_dtype
from transforms.engine.draft import LONGEST, MOST, SHORTEST, Draft, Drafter, StepCost, where_copied

Load = Callable[..., Any]

FREE = StepCost(fixed=1.0, each=0.0)
STYLES: tuple[dict[str, Any], ...] = (
    {},
    RULES,
    {"no_repeat_ngram_size": 2},
    {"repetition_penalty": 0.7, "renormalize_logits": True},
    {"bad_words_ids": ((11,), (12, 13), (30, 31, 32)), "suppress_tokens": (9, 40)},
    {"forced_eos_token_id": END, "begin_suppress_tokens": (END, 30)},
)
SPANS = ((0, 1), (0, 12), (4, 9), (12, 12), (2, 5), (0, 30))
PREFIXES = ((), (), (20,), (9, 21, 22))
quick = settings(deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate], suppress_health_check=[HealthCheck.too_slow])


class Hinted(Drafter):
    """Looks into what it is told beforehand instead of into the source; without a hint, into the source."""

    def __init__(self, hints: dict[tuple[int, ...], Sequence[int]], cost: StepCost = FREE) -> None:
        super().__init__(cost)
        self._hints = hints

    def start(self, group: int, source: Sequence[int], prefix: Sequence[int], limit: int) -> None:
        super().start(group, self._hints.get(tuple(source), source), prefix, limit)


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    folders: dict[str, Path] = {}
    engines: dict[tuple[object, ...], Any] = {}

    def loaded(family: str, draft: str, dtype: str = "float32", slots: int = 3, threads: int = 1) -> Any:
        if family not in folders:
            folders[family] = make_model(family, tmp_path_factory.mktemp(family))
        key = (family, draft, dtype, slots, threads)
        if key not in engines:
            where = {"backend": "torch", "model_folder": str(folders[family]), "device": "cpu", "dtype": dtype}
            engines[key] = load_engine(EngineSettings(**where, slots=slots, threads=threads, draft=draft))
        return engines[key]

    return loaded


@st.composite
def mixes(draw: st.DrawFn) -> list[Request]:
    style = draw(st.sampled_from(STYLES))

    def request() -> Request:
        least, limit = draw(st.sampled_from(SPANS))
        decode = DecodeSettings(**style, min_new_tokens=least, max_new_tokens=limit)
        return Request(draw(st.sampled_from(TEXTS)), decode, decoder_prefix=draw(st.sampled_from(PREFIXES)))

    return [request() for _ in range(draw(st.integers(1, 6)))]


def told(completion: Completion) -> tuple[object, ...]:
    return completion.text, completion.token_ids, completion.finish, completion.error


def hints_of(engine: Any, requests: Sequence[Request], answers: Sequence[Completion], wrong: float, seed: int) -> dict[Any, Any]:
    """Of each source what the outputs will be, with this share of the tokens replaced."""
    rng = random.Random(seed)
    hints: dict[tuple[int, ...], list[int]] = {}
    for request, answer in zip(requests, answers, strict=True):
        [ids] = engine._tokenizer.encode([request.text])
        source = tuple(engine._tokenizer.with_specials(ids[: engine.max_source_tokens]))
        start = (engine._special["decoder_start_token_id"], *request.decoder_prefix)
        said = [rng.randrange(70) if rng.random() < wrong else token for token in (*start, *answer.token_ids)]
        hints.setdefault(source, []).extend(said)
    return hints


def drafted(engine: Any, requests: Sequence[Request], hints: dict[Any, Any]) -> list[Completion]:
    engine._drafter = lambda decode: Hinted(hints)
    engine.reset_profile()
    return list(engine.generate(requests))


# The same output, to the token.


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_drafts_right_and_wrong_change_no_output(family: str, load: Load) -> None:
    decode = DecodeSettings(**RULES, min_new_tokens=2, max_new_tokens=14)
    prefixes = [(), (20,), (9, 21, 22), ()]
    requests = [Request(text, decode, decoder_prefix=prefix) for text, prefix in zip(TEXTS, prefixes, strict=False)]
    profile = assert_unchanged(load, family, "float32", 3, 1, 0.2, requests)
    assert profile.drafted_tokens > 0


def assert_unchanged(load: Load, family: str, dtype: str, slots: int, threads: int, wrong: float, requests: list[Request]) -> Any:
    plain = load(family, "off", dtype, slots, threads)
    expected = plain.generate(requests)
    engine = load(family, "auto", dtype, slots, threads)
    answers = drafted(engine, requests, hints_of(engine, requests, expected, wrong, slots))
    assert list(map(told, answers)) == list(map(told, expected))
    for answer, other in zip(answers, expected, strict=True):
        # In float32 a row alone in a step may be summed up in another order than in company; the others are the same to the bit. Where
        # the settings forbid every token, no probability is a number.
        exact = other.logprob if dtype != "float32" else pytest.approx(other.logprob, abs=1e-5, nan_ok=True)
        assert answer.logprob == exact
    return engine.profile


@pytest.mark.parametrize(
    ("family", "dtype"),
    [
        ("t5", "int8"),
        ("bart", "bfloat16"),
        *(pytest.param(family, "int8", marks=pytest.mark.slow) for family in ("bart", "marian", "pegasus")),
        *(pytest.param(family, "bfloat16", marks=pytest.mark.slow) for family in ("t5", "marian", "pegasus")),
    ],
)
def test_other_number_formats_are_the_same_to_the_bit(family: str, dtype: str, load: Load) -> None:
    try:
        resolve_dtype(dtype, "cpu")
    except EngineError as error:
        pytest.skip(str(error))
    requests = [Request(text, DecodeSettings(max_new_tokens=20)) for text in TEXTS[:4]]
    profile = assert_unchanged(load, family, dtype, 3, 1, 0.2, requests)
    assert profile.kept_tokens > 0


def test_right_drafts_save_steps_and_wrong_ones_are_counted(load: Load) -> None:
    requests = [Request(text, DecodeSettings(max_new_tokens=30, min_new_tokens=30)) for text in TEXTS[:1]]
    right = assert_unchanged(load, "bart", "float32", 1, 1, 0.0, requests)
    written = 30
    assert right.steps < written / 2
    assert right.kept_tokens == written - right.steps
    wrong = assert_unchanged(load, "bart", "float32", 1, 1, 0.3, requests)
    assert wrong.drafted_tokens > wrong.kept_tokens > 0
    assert right.steps < wrong.steps < written
    assert wrong.row_steps == wrong.steps + wrong.drafted_tokens


def test_a_step_that_fails_begins_its_neighbours_outputs_anew(load: Load) -> None:
    engine, decode = load("t5", "auto", slots=7), DecodeSettings(max_new_tokens=12)
    good = [Request(text, decode) for text in TEXTS[:3]]
    expected = load("t5", "off", slots=7).generate(good)
    bad = Request(TEXTS[0], decode, decoder_prefix=(9, 10**6))
    *answers, failed = drafted(engine, [*good, bad], hints_of(engine, good, expected, 0.1, 0))
    assert failed.error is not None
    assert list(map(told, answers)) == list(map(told, expected))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_long_sweep_finds_no_difference(load: Load) -> None:
    @settings(quick, max_examples=40)
    @given(
        family=st.sampled_from(FAMILIES + VARIANTS),
        slots=st.sampled_from((1, 2, 7)),
        threads=st.sampled_from((1, 1, 2)),
        wrong=st.sampled_from((0.0, 0.2, 0.6)),
        requests=mixes(),
    )
    def sweep(family: str, slots: int, threads: int, wrong: float, requests: list[Request]) -> None:
        assert_unchanged(load, family, "float32", slots, threads, wrong, requests)

    sweep()


# What is drafted.


def naive(source: str, tail: str) -> tuple[int, int]:
    for length in range(len(tail), SHORTEST - 1, -1):
        at = source.find(tail[-length:])
        if at >= 0:
            return at + length, length
    return 0, 0


@settings(max_examples=100, deadline=None)
@given(source=st.text("abc", max_size=40), tail=st.text("abc", max_size=LONGEST))
@example(source="aaaa", tail="aaa")
@example(source="ab", tail="b")
def test_the_longest_copy_is_found_and_of_equals_the_first(source: str, tail: str) -> None:
    assert where_copied(source, tail) == naive(source, tail)


def one(drafter: Drafter) -> Draft:
    [draft] = drafter.draft([0])
    return draft


def test_a_draft_is_what_follows_in_the_source_and_leaves_room_for_one_more() -> None:
    drafter = Drafter(FREE)
    drafter.start(0, range(100, 160), (5, 110, 111), limit=40)
    assert one(drafter).tokens == tuple(range(112, 112 + MOST))
    drafter.start(0, range(100, 160), (5, 110, 111), limit=4)
    assert one(drafter).tokens == (112, 113, 114)
    drafter.start(0, range(100, 160), (5, 110, 111), limit=1)
    assert one(drafter).tokens == ()
    drafter.start(0, range(100, 160), (158, 159), limit=9)
    assert one(drafter).tokens == ()
    drafter.start(0, (), (110, 111), limit=9)
    assert one(drafter).tokens == ()
    drafter.leave(0)
    assert one(drafter).tokens == ()


def test_the_output_goes_on_where_it_copied_last() -> None:
    drafter = Drafter(FREE)
    drafter.start(0, (1, 2, 7, 1, 2, 8, 1, 2, 9), (4, 8), limit=40)
    drafter.learn([0], [Draft()], [[1, 2]])
    assert one(drafter).tokens == (9,)


def test_what_costs_more_than_it_brings_is_not_drafted() -> None:
    lengths = []
    for each in (0.0, 0.02, 0.2, 10.0):
        drafter = Drafter(StepCost(fixed=1.0, each=each))
        for group in range(16):
            drafter.start(group, range(100, 160), (110, 111), limit=40)
        lengths.append(max(len(draft.tokens) for draft in drafter.draft(range(16))))
    assert lengths[0] == MOST
    assert sorted(lengths, reverse=True) == lengths
    assert lengths[-1] == 0


def test_few_rows_draft_more_than_many() -> None:
    def longest(rows: int) -> int:
        drafter = Drafter(StepCost(fixed=1.0, each=0.05))
        for group in range(rows):
            drafter.start(group, range(100, 160), (110, 111), limit=40)
        return len(drafter.draft(range(rows))[0].tokens)

    assert longest(1) > longest(16)


def test_a_request_whose_drafts_are_wrong_gets_none_while_others_do() -> None:
    drafter = Drafter(StepCost(fixed=1.0, each=0.05))
    source = (110, 110, *range(111, 160))
    drafter.start(0, source, (110, 110), limit=1000)
    for _ in range(30):
        drafter.start(1, source, (110, 110), limit=1000)
        wrong, right = drafter.draft([0, 1])
        drafter.learn([0, 1], [wrong, right], [[110], [*right.tokens, 1]])
    assert not wrong.tokens
    assert right.tokens


@pytest.mark.parametrize(("rows", "each"), [(1, 0.01), (4, 0.05), (16, 0.02), (16, 0.2)])
def test_drafts_that_are_never_right_cost_next_to_nothing(rows: int, each: float) -> None:
    drafter, groups, steps = Drafter(StepCost(fixed=1.0, each=each)), range(rows), 600
    for _ in range(steps):
        for group in groups:
            drafter.start(group, range(100, 160), (110, 111), limit=1000)
        drafter.learn(groups, drafter.draft(groups), [[7]] * rows)
    assert drafter.kept == 0
    assert drafter.drafted * each < 0.03 * steps * (1 + rows * each)


def test_drafts_show_no_tokens() -> None:
    drafter = Drafter(FREE)
    drafter.start(0, range(40_000, 40_060), (40_010, 40_011), limit=40)
    assert "40012" not in repr(one(drafter))
    assert not any(chr(40_012) in repr(writing) for writing in drafter._writings.values())


def test_an_unknown_setting_names_the_choices(load: Load) -> None:
    with pytest.raises(EngineError, match="'always' is not one of off, auto"):
        load("bart", "always")


def test_beams_are_not_drafted(load: Load) -> None:
    requests = [Request(text, DecodeSettings(num_beams=2, max_new_tokens=9)) for text in TEXTS[:3]]
    engine = load("bart", "auto")
    engine._drafter = type(engine)._drafter.__get__(engine)
    engine.reset_profile()
    assert list(map(told, engine.generate(requests))) == list(map(told, load("bart", "off").generate(requests)))
    assert engine.profile.drafted_tokens == 0


def test_a_measured_cost_is_of_use(load: Load) -> None:
    from transforms.engine.step_cost import measure_step_cost

    cost = measure_step_cost(load("t5", "off")._model)
    assert cost.fixed >= 0
    assert cost.each >= 0
    assert cost.fixed + cost.each > 0
    engine = load("bart", "auto")
    engine._drafter = type(engine)._drafter.__get__(engine)
    requests = [Request(TEXTS[0], DecodeSettings(max_new_tokens=12))]
    assert list(map(told, engine.generate(requests))) == list(map(told, load("bart", "off").generate(requests)))
    assert engine._step_cost is not None
