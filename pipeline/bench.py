"""`chartmill bench`: measurements of chartmill's parts on anybody's data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

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
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line last.")] = False,
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
    if as_json:
        print(json.dumps({"exit_code": 0, "study": figures}, sort_keys=True), flush=True)


def _scores(given: list[str]) -> dict[str, str]:
    pairs = [name.partition("=")[::2] for name in given]
    if not all(name and column for name, column in pairs):
        raise ConfigurationError("--human: NAME=COLUMN, for instance --human hallucination=score")
    return dict(pairs)
