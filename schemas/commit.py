"""What a run knows about itself: files, shards, plans, commit records and stats. Small, mergeable, JSON, and free of patient text.

File names may hold patient names, so plans (which must name files) are treated as data; commit records and stats name files by number only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

from schemas.rejection import Reason


def digest(*parts: object, length: int = 16) -> str:
    """First `length` hex digits of the sha256 of the parts' canonical JSON."""
    payload = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(payload.encode()).hexdigest()[:length]


def without_defaults(row: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults, not copied: there may be 400,000 rows."""
    values = ((f.name, getattr(row, f.name), f.default) for f in fields(row))
    return {name: value for name, value, default in values if value != default}


@dataclass(frozen=True, slots=True)
class Layout:
    """How a file is to be read, decided once when it is planned, so that every later run reads it the same way.

    `format`: a name of transforms.formats.FORMATS. `compression`: gzip, zstd, bz2 or None. `encoding`: utf-8, utf-16, utf-16-le,
    utf-16-be, cp1252 or latin-1, None where it is decided per note or does not apply. `delimiter`, `quote`: delimited text only. `columns`:
    the header, or the keys of the objects. `whole`: the file can only be read from its beginning, as one document or one list of rows.
    """

    format: str = "parquet"
    compression: str | None = None
    encoding: str | None = None
    delimiter: str | None = None
    quote: str | None = None
    columns: tuple[str, ...] = field(default=(), repr=False)
    whole: bool = False

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(**{**data, "columns": tuple(data.get("columns", ()))})


@dataclass(frozen=True, slots=True)
class InputFile:
    """One planned input. `path` is relative to `root`; `identity` changes whenever the content does; `problem` says why
    it cannot be read.
    """

    number: int
    path: str = field(repr=False)
    identity: str
    rows: int
    size: int
    problem: Reason | None = None
    layout: Layout = Layout()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        problem = Reason(data["problem"]) if data.get("problem") else None
        layout = data.get("layout", {})
        return cls(**{**data, "problem": problem, "layout": layout if isinstance(layout, Layout) else Layout.from_json(layout)})


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows [start, stop) of one file.

    `row_groups` are the Parquet row groups that hold them. Of other formats `offset` is the byte at which row `start` begins in the file's
    decompressed bytes, and `line` the one-based line it stands on, None where the format has no lines.
    """

    file: int
    start: int
    stop: int
    row_groups: tuple[int, ...] = ()
    offset: int = 0
    line: int | None = None

    @property
    def rows(self) -> int:
        return self.stop - self.start

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        return cls(**{**data, "row_groups": tuple(data.get("row_groups", ()))})


@dataclass(frozen=True, slots=True)
class Shard:
    """The unit of work and of commit: some rows of one or several files, less the rows that the plan excludes.

    `cut` names the rows as they were cut when first planned. Later a file may be superseded (its piece is dropped) or a note amended (its
    older row joins `duplicates`: file number -> sorted rows to reject as DUPLICATE_ID). Then `id` changes and `cut` stays.
    """

    id: str
    cut: str
    pieces: tuple[Piece, ...]
    duplicates: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return sum(piece.rows for piece in self.pieces)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        duplicates = {int(file): tuple(rows) for file, rows in data["duplicates"].items()}
        # One string where the shard is its cut, as nearly all are.
        cut = data["id"] if data["cut"] == data["id"] else data["cut"]
        return cls(data["id"], cut, tuple(Piece.from_json(p) for p in data["pieces"]), duplicates)


@dataclass(frozen=True, slots=True)
class Segment:
    """What one worker streams once: shards in row order over the same stretch of input.

    `locations`: where each of its files lies now, by number; a file that is not there now has none.
    """

    index: int
    shards: tuple[Shard, ...]
    files: tuple[InputFile, ...]
    locations: Mapping[int, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class DataFile:
    """One committed Parquet object: `path` is relative to the output root."""

    path: str
    rows: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class PlannedShard:
    """A shard as the plan of a run lists it; `in_scope` is false for what `--limit` leaves for later."""

    id: str
    rows: int
    in_scope: bool = True


@dataclass(frozen=True, slots=True)
class PlanHeader:
    """A plan as it is saved: all but its shards.

    `pages`: names of the lists that hold the shards, in order; a list that has not changed is shared with earlier plans. `in_scope`: how
    many of the first shards are.
    """

    run_id: str
    version: str
    created_at: str
    ledger: int
    duplicates: str
    files: Mapping[str, int]
    settings: Mapping[str, Any] = field(repr=False)
    in_scope: int
    pages: tuple[str, ...] = field(repr=False)

    def to_bytes(self) -> bytes:
        return json.dumps({f.name: getattr(self, f.name) for f in fields(self)}, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        raw = json.loads(data)
        return cls(**{**raw, "pages": tuple(raw["pages"])})

    def with_shards(self, shards: Iterable[tuple[str, int]]) -> Plan:
        """The whole plan; `shards`: id and rows of all that the pages hold, in order."""
        current = tuple(PlannedShard(shard, rows, place < self.in_scope) for place, (shard, rows) in enumerate(shards))
        return Plan(self.run_id, self.version, self.created_at, self.ledger, self.duplicates, current, self.files, self.settings)


@dataclass(frozen=True, slots=True)
class Plan:
    """What one run set out to do: immutable, one per run.

    `ledger`: the last ledger entry it knew. `current`: every shard of the version as it stood then, in ledger order; those in scope come
    first. `files`: inputs by outcome ({listed, planned, unreadable, ignored}). `settings`: what the report needs to be made again without
    the job file (gate, suite, model, versions).
    """

    run_id: str
    version: str
    created_at: str
    ledger: int
    duplicates: str
    current: tuple[PlannedShard, ...] = field(repr=False)
    files: Mapping[str, int]
    settings: Mapping[str, Any] = field(repr=False)

    @property
    def scope(self) -> list[PlannedShard]:
        return [shard for shard in self.current if shard.in_scope]

    def header(self, pages: Iterable[str]) -> PlanHeader:
        said = (self.run_id, self.version, self.created_at, self.ledger, self.duplicates, self.files, self.settings)
        return PlanHeader(*said, len(self.scope), tuple(pages))


Counts = dict[str, int]


def _add_into(total: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add a nested mapping of numbers and equally long lists of numbers to another, in place; `more` stays as it is."""
    for key, value in more.items():
        if isinstance(value, Mapping):
            _add_into(total.setdefault(key, {}), value)
        elif isinstance(value, list):
            mine = total.get(key)
            total[key] = list(value) if mine is None else [a + b for a, b in zip(mine, value, strict=True)]
        else:
            total[key] = total.get(key, 0) + value


def _scaled(value: Any, factor: int) -> Any:
    if isinstance(value, Mapping):
        return {key: _scaled(inner, factor) for key, inner in value.items()}
    return [_scaled(inner, factor) for inner in value] if isinstance(value, list) else value * factor


@dataclass(frozen=True, slots=True)
class RunStats:
    """Additive figures of some shards. Every field is a number or a (nested) mapping of numbers, so that merging is adding.

    `expectations`: per key {evaluated, unexpected, crashed, missing}, in rows. `histograms`: per name, counts per bin
    of schemas.histogram.EDGES. `seconds`: wall-clock per stage. `tokens`: source, generated, padded, truncated.
    `retries`: requests to S3 that were sent again, by reason. `fields`: summarized notes whose record has that field.
    `sentences`: sentences of the summaries by the kind of their best evidence. `records`: of the notes that a model read for their records:
    notes, windows, source_tokens, generated_tokens, and how many notes have a record that is dead (nothing written) or else cut (by a
    limit).
    """

    shards: int = 0
    notes_in: int = 0
    notes_summarized: int = 0
    notes_quarantined: int = 0
    files_quarantined: int = 0
    notes_flagged: int = 0
    notes_warned: int = 0
    reasons: Counts = field(default_factory=dict)
    flags: Counts = field(default_factory=dict)
    fields: Counts = field(default_factory=dict)
    sentences: Counts = field(default_factory=dict)
    records: Counts = field(default_factory=dict)
    tokens: Counts = field(default_factory=dict)
    retries: Counts = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    expectations: dict[str, Counts] = field(default_factory=dict)
    histograms: dict[str, list[int]] = field(default_factory=dict)

    def plus(self, other: RunStats) -> RunStats:
        return RunStats.sum((self, other))

    @staticmethod
    def sum(parts: Iterable[RunStats]) -> RunStats:
        """All parts together; RunStats() for none. Each is looked at once and may be forgotten then."""
        total: dict[str, Any] = {}
        for part in parts:
            _add_into(total, part.figures())
        return RunStats(**total)

    def times(self, factor: int) -> RunStats:
        return RunStats(**_scaled(self.figures(), factor))

    def figures(self) -> dict[str, Any]:
        """By name; what is nested is shared, not copied."""
        # Not asdict: it copies deeply, which is most of the time that merging 100,000 records takes.
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        known = {f.name for f in fields(cls)}
        return cls(**{key: value for key, value in data.items() if key in known})


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """Proof that a shard is done: put once, then never changed. Readers follow these, never listings."""

    shard: Shard
    version: str
    run_id: str
    files: Mapping[str, DataFile]
    stats: RunStats
    code_version: str
    committed_at: str
    # Made from an earlier commit of the same cut, without generating anything.
    revised: bool = False

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        raw = json.loads(data)
        raw["shard"] = Shard.from_json(raw["shard"])
        raw["files"] = {kind: DataFile(**file) for kind, file in raw["files"].items()}
        raw["stats"] = RunStats.from_json(raw["stats"])
        return cls(**raw)
