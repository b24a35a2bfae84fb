"""From a text to what a model reads, and from what it writes back to a summary with evidence. Pure; knows engines only by their interface.

An ordinary model reads prefix + text and writes the summary. A selection model (`transforms/selection.py`) reads the text with marked
sentences and writes the markers of those to keep. A text that exceeds the model's limit becomes several prompts, one per window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Protocol

from transforms.engine import Completion, Tokenized
from transforms.selection import MarkedSource, Selection, SelectionFormat, expand_markers, mark_source, merge_rankings, word_budget
from transforms.sentences import split_sentences
from transforms.windows import Span, Window, cut_windows, tokens_outside

# A tokenizer makes at most one token of each UTF-8 byte, plus a few for the joint and the start of the text.
_SPARE_TOKENS = 8
# Tokens that a marked source adds before each sentence's text, and the one for the wanted length.
_MARKS_PER_SENTENCE, _LENGTH_TOKEN = 2, 1
# Up to so many windows, what they rank highest is taken by turns. With more of them a summary of about five sentences would not hear all,
# so there the model chooses again from what they chose. On the ten reports of MultiClinSum gold_train with two windows and at most 1,900
# words, turns reached ROUGE-1/2/L 32.2/9.1/21.6, a second pass 31.6/8.3/20.9, the first window's part alone (the note cut) 31.3/8.1/21.2.
MERGED_WINDOWS = 4
# Special tokens around a marked source, which its format counts and engines do not.
_SPECIAL_TOKENS = 2


class Tokenizes(Protocol):
    """The part of an Engine that is needed here."""

    @property
    def max_source_tokens(self) -> int: ...

    def tokenize(self, texts: Sequence[str]) -> list[Tokenized]: ...


@dataclass(frozen=True, slots=True)
class Passage:
    """What is to be summarized: characters [start, end) of a text, and the spans of the sentences (or parts of sentences) in it.

    `budget_words`: words that a selection may have; None for as many as its format gives.
    """

    text: str = field(repr=False)
    start: int
    end: int
    sentences: tuple[Span, ...] = field(repr=False)
    budget_words: int | None = None

    @property
    def size(self) -> int:
        """Characters in its sentences."""
        return sum(end - start for start, end in self.sentences)


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the engine gets for one window of a passage. `marked`: what the markers mean, for a selection model."""

    source: str = field(repr=False)
    passage: Passage
    marked: MarkedSource | None = None


@dataclass(frozen=True, slots=True)
class Prompts:
    """The prompts of one passage, in order. `dropped`: tokens of the passage that stand in none of them."""

    prompts: tuple[Prompt, ...]
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Summary:
    """A summary and its evidence: (summary_start, summary_end, source_start, source_end), characters, ends exclusive.

    `ranked`: character spans of all that a selection model named, the most important first, whether or not the summary had room for it.
    """

    text: str = field(repr=False)
    evidence: tuple[tuple[int, int, int, int], ...] = ()
    ranked: tuple[Span, ...] = field(default=(), repr=False)


class Language(Protocol):
    """How a kind of model is asked, and how its answers are read."""

    @property
    def limit(self) -> int:
        """Tokens of a source at most, special tokens not counted."""

    @property
    def room(self) -> int:
        """Tokens that are left for a passage's own text and its marks."""

    @property
    def marks(self) -> int:
        """Tokens added to every sentence."""

    def most(self, passage: Passage) -> int | None:
        """Sentences that one window of the passage may have, None for any number."""

    def prompt(self, passage: Passage) -> Prompt:
        """The passage as one prompt, whatever its length."""

    def offsets(self, passage: Passage, engine: Tokenizes) -> list[Span]:
        """Character spans of the passage's tokens, as this kind of model sees them."""

    def read(self, prompt: Prompt, completion: Completion) -> Summary:
        """The summary that a completion stands for."""

    def joined(self, prompts: Sequence[Prompt], parts: Sequence[Summary], whole: Passage) -> tuple[Passage | None, Summary]:
        """The summaries of a passage's windows as the next passage to summarize, None if there need be none, and as a summary."""


@dataclass(frozen=True, slots=True)
class PlainLanguage:
    """Of ordinary models: prefix and text in, summary out."""

    prefix: str
    limit: int
    room: int
    marks: int = 0

    def prompt(self, passage: Passage) -> Prompt:
        return Prompt(self.prefix + passage.text[passage.start : passage.end], passage)

    def most(self, passage: Passage) -> int | None:
        return None

    def offsets(self, passage: Passage, engine: Tokenizes) -> list[Span]:
        [tokens] = engine.tokenize([passage.text[passage.start : passage.end]])
        return [(start + passage.start, end + passage.start) for start, end in tokens.offsets]

    def read(self, prompt: Prompt, completion: Completion) -> Summary:
        return Summary(completion.text)

    def joined(self, prompts: Sequence[Prompt], parts: Sequence[Summary], whole: Passage) -> tuple[Passage | None, Summary]:
        text = "\n".join(filter(None, (part.text.strip() for part in parts)))
        return Passage(text, 0, len(text), tuple(split_sentences(text))), Summary(text)


@dataclass(frozen=True, slots=True)
class SelectionLanguage:
    """Of selection models: marked sentences in, markers out."""

    fmt: SelectionFormat
    limit: int
    marks: int = _MARKS_PER_SENTENCE

    @property
    def room(self) -> int:
        return max(1, self.limit - _LENGTH_TOKEN)

    def prompt(self, passage: Passage) -> Prompt:
        marked = mark_source(passage.text, passage.sentences, self.fmt, wanted_words=passage.budget_words)
        return Prompt(marked.source, passage, marked)

    def most(self, passage: Passage) -> int | None:
        # More sentences than markers are joined with what stands between them; between chosen sentences stands what was not chosen.
        return None if passage.budget_words is None else self.fmt.n_markers

    def offsets(self, passage: Passage, engine: Tokenizes) -> list[Span]:
        tokenized = engine.tokenize([passage.text[start:end] for start, end in passage.sentences])
        pairs = zip(passage.sentences, tokenized, strict=True)
        return [(start + low, start + high) for (start, _), tokens in pairs for low, high in tokens.offsets]

    def read(self, prompt: Prompt, completion: Completion) -> Summary:
        assert prompt.marked is not None
        return _as_summary(expand_markers(completion.text, prompt.marked, prompt.passage.text, self.fmt))

    def joined(self, prompts: Sequence[Prompt], parts: Sequence[Summary], whole: Passage) -> tuple[Passage | None, Summary]:
        budget = whole.budget_words or word_budget(whole.text, whole.sentences, self.fmt)
        merged = _as_summary(merge_rankings(whole.text, [part.ranked for part in parts], budget))
        if len(parts) <= MERGED_WINDOWS:
            return None, merged
        kept = tuple(sorted(set(chain.from_iterable(map(_kept_sentences, prompts, parts)))))
        return replace(whole, sentences=kept, budget_words=budget), merged


def _as_summary(chosen: Selection) -> Summary:
    evidence = tuple((unit.summary_start, unit.summary_end, unit.source_start, unit.source_end) for unit in chosen.units)
    return Summary(chosen.text, evidence, chosen.ranked)


def _kept_sentences(prompt: Prompt, part: Summary) -> list[Span]:
    """The sentences of a prompt that its summary is made of: several to a marker, where there were more than markers."""
    spans = [(start, end) for _, _, start, end in part.evidence]
    return [(start, end) for start, end in prompt.passage.sentences if any(low <= start and end <= high for low, high in spans)]


def language_of(prefix: str, max_source_tokens: int | None, fmt: SelectionFormat | None, engine: Tokenizes) -> Language:
    """The language of a model: selection if it has a format. Its limit is the least of the engine's and the one asked for (which counts the
    prefix and, for a selection model, special tokens)."""
    asked = max_source_tokens or engine.max_source_tokens
    if fmt is not None:
        most = min(fmt.max_source_tokens, max_source_tokens or fmt.max_source_tokens) - _SPECIAL_TOKENS
        return SelectionLanguage(fmt, max(1, min(most, engine.max_source_tokens)))
    limit = min(asked, engine.max_source_tokens)
    return PlainLanguage(prefix, limit, max(1, limit - len(engine.tokenize([prefix])[0])))


def window_prompts(passage: Passage, language: Language, overlap: int, engine: Tokenizes) -> Prompts:
    """One prompt for a passage within the model's limit; else one per window, neighbours sharing `overlap` sentences as far as they fit.

    Each prompt is measured with the engine's own tokenizer: tokens of a part may be more than the same characters had in the whole.
    """
    whole = language.prompt(passage)
    if _token_bound(whole) <= language.limit or _excess([whole], language, engine) <= 0 or not passage.sentences:
        return Prompts((whole,))
    offsets = language.offsets(passage, engine)
    room = language.room
    while True:
        windows = cut_windows(offsets, passage.sentences, room, overlap, language.marks, language.most(passage))
        prompts = tuple(language.prompt(_part(passage, window)) for window in windows)
        excess = _excess(prompts, language, engine)
        if excess <= 0 or room == 1:
            return Prompts(prompts, tokens_outside(offsets, [(window.start, window.end) for window in windows]))
        room -= min(excess, max(1, room // 2))


def _part(passage: Passage, window: Window) -> Passage:
    return Passage(passage.text, window.start, window.end, window.pieces)


def _token_bound(prompt: Prompt) -> int:
    """An upper bound of a prompt's tokens, without tokenising it: format tokens are longer than one byte."""
    return len(prompt.source.encode()) + _SPARE_TOKENS


def _excess(prompts: Sequence[Prompt], language: Language, engine: Tokenizes) -> int:
    """Tokens by which the longest prompt exceeds the model's limit; at most 0 if all are within it."""
    return max(len(engine.tokenize([prompt.source])[0]) for prompt in prompts) - language.limit
