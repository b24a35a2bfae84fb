"""Grammars and texts for the tests of constrained decoding, and what every constrained output has to be: checked by other means than
those that make it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from hypothesis import strategies as st

from tests.tiny_tokenizers import make_tokenizer
from transforms.engine.constraint import Copy, Enum, Grammar, Line, Number, Value
from transforms.engine.constraint_plan import Planner
from transforms.engine.tokens import SourceTokenizer

STATES = ("present", "present then", "no fever")
GRAMMARS = (
    Grammar((Line("item", "<item>", (Copy("name"),)),)),
    Grammar(
        (
            Line(
                "item",
                "<item>",
                (
                    Copy("name", max_tokens=30),
                    Copy("amount", "<amount>", inside_hyphens=True),
                    Enum("state", "<state>", STATES, required=True),
                ),
            ),
            Line("place", "<place>", (Enum("where", "", ("clinic", "walker")), Number("count", "<count>"))),
        )
    ),
    Grammar(
        (
            Line(
                "item",
                "<item>",
                (Copy("name", "<place>"), Number("count", "<count>", required=True), Copy("rest", "<amount>", max_tokens=4)),
            ),
            # Its tag is made of ordinary tokens.
            Line("note", "took:", (Number("count", max_tokens=5),)),
        )
    ),
)
_PARTS = (
    *"abz 1209.,:;/-+'%()[]\n\t_<>",
    " the ", " pain", "mg ", " 12.5", " 1,000 ", "120/80", "non-smoker", " (98%),", " Took ", "took:", "\n\n", "\r\n", " patient's ",
    "é", "e\u0301", "½", "²", "\u00ad", "\u200b", "β", "漢字", "ﬁ", "İ", "😀", "<item>", "</s>", "<unk>", " present", " no fever",
)  # fmt: skip
texts = st.lists(st.sampled_from(_PARTS), max_size=30).map("".join) | st.text(max_size=25).filter(lambda text: text.isprintable())
grammars = st.sampled_from(GRAMMARS)
limits = st.integers(1, 14) | st.integers(15, 60)

_NUMBER = re.compile(r"\d+(?:[.,:/^-]\d+)*")


def assert_whole(text: str, grammar: Grammar, values: Sequence[Value]) -> None:
    """Every copied value is a span of the text that cuts no word and no number; every enum is one of its choices."""
    fields = {(line.name, field.name): field for line in grammar.lines for field in line.fields}
    for value in values:
        field = fields[value.line_name, value.field]
        if isinstance(field, Enum):
            assert value.choice in field.choices
            assert value.start is None
            assert value.end is None
            continue
        assert value.start is not None
        assert value.end is not None
        assert 0 <= value.start < value.end <= len(text)
        assert value.choice is None
        assert value.candidates >= 1
        assert value.tokens[1] - value.tokens[0] <= field.max_tokens
        copied = text[value.start : value.end]
        assert copied == copied.strip()
        assert not (copied[0].isalnum() and text[: value.start][-1:].isalnum())
        assert not (copied[-1].isalnum() and text[value.end :][:1].isalnum())
        for number in _NUMBER.finditer(text):
            inside = max(number.start(), value.start) < min(number.end(), value.end)
            assert not inside or value.start <= number.start() <= number.end() <= value.end
        if isinstance(field, Number):
            assert any(char.isnumeric() for char in copied)
            assert not any(char.isalpha() or char.isspace() for char in copied)


@cache
def tokenizer_of(kind: str) -> Any:
    return make_tokenizer(kind)


@cache
def planner_of(kind: str) -> Planner:
    tokenizer = tokenizer_of(kind)
    return Planner(SourceTokenizer(tokenizer), [tokenizer.eos_token_id], len(tokenizer))
