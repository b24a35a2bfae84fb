"""Beam search against `model.generate()`: requests that join at different steps get what each gets alone."""

from __future__ import annotations

import dataclasses
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import HealthCheck, Phase, example, given, settings

from tests.tiny_models import make_model
from transforms.engine.beams import BeamSearch, best_columns, in_place, log_probabilities
from transforms.engine.decode import DecodeSettings

EOS = (2,)
CAPACITY = 14
SOURCES = ((5, 9, 11, 2), (30, 31, 32, 2), (41, 7, 64, 2), (17, 17, 18, 2), (60, 55, 50, 2))
# Two hypotheses whose scores are closer than this may swap places when a sum is added up in another order.
TIE = 1e-4


@dataclasses.dataclass(frozen=True)
class Ask:
    """A request: its source by number, and what is its own of the settings."""

    source: int
    prefix: tuple[int, ...] = ()
    minimum: int = 0
    limit: int = 8


# Added to the score of the end at every step, so that hypotheses of many lengths compete.
END_BIAS = 4.5


class Model:
    """A tiny model without caches."""

    def __init__(self, folder: Any) -> None:
        from transformers import AutoModelForSeq2SeqLM

        self.model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
        self.model.final_logits_bias[0, EOS[0]] += END_BIAS
        self.start = self.model.config.decoder_start_token_id
        self.encoded = [self.model.get_encoder()(torch.tensor([source])).last_hidden_state for source in SOURCES]

    def logits(self, sources: list[int], tokens: list[list[int]]) -> torch.Tensor:
        """Scores after each row of decoder tokens. Rows are padded on the right, where attention does not reach."""
        from transformers.modeling_outputs import BaseModelOutput

        longest = max(map(len, tokens))
        padded = torch.tensor([row + [0] * (longest - len(row)) for row in tokens])
        encoded = BaseModelOutput(last_hidden_state=torch.cat([self.encoded[source] for source in sources]))
        scores = self.model(encoder_outputs=encoded, decoder_input_ids=padded).logits
        return scores[torch.arange(len(tokens)), torch.tensor([len(row) - 1 for row in tokens])]

    def generated(self, ask: Ask, decode: DecodeSettings) -> tuple[list[int], float]:
        import transformers as tf

        given_tokens = [self.start, *ask.prefix]
        config = tf.GenerationConfig(
            **{name: getattr(decode, name) for name in ("num_beams", "length_penalty", "early_stopping", "no_repeat_ngram_size")},
            **{name: getattr(decode, name) for name in ("repetition_penalty", "renormalize_logits", "forced_bos_token_id")},
            forced_eos_token_id=decode.forced_eos_token_id,
            suppress_tokens=list(decode.suppress_tokens) or None,
            max_new_tokens=ask.limit,
            min_new_tokens=ask.minimum or None,
            do_sample=False,
            eos_token_id=list(EOS),
            pad_token_id=1,
            decoder_start_token_id=self.start,
            return_dict_in_generate=True,
            output_scores=True,
        )
        # What the folder ships must not fill in what the settings leave open.
        self.model.generation_config = tf.GenerationConfig()
        source, start = torch.tensor([SOURCES[ask.source]]), torch.tensor([given_tokens])
        out = self.model.generate(source, decoder_input_ids=start, generation_config=config)
        ids = out.sequences[0, len(given_tokens) :].tolist()
        end = next((i + 1 for i, token in enumerate(ids) if token in EOS), len(ids))
        return ids[:end], float(out.sequences_scores[0])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    with torch.inference_mode():
        return {family: Model(make_model(family, tmp_path_factory.mktemp(family))) for family in ("bart", "marian")}


def refilled(model: Model, decode: DecodeSettings, asks: list[Ask], slots: int, joins: list[int], patience: int = 1) -> list[Any]:
    """Decode with continuous refill: ask i waits for step joins[i] and a free slot. `finished` is looked at every `patience` steps.

    Rows keep what they were fed, and follow the parents as a cache would.
    """
    search = BeamSearch(decode, EOS, slots, CAPACITY, minimums=any(ask.minimum for ask in asks))
    waiting, free, active = list(range(len(asks))), list(range(slots)), {}
    fed: dict[int, list[list[int]]] = {}
    results: list[Any] = [None] * len(asks)
    for step in range(200):
        while free and waiting and joins[waiting[0]] <= step:
            slot, i = free.pop(), waiting.pop(0)
            active[slot], fed[slot] = i, [[] for _ in range(search.width)]
            search.start(slot, (model.start, *asks[i].prefix), asks[i].minimum, asks[i].limit)
        if active:
            one_step(model, search, asks, active, fed)
        if step % patience == 0:
            groups = list(active)
            for slot, done in zip(groups, search.finished(torch.tensor(groups, dtype=torch.int64)).tolist(), strict=True):
                if done:
                    results[active.pop(slot)] = search.result(slot)
                    free.append(slot)
        if not active and not waiting:
            return results
    raise AssertionError("the search does not end")


def one_step(model: Model, search: BeamSearch, asks: list[Ask], active: dict[int, int], fed: dict[int, list[list[int]]]) -> None:
    groups = torch.tensor(list(active))
    rows = [row for slot in active for row in fed[slot]]
    positions = search.positions(groups).tolist()
    assert max(positions) < CAPACITY
    for row, token, position in zip(rows, search.inputs(groups).tolist(), positions, strict=True):
        # A finished group is fed its last token again.
        row[position:] = [token]
        assert len(row) == position + 1
    sources = [asks[i].source for i in active.values() for _ in range(search.width)]
    parents = search.advance(model.logits(sources, rows), groups)
    order = range(len(rows)) if parents is None else parents.tolist()
    moved = iter([list(rows[parent]) for parent in order])
    for slot in active:
        fed[slot] = [next(moved) for _ in range(search.width)]


def assert_same(actual: tuple[list[int], float], expected: tuple[list[int], float]) -> None:
    assert actual[1] == pytest.approx(expected[1], abs=TIE)
    assert actual[0] == expected[0]


@st.composite
def asked(draw: st.DrawFn) -> list[Ask]:
    def ask() -> Ask:
        prefix = tuple(draw(st.lists(st.integers(3, 60), max_size=3)))
        limit = draw(st.integers(1, CAPACITY - len(prefix)))
        return Ask(draw(st.integers(0, len(SOURCES) - 1)), prefix, draw(st.integers(0, min(limit, 6))), limit)

    return [ask() for _ in range(draw(st.integers(1, 4)))]


DECODES = st.builds(
    DecodeSettings,
    num_beams=st.integers(2, 5),
    length_penalty=st.sampled_from([1.0, 2.0, 0.0, 0.6, -1.0]),
    early_stopping=st.sampled_from([True, False, "never"]),
    no_repeat_ngram_size=st.integers(0, 3),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    renormalize_logits=st.booleans(),
    forced_bos_token_id=st.sampled_from([None, 0]),
    forced_eos_token_id=st.sampled_from([None, 2]),
    suppress_tokens=st.sampled_from([(), (7, 8, 9)]),
)
CNN = DecodeSettings(
    num_beams=4, length_penalty=2.0, early_stopping=True, no_repeat_ngram_size=3, forced_bos_token_id=0, forced_eos_token_id=2
)

# Here what `early_stopping` says makes a difference.
LONG = DecodeSettings(num_beams=3, length_penalty=2.0)


# Without shrinking: a failing search takes minutes to shrink.
@settings(phases=(Phase.explicit, Phase.generate), suppress_health_check=list(HealthCheck))
@example("marian", LONG, [Ask(2, limit=14), Ask(4, limit=14)], 1, [0] * 4, 2)
@example("marian", dataclasses.replace(LONG, early_stopping=True), [Ask(2, limit=14), Ask(4, limit=14)], 2, [0] * 4, 1)
@example("marian", dataclasses.replace(LONG, early_stopping="never"), [Ask(2, limit=14), Ask(4, limit=14)], 2, [0, 3, 3, 3], 1)
@example("bart", CNN, [Ask(0, (), 5, 12), Ask(1, (), 5, 14), Ask(2, (4, 5), 5, 12), Ask(3, limit=1)], 2, [0, 1, 1, 4], 1)
@given(
    family=st.sampled_from(["bart", "marian"]),
    decode=DECODES,
    asks=asked(),
    slots=st.integers(1, 3),
    joins=st.lists(st.integers(0, 6), min_size=4, max_size=4).map(sorted),
    patience=st.integers(1, 3),
)
@torch.inference_mode()
def test_refilled_requests_get_what_generate_gives_each(
    models: dict[str, Model], family: str, decode: DecodeSettings, asks: list[Ask], slots: int, joins: list[int], patience: int
) -> None:
    results = refilled(models[family], decode, asks, slots, joins, patience)
    for ask, result in zip(asks, results, strict=True):
        assert_same(result, models[family].generated(ask, decode))


@given(seed=st.integers(0, 99), rows=st.integers(1, 5), wide=st.sampled_from([7, 400, 1500, 2111]), count=st.integers(2, 7))
def test_best_columns_are_those_of_topk(seed: int, rows: int, wide: int, count: int) -> None:
    scores = torch.randn(rows, wide, generator=torch.Generator().manual_seed(seed))
    scores[0, ::3] = float("-inf")
    values, columns = best_columns(scores, count)
    expected = scores.topk(count)
    assert torch.equal(values, expected.values)
    assert torch.equal(scores.gather(1, columns), values)
    assert all(len(set(row)) == count for row in columns.tolist())


@given(seed=st.integers(0, 99), rows=st.integers(1, 7))
@settings(max_examples=10, deadline=None)
def test_log_probabilities_are_log_softmax(seed: int, rows: int) -> None:
    logits = 30 * torch.randn(rows, 40_000, generator=torch.Generator().manual_seed(seed))
    expected = logits.log_softmax(-1)
    torch.testing.assert_close(log_probabilities(logits), expected, rtol=1e-6, atol=1e-5)
    assert log_probabilities(logits.bfloat16()).dtype == torch.float32


@given(parents=st.integers(1, 5).flatmap(lambda width: st.lists(st.integers(0, width - 1), min_size=width, max_size=width)))
def test_as_few_rows_move_as_can(parents: list[int]) -> None:
    order = in_place(torch.tensor([parents, parents])).tolist()
    assert order[0] == order[1]
    assert sorted(order[0]) == list(range(len(parents)))
    stay = sum(parents[chosen] == row for row, chosen in enumerate(order[0]))
    assert stay == len(set(parents))


def test_what_does_not_fit_is_refused() -> None:
    search = BeamSearch(CNN, EOS, groups=1, capacity=4)
    search.start(0, (2, 5), 0, 3)
    with pytest.raises(ValueError, match="2 given and 4 generated tokens do not fit into 4 positions"):
        search.start(0, (2, 5), 0, 4)
    with pytest.raises(ValueError, match="do not fit"):
        search.start(0, (), 0, 1)


def test_a_slot_forgets_its_last_request() -> None:
    search = BeamSearch(DecodeSettings(num_beams=2), EOS, groups=2, capacity=4)
    groups = torch.tensor([1])
    answers = []
    for _ in range(2):
        search.start(1, (2,), 0, 3)
        assert search.result(1) == ([], None, ())
        while not search.finished(groups):
            search.advance(torch.arange(20.0).repeat(2, 1), groups)
        answers.append(search.result(1))
    assert answers[0] == answers[1]
    assert len(answers[0][0]) == 3


@pytest.mark.parametrize(
    "decode",
    [
        CNN,
        dataclasses.replace(CNN, bad_words_ids=((5,), (6, 7)), begin_suppress_tokens=(9,), repetition_penalty=1.2, renormalize_logits=True),
    ],
)
def test_a_step_never_looks_at_values(decode: DecodeSettings) -> None:
    """On a GPU to look is to wait. Tensors of the meta device have shapes and no values: to look at one raises."""
    search = BeamSearch(decode, EOS, groups=3, capacity=9, device="meta")
    groups = torch.zeros(2, dtype=torch.int64, device="meta")
    search.start(0, (2, 5), 3, 8)
    assert search.inputs(groups).shape == search.positions(groups).shape == (8,)
    parents = search.advance(torch.zeros(8, 3000, device="meta"), groups)
    assert parents is not None
    assert parents.shape == (8,)
    assert search.finished(groups).shape == (2,)
