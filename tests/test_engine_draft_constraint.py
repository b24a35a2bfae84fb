"""Drafts beside constraints: a value that is copied goes on as its source does, and the output is what it is without drafts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.constraint_cases import GRAMMARS, assert_whole, grammars, texts
from tests.test_constraint_engine import MODELS, NOTES, constrained, seldom_ending, told
from tests.tiny_models import make_model
from tests.tiny_tokenizers import make_tokenizer
from transforms.engine import Constraint, DecodeSettings, EngineSettings, Request, load_engine
from transforms.engine.draft import Drafter, StepCost

Load = Callable[..., Any]

LONG = DecodeSettings(max_new_tokens=60)
quick = settings(deadline=None, derandomize=True, phases=[Phase.generate], suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    folders: dict[tuple[str, str], Path] = {}
    engines: dict[tuple[object, ...], Any] = {}

    def loaded(model: tuple[str, str], draft: str, slots: int = 3) -> Any:
        if model not in folders:
            made = make_model(model[0], tmp_path_factory.mktemp("-".join(model)), tokenizer=make_tokenizer(model[1]))
            folders[model] = seldom_ending(made)
        if (model, draft, slots) not in engines:
            where = {"backend": "torch", "model_folder": str(folders[model]), "device": "cpu", "dtype": "float32"}
            engine: Any = load_engine(EngineSettings(**where, slots=slots, threads=1, draft=draft))
            if draft == "auto":
                engine._drafter = lambda decode: Drafter(StepCost(fixed=1.0, each=0.0))
            engines[model, draft, slots] = engine
        return engines[model, draft, slots]

    return loaded


@st.composite
def mixes(draw: st.DrawFn) -> list[Request]:
    """Requests with a constraint and without."""

    def request() -> Request:
        decode = DecodeSettings(max_new_tokens=draw(st.sampled_from((1, 4, 9, 25, 50))))
        constraint = draw(st.none() | st.builds(Constraint, grammars) | st.builds(Constraint, grammars))
        return Request(draw(st.sampled_from(NOTES) | texts), decode, constraint, draw(st.sampled_from(((), (), (20, 21)))))

    return [request() for _ in range(draw(st.integers(1, 5)))]


def assert_unchanged(load: Load, model: tuple[str, str], slots: int, requests: list[Request]) -> Any:
    plain, drafting = load(model, "off", slots), load(model, "auto", slots)
    drafting.reset_profile()
    for request, answer, other in zip(requests, drafting.generate(requests), plain.generate(requests), strict=True):
        assert told(answer) == told(other)
        assert answer.logprob == (None if other.logprob is None else pytest.approx(other.logprob, abs=1e-5))
        assert answer.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-5)
        if request.constraint:
            assert_whole(request.text, request.constraint.grammar, answer.values)
    return drafting.profile


def test_drafted_values_are_those_of_one_token_a_step(load: Load) -> None:
    free = Request(NOTES[2], DecodeSettings(max_new_tokens=12))
    assert_unchanged(load, MODELS[0], 3, [free, *constrained(DecodeSettings(max_new_tokens=12))[:3]])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_long_sweep_finds_no_difference(load: Load) -> None:
    @settings(quick, max_examples=25)
    @given(model=st.sampled_from(MODELS), slots=st.sampled_from((1, 2, 7)), requests=mixes())
    def sweep(model: tuple[str, str], slots: int, requests: list[Request]) -> None:
        assert_unchanged(load, model, slots, requests)

    sweep()


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS, ids="-".join)
def test_copied_values_save_steps(model: tuple[str, str], load: Load) -> None:
    requests = [request for grammar in GRAMMARS for request in constrained(LONG, grammar)]
    plain = load(model, "off", 1)
    plain.reset_profile()
    plain.generate(requests)
    profile = assert_unchanged(load, model, 1, requests)
    assert 0 < profile.kept_tokens < profile.drafted_tokens
    # The plain engine's is of both its runs. A draft may stop before a token without an alternative, which then takes the step.
    alone = plain.profile.steps // 2
    assert alone - profile.kept_tokens <= profile.steps < alone


def test_a_guide_drafts_what_it_would_take(load: Load) -> None:
    from transforms.engine.constraint_plan import Guide

    engine = load(MODELS[0], "off")
    text = "The nurse reports mild pain."
    plan = engine._planner.plan(text, Constraint(GRAMMARS[0]), 100, 40)
    guide, follower = Guide(plan), Guide(plan)
    for each in (guide, follower):
        each.forced()
        each.take(int(each.offer[-1]))
    # Nothing is drafted before a value's first token.
    assert guide.draft(3, 10) == []
    first = engine._tokenizer.ids(" nurse")[0]
    for each in (guide, follower):
        each.take(first)
    assert guide.draft(0, 10) == []
    drafted = guide.draft(2, 10)
    assert guide.draft(2, 1) == drafted[:1]
    assert guide.draft(2, 10) == drafted
    assert len(guide.offers) == len(drafted) + 1
    assert all(token in list(offer) for token, offer in zip(drafted, guide.offers, strict=False))
    assert "nurse reports" in engine._tokenizer.decode([[first, *drafted]])[0]
    guide.follow(len(drafted) - 1, drafted[-1])
    done = 0
    while done < len(drafted):
        done += 1 + len(follower.take(drafted[done]))
    assert list(guide.offer) == list(follower.offer)
    assert guide.chosen == follower.chosen
