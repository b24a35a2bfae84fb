"""What is shipped under deploy/ fits the code: the image's packages, the stack, the pipeline, the state machine, the README's commands."""

from __future__ import annotations

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import Job, load_job
from pipeline.metrics import NAMESPACE, emf_line, run_metrics
from pipeline.sagemaker import request_for
from pipeline.sagemaker_rules import shape_errors
from transforms.audit import AUDIT

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
README = (DEPLOY / "README.md").read_text("utf-8")
# What a deployment of the stack would put in place of references, as deploy/job.yaml has it.
KEY = "arn:aws:kms:eu-central-1:111122223333:key/00000000-0000-4000-8000-000000000000"
VALUES = {
    "AWS::AccountId": "111122223333",
    "AWS::Region": "eu-central-1",
    "AWS::Partition": "aws",
    "Bucket": "chartmill-notes-111122223333-eu-central-1",
    "Key.Arn": KEY,
    "Repository.RepositoryUri": "111122223333.dkr.ecr.eu-central-1.amazonaws.com/chartmill",
    "JobRole.Arn": "arn:aws:iam::111122223333:role/chartmill-job",
    "JobSecurityGroup": "sg-00000000000000001",
    "SubnetA": "subnet-00000000000000001",
    "SubnetB": "subnet-00000000000000002",
}


def job() -> Job:
    return load_job(DEPLOY / "job.yaml")


class Intrinsics(yaml.SafeLoader):
    """CloudFormation's short forms as what they stand for: {name: value}."""


def _intrinsic(loader: Any, suffix: str, node: Any) -> dict[str, Any]:
    match node:
        case yaml.ScalarNode():
            return {suffix: loader.construct_scalar(node)}
        case yaml.SequenceNode():
            return {suffix: loader.construct_sequence(node, deep=True)}
    return {suffix: loader.construct_mapping(node, deep=True)}


Intrinsics.add_multi_constructor("!", _intrinsic)


@pytest.fixture(scope="module")
def stack() -> dict[str, Any]:
    return dict(yaml.load((DEPLOY / "stack.yaml").read_text("utf-8"), Intrinsics))


def filled(stack: dict[str, Any], text: str) -> str:
    """The text of a Sub with parameters' defaults and VALUES in place."""
    values = {name: str(said["Default"]) for name, said in stack["Parameters"].items()} | VALUES
    return re.sub(r"\$\{([\w:.]+)\}", lambda match: values[match[1]], text)


def cfn_lint(template: str, everywhere: bool = False) -> list[str]:
    """The rules of cfn-lint that a template breaks, errors and warnings; `everywhere`: in all regions."""
    from cfnlint.api import ManualArgs, lint
    from cfnlint.helpers import REGIONS

    regions = REGIONS if everywhere else [VALUES["AWS::Region"]]
    found = lint(template, config=ManualArgs(include_experimental=True, regions=regions))
    return [match.rule.id for match in found if match.rule.id[0] in "EW"]


@pytest.mark.parametrize("everywhere", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_stack_is_clean_under_cfn_lint(everywhere: bool) -> None:
    assert cfn_lint((DEPLOY / "stack.yaml").read_text("utf-8"), everywhere) == []
    assert cfn_lint(json.dumps({"Resources": {"Dead": {"Type": "AWS::SQS::Line"}}})) == ["E3006"]


def test_the_schedule_sends_what_render_prints(stack: dict[str, Any]) -> None:
    target = stack["Resources"]["Schedule"]["Properties"]["Target"]
    sent = json.loads(filled(stack, target["Input"]["Sub"]))
    assert sent == request_for(job(), "scheduler")
    assert filled(stack, target["Arn"]["Sub"]) == "arn:aws:scheduler:::aws-sdk:sagemaker:createProcessingJob"


def statements(stack: dict[str, Any], role: str) -> list[dict[str, Any]]:
    policies = stack["Resources"][role]["Properties"]["Policies"]
    return [statement for policy in policies for statement in policy["PolicyDocument"]["Statement"]]


def actions(statement: dict[str, Any]) -> list[str]:
    said = statement["Action"]
    return [said] if isinstance(said, str) else list(said)


def test_roles_have_the_rights_that_they_need_and_no_others(stack: dict[str, Any]) -> None:
    # Services that know no narrower resource; a condition or the nature of the action limits them.
    unlimited = {"ecr:GetAuthorizationToken", "cloudwatch:PutMetricData"}
    for role in ("JobRole", "ScheduleRole"):
        for statement in statements(stack, role):
            assert statement["Effect"] == "Allow" and not any("*" in action for action in actions(statement))
            if statement["Resource"] == "*":
                assert all(action in unlimited or action.startswith("ec2:") for action in actions(statement))
    passing = [s for s in statements(stack, "ScheduleRole") if s["Action"] == "iam:PassRole"]
    assert [s["Resource"] for s in passing] == [{"GetAtt": "JobRole.Arn"}]
    on_s3 = {action for s in statements(stack, "JobRole") for action in actions(s) if action.startswith("s3:")}
    assert on_s3 == {"s3:ListBucket", "s3:GetObject", "s3:PutObject", "s3:DeleteObject"}
    writing = [s for s in statements(stack, "JobRole") if "s3:PutObject" in actions(s)]
    assert [s["Resource"] for s in writing] == [{"Sub": "${Bucket.Arn}/out/*"}]


def test_the_bucket_is_private(stack: dict[str, Any]) -> None:
    bucket = stack["Resources"]["Bucket"]["Properties"]
    assert all(bucket["PublicAccessBlockConfiguration"].values()) and len(bucket["PublicAccessBlockConfiguration"]) == 4
    [rule] = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert rule["ServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": {"GetAtt": "Key.Arn"}}
    denied = stack["Resources"]["BucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert {"Bool": {"aws:SecureTransport": "false"}} in [s.get("Condition") for s in denied] and {s["Effect"] for s in denied} == {"Deny"}
    [kept_for_good] = [s for s in denied if "s3:DeleteObject" in actions(s)]
    assert kept_for_good["Resource"] == {"Sub": f"${{Bucket.Arn}}/out/{AUDIT}/*"} and "s3:DeleteObjectVersion" in actions(kept_for_good)
    assert (kept_for_good["Principal"], "Condition" in kept_for_good) == ("*", False)
    kept = {"Key", "Bucket", "Repository", "LogGroup"}
    assert {name for name, r in stack["Resources"].items() if r.get("DeletionPolicy") == "Retain"} == kept


def test_the_network_has_no_way_out(stack: dict[str, Any]) -> None:
    kinds = {resource["Type"] for resource in stack["Resources"].values()}
    assert not kinds & {"AWS::EC2::InternetGateway", "AWS::EC2::NatGateway", "AWS::EC2::Route", "AWS::EC2::EgressOnlyInternetGateway"}
    endpoints = [r["Properties"]["ServiceName"]["Sub"] for r in stack["Resources"].values() if r["Type"] == "AWS::EC2::VPCEndpoint"]
    assert sorted(e.rsplit(".", 1)[1] for e in endpoints) == ["kms", "logs", "s3"]


def test_alarms_watch_metrics_that_are_written(stack: dict[str, Any]) -> None:
    report = {"run_id": "r", "version": "v", "complete": True, "run": {"notes": 1, "seconds": 1.0}, "remaining_shards": 0}
    report |= dict.fromkeys(("notes_in", "notes_summarized", "notes_quarantined", "notes_flagged", "files_quarantined"), 0)
    written = json.loads(emf_line(run_metrics(report, True), report))
    alarms = [r["Properties"] for r in stack["Resources"].values() if r["Type"] == "AWS::CloudWatch::Alarm"]
    ours = [alarm["MetricName"] for alarm in alarms if alarm["Namespace"] == NAMESPACE]
    assert sorted(ours) == ["GateHeld", "Released"] and set(ours) <= written.keys()
    failed = stack["Resources"]["FailedRule"]["Properties"]["EventPattern"]["detail"]
    assert failed["ProcessingJobName"] == [{"prefix": f"{job().sagemaker.job_name}-"}]


def resolved(value: Any, parameters: dict[str, Any]) -> Any:
    """Arguments of a SageMaker pipeline with its parameters' defaults in place."""
    if isinstance(value, dict):
        if value.keys() == {"Get"}:
            return parameters[value["Get"]]
        return {key: resolved(inner, parameters) for key, inner in value.items()}
    return [resolved(inner, parameters) for inner in value] if isinstance(value, list) else value


def test_the_pipeline_is_what_render_prints() -> None:
    definition = json.loads((DEPLOY / "pipeline.json").read_text("utf-8"))
    parameters = {f"Parameters.{p['Name']}": p["DefaultValue"] for p in definition["Parameters"]}
    [step] = definition["Steps"]
    assert (definition["Version"], step["Type"]) == ("2020-12-01", "Processing")
    arguments = resolved(step["Arguments"], parameters)
    assert arguments == request_for(job(), "pipelines")
    assert shape_errors({**arguments, "ProcessingJobName": "given-by-pipelines"}) == []


def test_the_state_machine_is_valid_and_what_render_prints() -> None:
    """cfn-lint holds it against the schema of Amazon States Language."""
    machine = json.loads((DEPLOY / "state_machine.json").read_text("utf-8"))
    task = machine["States"]["Summarize"]
    assert task["Parameters"] == request_for(job(), "step-functions")
    assert cfn_lint(machine_template(machine)) == []
    assert cfn_lint(machine_template({**machine, "States": {"Summarize": {**task, "Type": "Tsk"}}})) == ["E3601"]
    names = set(machine["States"])
    assert {machine["StartAt"]} <= names and {caught["Next"] for caught in task["Catch"]} <= names


def machine_template(machine: dict[str, Any]) -> str:
    properties = {"RoleArn": "arn:aws:iam::111122223333:role/steps", "Definition": machine}
    resource = {"Type": "AWS::StepFunctions::StateMachine", "Properties": properties}
    return json.dumps({"AWSTemplateFormatVersion": "2010-09-09", "Resources": {"Machine": resource}})


def dockerfile() -> str:
    return (DEPLOY / "Dockerfile").read_text("utf-8").replace("\\\n", " ")


def test_the_image_installs_what_pyproject_says() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    installed = re.findall(r"pip install ([^&\n]+)", dockerfile())
    words = [word for command in installed for word in shlex.split(command) if not word.startswith(("-", "$"))]
    # torch first, in the build that was asked for, then the project; nothing else, so that nothing differs from what is tested.
    [torch] = [d.split(" ")[0] for d in project["project"]["dependencies"] if d.startswith("torch")]
    assert words == [torch, ".[$EXTRAS]"]
    [extras] = re.findall(r"ARG EXTRAS=(\S+)", dockerfile())
    assert set(extras.split(",")) <= project["project"]["optional-dependencies"].keys()
    python = re.search(r"ARG PYTHON=([\d.]+)", dockerfile())
    assert python and f"Programming Language :: Python :: {python[1]}" in project["project"]["classifiers"]
    assert f"chartmill:{project['project']['version']}" in dockerfile()


def test_the_image_has_everything_that_is_packaged_and_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    copied = {name for line in re.findall(r"^COPY (?!--from)(.+)$", dockerfile(), re.MULTILINE) for name in line.split()[:-1]}
    sources = {package.split(".")[0] for package in project["tool"]["setuptools"]["packages"]}
    assert copied == {*sources, "pyproject.toml", project["project"]["readme"], "LICENSE"}
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    assert ignored[1] == "*" and {line[1:] for line in ignored if line.startswith("!")} == copied


def test_the_image_runs_as_nobody_in_particular_and_offline() -> None:
    last = dockerfile().rsplit("\nFROM ", 1)[1]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE) and 'ENTRYPOINT ["chartmill"]' in last
    for variable in ("HF_HUB_OFFLINE=1", "TRANSFORMERS_OFFLINE=1", "GX_ANALYTICS_ENABLED=false", "DO_NOT_TRACK=1"):
        assert variable in last
    for line in dockerfile().splitlines():
        if line.startswith("RUN") and "chartmill" in line:
            assert "--network=none" in line


def test_the_dockerfile_is_clean_under_hadolint() -> None:
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, str(DEPLOY / "Dockerfile")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_readmes_python_is_python() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        ast.parse(block)


def test_the_readmes_commands_exist() -> None:
    from typer.main import get_command

    from pipeline.cli import app

    root: Any = get_command(app)
    blocks = re.findall(r"```(?:sh)?\n(.*?)```", README, re.DOTALL)
    # What follows after -- is for Beam.
    lines = [line.partition(" -- ")[0] for block in blocks for line in re.sub(r"\\\n *", "", block).splitlines()]
    lines += re.findall(r"`(chartmill [^`]+)`", README)
    commands = [
        shlex.split(line[line.index("chartmill ") :], comments=True) for line in lines if re.search(r"(?:^|\s)chartmill [a-z]", line)
    ]
    assert len(commands) > 4
    for _, *words in commands:
        command = root
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert command is not root
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word.split("=")[0] for word in words if word.startswith("-") and len(word) > 1 and not word.startswith("2>")} <= options


def test_every_file_is_named_in_the_readme() -> None:
    for path in DEPLOY.iterdir():
        assert path.name == "README.md" or f"`{path.name}`" in README, path.name
