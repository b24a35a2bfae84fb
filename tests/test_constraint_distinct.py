"""Lines that are distinct: what was said at a place is not offered there again, while anything else is left."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.constraint_cases import planner_of, texts, tokenizer_of
from transforms.engine.constraint import Constraint, Copy, Grammar, Line, Number
from transforms.engine.constraint_machine import Machine, Position

# So many tokens of a value, and of an output, that no limit withholds anything.
ROOM = 10_000
GRAMMAR = Grammar(
    (
        Line("item", "<item>", (Copy("name", max_tokens=ROOM), Copy("amount", "<amount>", max_tokens=ROOM)), distinct=True),
        Line("place", "<place>", (Number("count", max_tokens=ROOM),), distinct=True),
        Line("state", "<state>", (Copy("name", max_tokens=ROOM),)),
    )
)
# Their words come again and again.
notes = st.lists(st.sampled_from(("pain ", "mild pain ", "12 ", "12.5 mg ", "tea\n", "tea ", "the ")), max_size=14).map("".join) | texts


def openings(machine: Machine, position: Position, vocabulary: int) -> set[int]:
    """What may open a value, by trying every token: those with a place that no line of the kind began at, or all if there are none."""
    opened = {token: after for token in range(vocabulary) if (after := machine.advance(position, token))}
    line, field = next((where for after in opened.values() if (where := machine.inside(after))), (0, 1))
    taken = {start for kind, start in position.taken if kind == line and field == 0}
    return {token for token, after in opened.items() if any(start not in taken for _, start in after.places)} or set(opened)


@settings(max_examples=10)
@given(st.sampled_from(("bpe", "wordpiece", "unigram")), notes, st.randoms(use_true_random=False))
def test_openings_are_those_at_places_of_their_own(kind: str, text: str, seed: random.Random) -> None:
    made, tokenizer = planner_of(kind), tokenizer_of(kind)
    machine = made.plan(text, Constraint(GRAMMAR), 1_000, ROOM).open()
    position, checked = machine.start, 0
    while checked < 8:
        offer = machine.offer(position, ROOM)
        tokens = [int(token) for token in offer.tokens]
        assert not offer.withheld and len(set(tokens)) == len(tokens)
        begun = position.used == 0 and any(machine.advance(position, token).places for token in tokens)  # type: ignore[union-attr]
        if begun:
            assert set(tokens) == openings(machine, position, len(tokenizer))
        tags = [token for token in tokens if token != tokenizer.eos_token_id]
        if not tags:
            return
        checked += 1
        following = machine.advance(position, seed.choice(tags))
        assert following is not None
        position = following


def test_a_word_said_once_is_not_said_again_until_nothing_else_is_left() -> None:
    made, tokenizer = planner_of("wordpiece"), tokenizer_of("wordpiece")
    text = "low mild low"
    item, low, mild = tokenizer.convert_tokens_to_ids(["<item>", "low", "mild"])
    machine = made.plan(text, Constraint(GRAMMAR), 1_000, ROOM).open()

    def said(*words: int) -> set[int]:
        position = machine.start
        for token in [token for word in words for token in (item, word)] + [item]:
            following = machine.advance(position, token)
            assert following is not None
            position = following
        return {int(token) for token in machine.offer(position, ROOM).tokens}

    assert said() == {low, mild}
    assert said(mild) == {low}
    # It stands twice.
    assert said(low) == {low, mild}
    assert said(low, mild, low) == {low, mild}
