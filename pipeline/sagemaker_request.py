"""A job file as SageMaker's CreateProcessingJob request: a plain dict, the same for boto3, EventBridge Scheduler and Step Functions.

The container runs `chartmill run` with the job's keys as `--set` arguments, so that nothing is uploaded first and the laptop's command is
the cloud's. No network, no AWS package.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from pipeline.config import Job, SageMakerSection

_NAME_LENGTH = 63


def create_request(job: Job, name: str) -> dict[str, Any]:
    """The request for one job of that name. Whether AWS would take it is another question: pipeline.sagemaker_rules."""
    section = job.sagemaker
    return {
        "ProcessingJobName": name,
        "ProcessingResources": {"ClusterConfig": _cluster(section)},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60 * section.max_runtime_minutes},
        "AppSpecification": {"ImageUri": section.image_uri, "ContainerArguments": container_arguments(job)},
        "RoleArn": section.role_arn,
        "NetworkConfig": _network(section),
        **({"Environment": environment} if (environment := _environment(section)) else {}),
        **({"Tags": [{"Key": key, "Value": value} for key, value in section.tags.items()]} if section.tags else {}),
    }


def _cluster(section: SageMakerSection) -> dict[str, Any]:
    key = {"VolumeKmsKeyId": section.volume_kms_key} if section.volume_kms_key else {}
    sizes = {"InstanceCount": section.instance_count, "InstanceType": section.instance_type, "VolumeSizeInGB": section.volume_gb}
    return {**sizes, **key}


def _network(section: SageMakerSection) -> dict[str, Any]:
    vpc = {"SecurityGroupIds": list(section.security_groups), "Subnets": list(section.subnets)}
    return {
        "EnableNetworkIsolation": section.network_isolation,
        **({"VpcConfig": vpc} if section.security_groups or section.subnets else {}),
    }


def _environment(section: SageMakerSection) -> dict[str, str]:
    # Said here rather than left to the container: a client without a region asks the global endpoint, which a VPC without egress lacks.
    region = {"AWS_DEFAULT_REGION": section.region, "AWS_REGION": section.region} if section.region else {}
    return {**region, **section.environment}


def job_name(prefix: str, now: datetime | None = None) -> str:
    """`PREFIX-20260131-031500-4f1a`: AWS wants a name that is new in account and region, of at most 63 letters, digits and `-`."""
    suffix = f"-{now or datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    return prefix[: _NAME_LENGTH - len(suffix)].rstrip("-") + suffix


def container_arguments(job: Job) -> list[str]:
    """`run --json --log-format json` and one `--set=KEY=VALUE` for each key that differs from its default."""
    return ["run", "--json", "--log-format=json", *(f"--set={key}={_written(value)}" for key, value in differing_keys(job))]


def differing_keys(job: Job) -> Iterator[tuple[str, Any]]:
    """Dotted keys of the job and their values where they differ from the defaults; of the section `sagemaker` none."""
    for key, value in _leaves(job, type(job)(), ""):
        if not key.startswith("sagemaker."):
            yield key, value


def _leaves(section: BaseModel, default: BaseModel | None, prefix: str) -> Iterator[tuple[str, Any]]:
    for name in type(section).model_fields:
        value, usual = getattr(section, name), getattr(default, name, None)
        if isinstance(value, BaseModel):
            yield from _leaves(value, usual if isinstance(usual, BaseModel) else None, f"{prefix}{name}.")
        elif default is None or value != usual:
            yield f"{prefix}{name}", value


def _written(value: Any) -> str:
    """A value as `--set` reads it: JSON is YAML, but for characters that YAML takes for the end of a line or refuses."""
    text = json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":"))
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in text)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
