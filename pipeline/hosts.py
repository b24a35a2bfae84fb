"""Several hosts at one job: the first plans and says who does what, each does its share, and whoever sees all commits publishes.

What the hosts have to agree on stands beside the plan in the output folder. They need nothing else of each other: no ports, no order, no
leader after the planning. This file knows segments and shares, but neither Beam nor SageMaker.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipeline.planning import RunPlan
from pipeline.restart import deaths
from schemas.commit import InputFile, Plan, Segment, Shard, without_defaults
from schemas.errors import ChartmillError, ConfigurationError
from transforms.batch import describe_error
from transforms.ledger import committed_shards, load_plan, runs_folder
from transforms.store import NotFound, Store

_POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class Host:
    """This machine among those that work at the job: `index` counts from 0 to `count` - 1. `run_id`: the name that all of them go by."""

    index: int = 0
    count: int = 1
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """What is to do, in segments: `run_plan.to_do` by the graph, `apart` (one shard each) in child processes."""

    run_plan: RunPlan
    apart: tuple[Segment, ...] = field(default=(), repr=False)

    def share(self, host: Host) -> Work:
        """Every `host.count`-th segment, beginning with number `host.index`; the shares of all hosts make up the whole."""
        mine = slice(host.index, None, host.count)
        return Work(replace(self.run_plan, to_do=self.run_plan.to_do[mine]), self.apart[mine])


def agreed_work(store: Store, version: str, run_id: str, host: Host, plan: Callable[[], Work], wait_s: float) -> Work:
    """This host's share. The first host plans and says so; the others wait for it, `wait_s` seconds at most.

    Raises what `plan` raises, on the first host; on the others ChartmillError when the first one failed or says nothing.
    """
    if host.count == 1:
        return plan()
    # One that has died and goes on does what was agreed before.
    if host.index == 0 and not (deaths() and store.exists(_shares_key(version, run_id))):
        return _planned_for_all(store, version, run_id, plan).share(host)
    return _awaited(store, version, run_id, wait_s).share(host)


def _planned_for_all(store: Store, version: str, run_id: str, plan: Callable[[], Work]) -> Work:
    try:
        work = plan()
    except BaseException as error:
        # The others are told at once, rather than waiting at full price for what cannot come.
        _put_shares(store, version, run_id, {"failed": type(error).__name__})
        raise
    _put_shares(store, version, run_id, _to_json(work))
    return work


def _put_shares(store: Store, version: str, run_id: str, said: dict[str, Any]) -> None:
    key, data = _shares_key(version, run_id), gzip.compress(json.dumps(said).encode(), mtime=0)
    # What stands may be our own: a PUT whose answer was lost is sent again.
    if not store.put_once(key, data) and store.get(key) != data:
        raise ConfigurationError("the hosts of this job were told before who does what; every job needs a name (run id) of its own")


def _shares_key(version: str, run_id: str) -> str:
    # Beside the plans, because it names the input files as they do.
    return f"{runs_folder(version)}/plans/{run_id}.shares.gz"


def _awaited(store: Store, version: str, run_id: str, wait_s: float) -> Work:
    deadline = time.monotonic() + wait_s
    while True:
        try:
            said = json.loads(gzip.decompress(store.get(_shares_key(version, run_id))))
            break
        except NotFound:
            if time.monotonic() >= deadline:
                raise ChartmillError(
                    f"the first host has put no plan for {version} within {wait_s:.0f} s (run.wait_minutes); "
                    "see its log, and whether all hosts are of one kind and run the same job"
                ) from None
        time.sleep(min(_POLL_S, wait_s))
    if "failed" in said:
        raise ChartmillError(f"the first host could not plan ({said['failed']}); its log says why")
    return _from_json(said, load_plan(store, version, run_id))


def _to_json(work: Work) -> dict[str, Any]:
    """Each file is told once: 400,000 segments may be cut from one."""
    segments = (*work.run_plan.to_do, *work.apart)
    files = {file.number: file for segment in segments for file in segment.files}
    locations = {number: place for segment in segments for number, place in segment.locations.items()}
    return {
        "to_do": [_segment_to_json(segment) for segment in work.run_plan.to_do],
        "apart": [_segment_to_json(segment) for segment in work.apart],
        "files": [without_defaults(file) | {"layout": without_defaults(file.layout)} for file in files.values()],
        "locations": [[number, place] for number, place in locations.items()],
        "duplicates": work.run_plan.duplicates,
    }


def _segment_to_json(segment: Segment) -> dict[str, Any]:
    shards = [[shard.id, shard.cut, [without_defaults(piece) for piece in shard.pieces], _rows(shard)] for shard in segment.shards]
    return {"index": segment.index, "files": [file.number for file in segment.files], "shards": shards}


def _rows(shard: Shard) -> list[list[Any]]:
    return [[file, [int(row) for row in rows]] for file, rows in shard.duplicates.items()]


def _from_json(said: dict[str, Any], plan: Plan) -> Work:
    files = {raw["number"]: InputFile.from_json(raw) for raw in said["files"]}
    locations = dict(said["locations"])
    to_do, apart = (tuple(_segment_from_json(raw, files, locations) for raw in said[kind]) for kind in ("to_do", "apart"))
    return Work(RunPlan(plan, to_do, (), said["duplicates"]), apart)


def _segment_from_json(raw: dict[str, Any], files: dict[int, InputFile], locations: dict[int, str]) -> Segment:
    shards = tuple(
        Shard.from_json({"id": shard_id, "cut": cut, "pieces": pieces, "duplicates": dict(duplicates)})
        for shard_id, cut, pieces, duplicates in raw["shards"]
    )
    mine = {number: locations[number] for number in raw["files"] if number in locations}
    return Segment(raw["index"], shards, tuple(files[number] for number in raw["files"]), mine)


def shards_left(store: Store, version: str, plan: Plan) -> int:
    """How many shards of the run nobody has committed yet. Only the listing is read."""
    done = committed_shards(store, version)
    return sum(1 for shard in plan.scope if shard.id not in done)


def shards_of(segments: Sequence[Segment]) -> set[str]:
    return {shard.id for segment in segments for shard in segment.shards}


def why_failed(error: BaseException) -> str:
    """The kind of an exception; of one that is not ours also the place, since nobody wrote a message for it."""
    return type(error).__name__ if isinstance(error, ChartmillError) else describe_error(error)
