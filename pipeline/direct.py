"""The same job by plain function calls, without Beam: what every runner's rows are compared with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from pipeline.planning import RunPlan
from pipeline.prepare import PreparedJob
from transforms.batch import NoteBatch, compose, timed
from transforms.commit import commit_batch
from transforms.evidence import evidence_batch, load_aligner
from transforms.generate import LoadedEngine, generate_batch, load_for_task
from transforms.read import read_segment
from transforms.record import record_batch
from transforms.segment import segment_batch
from transforms.validate import Validator, validate_batch
from transforms.verify import verify_batch


def run_directly(prepared: PreparedJob, run_plan: RunPlan) -> None:
    """Do every shard of the plan in this thread and commit it. Raises what the stages raise."""
    steps = job_steps(prepared)
    settings = prepared.commit_settings(run_plan.plan.run_id)
    for segment in run_plan.to_do:
        for batch in read_segment(segment, prepared.plan_settings().columns):
            commit_batch(steps(batch), prepared.store, settings)


def job_steps(prepared: PreparedJob, loaded: LoadedEngine | None = None) -> Callable[[NoteBatch], NoteBatch]:
    """All stages between reading and committing as one function, for one thread. Loads the model unless it is given."""
    loaded = loaded or load_for_task(prepared.task, prepared.engine)
    keep_text = prepared.job.output.keep_rejected_text
    validate = partial(validate_batch, validator=Validator(prepared.suite), keep_rejected_text=keep_text)
    stages: dict[str, Callable[[NoteBatch], NoteBatch]] = {
        "validate": validate,
        "segment": segment_batch,
        "generate": partial(generate_batch, engine=loaded.engine, task=loaded.task),
        "record": partial(record_batch, order=prepared.record.date_order, terminology=prepared.record.load()),
        "evidence": partial(evidence_batch, aligner=load_aligner(prepared.job.verify.evidence)),
        "verify": partial(verify_batch, checks=prepared.job.verify.checks),
    }
    return compose([partial(timed, name, step) for name, step in stages.items()])
