"""From a note to what a model reads, and from what it writes back to a summary with evidence. Pure; knows engines only by their interface.

An ordinary model reads prefix + note and writes the summary. A selection model (`transforms/selection.py`) reads the note with marked
sentences and writes the markers of those to keep. A note that exceeds the model's limit is cut after the last sentence that fits, and the
cut is counted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from transforms.engine import Completion, Tokenized
from transforms.selection import MarkedSource, SelectionFormat, expand_markers, fit_sentences, mark_source

Span = tuple[int, int]

# A tokenizer makes at most one token of each UTF-8 byte, plus a few for the joint and the start of the text.
_SPARE_TOKENS = 8
# Tokens that a marked source adds around each sentence's text and once around everything.
_MARKS_PER_SENTENCE, _MARKS_AROUND = 2, 3


class Tokenizes(Protocol):
    """The part of an Engine that is needed here."""

    @property
    def max_source_tokens(self) -> int: ...

    def tokenize(self, texts: Sequence[str]) -> list[Tokenized]: ...


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the engine gets for one note.

    `seen`: the model reads characters [0, seen) of the note. `truncated_tokens`: tokens of the note that it does not read.
    `marked`: what the markers mean, for a selection model.
    """

    source: str = field(repr=False)
    seen: int
    truncated_tokens: int = 0
    marked: MarkedSource | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """A summary and its evidence: (summary_start, summary_end, source_start, source_end), characters, ends exclusive."""

    text: str = field(repr=False)
    evidence: tuple[tuple[int, int, int, int], ...] = ()


def plain_prompts(texts: Sequence[str], sentences: Sequence[Sequence[Span]], prefix: str, limit: int, engine: Tokenizes) -> list[Prompt]:
    """One prompt per text for an ordinary model; `limit` is in tokens, prefix included, special tokens not."""
    prompts = [Prompt(prefix + text, len(text)) for text in texts]
    long = [i for i, prompt in enumerate(prompts) if len(prompt.source.encode()) + _SPARE_TOKENS > limit]
    for i, tokens in zip(long, engine.tokenize([prompts[i].source for i in long]), strict=True):
        if len(tokens) > limit:
            end = _cut(tokens, limit, sentences[i], len(prefix))
            unseen = len(tokens) - _tokens_before(tokens, len(prefix) + end)
            prompts[i] = Prompt(prefix + texts[i][:end], end, unseen)
    return prompts


def selection_prompts(texts: Sequence[str], sentences: Sequence[Sequence[Span]], fmt: SelectionFormat, engine: Tokenizes) -> list[Prompt]:
    """One prompt per text for a selection model; the limit is `fmt.max_source_tokens`."""
    kept = [list(spans) for spans in sentences]
    unseen = [0] * len(texts)
    long = [i for i, text in enumerate(texts) if _marked_bound(text, kept[i]) > fmt.max_source_tokens]
    for i in long:
        tokens = engine.tokenize([texts[i][start:end] for start, end in kept[i]])
        counts = [len(each) for each in tokens]
        fitting = fit_sentences(counts, fmt)
        unseen[i] = sum(counts[fitting:])
        kept[i] = kept[i][:fitting]
        room = fmt.max_source_tokens - _MARKS_AROUND - _MARKS_PER_SENTENCE
        if fitting == 1 and counts[0] > room:
            start, _ = kept[i][0]
            kept[i] = [(start, start + tokens[0].offsets[room - 1][1])]
            unseen[i] += counts[0] - room
    return [_marked_prompt(*each, fmt) for each in zip(texts, kept, unseen, strict=True)]


def read_output(prompt: Prompt, completion: Completion, text: str, fmt: SelectionFormat | None) -> Summary:
    """The summary that a completion stands for."""
    if fmt is None or prompt.marked is None:
        return Summary(completion.text)
    chosen = expand_markers(completion.text, prompt.marked, text, fmt)
    evidence = tuple((unit.summary_start, unit.summary_end, unit.source_start, unit.source_end) for unit in chosen.units)
    return Summary(chosen.text, evidence)


def limited(fmt: SelectionFormat, max_source_tokens: int | None) -> SelectionFormat:
    """The format with a lower limit on its source, if one is asked for; it counts special tokens."""
    return fmt if max_source_tokens is None else replace(fmt, max_source_tokens=min(fmt.max_source_tokens, max_source_tokens))


def _marked_prompt(text: str, sentences: Sequence[Span], unseen: int, fmt: SelectionFormat) -> Prompt:
    marked = mark_source(text, sentences, fmt)
    seen = sentences[-1][1] if unseen else len(text)
    return Prompt(marked.source, seen, unseen, marked)


def _marked_bound(text: str, sentences: Sequence[Span]) -> int:
    """An upper bound of the tokens of the marked text, without tokenising it."""
    return len(text.encode()) + (_MARKS_PER_SENTENCE + 1) * len(sentences) + _MARKS_AROUND


def _cut(tokens: Tokenized, limit: int, sentences: Sequence[Span], shift: int) -> int:
    """Where to end a text of which `limit` tokens may stay: after the last whole sentence among them, else within the first."""
    last = max(tokens.offsets[limit - 1][1] - shift, 0)
    whole = [end for _, end in sentences if end <= last]
    return whole[-1] if whole else last


def _tokens_before(tokens: Tokenized, end: int) -> int:
    """How many tokens end at or before this character."""
    return bisect_right(tokens.offsets, end, key=lambda span: span[1])
