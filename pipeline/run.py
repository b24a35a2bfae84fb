"""The job on one page: prepare, plan, run the graph, publish.

    Create(plan pages) | FlatMap(segments) | Reshuffle | ReadNotes | ValidateNotes | SegmentNotes | GenerateTexts
        | ParseRecords | LocateEvidence | VerifySummaries | CommitShard

One fused chain without state, timers or tagged outputs is memory-flat at any size and right on every runner. Everything
that outlives a worker is in the commit records, so a run that stops anywhere is continued by running it again.
"""

from __future__ import annotations

import pickle
import re
import secrets
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.audit_run import audited
from pipeline.config import Job
from pipeline.exits import DONE, FAILED, HELD
from pipeline.graph import check_graph
from pipeline.hosts import Host, Work, agreed_work, shards_left, shards_of
from pipeline.interrupt import attempts_dropped
from pipeline.isolate import run_isolated, set_apart
from pipeline.planning import RunPlan, plan_run
from pipeline.prepare import PreparedJob, prepare
from pipeline.publish import SUCCESS, Published, publish
from pipeline.restart import deaths
from pipeline.runners import DASK_RUNNER, beam_runner, check_beam_options, check_runner, runner_failures
from pipeline.worker_watch import watch_workers
from schemas.commit import Plan, Segment
from schemas.errors import ConfigurationError
from transforms.batch import guarded
from transforms.commit import CommitShard
from transforms.evidence import LocateEvidence
from transforms.generate import GenerateTexts
from transforms.ledger import committed_shards, newest_plan
from transforms.read import ReadNotes
from transforms.record import ParseRecords
from transforms.revise import revise_commit
from transforms.segment import SegmentNotes
from transforms.shared_engine import SharedEngines
from transforms.store import Store, check_writable
from transforms.validate import ValidateNotes
from transforms.verify import VerifySummaries

Watch = Callable[[Store, RunPlan], AbstractContextManager[Any]]
_SEGMENTS_PER_PAGE = 200
_RUN_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run came to. `message` is empty when all went well.

    `elsewhere`: shards that other hosts have not committed yet; the last of them publishes, and this host's report names them only.
    """

    published: Published
    plan: Plan = field(repr=False)
    message: str = ""
    elsewhere: int = 0

    @property
    def exit_code(self) -> int:
        """0 done (or stopped on time), 1 not all shards could be done, 3 held by the gate."""
        if self.message:
            return FAILED
        return HELD if self.published.complete and not self.published.released else DONE


def run_job(
    job: Job,
    *,
    run_id: str | None = None,
    beam_options: Sequence[str] = (),
    watch: Watch | None = None,
    host: Host | None = None,
) -> Outcome:
    """Run a job from plan to publication.

    `watch(store, run_plan)` is called when the plan stands and gives a context manager that is open while the graph runs (progress).
    `host`: which of several machines at the same job this one is; each does its share.
    """
    check_runner(job)
    check_beam_options(job.run.runner, beam_options)
    host = host or Host()
    run_id = run_id or host.run_id
    check_run_id(run_id)
    # A run that died and goes on is another run, with a plan of its own.
    run_id = f"{run_id}-again-{deaths()}" if run_id and deaths() and host.count == 1 else run_id
    started = time.time()
    prepared = prepare(job, beam_options)
    check_writable(prepared.store)
    run_id = run_id or new_run_id()
    work = agreed_work(prepared.store, prepared.version, run_id, host, partial(_planned, prepared, run_id), 60 * job.run.wait_minutes)
    if deaths() and host.count > 1:  # what was agreed before this host died
        run_plan, suspects = set_apart(prepared, work.run_plan)
        work = Work(run_plan, (*work.apart, *suspects))
    shards = shards_of((*work.run_plan.to_do, *work.apart))
    with audited(prepared, work.run_plan.plan, len(shards), host) as tell:
        outcome = _done(prepared, work, run_id, host, started, beam_options, watch)
        tell(outcome)
    return outcome


def _done(
    prepared: PreparedJob, work: Work, run_id: str, host: Host, started: float, beam_options: Sequence[str], watch: Watch | None
) -> Outcome:
    """Do what this host has to do, and publish unless that is another host's."""
    run_plan = work.run_plan
    deadline = started + 60 * minutes if (minutes := prepared.job.run.max_minutes) else None
    loads = 0
    with attempts_dropped(prepared.store, prepared.version, shards_of((*run_plan.to_do, *work.apart))):
        for segment in work.apart:
            run_isolated(prepared, segment, run_id)
        if run_plan.to_do:
            with watch(prepared.store, run_plan) if watch else nullcontext():
                loads = run_graph(prepared, run_plan, deadline, beam_options)
    if host.count > 1 and not _is_over(deadline) and (left := shards_left(prepared.store, prepared.version, run_plan.plan)):
        return _left_to_others(prepared, run_plan, left)
    published = publish(
        prepared.store,
        prepared.version,
        sweep_after_s=60 * prepared.job.run.sweep_after_minutes,
        run_seconds=round(time.time() - started, 3),
        model_loads=loads,
    )
    return Outcome(published, run_plan.plan, _left_undone(prepared, run_plan, published, deadline))


def _planned(prepared: PreparedJob, run_id: str) -> Work:
    """The whole run's work. What needs no generation is done at once, so that whoever publishes finds it."""
    run_plan = plan_run(prepared.store, prepared.version, run_id, prepared.plan_settings(), prepared.said_in_plan())
    if run_plan.to_do or run_plan.revisions:
        prepared.store.delete(SUCCESS)
    for record, shard in run_plan.revisions:
        with guarded("revise"):
            revise_commit(record, shard, prepared.store, run_id, prepared.job.output.keep_rejected_text)
    run_plan, suspects = set_apart(prepared, run_plan)
    return Work(run_plan, tuple(suspects))


def _is_over(deadline: float | None) -> bool:
    return deadline is not None and time.time() >= deadline


def _left_to_others(prepared: PreparedJob, run_plan: RunPlan, left: int) -> Outcome:
    """This host is done before others are: they, or the next run if one of them is lost, will publish."""
    newest = newest_plan(prepared.store, prepared.version)
    run_id = newest.run_id if newest else run_plan.plan.run_id
    report = {"run_id": run_id, "version": prepared.version, "complete": False, "remaining_shards": left}
    published = Published(report, complete=False, released=False)
    return Outcome(published, run_plan.plan, _left_undone(prepared, run_plan, published, None), left)


def check_run_id(run_id: str | None) -> None:
    """Raises ConfigurationError for a name that cannot be a file name, or that the ledger uses itself."""
    if run_id is not None and (not _RUN_ID.fullmatch(run_id) or run_id.startswith("cuts-")):
        raise ConfigurationError("--run-id: expected 1 to 100 letters, digits, `.`, `_` and `-`, not starting with `.` or `cuts-`")


def new_run_id() -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


def _left_undone(prepared: PreparedJob, run_plan: RunPlan, published: Published, deadline: float | None) -> str:
    if published.report["run_id"] != run_plan.plan.run_id:  # overtaken: what is still to do is in the newer run's plan
        return ""
    done = committed_shards(prepared.store, prepared.version)
    left = sum(1 for segment in run_plan.to_do for shard in segment.shards if shard.id not in done)
    if not left or _is_over(deadline):
        return ""
    return f"{left} shards were not done: their files changed or vanished after they were planned; run again"


def run_graph(prepared: PreparedJob, run_plan: RunPlan, deadline: float | None, beam_options: Sequence[str]) -> int:
    """Run the Beam graph over what is to do; returns how many times a model was loaded. Blocks until the runner is done."""
    if prepared.job.run.runner == DASK_RUNNER:
        from pipeline.dask_futures import run_on_dask

        with runner_failures():
            return run_on_dask(prepared, run_plan, deadline)
    watch_workers()
    options = PipelineOptions(list(beam_options), runner=prepared.job.run.runner)
    pipeline = beam.Pipeline(runner=beam_runner(prepared.job.run.runner, options), options=options)
    notes_to_commits(pipeline, prepared, run_plan, deadline)
    check_graph(pipeline)
    with runner_failures():
        result = pipeline.run()
        result.wait_until_finish()
    counters = result.metrics().query(beam.metrics.MetricsFilter().with_name("model_loads"))["counters"]
    return sum(counter.committed or 0 for counter in counters)


def notes_to_commits(pipeline: beam.Pipeline, prepared: PreparedJob, run_plan: RunPlan, deadline: float | None = None) -> Any:
    """The graph: plan pages in, commit records out."""
    engines = SharedEngines(prepared.engine)
    return (
        pipeline
        # Pages, so that a plan of 100,000 shards still fits into the graph that is sent to the runner.
        | "Plan" >> beam.Create(plan_pages(run_plan.to_do))
        | "Segments" >> beam.FlatMap(page_segments)
        # Without this the runner would fuse planning into one worker.
        | "Spread" >> beam.Reshuffle()
        # The only fan-out: a segment becomes its shards, one at a time.
        | "Read" >> ReadNotes(prepared.plan_settings().columns, prepared.store, prepared.version, deadline)
        | "Validate" >> ValidateNotes(prepared.suite, keep_rejected_text=prepared.job.output.keep_rejected_text)
        | "Segment" >> SegmentNotes()
        | "Generate" >> GenerateTexts(prepared.task, engines)
        # By rules, or by a model too, which shares the engine if it is the same one.
        | "Record" >> ParseRecords(prepared.record, engines)
        | "Evidence" >> LocateEvidence(prepared.job.verify.evidence)
        | "Verify" >> VerifySummaries(prepared.job.verify.checks)
        # The only side effect; what it returns is the record that stands, whoever wrote it.
        | "Commit" >> CommitShard(prepared.store, prepared.commit_settings(run_plan.plan.run_id))
    )


def plan_pages(segments: Sequence[Segment]) -> list[bytes]:
    pages = (segments[i : i + _SEGMENTS_PER_PAGE] for i in range(0, len(segments), _SEGMENTS_PER_PAGE))
    return [zlib.compress(pickle.dumps(page)) for page in pages]


def page_segments(page: bytes) -> Iterator[Segment]:
    yield from pickle.loads(zlib.decompress(page))
