"""`chartmill train`: fine-tunes a model on a user's own notes and references."""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.exits import DONE, AsJson, finish
from schemas.errors import ConfigurationError

TEMPLATE = Path(__file__).parent / "train.yaml"
EXAMPLE = "Example: `chartmill train --init train.yaml`, then `chartmill train --config train.yaml --set fit.epochs=5`"


class ProgressStyle(StrEnum):
    AUTO = "auto"
    PLAIN = "plain"
    JSON = "json"
    NONE = "none"


def train(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Training file (see --init).")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", "-s", help="Override a key: `--set fit.epochs=5`.")] = None,
    output: Annotated[str | None, typer.Option("--output", "-o", help="The run folder; the model will be in its model/.")] = None,
    init: Annotated[Path | None, typer.Option("--init", help="Write a training file with every key and what it does, and stop.")] = None,
    log_format: Annotated[ProgressStyle, typer.Option("--log-format", help="How progress is shown on stderr.")] = ProgressStyle.AUTO,
    as_json: AsJson = False,
) -> None:
    """Fine-tune a model on your own notes: to write summaries, to select sentences, or both. Run it again to go on after a kill.

    Several GPUs: `torchrun --nproc-per-node 2 -m pipeline.cli train --config train.yaml`. Nothing leaves this machine.
    """
    if init is not None:
        write_template(init)
        return
    if config is None and not overrides:
        raise ConfigurationError("--config: give a training file; `chartmill train --init train.yaml` writes one")
    from pipeline.training.settings import load_train_job

    job = load_train_job(config, overrides or (), {"output": output})
    from pipeline.training.run import train as train_job

    result = train_job(job, log_format.value)
    if os.environ.get("RANK", "0") == "0":
        _tell(result)
        finish(DONE, as_json, **{name: value for name, value in result.items() if name != "identity"})


def write_template(path: Path) -> None:
    """Write the training file with every key. Raises ConfigurationError if there is a file already."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(TEMPLATE.read_text(encoding="utf-8"))
    except FileExistsError:
        raise ConfigurationError("--init: the file exists already; it is not overwritten") from None
    except OSError as error:
        raise ConfigurationError(f"--init: the file cannot be written: {error.strerror}") from None


def _tell(result: Mapping[str, Any]) -> None:
    from pipeline.progress import duration

    stand, dev = result["stand"], result["dev"]
    print("Stopped early: the dev score no longer rose" if stand["stopped_early"] else "Trained")
    print(f"steps  {stand['step']:,} of {result['steps']:,}, {stand['tokens']:,.0f} tokens in {duration(stand['seconds'])}")
    if dev:
        told = f"ROUGE-1/2/Lsum {dev['rouge1']:.1f} / {dev['rouge2']:.1f} / {dev['rougeLsum']:.1f}, " if "rouge1" in dev else ""
        when = f"after step {stand['best_step']:,}" if stand["best_step"] else "of the start: no look was better, so the model is the start"
        print(f"dev    {told}loss {dev['loss']:.3f} {when}")
    print(f"model  {result['model']}")
