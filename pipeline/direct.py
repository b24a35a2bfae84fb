"""The same job by plain function calls, without Beam: what every runner's rows are compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pipeline.planning import RunPlan
from pipeline.prepare import PreparedJob
from transforms.batch import NoteBatch, compose, timed
from transforms.commit import commit_batch
from transforms.evidence import evidence_batch, load_aligner
from transforms.generate import generate_batch, task_here
from transforms.read import read_segment
from transforms.segment import segment_batch
from transforms.shared_engine import LoadedEngine, load_model
from transforms.validate import Validator, validate_batch
from transforms.verify import verify_batch


def run_directly(prepared: PreparedJob, run_plan: RunPlan) -> None:
    """Do every shard of the plan in this thread and commit it. Raises what the stages raise."""
    steps = job_steps(prepared)
    settings = prepared.commit_settings(run_plan.plan.run_id)
    for segment in run_plan.to_do:
        for batch in read_segment(segment, prepared.plan_settings().columns):
            commit_batch(steps(batch), prepared.store, settings)


@dataclass(frozen=True, slots=True)
class JobEngines:
    """The engines of a job: of the summaries, and of the records where a model reads them; one for both if it is the same model."""

    summary: LoadedEngine
    record: LoadedEngine | None

    @property
    def count(self) -> int:
        """How many there are."""
        return len({id(loaded) for loaded in (self.summary, self.record) if loaded is not None})


def load_engines(prepared: PreparedJob) -> JobEngines:
    """Load each model once. Raises ConfigurationError."""
    summary, task = load_model(prepared.task.model, prepared.engine), prepared.record.task
    if task is None:
        return JobEngines(summary, None)
    same = task.model.sha256 == prepared.task.model.sha256
    return JobEngines(summary, summary if same else load_model(task.model, prepared.engine))


def job_steps(prepared: PreparedJob, engines: JobEngines | None = None) -> Callable[[NoteBatch], NoteBatch]:
    """All stages between reading and committing as one function, for one thread. Loads the models unless they are given."""
    engines = engines or load_engines(prepared)
    task = task_here(prepared.task, engines.summary)
    keep_text = prepared.job.output.keep_rejected_text
    validate = partial(validate_batch, validator=Validator(prepared.suite), keep_rejected_text=keep_text)
    stages: dict[str, Callable[[NoteBatch], NoteBatch]] = {
        "validate": validate,
        "segment": segment_batch,
        "generate": partial(generate_batch, engine=engines.summary.engine, task=task),
        "record": prepared.record.step(engines.record),
        "evidence": partial(evidence_batch, aligner=load_aligner(prepared.job.verify.evidence)),
        "verify": partial(verify_batch, checks=prepared.job.verify.checks),
    }
    return compose([partial(timed, name, step) for name, step in stages.items()])
