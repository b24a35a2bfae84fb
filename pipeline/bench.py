"""`chartmill bench`: measurements of chartmill's parts on anybody's data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.exits import DONE, FAILED, AsJson, finish
from schemas.errors import ConfigurationError

bench = typer.Typer(
    help="Measure parts of chartmill on your own data.",
    epilog="Example: `chartmill bench checks --input pairs.parquet`",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@bench.command(epilog="Example: `chartmill bench checks --input pairs.parquet --human hallucination=score_column`")
def checks(
    source: Annotated[Path, typer.Option("--input", "-i", help="Parquet file, one note a row.")],
    text_column: Annotated[str, typer.Option("--text-column", help="The notes.")] = "text",
    reference_column: Annotated[
        str, typer.Option("--reference-column", help="A right summary of each; errors are planted in it.")
    ] = "reference",
    candidate_column: Annotated[str, typer.Option("--candidate-column", help="The summaries that people scored.")] = "candidate",
    human: Annotated[list[str] | None, typer.Option("--human", help="NAME=COLUMN of a human score of the candidates; repeat.")] = None,
    wrong_column: Annotated[
        str | None, typer.Option("--wrong-column", help="A wrong version of each right summary, null for none.")
    ] = None,
    names: Annotated[str | None, typer.Option("--checks", help="Checks to study, with commas between; by default all.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="The first so many rows.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed plants the same errors.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Study the checks: false alarms on right summaries, planted errors found, agreement with human scores, time. Prints no text."""
    from pipeline.check_study import Columns, study_file
    from pipeline.check_tables import print_study
    from transforms.checks import CHECKS, known_checks

    try:
        studied = known_checks([name.strip() for name in names.split(",")] if names else CHECKS)
    except ValueError as error:
        raise ConfigurationError(f"--checks: {error}") from None
    columns = Columns(text_column, reference_column, candidate_column, wrong_column, _scores(human or []))
    figures = study_file(source, columns, studied, limit, seed)
    print_study(figures)
    finish(DONE, as_json, study=figures)


def _scores(given: list[str]) -> dict[str, str]:
    pairs = [name.partition("=")[::2] for name in given]
    if not all(name and column for name, column in pairs):
        raise ConfigurationError("--human: NAME=COLUMN, for instance --human hallucination=score")
    return dict(pairs)


@bench.command(epilog="Example: `chartmill bench engine --shape distilbart-6-6 --requests 48`")
def engine(
    shape: Annotated[list[str] | None, typer.Option("--shape", help="Dimensions of a random model; repeat. [default: t5-small]")] = None,
    beams: Annotated[int | None, typer.Option("--beams", min=1, help="1 is greedy; by default 1, or what --model ships.")] = None,
    requests: Annotated[int, typer.Option("--requests", min=1, help="How many texts.")] = 24,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Turns of each; medians are told.")] = 3,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads of each; by default all cores.")] = None,
    dtype: Annotated[str, typer.Option("--dtype", help="Of our engine: auto, float32, bfloat16, int8.")] = "auto",
    float32: Annotated[bool, typer.Option("--float32", help="Measure our engine in float32 too.")] = False,
    draft: Annotated[bool, typer.Option("--draft", help="Measure our engine with engine.draft=auto too.")] = False,
    peers: Annotated[str | None, typer.Option("--peers", help="With commas between; one_window is left out by default.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="A model instead of random weights, as of `run`; needs --input.")] = None,
    source: Annotated[Path | None, typer.Option("--input", "-i", help="Parquet file with real texts.")] = None,
    text_column: Annotated[str, typer.Option("--text-column", help="The texts.")] = "text",
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same weights and texts.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Measure our engine against `model.generate()` and CTranslate2 on the same texts, by turns. Prints no text."""
    from pipeline.bench_engine import USUAL_PEERS, Options, bench_notes, bench_shapes
    from pipeline.bench_engine_table import print_engines
    from transforms.engine.hardware import usable_cores
    from transforms.models import resolve_model

    if model is not None and source is None:
        raise ConfigurationError("--model: random texts mean nothing to a real model; give --input too")
    if source is not None and shape:
        raise ConfigurationError("--shape: with --input there is a real model; leave out one of them")
    names = USUAL_PEERS if peers is None else tuple(name.strip() for name in peers.split(",") if name.strip())
    options = Options(beams, requests, repeats, threads or usable_cores(), dtype, names, float32, seed, draft)
    if source is None:
        figures = bench_shapes(shape or ["t5-small"], options)
    else:
        folder = resolve_model(model or "default").folder
        assert folder is not None
        figures = bench_notes(folder, source, text_column, options)
    print_engines(figures)
    finish(DONE, as_json, **figures)


@bench.command(epilog="Example: `chartmill bench job --input notes.parquet --model models/summarizer --requests 200`")
def job(
    source: Annotated[str | None, typer.Option("--input", "-i", help="Notes, as of `run`; by default synthetic ones.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="As of `run`; by default random weights of --shape.")] = None,
    shape: Annotated[str, typer.Option("--shape", help="Dimensions of the random model.")] = "distilbart-6-6",
    requests: Annotated[int, typer.Option("--requests", min=1, help="How many notes.")] = 64,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Turns of each; medians are told.")] = 3,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same notes and weights.")] = 0,
    overrides: Annotated[list[str] | None, typer.Option("--set", "-s", help="Override a key of the job file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure the whole job against its engine alone, and against a plain Beam pipeline of rows with `model.generate()`. Prints no text."""
    from pipeline.bench_job import bench_job
    from pipeline.bench_tables import print_job

    figures = bench_job(source, model, shape=shape, count=requests, repeats=repeats, seed=seed, overrides=overrides or ())
    print_job(figures)
    finish(DONE, as_json, **figures)


@bench.command(epilog="Example: `chartmill bench kills --n 1000`")
def kills(
    count: Annotated[int, typer.Option("--n", min=1, help="How many runs to kill.")] = 100,
    notes: Annotated[int, typer.Option("--notes", min=1, help="Synthetic notes of each run.")] = 24,
    engine: Annotated[str, typer.Option("--engine", help="echo, torch, generate or ctranslate2.")] = "echo",
    model: Annotated[str | None, typer.Option("--model", help="As of `run`; echo needs none.")] = None,
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="Trials at a time; by default one per core.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same notes and draws the same kills.")] = 0,
    overrides: Annotated[list[str] | None, typer.Option("--set", "-s", help="Override a key of the job file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Kill runs, run them again, and compare their rows with an undisturbed run's. Exit code 0 only if all are the same."""
    from pipeline.bench_kills import bench_kills, print_kills
    from transforms.engine.hardware import usable_cores

    figures = bench_kills(count, notes, engine, model, seed, overrides or (), jobs or usable_cores())
    print_kills(figures)
    wrong = any(figures[kind] for kind in ("lost", "doubled", "different", "failed"))
    finish(FAILED if wrong else DONE, as_json, **figures)


@bench.command(epilog="Example: `chartmill bench scale --notes 10000 --notes 100000`")
def scale(
    notes: Annotated[list[int] | None, typer.Option("--notes", min=1, help="How many; repeat. [default: 10000]")] = None,
    shard_notes: Annotated[int | None, typer.Option("--shard-notes", min=1, help="Notes per commit, as of `run`.")] = None,
    made_up: Annotated[
        bool, typer.Option("--made-up", help="Copy the first shard's commit to all others instead of running: for many small shards.")
    ] = False,
    folder: Annotated[Path | None, typer.Option("--folder", help="An empty one to write into, and keep; by default temporary.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", "-s", help="Override a key of the job file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure how time and memory grow: a first run over synthetic notes with the echo engine, running it again, and 1 % more notes."""
    from pipeline.bench_scale import bench_scale, print_scale

    figures = bench_scale(notes or [10_000], folder, shard_notes, made_up, overrides or ())
    print_scale(figures)
    finish(DONE, as_json, **figures)


@bench.command(epilog="Example: `chartmill bench records --input sample/notes`")
def records(
    source: Annotated[str, typer.Option("--input", "-i", help="Notes, as of `run`.")],
    model: Annotated[str, typer.Option("--model", help="A model that writes records: folder, s3:// prefix or hub id.")] = "default-record",
    text_column: Annotated[str | None, typer.Option("--text-column", help="The notes. [default: text]")] = None,
    requests: Annotated[int, typer.Option("--requests", min=1, help="How many notes.")] = 64,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Turns of each; medians are told.")] = 3,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads of each; by default all cores.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", "-s", help="Override a key of the job file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure records by rules and by a model (constrained, drafting, free) beside summaries, on the same notes. Prints no text."""
    from pipeline.bench_records import bench_records, print_records
    from transforms.engine.hardware import usable_cores

    sizes = {"count": requests, "repeats": repeats, "threads": threads or usable_cores()}
    figures = bench_records(source, model, **sizes, text_column=text_column, overrides=overrides or ())
    print_records(figures)
    finish(DONE, as_json, **figures)
