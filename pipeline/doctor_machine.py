"""Doctor's checks of the machine: packages, CPU and GPU, cores, the runner, and that model libraries fetch nothing."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from importlib import metadata

from packaging.requirements import Requirement

from pipeline.config import Job
from pipeline.doctor_finding import Finding, failed, ok, warning
from schemas.errors import ConfigurationError
from transforms.engine import resolve_device, resolve_dtype
from transforms.engine.hardware import cpu_features, usable_cores

_TELLING_FEATURES = ("avx2", "avx512f", "avx512_vnni", "amx_tile", "amx_bf16", "amx_int8", "asimd", "bf16", "i8mm")


def check_packages(job: Job) -> Iterator[Finding]:
    """Installed versions against what chartmill's own metadata asks for, those of extras only where they are installed."""
    missing: list[str] = []
    wrong: list[str] = []
    extras_wrong: list[str] = []
    right = 0
    for requirement in map(Requirement, metadata.requires("chartmill") or ()):
        extra = requirement.marker is not None and "extra" in str(requirement.marker)
        version = _installed(requirement.name)
        if version is None:
            missing += [] if extra else [requirement.name]
        elif requirement.specifier.contains(version, prereleases=True):
            right += not extra
        else:
            (extras_wrong if extra else wrong).append(f"{requirement.name} {version} instead of {requirement.specifier}")
    said = f"chartmill {metadata.version('chartmill')}, Python {platform.python_version()}, {right} packages as declared"
    if missing or wrong:
        problems = [f"{name} is missing" for name in missing] + wrong
        yield failed("packages", "; ".join(problems), "install chartmill again: pip checks its requirements")
    else:
        yield ok("packages", said)
    if extras_wrong:
        yield warning("packages of extras", "; ".join(sorted(set(extras_wrong))), "install the extra again: pip install 'chartmill[EXTRA]'")


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def check_cpu_and_gpu(job: Job) -> Iterator[Finding]:
    """What the engine would compute on, and in which number format."""
    features = cpu_features()
    telling = [name for name in _TELLING_FEATURES if name in features]
    if job.engine.backend == "echo":
        yield ok("cpu", f"{platform.machine()}: {', '.join(telling) or 'no features known'}; echo needs no number format")
        return
    device = resolve_device(job.engine.device)
    dtype = resolve_dtype(job.engine.dtype, device, job.engine.backend)
    named = ", where the model names no other" if job.engine.dtype == "auto" else ""
    yield ok("cpu", f"{platform.machine()}: {', '.join(telling) or 'no features known'}")
    yield ok("number format", f"engine.dtype {job.engine.dtype} is {dtype} on this {'GPU' if device == 'cuda' else 'CPU'}{named}")
    yield _gpu() if device == "cuda" else ok("gpu", "none in use")


def _gpu() -> Finding:
    import torch

    properties = torch.cuda.get_device_properties(0)
    return ok("gpu", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}")


def check_cores(job: Job) -> Iterator[Finding]:
    """Cores of the machine, those that this process may use, and the threads that the job asks for."""
    usable, asked = usable_cores(), job.engine.threads
    said = f"{usable} of {os.cpu_count() or 1} cores may be used here (affinity and container quota); engine.threads {asked}"
    if asked != "auto" and asked > usable:
        yield warning("cores", said, f"set engine.threads to {usable} or auto: threads beyond the cores slow all of them down")
    else:
        yield ok("cores", said)


def check_runner(job: Job) -> Iterator[Finding]:
    """The runner is one that keeps every note, and is installed."""
    from pipeline.runners import LOCAL_RUNNER
    from pipeline.runners import check_runner as refuse_runner

    try:
        refuse_runner(job)
    except ConfigurationError as error:
        yield failed("runner", str(error), "set run.runner, and what goes with it, as said")
        return
    if job.run.runner == LOCAL_RUNNER:
        yield ok("runner", f"{LOCAL_RUNNER}: this machine")
    else:
        yield ok("runner", f"{job.run.runner} is installed; whether its job server or scheduler answers is seen when a run starts")


def check_downloads(job: Job) -> Iterator[Finding]:
    """The model libraries are told to fetch nothing before they are imported."""
    if job.engine.allow_download:
        said = "engine.allow_download is true: a model named by a hub id is fetched from the Hugging Face hub"
        yield warning("downloads", said, "for scheduled runs fetch the model once and name its folder or s3:// prefix")
    else:
        offline = "is set" if os.environ.get("HF_HUB_OFFLINE") == "1" else "is set by the engine before it loads a model"
        yield ok("downloads", f"none allowed; HF_HUB_OFFLINE=1 {offline}")


MACHINE_CHECKS: tuple[Callable[[Job], Iterator[Finding]], ...] = (
    check_packages,
    check_cpu_and_gpu,
    check_cores,
    check_runner,
    check_downloads,
)
