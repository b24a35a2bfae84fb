"""`chartmill compare`: which model, engine, number format and beams to take, by quality, speed, memory and cost on the same notes."""

from __future__ import annotations

import sys
from contextlib import suppress
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.exits import DONE, FAILED, AsJson, finish
from schemas.errors import ConfigurationError

if TYPE_CHECKING:
    from pipeline.comparison.contenders import Entrant
    from pipeline.comparison.figures import Scorer
    from pipeline.comparison.outcome import Material
    from pipeline.config import GateSection
    from pipeline.evaluation.notes import Collected

EXAMPLE = (
    'Example: `chartmill compare --input notes.parquet --reference summary --contender "model=default,dtype=float32" '
    '--contender "model=default,dtype=int8" --price-per-hour 0.40 --html compare.html`'
)
USUAL_COLUMN = "reference"
_GATE_KEYS = ("max_flagged_share", "max_quarantined_share")


class Score(StrEnum):
    ROUGE1 = "rouge1"
    ROUGE2 = "rouge2"
    ROUGE_LSUM = "rougeLsum"


def compare(
    inputs: Annotated[list[str], typer.Option("--input", "-i", help="File, folder, glob or s3:// URI of notes; repeat for several.")],
    contender: Annotated[
        list[str] | None, typer.Option("--contender", help='"KEY=VALUE,…", as "model=default,dtype=int8,beams=4"; repeat.')
    ] = None,
    contenders: Annotated[
        Path | None, typer.Option("--contenders", help="YAML file: `contenders: {NAME: {model: default, dtype: int8}}`.")
    ] = None,
    against: Annotated[str | None, typer.Option("--against", help="Name of the reference point; by default the first.")] = None,
    reference: Annotated[
        str | None, typer.Option("--reference", help="Column with right summaries. [default: reference, where there is one]")
    ] = None,
    text_column: Annotated[str, typer.Option("--text-column", help="Column with the notes.")] = "text",
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Job file that contenders start from; its gate counts.")] = None,
    gate: Annotated[list[str] | None, typer.Option("--gate", help="NAME=SHARE over the job's: `max_flagged_share=0.1`; repeat.")] = None,
    price_per_hour: Annotated[
        float | None, typer.Option("--price-per-hour", help="Of the machine; without it, seconds stand for cost.")
    ] = None,
    margin: Annotated[float, typer.Option("--margin", min=0, help="Points of the score whose loss would not matter.")] = 1.0,
    by: Annotated[Score, typer.Option("--by", help="The score that decides.")] = Score.ROUGE1,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="The first so many notes.")] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Turns of each that count; medians are told.")] = 3,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with the plot; it holds no text of any note.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare ways to summarize the same notes, and say which is the cheapest that passes the gate and is not worse. Prints no text.

    Each contender has a process of its own; they take turns, and all are in memory at once. A contender that cannot run is told with
    its reason, and the others go on. Without references, speed, memory, flags and agreement are compared, and quality is not.
    """
    from pipeline.comparison.contenders import read_entrants, reference_of
    from pipeline.comparison.figures import Terms
    from pipeline.comparison.outcome import compare as compare_entrants
    from pipeline.comparison.page import check_place, render_page, write_page
    from pipeline.comparison.tables import print_comparison
    from pipeline.config import load_job

    if price_per_hour is not None and not 0 < price_per_hour < float("inf"):
        raise ConfigurationError("--price-per-hour: expected a number above 0")
    entrants = read_entrants(contender or (), contenders, config, price_per_hour)
    terms = Terms(reference_of(entrants, against).name, by.value, margin, _limits(load_job(config).gate, gate or ()), repeats)
    if html:
        check_place(html)
    _check_models(entrants)
    material = _material(inputs, text_column, reference, config, limit)
    found = compare_entrants(entrants, material, terms, _scorer(material), partial(print, file=sys.stderr, flush=True))
    print_comparison(found)
    if html:
        write_page(render_page(found), html)
    finish(DONE if found.anybody_ran else FAILED, as_json, **found.as_json())


def _limits(section: GateSection, told: list[str] | tuple[str, ...]) -> dict[str, float]:
    """The shares (0-1) of the job's gate, with those that were told instead."""
    limits = {name: float(getattr(section, name)) for name in _GATE_KEYS}
    for item in told:
        name, _, value = item.partition("=")
        try:
            share = float(value)
        except ValueError:
            share = -1.0
        if name not in _GATE_KEYS or not 0 <= share <= 1:
            raise ConfigurationError(f"--gate: NAME=SHARE with a share from 0 to 1 and a name of {', '.join(_GATE_KEYS)}")
        limits[name] = share
    return limits


def _scorer(material: Material) -> Scorer | None:
    """ROUGE; None where it is not installed and no reference asks for it. Raises ConfigurationError."""
    from importlib.util import find_spec

    from pipeline.rouge import check_installed, score_pairs

    if material.references is not None:
        check_installed()
    return score_pairs if find_spec("rouge_score") else None


def _check_models(entrants: tuple[Entrant, ...]) -> None:
    """Before anything long begins: a model that is not there is a mistake, not a result."""
    from transforms.models import resolve_model

    for number, entrant in enumerate(entrants, start=1):
        if entrant.job.engine.backend == "echo":
            continue
        try:
            resolve_model(entrant.job.tasks.summary.model, allow_download=entrant.job.engine.allow_download)
        except ConfigurationError as error:
            raise ConfigurationError(f"--contender: number {number}: {error}") from None


def _material(inputs: list[str], text_column: str, reference: str | None, config: Path | None, limit: int | None) -> Material:
    """Read in a process of its own, which takes its memory with it: a new process counts its parent's as its own until it has more."""
    import logging
    import multiprocessing as mp
    from concurrent.futures import ProcessPoolExecutor

    # Beam tells on stderr what it could not find.
    with ProcessPoolExecutor(1, mp.get_context("spawn"), initializer=logging.disable, initargs=(logging.CRITICAL,)) as pool:
        return pool.submit(read_material, inputs, text_column, reference, config, limit).result()


def read_material(inputs: list[str], text_column: str, reference: str | None, config: Path | None, limit: int | None) -> Material:
    """The notes that have a text, and a reference if there is a column of them; `reference` names it, "" says that there is none.

    Raises ConfigurationError where there are none.
    """
    from pipeline.config import load_job
    from pipeline.evaluation.notes import collect_notes

    job = load_job(config, (), {"input.uris": inputs, "input.columns.text": text_column})
    if reference is None:
        with suppress(ConfigurationError):
            return _material_of(collect_notes(job, [USUAL_COLUMN], limit), USUAL_COLUMN)
    return _material_of(collect_notes(job, [reference] if reference else [], limit), reference)


def _material_of(found: Collected, column: str | None) -> Material:
    from pipeline.comparison.outcome import Material

    references = tuple(note.references[column] for note in found.notes) if column else None
    return Material(tuple(note.text for note in found.notes), references, found.left_out)
