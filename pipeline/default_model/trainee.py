"""A selection model as it is trained: token layout, losses, and heads that only training uses."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import BartForConditionalGeneration, PreTrainedTokenizerFast

from transforms.selection import SelectionFormat, place_of, wanted_bucket

_CONTRAST_TEMPERATURE = 0.1
_MEAN_LOG_SIZE = 3.0  # e to the power of it, 20, is a usual number of tokens per sentence


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

    source: shape (tokens,). positions: where the markers stand, marker_ids: which they are, places: numbers of the place
    tokens, sizes: tokens of each unit; all of shape (units,).
    """

    source: Tensor
    positions: Tensor
    marker_ids: Tensor
    places: Tensor
    sizes: Tensor


def lay_out(
    unit_ids: Sequence[Sequence[int]], wanted_words: int, vocabulary: Vocabulary, fmt: SelectionFormat, first_marker: int
) -> Layout:
    """Build the token ids that the tokenizer makes of `mark_source`'s string, from the token ids of each unit."""
    n_units = len(unit_ids)
    markers = [vocabulary.markers[(first_marker + i) % fmt.n_markers] for i in range(n_units)]
    places = [place_of(i, n_units, fmt.n_places) for i in range(n_units)]
    source = [vocabulary.bos, vocabulary.lengths[wanted_bucket(wanted_words, fmt)]]
    positions = []
    for marker, place, ids in zip(markers, places, unit_ids, strict=True):
        positions.append(len(source))
        source += [marker, vocabulary.places[place], *ids]
    source.append(vocabulary.eos)
    sizes = [len(ids) for ids in unit_ids]
    return Layout(*(torch.tensor(values) for values in (source, positions, markers, places, sizes)))


class Trainee(nn.Module):
    """The model, and linear heads on the encoder's marker states, which only training uses.

    `content`, `place` and `size` must tell the mean state, the place and the length of the unit that follows a marker: they
    make markers gather their sentence, which no pretrained token does. `worth` ranks the units.
    """

    def __init__(self, model: BartForConditionalGeneration, frozen_layers: int, n_places: int) -> None:
        super().__init__()
        self.model = model
        self.frozen_layers = frozen_layers
        width = model.config.d_model
        self.content = nn.Linear(width, width)
        self.place = nn.Linear(width, n_places)
        self.size = nn.Linear(width, 1)
        self.worth = nn.Linear(width, 1)

    def encoder_losses(self, layout: Layout, worth: Tensor | None, lesson: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the losses of gathering and of ranking.

        worth: target distribution over units, shape (units,); without one the loss is zero. lesson: states of a teacher,
        shape (tokens, width), whose means are to be gathered; without one, those of the frozen layers are.
        """
        output = self.model.model.encoder(input_ids=layout.source[None], output_hidden_states=True)
        states = output.last_hidden_state[0, layout.positions]
        told = output.hidden_states[self.frozen_layers][0].detach() if lesson is None else lesson
        gathering = self._gathering_loss(states, told, layout)
        if worth is None:
            return gathering, torch.zeros(())
        return gathering, _cross_entropy(self.worth(states)[:, 0].log_softmax(dim=0)[None], worth[None])

    def _gathering_loss(self, states: Tensor, told: Tensor, layout: Layout) -> Tensor:
        """Contrast with the other units of the note (van den Oord 2018, arXiv 1807.03748), nearness, place and size."""
        starts, ends = layout.positions + 2, layout.positions + 2 + layout.sizes
        means = torch.stack([told[start:end].mean(dim=0) for start, end in zip(starts, ends, strict=True)])
        means = nn.functional.normalize(means - told.mean(dim=0), dim=1)
        similarity = nn.functional.normalize(self.content(states), dim=1) @ means.T
        contrast = nn.functional.cross_entropy(similarity / _CONTRAST_TEMPERATURE, torch.arange(len(means)))
        place = nn.functional.cross_entropy(self.place(states), layout.places)
        size = nn.functional.mse_loss(self.size(states)[:, 0], layout.sizes.float().log() - _MEAN_LOG_SIZE)
        return contrast + (1 - similarity.diagonal()).mean() + 0.5 * place + 0.5 * size


def _cross_entropy(log_p: Tensor, targets: Tensor) -> Tensor:
    """Mean over rows."""
    return -(targets * log_p).sum(dim=1).mean()
