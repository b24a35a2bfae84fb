"""The shape of the graph: one chain. What branches, holds state or waits for the end of a bundle is wrong on one runner or another."""

from __future__ import annotations

from collections import Counter
from typing import Any

import apache_beam as beam
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor
from apache_beam.transforms.userstate import is_stateful_dofn

from schemas.errors import ConfigurationError


def check_graph(pipeline: beam.Pipeline) -> None:
    """Refuse a graph that is not one chain of stateless steps. Raises ConfigurationError that names the step.

    Beam's runners differ in how they treat the rest: outputs of a second branch have been seen to be lost without a word, what a bundle
    gives when it finishes is computed and thrown away, side inputs are held in memory whole.
    """
    visitor = _Shape()
    pipeline.visit(visitor)
    if len(visitor.roots) > 1:
        raise ConfigurationError(f"the graph has {len(visitor.roots)} beginnings ({', '.join(visitor.roots)}); it must be one chain")


class _Shape(PipelineVisitor):  # type: ignore[misc]
    """Looks at the leaves of the graph, in topological order."""

    def __init__(self) -> None:
        self.roots: list[str] = []
        self._readers: Counter[Any] = Counter()

    def visit_transform(self, node: AppliedPTransform) -> None:
        problem = self._problem(node)
        if problem:
            raise ConfigurationError(f"the graph's step {node.full_label!r} {problem}; every runner is right only about one chain")

    def _problem(self, node: AppliedPTransform) -> str:
        sources = [source for source in node.inputs if not isinstance(source, beam.pvalue.PBegin)]
        if not sources:
            self.roots.append(node.full_label)
        self._readers.update(sources)
        if node.side_inputs:
            return "has a side input"
        if len(node.outputs) > 1 or any(tag is not None for tag in node.outputs):
            return "has tagged outputs"
        if len(sources) > 1 or any(self._readers[source] > 1 for source in sources):
            return "makes the chain branch"
        return _bundle_problem(getattr(node.transform, "fn", None))


def _bundle_problem(fn: Any) -> str:
    if not isinstance(fn, beam.DoFn):
        return ""
    if is_stateful_dofn(fn):
        return "has state or timers"
    own = getattr(type(fn), "finish_bundle", None)
    return "" if own is beam.DoFn.finish_bundle else "does something when a bundle finishes"
