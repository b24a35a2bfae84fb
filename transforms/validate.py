"""Validate: judge each note by the declared contract. Rows that fail a critical rule are set aside; those that fail a warning are flagged.

The suite's expectations are compiled once into Great Expectations' metric graph, and for each batch only their row-wise conditions
are computed. That is what Great Expectations itself computes first. Left out is what it does around it, which costs more than ten
times as much: building the graph anew for every batch, and results that hold the failing texts. No data context is made either: two
threads that share one get wrong counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import apache_beam as beam
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.expectations import Rule, Suite, build_expectation, merge_expectations, register_expectations
from schemas.note import NOTE_SCHEMA, PASSTHROUGH_PREFIX
from schemas.rejection import Reason, Rejection, Stage
from schemas.summary import VALIDATE_FIELDS
from transforms.batch import NoteBatch, guarded, timed

__all__ = ["Outcome", "ValidateNotes", "Validator", "merge_expectations", "validate_batch"]

_BATCH_ID = "notes"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one rule found in one table: how many rows it judged, and the zero-based positions of those that failed, ascending."""

    rule: Rule
    rows: int
    evaluated: int = 0
    unexpected: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64), repr=False)
    crashed: bool = False

    def counts(self) -> dict[str, int]:
        return {
            "evaluated": self.evaluated,
            "unexpected": len(self.unexpected),
            "crashed": self.rows if self.crashed else 0,
            "missing": 0 if self.crashed else self.rows - self.evaluated,
        }


class Validator:
    """A suite compiled for pandas. Build one in DoFn.setup() (it does not pickle); it keeps nothing of the tables that it has judged."""

    def __init__(self, suite: Suite) -> None:
        register_expectations()
        self.suite = suite
        self._conditions = [_condition(rule) for rule in suite.rules]
        self._edges = _dependency_edges(self._conditions)

    def judge(self, notes: pa.Table) -> list[Outcome]:
        """One outcome per rule, in suite order. A check that fails (a column that is not there, say) is an outcome, no exception."""
        from great_expectations.execution_engine import PandasExecutionEngine
        from great_expectations.validator.validation_graph import ValidationGraph

        if not notes.num_rows:
            return [Outcome(rule, 0) for rule in self.suite.rules]
        # A fresh engine each time: it caches metrics and holds on to the data.
        engine = PandasExecutionEngine(caching=False, batch_data_dict={_BATCH_ID: _frame(notes, self.suite)})
        graph = ValidationGraph(execution_engine=engine, edges=self._edges)
        # The second result, why metrics were aborted, quotes values: it is dropped unseen.
        metrics, _ = graph.resolve(show_progress_bars=False)
        pairs = zip(self.suite.rules, self._conditions, strict=True)
        return [_outcome(rule, metrics.get(condition.id), notes.num_rows) for rule, condition in pairs]


def _condition(rule: Rule) -> Any:
    """The metric that says for each row whether it fails the rule."""
    from great_expectations.expectations.registry import get_metric_kwargs
    from great_expectations.validator.metric_configuration import MetricConfiguration

    expectation = build_expectation(rule)
    name = f"{expectation.map_metric}.condition"
    kwargs = get_metric_kwargs(metric_name=name, configuration=expectation.configuration)
    return MetricConfiguration(name, kwargs["metric_domain_kwargs"], kwargs["metric_value_kwargs"])


def _dependency_edges(conditions: Sequence[Any]) -> list[Any]:
    """The graph of all metrics that the conditions need, shared ones once."""
    from great_expectations.execution_engine import PandasExecutionEngine
    from great_expectations.validator.validation_graph import ValidationGraph

    graph = ValidationGraph(execution_engine=PandasExecutionEngine())
    for condition in conditions:
        graph.build_metric_dependency_graph(metric_configuration=condition)
    return list(graph.edges)


def _frame(notes: pa.Table, suite: Suite) -> Any:
    """The columns that the suite names as a pandas frame; a pass-through column goes by its own name unless that is one of ours."""
    ours = set(NOTE_SCHEMA.names)
    names = {name: name.removeprefix(PASSTHROUGH_PREFIX) for name in notes.column_names}
    wanted = {column for rule in suite.rules for column in rule.columns}
    # A row condition may name any column.
    take_all = any("row_condition" in rule.kwargs for rule in suite.rules)
    columns = {
        shown: notes.column(name)
        for name, short in names.items()
        for shown in {name, short if short not in ours else name}
        if take_all or shown in wanted
    }
    return pa.table(columns).to_pandas()


def _outcome(rule: Rule, condition: tuple[Any, ...] | None, rows: int) -> Outcome:
    """`condition[0]` is a boolean series over the rows judged, true where unexpected, its index their positions; None if it crashed."""
    if condition is None:
        return Outcome(rule, rows, crashed=True)
    failed = condition[0]
    positions = failed.index.to_numpy()[failed.to_numpy(dtype=bool)]
    return Outcome(rule, rows, evaluated=len(failed), unexpected=np.sort(positions))


def validate_batch(batch: NoteBatch, validator: Validator, *, keep_rejected_text: bool = False) -> NoteBatch:
    """Set aside the rows that fail a critical rule, with the first such rule's reason; add `contract_warnings` to the others.

    `contract_warnings`: keys of the warning rules that the row failed, in suite order. A critical rule whose check crashed says nothing
    about any row, so all rows that no earlier rule set aside go as CONTRACT_CRASHED.
    """
    outcomes = validator.judge(batch.notes)
    failed = _first_failures(outcomes)
    warned = _warnings(outcomes, batch.notes.num_rows)
    return (
        batch.counted(
            expectations={outcome.rule.key: outcome.counts() for outcome in outcomes},
            notes_warned=sum(1 for row, keys in enumerate(warned) if keys and row not in failed),
        )
        .with_columns(VALIDATE_FIELDS, {"contract_warnings": warned})
        .reject(_rejections(batch.notes, failed, keep_rejected_text))
    )


def _first_failures(outcomes: Sequence[Outcome]) -> dict[int, tuple[Rule, Reason]]:
    """Row position -> the first critical rule that it failed, and the reason to give."""
    failed: dict[int, tuple[Rule, Reason]] = {}
    for outcome in outcomes:
        if not outcome.rule.critical:
            continue
        rows = range(outcome.rows) if outcome.crashed else outcome.unexpected.tolist()
        reason = Reason.CONTRACT_CRASHED if outcome.crashed else outcome.rule.reason
        for row in rows:
            failed.setdefault(row, (outcome.rule, reason))
    return failed


def _warnings(outcomes: Sequence[Outcome], rows: int) -> list[list[str]]:
    warned: list[list[str]] = [[] for _ in range(rows)]
    for outcome in outcomes:
        if not outcome.rule.critical:
            for row in outcome.unexpected.tolist():
                warned[row].append(outcome.rule.key)
    return warned


def _rejections(notes: pa.Table, failed: Mapping[int, tuple[Rule, Reason]], keep_rejected_text: bool) -> dict[int, Rejection]:
    names = ["note_id", "source_file", "source_row", "source_line", *(["text"] if keep_rejected_text else [])]
    places = notes.select(names).take(pa.array(list(failed), type=pa.int64())).to_pylist()
    return {
        row: Rejection(stage=Stage.VALIDATE, reason=reason, expectation=rule.key, **place)
        for (row, (rule, reason)), place in zip(failed.items(), places, strict=True)
    }


class _Validate(beam.DoFn):  # type: ignore[misc]
    def __init__(self, suite: Suite, keep_rejected_text: bool) -> None:
        self._suite = suite
        self._keep_rejected_text = keep_rejected_text

    def setup(self) -> None:
        with guarded("compiling the contract"):
            self._validator = Validator(self._suite)

    def process(self, batch: NoteBatch) -> Iterator[NoteBatch]:
        step = partial(validate_batch, validator=self._validator, keep_rejected_text=self._keep_rejected_text)
        yield timed("validate", step, batch)


class ValidateNotes(beam.PTransform):  # type: ignore[misc]
    """PCollection[NoteBatch] -> PCollection[NoteBatch]: validate_batch with one validator per DoFn instance."""

    def __init__(self, suite: Suite, keep_rejected_text: bool = False) -> None:
        super().__init__()
        self._suite = suite
        self._keep_rejected_text = keep_rejected_text

    def expand(self, batches: Any) -> Any:
        return batches | beam.ParDo(_Validate(self._suite, self._keep_rejected_text))
