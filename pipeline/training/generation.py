"""The objective of free generation: the text in, the reference out."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.training.material import Codec, Drawn, Material, fixed
from pipeline.training.rows import Row
from pipeline.training.settings import TaskSection


def generation_material(name: str, rows: Sequence[Row], task: TaskSection, codec: Codec, marker: int | None, smoothing: float) -> Material:
    """Rows as token ids. `marker`: a token that every output begins with and that is given, not learned."""
    limit = codec.limit if task.max_source_tokens == "auto" else min(task.max_source_tokens, codec.limit)
    lead = [] if marker is None else [marker]
    examples: list[Drawn] = []
    cut = 0
    for row, ids in zip(rows, codec.pieces([task.prefix + row.text for row in rows]), strict=True):
        target, shortened = codec.target(row.reference, task.max_target_tokens - len(lead))
        source = codec.source(ids, limit)
        cut += shortened or len(ids) + codec.sources.special_count > limit
        examples.append((source, lead + target))
    return fixed(name, task.weight, smoothing, examples, given=len(lead), cut=cut)
