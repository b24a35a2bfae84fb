"""`chartmill evaluate`: how good summaries and records are, against what people wrote. Prints no text of any note."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from pipeline.exits import DONE, AsJson, finish
from schemas.errors import ConfigurationError

EPILOG = (
    "Example: `chartmill evaluate --task summary --input pairs.parquet --html cases.html`, "
    "or `chartmill evaluate --task record --input notes/ --gold gold/records.parquet`"
)
TASKS = ("summary", "record")


def evaluate(
    inputs: Annotated[
        list[str] | None, typer.Option("--input", "-i", help="Notes with references: file, folder, glob or s3:// URI; repeat.")
    ] = None,
    task: Annotated[str, typer.Option("--task", help="What is evaluated: `summary` or `record`.")] = "summary",
    model: Annotated[str | None, typer.Option("--model", help="`default`, a folder, an s3:// prefix, or a hub id; as of `run`.")] = None,
    output_folder: Annotated[
        str | None, typer.Option("--output-folder", help="A finished run, whose summaries are scored; joined by note id.")
    ] = None,
    text_column: Annotated[str | None, typer.Option("--text-column", help="The notes. [default: text]")] = None,
    id_column: Annotated[str | None, typer.Option("--id-column", help="Ids, for --output-folder. [default: note_id]")] = None,
    references: Annotated[
        list[str] | None, typer.Option("--reference", help="Column of right summaries; repeat for several. [default: reference]")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="The first so many notes with references.")] = None,
    backend: Annotated[str | None, typer.Option("--backend", help="torch, generate, ctranslate2 or echo.")] = None,
    dtype: Annotated[str | None, typer.Option("--dtype", help="auto, float32, bfloat16 or int8.")] = None,
    beams: Annotated[int | None, typer.Option("--beams", min=1, help="1 is greedy; by default as the model ships.")] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Job file whose model and settings are evaluated.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", "-s", help="Override a key of the job file, as of `run`.")] = None,
    allow_download: Annotated[bool, typer.Option("--allow-download", help="Let --model fetch a hub id.")] = False,
    baseline_words: Annotated[int, typer.Option("--baseline-words", min=2, help="Words of the baselines lead and first+last.")] = 120,
    bertscore: Annotated[bool, typer.Option("--bertscore", help="BERTScore by MiniLM too; needs chartmill[semantic].")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the resamples behind the intervals.")] = 0,
    html: Annotated[
        str | None, typer.Option("--html", help="Local page with the best and worst cases, for you alone: it holds patient text.")
    ] = None,
    gold_format: Annotated[
        str, typer.Option("--gold-format", help="Of right records: chartmill, synthea, glaucoma, phee, neiss or vaers.")
    ] = "chartmill",
    gold_column: Annotated[str, typer.Option("--gold-column", help="Column of right records, as JSON.")] = "gold",
    gold: Annotated[
        str | None, typer.Option("--gold", help="Right records in a local Parquet file of their own, by note id: as `sample` writes them.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score a model's summaries, or those of a finished run, against reference summaries: ROUGE with intervals, beside what costs nothing
    (the note's first words, its first and last words, the note itself), with flags, novelty and compression.

    With `--task record` the records that a job would read, or those of a finished run: precision, recall and F1 of each field that the
    collection annotates, how many assertions are right, and how many values are the note's own words. No model for summaries is needed;
    `--set tasks.record.reader=both` scores them with a model beside the rules.

    Percent throughout. Notes without a summary count as 0; rows without a text or a reference are left out and counted.
    """
    _check(task, output_folder, model, html)
    if task == "record":
        _refuse({"--model": model, "--reference": references, "--backend": backend, "--dtype": dtype, "--beams": beams})
        _refuse({"--allow-download": allow_download, "--bertscore": bertscore, "--html": html})
        job = _job(config, overrides, inputs, None, None, None, None, False, {"text": text_column, "note_id": id_column})
        _evaluate_records(job, gold_format, gold_column, gold, limit, output_folder, seed, as_json)
    job = _job(config, overrides, inputs, model, backend, dtype, beams, allow_download, {"text": text_column, "note_id": id_column})
    from pipeline.evaluation.bertscore import installed_encoder
    from pipeline.evaluation.measure import Options, measure
    from pipeline.evaluation.tables import print_evaluation
    from pipeline.rouge import check_installed

    check_installed()
    if bertscore:
        installed_encoder()
    columns = tuple(dict.fromkeys(references or ("reference",)))
    options = Options(columns, limit, output_folder, baseline_words, seed=seed, bertscore=bertscore)
    evaluated = measure(job, options, lambda line: print(line, file=sys.stderr, flush=True))
    print_evaluation(evaluated.figures)
    if html is not None:
        from pipeline.evaluation.cases_page import write_cases

        write_cases(evaluated, Path(html), output_folder)
        print("The page is written. It contains patient text: keep it as you would keep the notes, and delete it when you are done.")
    finish(DONE, as_json, **evaluated.figures)


def _refuse(given: Mapping[str, Any]) -> None:
    """Raises ConfigurationError for options that only a summary has."""
    for name, value in given.items():
        if value:
            raise ConfigurationError(f"{name}: belongs to --task summary; a record is read without a model for summaries")


def _evaluate_records(
    job: Any, gold_format: str, column: str, gold: str | None, limit: int | None, output_folder: str | None, seed: int, as_json: bool
) -> NoReturn:
    from pipeline.evaluation.record_measure import RecordOptions, measure_records
    from pipeline.evaluation.record_tables import print_records

    options = RecordOptions(gold_format, column, gold, limit, output_folder, seed=seed)
    figures = measure_records(job, options, lambda line: print(line, file=sys.stderr, flush=True))
    print_records(figures)
    finish(DONE, as_json, **figures)


def _check(task: str, output_folder: str | None, model: str | None, html: str | None) -> None:
    """Raises ConfigurationError for what does not go together, before anything is loaded."""
    if task not in TASKS:
        raise ConfigurationError(f"--task: {task!r} cannot be evaluated; choices: {', '.join(TASKS)}")
    if output_folder is not None and model is not None:
        raise ConfigurationError("--model: with --output-folder the summaries are there already; leave out one of them")
    if html is not None and "://" in html:
        raise ConfigurationError("--html: the page holds patient text, so it is written to a local file only")


def _job(
    config: Path | None,
    overrides: list[str] | None,
    inputs: list[str] | None,
    model: str | None,
    backend: str | None,
    dtype: str | None,
    beams: int | None,
    allow_download: bool,
    columns: dict[str, str | None],
) -> Any:
    from pipeline.config import load_job

    settings = {
        "input.uris": inputs,
        "tasks.summary.model": model,
        "engine.backend": backend,
        "engine.dtype": dtype,
        "tasks.summary.decode.num_beams": beams,
        "engine.allow_download": allow_download or None,
        **{f"input.columns.{name}": column for name, column in columns.items()},
    }
    job = load_job(config, overrides or (), settings)
    if not job.input.uris:
        raise ConfigurationError("--input: nothing given; name the file, folder or s3:// URI that holds notes and references")
    return job
