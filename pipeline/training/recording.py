"""The objective of records: the text in, its record as tagged lines out.

What is learned is what decoding leaves to choose: at each step the softmax runs over the tokens that the grammar and the source offer
there, so nothing is spent on learning to copy, and a token without an alternative costs nothing. Values that cannot be copied are left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.training.material import Codec, Drawn, Material, lengths_of
from pipeline.training.rows import Row
from pipeline.training.settings import TaskSection
from transforms.engine.constraint import Constraint
from transforms.engine.constraint_automaton import Automaton
from transforms.engine.constraint_machine import Machine, Position
from transforms.engine.constraint_plan import Planner
from transforms.record_lines import RECORD_GRAMMAR, Written, record_lines

Offered = list[NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class _Example:
    """`offered`: for each target token the ids that might have stood there."""

    drawn: Drawn = field(repr=False)
    offered: Offered = field(repr=False)


def record_material(name: str, rows: Sequence[Row], task: TaskSection, codec: Codec) -> Material:
    """Rows as token ids; a row's reference is a record in the shape of RECORD_TYPE as JSON. Rows without one are left out, a note without
    findings is not: it teaches to write nothing."""
    limit = codec.limit if task.max_source_tokens == "auto" else min(task.max_source_tokens, codec.limit)
    planner = Planner(codec.sources, [codec.end], len(codec.tokenizer))
    made = [_example(row, task, codec, planner, limit) for row in rows]
    examples = [example for example in made if example is not None]
    return Material(
        name,
        task.weight,
        0.0,
        lengths_of([example.drawn for example in examples]),
        lambda index, _: examples[index].drawn,
        cut=len(made) - len(examples),
        offered=lambda index: examples[index].offered,
    )


def _example(row: Row, task: TaskSection, codec: Codec, planner: Planner, limit: int) -> _Example | None:
    """None for a row that is too long, or whose reference is no record."""
    record = _record(row.reference)
    text = task.prefix + row.text
    [ids] = codec.pieces([text])
    if record is None or len(ids) + codec.sources.special_count > limit:
        return None
    plan = planner.plan(text, Constraint(RECORD_GRAMMAR, start=len(task.prefix)), len(ids), task.max_target_tokens)
    machine, automaton = plan.open(), planner.automaton(RECORD_GRAMMAR)
    writable = [line for line in record_lines(record) if _followed(machine, automaton.written([line]), task.max_target_tokens)]
    target, offered = _fitting(machine, automaton, writable, task.max_target_tokens)
    return _Example((codec.source(ids, limit), target), offered)


def _record(reference: str) -> Mapping[str, Any] | None:
    try:
        record = json.loads(reference)
    except ValueError:
        return None
    return record if isinstance(record, Mapping) else None


def _fitting(machine: Machine, automaton: Automaton, lines: Sequence[Written], limit: int) -> tuple[list[int], Offered]:
    """As many of the lines as there is room for, the end included."""
    for count in range(len(lines), -1, -1):
        target = automaton.written(lines[:count])
        offered = _followed(machine, target, limit) if len(target) <= limit else None
        if offered is not None:
            return target, offered
    raise ValueError("not even the end can be written")


def _followed(machine: Machine, target: Sequence[int], limit: int) -> Offered | None:
    """What is offered before each token of the target; None if one of them may not stand where it does."""
    position: Position | None = machine.start
    offered: Offered = []
    for index, token in enumerate(target):
        assert position is not None
        tokens = np.asarray(machine.offer(position, limit - index).tokens, dtype=np.int64)
        position = machine.advance(position, token)
        if position is None or token not in tokens:
            return None
        offered.append(tokens)
    return offered
