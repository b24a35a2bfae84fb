"""`chartmill doctor`: can the job run here, tonight? It asks the machine, the model, the storage and the network, and reads no note."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.doctor_finding import Finding, failed
from pipeline.exits import DONE, FAILED, AsJson, finish

if TYPE_CHECKING:
    from pipeline.config import Job

EPILOG = "Example: `chartmill doctor --config job.yaml`, or on a machine without egress: `chartmill doctor -c job.yaml --no-egress`"
_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red"}


def doctor(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="Job file; without one, the machine and the default model.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", "-s", help="Override a key of the job file.")] = None,
    no_egress: Annotated[bool, typer.Option("--no-egress", help="Fail if public hosts can be reached from here.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check that a job can run here: packages, CPU and GPU, model, output, encryption, network. Exit code 1 if a check failed.

    Writes one small object into the output, and removes it. Prints no paths, names of buckets, or credentials.
    """
    from pipeline.config import load_job

    findings = list(examine(load_job(config, overrides or ()), no_egress=no_egress))
    _print(findings)
    code = FAILED if any(finding.status == "failed" for finding in findings) else DONE
    finish(code, as_json, checks=[finding.as_json() for finding in findings])


def examine(job: Job, *, no_egress: bool = False) -> Iterator[Finding]:
    """Every finding about this machine and this job, one check after the other. Never raises for what is wrong with them."""
    from pipeline.doctor_machine import MACHINE_CHECKS
    from pipeline.doctor_model import check_model, check_record_model
    from pipeline.doctor_network import check_egress
    from pipeline.doctor_storage import check_output

    for check in (*MACHINE_CHECKS, check_model, check_record_model, check_output):
        yield from _safely(check, job)
    if no_egress:
        yield from check_egress()


def _safely(check: Callable[[Job], Iterator[Finding]], job: Job) -> Iterator[Finding]:
    from schemas.errors import ConfigurationError
    from transforms.batch import describe_error

    name = check.__name__.removeprefix("check_").replace("_", " ")
    try:
        yield from check(job)
    except ConfigurationError as error:
        yield failed(name, str(error), "change the job file, or the machine")
    except Exception as error:  # noqa: BLE001 - the other checks have to be made too, and messages of libraries may quote anything
        yield failed(name, f"the check itself failed: {describe_error(error)}", "see what this kind of error means here")


def _print(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for _ in range(3):
        table.add_column(overflow="fold")
    for finding in findings:
        todo = f"\n-> {finding.todo}" if finding.todo else ""
        # Folded, not cut: a sha256 is longer than a narrow terminal.
        table.add_row(finding.status, finding.check, f"{finding.said}{todo}", style=_STYLES[finding.status] if finding.todo else None)
    console = Console(markup=False, highlight=False)
    console.print(table)
    counts = {status: sum(finding.status == status for finding in findings) for status in _STYLES}
    console.print(", ".join(f"{count} {status}" for status, count in counts.items()), style="bold")
