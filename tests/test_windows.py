from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.tiny_models import sentences
from transforms.engine import Tokenized
from transforms.engine.echo import EchoEngine
from transforms.engine.tokens import SourceTokenizer
from transforms.prompts import Passage, Prompt, language_of, window_prompts
from transforms.sentences import split_sentences
from transforms.windows import Window, balance, cut_pieces, cut_windows, pack, tokens_outside

FAMILIES = ("bart", "t5", "wordpiece", "by_word", "echo")

costs = st.lists(st.integers(1, 40), min_size=1, max_size=60)
words = st.sampled_from(
    ["She", "sleeps", "fever", "No", "5.5", "mg", "näher", "naïve", "\u0130", "\U0001f600", "zzzqqq" * 6, "-", "10/10/2020", "ﬁne"]
)
ends = st.sampled_from([" ", ". ", ".\n", "\n\n", "? ", "\u00a0", "  \t", ""])
texts = st.lists(st.tuples(words, ends), min_size=1, max_size=150).map(lambda pairs: "".join(map("".join, pairs)))


class Reader:
    """A real tokenizer behind the part of an engine that windows need."""

    def __init__(self, tokenizer: SourceTokenizer | EchoEngine) -> None:
        self.tokenize = tokenizer.tokenize
        self.max_source_tokens = 10_000


@cache
def reader(family: str) -> Reader:
    return Reader(EchoEngine() if family == "echo" else SourceTokenizer(tokenizer(family)))


def tokenizer(family: str) -> Any:
    from tests.tiny_models import _tokenizer

    if family not in ("wordpiece", "by_word"):
        return _tokenizer(family)
    return word_pieces() if family == "wordpiece" else Offsetless(_tokenizer("t5"))


def word_pieces() -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = [
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *(f"{mark}{char}" for mark in ("", "##") for char in "abcdefghijklmnopqrstuvwxyz0123456789.,?/-"),
        "##ver",
        "slee",
    ]
    backend = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=512, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")


class Offsetless:
    """A tokenizer that tells no offsets, as those not backed by the tokenizers library."""

    def __init__(self, inner: Any) -> None:
        self._inner, self.is_fast, self.model_max_length = inner, False, inner.model_max_length

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._inner(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def prompts_of(text: str, engine: Reader, limit: int, overlap: int, prefix: str = "") -> tuple[Sequence[Prompt], int]:
    passage = Passage(text, 0, len(text), tuple(split_sentences(text)))
    language = language_of(prefix, limit, None, engine)
    made = window_prompts(passage, language, overlap, engine)
    return made.prompts, made.dropped


def spans_of(tokens: Tokenized) -> list[tuple[int, int]]:
    return list(tokens.offsets)


@pytest.mark.parametrize("family", FAMILIES)
@given(text=texts, limit=st.integers(12, 90), overlap=st.integers(0, 4), prefix=st.sampled_from(["", "summarize: "]))
def test_every_token_is_read_within_the_limit(family: str, text: str, limit: int, overlap: int, prefix: str) -> None:
    engine = reader(family)
    [prefix_tokens, whole] = engine.tokenize([prefix, text])
    if not text.strip():
        return
    prompts, dropped = prompts_of(text, engine, limit + len(prefix_tokens), overlap, prefix)
    windows = [(prompt.passage.start, prompt.passage.end) for prompt in prompts]
    assert all(prompt.source == prefix + text[start:end] for prompt, (start, end) in zip(prompts, windows, strict=True))
    assert dropped == 0
    if family != "by_word":  # there, all tokens of a word have its characters, and a word may be longer than a window
        assert tokens_outside(spans_of(whole), windows) == 0
    assert all(any(start <= at < end for start, end in windows) for at, char in enumerate(text) if char.isalnum() or char in ".?/")
    assert all(before[0] < after[0] and before[1] < after[1] for before, after in pairwise(windows))
    assert max(len(tokens) for tokens in engine.tokenize([prompt.source for prompt in prompts])) <= limit + len(prefix_tokens)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_window_is_the_untouched_text(family: str) -> None:
    engine = reader(family)
    text = f"\n {' '.join(sentences(5))} \n"
    tokens = len(engine.tokenize([text])[0])
    for limit in (tokens, tokens + 50, 10_000):
        [prompt], _ = prompts_of(text, engine, limit, overlap=1)
        assert (prompt.source, prompt.passage.start, prompt.passage.end) == (text, 0, len(text))
    assert len(prompts_of(text, engine, tokens - 1, overlap=0)[0]) > 1


def test_windows_are_whole_sentences_and_neighbours_share_some() -> None:
    text = " ".join(sentences(60))
    prompts, _ = prompts_of(text, reader("bart"), limit=120, overlap=2)
    held = [set(prompt.passage.sentences) for prompt in prompts]
    assert {text[start:end].strip() for start, end in set().union(*held)} == set(sentences(60))
    assert all(len(before & after) == 2 for before, after in pairwise(held))
    sizes = [len(prompt.source) for prompt in prompts]
    assert min(sizes) > 0.7 * max(sizes)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=60), st.integers(4, 40), st.integers(0, 3), st.integers(1, 9))
def test_a_window_has_no_more_pieces_than_allowed(lengths: list[int], room: int, overlap: int, most: int) -> None:
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    spans = [(end - length, end) for end, length in zip(ends, lengths, strict=True)]
    tokens = [(i, i + 1) for i in range(ends[-1])]
    windows = cut_windows(tokens, spans, room, overlap, 0, most)
    assert all(len(window.pieces) <= most for window in windows)
    assert tokens_outside(tokens, [(window.start, window.end) for window in windows]) == 0


def test_windows_know_their_number() -> None:
    text = "One two three. Four five. Six. Seven eight nine ten."
    [tokens] = EchoEngine().tokenize([text])
    windows = cut_windows(tokens.offsets, split_sentences(text), room=5)
    assert [(w.index, w.count, text[w.start : w.end]) for w in windows] == [
        (0, 2, "One two three. Four five."),
        (1, 2, "Six. Seven eight nine ten."),
    ]
    assert cut_windows((), (), room=5) == ()
    assert repr(windows[0]) == "Window(start=0, end=25, index=0, count=2)"


def test_a_sentence_longer_than_a_window_is_cut_between_tokens() -> None:
    text = "Short one. " + " ".join(f"word{i}" for i in range(23)) + ". Last."
    [tokens] = EchoEngine().tokenize([text])
    pieces = cut_pieces(tokens.offsets, split_sentences(text), room=8)
    assert [piece.tokens for piece in pieces] == [2, 7, 8, 8, 1]
    assert " ".join(text[piece.start : piece.end] for piece in pieces) == text


@given(costs=costs, room=st.integers(1, 80), overlap=st.integers(0, 5))
def test_packing(costs: list[int], room: int, overlap: int) -> None:
    ranges = pack(costs, room, overlap)
    assert ranges[0][0] == 0 and ranges[-1][1] == len(costs)
    assert all(sum(costs[first:last]) <= room or last - first == 1 for first, last in ranges)
    for (start, end), (following, reach) in pairwise(ranges):
        assert start < following <= end < reach and end - following <= overlap
        assert sum(costs[following:end]) <= room // 2
    balanced = balance(costs, room, overlap)
    assert len(balanced) == len(ranges) or len(balanced) < len(ranges)
    assert max(sum(costs[f:t]) for f, t in balanced) <= max(sum(costs[f:t]) for f, t in ranges)


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9)), max_size=30),
    st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), max_size=8),
)
def test_tokens_outside_equals_looking_at_each(tokens: list[tuple[int, int]], windows: list[tuple[int, int]]) -> None:
    offsets, at = [], 0
    for gap, length in tokens:
        offsets.append((at + gap, at + gap + length))
        at += gap + length
    starts = sorted({start for start, _ in windows})
    spans = [(start, start + 15 + index) for index, start in enumerate(starts)]
    expected = sum(not any(low <= start and end <= high for low, high in spans) for start, end in offsets)
    assert tokens_outside(offsets, spans) == expected


def test_time_grows_with_the_length_only() -> None:
    """A work count, not a clock: tokens given to the tokenizer per token of the text."""
    engine, read = EchoEngine(), []

    class Counting(Reader):
        def __init__(self) -> None:
            self.max_source_tokens = 10_000
            self.tokenize = lambda texts: [read.append(len(tokens)) or tokens for tokens in engine.tokenize(texts)]

    ratios = []
    for count in (200, 2_000):
        text = "\n".join(sentences(count))
        read.clear()
        prompts, _ = prompts_of(text, Counting(), limit=100, overlap=3)
        ratios.append(sum(read) / len(text.split()))
        assert len(prompts) > count / 40
    assert ratios[1] < 1.2 * ratios[0] < 6


def test_window_reprs_hold_no_text() -> None:
    assert "pieces" not in repr(Window(0, 5, 0, 1, ((0, 5),)))
