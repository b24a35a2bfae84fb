"""The Beam runner: which ones are refused, how its options are read, and what may be told when it fails."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from difflib import get_close_matches
from itertools import pairwise
from typing import Any

from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, WorkerOptions

from schemas.errors import AccountingError, ChartmillError, ConfigurationError
from transforms.batch import StageError, describe_error

LOCAL_RUNNER = "FnApiRunner"

# The last line of a worker's traceback, when it is an exception of ours: those quote no note.
_OURS = {error.__name__: error for error in (ChartmillError, ConfigurationError, AccountingError, StageError)}
_OUR_LINE = re.compile(rf"^(?:schemas\.errors|transforms\.batch)\.({'|'.join(_OURS)}): (.*)$", re.MULTILINE)
_STEP = re.compile(r" \[while running '[^']*'\]")


def check_runner(runner: str, beam_options: Sequence[str]) -> None:
    """Refuse runners and options that do something else than they say. Raises ConfigurationError."""
    if runner == "DirectRunner":
        raise ConfigurationError(
            "run.runner: DirectRunner would first try to download Prism; "
            "choices: FnApiRunner (this machine), PortableRunner, FlinkRunner, …"
        )
    if "DaskRunner" in runner:
        raise ConfigurationError("run.runner: DaskRunner is not supported yet; choices: FnApiRunner, PortableRunner, FlinkRunner, …")
    if any(option.split("=")[0] == "--runner" for option in beam_options):
        raise ConfigurationError("--runner after --: name the runner with --set run.runner=NAME instead")
    _check_options(runner, beam_options)


def _check_options(runner: str, beam_options: Sequence[str]) -> None:
    """Beam drops what it does not know without a word. Other runners may know more options than this process does."""
    for before, option in pairwise(["", *beam_options]):
        if not option.startswith("-") and (not before.startswith("--") or "=" in before):
            raise ConfigurationError("after --: expected Beam options, --NAME=VALUE")
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            options = PipelineOptions(list(beam_options))
            known = options.get_all_options()
            given = options.get_all_options(retain_unknown_options=True)
    except SystemExit:  # argparse; its message is a page long and quotes the value
        named = re.findall(r"argument (--\w+)", said.getvalue())
        raise ConfigurationError(f"after --: Beam cannot read the value of {named[-1] if named else 'an option'}") from None
    unknown = sorted(set(given) - set(known))
    if unknown and runner == LOCAL_RUNNER:
        near = get_close_matches(unknown[0], known, n=1)
        raise ConfigurationError(f"after --: Beam knows no option --{unknown[0]}{f'; did you mean --{near[0]}?' if near else ''}")


def worker_processes(runner: str, beam_options: Sequence[str]) -> int | None:
    """Processes that run the graph beside each other on this machine; None where the runner decides that, elsewhere.

    FnApiRunner starts as many as `--direct_num_workers` says (0: one per core) with `--direct_running_mode=multi_processing`. In its other
    modes workers are threads of this process, or this thread.
    """
    if runner != LOCAL_RUNNER:
        return None
    options = PipelineOptions(list(beam_options)).view_as(DirectOptions)
    if options.direct_running_mode != "multi_processing":
        return 1
    return options.direct_num_workers or os.cpu_count() or 1


def beam_runner(name: str, options: PipelineOptions) -> Any:
    """What beam.Pipeline takes as `runner`.

    FnApiRunner does not hand its options to the processes that it starts: these would log at INFO on stderr, hundreds of
    lines each.
    """
    if name != LOCAL_RUNNER:
        return name
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo, FnApiRunner
    from google.protobuf.struct_pb2 import Struct  # type: ignore[import-untyped]

    level = options.view_as(WorkerOptions).default_sdk_harness_log_level or "CRITICAL"
    said = Struct()
    said.update({"beam:option:default_sdk_harness_log_level:v1": level})
    return FnApiRunner(provision_info=ExtendedProvisionInfo(beam_provision_api_pb2.ProvisionInfo(pipeline_options=said)))


@contextmanager
def runner_failures() -> Iterator[None]:
    """Raise what a runner raises as an exception of ours: as what a worker raised, if that was one, else without its message.

    A runner in this process passes a worker's exception on; others raise RuntimeError with the text of the worker's traceback.
    """
    try:
        yield
    except ChartmillError as error:
        raise type(error)(_without_step(str(error))) from None
    except Exception as error:  # noqa: BLE001 - the edge that keeps patient text out of what the driver tells
        if _was_interrupted(error):
            raise KeyboardInterrupt from None
        raise _worker_error(str(error)) or StageError(f"the runner failed: {describe_error(error)}") from None


def _was_interrupted(error: BaseException | None) -> bool:
    """Beam wraps an interrupt that comes while a step runs into a RuntimeError."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


def _worker_error(traceback: str) -> ChartmillError | None:
    ours = _OUR_LINE.findall(traceback)
    return _OURS[ours[-1][0]](_without_step(ours[-1][1])) if ours else None


def _without_step(message: str) -> str:
    """Beam appends the step that was running."""
    return _STEP.sub("", message.splitlines()[0]) if message else message
