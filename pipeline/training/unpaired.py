"""Objectives that need texts only: denoising as in BART, gap sentences as in Pegasus.

Denoising (Lewis et al. 2020, arXiv 1910.13461): sentences in another order, and runs of tokens (lengths from a Poisson distribution of mean
3) each behind one mask, here without its runs of length 0. Gap sentences (Zhang et al. 2020, arXiv 1912.08777): the sentences that share
most words with the rest of the text are taken out, a mask in the place of each, and are to be written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from pipeline.default_model.examples import rouge_words
from pipeline.training.material import Codec, Drawn, Material, fixed
from pipeline.training.rows import Row
from pipeline.training.settings import TaskSection
from transforms.sentences import split_sentences

MEAN_RUN = 3.0
_FEWEST_SENTENCES = 3


def denoise_material(name: str, rows: Sequence[Row], task: TaskSection, codec: Codec, mask: int) -> Material:
    """Texts in pieces of whole sentences that fit the model, noise drawn anew in every epoch."""
    limit = _limit(task, codec)
    pieces = [piece for row in rows for piece in _packed(_sentence_ids(row.text, codec), limit - codec.sources.special_count - 1)]

    def draw(index: int, rng: np.random.Generator) -> Drawn:
        sentences = pieces[index]
        mixed = [token for i in rng.permutation(len(sentences)) for token in sentences[i]]
        whole = [token for sentence in sentences for token in sentence]
        return codec.source(infill(mixed, task.mask_share, mask, rng), limit), [*whole, codec.end]

    sizes = [sum(map(len, piece)) for piece in pieces]
    lengths = np.array([(size + codec.sources.special_count, size + 1) for size in sizes], dtype=np.int64).reshape(-1, 2)
    return Material(name, task.weight, 0.0, lengths, draw)


def gap_material(name: str, rows: Sequence[Row], task: TaskSection, codec: Codec, mask: int) -> Material:
    """Texts of three sentences or more, cut to the model's limit, without their most telling sentences."""
    limit = _limit(task, codec)
    examples = [_gapped(row.text, task, codec, mask, limit) for row in rows]
    return fixed(name, task.weight, 0.0, [example for example in examples if example is not None])


def infill(tokens: Sequence[int], share: float, mask: int, rng: np.random.Generator) -> list[int]:
    """The tokens with about `share` of them hidden in runs, a single mask in the place of each run."""
    hidden = np.zeros(len(tokens), dtype=bool)
    wanted = round(share * len(tokens))
    while hidden.sum() < wanted:
        run = max(1, int(rng.poisson(MEAN_RUN)))
        start = int(rng.integers(len(tokens)))
        hidden[start : start + min(run, wanted - int(hidden.sum()))] = True
    starts = hidden & ~np.concatenate([[False], hidden[:-1]])
    return [mask if first else token for token, gone, first in zip(tokens, hidden, starts, strict=True) if first or not gone]


def telling_sentences(sentences: Sequence[str], count: int) -> list[int]:
    """Indices, ascending, of the sentences whose ROUGE-1 F1 with the rest of the text is highest, each scored by itself."""
    words = [Counter(rouge_words(sentence)) for sentence in sentences]
    whole = sum(words, Counter())
    scores = [_overlap(own, whole) for own in words]
    return sorted(sorted(range(len(sentences)), key=lambda i: (-scores[i], i))[:count])


def _overlap(own: Counter[str], whole: Counter[str]) -> float:
    """ROUGE-1 F1 of a sentence against the rest; without copying the rest for every sentence."""
    hits = sum(min(count, whole[word] - count) for word, count in own.items())
    total = whole.total()
    return 2 * hits / total if total else 0.0


def _limit(task: TaskSection, codec: Codec) -> int:
    return codec.limit if task.max_source_tokens == "auto" else min(task.max_source_tokens, codec.limit)


def _sentence_ids(text: str, codec: Codec) -> list[list[int]]:
    # A space before each, as sentences within a text have it; the first loses little by it.
    return [ids for ids in codec.pieces([f" {text[start:end]}" for start, end in split_sentences(text)]) if ids]


def _packed(sentences: Sequence[list[int]], limit: int) -> Iterator[list[list[int]]]:
    """Runs of sentences of at most `limit` tokens; a longer sentence is cut."""
    piece: list[list[int]] = []
    size = 0
    for ids in (ids[:limit] for ids in sentences):
        if piece and size + len(ids) > limit:
            yield piece
            piece, size = [], 0
        piece.append(ids)
        size += len(ids)
    if piece:
        yield piece


def _gapped(text: str, task: TaskSection, codec: Codec, mask: int, limit: int) -> Drawn | None:
    spans = split_sentences(text)
    sentences = [text[start:end] for start, end in spans]
    ids = codec.pieces([f" {sentence}" for sentence in sentences])
    if len(sentences) < _FEWEST_SENTENCES:
        return None
    fitting = int(np.searchsorted(np.cumsum([len(row) for row in ids]), limit - codec.sources.special_count, side="right"))
    sentences, ids = sentences[:fitting], ids[:fitting]
    if len(sentences) < _FEWEST_SENTENCES:
        return None
    gaps = set(telling_sentences(sentences, max(1, round(task.mask_share * len(sentences)))))
    source = [token for i, row in enumerate(ids) for token in ([mask] if i in gaps else row)]
    target = [token for i in sorted(gaps) for token in ids[i]]
    return codec.source(source, limit), [*target[: task.max_target_tokens - 1], codec.end]
