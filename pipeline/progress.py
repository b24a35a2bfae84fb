"""Progress of a run, seen from outside the graph: a thread counts commit records, since a runner blocks until it is done.

On a terminal a live line, elsewhere a plain line when something has happened, JSON lines on request; always on stderr.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from pipeline.planning import RunPlan
from schemas.commit import CommitRecord
from schemas.errors import ChartmillError
from transforms.ledger import commit_key, list_commits
from transforms.store import NotFound, Store, storage_errors

FORMATS = ("auto", "plain", "json", "none")
_POLL_S = 1.0
_PLAIN_EVERY_S = 10.0
# Looking lists all records of the run, so the more there are the rarer a look: it takes one second in so many.
_SECONDS_PER_LOOK = 20


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands. `seconds_left` is None until something is done."""

    shards: int
    shards_done: int
    notes: int
    notes_done: int
    quarantined: int
    seconds: float

    @property
    def notes_per_second(self) -> float:
        return self.notes_done / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float | None:
        return (self.notes - self.notes_done) / self.notes_per_second if self.notes_done else None

    def line(self) -> str:
        left = "?" if self.seconds_left is None else duration(self.seconds_left)
        return (
            f"shards {self.shards_done}/{self.shards}  notes {self.notes_done:,}/{self.notes:,}  "
            f"{self.notes_per_second:.1f} notes/s  quarantined {self.quarantined:,}  left {left}"
        )


def duration(seconds: float) -> str:
    """`0.4 s`, `42 s`, `3 min 20 s`, `5 h 10 min`."""
    if 0 < seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Watcher:
    """Counts what a run has committed so far; each record is read once."""

    def __init__(self, store: Store, run_plan: RunPlan) -> None:
        self._store = store
        self._version = run_plan.plan.version
        self._to_do = {shard.id for segment in run_plan.to_do for shard in segment.shards}
        self._notes = run_plan.notes_to_do
        self._started = time.monotonic()
        self._seen: set[str] = set()
        self._notes_done = 0
        self._quarantined = 0

    def look(self) -> Progress:
        """Raises what the store raises."""
        for shard in {key.rsplit("/", 1)[1].removesuffix(".json") for key in list_commits(self._store, self._version)[0]} & self._to_do:
            if shard not in self._seen:
                self._add(shard)
        seconds = time.monotonic() - self._started
        return Progress(len(self._to_do), len(self._seen), self._notes, self._notes_done, self._quarantined, seconds)

    def _add(self, shard: str) -> None:
        try:
            record = CommitRecord.from_bytes(self._store.get(commit_key(self._version, shard)))
        except NotFound:  # another run has just rolled it up
            return
        self._seen.add(shard)
        self._notes_done += record.stats.notes_in
        self._quarantined += record.stats.notes_quarantined


@contextmanager
def show_progress(store: Store, run_plan: RunPlan, style: str = "auto") -> Iterator[None]:
    """Show progress on stderr while the body runs. `style`: one of FORMATS; auto is live on a terminal, plain elsewhere."""
    if style == "none":
        yield
        return
    console = Console(stderr=True)
    stop = threading.Event()
    show = _live if style == "auto" and console.is_terminal else _lines
    thread = threading.Thread(target=show, args=(Watcher(store, run_plan), stop, console, style), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=10)


def _look(watcher: Watcher) -> Progress | None:
    # Progress is a courtesy: a storage that hiccups must not end the run from this thread, the stages see to that.
    courtesy: tuple[type[Exception], ...] = (ChartmillError, *storage_errors())
    try:
        return watcher.look()
    except courtesy:
        return None


def _lines(watcher: Watcher, stop: threading.Event, console: Console, style: str) -> None:
    shown, due = -1, 0.0
    while True:
        finished = stop.wait(_POLL_S)
        now = time.monotonic()
        progress = _look(watcher) if finished or now >= due else None
        due = max(due, now + _SECONDS_PER_LOOK * (time.monotonic() - now))
        if progress and progress.shards_done != shown:
            shown, due = progress.shards_done, max(due, now + _PLAIN_EVERY_S)
            print(_json(progress) if style == "json" else progress.line(), file=sys.stderr, flush=True)
        if finished:
            return


def _json(progress: Progress) -> str:
    figures = {**asdict(progress), "notes_per_second": progress.notes_per_second, "seconds_left": progress.seconds_left}
    rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()}
    return json.dumps({"event": "progress", **rounded})


def _live(watcher: Watcher, stop: threading.Event, console: Console, style: str) -> None:
    with Live(console=console, transient=False, auto_refresh=False) as live:
        pause = _POLL_S
        while True:
            finished = stop.wait(pause)
            began = time.monotonic()
            progress = _look(watcher)
            pause = max(_POLL_S, _SECONDS_PER_LOOK * (time.monotonic() - began))
            if progress:
                live.update(_bar(progress), refresh=True)
            if finished:
                return


def _bar(progress: Progress) -> Table:
    row = Table.grid(padding=(0, 2))
    row.add_row(ProgressBar(total=max(progress.notes, 1), completed=progress.notes_done, width=24), progress.line())
    return row
