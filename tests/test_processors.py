"""The processors against transformers' own, row by row, for rows of every length at once."""

from __future__ import annotations

import dataclasses
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, given, settings

from transforms.engine.decode import DecodeSettings
from transforms.engine.processors import Processors

VOCABULARY = 11
EOS = (2, 7)
WIDTH = 9
# Repetition is common among few tokens; 11 and 12 have an embedding but no score.
TOKENS = st.sampled_from([0, 1, 3, 4, 5, 6, 8, 9, 10, 11, 12])


@dataclasses.dataclass(frozen=True)
class Row:
    tokens: tuple[int, ...]
    prefix: int
    minimum: int
    limit: int


@st.composite
def rows(draw: st.DrawFn) -> Row:
    tokens = tuple(draw(st.lists(TOKENS, min_size=1, max_size=WIDTH)))
    prefix = draw(st.integers(1, len(tokens)))
    limit = draw(st.integers(len(tokens) - prefix + 1, WIDTH + 2))
    return Row(tokens, prefix, draw(st.integers(0, limit)), limit)


@st.composite
def decodes(draw: st.DrawFn) -> DecodeSettings:
    token = st.integers(0, VOCABULARY - 1)
    words = st.lists(st.lists(token, min_size=1, max_size=3).map(tuple), max_size=4).map(tuple)
    bos, eos = draw(st.none() | token), draw(st.none() | token)
    # -1 and 11 cannot be generated; suppressing them does nothing. To suppress a forced token is refused.
    suppressed = st.lists(st.integers(-1, VOCABULARY).filter(lambda i: i not in (bos, eos)), max_size=3).map(tuple)
    return DecodeSettings(
        no_repeat_ngram_size=draw(st.integers(0, 4)),
        repetition_penalty=draw(st.sampled_from([1.0, 1.3, 0.7])),
        renormalize_logits=draw(st.booleans()),
        forced_bos_token_id=bos,
        forced_eos_token_id=eos,
        bad_words_ids=draw(words),
        suppress_tokens=draw(suppressed),
        begin_suppress_tokens=draw(suppressed),
    )


def reference(decode: DecodeSettings, row: Row, scores: torch.Tensor) -> torch.Tensor:
    """What transformers makes of one row's scores."""
    import transformers as tf

    config = tf.GenerationConfig(
        no_repeat_ngram_size=decode.no_repeat_ngram_size,
        repetition_penalty=decode.repetition_penalty,
        renormalize_logits=decode.renormalize_logits,
        forced_bos_token_id=decode.forced_bos_token_id,
        forced_eos_token_id=decode.forced_eos_token_id,
        bad_words_ids=[list(word) for word in decode.bad_words_ids] or None,
        suppress_tokens=list(decode.suppress_tokens) or None,
        begin_suppress_tokens=list(decode.begin_suppress_tokens) or None,
        min_new_tokens=row.minimum or None,
        max_length=row.limit + row.prefix,
        eos_token_id=list(EOS),
    )
    config._eos_token_tensor = torch.tensor(EOS)
    owner: Any = type("Owner", (), {"config": tf.PretrainedConfig(is_encoder_decoder=True)})()
    owner._merge_criteria_processor_list = lambda default, custom: default
    processors = tf.generation.GenerationMixin._get_logits_processor(owner, config, input_ids_seq_length=row.prefix, device="cpu")
    return processors(torch.tensor([row.tokens]), scores[None].clone())[0]


def processed(decode: DecodeSettings, batch: list[Row], scores: torch.Tensor, **options: Any) -> torch.Tensor:
    # What stands beyond a row's length must not matter: fill with a token that exists.
    tokens = torch.tensor([[*row.tokens, *[3] * (WIDTH - len(row.tokens))] for row in batch])
    counts = torch.tensor([[len(row.tokens), row.prefix, row.minimum, row.limit] for row in batch])
    return Processors(decode, EOS, "cpu", **options)(scores, tokens, *counts.unbind(1))


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(decode=decodes(), batch=st.lists(rows(), min_size=1, max_size=5), seed=st.integers(0, 9))
def test_rows_of_different_lengths_get_what_transformers_gives_each(decode: DecodeSettings, batch: list[Row], seed: int) -> None:
    scores = torch.randn(len(batch), VOCABULARY, generator=torch.Generator().manual_seed(seed))
    expected = torch.stack([reference(decode, row, scores[i]) for i, row in enumerate(batch)])
    given_scores = scores.clone()
    actual = processed(decode, batch, given_scores)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-6, equal_nan=True)
    assert actual.data_ptr() == given_scores.data_ptr()


def test_each_rule_alone_bites() -> None:
    """The property above would hold for rules that do nothing if the rows never met them."""
    row = Row((1, 4, 5, 4), prefix=2, minimum=3, limit=3)
    cases: list[tuple[DecodeSettings, set[int]]] = [
        (DecodeSettings(), {2, 7}),
        (DecodeSettings(no_repeat_ngram_size=2), {2, 7, 5}),
        (DecodeSettings(no_repeat_ngram_size=1), {2, 7, 1, 4, 5}),
        (DecodeSettings(bad_words_ids=((9,), (5, 4, 6), (4, 4, 8), (2,))), {2, 7, 9, 6}),
        (DecodeSettings(suppress_tokens=(3, 10)), {2, 7, 3, 10}),
        (DecodeSettings(forced_eos_token_id=2), set(range(VOCABULARY)) - {2}),
    ]
    for decode, banned in cases:
        scores = processed(decode, [row], torch.zeros(1, VOCABULARY))
        assert set(torch.isinf(scores[0]).nonzero().flatten().tolist()) == banned


def test_begin_rules_look_at_the_prefix() -> None:
    decode = DecodeSettings(forced_bos_token_id=5, begin_suppress_tokens=(8,))
    fresh, second, prefixed = Row((1,), 1, 0, 9), Row((1, 5), 1, 0, 9), Row((1, 4), 2, 0, 9)
    scores = processed(decode, [fresh, second, prefixed], torch.ones(3, VOCABULARY))
    assert scores[0, 5] == 0
    assert scores[0].isinf().sum() == VOCABULARY - 1
    assert [scores[i].isinf().nonzero().flatten().tolist() for i in (1, 2)] == [[8], [8]]


def test_idle_means_that_nothing_can_happen() -> None:
    assert Processors(DecodeSettings(), EOS, "cpu", minimums=False).idle
    assert not Processors(DecodeSettings(), EOS, "cpu").idle
    changes: dict[str, Any] = {
        "no_repeat_ngram_size": 3,
        "repetition_penalty": 1.1,
        "renormalize_logits": True,
        "forced_bos_token_id": 0,
        "forced_eos_token_id": 0,
        "bad_words_ids": ((1,),),
        "suppress_tokens": (0,),
        "begin_suppress_tokens": (0,),
    }
    with_history = {"no_repeat_ngram_size", "repetition_penalty"}
    for name, value in changes.items():
        processors = Processors(dataclasses.replace(DecodeSettings(), **{name: value}), EOS, "cpu", minimums=False)
        assert not processors.idle
        assert processors.history == (name in with_history)
    assert Processors(DecodeSettings(bad_words_ids=((1, 2),)), EOS, "cpu").history


def test_impossible_tokens_are_named() -> None:
    with pytest.raises(ValueError, match="token 11; the model scores tokens 0 to 10"):
        processed(DecodeSettings(forced_bos_token_id=11), [Row((1,), 1, 0, 9)], torch.zeros(1, VOCABULARY))
    with pytest.raises(ValueError, match="force token 5 and suppress it"):
        processed(DecodeSettings(forced_eos_token_id=5, suppress_tokens=(5,)), [Row((1,), 1, 0, 9)], torch.zeros(1, VOCABULARY))
