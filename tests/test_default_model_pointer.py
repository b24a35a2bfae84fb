"""A pointer to markers: what its losses are, what it starts from, and that the decoder which it becomes writes best first."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.modeling_outputs import BaseModelOutput

from pipeline.default_model import warm_start
from pipeline.default_model.pointer import Pointer, let_end, write_into_decoder
from pipeline.default_model.trainee import Vocabulary
from pipeline.default_model.warm_start import build_model, cut_tokenizer
from tests.test_default_model_recipe import FORMAT, NOTES, make_encoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoder"))


def states_that_tell(numbers: list[int], worth: list[float], others: int) -> torch.Tensor:
    """Of markers and other tokens, which stand before and after them: which marker, that it is one, its worth."""
    states = torch.zeros(len(numbers) + 2 * others, 32)
    for row, (number, height) in enumerate(zip(numbers, worth, strict=True), start=others):
        states[row, number], states[row, 12], states[row, 13] = 1.0, 1.0, height
    return states


def pointer_of_states(markers: list[int]) -> Pointer:
    pointer = Pointer(32, markers)
    with torch.no_grad():
        for parameter in pointer.parameters():
            parameter.zero_()
        pointer.focus.weight[0, 12], pointer.focus.weight[0, 13] = 12.0, 1.5
        pointer.identity.weight[:, :12] = torch.eye(12)
    return pointer


@pytest.mark.parametrize("layers", [1, 2])
def test_a_decoder_that_is_a_pointer_writes_by_worth_and_ends(encoder: Path, layers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_start, "_DECODER_LAYERS", layers)
    tokenizer = cut_tokenizer(encoder, NOTES, 180, FORMAT.tokens(), FORMAT.max_source_tokens)
    vocabulary = Vocabulary.of(tokenizer, FORMAT)
    model = build_model(encoder, tokenizer, FORMAT, seed=0).eval()
    pointer = pointer_of_states(vocabulary.markers)
    write_into_decoder(model, pointer)
    rng = np.random.default_rng(1)
    notes = [(list(rng.permutation(12)[:size]), rng.uniform(-0.8, 0.8, size).tolist()) for size in (1, 2, 5, 9)]
    states = [states_that_tell(numbers, worth, others=20) for numbers, worth in notes]
    let_end(model, [torch.tensor(vocabulary.markers)[numbers] for numbers, _ in notes], states, vocabulary.markers)
    for (numbers, worth), state in zip(notes, states, strict=True):
        written = model.generate(encoder_outputs=BaseModelOutput(state[None]), attention_mask=torch.ones(1, len(state)), max_new_tokens=12)
        best_first = [vocabulary.markers[numbers[i]] for i in np.argsort(worth)[::-1]]
        assert written[0].tolist() == [vocabulary.bos, *best_first, vocabulary.eos]


@torch.no_grad()
def test_a_right_pointer_has_nothing_to_lose() -> None:
    numbers, worth = [3, 7, 1], [0.5, -1.5, 1.0]
    states = states_that_tell(numbers, worth, others=4)
    positions, told = torch.arange(4, 7), torch.tensor(numbers)
    pointer = pointer_of_states(list(range(12)))
    right = pointer.losses(states, positions, told)
    assert all(float(loss) < 1e-3 for loss in right)
    assert pointer.worth(states[positions]).tolist() == pytest.approx(worth)
    wrong = pointer.losses(states, positions, told.flip(0))
    assert float(wrong.identity) == pytest.approx(4 / 3) and float(wrong.written) > 0.1
    assert float(pointer.losses(states, positions[:2], told[:2]).lost) > 0.1


def test_a_pointer_starts_from_what_states_tell() -> None:
    rng = np.random.default_rng(2)
    sources, states, worth, layouts = [], [], [], []
    for _ in range(40):
        numbers = rng.permutation(12)[:6].tolist()
        heights = rng.normal(size=6).tolist()
        told = states_that_tell(numbers, heights, others=10) @ torch.linalg.qr(torch.randn(32, 32, generator=torch.manual_seed(0)))[0]
        sources.append(torch.tensor([90] * 10 + [50 + number for number in numbers] + [90] * 10))
        states.append(told)
        worth.append(torch.tensor(heights))
        layouts.append((torch.arange(10, 16), torch.tensor(numbers)))
    pointer = Pointer(32, list(range(50, 62)))
    pointer.start(sources, states, worth)
    for told, heights, (positions, _) in zip(states, worth, layouts, strict=True):
        assert torch.corrcoef(torch.stack([pointer.worth(told[positions]), heights]))[0, 1] > 0.9
