"""Constrained decoding by models: equal to `generate()` under the same constraint, in any company, greedy and with beams."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.constraint_cases import GRAMMARS, assert_whole, grammars, texts
from tests.tiny_models import END, make_model, mostly_slow
from tests.tiny_tokenizers import make_tokenizer
from transforms.engine import GENERATION_FAILED, Completion, Constraint, DecodeSettings, EngineSettings, Request, load_engine
from transforms.engine.constraint import Enum, Grammar, Line
from transforms.engine.loading import load_model

# A family with the kind of its tokenizer.
MODELS = (("bart", "bpe"), ("bart", "wordpiece"), ("t5", "unigram"), ("pegasus", "unigram"))
NOTES = (
    "Exam: took 12.5 mg (twice daily), then 1,000 units; pressure 120/80, 98%.",
    "- non-smoker, aspirin-induced rash\n(R) knee pain 7/10 on 2024-01-05.\n\nThe patient's sister: b.i.d. dosing.",
    "The nurse reports mild pain. The nurse reports mild pain. A cough improved after two tablets.",
    "",
    "She denies a low fever.",
)
PLAIN = DecodeSettings(max_new_tokens=30)
BEAMS = DecodeSettings(num_beams=3, max_new_tokens=24)

Load = Callable[..., Any]


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    folders: dict[tuple[str, str], Path] = {}
    engines: dict[tuple[object, ...], Any] = {}

    def loaded(model: tuple[str, str], backend: str = "torch", slots: int = 3, threads: int = 1, dtype: str = "float32") -> Any:
        if model not in folders:
            folder = make_model(model[0], tmp_path_factory.mktemp("-".join(model)), tokenizer=make_tokenizer(model[1]))
            folders[model] = seldom_ending(folder)
        key = (model, backend, slots, threads, dtype)
        if key not in engines:
            where = {"backend": backend, "model_folder": str(folders[model]), "device": "cpu", "dtype": dtype}
            engines[key] = load_engine(EngineSettings(**where, slots=slots, threads=threads))
        return engines[key]

    return loaded


def seldom_ending(folder: Path) -> Path:
    """The tiny model without its liking for the end, so that its outputs have many lines."""
    model = load_model(folder, "float32")
    with torch.no_grad():
        model.get_output_embeddings().weight[END] *= 0.02
        if hasattr(model, "final_logits_bias"):
            model.final_logits_bias[0, END] = -3.0
    model.save_pretrained(folder)
    return folder


def told(completion: Completion) -> tuple[object, ...]:
    return completion.token_ids, completion.values, completion.spans, completion.finish, completion.error, completion.text


def constrained(decode: DecodeSettings = PLAIN, grammar: Grammar = GRAMMARS[1]) -> list[Request]:
    return [Request(text, decode, Constraint(grammar)) for text in NOTES]


@st.composite
def mixes(draw: st.DrawFn) -> list[Request]:
    """Requests with constraints and without, greedy or with beams, of texts that have all that is hard."""
    beams = draw(st.sampled_from((1, 1, 3)))

    def request() -> Request:
        decode = DecodeSettings(num_beams=beams, max_new_tokens=draw(st.sampled_from((1, 4, 9, 25))))
        constraint = draw(st.none() | st.builds(Constraint, grammars))
        return Request(draw(st.sampled_from(NOTES) | texts), decode, constraint, draw(st.sampled_from(((), (), (20, 21)))))

    return [request() for _ in range(draw(st.integers(1, 4)))]


quick = settings(deadline=None, derandomize=True, phases=[Phase.generate], max_examples=4, suppress_health_check=[HealthCheck.too_slow])


def assert_sure_alike(request: Request, one: Completion, other: Completion) -> None:
    """Under a constraint and greedily both tell how likely every token was; the mean over those that were chosen follows."""
    assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-4)
    told = len(one.token_ids) if request.constraint and request.decode.num_beams == 1 else 0
    assert len(one.token_logprobs) == told and all(each <= 0 for each in one.token_logprobs)
    if told and one.logprob:
        chosen = sum(one.token_logprobs) / one.logprob
        assert chosen == pytest.approx(round(chosen), abs=1e-2) and 1 <= round(chosen) <= told


@quick
@given(model=st.sampled_from(MODELS), slots=st.sampled_from((1, 2, 3, 7)), threads=st.sampled_from((1, 2)), requests=mixes())
def test_equal_to_generate_with_the_constraint_as_a_logits_processor(
    model: tuple[str, str], slots: int, threads: int, requests: list[Request], load: Load
) -> None:
    assert_equal_to_generate(model, slots, threads, requests, load)


def assert_equal_to_generate(model: tuple[str, str], slots: int, threads: int, requests: list[Request], load: Load) -> None:
    ours = load(model, slots=slots, threads=threads).generate(requests)
    theirs = [load(model, "generate").generate([request])[0] for request in requests]
    for request, one, other in zip(requests, ours, theirs, strict=True):
        assert told(one) == told(other)
        assert one.logprob == (None if other.logprob is None else pytest.approx(other.logprob, abs=1e-4))
        assert_sure_alike(request, one, other)
        if request.constraint:
            assert one.error is None
            assert_whole(request.text, request.constraint.grammar, one.values)


@quick
@given(model=st.sampled_from(MODELS), requests=mixes(), order=st.randoms(use_true_random=False))
@pytest.mark.parametrize("backend", mostly_slow(["torch", "generate"], ["torch"]))
def test_neither_company_nor_order_changes_an_answer(
    backend: str, model: tuple[str, str], requests: list[Request], order: random.Random, load: Load
) -> None:
    order.shuffle(requests)
    engine = load(model, backend)
    alone = [engine.generate([request])[0] for request in requests]
    assert list(map(told, engine.generate(requests))) == list(map(told, alone))
    assert list(map(told, engine.generate(requests[::-1])[::-1])) == list(map(told, alone))


@pytest.mark.parametrize("model", MODELS[:3], ids="-".join)
@pytest.mark.parametrize("decode", [PLAIN, BEAMS], ids=["greedy", "beams"])
def test_every_output_ends_within_its_limit(model: tuple[str, str], decode: DecodeSettings, load: Load) -> None:
    limits = (1, 2, 3, 5, 8, 30)
    requests = [
        request for limit in limits for grammar in GRAMMARS for request in constrained(replace(decode, max_new_tokens=limit), grammar)
    ]
    completions = load(model, slots=16).generate(requests)
    for request, completion in zip(requests, completions, strict=True):
        assert request.constraint is not None
        assert completion.error is None
        assert completion.token_ids[-1] == END
        assert len(completion.token_ids) <= request.decode.max_new_tokens
        assert_whole(request.text, request.constraint.grammar, completion.values)
    # The tiny models do write something.
    assert sum(len(completion.values) for completion in completions) > len(requests) / 3


@pytest.mark.slow
@pytest.mark.timeout(800)
def test_a_long_sweep_finds_no_difference_from_generate(load: Load) -> None:
    @settings(quick, max_examples=60)
    @given(model=st.sampled_from(MODELS), slots=st.sampled_from((1, 2, 3, 7)), threads=st.sampled_from((1, 2)), requests=mixes())
    def sweep(model: tuple[str, str], slots: int, threads: int, requests: list[Request]) -> None:
        assert_equal_to_generate(model, slots, threads, requests, load)

    sweep()


def test_tokens_that_are_known_are_fed_in_one_step(load: Load) -> None:
    """A tag of several tokens, an enum of one choice: as many tokens as before, in fewer steps."""
    grammar = Grammar((Line("item", "took:", (Enum("what", "", ("the patient reports mild pain",)),)),))
    engine = load(MODELS[1], slots=1)
    engine.reset_profile()
    [completion] = engine.generate([Request(NOTES[0], DecodeSettings(max_new_tokens=40), Constraint(grammar))])
    assert len(completion.values) > 1
    assert engine.profile.row_steps > len(completion.token_ids) / 2
    assert engine.profile.steps < len(completion.token_ids) / 3
    engine.reset_profile()
    engine.generate([Request(NOTES[0], DecodeSettings(max_new_tokens=1), decoder_prefix=(20,) * 30)])
    assert (engine.profile.steps, engine.profile.row_steps) == (1, 31)


@pytest.mark.parametrize("dtype", ["bfloat16"])
@pytest.mark.parametrize("decode", [PLAIN, BEAMS], ids=["greedy", "beams"])
def test_other_number_formats_keep_to_the_grammar(dtype: str, decode: DecodeSettings, load: Load) -> None:
    for request, completion in zip(constrained(decode), load(MODELS[0], dtype=dtype).generate(constrained(decode)), strict=True):
        assert completion.error is None
        assert_whole(request.text, GRAMMARS[1], completion.values)


def test_settings_that_would_contradict_the_grammar_do_not_hold(load: Load) -> None:
    odd = replace(PLAIN, no_repeat_ngram_size=1, min_new_tokens=20, forced_bos_token_id=7, suppress_tokens=(END,), repetition_penalty=3.0)
    for backend in ("torch", "generate"):
        engine = load(MODELS[1], backend)
        assert list(map(told, engine.generate(constrained(odd)))) == list(map(told, engine.generate(constrained())))


def test_what_has_no_alternative_is_no_part_of_the_probability(load: Load) -> None:
    """A source of nothing to copy leaves the end alone."""
    [empty] = load(MODELS[0]).generate([Request("", PLAIN, Constraint(GRAMMARS[0]))])
    assert empty.token_ids == (END,)
    assert empty.logprob == 0.0
    assert empty.finish == "stop"


def test_a_bad_constraint_spoils_no_neighbour(load: Load) -> None:
    engine = load(MODELS[2])
    good = constrained()
    bad: list[Any] = [object(), Constraint(GRAMMARS[0], start=10**6), "grammar"]
    mixed = [*good[:2], *(Request("mild pain", PLAIN, constraint) for constraint in bad), *good[2:]]
    completions = engine.generate(mixed)
    assert [completion.error for completion in completions] == [None] * 2 + [GENERATION_FAILED] * 3 + [None] * 3
    assert [completion.cause for completion in completions[2:5]] == ["TypeError", "ValueError", "TypeError"]
    assert list(map(told, completions[:2] + completions[5:])) == list(map(told, engine.generate(good)))


@pytest.mark.parametrize("decode", [PLAIN, BEAMS], ids=["greedy", "beams"])
def test_a_step_that_fails_begins_its_neighbours_outputs_anew(decode: DecodeSettings, load: Load) -> None:
    engine = load(MODELS[0], slots=7)
    bad = Request("mild pain", decode, Constraint(GRAMMARS[0]), decoder_prefix=(9, 10**6))
    completions = engine.generate([*constrained(decode), bad])
    assert completions.pop().error == GENERATION_FAILED
    assert list(map(told, completions)) == list(map(told, engine.generate(constrained(decode))))


def test_rows_without_a_constraint_are_what_they_are_without_such_neighbours(load: Load) -> None:
    for decode in (PLAIN, BEAMS):
        plain = [Request(text, decode) for text in NOTES]
        engine = load(MODELS[0])
        together = engine.generate([request for pair in zip(plain, constrained(decode), strict=True) for request in pair])
        assert list(map(told, together[::2])) == list(map(told, engine.generate(plain)))


def test_a_plan_keeps_no_source_once_it_is_read(load: Load) -> None:
    from transforms.engine.constraint_plan import Plan

    engine = load(MODELS[0])
    kept: list[Plan] = []
    original = engine._planner.plan
    engine._planner.plan = lambda *args: kept.append(original(*args)) or kept[-1]
    engine.generate(constrained())
    engine._planner.plan = original
    assert len(kept) == len(NOTES)
    assert all(plan._machine is None for plan in kept)
