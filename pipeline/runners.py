"""The runner: which ones are refused, how its options are read, and what may be told when it fails."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from difflib import get_close_matches
from importlib import util
from itertools import pairwise
from typing import Any
from urllib.parse import urlparse

from apache_beam.options.pipeline_options import (
    DirectOptions,
    FlinkRunnerOptions,
    PipelineOptions,
    PortableOptions,
    SparkRunnerOptions,
    StandardOptions,
    WorkerOptions,
)

from pipeline.config import Job
from schemas.errors import AccountingError, ChartmillError, ConfigurationError
from transforms.batch import StageError, StorageFailure, describe_error
from transforms.store import is_this_machine

LOCAL_RUNNER = "FnApiRunner"
# Not Beam's: segments as futures of Dask (`pipeline/dask_futures.py`).
DASK_RUNNER = "DaskFutures"
_PORTABLE = ("PortableRunner", "FlinkRunner", "SparkRunner")
RUNNERS = (LOCAL_RUNNER, DASK_RUNNER, *_PORTABLE, "DataflowRunner")
_CHOICES = f"choices: {LOCAL_RUNNER} (this machine), {', '.join(RUNNERS[1:])}"

# What is known to lose notes, or to hang, by the last part of its name in lower case and without "runner".
_REFUSED = {
    "direct": "DirectRunner would first try to download Prism",
    "switchingdirect": "SwitchingDirectRunner would first try to download Prism",
    "prism": "PrismRunner would first try to download Prism",
    "dask": f"Beam's DaskRunner drops outputs without a word and commits nothing before a whole segment is done; {DASK_RUNNER} does not",
}

# The last line of a worker's traceback, when it is an exception of ours: those quote no note.
_OURS = {error.__name__: error for error in (ChartmillError, ConfigurationError, AccountingError, StageError, StorageFailure)}
_OUR_LINE = re.compile(rf"^(?:schemas\.errors|transforms\.batch)\.({'|'.join(_OURS)}): (.*)$", re.MULTILINE)
_STEP = re.compile(r" \[while running '[^']*'\]")


def check_runner(job: Job) -> None:
    """Refuse runners and places that lose notes, hang, or are not known to keep every note. Raises ConfigurationError."""
    _check_name(job.run.runner)
    if job.run.runner == DASK_RUNNER:
        _check_cluster(job.run.dask_scheduler or "", job.run.allow_insecure_scheduler)
    if job.run.runner == "DataflowRunner":
        _check_dataflow([*job.input.uris, job.output.uri])


def _check_name(runner: str) -> None:
    if runner not in RUNNERS:
        why = _REFUSED.get(runner.rpartition(".")[2].lower().removesuffix("runner"))
        near = get_close_matches(runner, RUNNERS, n=1)
        hint = f"; did you mean {near[0]}?" if near and not why else ""
        raise ConfigurationError(f"run.runner: {why or 'no runner of this name is known to keep every note'}{hint}; {_CHOICES}")


def check_beam_options(runner: str, beam_options: Sequence[str]) -> None:
    """Refuse options that Beam would drop, or that do not say enough to find workers. Raises ConfigurationError."""
    if any(option.split("=")[0] == "--runner" for option in beam_options):
        raise ConfigurationError("--runner after --: name the runner with --set run.runner=NAME instead")
    if runner == DASK_RUNNER and beam_options:
        raise ConfigurationError(f"after --: {DASK_RUNNER} takes no options of Beam; run.dask_scheduler names the cluster")
    _check_options(runner, beam_options)
    options = PipelineOptions(list(beam_options))
    if options.view_as(StandardOptions).streaming:
        raise ConfigurationError("--streaming after --: the job is a batch; leave it out")
    if runner in _PORTABLE:
        _check_job_server(runner, options)
        _check_environment(options)
    if runner == "DataflowRunner" and not options.view_as(WorkerOptions).sdk_container_image:
        raise ConfigurationError("after --: DataflowRunner needs --sdk_container_image=IMAGE, one with chartmill installed")


def _check_job_server(runner: str, options: PipelineOptions) -> None:
    """Without one, Beam downloads hundreds of megabytes of Java, without a time-out."""
    jars = {
        "FlinkRunner": ("flink_job_server_jar", options.view_as(FlinkRunnerOptions).flink_job_server_jar),
        "SparkRunner": ("spark_job_server_jar", options.view_as(SparkRunnerOptions).spark_job_server_jar),
    }
    name, jar = jars.get(runner, ("", None))
    if options.view_as(PortableOptions).job_endpoint or (jar and os.path.exists(jar)):
        return
    local = f", or --{name}=FILE with a file of this machine" if name else ""
    raise ConfigurationError(f"after --: {runner} needs a job server: --job_endpoint=HOST:PORT{local}")


def _check_environment(options: PipelineOptions) -> None:
    """Without one, Beam starts containers of its own image, which has no chartmill in it."""
    portable = options.view_as(PortableOptions)
    kind = (portable.environment_type or "").upper()
    if kind == "LOOPBACK" or (kind in ("EXTERNAL", "PROCESS", "DOCKER") and portable.environment_config):
        return
    raise ConfigurationError(
        "after --: say what workers run in, which must have chartmill installed. --environment_type: choices: EXTERNAL or DOCKER "
        "with --environment_config=HOST:PORT or =IMAGE, PROCESS with its JSON, LOOPBACK (this process, for trying)"
    )


def _check_dataflow(uris: Sequence[str]) -> None:
    """A folder is another one on every machine: what a worker writes there is lost with it."""
    if any(urlparse(uri).scheme in ("", "file") for uri in uris):
        raise ConfigurationError("input.uris, output.uri: DataflowRunner's machines share no folder; choices: s3://BUCKET/PREFIX/")
    if util.find_spec("apitools") is None:
        raise ConfigurationError("run.runner: DataflowRunner needs what is not installed: pip install 'apache-beam[gcp]'")


def _check_cluster(address: str, allow_insecure: bool) -> None:
    """Refuse what cannot work, and what would send the names of input files in the clear."""
    place = urlparse(address)
    if place.scheme not in ("tls", "tcp") or not place.hostname or not re.search(r":\d{1,5}$", address):
        raise ConfigurationError(f"run.dask_scheduler: {DASK_RUNNER} needs a scheduler; choices: tls://HOST:PORT, tcp://HOST:PORT")
    if place.scheme == "tcp" and not is_this_machine(place.hostname) and not allow_insecure:
        raise ConfigurationError(
            "run.dask_scheduler: tcp:// to another machine, where whoever is on the network can read names of input files and run code. "
            "Choose tls:// with Dask's own settings (distributed.comm.tls); or, where nobody else is on that network, set "
            "run.allow_insecure_scheduler to true"
        )
    if util.find_spec("distributed") is None:
        raise ConfigurationError(f"run.runner: {DASK_RUNNER} needs what is not installed: pip install 'chartmill[dask]'")


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
        if was_interrupted(error):
            raise KeyboardInterrupt from None
        raise _worker_error(str(error)) or StageError(f"the runner failed: {describe_error(error)}") from None


def was_interrupted(error: BaseException | None) -> bool:
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
