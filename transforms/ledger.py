"""The ledger of a version: which files were planned, how they were cut, which ids they hold, and which shards are committed.

Everything lives under `_runs/<version>/`. Entries `plans/cuts-000001.json`, `plans/cuts-000002.json`, … are put once,
so that two runs that plan at the same moment agree on one order: the loser reads the winner's entry and plans what is
left. Nothing is ever changed, only added.
"""

from __future__ import annotations

import json
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

import numpy as np
import pyarrow as pa

from schemas.commit import CommitRecord, InputFile, Layout, Piece, Plan, digest, without_defaults
from schemas.errors import ChartmillError
from transforms.parquet import from_parquet, to_parquet
from transforms.plan import Cut, NoteIds
from transforms.store import Entry, NotFound, Store

RUNS = "_runs"
_IO_THREADS = 16
# S3 tells modification times to the second.
_CLOCK_GRAIN_S = 2.0
T = TypeVar("T")
_CUTS = re.compile(r"/cuts-(\d{6,})\.json$")

_IDS_SCHEMA = pa.schema(
    [
        pa.field("hash", pa.binary(16)),
        pa.field("written_at", pa.int64()),
        pa.field("file", pa.int32()),
        pa.field("row", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Ledger:
    """Everything planned so far. `entry` is the number of the last entry, 0 for none."""

    entry: int = 0
    files: tuple[InputFile, ...] = field(default=(), repr=False)
    cuts: tuple[Cut, ...] = field(default=(), repr=False)
    ids: tuple[str, ...] = field(default=(), repr=False)


def runs_folder(version: str) -> str:
    return f"{RUNS}/{version}"


def read_many(store: Store, keys: Sequence[str]) -> list[bytes]:
    """The objects' bytes in order, fetched by several threads. Raises NotFound when one is missing."""
    with ThreadPoolExecutor(_IO_THREADS) as pool:
        return list(pool.map(store.get, keys))


def load_ledger(store: Store, version: str) -> Ledger:
    """Read all entries. Raises ChartmillError when one is missing in the middle."""
    keys = sorted(e.key for e in store.list(f"{runs_folder(version)}/plans/") if _CUTS.search(e.key))
    files: list[InputFile] = []
    cuts: list[Cut] = []
    ids: list[str] = []
    for number, (key, data) in enumerate(zip(keys, read_many(store, keys), strict=True), start=1):
        entry = json.loads(data)
        if key != _entry_key(version, number):
            raise ChartmillError(f"the ledger of {version} lacks entry {number}: {RUNS}/ has been tampered with")
        layouts = [Layout.from_json(layout) for layout in entry["layouts"]]
        files += [InputFile.from_json({**f, "layout": layouts[f["layout"]]}) for f in entry["files"]]
        cuts += [Cut(c["id"], tuple(Piece.from_json(p) for p in c["pieces"])) for c in entry["cuts"]]
        ids += [entry["ids"]] if entry["ids"] else []
    return Ledger(len(keys), tuple(files), tuple(cuts), tuple(ids))


def append_entry(store: Store, version: str, ledger: Ledger, files: Sequence[InputFile], cuts: Sequence[Cut], ids: NoteIds) -> bool:
    """Add the next entry; False when another run was quicker, in which case the caller loads the ledger and plans again."""
    key = None
    if len(ids):
        data = _ids_parquet(ids)
        key = f"{runs_folder(version)}/ids/{digest(data.hex())}.parquet"
        store.put(key, data)
    # Each layout is told once: 400,000 files of text share one.
    layouts = {layout: place for place, layout in enumerate(dict.fromkeys(f.layout for f in files))}
    entry = {
        "files": [without_defaults(f) | {"layout": layouts[f.layout]} for f in files],
        "cuts": [{"id": cut.id, "pieces": [without_defaults(p) for p in cut.pieces]} for cut in cuts],
        "layouts": [without_defaults(layout) for layout in layouts],
        "ids": key,
    }
    return store.put_once(_entry_key(version, ledger.entry + 1), json.dumps(entry).encode())


def _entry_key(version: str, number: int) -> str:
    return f"{runs_folder(version)}/plans/cuts-{number:06d}.json"


def _ids_parquet(ids: NoteIds) -> bytes:
    hashes = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(ids), [None, pa.py_buffer(np.ascontiguousarray(ids.hashes))])
    table = pa.table([hashes, ids.written_at, ids.files, ids.rows], schema=_IDS_SCHEMA)
    return to_parquet(table)


def load_ids(store: Store, ledger: Ledger) -> NoteIds:
    """Every planned id, in ledger order."""
    return NoteIds.concatenate([_parse_ids(data) for data in read_many(store, ledger.ids)])


def _parse_ids(data: bytes) -> NoteIds:
    table = from_parquet(data)
    raw = b"".join(table.column("hash").to_pylist())
    return NoteIds(
        np.frombuffer(raw, dtype=np.uint64).reshape(-1, 2),
        table.column("written_at").to_numpy(),
        table.column("file").to_numpy(),
        table.column("row").to_numpy(),
    )


def plan_key(version: str, run_id: str) -> str:
    return f"{runs_folder(version)}/plans/{run_id}.json"


def put_plan(store: Store, plan: Plan) -> bool:
    """Save the run's plan; False when another plan of that run id exists."""
    key, data = plan_key(plan.version, plan.run_id), plan.to_bytes()
    # What stands may be our own: a PUT whose answer was lost is sent again.
    return store.put_once(key, data) or store.get(key) == data


def plan_entries(store: Store, version: str | None = None) -> list[Entry]:
    """The saved plans of a version, or of the whole output folder."""
    folder = f"{runs_folder(version)}/plans/" if version else f"{RUNS}/"
    return [e for e in store.list(folder) if "/plans/" in e.key and e.key.endswith(".json") and not _CUTS.search(e.key)]


def newest_plan(store: Store, version: str | None = None) -> Plan | None:
    """The plan saved last; None when there is none. Only plans that may be the newest are read: there is one for every run ever."""
    entries = plan_entries(store, version)
    newest = max((e.modified for e in entries), default=0.0)
    keys = [e.key for e in entries if e.modified >= newest - _CLOCK_GRAIN_S]
    plans = [Plan.from_bytes(data) for data in read_many(store, keys)]
    return max(plans, key=lambda plan: (plan.created_at, plan.ledger, plan.run_id), default=None)


def commit_key(version: str, shard: str) -> str:
    return f"{runs_folder(version)}/commits/{shard}.json"


def list_commits(store: Store, version: str) -> tuple[list[str], list[str]]:
    """Keys of the single commit records, and of the rolled-up ones."""
    keys = [e.key for e in store.list(f"{runs_folder(version)}/commits/")]
    return [k for k in keys if k.endswith(".json")], sorted(k for k in keys if k.endswith(".parquet"))


def attempt_folder(version: str) -> str:
    return f"{runs_folder(version)}/attempts/"


def mark_attempt(store: Store, version: str, shard: str) -> None:
    """Say that work on a shard begins; without a commit, the mark stays."""
    store.put(f"{attempt_folder(version)}{shard}-{secrets.token_hex(6)}", b"")


def attempts(store: Store, version: str) -> Counter[str]:
    """How often work on each shard has begun without a commit since."""
    return Counter(_marked(entry) for entry in store.list(attempt_folder(version)))


def _marked(entry: Entry) -> str:
    return entry.key.rsplit("/", 1)[1].split("-")[0]


def forget_attempts(store: Store, version: str, shard: str) -> None:
    for entry in list(store.list(attempt_folder(version))):
        if _marked(entry) == shard:
            store.delete(entry.key)


def forget_attempts_since(store: Store, version: str, shards: Set[str], since: float) -> None:
    """Forget the attempts at these shards that began at `since` (seconds since the epoch) or later."""
    for entry in list(store.list(attempt_folder(version))):
        if _marked(entry) in shards and entry.modified >= since - _CLOCK_GRAIN_S:
            store.delete(entry.key)


def rolled_record(store: Store, version: str, shard: str) -> CommitRecord | None:
    """The shard's record, if a finished run has rolled it up already."""
    return _retrying(lambda: _rolled_record(store, version, shard))


def _rolled_record(store: Store, version: str, shard: str) -> CommitRecord | None:
    for entry in store.list(_rolled_folder(version)):
        if shard in _rolled_ids(store, entry.key):
            return next(r for r in load_rolled(store, [entry.key]) if r.shard.id == shard)
    return None


def _rolled_folder(version: str) -> str:
    return f"{runs_folder(version)}/commits/rolled/"


# A rolled-up object is named by the hash of its content, so what was read once stays true; asked for once per commit.
@lru_cache(maxsize=4)
def _rolled_ids(store: Store, key: str) -> frozenset[str]:
    return frozenset(from_parquet(store.get(key), columns=["shard"]).column("shard").to_pylist())


def load_commits(store: Store, version: str) -> dict[str, CommitRecord]:
    """Every commit record by shard id; where a shard has several, the rolled-up one is the truth."""
    return _retrying(lambda: _load_commits(store, version))


def _load_commits(store: Store, version: str) -> dict[str, CommitRecord]:
    single, rolled = list_commits(store, version)
    records = [CommitRecord.from_bytes(data) for data in read_many(store, single)]
    records += load_rolled(store, rolled)
    return {record.shard.id: record for record in records}


def load_rolled(store: Store, keys: Sequence[str]) -> list[CommitRecord]:
    tables = [from_parquet(data) for data in read_many(store, keys)]
    return [CommitRecord.from_bytes(raw) for table in tables for raw in table.column("record").to_pylist()]


def committed_shards(store: Store, version: str) -> set[str]:
    """Ids of the committed shards; reads only the rolled-up files, not the single records."""
    return _retrying(lambda: _committed_shards(store, version))


def _committed_shards(store: Store, version: str) -> set[str]:
    single, rolled = list_commits(store, version)
    ids = {key.rsplit("/", 1)[1].removesuffix(".json") for key in single}
    return ids.union(*(_rolled_ids(store, key) for key in rolled))


def _retrying(load: Callable[[], T], attempts: int = 5) -> T:
    # Between listing and reading, a finishing run may roll the records up and delete the single ones: list again.
    for attempt in range(attempts):
        try:
            return load()
        except NotFound:
            if attempt == attempts - 1:
                raise
    raise AssertionError("unreachable")


def roll_commits(store: Store, version: str, records: Iterable[CommitRecord], rolled: Sequence[str]) -> None:
    """Put all live records into one Parquet object and delete the single ones: 100,000 small reads are not seconds."""
    single, _ = list_commits(store, version)
    ordered = sorted(records, key=lambda record: record.shard.id)
    table = pa.table({"shard": [r.shard.id for r in ordered], "record": pa.array([r.to_bytes() for r in ordered], pa.binary())})
    data = to_parquet(table)
    key = f"{_rolled_folder(version)}{digest(data.hex(), length=12)}.parquet"
    store.put(key, data)
    live = {commit_key(version, r.shard.id) for r in ordered}
    for old in [k for k in single if k in live] + [k for k in rolled if k != key]:
        store.delete(old)
