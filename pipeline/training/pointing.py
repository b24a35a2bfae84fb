"""Starts whose decoder is a pointer, as the packaged model's is: what it says hangs on the source alone, not on what was written.

Such a decoder has no way to know after how many markers to end: taught the end after each target, it ends at once. So the end is not
taught, and not left to it before there are markers enough for the word budget.
"""

from __future__ import annotations

from typing import Any

from transforms.selection import SelectionFormat


def is_pointer(model: Any) -> bool:
    """Whether the decoder reads nothing of what was written: the first normalisation of a BART leaves nothing of it."""
    norm = getattr(model.get_decoder(), "layernorm_embedding", None)
    return norm is not None and not norm.weight.any() and not norm.bias.any()


def keep_pointer(model: Any) -> None:
    """Let it stay a pointer, whatever else is learned; in place."""
    for parameter in model.get_decoder().layernorm_embedding.parameters():
        parameter.requires_grad_(False)


def least_markers(fmt: SelectionFormat) -> int:
    """How many tokens a pointer writes before it may end. Where a note has fewer sentences, the rest names none and is ignored."""
    return fmt.max_new_tokens // 2
