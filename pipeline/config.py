"""The job file: every key has a default, unknown keys are errors that name the choices, `--set a.b=c` overrides.

Pydantic guards this edge only; inside, the job is made of frozen dataclasses. Errors never print input values: they may
hold paths with names in them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from schemas.errors import ConfigurationError
from schemas.note import NOTE_SCHEMA
from transforms.checks import CHECKS
from transforms.store import Encryption


class Section(BaseModel):
    """A part of the job file."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, frozen=True)
    called: ClassVar[str] = "job file"

    @model_validator(mode="before")
    @classmethod
    def _empty(cls, value: Any) -> Any:
        # YAML reads a section whose keys are all commented out as null.
        return {} if value is None else value


Sections = TypeVar("Sections", bound=Section)
Share = Annotated[float, Field(ge=0, le=1)]
Auto = Literal["auto"]


class InputSection(Section):
    # Paths may hold names of patients: they stay out of reprs.
    uris: Annotated[tuple[str, ...], Field(repr=False)] = ()
    format: Literal["auto", "parquet", "jsonl", "csv", "text", "fhir", "ccda", "hl7"] = "auto"
    encoding: Literal["auto", "utf-8", "utf-16", "cp1252", "latin-1"] = "auto"
    # Not what quotes a field or ends a line.
    delimiter: Auto | Annotated[str, Field(pattern=r"^[^\"\r\n]$")] = "auto"
    columns: dict[str, str] = {}
    passthrough: Literal["all", "none"] | tuple[str, ...] = "all"
    duplicates: Literal["first", "latest", "all"] = "first"

    @model_validator(mode="after")
    def _known_fields(self) -> InputSection:
        for name in self.columns:
            if name not in NOTE_SCHEMA.names:
                raise ValueError(f"columns: unknown field {name!r}; choices: {', '.join(NOTE_SCHEMA.names)}")
        return self


class EncryptionSection(Section):
    mode: Literal["kms", "aes256", "bucket"] = "kms"
    kms_key: str | None = None

    @model_validator(mode="after")
    def _key_for_kms(self) -> EncryptionSection:
        if (self.mode == "kms") != (self.kms_key is not None):
            raise ValueError("mode kms needs kms_key, and only mode kms takes one; choices for mode: kms, aes256, bucket")
        return self

    def settings(self) -> Encryption:
        return Encryption(self.mode, self.kms_key)


class OutputSection(Section):
    uri: str = ""
    encryption: EncryptionSection | None = None
    allow_insecure_endpoint: bool = False
    keep_rejected_text: bool = False


class ContractSection(Section):
    suite: str = "default"


class SegmentSection(Section):
    max_source_tokens: Auto | Annotated[int, Field(ge=16)] = "auto"
    overlap_sentences: Annotated[int, Field(ge=0, le=20)] = 1
    by: Literal["note", "section"] = "note"


class DecodeSection(Section):
    """None means: as the model's own generation settings say."""

    num_beams: Annotated[int, Field(ge=1, le=64)] | None = None
    max_new_tokens: Annotated[int, Field(ge=1, le=4096)] | None = None
    min_new_tokens: Annotated[int, Field(ge=0, le=4096)] | None = None
    length_penalty: float | None = None
    no_repeat_ngram_size: Annotated[int, Field(ge=0)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None


class SummaryTask(Section):
    model: str = "default"
    prefix: str = ""
    decode: DecodeSection = DecodeSection()


def _as_off(value: Any) -> Any:
    # To YAML, a bare off is false.
    return "off" if value is False else value


class RecordDecodeSection(Section):
    """None means: as the model's folder says. Other rules of decoding would contradict the constraint."""

    num_beams: Annotated[int, Field(ge=1, le=64)] | None = None
    max_new_tokens: Annotated[int, Field(ge=2, le=4096)] | None = None
    length_penalty: float | None = None


class RecordTask(Section):
    reader: Annotated[Literal["rules", "model", "both", "off"], BeforeValidator(_as_off)] = "rules"
    # None: the packaged one, for readers that need one.
    model: str | None = None
    # None: as the model's folder says.
    prefix: str | None = None
    # None: 0.5 beside the rules, 0 without them.
    min_probability: Annotated[float, Field(ge=0, lt=1)] | None = None
    decode: RecordDecodeSection = RecordDecodeSection()
    date_order: Literal["unknown", "month_first", "day_first"] = "unknown"
    # A path, which stays out of reprs.
    terminology: Annotated[str | None, Field(repr=False)] = None

    @property
    def by_model(self) -> bool:
        """Whether a model reads the notes."""
        return self.reader in ("model", "both")

    @model_validator(mode="after")
    def _model_of_its_reader(self) -> RecordTask:
        if self.model and not self.by_model:
            raise ValueError(f"reader {self.reader} uses no model; choose reader model or both, or leave model out")
        return self


class TasksSection(Section):
    summary: SummaryTask = SummaryTask()
    record: RecordTask = RecordTask()


class EngineSection(Section):
    backend: Literal["torch", "generate", "ctranslate2", "echo"] = "torch"
    dtype: Literal["auto", "float32", "bfloat16", "int8"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Auto | Annotated[int, Field(ge=1)] = "auto"
    slots: Auto | Annotated[int, Field(ge=1)] = "auto"
    draft: Annotated[Literal["off", "auto"], BeforeValidator(_as_off)] = "off"
    tokens_per_batch: Auto | Annotated[int, Field(ge=64)] = "auto"
    shard_notes: Auto | Annotated[int, Field(ge=1)] = "auto"
    delay_ms: Annotated[float, Field(ge=0)] = 0.0
    note_seconds: Annotated[float, Field(gt=0)] = 600.0
    allow_download: bool = False


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class VerifySection(Section):
    evidence: Literal["lexical", "semantic"] = "lexical"
    checks: Annotated[tuple[str, ...], BeforeValidator(_as_tuple)] = CHECKS


class GateSection(Section):
    max_quarantined_share: Share = 0.05
    max_flagged_share: Share = 0.10
    contract: Literal["pass", "ignore"] = "pass"


class RunSection(Section):
    runner: str = "FnApiRunner"
    dask_scheduler: str | None = None
    allow_insecure_scheduler: bool = False
    max_minutes: Annotated[float, Field(gt=0)] | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    sweep_after_minutes: Annotated[float, Field(ge=0)] = 60.0
    wait_minutes: Annotated[float, Field(gt=0)] = 60.0
    metrics: Literal["none", "emf", "prometheus"] = "none"
    metrics_file: Path | None = None

    @model_validator(mode="after")
    def _file_for_prometheus(self) -> RunSection:
        if self.metrics == "prometheus" and self.metrics_file is None:
            raise ValueError("metrics: prometheus needs metrics_file, e.g. one in the folder that node_exporter's textfile collector reads")
        return self


class SageMakerSection(Section):
    """The machines that `chartmill sagemaker` asks for. Whether AWS would take it is for its preflight to say, all at once."""

    region: str | None = None
    job_name: str = "chartmill"
    image_uri: str = ""
    role_arn: str = ""
    instance_type: str = "ml.m7i.2xlarge"
    instance_count: int = 1
    volume_gb: int = 30
    volume_kms_key: str | None = None
    max_runtime_minutes: int = 720
    subnets: tuple[str, ...] = ()
    security_groups: tuple[str, ...] = ()
    network_isolation: bool = False
    environment: dict[str, str] = {}
    tags: dict[str, str] = {}


class Job(Section):
    """The whole job file."""

    input: InputSection = InputSection()
    output: OutputSection = OutputSection()
    contract: ContractSection = ContractSection()
    segment: SegmentSection = SegmentSection()
    tasks: TasksSection = TasksSection()
    engine: EngineSection = EngineSection()
    verify: VerifySection = VerifySection()
    gate: GateSection = GateSection()
    run: RunSection = RunSection()
    sagemaker: SageMakerSection = SageMakerSection()


def load_job(path: Path | None = None, overrides: Sequence[str] = (), settings: Mapping[str, Any] | None = None) -> Job:
    """The job from a YAML file, `settings` (dotted keys, None values are skipped) and `a.b=c` overrides, later ones winning.

    Raises ConfigurationError naming the key and the choices; values from the file are never repeated.
    """
    return load_sections(Job, path, overrides, settings)


def load_sections(
    root: type[Sections], path: Path | None = None, overrides: Sequence[str] = (), settings: Mapping[str, Any] | None = None
) -> Sections:
    """As `load_job`, for a file whose outermost section is `root`."""
    raw = _read_yaml(path, root) if path else {}
    for key, value in (settings or {}).items():
        if value is not None:
            _assign(raw, key, value)
    for position, override in enumerate(overrides, start=1):
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigurationError(f"--set: number {position} has no `=`; expected KEY.KEY=VALUE, e.g. gate.max_flagged_share=0.2")
        _assign(raw, key.strip(), _parse_value(key, text))
    try:
        return root.model_validate(raw)
    except ValidationError as error:
        raise ConfigurationError(_explain_all(error.errors(include_input=False, include_url=False), root)) from None


def _read_yaml(path: Path, root: type[Section]) -> dict[str, Any]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"--config: the {root.called} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigurationError(f"--config: the {root.called} is not valid YAML{where}") from None
    if raw is not None and not isinstance(raw, dict):
        raise ConfigurationError(
            f"--config: the {root.called} holds a {type(raw).__name__}, not sections; choices: {', '.join(root.model_fields)}"
        )
    return raw or {}


def _parse_value(key: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigurationError(f"--set {key.strip()}: the value is not valid YAML; quote it") from None


def _assign(raw: dict[str, Any], dotted: str, value: Any) -> None:
    *sections, last = dotted.split(".")
    for section in sections:
        inner = raw.setdefault(section, {})
        if inner is None:
            inner = raw[section] = {}
        if not isinstance(inner, dict):
            raise ConfigurationError(f"{dotted}: {section} is a value, not a section")
        raw = inner
    raw[last] = value


def _explain_all(errors: Iterable[Mapping[str, Any]], root: type[Section]) -> str:
    """One sentence per key; where several kinds of value would do, pydantic reports each by itself."""
    told: dict[str, list[str]] = {}
    for error in errors:
        key, problem = _explain(error, root)
        told.setdefault(key, []).append(problem)
    return "; ".join(f"{key}: {_alternatives(problems)}" for key, problems in told.items())


def _alternatives(problems: Sequence[str]) -> str:
    return " or ".join([problems[0], *(problem.removeprefix("should be ") for problem in problems[1:])])


def _explain(error: Mapping[str, Any], root: type[Section]) -> tuple[str, str]:
    """The key and what is wrong with it, in the words of a job file."""
    path = [str(part) for part in error["loc"]]
    if error["type"] == "extra_forbidden":
        choices = _choices(root, path[:-1])
        near = get_close_matches(path[-1], choices, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        return ".".join(path), f"unknown key{hint}; choices: {', '.join(choices)}"
    # Drop the name of the union member that pydantic appends to the location.
    keys = [part for part in path if not part.startswith(("literal[", "tuple[", "constrained-", "int", "float"))]
    if error["type"] == "model_type":
        return ".".join(keys), f"is a section, not a value; choices: {', '.join(_choices(root, keys))}"
    problem = error["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
    return ".".join(keys), problem.replace("a valid tuple", "a list").replace("a valid dictionary", "a mapping (KEY: VALUE)")


def _choices(root: type[Section], path: Sequence[str]) -> list[str]:
    model: Any = root
    for part in path:
        if part not in model.model_fields:  # a key of a mapping: the section it leads to was found with the mapping
            continue
        annotation = model.model_fields[part].annotation
        members = getattr(annotation, "__args__", (annotation,))
        model = next((m for m in members if isinstance(m, type) and issubclass(m, BaseModel)), None)
        if model is None:
            return []
    return list(model.model_fields)
