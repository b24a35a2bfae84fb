"""A record as the lines that a model writes, one per entity, and back: `<med> metformin <dose> 500 mg <freq> twice daily`.

The grammar of `engine.constraint` sees to it that every value is copied from the note. What a line holds is the schema of records; the idea
of one linear form for all that is to be extracted is that of UIE (Lu et al. 2022, arXiv 2203.12277). It knows nothing of models or windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from math import log
from typing import Any

from schemas.record import Assertion
from transforms.context import Context
from transforms.engine.constraint import Copy, Enum, Grammar, Line, Value
from transforms.sections import Page

Record = dict[str, Any]
Entity = dict[str, Any]
# The name of a line, with its values by field.
Written = tuple[str, dict[str, str]]

# What a line says when it says nothing of it: left to the context.
_SAID = tuple(str(said) for said in Assertion if said is not Assertion.PRESENT)
_ASSERTED = Enum("assertion", "<is>", _SAID)
_SINGLE = ("age", "sex")
# Line -> field of the record, and the leaves of its entities in the order of the line with their tags.
_LINES: dict[str, tuple[str, dict[str, str]]] = {
    "problem": ("problems", {"name": "", "onset": "<onset>"}),
    "medication": (
        "medications",
        {"name": "", "dose": "<dose>", "route": "<route>", "frequency": "<freq>", "duration": "<dur>", "reason": "<for>"},
    ),
    "allergy": ("allergies", {"substance": "", "reaction": "<reaction>"}),
    "vital": ("observations", {"name": "", "value": "<value>", "unit": "<unit>"}),
    "lab": ("observations", {"name": "", "value": "<value>", "unit": "<unit>"}),
    "procedure": ("procedures", {"name": "", "date": "<date>"}),
    "follow_up": ("follow_up", {"what": "", "when": "<when>"}),
}
_TAGS = {
    "age": "<age>", "sex": "<sex>", "problem": "<prob>", "medication": "<med>", "allergy": "<allergy>", "vital": "<vital>", "lab": "<lab>",
    "procedure": "<proc>", "follow_up": "<plan>",
}  # fmt: skip
_WITH_ASSERTION = frozenset(("problem", "medication", "allergy", "procedure"))
# Parts that a model may not leave out: a reading without its value says nothing.
_REQUIRED = frozenset((("vital", "value"), ("lab", "value")))
_MAX_TOKENS = 24


def _line(name: str) -> Line:
    parts = {name: ""} if name in _SINGLE else _LINES[name][1]
    copied = [Copy(part, tag, (name, part) in _REQUIRED, _MAX_TOKENS) for part, tag in parts.items()]
    return Line(name, _TAGS[name], (*copied, *((_ASSERTED,) if name in _WITH_ASSERTION else ())), distinct=True)


RECORD_GRAMMAR = Grammar(tuple(_line(name) for name in _TAGS))
# Every tag, as a tokenizer has to know it: one token each keeps the lines short.
RECORD_TAGS = tuple(dict.fromkeys(tag for line in RECORD_GRAMMAR.lines for tag in (line.tag, *(each.tag for each in line.fields)) if tag))


def record_lines(record: Mapping[str, Any]) -> list[Written]:
    """What a model is to write of a record in the shape of RECORD_TYPE, in the order of the note. Leaves need `text` and `start`.

    Of several entities of a kind that begin at one place the first is written.
    """
    placed: dict[tuple[str, int], Written] = {}
    for name in (name for name in _SINGLE if record.get(name)):
        placed[name, record[name]["start"]] = (name, {name: record[name]["text"]})
    for name, (field, parts) in _LINES.items():
        head = next(iter(parts))
        for entity in record.get(field) or ():
            if entity.get("category", name) == name and all(entity.get(part) for line, part in _REQUIRED if line == name):
                placed.setdefault((name, entity[head]["start"]), (name, _written(name, entity, parts)))
    return [line for _, line in sorted(placed.items(), key=lambda found: found[0][1])]


def _written(name: str, entity: Mapping[str, Any], parts: Mapping[str, str]) -> dict[str, str]:
    values = {part: entity[part]["text"] for part in parts if entity.get(part)}
    said = entity[next(iter(parts))].get("assertion")
    return values | ({"assertion": said} if name in _WITH_ASSERTION and said in _SAID else {})


def likely_lines(values: Sequence[Value], token_logprobs: Sequence[float], least: float) -> list[Value]:
    """The values of the lines whose probability is `least` (above 0, to 1) or more: the product over the line's tokens, from the end of the
    line before to its own, of how probable each was among those offered. `token_logprobs`: of every token of the output."""
    kept: list[Value] = []
    first = 0
    for _, group in groupby(values, key=lambda value: value.line):
        line = list(group)
        last = max(value.tokens[1] for value in line)
        if sum(token_logprobs[first:last]) >= log(least):
            kept += line
        first = last
    return kept


def record_of(values: Sequence[Value], offset: int, page: Page, context: Context) -> Record:
    """The record that these values of a constrained output are, in the shape of RECORD_TYPE; its readers are `model`.

    `offset`: what to add to the values' characters to get those of the page. Where a line does not say what is asserted, the context does;
    what is only talked about there (a risk, a condition) is left out.
    """
    record: Record = dict.fromkeys(_SINGLE) | {field: [] for field, _ in _LINES.values()}
    for _, group in groupby(values, key=lambda value: value.line):
        line = list(group)
        name = line[0].line_name
        if name in _SINGLE:
            start, end = _place(line[0], offset)
            record[name] = record[name] or page.leaf(start, end)
        elif entity := _entity(name, line, offset, page, context):
            record[_LINES[name][0]].append(entity)
    return record


def _entity(name: str, line: Sequence[Value], offset: int, page: Page, context: Context) -> Entity | None:
    said = _said(name, line, offset, context)
    if said is None:
        return None
    leaves = {value.field: page.leaf(*_place(value, offset), said) for value in line if value.start is not None}
    category = {"category": name} if name in ("vital", "lab") else {}
    return category | {part: leaves.get(part) for part in _LINES[name][1]} | {"codes": [], "readers": ["model"]}


def _said(name: str, line: Sequence[Value], offset: int, context: Context) -> Assertion | None:
    if name not in _WITH_ASSERTION:
        return Assertion.PRESENT
    told = next((value.choice for value in line if value.field == "assertion"), None)
    return Assertion(told) if told else context.said(_place(line[0], offset)[0])


def _place(value: Value, offset: int) -> tuple[int, int]:
    """Characters [start, end) of the page."""
    assert value.start is not None and value.end is not None, "the first value of a line is a copied one"
    return value.start + offset, value.end + offset
