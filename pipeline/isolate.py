"""A shard that has killed its process before is done note by note in a child process; only the culprit is lost.

Whoever starts a shard leaves a mark, and takes it away at the commit. Marks of two attempts mean that something in that
shard takes the process with it (a crash in native code, memory). It is then kept away from the graph and its neighbours.
"""

from __future__ import annotations

import logging
import multiprocessing as mp
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any

import pyarrow as pa

from pipeline.direct import job_steps
from pipeline.planning import RunPlan
from pipeline.prepare import PreparedJob
from pipeline.restart import deaths
from schemas.commit import RunStats, Segment, Shard
from schemas.errors import ChartmillError
from schemas.note import BATCH_SCHEMA
from schemas.rejection import Reason, Rejection, Stage
from schemas.summary import GENERATE_FIELDS, SEGMENT_FIELDS, VALIDATE_FIELDS, VERIFY_FIELDS
from transforms.batch import NoteBatch, describe_error
from transforms.commit import commit_batch
from transforms.ledger import attempts
from transforms.read import read_segment
from transforms.record import RECORD_COLUMN

# Attempts that ended without a commit, after which a shard is not trusted any more. One can be a power cut.
MOST_ATTEMPTS = 2
# What a note may take beyond what the engine may take for its text; a child that says nothing for longer hangs. Starting up (imports,
# reading, the model) may take longer.
_BEYOND_ENGINE_S = 10.0
_START_S = 900.0
# What every child needs; none of it starts a thread.
_IMPORTS = ["pipeline.direct", "pipeline.isolate", "schemas.custom_expectations", "great_expectations.execution_engine"]

# What a finished batch without notes looks like.
_NO_NOTES = pa.schema([*BATCH_SCHEMA, *VALIDATE_FIELDS, *SEGMENT_FIELDS, *GENERATE_FIELDS, RECORD_COLUMN, *VERIFY_FIELDS])


def set_apart(prepared: PreparedJob, run_plan: RunPlan) -> tuple[RunPlan, list[Segment]]:
    """The plan without the shards that have failed too often, and those shards, a segment each.

    Once is too often where this process goes on with a run that died: it was no power cut.
    """
    most = 1 if deaths() else MOST_ATTEMPTS
    counts = attempts(prepared.store, prepared.version)
    suspect = {shard for shard, count in counts.items() if count >= most}
    kept, apart = [], []
    for segment in run_plan.to_do:
        apart += [replace(segment, shards=(shard,)) for shard in segment.shards if shard.id in suspect]
        shards = tuple(shard for shard in segment.shards if shard.id not in suspect)
        kept += [replace(segment, shards=shards)] if shards else []
    return replace(run_plan, to_do=tuple(kept)), apart


def run_isolated(prepared: PreparedJob, segment: Segment, run_id: str, silence_s: float | None = None) -> None:
    """Do and commit the one shard of the segment. A note during which the child dies or falls silent is rejected.

    Its reason is CRASHED or DEADLINE. `silence_s`: what the child may take for a note; by default 10 more than the engine.
    Raises ChartmillError when the child cannot work for a reason that is not a note's.
    """
    [shard] = segment.shards
    state = _State(shard)
    # A model that reads records may take as long once more.
    generations = 1 if prepared.record.task is None else 2
    silence_s = silence_s or generations * prepared.job.engine.note_seconds + _BEYOND_ENGINE_S
    while not state.finished:
        _run_child(prepared, segment, state, silence_s)
    if state.rows is not None:
        commit_batch(state.whole(), prepared.store, prepared.commit_settings(run_id))


@dataclass(slots=True)
class _State:
    """What is known of a shard while child after child works on it. `rows`: notes that could be read, None until a child has said so."""

    shard: Shard
    rows: int | None = None
    next_note: int = 0
    in_flight: tuple[int, int, str | None] | None = field(default=None, repr=False)
    deaths_before_reading: int = 0
    parts: list[NoteBatch] = field(default_factory=list, repr=False)
    finished: bool = False

    def reject_in_flight(self, reason: Reason) -> None:
        """Called when a child is gone: its note is the culprit; without one, reading itself was."""
        if self.in_flight is not None:
            file, row, note_id = self.in_flight
            self.parts.append(_rejected(self.shard, [Rejection(file, row, Stage.GENERATE, reason, note_id)]))
            self.next_note, self.in_flight = self.next_note + 1, None
            return
        self.deaths_before_reading += 1
        if self.deaths_before_reading >= MOST_ATTEMPTS and self.rows is not None:
            raise ChartmillError("a shard that was set apart cannot be done: its process dies before it begins a note")
        if self.deaths_before_reading >= MOST_ATTEMPTS:
            places = [(p.file, row) for p in self.shard.pieces for row in range(p.start, p.stop)]
            lost = [Rejection(file, row, Stage.READ, reason) for file, row in places]
            self.parts, self.rows, self.finished = [_rejected(self.shard, lost)], 0, True

    def whole(self) -> NoteBatch:
        """The parts as the one batch that an undisturbed run would have made."""
        tables = [part.notes for part in self.parts if part.notes.num_columns] or [_NO_NOTES.empty_table()]
        stats = RunStats(shards=1, notes_in=self.shard.rows)
        for part in self.parts:
            stats = stats.plus(replace(part.stats, shards=0, notes_in=0))
        rejections = tuple(r for part in self.parts for r in part.rejections)
        return NoteBatch(self.shard, pa.concat_tables(tables).combine_chunks(), rejections, stats)


def _rejected(shard: Shard, rejections: Sequence[Rejection]) -> NoteBatch:
    return NoteBatch(shard, pa.table({}), tuple(rejections))


def _run_child(prepared: PreparedJob, segment: Segment, state: _State, silence_s: float) -> None:
    # Forked, but not from this process: it would inherit locks and threads of torch, gRPC and Arrow. The server has only imported.
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTS)
    ours, theirs = context.Pipe()
    child = context.Process(target=_work, args=(prepared, segment, state.next_note, theirs), daemon=True)
    try:
        child.start()
    except OSError as error:
        why = error.strerror or "a TMPDIR of more than 70 characters is too long for its socket"
        raise ChartmillError(f"the process that does a shard note by note cannot be started: {why}") from None
    theirs.close()
    try:
        for message in _messages(ours, silence_s):
            _apply(message, state)
        if not state.finished:
            state.reject_in_flight(Reason.CRASHED)
    except TimeoutError:
        state.reject_in_flight(Reason.DEADLINE)
    finally:
        child.kill()
        child.join()
        ours.close()


def _messages(connection: Connection, silence_s: float) -> Iterator[Mapping[str, Any]]:
    """What the child says, until it is done or dead. Raises TimeoutError when it says nothing for too long."""
    patience = max(silence_s, _START_S)
    while True:
        if not connection.poll(patience):
            raise TimeoutError
        patience = silence_s
        try:
            yield connection.recv()
        except (EOFError, ConnectionResetError):
            return


def _apply(message: Mapping[str, Any], state: _State) -> None:
    match message["said"]:
        case "read":
            state.rows = message["rows"]
            if not state.parts:
                state.parts.append(message["batch"])
        case "start":
            state.in_flight = message["note"]
        case "note":
            state.parts.append(message["batch"])
            state.next_note, state.in_flight = state.next_note + 1, None
        case "done":
            state.finished = True
        case "failed":
            raise ChartmillError(f"a shard that was set apart cannot be done: {message['why']}")
        case "gone":
            state.rows, state.finished = None, True


def _work(prepared: PreparedJob, segment: Segment, skip: int, parent: Connection) -> None:
    """The child's life; nothing that goes wrong in it may reach stderr, where a message would quote the note."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    try:
        _tell(prepared, segment, skip, parent)
    except Exception as error:  # noqa: BLE001 - the edge of a process: kind and place go to the parent, the message nowhere
        parent.send({"said": "failed", "why": describe_error(error)})


def _tell(prepared: PreparedJob, segment: Segment, skip: int, parent: Connection) -> None:
    """One message when the shard is read, two for each note, one at the end."""
    batch = next(iter(read_segment(segment, prepared.plan_settings().columns)), None)
    if batch is None:
        parent.send({"said": "gone"})
        return
    rows = batch.notes.num_rows
    steps = job_steps(prepared)
    # The batch without notes gives the columns, the rejections of reading, and the stats to which the notes' are added.
    empty = steps(replace(batch, notes=batch.notes.slice(0, 0)))
    parent.send({"said": "read", "rows": rows, "batch": empty})
    places = batch.notes.select(["source_file", "source_row", "note_id"]).to_pylist()
    for i in range(skip, rows):
        parent.send({"said": "start", "note": tuple(places[i].values())})
        one = NoteBatch(batch.shard, batch.notes.take(pa.array([i])))
        parent.send({"said": "note", "batch": _done(steps, one)})
    parent.send({"said": "done"})


def _done(steps: Callable[[NoteBatch], NoteBatch], one: NoteBatch) -> NoteBatch:
    """One note through all stages; a stage that fails on it costs this note only."""
    try:
        return steps(one)
    except ChartmillError:
        [place] = one.notes.select(["source_file", "source_row", "note_id"]).to_pylist()
        return _rejected(one.shard, [Rejection(stage=Stage.GENERATE, reason=Reason.CRASHED, **place)])
