"""The job's graph is one chain, and a graph that is not is refused by the name of the step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.coders import VarIntCoder
from apache_beam.transforms.userstate import CombiningValueStateSpec

from pipeline.graph import check_graph
from pipeline.run import notes_to_commits
from schemas.errors import ConfigurationError
from tests.canaries import planned


def test_the_job_is_one_chain(notes_folder: Path, tmp_path: Path) -> None:
    prepared, plan = planned(notes_folder, tmp_path / "out")
    pipeline = beam.Pipeline(runner="FnApiRunner")
    notes_to_commits(pipeline, prepared, plan)
    check_graph(pipeline)


class _Tagged(beam.DoFn):
    def process(self, number: int) -> Iterator[Any]:
        yield beam.pvalue.TaggedOutput("odd" if number % 2 else "even", number)


class _AtTheEnd(beam.DoFn):
    def process(self, number: int) -> None:
        pass

    def finish_bundle(self) -> Iterator[Any]:
        yield beam.transforms.window.GlobalWindows.windowed_value(1)


COUNT = beam.DoFn.StateParam(CombiningValueStateSpec("count", VarIntCoder(), sum))


class _Stateful(beam.DoFn):
    def process(self, pair: tuple[int, int], count: Any = COUNT) -> None:
        count.add(1)


def branch(numbers: Any) -> None:
    numbers | "One" >> beam.Map(str)
    numbers | "Two" >> beam.Map(repr)


def join(numbers: Any) -> None:
    (numbers | "One" >> beam.Map(str), numbers.pipeline | "Other" >> beam.Create([3])) | beam.Flatten()


def beside(numbers: Any) -> None:
    numbers.pipeline | "Other" >> beam.Create([3]) | "Own" >> beam.Map(str)


def side(numbers: Any) -> None:
    numbers | "Aside" >> beam.Map(lambda number, given: number, beam.pvalue.AsSingleton(numbers.pipeline | beam.Create([3])))


SHAPES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a second branch": (branch, "'Two' makes the chain branch"),
    "two that become one": (join, "'Flatten' makes the chain branch"),
    "two chains": (beside, "the graph has 2 beginnings"),
    "a side input": (side, "'Aside' has a side input"),
    "tagged outputs": (lambda n: n | "Tag" >> beam.ParDo(_Tagged()).with_outputs("odd", "even"), "has tagged outputs"),
    "the end of a bundle": (lambda n: n | "End" >> beam.ParDo(_AtTheEnd()), "'End' does something when a bundle finishes"),
    "state": (lambda n: n | beam.Map(lambda i: (i, i)) | "Count" >> beam.ParDo(_Stateful()), "'Count' has state or timers"),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_not_one_chain_is_refused(shape: str) -> None:
    build, message = SHAPES[shape]
    pipeline = beam.Pipeline(runner="FnApiRunner")
    build(pipeline | "Numbers" >> beam.Create([1, 2]))
    with pytest.raises(ConfigurationError) as refused:
        check_graph(pipeline)
    assert message in str(refused.value)
