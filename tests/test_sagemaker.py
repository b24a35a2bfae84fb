"""`chartmill sagemaker`: the request says the job exactly, what AWS would refuse is refused before, and a submission is one call."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli import main
from pipeline.config import Job, load_job
from pipeline.sagemaker import request_for, send
from pipeline.sagemaker_request import container_arguments, create_request, differing_keys, job_name
from pipeline.sagemaker_rules import OPERATION, _input_shape, preflight, shape_errors
from schemas.errors import ChartmillError
from tests.canaries import Canaries, Said, command

EXAMPLE = Path(__file__).resolve().parent.parent / "deploy" / "job.yaml"
NOW = datetime(2026, 1, 31, 3, 15, tzinfo=UTC)


def example(*overrides: str) -> Job:
    return load_job(EXAMPLE, overrides)


def refusals(*overrides: str, region: str | None = "eu-central-1") -> dict[str, str]:
    """What preflight refuses of the example with these changes: rule -> problem."""
    job = example(*overrides)
    return {f.rule: f.problem for f in preflight(job, create_request(job, job_name("x", NOW)), region) if f.refused}


def read_back(job: Job) -> Job:
    """The job that the container's arguments make."""
    run, as_json, log, *sets = container_arguments(job)
    assert (run, as_json, log) == ("run", "--json", "--log-format=json")
    return load_job(None, [argument.removeprefix("--set=") for argument in sets])


def test_the_example_is_taken() -> None:
    job = example()
    findings = preflight(job, create_request(job, job_name(job.sagemaker.job_name)), "eu-central-1")
    assert [finding.problem for finding in findings] == [""] * len(findings) and len(findings) > 15


def test_the_container_runs_the_job_that_was_written() -> None:
    job = example()
    assert read_back(job).model_copy(update={"sagemaker": job.sagemaker}) == job


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
JOBS = st.fixed_dictionaries(
    {},
    optional={
        "input.uris": st.lists(TEXTS, min_size=1, max_size=3),
        "input.delimiter": st.sampled_from(["\t", ";", "|", "\x85", "\u2028"]),
        "input.columns": st.dictionaries(st.sampled_from(["note_id", "text"]), TEXTS, min_size=1),
        "input.passthrough": st.lists(TEXTS, min_size=1, max_size=3),
        "output.uri": TEXTS,
        "output.encryption": st.sampled_from([{"mode": "aes256"}, {"kms_key": "alias/notes"}]),
        "output.keep_rejected_text": st.booleans(),
        "tasks.summary.prefix": TEXTS,
        "tasks.summary.decode": st.fixed_dictionaries({"num_beams": st.integers(1, 9), "length_penalty": st.floats(-2, 2)}),
        "engine.threads": st.integers(1, 99),
        "gate.max_flagged_share": st.floats(0, 1),
        "run.max_minutes": st.floats(1e-9, 1e9),
        "verify.checks": st.lists(st.sampled_from(["numbers", "units", "negation"]), min_size=1, unique=True),
    },
)


@given(settings=JOBS)
def test_any_job_is_read_back_exactly(settings: dict[str, Any]) -> None:
    job = load_job(None, (), settings)
    assert read_back(job) == job
    assert all(argument.isprintable() for argument in container_arguments(job))


def test_only_what_differs_is_said() -> None:
    assert list(differing_keys(Job())) == [] and len(container_arguments(Job())) == 3
    assert "sagemaker" not in " ".join(container_arguments(example()))


def test_names_are_new_and_short_enough() -> None:
    assert re.fullmatch(r"chartmill-20260131-031500-[0-9a-f]{4}", job_name("chartmill", NOW))
    names = {job_name("n" * 80, NOW) for _ in range(50)}
    assert len(names) > 45 and {len(name) for name in names} == {63}
    assert re.fullmatch(r"night-20260131-031500-[0-9a-f]{4}", job_name("night-", NOW).replace("--", "-"))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("sagemaker.instance_type=ml.nosuch.large", "ProcessingResources.ClusterConfig.InstanceType: not one of the"),
        ("sagemaker.instance_count=101", "ProcessingResources.ClusterConfig.InstanceCount: 101, allowed are 1 to 100"),
        ("sagemaker.instance_count=0", "ProcessingResources.ClusterConfig.InstanceCount"),
        ("sagemaker.volume_gb=20000", "VolumeSizeInGB: 20000, allowed are 1 to 16384"),
        ("sagemaker.max_runtime_minutes=12961", "StoppingCondition.MaxRuntimeInSeconds: 777660, allowed are 1 to 777600"),
        ("sagemaker.job_name=a_b", "ProcessingJobName: does not match"),
        ("sagemaker.subnets=[sub_net]", "NetworkConfig.VpcConfig.Subnets[0]: does not match"),
        ("sagemaker.security_groups=[a, b, c, d, e, f]", "SecurityGroupIds: 6, allowed are 1 to 5"),
        ("sagemaker.environment={X: " + "y" * 257 + "}", "Environment.X: 257, allowed are 0 to 256"),
        ("sagemaker.environment={1X: y}", "Environment.1X (its name): does not match"),
        ("sagemaker.environment={" + ", ".join(f"V{i}: x" for i in range(99)) + "}", "Environment: 101, allowed are 0 to 100"),
        ("sagemaker.tags={" + ", ".join(f"t{i}: x" for i in range(51)) + "}", "Tags: 51, allowed are 0 to 50"),
        ("sagemaker.tags={'a{b': x}", "Tags[0].Key: does not match"),
        ("input.uris=[s3://b/" + "x" * 250 + "]", "AppSpecification.ContainerArguments[3]: 278, allowed are 0 to 256"),
        ("sagemaker.role_arn=arn:aws:iam::1:role/x", "RoleArn: does not match"),
    ],
)
def test_what_awss_own_description_refuses(override: str, told: str) -> None:
    prefix = {"sagemaker.job_name=a_b": "a_b"}.get(override, "x")
    job = example(override)
    [finding] = [f for f in preflight(job, create_request(job, job_name(prefix)), "eu-central-1") if f.rule.startswith("request fits")]
    assert told in finding.problem


def test_kinds_and_members_are_checked_without_quoting_values() -> None:
    request: dict[str, Any] = create_request(example(), "night")
    request["ProcessingResources"]["ClusterConfig"]["VolumeSizeInGB"] = "secret"
    del request["RoleArn"]
    request["Nonsense"] = "secret"
    errors = shape_errors(request)
    assert len(errors) == 3 and not any("secret" in error for error in errors)
    assert any("RoleArn" in error for error in errors) and any("Nonsense" in error for error in errors)


@pytest.mark.parametrize(
    ("overrides", "rule", "told"),
    [
        (["sagemaker.image_uri=chartmill:latest"], "image is named in full", "sagemaker.image_uri: expected ACCOUNT.dkr"),
        (["sagemaker.region=us-east-1"], "image is in the job's region", "is in eu-central-1, but the job would run in us-east-1"),
        (["sagemaker.role_arn=role/x"], "role is an ARN", "expected arn:aws:iam::ACCOUNT:role/NAME"),
        (["sagemaker.instance_type=ml.g5.xlarge"], "no volume key with local NVMe", "ml.g5.xlarge has local NVMe"),
        (["sagemaker.network_isolation=true"], "network isolation is off", "reads and writes s3://"),
        (["sagemaker.subnets=[]"], "subnets and security groups", "give both or neither"),
        (["input.uris=[s3://a/, notes/]"], "inputs and output on S3", "input.uris: only s3:// URIs"),
        (["output.uri=out/"], "inputs and output on S3", "output.uri: only s3:// URIs"),
        (["output.encryption=null"], "output is encrypted", "output.encryption: not set"),
        (["tasks.summary.model=models/mine"], "paths exist in the image", "tasks.summary.model: give an absolute path"),
        (["contract.suite=suite.json"], "paths exist in the image", "contract.suite: give an absolute path"),
        (["run.runner=FlinkRunner"], "runner runs in a container", "only FnApiRunner"),
        (["engine.allow_download=true"], "nothing is downloaded", "put the model on s3://"),
        (["sagemaker.environment={AWS_SECRET_ACCESS_KEY: x}"], "no credentials in the environment", "AWS_SECRET_ACCESS_KEY: whoever may"),
        (["sagemaker.environment={db_password: x}"], "no credentials in the environment", "db_password"),
        (["sagemaker.tags={'aws:x': y}"], "tags are ours", "AWS's own"),
    ],
)
def test_what_aws_would_tell_only_at_run_time(overrides: list[str], rule: str, told: str) -> None:
    region = "us-east-1" if "us-east-1" in overrides[0] else "eu-central-1"
    assert told in refusals(*overrides, region=region)[rule]


def test_a_region_is_needed() -> None:
    assert "names none" in refusals(region=None)["image is in the job's region"]


def test_every_instance_type_of_aws_is_known_to_have_local_disks_or_not() -> None:
    """The families with local NVMe among AWS's processing instances, as EC2's list of instance store volumes has them."""
    cluster = _input_shape().members["ProcessingResources"].members["ClusterConfig"]
    families = {name.split(".")[1] for name in cluster.members["InstanceType"].metadata["enum"]}
    without_key = {f for f in families if "no volume key with local NVMe" in refusals(f"sagemaker.instance_type=ml.{f}.xlarge")}
    assert without_key == {"g4dn", "g5", "g6", "g6e", "g7", "g7e", "r5d", "p5"} & families


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("run.max_minutes=null", "set it to 350 or less"),
        ("run.max_minutes=355", "set it to 350 or less"),
        ("run.metrics_file=m.txt", "is gone with it"),
        ("sagemaker.role_arn=arn:aws:iam::999999999999:role/x", "of another account"),
    ],
)
def test_advice_stops_nothing(override: str, told: str) -> None:
    job = example(override)
    findings = preflight(job, create_request(job, "x"), "eu-central-1")
    assert not any(f.refused for f in findings) and any(told in f.problem for f in findings)


def test_senders_differ_in_the_name_only() -> None:
    job = example()
    plain = request_for(job, name="n")
    scheduler, steps, pipelines = (request_for(job, target) for target in ("scheduler", "step-functions", "pipelines"))
    assert scheduler.pop("ProcessingJobName") == "chartmill-<aws.scheduler.execution-id>"
    assert steps.pop("ProcessingJobName.$") == "States.Format('chartmill-{}', States.UUID())"
    assert plain.pop("ProcessingJobName") == "n"
    assert plain == scheduler == steps == pipelines


def test_the_commands(capfd: pytest.CaptureFixture[str]) -> None:
    config = ("--config", str(EXAMPLE))
    assert main(["sagemaker", "render", *config, "--name", "night-1"]) == 0
    assert json.loads(capfd.readouterr().out) == create_request(example(), "night-1")
    assert main(["sagemaker", "preflight", *config, "--set", "sagemaker.network_isolation=true", "--json"]) == 2
    told = capfd.readouterr().out
    assert "REFUSED network isolation is off" in told and json.loads(told.splitlines()[-1])["exit_code"] == 2


@pytest.fixture
def aws(s3_environment: dict[str, str]) -> dict[str, str]:
    if "CHARTMILL_TEST_S3_ENDPOINT" in os.environ:
        pytest.skip("that server is no SageMaker")
    return s3_environment


@pytest.mark.s3
def test_submitting_makes_the_job_and_prints_its_arn(aws: dict[str, str], said: Said, capfd: pytest.CaptureFixture[str]) -> None:
    import boto3

    assert command(capfd, said, "sagemaker", "submit", "--config", str(EXAMPLE), "--name", "night-7", "--json") == 0
    out = dict(said.parts)["stdout of sagemaker"].splitlines()
    assert out[0] == "arn:aws:sagemaker:eu-central-1:123456789012:processing-job/night-7"
    assert json.loads(out[-1]) == {"exit_code": 0, "arn": out[0], "name": "night-7"}
    made = boto3.client("sagemaker", region_name="eu-central-1").describe_processing_job(ProcessingJobName="night-7")
    assert made["AppSpecification"] == create_request(example(), "night-7")["AppSpecification"]


@pytest.mark.s3
def test_what_preflight_refuses_is_not_sent(aws: dict[str, str], said: Said, capfd: pytest.CaptureFixture[str]) -> None:
    import boto3

    wrong = ("--set", "output.encryption=null", "--name", "never")
    assert command(capfd, said, "sagemaker", "submit", "--config", str(EXAMPLE), *wrong) == 2
    assert "output.encryption: not set" in dict(said.parts)["stderr of sagemaker"]
    names = boto3.client("sagemaker", region_name="eu-central-1").list_processing_jobs()["ProcessingJobSummaries"]
    assert "never" not in [job["ProcessingJobName"] for job in names]


def refusing(monkeypatch: pytest.MonkeyPatch, message: str) -> None:
    """A client whose answer is AWS's refusal."""
    import boto3
    from botocore.stub import Stubber

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    client = boto3.client("sagemaker", region_name="eu-central-1")
    stub = Stubber(client)
    stub.add_client_error("create_processing_job", "AccessDeniedException", message, 400)
    stub.activate()
    monkeypatch.setattr(boto3, "client", lambda *_, **__: client)


def test_a_refusal_of_aws_is_told_unless_it_quotes_the_job(monkeypatch: pytest.MonkeyPatch, canaries: Canaries) -> None:
    job = example(f"input.uris=[s3://b/{canaries['prefix']}/]")
    refusing(monkeypatch, "not authorized to perform sagemaker:CreateProcessingJob")
    with pytest.raises(ChartmillError, match=r"AWS refused the job: AccessDeniedException \(not authorized"):
        send(create_request(job, "x"), None)
    refusing(monkeypatch, f"bad argument s3://b/{canaries['prefix']}/")
    with pytest.raises(ChartmillError) as caught:
        send(create_request(job, "x"), None)
    canaries.assert_absent("the error", str(caught.value))


def test_the_operation_is_botocores() -> None:
    assert OPERATION == "CreateProcessingJob" and {"RoleArn", "AppSpecification"} <= set(_input_shape().required_members)


def test_no_credential_can_be_given() -> None:
    """Rights come from AWS's default chain alone."""
    from pipeline.config import SageMakerSection

    assert not [name for name in SageMakerSection.model_fields if re.search("secret|token|access|password|profile", name)]
