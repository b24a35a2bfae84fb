"""What a decode step costs on this machine: seconds for any, and for every token more that is read in it. No text."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import thread_time

import torch

from transforms.engine.architecture import Architecture
from transforms.engine.decoder import Decoder, Rows
from transforms.engine.draft import StepCost
from transforms.engine.encoder import Encoder
from transforms.engine.memory import Past, SourceBuffers

# Requests, and the tokens of each in a narrow and in a wide step.
_ROWS, _NARROW, _WIDE = 4, 1, 8
# Positions that they see: of their source, at most, and of their output.
_SOURCE, _OWN = 256, 16
# The fastest of so many counts, in seconds of the thread: what else the machine does makes a step slower, never faster.
_TRIES = 4
# A clock may be too coarse to see a step.
_LEAST = 1e-9


def measure_step_cost(model: Architecture) -> StepCost:
    """Takes some tens of steps, in a thread like a lane's, on a CPU."""
    with ThreadPoolExecutor(1, "step_cost") as pool:
        return pool.submit(_measured, model).result()


@torch.inference_mode()
def _measured(model: Architecture) -> StepCost:
    torch.set_num_threads(1)
    narrow, wide = (_fastest(_step(model, tokens)) for tokens in (_NARROW, _WIDE))
    each = max(0.0, wide - narrow) / (_ROWS * (_WIDE - _NARROW))
    return StepCost(max(_LEAST, narrow - each * _ROWS * _NARROW), each)


def _step(model: Architecture, tokens: int) -> Callable[[], object]:
    """A step of some requests that read so many tokens each."""
    decoder, past = Decoder(model), Past(model, _ROWS, _OWN + tokens)
    places = model.encoder_embedding.positions
    length = _SOURCE if places is None else min(_SOURCE, len(places) // 2)
    [source] = SourceBuffers(model).project(Encoder(model)([[0] * length]), [length])
    rows = torch.arange(_ROWS).repeat_interleave(tokens)
    at = (_OWN + torch.arange(tokens)).repeat(_ROWS)
    described = Rows(rows, at, list(zip(rows.tolist(), at.tolist(), strict=True)), [source] * _ROWS, 1, [tokens] * _ROWS)
    ids = torch.zeros(len(rows), dtype=torch.long)
    return lambda: decoder(ids, described, past)


def _fastest(step: Callable[[], object]) -> float:
    step()
    seconds = []
    for _ in range(_TRIES):
        began = thread_time()
        step()
        seconds.append(thread_time() - began)
    return min(seconds)
