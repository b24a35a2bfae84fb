"""The objective of selection: the text with marked sentences in, the markers of those that the reference calls for out.

Targets are the greedy oracle of Nallapati et al. 2017 (SummaRuNNer, arXiv 1611.04230): sentence by sentence, the one that raises the sum of
ROUGE-1 and ROUGE-2 F1 most, until none does. In that order, so that what comes first matters most.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from pipeline.default_model.examples import note_units, rouge_words
from pipeline.training.material import Codec, Drawn, Material, lengths_of
from pipeline.training.rows import Row
from pipeline.training.settings import TaskSection
from transforms.selection import SelectionFormat, mark_source

Gram = tuple[str, ...]


def selection_material(
    name: str, rows: Sequence[Row], task: TaskSection, codec: Codec, fmt: SelectionFormat, ends: bool = True
) -> Material:
    """Rows as token ids, the first sentence's marker drawn anew each time, so that every marker is learned.

    `ends`: whether it is learned when to end. If not, what is written is cut by the word budget (`transforms/selection.py`).
    Rows whose text has fewer than two sentences, or shares no word with the reference, teach nothing and are left out.
    """
    made = [example for row in rows if (example := _example(row, codec, fmt, ends)) is not None]
    markers = np.array(codec.tokenizer.convert_tokens_to_ids(fmt.tokens()[: fmt.n_markers]), dtype=np.int64)
    examples = [drawn for drawn, _ in made]

    def draw(index: int, rng: np.random.Generator) -> Drawn:
        source, target = examples[index]
        turned = dict(zip(markers.tolist(), np.roll(markers, -int(rng.integers(fmt.n_markers))).tolist(), strict=True))
        return [turned.get(token, token) for token in source], [turned.get(token, token) for token in target]

    return Material(name, task.weight, 0.0, lengths_of(examples), draw, cut=sum(cut for _, cut in made), once=writes_once(codec))


def writes_once(codec: Codec) -> bool:
    """Whether decoding may forbid tokens that were written: not where the decoder starts with the token that ends, as BART's does."""
    return codec.start != codec.end


def _example(row: Row, codec: Codec, fmt: SelectionFormat, ends: bool) -> tuple[Drawn, bool] | None:
    tokenize = codec.pieces
    units = note_units(row.text, fmt, tokenize)
    chosen = greedy_oracle([row.text[start:end] for start, end in units], row.reference)
    if len(units) < 2 or not chosen:
        return None
    marked = mark_source(row.text, units, fmt, wanted_words=len(row.reference.split()))
    [ids] = codec.pieces([marked.source])
    source = codec.source(ids, fmt.max_source_tokens)
    written = codec.tokenizer.convert_tokens_to_ids([f"<m{index}>" for index in chosen[: fmt.max_new_tokens - 1]])
    seen = set(source)
    target = [marker for marker in written if marker in seen]
    if not target:
        return None
    return (source, [*target, codec.end] if ends else target), len(ids) + codec.sources.special_count > fmt.max_source_tokens


def greedy_oracle(units: Sequence[str], reference: str) -> list[int]:
    """Indices of units, each the one that raises ROUGE-1 plus ROUGE-2 F1 most, until none does. Words count as ROUGE has them."""
    wanted = [_grams(reference, size) for size in (1, 2)]
    counts = [[_grams(unit, size) for size in (1, 2)] for unit in units]
    taken: list[Counter[Gram]] = [Counter(), Counter()]
    left = list(range(len(units)))
    chosen: list[int] = []
    best = 0.0
    while left:
        scores = [_score([a + b for a, b in zip(taken, counts[i], strict=True)], wanted) for i in left]
        top = max(range(len(left)), key=scores.__getitem__)
        if scores[top] <= best:
            break
        best = scores[top]
        chosen.append(left.pop(top))
        taken = [a + b for a, b in zip(taken, counts[chosen[-1]], strict=True)]
    return chosen


def _grams(text: str, size: int) -> Counter[Gram]:
    words = rouge_words(text)
    return Counter(zip(*(words[start:] for start in range(size)), strict=False))


def _score(counts: Sequence[Counter[Gram]], wanted: Sequence[Counter[Gram]]) -> float:
    """Sum of the F1 of both sizes."""
    pairs = [((own & reference).total(), own.total() + reference.total()) for own, reference in zip(counts, wanted, strict=True)]
    return sum(2 * hits / total if total else 0.0 for hits, total in pairs)
