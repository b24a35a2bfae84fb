"""`chartmill bench job`: the whole job against its engine alone, and against a plain Beam pipeline of rows. It shows no text.

Three contenders do the same notes with the same model on the same cores, by turns, each in a process of its own:

- `pipeline`: what `chartmill run` does: read, validate, segment, generate, evidence, verify, commit, publish.
- `bare_engine`: the requests that the pipeline makes of the notes, handed to the same engine all at once.
- `row_pipeline`: a Beam pipeline of rows as Beam's documentation teaches it: ReadFromParquet, BatchElements, a DoFn that loads the model in
  `setup` and calls `model.generate()`, WriteToParquet; float32, 8 rows at once. Its rows are the requests' texts.

Loading a model and starting Python are no part of a rate; what loading took is told beside it.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.bench_machine import cpu_name
from pipeline.bench_turns import Contender, Turn
from schemas.errors import ConfigurationError
from transforms.engine import Completion, Engine, Request, Tokenized

DEFAULT_SHAPE = "distilbart-6-6"
CONTENDERS = ("pipeline", "bare_engine", "row_pipeline")
# Rows that the plain pipeline hands to `generate()` at once.
ROW_BATCH = 8


@dataclass(frozen=True, slots=True)
class Workload:
    """What every contender does. `notes`: file or folder. `folder`: where they may write. `limit`: notes, all in one shard.

    `overrides`: of the job file, `a.b=c`.
    """

    notes: str = field(repr=False)
    model: str = field(repr=False)
    folder: Path = field(repr=False)
    limit: int
    threads: int
    overrides: tuple[str, ...] = field(default=(), repr=False)

    @property
    def rows(self) -> Path:
        """The requests' texts, one a row, for the row pipeline; the bare engine's contender writes them."""
        return self.folder / "requests.parquet"

    def job(self, output: Path) -> Any:
        from pipeline.config import load_job

        settings = {
            "input.uris": [self.notes],
            "output.uri": str(output),
            "tasks.summary.model": self.model,
            "engine.threads": self.threads,
            "engine.shard_notes": self.limit,
            "run.limit": self.limit,
            # Whatever the notes are like, they are released: publishing is part of the job.
            "gate.max_quarantined_share": 1,
            "gate.max_flagged_share": 1,
            "gate.contract": "ignore",
        }
        return load_job(None, self.overrides, settings)


class WholeJob:
    """`chartmill run` into a fresh folder each turn."""

    def __init__(self, work: Workload) -> None:
        self._work = work

    def turn(self) -> Turn:
        from pipeline.run import run_job
        from transforms.engine import load_seconds

        with tempfile.TemporaryDirectory(dir=self._work.folder) as output:
            job = self._work.job(Path(output))
            loading, started = load_seconds(), time.perf_counter()
            report = run_job(job).published.report
            seconds, loading = time.perf_counter() - started, load_seconds() - loading
        return Turn(seconds - loading, loading, report["notes_in"], report["tokens"]["generated"], report["seconds"])


class BareEngine:
    """The job's engine, loaded once, and the requests that the job's stages make."""

    def __init__(self, work: Workload) -> None:
        self._engine, self._notes, self._requests = _recorded(work)
        texts = [request.text for request in self._requests]
        pq.write_table(pa.table({"note_id": [f"r{i}" for i in range(len(texts))], "text": texts}), work.rows)

    def turn(self) -> Turn:
        started = time.perf_counter()
        completions = self._engine.generate(self._requests)
        seconds = time.perf_counter() - started
        return Turn(seconds, 0, self._notes, sum(len(completion.token_ids) for completion in completions))


class RowPipeline:
    """The plain Beam pipeline, into a fresh folder each turn."""

    def __init__(self, work: Workload) -> None:
        self._work = work

    def turn(self) -> Turn:
        import torch

        from pipeline.bench_rows import run_rows
        from pipeline.prepare import prepare

        torch.set_num_threads(self._work.threads)
        with tempfile.TemporaryDirectory(dir=self._work.folder) as output:
            task = prepare(self._work.job(Path(output))).task
            started = time.perf_counter()
            rows, tokens, loading = run_rows(self._work.rows, Path(output), str(task.model.folder), task.decode_settings(), ROW_BATCH)
            seconds = time.perf_counter() - started
        return Turn(seconds - loading, loading, rows, tokens)


class _Recorder:
    """An engine that keeps what it is asked."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.identity = engine.identity
        self.max_source_tokens = engine.max_source_tokens
        self.requests: list[Request] = []

    def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
        return self._engine.tokenize(texts)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        self.requests += requests
        return self._engine.generate(requests)


def _recorded(work: Workload) -> tuple[Engine, int, list[Request]]:
    """The job's engine, how many notes got as far as it, and all that the stages before and in generation ask of it."""
    from pipeline.planning import plan_run
    from pipeline.prepare import prepare
    from transforms.engine import load_engine
    from transforms.generate import generate_batch
    from transforms.read import read_segment
    from transforms.segment import segment_batch
    from transforms.shared_engine import bound
    from transforms.validate import Validator, validate_batch

    prepared = prepare(work.job(work.folder / "recorded"))
    settings = prepared.plan_settings()
    plan = plan_run(prepared.store, prepared.version, "recorded", settings, prepared.said_in_plan(), save=False)
    engine = load_engine(bound(prepared.engine, prepared.task.model))
    recorder, validator, notes = _Recorder(engine), Validator(prepared.suite), 0
    for segment in plan.to_do:
        for batch in read_segment(segment, settings.columns):
            ready = segment_batch(validate_batch(batch, validator))
            generate_batch(ready, recorder, prepared.task)
            notes += batch.stats.notes_in
    return engine, notes, recorder.requests


def contenders(work: Workload) -> dict[str, Callable[[], Contender]]:
    """Each contender by name, to be made where it is to run; `bare_engine` before `row_pipeline`, whose rows it writes."""
    from functools import partial

    return {
        "bare_engine": partial(BareEngine, work),
        "pipeline": partial(WholeJob, work),
        "row_pipeline": partial(RowPipeline, work),
    }


def write_notes(path: Path, count: int, shape: str, seed: int = 0) -> None:
    """Synthetic notes as long as the shape's texts, a word for a token: those of `chartmill sample`, several run together, then cut."""
    from pipeline.bench_shapes import SHAPES, make_samples
    from pipeline.sample import write_sample

    lengths = [sample.source_tokens for sample in make_samples(SHAPES[shape], count, seed)]
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        [file] = write_sample(count, Path(folder), seed=seed, dirty_share=0, files=1).files
        table = pq.read_table(file)
    texts = table.column("text").to_pylist()
    cut = [_cut(texts, index, length) for index, length in enumerate(lengths)]
    pq.write_table(table.set_column(table.schema.get_field_index("text"), "text", pa.array(cut)), path)


def _cut(texts: Sequence[str], index: int, words: int) -> str:
    """The first `words` words of text number `index` and those after it, less two for the special tokens of a model."""
    lines: list[str] = []
    left = words - 2
    while left > 0:
        for line in texts[index % len(texts)].splitlines():
            found = line.split()
            lines.append(" ".join(found[:left]))
            left = max(0, left - len(found))
        index += 1
    return "\n".join(lines).strip()


def compare(turns: Mapping[str, Sequence[Turn]], work: Workload, dtype: str) -> dict[str, Any]:
    """The figures: medians over turns; `ratios`: the pipeline's notes a second divided by each of the others'."""
    found = {name: _figures(mine) for name, mine in turns.items()}
    ours = found["pipeline"]["notes_per_second"]
    stages = [{**turn.stages, "other": turn.seconds - sum(turn.stages.values())} for turn in turns["pipeline"]]
    return {
        "ratios": {name: _ratio(ours, found[name]["notes_per_second"]) for name in ("bare_engine", "row_pipeline") if name in found},
        "contenders": found,
        "stage_seconds": {name: round(median(stage[name] for stage in stages), 3) for name in stages[0]},
        "machine": {
            "cpu": cpu_name(),
            "cores": os.cpu_count(),
            "threads": work.threads,
            "dtype": dtype,
            "python": platform.python_version(),
        },
    }


def _figures(turns: Sequence[Turn]) -> dict[str, Any]:
    rates = sorted(turn.notes / turn.seconds for turn in turns)
    return {
        "notes": turns[0].notes,
        "turns": len(turns),
        "notes_per_second": round(median(rates), 4),
        "spread": [round(rates[0], 4), round(rates[-1], 4)],
        "seconds": round(median(turn.seconds for turn in turns), 3),
        "load_seconds": round(median(turn.load_seconds for turn in turns), 3),
        "output_tokens": turns[-1].output_tokens,
        "peak_mb": max(turn.peak_mb for turn in turns),
    }


def _ratio(ours: float, theirs: float) -> float | None:
    return round(ours / theirs, 3) if theirs else None


def bench_job(
    notes: str | None, model: str | None, *, shape: str, count: int, repeats: int, seed: int = 0, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Measure; blocks for as long as that takes. `notes`, `model`: None for synthetic notes, and for a model of the shape, weights random.

    Raises ConfigurationError for what a job could not be run with, ChartmillError when a contender fails.
    """
    from pipeline.bench_shapes import SHAPES, make_model
    from pipeline.bench_turns import take_turns
    from pipeline.prepare import prepare
    from transforms.engine.hardware import usable_cores

    if shape not in SHAPES:
        raise ConfigurationError(f"--shape: choices: {', '.join(SHAPES)}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if notes is None:
            notes = str(folder / "notes.parquet")
            write_notes(Path(notes), count, shape, seed)
        model = model or str(make_model(SHAPES[shape], folder / "model", seed))
        work = Workload(notes, model, folder, count, usable_cores(), tuple(overrides))
        dtype = prepare(work.job(folder / "planned")).provenance.dtype
        return compare(take_turns(contenders(work), repeats), work, dtype)
