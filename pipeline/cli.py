"""The command line. Heavy packages are imported inside the commands, so that `--help` answers at once.

Exit codes: 0 done, 1 failed, 2 bad usage or configuration, 3 finished but held by the gate.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.audit import EPILOG as AUDIT_EPILOG
from pipeline.audit import audit
from pipeline.bench import bench
from pipeline.compare import EXAMPLE as COMPARE_EXAMPLE
from pipeline.compare import compare
from pipeline.doctor import EPILOG as DOCTOR_EPILOG
from pipeline.doctor import doctor
from pipeline.evaluate import EPILOG as EVALUATE_EPILOG
from pipeline.evaluate import evaluate
from pipeline.exits import DONE, FAILED, HELD, USAGE, AsJson, finish, print_result
from pipeline.export import EPILOG as EXPORT_EPILOG
from pipeline.export import export
from pipeline.quiet import quiet_libraries
from pipeline.restart import started_again
from pipeline.sagemaker import sagemaker
from pipeline.train import EXAMPLE, train
from schemas.errors import ChartmillError, ConfigurationError

_TYPERS_CODE_FOR_INTERRUPTED = 130

app = typer.Typer(
    name="chartmill",
    help="Turn medical notes into summaries and structured records, with evidence, a contract and a report.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
)
app.add_typer(bench, name="bench")
app.add_typer(sagemaker, name="sagemaker")
app.command(epilog=EXPORT_EPILOG)(export)
app.command(epilog=AUDIT_EPILOG)(audit)
app.command(epilog=DOCTOR_EPILOG)(doctor)
app.command(epilog=EXAMPLE)(train)
app.command(epilog=EVALUATE_EPILOG)(evaluate)


class Backend(StrEnum):
    TORCH = "torch"
    GENERATE = "generate"
    CTRANSLATE2 = "ctranslate2"
    ECHO = "echo"


class LogFormat(StrEnum):
    AUTO = "auto"
    PLAIN = "plain"
    JSON = "json"
    NONE = "none"


Inputs = Annotated[list[str] | None, typer.Option("--input", "-i", help="File, folder, glob or s3:// URI; repeat for several.")]
Output = Annotated[str | None, typer.Option("--output", "-o", help="Folder or s3:// prefix for everything the run writes.")]
Config = Annotated[Path | None, typer.Option("--config", "-c", help="Job file (see `chartmill init`).")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", "-s", help="Override a key of the job file: `--set gate.max_flagged_share=0.2`.")
]
Engine = Annotated[Backend | None, typer.Option("--engine", help="What generates: `torch`; `echo` needs no model (for tests and load).")]
Model = Annotated[str | None, typer.Option("--model", help="`default`, a folder, an s3:// prefix, or a hub id with --allow-download.")]
ShardNotes = Annotated[int | None, typer.Option("--shard-notes", help="Notes per commit, for files not planned before.")]
Limit = Annotated[int | None, typer.Option("--limit", help="At least this many notes, rounded up to whole shards.")]
AllowDownload = Annotated[bool, typer.Option("--allow-download", help="Let --model fetch a hub id.")]


@app.command(epilog="Example: `chartmill run --input notes/ --output out/ --set tasks.summary.decode.num_beams=4`")
def run(
    inputs: Inputs = None,
    output: Output = None,
    config: Config = None,
    overrides: Overrides = None,
    engine: Engine = None,
    model: Model = None,
    shard_notes: ShardNotes = None,
    limit: Limit = None,
    max_minutes: Annotated[float | None, typer.Option("--max-minutes", help="Start no further shard after this time; exit 0.")] = None,
    allow_download: AllowDownload = False,
    run_id: Annotated[str | None, typer.Option("--run-id", help="Name of this run; by default time and a random suffix.")] = None,
    log_format: Annotated[LogFormat, typer.Option("--log-format", help="How progress is shown on stderr.")] = LogFormat.AUTO,
    as_json: AsJson = False,
) -> None:
    """Summarize notes and write summaries, records, rejections and a report. Run it again to resume or to add new files.

    Apache Beam's own options follow after `--`: `-- --direct_num_workers=2 --direct_running_mode=multi_processing`.
    """
    from pipeline.interrupt import stopped_by_sigterm
    from pipeline.metrics import check_metrics_file, write_metrics
    from pipeline.sagemaker_container import exit_message, this_host

    host = this_host()
    with exit_message(host) as tell, stopped_by_sigterm():
        job = _job(config, overrides, inputs, output, engine, model, shard_notes, limit, allow_download, max_minutes)
        check_metrics_file(job.run)
        from pipeline.progress import show_progress
        from pipeline.run import run_job

        watch = partial(show_progress, style=log_format.value)
        outcome = run_job(job, run_id=run_id, beam_options=_beam_options(), watch=watch, host=host)
        tell(outcome)
    from pipeline.terminal import print_outcome, print_share

    if outcome.elsewhere:
        print_share(outcome.elsewhere)
    else:
        print_outcome(outcome.published.report, job.output.uri, outcome.published.released)
        write_metrics(job.run, outcome.published.report, outcome.published.released)
    if outcome.message:
        print(f"error: {outcome.message}", file=sys.stderr)
    finish(outcome.exit_code, as_json, report=outcome.published.report, error=outcome.message or None)


@app.command(epilog="Example: `chartmill plan --input notes/ --output out/`")
def plan(
    inputs: Inputs = None,
    output: Output = None,
    config: Config = None,
    overrides: Overrides = None,
    engine: Engine = None,
    model: Model = None,
    shard_notes: ShardNotes = None,
    limit: Limit = None,
    allow_download: AllowDownload = False,
    as_json: AsJson = False,
) -> None:
    """Say what a run would do: files, shards, notes, done and to do, duplicates, time. Loads no model and writes nothing."""
    job = _job(config, overrides, inputs, output, engine, model, shard_notes, limit, allow_download)
    from pipeline.preview import preview
    from pipeline.terminal import print_preview

    figures = preview(job)
    print_preview(figures)
    finish(DONE, as_json, plan=figures)


@app.command(epilog='Example: `chartmill report out/ --accept --reason "reviewed 50 flagged summaries"`')
def report(
    output: Annotated[str, typer.Argument(metavar="OUT", help="Folder or s3:// prefix of a run.")],
    accept: Annotated[bool, typer.Option("--accept", help="Release a run that the gate held; goes on record.")] = False,
    reason: Annotated[str, typer.Option("--reason", help="Why it is accepted (no patient data: it is shown in the report).")] = "",
    config: Config = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Publish the newest run again from what is committed; with --accept, release it although the gate holds."""
    if reason and not accept:
        raise ConfigurationError("--reason: only with --accept")
    job = _job(config, overrides, None, output, None, None, None, None, False)
    from pipeline.publish import publish
    from pipeline.terminal import print_outcome
    from transforms.store import open_store

    encryption = job.output.encryption.settings() if job.output.encryption else None
    published = publish(
        open_store(job.output.uri, encryption, allow_insecure_endpoint=job.output.allow_insecure_endpoint),
        accept=(reason or "no reason given") if accept else None,
        sweep_after_s=60 * job.run.sweep_after_minutes,
    )
    print_outcome(published.report, job.output.uri, published.released)
    finish(HELD if published.complete and not published.released else DONE, as_json, report=published.report)


@app.command(epilog="Example: `chartmill init > job.yaml`, or `chartmill init job.yaml`")
def init(path: Annotated[Path | None, typer.Argument(help="File to write; by default the terminal.")] = None) -> None:
    """Write a job file with every key, its default and what it does."""
    text = (Path(__file__).parent / "job.yaml").read_text(encoding="utf-8")
    if path is None:
        print(text, end="")
        return
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigurationError("init: the file exists already; it is not overwritten") from None
    except OSError as error:
        raise ConfigurationError(f"init: the file cannot be written: {error.strerror}") from None


@app.command("check-leaks", epilog="Example: `chartmill check-leaks out/`, or with the notes themselves: `--against notes/`")
def check_leaks(
    output: Annotated[str, typer.Argument(metavar="OUT", help="Folder or s3:// prefix of a run.")],
    against: Annotated[list[str] | None, typer.Option("--against", help="Folder of notes that count as data too; repeat.")] = None,
    patterns_only: Annotated[bool, typer.Option("--patterns-only", help="Do not compare with the run's data files.")] = False,
    as_json: AsJson = False,
) -> None:
    """Look for identifiers, and for words of the notes, in what a run wrote outside its data files. Exit code 1 when there are any."""
    from pipeline.leaks import check_leaks as check
    from pipeline.terminal import print_leaks
    from transforms.store import open_to_read

    stores = [open_to_read(uri) for uri in (output, *(against or ()))]
    found = check(stores[0], stores[1:], patterns_only=patterns_only)
    print_leaks(found)
    finish(FAILED if found.leaks else DONE, as_json, **found.as_json())


@app.command(epilog="Example: `chartmill inspect out/ NOTE_ID --open`")
def inspect(
    output: Annotated[str, typer.Argument(metavar="OUT", help="Folder or s3:// prefix of a run.")],
    note_id: Annotated[str, typer.Argument(metavar="NOTE_ID", help="Id of the note; `-` reads it from standard input.")],
    inputs: Annotated[list[str] | None, typer.Option("--input", "-i", help="Where the notes are now, if they have moved; repeat.")] = None,
    html: Annotated[Path, typer.Option("--html", help="File to write, readable by you alone.")] = Path("inspect.html"),
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Write one note, its summary and its record side by side as a local page, to click from each statement to its evidence.

    The page holds the note's text: keep it as you would keep the note.
    """
    from pipeline.find_note import find_note
    from pipeline.inspect_note import render_page, write_page
    from transforms.store import open_to_read

    wanted = sys.stdin.readline().strip() if note_id == "-" else note_id
    write_page(render_page(find_note(open_to_read(output), wanted, inputs or ())), html, output)
    print("The page is written. It contains patient text: keep it as you would keep the note, and delete it when you are done.")
    if show:
        import webbrowser

        webbrowser.open(html.absolute().as_uri())
    finish(DONE, False)


@app.command(epilog="Example: `chartmill sample --notes 200 --output sample/`")
def sample(
    notes: Annotated[int, typer.Option("--notes", min=1, help="How many notes.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for notes/ and gold/.")],
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same notes.")] = 0,
    dirty_share: Annotated[float, typer.Option("--dirty-share", min=0, max=1, help="Share of damaged rows.")] = 0.06,
    files: Annotated[int, typer.Option("--files", min=1, help="How many Parquet files.")] = 4,
    pairs: Annotated[bool, typer.Option("--pairs", help="Also clean notes with reference summaries, in pairs/.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write synthetic notes with gold records, some of them damaged on purpose: for demos, tests and load. No real patient is in them."""
    from dataclasses import asdict

    from pipeline.sample import write_sample
    from pipeline.sample_pairs import write_pairs
    from pipeline.terminal import print_sample

    summary = asdict(write_sample(notes, output, seed=seed, dirty_share=dirty_share, files=files))
    if pairs:
        summary["pairs"] = write_pairs(notes, output, seed)
    print_sample(summary, output)
    finish(DONE, as_json, sample=summary)


app.command(epilog=COMPARE_EXAMPLE)(compare)


def _job(
    config: Path | None,
    overrides: Sequence[str] | None,
    inputs: Sequence[str] | None,
    output: str | None,
    engine: Backend | None,
    model: str | None,
    shard_notes: int | None,
    limit: int | None,
    allow_download: bool,
    max_minutes: float | None = None,
) -> Any:
    from pipeline.config import load_job

    return load_job(
        config,
        overrides or (),
        {
            "input.uris": list(inputs) if inputs else None,
            "output.uri": output,
            "engine.backend": engine.value if engine else None,
            "tasks.summary.model": model,
            "engine.shard_notes": shard_notes,
            "engine.allow_download": allow_download or None,
            "run.limit": limit,
            "run.max_minutes": max_minutes,
        },
    )


_after_dashes: list[str] = []


def _beam_options() -> list[str]:
    return list(_after_dashes)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point. Everything after `--` is kept for Beam; nothing that escapes may quote patient text."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    _after_dashes[:] = arguments[cut + 1 :]
    _quiet()
    called = partial(_called, arguments[:cut], "--json" in arguments[:cut])
    # Only where this is the process' only business: a fork would take a caller's state with it.
    return started_again(called) if argv is None and arguments[:1] == ["run"] else called()


def _called(arguments: Sequence[str], as_json: bool) -> int:
    """The exit code of a command."""
    try:
        code = app(arguments, prog_name="chartmill", standalone_mode=False)
    except typer.TyperException as error:
        return _failed(USAGE, _usage_error(error), as_json)
    except ConfigurationError as error:
        return _failed(USAGE, str(error), as_json)
    except ChartmillError as error:
        return _failed(FAILED, str(error), as_json)
    except Exception as error:  # noqa: BLE001 - the last edge: the message may quote a note, so only kind and place are told
        from transforms.batch import describe_error
        from transforms.store_failure import advice

        told = describe_error(error)
        todo = advice(error)
        return _failed(FAILED, f"{told}: {todo}" if todo else f"{told} (the message is withheld: it may quote patient text)", as_json)
    if code == _TYPERS_CODE_FOR_INTERRUPTED:
        return _failed(FAILED, "interrupted; run again to go on", as_json)
    return int(code or 0)


def _usage_error(error: typer.TyperException) -> str:
    """Without the arguments that belong nowhere: they are likely to be file names, which may hold names of patients."""
    message = error.format_message()
    if message.startswith("Got unexpected extra argument"):
        message = "arguments that belong to no option; inputs are given with --input, the output folder with --output"
    context = getattr(error, "ctx", None)
    where = context.command_path if context else "chartmill"
    return f"{message.replace('Value error, ', '').rstrip('.')} (see `{where} --help`)" if message else ""


def _failed(code: int, message: str | None, as_json: bool) -> int:
    if message:
        print(f"error: {message}", file=sys.stderr)
    if as_json:
        print_result(code, error=message)
    return code


def _quiet() -> None:
    import logging

    logging.basicConfig(level=logging.ERROR, format="%(levelname)s %(name)s: %(message)s")
    quiet_libraries()


if __name__ == "__main__":
    sys.exit(main())
