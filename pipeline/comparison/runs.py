"""Entrants at work: each summarizes the same notes in a process of its own, by turns, as a job would. It knows no references."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

from pipeline.bench_turns import Turn, try_turns
from pipeline.comparison.contenders import Entrant
from pipeline.config import Job
from transforms.checks import INFORMATIVE
from transforms.engine import load_seconds

if TYPE_CHECKING:
    # It imports Beam, which only the entrants' own processes need.
    from pipeline.summarize import Summarized

_WARM_UP_NOTES = 4


@dataclass(frozen=True, slots=True)
class Written:
    """What an entrant made of one note. `flags`: codes, each once. `failed`: the code of the reason for which there is no text."""

    text: str = field(default="", repr=False)
    flags: tuple[str, ...] = ()
    failed: str | None = None

    @classmethod
    def of(cls, one: Summarized) -> Written:
        return cls(one.text, tuple(sorted(one.flags)), one.failed)

    @property
    def flagged(self) -> bool:
        """Whether a flag counts against the gate."""
        return bool(set(self.flags) - INFORMATIVE)


@dataclass(frozen=True, slots=True)
class Ran:
    """What an entrant did.

    `summaries`: one per note, of its last turn. `rates`: notes per second of each turn. `unsteady`: notes whose summary was not the same in
    all turns. `load_seconds`: once, not in the rates. `peak_mb`: memory of its process at the most, in MB (10^6 bytes); `gpu_mb`: that of
    the GPU, None on a CPU. `engine`: what was loaded.
    """

    summaries: tuple[Written, ...] = field(repr=False)
    rates: tuple[float, ...]
    unsteady: int = 0
    load_seconds: float = 0.0
    peak_mb: int = 0
    gpu_mb: int | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)

    @property
    def notes_per_second(self) -> float:
        return median(self.rates)


def run_entrants(
    entrants: Sequence[Entrant], texts: Sequence[str], repeats: int, say: Callable[[str], None]
) -> tuple[dict[str, Ran], dict[str, str]]:
    """What each did, by name; and why others could not, free of text. Blocks; all processes are alive until the last turn. `say` is told
    how far they are."""
    makers = {entrant.name: partial(Summarizing, entrant.job, tuple(texts)) for entrant in entrants}

    def watch(name: str, done: Sequence[Turn]) -> None:
        turn = f"turn {len(done) - 1} of {repeats}" if len(done) > 1 else "ready"
        say(f"{turn}: {name}, {done[-1].notes / done[-1].seconds:.2f} notes/s")

    turns, failures = try_turns(makers, repeats, watch)
    ran = {name: _ran(mine) for name, mine in turns.items()}
    dead = {name: reason for name, one in ran.items() if (reason := _useless(one))}
    return {name: one for name, one in ran.items() if name not in dead}, failures | dead


class Summarizing:
    """A contender that loads its job's model when it is made and summarizes all texts each turn; the first time only a few."""

    def __init__(self, job: Job, texts: Sequence[str]) -> None:
        from pipeline.summarize import job_summarizer

        self._summarizer = job_summarizer(job)
        self._texts = texts
        self._warm = False

    def turn(self) -> Turn:
        texts = self._texts if self._warm else self._texts[:_WARM_UP_NOTES]
        self._warm = True
        started = time.perf_counter()
        summaries = self._summarizer.summarize(texts)
        seconds = time.perf_counter() - started
        identity = self._summarizer.engine.identity
        written = [Written.of(one) for one in summaries]
        facts = {"summaries": written, "engine": asdict(identity), "gpu_mb": _gpu_mb() if identity.device == "cuda" else None}
        return Turn(seconds, load_seconds(), len(texts), sum(one.tokens for one in summaries), facts=facts)


def _ran(turns: Sequence[Turn]) -> Ran:
    last = turns[-1]
    texts = [[one.text for one in turn.facts["summaries"]] for turn in turns]
    return Ran(
        tuple(last.facts["summaries"]),
        tuple(turn.notes / turn.seconds for turn in turns),
        sum(len(set(same_note)) > 1 for same_note in zip(*texts, strict=True)),
        last.load_seconds,
        last.peak_mb,
        last.facts["gpu_mb"],
        last.facts["engine"],
    )


def _useless(ran: Ran) -> str | None:
    """Why there is nothing to compare: no note got a summary."""
    reasons = [one.failed for one in ran.summaries]
    if not all(reasons):
        return None
    return f"no note got a summary: {', '.join(sorted({str(reason) for reason in reasons}))}"


def _gpu_mb() -> int:
    import torch

    return torch.cuda.max_memory_allocated() // 1_000_000
