"""A run's own lines in the audit trail: that it began, and how it ended. A killed run leaves the first only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from pipeline.hosts import Host, why_failed
from pipeline.prepare import PreparedJob, code_version
from schemas.commit import Plan
from transforms.audit import COUNTS, Chain, chain_heads, open_chain
from transforms.commit import utc_now
from transforms.store import storage_errors

if TYPE_CHECKING:
    from pipeline.run import Outcome


@contextmanager
def audited(prepared: PreparedJob, plan: Plan, shards: int, host: Host) -> Iterator[Callable[[Outcome], None]]:
    """Put a line now, and one at the end, of what the run came to: call what this gives with the outcome.

    `shards`: how many this host is about to do.
    """
    chain = open_chain(prepared.store, prepared.version, plan.run_id)
    said = {"model_sha256": prepared.provenance.model_sha256, "code_version": code_version(), "host": f"{host.index + 1}/{host.count}"}
    if prepared.record.task is not None:
        said["record_model_sha256"] = prepared.record.task.model.sha256
    chain.append("run-begun", utc_now(), {**said, "shards": shards})
    try:
        yield lambda outcome: _end(chain, {**said, **_outcome(outcome)})
    except KeyboardInterrupt:
        _end_badly(chain, {**said, "outcome": "stopped"})
        raise
    except BaseException as error:
        _end_badly(chain, {**said, "outcome": "failed", "error": why_failed(error)})
        raise


def _outcome(outcome: Outcome) -> dict[str, Any]:
    report = outcome.published.report
    return {
        "outcome": "released" if outcome.published.released else "not released",
        "exit_code": outcome.exit_code,
        "shards_left": report["remaining_shards"],
        # Of everything that the plan covers; a host that does not publish has not counted it.
        "counts": {name: report[name] for name in COUNTS if name in report},
    }


def _end(chain: Chain, said: Mapping[str, Any]) -> None:
    """The last line names the last line of every chain of the run, so that none can be cut off at its end unnoticed."""
    chain.append("run-ended", utc_now(), {**said, "chains": chain_heads(chain.store, chain.version, chain.run_id)})


def _end_badly(chain: Chain, said: Mapping[str, Any]) -> None:
    # A storage that fails here is most likely why the run failed, which is what has to be told.
    with suppress(*storage_errors()):
        _end(chain, said)
