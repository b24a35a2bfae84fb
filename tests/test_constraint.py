"""Constrained outputs over BPE, WordPiece and Unigram: always whole words and numbers of the source, an end within reach, no dead rows."""

from __future__ import annotations

import pickle
import random
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.constraint_cases import GRAMMARS, assert_whole, grammars, limits, planner_of, texts, tokenizer_of
from tests.tiny_tokenizers import KINDS
from transforms.engine import EngineError, check_constraint
from transforms.engine.constraint import Constraint, Copy, Enum, Grammar, Line, Number
from transforms.engine.constraint_automaton import END as DONE
from transforms.engine.constraint_automaton import Automaton
from transforms.engine.constraint_machine import Machine, Position, Reading
from transforms.engine.constraint_plan import Guide, Plan, Planner
from transforms.engine.tokens import SourceTokenizer

END = 2
kinds = st.sampled_from(KINDS)
quick = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def plan_of(kind: str, text: str, grammar: Grammar, limit: int, **span: Any) -> Plan:
    count = len(SourceTokenizer(tokenizer_of(kind)).ids(text))
    return planner_of(kind).plan(text, Constraint(grammar, **span), count, limit)


def walk(plan: Plan, choose: random.Random, keep_on: float = 0.9) -> list[int]:
    """A random output that its constraint allows, seldom ending where it may go on."""
    guide = Guide(plan)
    ids = guide.forced()
    while not guide.ended:
        offer = list(guide.offer)
        assert len(offer) == len(set(offer)) > 1
        going_on = [token for token in offer if token != END]
        token = int(choose.choice(going_on if going_on and choose.random() < keep_on else offer))
        ids += [token, *guide.take(token)]
    return ids


def read(plan: Plan, ids: list[int]) -> Reading:
    return plan.open().read(ids, plan.limit)


@quick
@given(kind=kinds, text=texts, grammar=grammars, limit=limits, seed=st.randoms(use_true_random=False))
@example("unigram", "(98%), 12.5 mg", GRAMMARS[1], 40, random.Random(1))
@example("bpe", "\u0301 a\u0301", GRAMMARS[0], 40, random.Random(1))
def test_any_output_is_whole_and_ends_within_its_limit(kind: str, text: str, grammar: Grammar, limit: int, seed: random.Random) -> None:
    plan = plan_of(kind, text, grammar, limit)
    ids = walk(plan, seed)
    assert len(ids) <= limit
    assert ids[-1] == END
    assert END not in ids[:-1]
    reading = read(plan, ids)
    assert_whole(text, grammar, reading.values)
    assert reading.chosen <= len(ids)
    tokens = [at for value in reading.values for at in range(*value.tokens)]
    assert tokens == sorted(set(tokens))


@quick
@given(text=texts, grammar=grammars, seed=st.randoms(use_true_random=False))
def test_copied_tokens_decode_to_what_the_offsets_slice(text: str, grammar: Grammar, seed: random.Random) -> None:
    """Byte-level BPE loses nothing, so its tokens have to say what the offsets do."""
    plan = plan_of("bpe", text, grammar, 60)
    ids = walk(plan, seed)
    for value in read(plan, ids).values:
        if value.start is not None:
            first, last = value.tokens
            assert tokenizer_of("bpe").decode(ids[first:last]).strip() == text[value.start : value.end]


@quick
@given(kind=kinds, text=texts, grammar=grammars, steps=st.integers(0, 20), seed=st.randoms(use_true_random=False))
def test_the_end_is_within_reach_from_everywhere(kind: str, text: str, grammar: Grammar, steps: int, seed: random.Random) -> None:
    """Wherever an output is: with the least room in which anything is offered at all, every way that is offered ends in time."""
    machine = plan_of(kind, text, grammar, 60).open()
    position = machine.start
    for remaining in range(60, 60 - steps, -1):
        offer = list(machine.offer(position, remaining).tokens)
        position = after(machine, position, int(seed.choice(offer))) if offer else position
    room = next(room for room in range(60) if len(machine.offer(position, room).tokens) or position.state == DONE)
    while position.state != DONE:
        position = after(machine, position, int(seed.choice(list(machine.offer(position, room).tokens))))
        room -= 1
    assert room == 0


def after(machine: Machine, position: Position, token: int) -> Position:
    following = machine.advance(position, token)
    assert following is not None
    return following


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["", " \n\t", ".", "Took 5 mg", "</s> <item> <amount>", "<unk>"])
def test_there_is_always_a_way_from_the_start(kind: str, text: str) -> None:
    for grammar in GRAMMARS:
        for limit in range(1, 9):
            assert walk(plan_of(kind, text, grammar, limit), random.Random(limit), keep_on=1.0)[-1] == END


# A model can only learn to write what may be written.

NOTE = (
    "Exam:\nTook 12.5 mg (twice daily), then\t1,000 units; pressure 120/80, 98%.\n- non-smoker, aspirin-induced rash\n"
    "(R) knee pain 7/10 on 2024-01-05.\n\nThe patient's sister: b.i.d. dosing/two tablets."
)
COPIED = (
    "12.5 mg", "twice daily", "1,000 units", "120/80", "98%", "non-smoker", "aspirin-induced rash", "(R) knee", "R", "2024-01-05",
    "Took 12.5 mg (twice daily)", "patient's sister", "b.i.d.", "b.i.d", "two tablets", "dosing", "knee pain 7/10", "Exam",
    "daily), then\t1,000", "tablets.",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", COPIED)
def test_a_value_written_as_the_tokenizer_writes_it_is_found_in_the_source(kind: str, value: str) -> None:
    plan = plan_of(kind, NOTE, GRAMMARS[0], 60)
    ids = planner_of(kind).automaton(GRAMMARS[0]).written([("item", {"name": value})])
    [found] = read(plan, ids).values
    assert found.start == NOTE.index(value)
    assert NOTE[found.start : found.end] == value


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", "12|2.5 mg|aily|1,00|120|80|smoker|2024|01|patient|Tooks|units pressure|.".split("|"))
def test_a_part_of_a_word_or_number_cannot_be_written(kind: str, value: str) -> None:
    plan = plan_of(kind, NOTE, GRAMMARS[0], 60)
    ids = planner_of(kind).automaton(GRAMMARS[0]).written([("item", {"name": value})])
    with pytest.raises(ValueError, match="is not what its constraint allows"):
        read(plan, ids)


@pytest.mark.parametrize("kind", KINDS)
def test_all_fields_are_read_back(kind: str) -> None:
    lines = [
        ("item", {"name": "aspirin-induced rash", "amount": "aspirin", "state": "present then"}),
        ("place", {"where": "walker", "count": "120/80"}),
        ("item", {"name": "knee pain", "state": "present"}),
        ("place", {"where": "clinic"}),
    ]
    plan = plan_of(kind, NOTE, GRAMMARS[1], 90)
    reading = read(plan, planner_of(kind).automaton(GRAMMARS[1]).written(lines))
    told = [(v.line, v.line_name, v.field, NOTE[v.start : v.end] if v.choice is None else v.choice) for v in reading.values]
    assert told == [(i, name, field, value) for i, (name, fields) in enumerate(lines) for field, value in fields.items()]
    assert not reading.cut


def test_of_several_places_the_first_is_taken_and_all_are_counted() -> None:
    text = "pain, then fever, then pain"
    for kind in KINDS:
        plan = plan_of(kind, text, GRAMMARS[0], 20)
        [value] = read(plan, planner_of(kind).automaton(GRAMMARS[0]).written([("item", {"name": "pain"})])).values
        assert (value.start, value.end, value.candidates) == (0, 4, 2)


def test_only_the_span_of_the_text_is_copied() -> None:
    text = "copy values: pain and fever. pain"
    for kind in KINDS:
        plan = plan_of(kind, text, GRAMMARS[0], 20, start=13, end=27)
        automaton = planner_of(kind).automaton(GRAMMARS[0])
        [value] = read(plan, automaton.written([("item", {"name": "pain"})])).values
        assert (value.start, value.candidates) == (13, 1)
        with pytest.raises(ValueError, match="is not what"):
            read(plan, automaton.written([("item", {"name": "values"})]))


def test_what_the_model_does_not_read_is_not_copied() -> None:
    for kind in KINDS:
        plan = planner_of(kind).plan("fever " * 50 + "rash", Constraint(GRAMMARS[0]), 20, 20)
        with pytest.raises(ValueError, match="is not what"):
            read(plan, planner_of(kind).automaton(GRAMMARS[0]).written([("item", {"name": "rash"})]))


def test_hyphens_are_open_only_where_the_field_says_so() -> None:
    for kind in KINDS:
        automaton = planner_of(kind).automaton(GRAMMARS[1])
        plan = plan_of(kind, NOTE, GRAMMARS[1], 60)
        read(plan, automaton.written([("item", {"name": "rash", "amount": "aspirin", "state": "present"})]))
        with pytest.raises(ValueError, match="is not what"):
            read(plan, automaton.written([("item", {"name": "aspirin", "state": "present"})]))


def test_no_value_runs_over_a_blank_line() -> None:
    text = "mild pain\n \na low fever"
    for kind in KINDS:
        plan = plan_of(kind, text, GRAMMARS[0], 60)
        for seed in range(30):
            for value in read(plan, walk(plan, random.Random(seed))).values:
                assert "\n" not in text[value.start : value.end]


def test_a_limit_that_withholds_something_is_told() -> None:
    plan = plan_of("wordpiece", "mild pain", GRAMMARS[0], 4)
    assert read(plan, planner_of("wordpiece").automaton(GRAMMARS[0]).written([("item", {"name": "pain"})])).cut
    assert not read(plan_of("wordpiece", "mild pain", GRAMMARS[0], 40), [END]).cut


# What cannot be had is said.


@pytest.mark.parametrize(
    "make",
    [
        lambda: Grammar(()),
        lambda: Grammar((Line("a", "<item>", (Copy("x"),)), Line("a", "<place>", (Copy("x"),)))),
        lambda: Line("a", "", (Copy("x"),)),
        lambda: Line("a", "<item>", ()),
        lambda: Line("a", "<item>", (Copy("x"), Copy("y"))),
        lambda: Line("a", "<item>", (Copy("x"), Number("x", "<count>"))),
        lambda: Line("a", "<item>", (Enum("x", "<state>", ()),)),
        lambda: Line("a", "<item>", (Copy("x", max_tokens=0),)),
    ],
)
def test_fields_that_cannot_be_told_apart_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r"^lines? |^a grammar "):
        make()


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ((Line("a", "<item>", (Copy("x"),)), Line("b", "<item>", (Copy("x"),))), "cannot be told"),
        ((Line("a", "took", (Copy("x"),)), Line("b", "took units", (Copy("x"),))), "cannot be told"),
        ((Line("a", "<item>", (Enum("x", "", ("present", "<item>")),)),), "first token of a tag"),
        ((Line("a", "<item>", (Enum("x", "", ("present", " present")),)),), "same tokens"),
        ((Line("a", "漢字", (Copy("x"),)),), "not in the model's vocabulary"),
    ],
)
def test_tags_that_the_tokenizer_confuses_are_refused(lines: tuple[Line, ...], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        planner_of("wordpiece").automaton(Grammar(lines))


def test_a_tokenizer_without_offsets_is_refused() -> None:
    class Slow:
        tells_offsets = False

    with pytest.raises(EngineError, match="offsets"):
        Planner(Slow(), [END], 100).automaton(GRAMMARS[0])  # type: ignore[arg-type]


@pytest.mark.parametrize(("start", "end"), [(5, 3), (0, 99), (-1, None)])
def test_a_span_outside_the_text_is_refused(start: int, end: int | None) -> None:
    with pytest.raises(ValueError, match="a text of 10"):
        planner_of("bpe").plan("mild pain.", Constraint(GRAMMARS[0], start, end), 3, 5)


def test_lines_that_the_grammar_does_not_have_are_not_written() -> None:
    automaton: Automaton = planner_of("bpe").automaton(GRAMMARS[1])
    for line in [("other", {}), ("item", {"nam": "x"}), ("item", {"name": "x"}), ("item", {"name": "x", "state": "odd"})]:
        with pytest.raises(ValueError, match=r"^line "):
            automaton.written([line])


@pytest.mark.parametrize(("backend", "device"), [("ctranslate2", "cpu"), ("echo", "cpu"), ("torch", "cuda")])
def test_backends_that_cannot_constrain_name_those_that_can(backend: str, device: str) -> None:
    with pytest.raises(EngineError, match="torch on cpu, generate on cpu"):
        check_constraint(backend, device)
    check_constraint("torch", "cpu")
    check_constraint("generate", device)


def test_constraints_travel_and_serve_as_keys() -> None:
    for grammar in GRAMMARS:
        assert pickle.loads(pickle.dumps(Constraint(grammar))) == Constraint(grammar)
        assert {grammar: 1}[pickle.loads(pickle.dumps(grammar))] == 1


def test_reprs_hold_no_text() -> None:
    plan = plan_of("bpe", "canary-7421 pain", GRAMMARS[0], 20)
    reading = read(plan, walk(plan, random.Random(1)))
    assert "canary" not in f"{plan!r} {reading!r} {reading.values!r} {plan.open()!r}"
