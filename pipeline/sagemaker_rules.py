"""Preflight of a CreateProcessingJob request: AWS's own description of it, read offline, and the rules that AWS tells only at run time.

Names of settings are told in messages, values only where the job file cannot hold a patient's name in them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from pipeline.config import Job
from transforms.engine import EngineError, check_constraint
from transforms.models import DEFAULT_RECORD_MODEL, PACKAGED

OPERATION = "CreateProcessingJob"
# Families whose instances bring an encrypted NVMe disk of their own: "You can't request a VolumeKmsKeyId when using an instance type with
# local storage", https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ProcessingClusterConfig.html, with the families of
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/InstanceStorage.html. A `d` behind the generation says the same of the others.
_LOCAL_NVME = re.compile(r"ml\.(?:g[567]e?|p4de?|p5e?n?|[a-z]+\d[a-z]*d[a-z]*)\.")
_ECR_IMAGE = re.compile(
    r"(?P<account>\d{12})\.dkr\.ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/(?P<name>[a-z0-9._/-]+)(?::[\w.-]+|@sha256:[0-9a-f]{64})"
)
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::(?P<account>\d{12}):role/[\w+=,.@/-]+")
_CREDENTIALS = re.compile(r"AWS_(?:ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN)|.*(?:PASSWORD|SECRET|TOKEN).*", re.IGNORECASE)
# AWS stops a job at its limit without waiting for a shard; one shard should have the time to end before.
_LAST_SHARD_MINUTES = 10


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule and what the request makes of it: `problem` is empty when it is kept. A `warning` does not stop a submission."""

    rule: str
    problem: str = ""
    warning: bool = False

    @property
    def refused(self) -> bool:
        return bool(self.problem) and not self.warning


def preflight(job: Job, request: Mapping[str, Any], region: str | None) -> list[Finding]:
    """Every rule, kept or not. `region`: where the request would be sent; None when neither the job nor AWS's default chain names one."""
    findings = [Finding("request fits AWS's own description", "; ".join(shape_errors(request)))]
    findings += [Finding(rule, check(job, region)) for rule, check in _RULES]
    findings += [Finding(rule, check(job, region), warning=True) for rule, check in _ADVICE]
    return findings


@cache
def _input_shape() -> Any:
    from botocore.loaders import Loader
    from botocore.model import ServiceModel

    return ServiceModel(Loader().load_service_model("sagemaker", "service-2"), "sagemaker").operation_model(OPERATION).input_shape


def shape_errors(request: Mapping[str, Any]) -> list[str]:
    """What botocore's model of the operation says against a request: its own validator's verdict, and limits that this one leaves to AWS.

    botocore checks kinds, required members and lower limits; upper limits, patterns and enumerations stand in its model all the same.
    """
    from botocore.validate import ParamValidator

    shape = _input_shape()
    report = ParamValidator().validate(dict(request), shape)
    # Its sentences quote values.
    kinds = [f"{field.lstrip('.') or 'request'}: {kind}" for field, kind in _without_values(report)]
    return kinds or list(_limit_errors(request, shape, ""))


def _without_values(report: Any) -> Iterator[tuple[str, str]]:
    for kind, name, more in report._errors:
        # botocore names the parent of what is missing or unknown.
        named = more.get("required_name") or more.get("unknown_param")
        yield f"{name}.{named}" if named else name, kind


def _limit_errors(value: Any, shape: Any, path: str) -> Iterator[str]:
    size = len(value) if shape.type_name in ("string", "list", "map") else value
    if shape.type_name in ("string", "list", "map", "integer"):
        yield from _own_limit_errors(value, size, shape.metadata, path.lstrip("."))
    match shape.type_name:
        case "structure":
            for name, inner in value.items():
                yield from _limit_errors(inner, shape.members[name], f"{path}.{name}")
        case "list":
            for number, inner in enumerate(value):
                yield from _limit_errors(inner, shape.member, f"{path}[{number}]")
        case "map":
            for name, inner in value.items():
                yield from _limit_errors(name, shape.key, f"{path}.{name} (its name)")
                yield from _limit_errors(inner, shape.value, f"{path}.{name}")


def _own_limit_errors(value: Any, size: int, limits: Mapping[str, Any], path: str) -> Iterator[str]:
    if size > limits.get("max", size) or size < limits.get("min", size):
        yield f"{path}: {size}, allowed are {limits.get('min', 0)} to {limits.get('max', 'any')}"
    if value not in limits.get("enum", [value]):
        yield f"{path}: not one of the {len(limits['enum'])} choices of AWS"
    if "pattern" in limits and not _matches(limits["pattern"], value):
        yield f"{path}: does not match {limits['pattern']}"


def _matches(pattern: str, value: str) -> bool:
    try:
        # Java's `.` and ours agree on all but line ends, which no value here may hold.
        return re.fullmatch(pattern.replace(r"\p{L}\p{Z}\p{N}", r"\w\s"), value) is not None
    except re.error:
        return True


def _known_image(job: Job, region: str | None) -> str:
    if not _ECR_IMAGE.fullmatch(job.sagemaker.image_uri):
        return "sagemaker.image_uri: expected ACCOUNT.dkr.ecr.REGION.amazonaws.com/REPOSITORY:TAG or …@sha256:DIGEST"
    return ""


def _image_here(job: Job, region: str | None) -> str:
    image = _ECR_IMAGE.fullmatch(job.sagemaker.image_uri)
    if region is None:
        return "sagemaker.region: not set, and AWS's default chain names none"
    if image and image["region"] != region:
        return f"sagemaker.image_uri: is in {image['region']}, but the job would run in {region}; SageMaker pulls from its own region only"
    return ""


def _role(job: Job, region: str | None) -> str:
    return "" if _ROLE.fullmatch(job.sagemaker.role_arn) else "sagemaker.role_arn: expected arn:aws:iam::ACCOUNT:role/NAME"


def _no_key_for_nvme(job: Job, region: str | None) -> str:
    section = job.sagemaker
    if section.volume_kms_key and _LOCAL_NVME.match(section.instance_type):
        return f"sagemaker.volume_kms_key: {section.instance_type} has local NVMe, which is encrypted by itself; AWS refuses a key for it"
    return ""


def _not_isolated(job: Job, region: str | None) -> str:
    if job.sagemaker.network_isolation:
        return "sagemaker.network_isolation: the job itself reads and writes s3://, which isolation forbids; use a VPC without egress"
    return ""


def _whole_vpc(job: Job, region: str | None) -> str:
    subnets, groups = job.sagemaker.subnets, job.sagemaker.security_groups
    return "" if bool(subnets) == bool(groups) else "sagemaker.subnets, sagemaker.security_groups: give both or neither"


def _on_s3(job: Job, region: str | None) -> str:
    local = ["input.uris"] if not job.input.uris or any(not uri.startswith("s3://") for uri in job.input.uris) else []
    local += [] if job.output.uri.startswith("s3://") else ["output.uri"]
    return f"{', '.join(local)}: only s3:// URIs outlive a container, and only their files are the same in every job" if local else ""


def _encrypted(job: Job, region: str | None) -> str:
    return "" if job.output.encryption else "output.encryption: not set; the run would refuse to write to S3"


def _here_in_the_image(job: Job, region: str | None) -> str:
    """Paths of this machine mean nothing in the container; absolute ones may have been put into the image."""
    model, suite = job.tasks.summary.model, job.contract.suite
    relative = [] if model in PACKAGED or model.startswith(("/", "s3://")) else ["tasks.summary.model"]
    records = job.tasks.record.model or DEFAULT_RECORD_MODEL
    relative += [] if records in ("same", *PACKAGED) or records.startswith(("/", "s3://")) else ["tasks.record.model"]
    relative += [] if suite == "default" or suite.startswith("/") else ["contract.suite"]
    return f"{', '.join(relative)}: give an absolute path inside the image, or s3:// for a model" if relative else ""


def _records_constrained(job: Job, region: str | None) -> str:
    """What a run on that kind of machine would say of a model for records."""
    if not job.tasks.record.by_model:
        return ""
    gpu = job.engine.device != "cpu" and job.sagemaker.instance_type.startswith(("ml.g", "ml.p"))
    try:
        check_constraint(job.engine.backend, "cuda" if gpu else "cpu")
    except EngineError as error:
        return str(error)
    return ""


def _own_runner(job: Job, region: str | None) -> str:
    return "" if job.run.runner == "FnApiRunner" else "run.runner: in a SageMaker container only FnApiRunner has something to run on"


def _no_download(job: Job, region: str | None) -> str:
    return "engine.allow_download: nothing is fetched in the container; put the model on s3://" if job.engine.allow_download else ""


def _no_secrets(job: Job, region: str | None) -> str:
    secret = sorted(name for name in job.sagemaker.environment if _CREDENTIALS.fullmatch(name))
    return f"sagemaker.environment: {', '.join(secret)}: whoever may describe the job reads it; the role has the rights" if secret else ""


def _tags(job: Job, region: str | None) -> str:
    return (
        "sagemaker.tags: names that begin with aws: are AWS's own" if any(t.lower().startswith("aws:") for t in job.sagemaker.tags) else ""
    )


def _time_for_the_last_shard(job: Job, region: str | None) -> str:
    limit, stop = job.sagemaker.max_runtime_minutes, job.run.max_minutes
    if stop is None or stop > limit - _LAST_SHARD_MINUTES:
        return f"run.max_minutes: set it to {limit - _LAST_SHARD_MINUTES} or less, so that the run stops by itself before AWS stops the job"
    return ""


def _private_network(job: Job, region: str | None) -> str:
    return "" if job.sagemaker.subnets else "sagemaker.subnets: without a VPC of yours the container can reach the internet"


def _same_account(job: Job, region: str | None) -> str:
    image, role = _ECR_IMAGE.fullmatch(job.sagemaker.image_uri), _ROLE.fullmatch(job.sagemaker.role_arn)
    if image and role and image["account"] != role["account"]:
        return "sagemaker.image_uri: is of another account than the role; its repository's policy has to allow the pull"
    return ""


def _metrics(job: Job, region: str | None) -> str:
    if job.run.metrics == "prometheus" or (job.run.metrics == "emf" and job.run.metrics_file):
        return "run.metrics: a file in the container is gone with it; emf without metrics_file goes to CloudWatch with the log"
    return ""


Check = Callable[[Job, str | None], str]
_RULES: Sequence[tuple[str, Check]] = (
    ("image is named in full", _known_image),
    ("image is in the job's region", _image_here),
    ("role is an ARN", _role),
    ("no volume key with local NVMe", _no_key_for_nvme),
    ("network isolation is off", _not_isolated),
    ("subnets and security groups", _whole_vpc),
    ("inputs and output on S3", _on_s3),
    ("output is encrypted", _encrypted),
    ("paths exist in the image", _here_in_the_image),
    ("records can be constrained", _records_constrained),
    ("runner runs in a container", _own_runner),
    ("nothing is downloaded", _no_download),
    ("no credentials in the environment", _no_secrets),
    ("tags are ours", _tags),
)
_ADVICE: Sequence[tuple[str, Check]] = (
    ("stops before AWS stops it", _time_for_the_last_shard),
    ("private network", _private_network),
    ("image and role of one account", _same_account),
    ("metrics outlive the container", _metrics),
)
