"""`chartmill sagemaker`: a job file as a SageMaker Processing job: show the request, check it, send it.

Heavy packages are imported inside the commands, as in pipeline.cli.
"""

from __future__ import annotations

import json
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.exits import DONE, USAGE, AsJson, finish
from schemas.errors import ChartmillError, ConfigurationError

if TYPE_CHECKING:
    from pipeline.config import Job
    from pipeline.sagemaker_rules import Finding

sagemaker = typer.Typer(
    help="Run a job file as a SageMaker Processing job: show the request, check it offline, send it.",
    epilog="Example: `chartmill sagemaker preflight --config deploy/job.yaml`",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
)

Config = Annotated[Path, typer.Option("--config", "-c", help="Job file with a section `sagemaker` (see `chartmill init`).")]
Overrides = Annotated[list[str] | None, typer.Option("--set", "-s", help="Override a key of the job file.")]
Name = Annotated[str | None, typer.Option("--name", help="Name of the job; by default sagemaker.job_name, the time, random digits.")]


class Target(StrEnum):
    BOTO3 = "boto3"
    SCHEDULER = "scheduler"
    STEP_FUNCTIONS = "step-functions"
    PIPELINES = "pipelines"


@sagemaker.command(epilog="Example: `chartmill sagemaker render --config deploy/job.yaml`")
def render(
    config: Config,
    overrides: Overrides = None,
    name: Name = None,
    target: Annotated[Target, typer.Option("--for", help="Who is to send it; only the job's name differs.")] = Target.BOTO3,
) -> None:
    """Print the CreateProcessingJob request as JSON. Nothing is checked and nothing is sent."""
    print(json.dumps(request_for(_job(config, overrides), target.value, name), indent=2))


@sagemaker.command(epilog="Example: `chartmill sagemaker preflight --config deploy/job.yaml --set sagemaker.instance_type=ml.g5.xlarge`")
def preflight(config: Config, overrides: Overrides = None, name: Name = None, as_json: AsJson = False) -> None:
    """Check the request without AWS: against botocore's own model of it, and against what AWS would tell only at run time."""
    findings = _findings(_job(config, overrides), name)[1]
    for finding in findings:
        print(_line(finding))
    finish(_code(findings), as_json, findings=[_as_dict(finding) for finding in findings])


@sagemaker.command(epilog="Example: `chartmill sagemaker submit --config deploy/job.yaml`")
def submit(config: Config, overrides: Overrides = None, name: Name = None, as_json: AsJson = False) -> None:
    """Check the request, send it and print the job's ARN. Credentials and region come from AWS's default chain; nothing is asked."""
    job = _job(config, overrides)
    request, findings = _findings(job, name)
    refused = [finding.problem for finding in findings if finding.refused]
    if refused:
        raise ConfigurationError("; ".join(refused))
    arn = send(request, job.sagemaker.region)
    print(arn)
    finish(DONE, as_json, arn=arn, name=request["ProcessingJobName"])


def _job(config: Path, overrides: list[str] | None) -> Job:
    from pipeline.config import load_job

    return load_job(config, overrides or ())


# What each sender puts in place of a name that must be new every time.
_NAMES = {"scheduler": "{}-<aws.scheduler.execution-id>", "step-functions": "States.Format('{}-{{}}', States.UUID())"}


def request_for(job: Job, target: str = "boto3", name: str | None = None) -> dict[str, Any]:
    """The request as that sender wants it: Scheduler adds its execution id, Step Functions a UUID, Pipelines names it itself."""
    from pipeline.sagemaker_request import create_request, job_name

    prefix = job.sagemaker.job_name
    request = create_request(job, name or (_NAMES[target].format(prefix) if target in _NAMES else job_name(prefix)))
    if target == "step-functions" and name is None:
        request = {"ProcessingJobName.$": request.pop("ProcessingJobName"), **request}
    if target == "pipelines":
        del request["ProcessingJobName"]
    return request


def _findings(job: Job, name: str | None) -> tuple[dict[str, Any], list[Finding]]:
    from pipeline.sagemaker_rules import preflight

    request = request_for(job, name=name)
    return request, preflight(job, request, job.sagemaker.region or _default_region())


def _default_region() -> str | None:
    import boto3

    return boto3.Session().region_name


def _code(findings: list[Finding]) -> int:
    return USAGE if any(finding.refused for finding in findings) else DONE


def _line(finding: Finding) -> str:
    state = "ok" if not finding.problem else "advice" if finding.warning else "REFUSED"
    return f"{state:8}{finding.rule}{': ' if finding.problem else ''}{finding.problem}"


def _as_dict(finding: Finding) -> dict[str, Any]:
    return {"rule": finding.rule, "problem": finding.problem, "refused": finding.refused}


def send(request: dict[str, Any], region: str | None) -> str:
    """Create the processing job; its ARN. Raises ChartmillError when AWS refuses, with AWS's code and what the message may tell."""
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return str(boto3.client("sagemaker", region_name=region).create_processing_job(**request)["ProcessingJobArn"])
    except ClientError as error:
        raise ChartmillError(f"AWS refused the job: {_aws_code(error)}{_told(error, request)}") from None
    except BotoCoreError as error:
        raise ChartmillError(f"AWS could not be asked: {type(error).__name__}") from None


def _aws_code(error: Any) -> str:
    from transforms.store import s3_error_code

    return s3_error_code(error)


def _told(error: Any, request: dict[str, Any]) -> str:
    """AWS's message, unless it quotes one of the arguments: these hold URIs, in which names may stand."""
    message = str(error.response.get("Error", {}).get("Message", ""))
    values = [part for argument in request["AppSpecification"]["ContainerArguments"] for part in re.findall(r"s3://[^\"\],]+", argument)]
    return "" if not message or any(value in message for value in values) else f" ({message})"
