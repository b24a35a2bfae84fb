"""A selection model as it is trained: token layout, losses, and heads that only training uses."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import BartForConditionalGeneration, PreTrainedTokenizerFast

from pipeline.default_model.pointer import Pointer
from transforms.selection import SelectionFormat, place_of, wanted_bucket

N_PLAIN = 23  # places and surface
_CONTRAST_TEMPERATURE = 0.1
_CONTRAST = 0.25
_SHARPNESS = 2.0  # logits of the choice per deviation of worth
_WEIGHTS = (0.3, 0.15, 1.0, 0.3, 0.3, 2.0, 0.1)


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Token ids a source is built from; `markers`, `places` and `lengths` are indexed by their number."""

    bos: int
    eos: int
    markers: list[int]
    places: list[int]
    lengths: list[int]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast, fmt: SelectionFormat) -> "Vocabulary":
        ids = tokenizer.convert_tokens_to_ids(fmt.tokens())
        first_length = fmt.n_markers + fmt.n_places
        return cls(
            tokenizer.bos_token_id,
            tokenizer.eos_token_id,
            ids[: fmt.n_markers],
            ids[fmt.n_markers : first_length],
            ids[first_length:],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """A marked note as token ids.

    source: shape (tokens,). positions: where the markers stand, marker_ids: which they are, as tokens, numbers: by number, sizes: tokens
    of each unit; all of shape (units,).
    """

    source: Tensor
    positions: Tensor
    marker_ids: Tensor
    numbers: Tensor
    sizes: Tensor


def lay_out(
    unit_ids: Sequence[Sequence[int]], wanted_words: int, vocabulary: Vocabulary, fmt: SelectionFormat, first_marker: int
) -> Layout:
    """Build the token ids that the tokenizer makes of `mark_source`'s string, from the token ids of each unit."""
    n_units = len(unit_ids)
    numbers = [(first_marker + i) % fmt.n_markers for i in range(n_units)]
    markers = [vocabulary.markers[number] for number in numbers]
    places = [place_of(i, n_units, fmt.n_places) for i in range(n_units)]
    source = [vocabulary.bos, vocabulary.lengths[wanted_bucket(wanted_words, fmt)]]
    positions = []
    for marker, place, ids in zip(markers, places, unit_ids, strict=True):
        positions.append(len(source))
        source += [marker, vocabulary.places[place], *ids]
    source.append(vocabulary.eos)
    sizes = [len(ids) for ids in unit_ids]
    return Layout(*(torch.tensor(values) for values in (source, positions, markers, numbers, sizes)))


class Lesson(NamedTuple):
    """What is to be told of the units of a note: embeddings less their mean over the collection, places and surface standardised,
    the teacher's worth, and the distribution of the first choice by the reference."""

    embeddings: Tensor
    plain: Tensor
    worth: Tensor
    choice: Tensor


class Losses(NamedTuple):
    """Of content (nearness, and contrast with the other units of the note: van den Oord 2018, arXiv 1807.03748), of places and surface,
    of the teacher's worth, of the reference's first choice, and of the pointer (`PointerLosses`)."""

    content: Tensor
    plain: Tensor
    worth: Tensor
    choice: Tensor
    lost: Tensor
    identity: Tensor
    written: Tensor

    def total(self) -> Tensor:
        return sum((weight * loss for weight, loss in zip(_WEIGHTS, self, strict=True)), torch.zeros(()))


class Trainee(nn.Module):
    """The model, and linear heads on the encoder's states.

    `content` and `plain` must tell what a teacher is told of the unit that follows a marker: they make markers gather their
    sentence, which no pretrained token does. `pointer` ranks the units, and becomes the decoder.
    """

    def __init__(self, model: BartForConditionalGeneration, width: int, markers: Sequence[int]) -> None:
        """`width`: of the teacher's embeddings. `markers`: token ids by number."""
        super().__init__()
        self.model = model
        self.content = nn.Linear(model.config.d_model, width)
        self.plain = nn.Linear(model.config.d_model, N_PLAIN)
        self.pointer = Pointer(model.config.d_model, markers)

    def states(self, layout: Layout) -> Tensor:
        """What the encoder makes of a note, (tokens, width)."""
        states: Tensor = self.model.model.encoder(input_ids=layout.source[None]).last_hidden_state[0]
        return states

    def losses(self, layout: Layout, lesson: Lesson) -> Losses:
        """How far the markers of a note are from what they should tell."""
        all_states = self.states(layout)
        states = all_states[layout.positions]
        worth = self.pointer.worth(states)
        told = nn.functional.normalize(lesson.embeddings, dim=1)
        similarity = nn.functional.normalize(self.content(states), dim=1) @ told.T
        contrast = nn.functional.cross_entropy(similarity / _CONTRAST_TEMPERATURE, torch.arange(len(told)))
        return Losses(
            (1 - similarity.diagonal()).mean() + _CONTRAST * contrast,
            nn.functional.mse_loss(self.plain(states), lesson.plain),
            nn.functional.mse_loss(worth, lesson.worth),
            -(lesson.choice * (_SHARPNESS * worth).log_softmax(dim=0)).sum(),
            *self.pointer.losses(all_states, layout.positions, layout.numbers),
        )
