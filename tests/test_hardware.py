"""What the engine finds out about a machine, from files as Linux writes them, and what follows: number format, cores, threads."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pipeline.prepare
import transforms.engine as engine
from pipeline.planning import plan_run
from pipeline.prepare import PreparedJob, prepare
from pipeline.runners import worker_processes
from schemas.errors import ConfigurationError
from tests.conftest import echo_job, note_rows, write_notes
from tests.tiny_models import FAMILIES, edit_json, make_model
from transforms.engine import EngineError, resolve_dtype
from transforms.engine.architecture import is_native
from transforms.engine.families import folder_runs_natively
from transforms.engine.hardware import best_cpu_dtype, cpu_features, multiplies_int8, usable_cores

AMX = frozenset({"avx2", "avx512_vnni", "amx_tile", "amx_bf16", "amx_int8"})
VNNI = frozenset({"avx2", "avx512f", "avx512_vnni"})
OLD = frozenset({"avx2", "fma"})
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretend to be on a CPU with these features."""
    return lambda features: monkeypatch.setattr(engine, "cpu_features", lambda: features)


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_features_are_read_from_the_first_core(tmp_path: Path) -> None:
    x86 = "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 avx512_vnni\nbugs\t\t: none\n\nprocessor\t: 1\nflags\t\t: fpu\n"
    assert cpu_features(written(tmp_path / "x86", x86)) == {"fpu", "avx2", "avx512_vnni"}
    assert cpu_features(written(tmp_path / "arm", "processor : 0\nFeatures : fp asimd bf16\n")) == {"fp", "asimd", "bf16"}
    assert cpu_features(written(tmp_path / "none", "processor : 0\n")) == cpu_features(tmp_path / "missing") == frozenset()


@pytest.mark.parametrize(("features", "dtype"), [(AMX, "bfloat16"), (VNNI, "int8"), (OLD, "float32"), (frozenset(), "float32")])
def test_the_best_number_format_of_a_cpu(features: frozenset[str], dtype: str) -> None:
    assert best_cpu_dtype(features) == dtype


@given(st.frozensets(st.sampled_from(sorted(AMX | OLD | {"avx_vnni", "avx512_bf16"}))))
def test_what_is_best_can_be_computed(features: frozenset[str]) -> None:
    assert best_cpu_dtype(features) != "int8" or multiplies_int8(features)


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, CORES),
        ({"cpu.max": "max 100000\n"}, CORES),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "190000 100000\n"}, 1),
        ({"cpu.max": "20000 100000\n"}, 1),
        ({"cpu.max": "99900000 100000\n"}, CORES),
        ({"cpu.max": "nonsense\n"}, CORES),
        ({"box/cpu.max": "100000 100000\n", "box/inner/cpu.max": "max 100000\n"}, 1),
        ({"elsewhere/cpu.max": "100000 100000\n"}, CORES),
    ],
)
def test_cores_stay_within_a_version_2_quota(tmp_path: Path, files: dict[str, str], cores: int) -> None:
    for name, text in files.items():
        written(tmp_path / "fs" / name, text)
    assert usable_cores(written(tmp_path / "cgroup", "0::/box/inner\n"), tmp_path / "fs") == cores


@pytest.mark.parametrize("mounted", ["cpu", "cpu,cpuacct"])
def test_cores_stay_within_a_version_1_quota(tmp_path: Path, mounted: str) -> None:
    listed = written(tmp_path / "cgroup", f"5:memory:/box\n4:{mounted}:/box\n0::/\n")
    folder = tmp_path / "fs" / mounted
    written(folder / "cpu.cfs_period_us", "100000\n")
    written(folder / "cpu.cfs_quota_us", "-1\n")
    assert usable_cores(listed, tmp_path / "fs") == CORES
    # As the host names it, and as a container sees its own group: at the root.
    for place in (folder / "box", folder):
        written(place / "cpu.cfs_period_us", "50000\n")
        written(place / "cpu.cfs_quota_us", "60000\n")
        assert usable_cores(listed, tmp_path / "fs") == 1
        written(place / "cpu.cfs_quota_us", "-1\n")


def test_this_machine_has_a_core() -> None:
    assert 1 <= usable_cores() <= CORES
    assert usable_cores(Path("/nowhere"), Path("/nowhere")) == CORES


@pytest.mark.parametrize(
    ("backend", "features", "dtype"),
    [
        ("torch", AMX, "bfloat16"),
        ("torch", VNNI, "int8"),
        ("torch", OLD, "float32"),
        ("generate", AMX, "bfloat16"),
        ("generate", VNNI, "float32"),
        ("ctranslate2", OLD, "int8"),
    ],
)
def test_auto_is_the_best_that_the_backend_has(cpu: Any, backend: str, features: frozenset[str], dtype: str) -> None:
    cpu(features)
    assert resolve_dtype("auto", "cpu", backend) == dtype
    # What auto came to can be asked for.
    assert resolve_dtype(dtype, "cpu", backend) == dtype


@pytest.mark.parametrize(
    ("dtype", "device", "backend", "told"),
    [
        ("int8", "cpu", "torch", "int8 needs a CPU with avx512_vnni or amx_int8"),
        ("int8", "cpu", "generate", "generate has no int8 on a CPU; choices: auto, float32, bfloat16"),
        ("bfloat16", "cpu", "ctranslate2", "ctranslate2 has no bfloat16 on a CPU; choices: auto, float32, int8"),
        ("int8", "cuda", "torch", "int8 is for CPUs; choices on CUDA: auto, float32, bfloat16"),
        ("float16", "cuda", "torch", "'float16' is not one of auto, float32, bfloat16, int8"),
        ("auto", "cpu", "onnx", "'onnx' is not one of torch, generate, ctranslate2"),
    ],
)
def test_what_cannot_be_had_is_told_with_the_choices(cpu: Any, dtype: str, device: str, backend: str, told: str) -> None:
    cpu(OLD)
    with pytest.raises(EngineError, match=told):
        resolve_dtype(dtype, device, backend)


def test_int8_can_be_asked_for_where_it_comes_out_right(cpu: Any) -> None:
    for features in (VNNI, AMX, OLD | {"amx_int8"}):
        cpu(features)
        assert resolve_dtype("int8", "cpu") == "int8"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model("bart", tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def _of_a_tiny_model(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TORCH, "tasks.summary.model", str(model))


TORCH = {"engine.backend": "torch", "engine.device": "cpu", "tasks.summary.model": ""}


def prepared(folder: Path, *overrides: str, options: tuple[str, ...] = (), **settings: Any) -> PreparedJob:
    torch = {**TORCH, **settings}
    return prepare(echo_job(folder / "notes.parquet", folder / "out", *overrides, **torch), options)


def begin(folder: Path, job: PreparedJob) -> None:
    """Plan a run, as one that is killed after its planning does."""
    write_notes(folder / "notes.parquet", note_rows(3))
    plan_run(job.store, job.version, f"run-{job.provenance.dtype}", job.plan_settings(), job.said_in_plan())


def test_auto_is_resolved_when_the_run_is_planned(cpu: Any, tmp_path: Path) -> None:
    cpu(VNNI)
    job = prepared(tmp_path)
    assert (job.engine.dtype, job.provenance.dtype) == ("int8", "int8")
    assert job.said_in_plan()["model"]["dtype"] == "int8"
    # What it came to is what counts, not how it was asked for.
    assert prepared(tmp_path, "engine.dtype=int8").version == job.version != prepared(tmp_path, "engine.dtype=float32").version


def test_a_run_that_is_continued_on_another_cpu_keeps_its_number_format(cpu: Any, tmp_path: Path) -> None:
    cpu(VNNI)
    first = prepared(tmp_path)
    begin(tmp_path, first)
    cpu(AMX)
    again = prepared(tmp_path)
    assert (again.version, again.engine.dtype) == (first.version, "int8")
    # Another job in the same folder has not begun yet.
    assert prepared(tmp_path, "tasks.summary.decode.num_beams=2").engine.dtype == "bfloat16"
    assert prepared(tmp_path, "engine.dtype=bfloat16").engine.dtype == "bfloat16"


def test_of_several_number_formats_the_last_one_begun_is_kept(cpu: Any, tmp_path: Path) -> None:
    cpu(OLD)
    for dtype in ("bfloat16", "float32"):
        begin(tmp_path, prepared(tmp_path, f"engine.dtype={dtype}"))
        for old in (tmp_path / "out").rglob("run-bfloat16.json"):
            os.utime(old, (1e9, 1e9))
    cpu(AMX)
    assert prepared(tmp_path).engine.dtype == "float32"


def test_a_machine_that_cannot_go_on_says_so(cpu: Any, tmp_path: Path) -> None:
    cpu(VNNI)
    begin(tmp_path, prepared(tmp_path))
    cpu(OLD)
    with pytest.raises(ConfigurationError, match=r"int8 needs a CPU with .* This output folder was begun in int8: go on where"):
        prepared(tmp_path)
    assert prepared(tmp_path, "engine.dtype=float32").engine.dtype == "float32"


def test_ctranslate2_that_is_not_installed_is_told_with_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(pipeline.prepare.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"pip install chartmill\[ctranslate2\]"):
        prepared(tmp_path, **{"engine.backend": "ctranslate2"})


@pytest.mark.parametrize("family", FAMILIES)
def test_the_plan_knows_which_models_the_loop_runs(family: str, tmp_path: Path) -> None:
    from transformers import AutoModelForSeq2SeqLM

    folder = make_model(family, tmp_path)
    assert folder_runs_natively(folder) == is_native(AutoModelForSeq2SeqLM.from_pretrained(folder))


def test_a_model_that_is_left_to_generate_is_not_planned_in_int8(cpu: Any, model: Path, tmp_path: Path) -> None:
    cpu(VNNI)
    other = Path(shutil.copytree(model, tmp_path / "other"))
    edit_json(other / "config.json", model_type="led")
    assert prepared(tmp_path).engine.dtype == "int8"
    left = {"tasks.summary.model": str(other)}
    assert prepared(tmp_path, **left).engine.dtype == "float32"
    with pytest.raises(ConfigurationError, match="generate has no int8"):
        prepared(tmp_path, "engine.dtype=int8", **left)


PROCESSES = ("--direct_running_mode=multi_processing", "--direct_num_workers={}")
THREADS = ("--direct_running_mode=multi_threading", "--direct_num_workers={}")


@pytest.mark.parametrize("workers", [1, 2, 3, 8, 64])
def test_threads_times_processes_stay_within_the_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, workers: int) -> None:
    monkeypatch.setattr(pipeline.prepare, "usable_cores", lambda: 8)
    separate, shared = (prepared(tmp_path, options=tuple(o.format(workers) for o in mode)) for mode in (PROCESSES, THREADS))
    threads = separate.engine.threads
    assert threads is not None and threads * workers <= max(8, workers)
    assert shared.engine.threads == 8  # one process, one engine, one shard at a time
    assert prepared(tmp_path, "engine.threads=3", options=(PROCESSES[0], PROCESSES[1].format(workers))).engine.threads == 3


def test_processes_of_the_runners(tmp_path: Path) -> None:
    assert worker_processes("FnApiRunner", ()) == worker_processes("FnApiRunner", ("--direct_num_workers=4",)) == 1
    assert worker_processes("FnApiRunner", (PROCESSES[0], "--direct_num_workers=0")) == os.cpu_count()
    assert worker_processes("PortableRunner", ()) is None
    # How many cores a worker elsewhere has is found out there.
    assert prepared(tmp_path, **{"run.runner": "FlinkRunner"}).engine.threads is None


def test_slots_and_threads_do_not_change_the_version(tmp_path: Path) -> None:
    plain = prepared(tmp_path)
    assert plain.engine.slots is None
    other = prepared(tmp_path, "engine.slots=7", "engine.threads=1")
    assert (other.engine.slots, other.version) == (7, plain.version)


def test_echo_has_no_number_format(tmp_path: Path) -> None:
    assert prepare(echo_job(tmp_path, tmp_path / "out")).provenance.dtype == "none"
