"""`chartmill bench scale`: what a job of so many notes costs from plan to publication, what running it again does, and a night's new notes.

Synthetic notes and the echo engine, so that what is left is the job itself. Each run is a process of its own, whose peak memory is told.
"""

from __future__ import annotations

import logging
import multiprocessing as mp
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from pipeline.bench_machine import describe_machine
from schemas.errors import ChartmillError, ConfigurationError

# Of a night's notes for every note that is there.
NIGHT = 0.01
NOTES_PER_FILE = 50_000
_ROWS_PER_GROUP = 1_000
# As many different notes; the others differ from one of them in their first line.
_NOTES_COMPOSED = 200
_SCHEMA = pa.schema([(name, pa.string()) for name in ("note_id", "text", "patient_id", "note_type")])
_COLUMNS = ("", "notes", "shards", "s", "CPU s", "plan s", "work s", "publish s", "notes/s", "MB")


@dataclass(frozen=True, slots=True)
class Corpus:
    """A folder of notes and the output folder of the job over them. `shard_notes`: None for the job's own choice.

    `overrides`: of the job file, `a.b=c`.
    """

    notes: Path
    output: Path
    shard_notes: int | None = None
    overrides: tuple[str, ...] = ()

    def job(self, limit: int | None = None) -> Any:
        from pipeline.config import load_job

        settings = {
            "input.uris": [str(self.notes)],
            "output.uri": str(self.output),
            "engine.backend": "echo",
            "engine.shard_notes": self.shard_notes,
            "run.limit": limit,
            # Whatever the notes are like, they are released: publishing is part of the job.
            "gate.max_quarantined_share": 1,
            "gate.max_flagged_share": 1,
            "gate.contract": "ignore",
        }
        return load_job(None, self.overrides, {key: value for key, value in settings.items() if value is not None})


def write_notes(folder: Path, start: int, stop: int) -> None:
    """Notes number [start, stop), in files of NOTES_PER_FILE at most; each id is new."""
    from pipeline.sample import compose

    folder.mkdir(parents=True, exist_ok=True)
    texts = [compose(0, number).text for number in range(min(_NOTES_COMPOSED, stop))]
    for first in range(start, stop, NOTES_PER_FILE):
        last = min(first + NOTES_PER_FILE, stop)
        with pq.ParquetWriter(folder / f"notes-{first:010d}.parquet", _SCHEMA, compression="zstd") as writer:
            for group in range(first, last, _ROWS_PER_GROUP):
                writer.write_table(_rows(range(group, min(group + _ROWS_PER_GROUP, last)), texts))


def _rows(numbers: range, texts: Sequence[str]) -> pa.Table:
    rows = {
        "note_id": [f"N{number:010d}" for number in numbers],
        "text": [f"Visit number {number}.\n{texts[number % len(texts)]}" for number in numbers],
        "patient_id": [f"P{number // 3:010d}" for number in numbers],
        "note_type": ["Progress note"] * len(numbers),
    }
    return pa.table(rows, schema=_SCHEMA)


@dataclass(slots=True)
class _Clock:
    """When the graph of a run began and ended, seconds on the clock of time.perf_counter(); None where nothing was to do."""

    began: float | None = None
    ended: float | None = None
    shards: int = 0

    @contextmanager
    def watch(self, store: Any, run_plan: Any) -> Iterator[None]:
        self.began, self.shards = time.perf_counter(), run_plan.shards_to_do
        yield
        self.ended = time.perf_counter()


def run_once(corpus: Corpus, limit: int | None = None) -> dict[str, Any]:
    """Run the job in this process: notes and shards done, seconds, peak memory. Raises ChartmillError when not all is done.

    `cpu_seconds`: of all threads of this process; where others share the cores they tell more than the clock.
    """
    from pipeline.run import run_job

    clock, started, cpu = _Clock(), time.perf_counter(), time.process_time()
    outcome = run_job(corpus.job(limit), watch=clock.watch)
    ended = time.perf_counter()
    if outcome.exit_code:
        raise ChartmillError(f"bench scale: a run ended with exit code {outcome.exit_code}: {outcome.message}")
    report = outcome.published.report
    seconds: dict[str, float | None] = {"seconds": ended - started, "plan_seconds": None, "work_seconds": None, "publish_seconds": None}
    if clock.began is not None and clock.ended is not None:
        seconds |= {
            "plan_seconds": clock.began - started,
            "work_seconds": clock.ended - clock.began,
            "publish_seconds": ended - clock.ended,
        }
    notes = report["run"]["notes"]
    return {
        "notes": notes,
        "shards": clock.shards,
        **{name: None if value is None else round(value, 3) for name, value in seconds.items()},
        "cpu_seconds": round(time.process_time() - cpu, 3),
        "notes_per_second": round(notes / (ended - started), 1) if notes else None,
        "peak_mb": _peak_mb(),
        # Of all that is committed, whichever run did it.
        "stage_seconds": report["seconds"],
    }


def publish_once(corpus: Corpus) -> dict[str, Any]:
    """Publish what is committed; as `run_once` tells it."""
    from pipeline.prepare import prepare
    from pipeline.publish import publish

    prepared, started, cpu = prepare(corpus.job()), time.perf_counter(), time.process_time()
    published = publish(prepared.store, prepared.version)
    seconds, cpu = round(time.perf_counter() - started, 3), round(time.process_time() - cpu, 3)
    if not published.released:
        raise ChartmillError("bench scale: what was made up was not released")
    told = {"notes": 0, "shards": 0, "seconds": seconds, "plan_seconds": None, "work_seconds": None, "publish_seconds": seconds}
    return {**told, "cpu_seconds": cpu, "notes_per_second": None, "peak_mb": _peak_mb(), "stage_seconds": {}}


def make_up_commits(corpus: Corpus) -> None:
    """Do one shard, and commit copies of what came of it in place of all others. The rows of these are wrong; their number is right.

    Nothing is flushed to the disk: the copies are to be had quickly. Raises ConfigurationError when the shards are not of one size.
    """
    from dataclasses import replace

    from pipeline.planning import plan_run
    from pipeline.prepare import prepare
    from transforms.ledger import commit_key, load_commits
    from transforms.private_files import make_private_folder

    run_once(corpus, limit=1)
    prepared = prepare(corpus.job())
    plan = plan_run(prepared.store, prepared.version, "made-up", prepared.plan_settings(), prepared.said_in_plan())
    [done] = load_commits(prepared.store, prepared.version).values()
    root = corpus.output
    for shard in (shard for segment in plan.to_do for shard in segment.shards):
        if shard.rows != done.shard.rows:
            raise ConfigurationError("--notes: with --made-up a multiple of --shard-notes")
        files = {kind: replace(file, path=file.path.replace(done.shard.id, shard.id)) for kind, file in done.files.items()}
        for kind, file in files.items():
            (root / file.path).hardlink_to(root / done.files[kind].path)
        path = root / commit_key(prepared.version, shard.id)
        make_private_folder(path.parent)
        path.write_bytes(replace(done, shard=shard, files=files, run_id="made-up").to_bytes())


def measure(count: int, folder: Path, shard_notes: int | None, made_up: bool, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The runs over `count` notes: `first`, `again` with nothing new, `night` with NIGHT of them more. Writes into the folder."""
    corpus = Corpus(folder / f"notes-{count}", folder / f"out-{count}", shard_notes, tuple(overrides))
    write_notes(corpus.notes, 0, count)
    if made_up:
        _apart(partial(make_up_commits, corpus))
    first = _apart(partial(publish_once if made_up else run_once, corpus))
    again = _apart(partial(run_once, corpus))
    write_notes(corpus.notes, count, count + max(1, round(count * NIGHT)))
    return {"count": count, "runs": {"first": first, "again": again, "night": _apart(partial(run_once, corpus))}}


def _apart(work: Callable[[], Any]) -> Any:
    """What the work gives in a process of its own, a fresh one: its peak memory is that of nothing else."""
    with ProcessPoolExecutor(1, mp_context=mp.get_context("spawn"), initializer=_be_quiet) as pool:
        return pool.submit(work).result()


def _be_quiet() -> None:
    from pipeline.quiet import quiet_libraries

    logging.disable(logging.CRITICAL)
    quiet_libraries()


def _peak_mb() -> int:
    """MB (10^6 bytes). On Linux not from getrusage, to which what started this process counts, too."""
    status = Path("/proc/self/status")
    if status.exists():
        [peak] = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(peak) * 1024 // 1_000_000
    # Bytes on macOS, KiB elsewhere.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit // 1_000_000


def bench_scale(
    counts: Sequence[int], folder: Path | None, shard_notes: int | None, made_up: bool, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Measure each number of notes; blocks for as long as that takes. `folder`: where to write, by default a temporary one.

    Raises ConfigurationError for a folder that is not empty.
    """
    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise ConfigurationError("--folder: not empty; name one that is, or one that is not there yet")
    with tempfile.TemporaryDirectory() as temporary:
        sizes = [measure(count, folder or Path(temporary), shard_notes, made_up, overrides) for count in counts]
    return {"sizes": sizes, "made_up": made_up, "machine": describe_machine()}


def print_scale(figures: Mapping[str, Any], console: Console | None = None) -> None:
    """A row for each run, the first runs' seconds by stage, then the machine."""
    console = console or Console()
    table = Table(box=None, padding=(0, 2, 0, 0))
    for index, column in enumerate(_COLUMNS):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    for size in figures["sizes"]:
        for name, run in size["runs"].items():
            table.add_row(f"{size['count']:,} {name}", *_told(run))
    console.print(table)
    for size in figures["sizes"]:
        stages = ", ".join(f"{name} {seconds:.2f}" for name, seconds in size["runs"]["first"]["stage_seconds"].items())
        if stages:
            console.print(f"Seconds of {size['count']:,} by stage: {stages}", highlight=False)
    console.print(", ".join(f"{name} {value}" for name, value in figures["machine"].items()), highlight=False, markup=False)


def _told(run: Mapping[str, Any]) -> list[str]:
    seconds = [run[name] for name in ("seconds", "cpu_seconds", "plan_seconds", "work_seconds", "publish_seconds")]
    shown = ["" if value is None else f"{value:.2f}" for value in seconds]
    rate = run["notes_per_second"]
    return [f"{run['notes']:,}", f"{run['shards']:,}", *shown, "" if rate is None else f"{rate:,.0f}", f"{run['peak_mb']:,}"]
