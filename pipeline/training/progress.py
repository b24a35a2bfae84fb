"""Progress of a training run on stderr: a live line on a terminal, else a plain one every ten seconds, JSON lines on request."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

STYLES = ("auto", "plain", "json", "none")
_PLAIN_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run stands. `done_here`: steps since this process began; `dev` the best score so far."""

    step: int
    steps: int
    done_here: int
    seconds: float
    loss: float
    tokens_per_second: float
    dev: str = ""

    @property
    def seconds_left(self) -> float | None:
        return (self.steps - self.step) * self.seconds / self.done_here if self.done_here else None

    def line(self) -> str:
        from pipeline.progress import duration

        left = "?" if self.seconds_left is None else duration(self.seconds_left)
        dev = f"  {self.dev}" if self.dev else ""
        return f"step {self.step:,}/{self.steps:,}  loss {self.loss:.3f}  {self.tokens_per_second:,.0f} tokens/s{dev}  left {left}"


class ProgressLine:
    def __init__(self, style: str, live: Live | None) -> None:
        self._style = style
        self._live = live
        self._last = 0.0

    def show(self, standing: Standing) -> None:
        """Show it, if it is time."""
        now = time.monotonic()
        if self._live is not None:
            self._live.update(_bar(standing), refresh=True)
        elif self._style in ("auto", "plain", "json") and (now - self._last >= _PLAIN_EVERY_S or standing.step == standing.steps):
            self._last = now
            print(_json(standing) if self._style == "json" else standing.line(), file=sys.stderr, flush=True)


@contextmanager
def progress_line(style: str) -> Iterator[ProgressLine]:
    """`style`: one of STYLES; auto is live on a terminal, plain elsewhere."""
    console = Console(stderr=True)
    if style == "auto" and console.is_terminal:
        with Live(console=console, transient=False, auto_refresh=False) as live:
            yield ProgressLine(style, live)
    else:
        yield ProgressLine(style, None)


def _json(standing: Standing) -> str:
    left = standing.seconds_left
    figures = {
        "step": standing.step,
        "steps": standing.steps,
        "loss": round(standing.loss, 4),
        "tokens_per_second": round(standing.tokens_per_second, 1),
        "seconds": round(standing.seconds, 3),
        "seconds_left": None if left is None else round(left, 3),
    }
    return json.dumps({"event": "progress", **figures})


def _bar(standing: Standing) -> Table:
    row = Table.grid(padding=(0, 2))
    row.add_row(ProgressBar(total=max(standing.steps, 1), completed=standing.step, width=24), standing.line())
    return row
