"""What a run would do, without doing it: the figures of `chartmill plan`."""

from __future__ import annotations

from typing import Any

from pipeline.config import Job
from pipeline.planning import RunPlan, plan_run
from pipeline.prepare import PreparedJob, prepare
from schemas.commit import RunStats
from transforms.ledger import load_parts


def preview(job: Job) -> dict[str, Any]:
    """Files, shards and notes, done and to do. `seconds` estimates the time from the commits of this version; None before the first one."""
    prepared = prepare(job)
    run_plan = plan_run(prepared.store, prepared.version, "preview", prepared.plan_settings(), prepared.said_in_plan(), save=False)
    scope = run_plan.plan.scope
    notes = sum(shard.rows for shard in scope)
    return {
        "version": prepared.version,
        "model": {"id": prepared.provenance.model_id, "backend": prepared.provenance.backend, "dtype": prepared.provenance.dtype},
        "files": dict(run_plan.plan.files),
        "formats": run_plan.plan.settings["formats"],
        "shards": {"total": len(scope), "to_do": run_plan.shards_to_do, "revise": len(run_plan.revisions)},
        "notes": {"total": notes, "to_do": run_plan.notes_to_do, "done": notes - run_plan.notes_to_do},
        "duplicates": run_plan.duplicates,
        "beyond_limit": sum(shard.rows for shard in run_plan.plan.current if not shard.in_scope),
        "seconds": _estimate(prepared, run_plan),
    }


def _estimate(prepared: PreparedJob, run_plan: RunPlan) -> float | None:
    """Seconds of all stages per committed note, times the notes to do; one worker."""
    stats = RunStats.sum(part.stats for part in load_parts(prepared.store, prepared.version))
    if not stats.notes_in:
        return None
    return round(sum(stats.seconds.values()) / stats.notes_in * run_plan.notes_to_do, 1)
