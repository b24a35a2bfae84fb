"""A pointer to markers: two linear maps of the encoder's states that are trained, then written into a BART decoder as they are.

`focus` tells how much attention a token gets: markers by the worth of their sentences, other tokens none. `identity` tells which marker
a token is. The mean of the identities by that attention (a pointer: Vinyals et al. 2015, arXiv 1506.03134) is the note's
markers by worth; as the format lets no marker be written twice, a decoder whose every step has this mean in its logits writes
them best first. Trained this way the maps and the states grow to fit each other. (With maps fitted by ridge
regression to the states of a finished encoder, two in five of the six best markers came out, at 7 minutes of training of
the whole decoder three in ten; what is left of the identity of a marker blurs all but the first.)
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import BartForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

_APART = 12.0  # attention logit of a marker above any other token, at the start
_WORTH_FOCUS = 1.5  # attention logit of one standard deviation of worth
_RARE = 0.02  # share of attention below which an error counts no more than at it
_END_QUANTILE = 0.9  # share of steps at which the end is likelier than any marker that is not there,
_END_MARGIN = 0.05  # by this much; logits of markers that are there reach from 1 to 20
_RIDGE = 1.0


class PointerLosses(NamedTuple):
    """Attention that other tokens get, identities that are not what they should be, and their mean by attention the same."""

    lost: Tensor
    identity: Tensor
    written: Tensor


class Pointer(nn.Module):
    """The two maps. `markers`: token ids of the markers by number."""

    markers: Tensor

    def __init__(self, width: int, markers: Sequence[int]) -> None:
        super().__init__()
        self.focus = nn.Linear(width, 1)
        self.identity = nn.Linear(width, len(markers))
        self.register_buffer("markers", torch.tensor(markers), persistent=False)

    @torch.no_grad()
    def start(self, sources: Sequence[Tensor], states: Sequence[Tensor], worth: Sequence[Tensor]) -> None:
        """Set both maps by ridge regression.

        sources: token ids of marked notes, each (tokens,); states: of each, (tokens, width); worth: of the units of each, standardised,
        (units,), in the order of their markers.
        """
        tokens, joined = torch.cat(list(sources)), torch.cat(list(states))
        wanted = (tokens[:, None] == self.markers).float()
        is_marker = wanted.sum(dim=1) > 0
        focus = torch.zeros(len(tokens))
        focus[is_marker] = _APART + _WORTH_FOCUS * torch.cat(list(worth)).float()
        share = is_marker.float().mean()
        balance = torch.where(is_marker, 0.5 / share, 0.5 / (1 - share))
        # Other tokens get no attention, so what identity they seem to have is no matter.
        for layer, targets, weight in ((self.focus, focus[:, None], balance), (self.identity, wanted, is_marker.float())):
            weights = _ridge(joined, targets, weight)
            layer.weight.copy_(weights[:-1].T)
            layer.bias.copy_(weights[-1])

    def worth(self, states: Tensor) -> Tensor:
        """What the states of markers, (units, width), tell of the worth of their sentences, in deviations; (units,)."""
        focus = self.focus(states)[:, 0] / _WORTH_FOCUS
        return focus - focus.mean()

    def losses(self, states: Tensor, positions: Tensor, numbers: Tensor) -> PointerLosses:
        """How far the maps are from a pointer.

        states: (tokens, width); positions: of the markers, numbers: which they are, both (units,).
        """
        focus, identity = self.focus(states)[:, 0], self.identity(states)
        attention = focus.softmax(dim=0)
        wanted = nn.functional.one_hot(numbers, identity.shape[1]).float()
        order = focus[positions].detach().softmax(dim=0) @ wanted
        written = attention @ identity
        return PointerLosses(
            focus.logsumexp(dim=0) - focus[positions].logsumexp(dim=0),
            (identity[positions] - wanted).square().sum(dim=1).mean(),
            # As in a chi-square test: an error of the small ones counts as much as one of the great ones.
            ((written - order).square() / (order + _RARE)).sum(),
        )


def _ridge(inputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted least-squares map with an intercept, shape (width + 1, outputs), intercept in the last row."""
    padded = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)
    weighted = padded.T * weights
    return torch.linalg.solve(weighted @ padded + _RIDGE * torch.eye(padded.shape[1]), weighted @ targets)


@torch.no_grad()
def write_into_decoder(model: BartForConditionalGeneration, pointer: Pointer) -> None:
    """Make the decoder the pointer, in place: the same logits at every step.

    All but the last layer's cross-attention is switched off. Its keys are the focus, the same in each head; its values are the identities,
    and its output puts each where only the logit of its marker sees it. Raises ValueError if the width has no room for the markers.
    """
    decoder, width = model.model.decoder, model.config.d_model
    n_markers = len(pointer.markers)
    if n_markers >= width:
        raise ValueError(f"a width of {width} has no room for {n_markers} markers")
    for parameter in (decoder.embed_positions.weight, decoder.layernorm_embedding.weight, decoder.layernorm_embedding.bias):
        parameter.zero_()
    for layer in decoder.layers:
        for linear in (layer.self_attn.out_proj, layer.encoder_attn.out_proj, layer.fc2):
            linear.weight.zero_()
            linear.bias.zero_()
        for norm in (layer.self_attn_layer_norm, layer.encoder_attn_layer_norm, layer.final_layer_norm):
            norm.weight.fill_(1.0)
            norm.bias.zero_()
    _attend(decoder.layers[-1].encoder_attn, pointer, _directions(model, pointer))


def _attend(attention: Any, pointer: Pointer, directions: Tensor) -> None:
    size, n_markers = attention.head_dim, len(pointer.markers)
    for linear in (attention.q_proj, attention.k_proj, attention.v_proj):
        linear.weight.zero_()
        linear.bias.zero_()
    for row in range(0, attention.embed_dim, size):
        attention.k_proj.weight[row] = pointer.focus.weight[0]
        # A bias would add the same to every token.
        attention.q_proj.bias[row] = size**0.5
    attention.v_proj.weight[:n_markers] = pointer.identity.weight
    attention.v_proj.bias[:n_markers] = pointer.identity.bias
    attention.out_proj.weight[:, :n_markers] = directions


def _directions(model: BartForConditionalGeneration, pointer: Pointer) -> Tensor:
    """A direction for each marker, (width, markers): seen by its own logit alone, of mean zero, which the normalisations keep as it is."""
    embeddings = model.model.shared.weight
    seen = torch.cat([embeddings[pointer.markers], embeddings[[model.config.eos_token_id]], torch.ones(1, embeddings.shape[1])])
    directions = torch.linalg.pinv(seen)[:, : len(pointer.markers)]
    # So long that the small number which a normalisation adds to the variance is nothing beside it.
    return directions * len(directions) ** 0.5 / directions.norm(dim=0).mean()


@torch.no_grad()
def let_end(
    model: BartForConditionalGeneration, marker_ids: Sequence[Tensor], states: Sequence[Tensor], all_markers: Sequence[int]
) -> None:
    """Set the bias of the end so that it comes before any marker that is not in the note, in place.

    marker_ids: the markers of each note, (units,); states: the encoder's states of each, (tokens, width).
    """
    start, end = model.config.decoder_start_token_id, model.config.eos_token_id
    model.final_logits_bias[0, end] = 0.0
    heights = []
    for own, state in zip(marker_ids, states, strict=True):
        absent = [marker for marker in all_markers if marker not in set(own.tolist())]
        if absent:
            written = torch.tensor([[start]])
            logits = model(encoder_outputs=BaseModelOutput(state[None]), decoder_input_ids=written, use_cache=False).logits[0]
            heights.append(logits[:, absent].max(dim=1).values - logits[:, end])
    if heights:
        model.final_logits_bias[0, end] = torch.cat(heights).quantile(_END_QUANTILE) + _END_MARGIN
