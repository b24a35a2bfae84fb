"""Copy-constrained output as plain data: which tagged lines may be written, and that their values are copied from the source text.

    grammar = Grammar((Line("item", "<item>", (Copy("name"), Number("count", "<count>"), Enum("state", "<state>", ("new", "used"))),))
    Request(text, DecodeSettings(max_new_tokens=200), constraint=Constraint(grammar))

The output is any number of lines in any order, then the end of the sequence. A line is its tag, then its fields in order; the first is
always written, the others may be left out unless they are required. It knows nothing of models, of tokens, or of what the lines mean.

The idea, a constraint read from a grammar and the source at each step, is that of constrained decoding for event extraction (Text2Event,
Lu et al. 2021, arXiv 2106.09232); that values are copied as spans is that of pointer networks (Vinyals et al. 2015, arXiv 1506.03134).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Copy:
    """A span of the source: whole words and whole numbers (see `constraint_words`), at most `max_tokens` tokens.

    `inside_hyphens`: it may also begin or end at a hyphen between two letters. Off, `smoker` cannot be had out of `non-smoker`; on,
    `aspirin` can be had out of `aspirin-induced`.
    """

    name: str
    tag: str = ""
    required: bool = False
    max_tokens: int = 48
    inside_hyphens: bool = False


@dataclass(frozen=True, slots=True)
class Number:
    """One whole number of the source: digits with their sign and what joins them (`12.5`, `1,000`, `120/80`, `2024-01-05`)."""

    name: str
    tag: str = ""
    required: bool = False
    max_tokens: int = 24


@dataclass(frozen=True, slots=True)
class Enum:
    """One of these strings."""

    name: str
    tag: str = ""
    choices: tuple[str, ...] = ()
    required: bool = False


Field = Copy | Number | Enum


@dataclass(frozen=True, slots=True)
class Line:
    """`tag` begins it. The first field is always written and may have no tag of its own; each other field needs one.

    `distinct`: each line of this kind begins its first field, a copied one, at a place of its own, as long as there are such places: what a
    model has written it cannot write for ever. Raises ValueError for fields that could not be told apart.
    """

    name: str
    tag: str
    fields: tuple[Field, ...]
    distinct: bool = False

    def __post_init__(self) -> None:
        names = [each.name for each in self.fields]
        if not self.tag or not self.fields or not all(each.tag for each in self.fields[1:]):
            raise ValueError(f"line {self.name!r} needs a tag, at least one field, and a tag for each field after the first")
        if len(set(names)) < len(names):
            raise ValueError(f"line {self.name!r} has two fields of one name; found {', '.join(names)}")
        for each in self.fields:
            if isinstance(each, Enum) and not (each.choices and all(choice.strip() for choice in each.choices)):
                raise ValueError(f"line {self.name!r}, field {each.name!r}: an enum needs choices, none of them empty")
            if not isinstance(each, Enum) and each.max_tokens < 1:
                raise ValueError(f"line {self.name!r}, field {each.name!r}: max_tokens is {each.max_tokens}; at least 1")


@dataclass(frozen=True, slots=True)
class Grammar:
    """The kinds of lines. Raises ValueError if there is none or two have one name."""

    lines: tuple[Line, ...]

    def __post_init__(self) -> None:
        names = [line.name for line in self.lines]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"a grammar needs lines, each with a name of its own; found {', '.join(names) or 'none'}")


@dataclass(frozen=True, slots=True)
class Constraint:
    """What a request's output has to be. Values are copied from characters [start, end) of its text (end None: to the end); what stands
    before, such as a prefix that names the task, is read and not copied."""

    grammar: Grammar
    start: int = 0
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Value:
    """A field that was written.

    `line`: the number of its line in the output, from 0, of the kind `line_name`. `tokens`: [first, last) of the generated ids.
    Of a copied one `start` and `end`: characters [start, end) of the request's text; `choice` is None. Of an enum `choice`: the string;
    `start` and `end` are None. `candidates`: how many places of the source the tokens fit; the first of them is taken.
    """

    line: int
    line_name: str
    field: str
    tokens: tuple[int, int]
    start: int | None = None
    end: int | None = None
    choice: str | None = dataclasses.field(default=None, repr=False)
    candidates: int = 1
