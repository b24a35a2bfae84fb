"""`chartmill bench kills`: runs over synthetic notes are killed and run again, and their rows compared with an undisturbed run's.

Every trial is one output folder: a run that gets SIGKILL, half of them at a random moment, half just before a random change of the folder
(what takes microseconds would hardly ever be hit by chance), and a run that goes on to the end. All are forks of this process.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial, reduce
from pathlib import Path
from typing import Any

from pipeline.killed_runs import PHASES, Kill, Killed, Marks, Runs, answer_of, answers_of, drawn_moment, import_all, killed
from schemas.errors import ChartmillError, ConfigurationError
from transforms.terms import vocabulary

PLACES = ("plan", "shard", "commit", "publish")
ENGINES = ("echo", "torch", "generate", "ctranslate2")
_KINDS = ("summaries", "records", "rejections")
_SHARD_NOTES = 6
# A kill that comes too late is drawn again; so many in a row mean that runs are over before they begin.
_MOST_LATE = 50
_SAY_TIMES = 10

# Where a row came from: kind, file, row (None: the whole file).
Place = tuple[str, int, int | None]
Rows = Mapping[Place, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Differences:
    """Rows that are missing, that are there too often or should not be, and that stand where they should with other content."""

    lost: int = 0
    doubled: int = 0
    different: int = 0

    def plus(self, other: Differences) -> Differences:
        return Differences(self.lost + other.lost, self.doubled + other.doubled, self.different + other.different)


@dataclass(slots=True)
class _Tally:
    """What the trials came to so far. `failed`: runs that were to go on and did not end well, or released nothing."""

    trials: int = 0
    too_late: int = 0
    failed: int = 0
    rows: Differences = field(default_factory=Differences)
    hits: Counter[str] = field(default_factory=Counter)

    def plus(self, other: _Tally) -> _Tally:
        counts = (self.trials + other.trials, self.too_late + other.too_late, self.failed + other.failed)
        return _Tally(*counts, self.rows.plus(other.rows), self.hits + other.hits)

    def add(self, place: str, found: Differences | None) -> None:
        self.trials += 1
        self.hits[place] += 1
        self.failed += found is None
        self.rows = self.rows.plus(found or Differences())


def compare_rows(straight: Rows, found: Rows) -> Differences:
    """What `found` lacks, has too often, and has otherwise than `straight`."""
    lost = sum(max(0, len(rows) - len(found.get(place, ()))) for place, rows in straight.items())
    doubled = sum(max(0, len(rows) - len(straight.get(place, ()))) for place, rows in found.items())
    both = [(Counter(straight[place]), Counter(found[place])) for place in straight.keys() & found.keys()]
    different = sum(min(one.total(), two.total()) - (one & two).total() for one, two in both)
    return Differences(lost, doubled, different)


def rows_of(output: Path) -> dict[Place, list[str]]:
    """Hashes of all rows that a plain listing of the output's data folders finds, by where they came from."""
    import pyarrow.parquet as pq

    rows: dict[Place, list[str]] = {}
    for kind in _KINDS:
        for path in sorted(output.glob(f"{kind}/version=*/*.parquet")):
            for row in pq.ParquetFile(path).read(use_threads=False).to_pylist():
                place = (kind, row["source_file"], row["source_row"])
                rows.setdefault(place, []).append(hashlib.sha256(repr(row).encode()).hexdigest())
    return rows


def bench_kills(
    trials: int, notes: int, engine: str, model: str | None = None, seed: int = 0, overrides: Sequence[str] = (), jobs: int = 1
) -> dict[str, Any]:
    """Kill runs, `jobs` at a time; blocks for as long as that takes. Returns the figures.

    All is well if `lost`, `doubled`, `different` and `failed` are 0.

    Raises ConfigurationError for what a job could not be run with, ChartmillError when the undisturbed run fails or every kill is too late.
    """
    if engine not in ENGINES:
        raise ConfigurationError(f"--engine: {engine!r} is not one of {', '.join(ENGINES)}")
    # One thread each, before anything that makes pools of them is imported: no pool has to survive a fork.
    os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})
    with tempfile.TemporaryDirectory(prefix="chartmill-kills-") as name:
        runs = Runs(_settings(Path(name) / "notes", engine, model), name, overrides=tuple(overrides))
        _check(runs)
        import_all(torch=engine != "echo")
        vocabulary()
        answer_of(partial(_write_notes, notes, Path(name), seed))
        began = time.monotonic()
        tally = _side_by_side(runs, trials, seed, min(jobs, trials))
        return _figures(tally, notes, engine, seed, time.monotonic() - began)


def _settings(notes: Path, engine: str, model: str | None) -> dict[str, Any]:
    return {
        "input.uris": [str(notes)],
        "engine.backend": engine,
        "engine.threads": 1,
        "engine.shard_notes": _SHARD_NOTES,
        "tasks.summary.model": model,
        "run.sweep_after_minutes": 0,
        # Whatever the notes are like, they are released: publishing is to be hit, too.
        "gate.max_quarantined_share": 1,
        "gate.max_flagged_share": 1,
        "gate.contract": "ignore",
    }


def _check(runs: Runs) -> None:
    """Say what is wrong with the job now, and not in a child."""
    from pipeline.config import load_job

    load_job(None, runs.overrides, runs.settings)


def _write_notes(notes: int, folder: Path, seed: int) -> None:
    from pipeline.sample import write_sample

    write_sample(notes, folder, seed=seed, dirty_share=0.2, files=2)


def _side_by_side(runs: Runs, trials: int, seed: int, jobs: int) -> _Tally:
    """All trials, an equal share in each of `jobs` processes."""
    straight, usual = _straight(runs)
    tallies = answers_of([partial(_killed_and_resumed, runs, trials, seed, straight, usual, i, jobs) for i in range(jobs)], 0)
    if None in tallies:
        raise ChartmillError("the trials could not be done; what went wrong is told above")
    return reduce(_Tally.plus, tallies)


def _killed_and_resumed(runs: Runs, all_trials: int, seed: int, straight: Rows, usual: Marks, job: int, jobs: int) -> _Tally:
    chance, trials = random.Random(f"{seed} {job}"), len(range(job, all_trials, jobs))
    changes, seconds = usual.changes(PHASES[:3]), usual.seconds()
    tally, late = _Tally(), 0
    while tally.trials < trials:
        output = runs.new_output(f"trial-{job}-{tally.trials + tally.too_late:06d}")
        hit = killed(runs, output, _drawn(chance, changes, seconds), seconds)
        if hit.place == "done":
            tally.too_late, late = tally.too_late + 1, late + 1
        else:
            tally.add(hit.place, _resumed(runs, hit, straight))
            late = 0
            if job == 0:
                _say(tally, trials)
        shutil.rmtree(output, ignore_errors=True)
        if late >= _MOST_LATE:
            raise ChartmillError("every kill came too late: the machine is too busy, or the notes are too few (--notes)")
    return tally


def _straight(runs: Runs) -> tuple[Rows, Marks]:
    """Rows of the undisturbed run, and when it did what; of its second go, when files have been read before."""
    runs.finish(runs.new_output("warm"))
    output = runs.new_output("straight")
    marks = runs.finish(output)
    rows: Rows | None = answer_of(partial(rows_of, Path(output)))
    if not rows:
        raise ChartmillError("the undisturbed run came to no rows")
    return rows, marks


def _drawn(chance: random.Random, changes: Sequence[int], seconds: dict[str, float]) -> Kill:
    if chance.random() < 0.5:
        return Kill(change=chance.choice(changes))
    return drawn_moment(chance.random(), seconds)


def _resumed(runs: Runs, hit: Killed, straight: Rows) -> Differences | None:
    """Go on where the kill hit, and compare; None when that run fails or releases nothing."""
    output = Path(hit.output)

    def go_on() -> Differences | None:
        code = runs.run(hit.output, Marks())
        return compare_rows(straight, rows_of(output)) if code == 0 and (output / "_SUCCESS").is_file() else None

    found: Differences | None = answer_of(go_on)
    return found


def _say(tally: _Tally, trials: int) -> None:
    if tally.trials % max(1, trials // _SAY_TIMES) == 0 and tally.trials < trials:
        rows = tally.rows
        told = f"lost {rows.lost}, doubled {rows.doubled}, different {rows.different}, failed {tally.failed}"
        print(f"{tally.trials} of {trials} kills of the first process: {told}", file=sys.stderr, flush=True)


def _figures(tally: _Tally, notes: int, engine: str, seed: int, seconds: float) -> dict[str, Any]:
    rows = tally.rows
    return {
        "trials": tally.trials,
        "lost": rows.lost,
        "doubled": rows.doubled,
        "different": rows.different,
        "failed": tally.failed,
        "too_late": tally.too_late,
        "hits": {place: tally.hits[place] for place in PLACES},
        "notes": notes,
        "engine": engine,
        "seed": seed,
        "seconds": round(seconds, 1),
    }


def print_kills(figures: Mapping[str, Any]) -> None:
    """The figures for people."""
    hits = ", ".join(f"{place} {count}" for place, count in figures["hits"].items())
    rows = ", ".join(f"{kind} {figures[kind]}" for kind in ("lost", "doubled", "different"))
    print(f"{figures['trials']} runs of {figures['notes']} notes killed and run again in {figures['seconds']:.0f} s. They hit: {hits}.")
    print(f"Rows {rows}; runs that could not go on {figures['failed']}.")
