"""Runners that lose notes or hang are refused, with the choices; so are options that do not say where workers are."""

from __future__ import annotations

from importlib import util
from pathlib import Path
from typing import Any

import pytest

from pipeline import runners
from pipeline.config import Job, load_job
from pipeline.run import run_job
from pipeline.runners import LOCAL_RUNNER, RUNNERS, check_beam_options, check_runner
from schemas.errors import ConfigurationError
from tests.conftest import echo_job, note_rows, write_notes

BEAMS_DASK_RUNNER = "apache_beam.runners.dask.dask_runner.DaskRunner"


def job(runner: str, **settings: Any) -> Job:
    return load_job(None, (), {"run.runner": runner, **settings})


@pytest.mark.parametrize(
    ("runner", "why"),
    [
        ("DirectRunner", "DirectRunner would first try to download Prism"),
        ("apache_beam.runners.direct.DirectRunner", "DirectRunner would first try to download Prism"),
        ("direct", "DirectRunner would first try to download Prism"),
        ("SwitchingDirectRunner", "would first try to download Prism"),
        ("PrismRunner", "PrismRunner would first try to download Prism"),
        ("DaskRunner", "Beam's DaskRunner drops outputs without a word"),
        (BEAMS_DASK_RUNNER, "Beam's DaskRunner drops outputs without a word"),
        ("InteractiveRunner", "no runner of this name is known to keep every note"),
        ("TestDataflowRunner", "no runner of this name is known to keep every note"),
        ("fnapirunner", r"known to keep every note; did you mean FnApiRunner\?"),
        ("FlinkRuner", r"known to keep every note; did you mean FlinkRunner\?"),
        ("", "no runner of this name is known to keep every note"),
        ("my.own.Runner", "no runner of this name is known to keep every note"),
    ],
)
def test_runners_that_are_not_known_to_be_right_are_refused(runner: str, why: str) -> None:
    choices = r"choices: FnApiRunner \(this machine\), DaskFutures, PortableRunner, FlinkRunner, SparkRunner, DataflowRunner$"
    with pytest.raises(ConfigurationError, match=rf"^run\.runner: .*{why}.*; {choices}"):
        check_runner(job(runner))


def test_a_run_asks_before_it_plans(tmp_path: Path) -> None:
    write_notes(tmp_path / "notes" / "a.parquet", note_rows(1))
    for settings in ({"run.runner": "DaskRunner"}, {"run.runner": "PortableRunner"}):
        with pytest.raises(ConfigurationError):
            run_job(echo_job(tmp_path / "notes", tmp_path / "out", **settings))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("runner", "options", "message"),
    [
        (LOCAL_RUNNER, ["--streaming"], "--streaming after --: the job is a batch"),
        (LOCAL_RUNNER, ["--direct_num_worker=2"], "Beam knows no option --direct_num_worker; did you mean --direct_num_workers?"),
        ("FlinkRunner", ["--job_endpoint=h:1", "--streaming"], "--streaming after --"),
        ("DaskFutures", ["--dask_client_address=x:1"], "DaskFutures takes no options of Beam; run.dask_scheduler names the cluster"),
        ("PortableRunner", [], "PortableRunner needs a job server: --job_endpoint=HOST:PORT"),
        ("PortableRunner", ["--job_endpoint=h:1"], "say what workers run in"),
        ("PortableRunner", ["--job_endpoint=h:1", "--environment_type=EXTERNAL"], "--environment_type: choices: EXTERNAL or DOCKER with"),
        ("PortableRunner", ["--job_endpoint=h:1", "--environment_type=MAGIC", "--environment_config=x"], "say what workers run in"),
        ("FlinkRunner", ["--flink_master=h:1", "--environment_type=LOOPBACK"], "or --flink_job_server_jar=FILE with a file of this"),
        ("FlinkRunner", ["--flink_job_server_jar=/no/such.jar"], "FlinkRunner needs a job server"),
        ("FlinkRunner", ["--spark_job_server_jar=/dev/null"], "FlinkRunner needs a job server"),
        ("SparkRunner", ["--spark_master_url=local[2]"], "or --spark_job_server_jar=FILE with a file of this machine"),
        ("DataflowRunner", ["--region=x"], "DataflowRunner needs --sdk_container_image=IMAGE"),
    ],
)
def test_options_that_lead_astray_are_refused(runner: str, options: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        check_beam_options(runner, options)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("runner", "options"),
    [
        (LOCAL_RUNNER, []),
        (LOCAL_RUNNER, ["--direct_running_mode=multi_processing", "--direct_num_workers=2"]),
        ("DaskFutures", []),
        ("PortableRunner", ["--job_endpoint=h:1", "--environment_type=EXTERNAL", "--environment_config=h:2"]),
        ("PortableRunner", ["--job_endpoint=h:1", "--environment_type=loopback", "--an_option_of=another"]),
        ("FlinkRunner", ["--flink_job_server_jar=/dev/null", "--environment_type=DOCKER", "--environment_config=image"]),
        ("SparkRunner", ["--job_endpoint=h:1", "--environment_type=PROCESS", '--environment_config={"command": "/boot"}']),
        ("DataflowRunner", ["--sdk_container_image=image"]),
    ],
)
def test_options_that_say_enough_are_taken(runner: str, options: list[str]) -> None:
    check_beam_options(runner, options)


@pytest.mark.parametrize(
    "address", [None, "", "h", "h:8786", "tcp://h", "http://dask.example.com:1", "tls://:1", "tls://h:", "tls://h:x", "inproc://1/2:3"]
)
def test_a_scheduler_has_an_address(address: str | None) -> None:
    with pytest.raises(ConfigurationError, match=r"run\.dask_scheduler: DaskFutures needs a scheduler; choices: tls://HOST:PORT, tcp://"):
        check_runner(job("DaskFutures", **{"run.dask_scheduler": address}))


def test_names_of_files_are_not_sent_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners.util, "find_spec", lambda name: object())
    for address in (
        "tls://dask.example.com:8786",
        "tls://10.0.0.7:8786",
        "tcp://127.0.0.1:8786",
        "tcp://localhost:8786",
        "tcp://[::1]:8786",
    ):
        check_runner(job("DaskFutures", **{"run.dask_scheduler": address}))
    for address in ("tcp://dask.example.com:8786", "tcp://10.0.0.7:8786", "tcp://localhost.example.com:8786"):
        with pytest.raises(ConfigurationError, match=r"tcp:// to another machine.*run\.allow_insecure_scheduler"):
            check_runner(job("DaskFutures", **{"run.dask_scheduler": address}))
        check_runner(job("DaskFutures", **{"run.dask_scheduler": address, "run.allow_insecure_scheduler": True}))


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"pip install 'chartmill\[dask\]'"):
        check_runner(job("DaskFutures", **{"run.dask_scheduler": "tls://h:1"}))
    places = {"input.uris": ["s3://b/in/"], "output.uri": "s3://b/out/"}
    with pytest.raises(ConfigurationError, match=r"pip install 'apache-beam\[gcp\]'"):
        check_runner(job("DataflowRunner", **places))


@pytest.mark.parametrize("places", [{"input.uris": ["notes/"]}, {"output.uri": "/data/out"}, {"output.uri": "file:///data/out"}])
def test_machines_that_share_no_folder_need_s3(places: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=r"DataflowRunner's machines share no folder; choices: s3://BUCKET/PREFIX/"):
        check_runner(job("DataflowRunner", **{"input.uris": ["s3://b/in/"], "output.uri": "s3://b/out/", **places}))


def test_the_choices_are_runners_that_beam_knows() -> None:
    from apache_beam.options.pipeline_options import StandardOptions

    assert {runner for runner in RUNNERS if runner != "DaskFutures"} <= set(StandardOptions.KNOWN_RUNNER_NAMES)
    assert util.find_spec(BEAMS_DASK_RUNNER.rpartition(".")[0].rpartition(".")[0]) is not None
