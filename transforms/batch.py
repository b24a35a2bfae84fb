"""NoteBatch: the one element that flows through the job.

Each stage maps a batch to a batch: it adds columns or moves rows to the rejections.
"""

from __future__ import annotations

import errno
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from schemas.commit import RunStats, Shard
from schemas.errors import ChartmillError
from schemas.rejection import Reason, Rejection, Stage
from transforms.pulse import watched
from transforms.store_failure import advice

_ROOT = Path(__file__).parent.parent
_PACKAGES = ("schemas", "transforms", "pipeline")
T = TypeVar("T")
_SILENT_S, _SILENT_S_PER_NOTE = 300.0, 1.0


@dataclass(frozen=True, slots=True)
class NoteBatch:
    """One shard under way.

    `notes`: one row per note still alive: BATCH_SCHEMA, pass-through columns under their prefix, and what each stage has added.
    `rejections`: rows already set aside. `stats`: what the stages have counted; row counts are filled in at commit.
    """

    shard: Shard
    notes: pa.Table = field(repr=False)
    rejections: tuple[Rejection, ...] = field(default=(), repr=False)
    stats: RunStats = field(default_factory=RunStats, repr=False)

    def __repr__(self) -> str:
        return f"NoteBatch(shard={self.shard.id}, notes={self.notes.num_rows}, rejections={len(self.rejections)})"

    def __reduce__(self) -> tuple[Any, ...]:
        """An Arrow stream: Beam pickles batches to learn their size, and Arrow's own pickling of nested columns takes ten times longer."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.notes.schema) as stream:
            stream.write_table(self.notes)
        return _unpickled, (self.shard, sink.getvalue(), self.rejections, self.stats)

    def column(self, name: str) -> list[Any]:
        return self.notes.column(name).to_pylist()

    def with_columns(self, fields: Sequence[pa.Field], columns: Mapping[str, Sequence[Any]]) -> NoteBatch:
        """Add one column per field, from Python values in row order."""
        notes = self.notes
        for added in fields:
            notes = notes.append_column(added, pa.array(columns[added.name], type=added.type))
        return replace(self, notes=notes)

    def reject(self, rejected: Mapping[int, Rejection]) -> NoteBatch:
        """Move the rows at these positions of `notes` to the rejections; the others keep their order."""
        if not rejected:
            return self
        keep = [i for i in range(self.notes.num_rows) if i not in rejected]
        # take, never slice: a slice pickles and pins its whole parent.
        return replace(
            self,
            notes=self.notes.take(pa.array(keep, type=pa.int64())),
            rejections=(*self.rejections, *(rejected[i] for i in sorted(rejected))),
        )

    def rejection(self, position: int, stage: Stage, reason: Reason) -> Rejection:
        """What `reject` takes for the row at this position of `notes`."""
        row = {name: self.notes.column(name)[position].as_py() for name in ("source_file", "source_row", "source_line", "note_id", "text")}
        return Rejection(stage=stage, reason=reason, **row)

    def each(self, rows: Iterable[Any], step: Callable[[Any], T], stage: Stage, reason: Reason) -> tuple[list[T], NoteBatch]:
        """`step` of the row of each note, and the batch of the notes that it did not fail on; the others become rejections."""
        done: list[T] = []
        rejected: dict[int, Rejection] = {}
        for position, row in enumerate(rows):
            try:
                done.append(step(row))
            except Exception:  # noqa: BLE001 - the per-note edge: a note must not take its shard down, nor its text get into a message
                rejected[position] = self.rejection(position, stage, reason)
        return done, self.reject(rejected)

    def counted(self, **figures: Any) -> NoteBatch:
        """Add to the stats."""
        return replace(self, stats=self.stats.plus(RunStats(**figures)))


def _unpickled(shard: Shard, notes: pa.Buffer, rejections: tuple[Rejection, ...], stats: RunStats) -> NoteBatch:
    return NoteBatch(shard, pa.ipc.open_stream(notes).read_all(), rejections, stats)


def timed(stage: str, step: Callable[[NoteBatch], NoteBatch], batch: NoteBatch) -> NoteBatch:
    """Run a stage on a batch and add its wall-clock seconds to the batch's stats. Raises StageError as `guarded` does.

    A stage that takes a hundred times longer than it should is given up for hanging (`pulse`); generation gives signs of life of its own.
    """
    started = time.perf_counter()
    with guarded(stage), watched(_SILENT_S + _SILENT_S_PER_NOTE * batch.notes.num_rows):
        done = step(batch)
    return done.counted(seconds={stage: time.perf_counter() - started})


@contextmanager
def guarded(stage: str) -> Iterator[None]:
    """The edge of a stage: what it did not expect becomes a StageError that names the place and the kind, never the message.

    Messages of other libraries quote cells, rows and lines, and runners log whatever a stage raises.
    """
    try:
        yield
    except ChartmillError:
        raise
    except Exception as error:  # noqa: BLE001 - the edge that keeps patient text out of tracebacks
        raise failure(stage, error) from None


class StageError(ChartmillError):
    """A stage met something that it was not written for. It has no context: that would be an error whose message quotes a note.

    `raise … from None` hides a context from tracebacks only; what pickles an exception whole (tblib, which Dask brings) takes it along.
    """

    @property
    def __context__(self) -> None:  # type: ignore[override]
        return None

    @__context__.setter
    def __context__(self, context: BaseException | None) -> None:
        """Runners and contextlib set it anew."""


class StorageFailure(StageError):
    """The storage failed, which is no note's fault. The message says what to do."""


def failure(what: str, error: BaseException) -> StageError:
    """The exception of ours that tells that `what` failed: a StorageFailure where it was the storage and its code is known."""
    told, todo = f"{what} failed: {describe_error(error)}", advice(error)
    return StorageFailure(f"{told}: {todo}") if todo else StageError(told)


def describe_error(error: BaseException) -> str:
    """The kind of an exception and the innermost line of ours that it came through, without its message.

    Where a storage failed, also the system's or the service's code for it: `PermissionError (EACCES)`, `ClientError (AccessDenied)`.
    """
    frames = traceback.extract_tb(error.__traceback__)
    shown = [(place, frame.lineno) for frame in frames if (place := _our_file(frame.filename))]
    place = f" at {shown[-1][0]}:{shown[-1][1]}" if shown else ""
    code = _code(error)
    return f"{type(error).__name__}{f' ({code})' if code else ''}{place}"


def _our_file(filename: str) -> str:
    """`transforms/batch.py` for a file of ours, else empty. By its root, since Beam has a package called transforms, too."""
    path = Path(filename)
    inside = path.relative_to(_ROOT) if path.is_relative_to(_ROOT) else path
    return inside.as_posix() if inside.parts and inside.parts[0] in _PACKAGES else ""


def _code(error: BaseException) -> str:
    if isinstance(error, OSError):
        return errno.errorcode.get(error.errno or 0, "")
    response = getattr(error, "response", None)  # botocore's ClientError
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    # Codes are single words; anything else could be a message.
    return code if isinstance(code, str) and code.isalnum() else ""


def compose(steps: Iterable[Callable[[NoteBatch], NoteBatch]]) -> Callable[[NoteBatch], NoteBatch]:
    """The steps one after the other as one function: what the Beam graph does, without Beam."""

    def composed(batch: NoteBatch) -> NoteBatch:
        for step in steps:
            batch = step(batch)
        return batch

    return composed
