"""The training file: every key has a default but the data; unknown keys are errors that name the choices."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from pipeline.config import Auto, DecodeSection, Section, load_sections

OBJECTIVES = ("generation", "selection", "record", "denoise", "gap_sentences")
# What learns from texts alone.
UNPAIRED = ("denoise", "gap_sentences")
# What writes no summary that a reference could be laid beside.
WITHOUT_ROUGE = (*UNPAIRED, "record")


def _paths(value: Any) -> Any:
    if isinstance(value, str):
        return (value,)
    return tuple(value) if isinstance(value, list) else value


# Paths may hold names of patients: they stay out of reprs.
Paths = Annotated[tuple[str, ...], BeforeValidator(_paths), Field(repr=False)]
Count = Annotated[int, Field(ge=1)]


class ModelSection(Section):
    start: str = "default"
    allow_download: bool = False
    from_config: dict[str, Any] | None = None
    max_source_tokens: Annotated[int, Field(ge=16)] | None = None
    vocabulary: Annotated[int, Field(ge=64)] | None = None


class TeacherSection(Section):
    model: str
    prefix: str = ""
    decode: DecodeSection = DecodeSection()


class FormatSection(Section):
    """As SelectionFormat, with the defaults of the packaged model. A start with a format of its own keeps all but the budget."""

    budget_words: Auto | Count = "auto"
    budget_share: Annotated[float, Field(gt=0, le=1)] = 0.5
    n_markers: Count = 64
    n_places: Annotated[int, Field(ge=4)] = 16
    length_bounds: Annotated[tuple[int, ...], BeforeValidator(_paths)] = (40, 70, 100, 140, 200)


class TaskSection(Section):
    objective: Literal["generation", "selection", "record", "denoise", "gap_sentences"] = "generation"
    data: Paths
    dev_data: Paths = ()
    text_column: str = "text"
    reference_column: str = "reference"
    prefix: str = ""
    decoder_marker: str | None = None
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    max_source_tokens: Auto | Annotated[int, Field(ge=8)] = "auto"
    max_target_tokens: Annotated[int, Field(ge=2)] = 256
    teacher: TeacherSection | None = None
    mask_share: Annotated[float, Field(gt=0, lt=1)] = 0.3

    @model_validator(mode="after")
    def _fits(self) -> TaskSection:
        if not self.data:
            raise ValueError("data: name at least one file, folder or glob")
        if self.teacher and self.objective != "generation":
            raise ValueError(f"teacher: only for objective generation, not {self.objective}")
        if self.prefix and self.objective == "selection":
            raise ValueError("prefix: a selection model takes none; leave it empty")
        if self.decoder_marker is not None and not self.decoder_marker.strip():
            raise ValueError("decoder_marker: give a token such as <summary>, or null")
        return self


class DevSection(Section):
    share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    group_column: str | None = None
    score: Literal["rouge", "loss"] = "rouge"
    every: Count = 100
    patience: Count | None = 5
    max_examples: Count = 100


class FitSection(Section):
    epochs: Annotated[float, Field(gt=0)] = 3.0
    max_steps: Count | None = None
    tokens_per_batch: Annotated[int, Field(ge=32)] = 4096
    batches_per_step: Count = 4
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 5e-5
    warmup_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0, lt=1)] = 0.01
    max_gradient: Annotated[float, Field(gt=0)] = 1.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    average: Annotated[float, Field(gt=0, lt=1)] | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None


class MachineSection(Section):
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: Auto | Count = "auto"
    checkpoint_every: Count = 50
    log_every: Count = 10


class TrainJob(Section):
    """The whole training file."""

    called: ClassVar[str] = "training file"

    output: Annotated[str, Field(repr=False)] = ""
    weights: Literal["float32", "bfloat16", "int8"] = "float32"
    seed: Annotated[int, Field(ge=0)] = 0
    model: ModelSection = ModelSection()
    tasks: dict[str, TaskSection] = Field(default_factory=dict)
    selection: FormatSection = FormatSection()
    dev: DevSection = DevSection()
    fit: FitSection = FitSection()
    machine: MachineSection = MachineSection()

    @model_validator(mode="after")
    def _whole(self) -> TrainJob:
        if not self.tasks:
            raise ValueError("tasks: name at least one, for instance tasks: {summary: {data: [pairs.parquet]}}")
        if not self.output or "://" in self.output:
            raise ValueError("output: give a local folder")
        return self

    @property
    def first_task(self) -> str:
        """The task that the exported model is for."""
        return next(iter(self.tasks))


def load_train_job(path: Path | None, overrides: Sequence[str] = (), settings: Mapping[str, Any] | None = None) -> TrainJob:
    """The training file with `a.b=c` overrides. Raises ConfigurationError that names the key and the choices, never a value."""
    return load_sections(TrainJob, path, overrides, settings)


def plain(job: TrainJob) -> dict[str, Any]:
    """The job without what may hold names of patients: paths become counts of paths, the start and teachers their last part."""
    told: dict[str, Any] = json.loads(job.model_dump_json(exclude={"output"}))
    told["model"]["start"] = Path(job.model.start).name
    for name, task in told["tasks"].items():
        task["data"], task["dev_data"] = (f"{len(paths)} given" for paths in (job.tasks[name].data, job.tasks[name].dev_data))
        if task["teacher"]:
            task["teacher"]["model"] = Path(task["teacher"]["model"]).name
    return told
