"""The ledger of a version: which files were planned, how they were cut, which ids they hold, and which shards are committed.

Everything lives under `_runs/<version>/`. Entries `plans/cuts-000001.json`, `plans/cuts-000002.json`, … are put once,
so that two runs that plan at the same moment agree on one order: the loser reads the winner's entry and plans what is
left. Nothing is ever changed, only added. What a run adds is as large as what is new to it: a plan shares the lists of shards that have
not changed with the plans before it, and commit records are rolled up into parts of which only the small ones are written again.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TypeVar

import numpy as np
import pyarrow as pa

from schemas.commit import CommitRecord, InputFile, Layout, Piece, Plan, PlanHeader, PlannedShard, Shard, without_defaults
from schemas.errors import ChartmillError
from transforms.parquet import from_parquet, to_parquet
from transforms.plan import Cut, NoteIds
from transforms.rolled import PART_RECORDS, SMALL_PART, Part, part_of, parts_of
from transforms.store import Entry, NotFound, Store

RUNS = "_runs"
_IO_THREADS = 16
# S3 tells modification times to the second.
_CLOCK_GRAIN_S = 2.0
# On average; a list that changes in one place is written again, the others are not.
_SHARDS_PER_PAGE = 256
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
    lanes = _in_lanes(store.get, keys)
    return [lanes[place % len(lanes)][place // len(lanes)] for place in range(len(keys))]


def delete_many(store: Store, keys: Sequence[str]) -> None:
    """Remove the objects, several at a time and in no order; no error where there is none."""
    _in_lanes(store.delete, keys)


def _in_lanes(step: Callable[[str], T], keys: Sequence[str]) -> list[list[T]]:
    """What `step` gives for the keys, dealt out to several threads like cards: a future for each would cost more than reading it."""
    hands = [keys[start::_IO_THREADS] for start in range(min(_IO_THREADS, len(keys)))]
    if not hands:
        return []
    with ThreadPoolExecutor(len(hands)) as pool:
        return list(pool.map(lambda hand: [step(key) for key in hand], hands))


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
        key = f"{runs_folder(version)}/ids/{hashlib.sha256(data).hexdigest()[:16]}.parquet"
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
    hashes = table.column("hash").combine_chunks()
    return NoteIds(
        np.frombuffer(hashes.buffers()[1], np.uint64, 2 * len(hashes), 16 * hashes.offset).reshape(-1, 2),
        table.column("written_at").to_numpy(),
        table.column("file").to_numpy(),
        table.column("row").to_numpy(),
    )


def plan_key(version: str, run_id: str) -> str:
    return f"{runs_folder(version)}/plans/{run_id}.json"


def _pages_folder(version: str) -> str:
    return f"{runs_folder(version)}/plans/shards/"


def put_plan(store: Store, plan: Plan) -> bool:
    """Save the run's plan; False when another plan of that run id exists. Of its shards only the lists that are not there yet are put."""
    pages = {_page_name(data): data for data in map(_page, _paged(plan.current))}
    standing = {entry.key for entry in store.list(_pages_folder(plan.version))}
    for name, page in pages.items():
        if (key := _page_key(plan.version, name)) not in standing:
            store.put(key, page)
    key, data = plan_key(plan.version, plan.run_id), plan.header(pages).to_bytes()
    # What stands may be our own: a PUT whose answer was lost is sent again.
    return store.put_once(key, data) or store.get(key) == data


def _paged(shards: Sequence[PlannedShard]) -> Iterator[list[PlannedShard]]:
    """Cut where a shard's id says so, so that shards which come or go move no other list's ends."""
    page: list[PlannedShard] = []
    for shard in shards:
        page.append(shard)
        if zlib.crc32(shard.id.encode()) % _SHARDS_PER_PAGE == 0:
            yield page
            page = []
    if page:
        yield page


def _page(shards: Sequence[PlannedShard]) -> bytes:
    return to_parquet(pa.table({"shard": [shard.id for shard in shards], "rows": pa.array([shard.rows for shard in shards], pa.int64())}))


def _page_name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _page_key(version: str, name: str) -> str:
    return f"{_pages_folder(version)}{name}.parquet"


def load_plan(store: Store, version: str, run_id: str) -> Plan:
    """Raises NotFound when there is none of that run."""
    return _whole(store, PlanHeader.from_bytes(store.get(plan_key(version, run_id))))


def _whole(store: Store, header: PlanHeader) -> Plan:
    tables = map(from_parquet, read_many(store, [_page_key(header.version, name) for name in header.pages]))
    return header.with_shards(
        pair for table in tables for pair in zip(table.column("shard").to_pylist(), table.column("rows").to_pylist(), strict=True)
    )


def plan_entries(store: Store, version: str | None = None) -> list[Entry]:
    """The saved plans of a version, or of the whole output folder."""
    versions = [version] if version else store.folders(f"{RUNS}/")
    entries = [entry for name in versions for entry in store.list(f"{runs_folder(name)}/plans/")]
    return [e for e in entries if e.key.endswith(".json") and not _CUTS.search(e.key)]


def newest_header(store: Store, version: str | None = None) -> PlanHeader | None:
    """Of the plan saved last; None when there is none. Only those that may be the newest are read: there is one for every run ever."""
    entries = plan_entries(store, version)
    newest = max((e.modified for e in entries), default=0.0)
    keys = [e.key for e in entries if e.modified >= newest - _CLOCK_GRAIN_S]
    headers = map(PlanHeader.from_bytes, read_many(store, keys))
    return max(headers, key=lambda plan: (plan.created_at, plan.ledger, plan.run_id), default=None)


def newest_plan(store: Store, version: str | None = None) -> Plan | None:
    """The plan saved last; None when there is none."""
    header = newest_header(store, version)
    return _whole(store, header) if header else None


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
            return next(Part(entry.key, store.get(entry.key)).records(version, [shard]))
    return None


def _rolled_folder(version: str) -> str:
    return f"{runs_folder(version)}/commits/rolled/"


# A rolled-up object is named by the hash of its content, so what was read once stays true; asked for once per commit.
@lru_cache(maxsize=4096)
def _rolled_ids(store: Store, key: str) -> frozenset[str]:
    return frozenset(Part(key, store.get(key)).ids)


def load_parts(store: Store, version: str) -> list[Part]:
    """All commit records: first those that are rolled up, then the others, in parts as they would be rolled up.

    A shard may be in two rolled-up parts, where a run was stopped while it rolled up. Both then hold the same record. Raises what the
    store raises.
    """
    return _retrying(lambda: _load_parts(store, version))


def _load_parts(store: Store, version: str) -> list[Part]:
    single, rolled = list_commits(store, version)
    parts = [Part(key, data) for key, data in zip(rolled, read_many(store, rolled), strict=True)]
    known = {shard for part in parts for shard in part.ids}
    # Where a shard has both, the rolled-up record is the truth.
    left = sorted(key for key in single if _shard_in(key) not in known)
    pages = (left[start : start + PART_RECORDS] for start in range(0, len(left), PART_RECORDS))
    return parts + [part_of(map(CommitRecord.from_bytes, read_many(store, page))) for page in pages]


def _shard_in(key: str) -> str:
    return key.rsplit("/", 1)[1].removesuffix(".json")


def load_commits(store: Store, version: str, wanted: Collection[str] | None = None) -> dict[str, CommitRecord]:
    """Every commit record by shard id, or those of the wanted shards. A record takes some 10 kB."""
    records = (record for part in load_parts(store, version) for record in part.records(version, wanted))
    return {record.shard.id: record for record in records}


def load_shards(store: Store, version: str) -> dict[str, Shard]:
    """What is committed, by shard id."""
    return {shard.id: shard for part in load_parts(store, version) for shard in part.shards()}


def committed_shards(store: Store, version: str) -> set[str]:
    """Ids of the committed shards; reads only the rolled-up files, not the single records."""
    return _retrying(lambda: _committed_shards(store, version))


def _committed_shards(store: Store, version: str) -> set[str]:
    single, rolled = list_commits(store, version)
    return set(map(_shard_in, single)).union(*(_rolled_ids(store, key) for key in rolled))


def _retrying(load: Callable[[], T], attempts: int = 5) -> T:
    # Between listing and reading, a finishing run may roll the records up and delete the single ones: list again.
    for attempt in range(attempts):
        try:
            return load()
        except NotFound:
            if attempt == attempts - 1:
                raise
    raise AssertionError("unreachable")


def roll_commits(store: Store, version: str, parts: Sequence[Part], live: Set[str]) -> None:
    """Have the records of the live shards rolled up, and no others: 100,000 small reads are not seconds.

    `parts`: as `load_parts` gave them. Parts that are large and live as a whole are left as they are. New parts are put before old
    ones and single records are deleted.
    """
    keys = {part.key or f"{_rolled_folder(version)}{part.name}.parquet": part for part in _rolled_anew(parts, live)}
    for key, part in keys.items():
        if not part.key:
            store.put(key, part.data)
    single, _ = list_commits(store, version)
    old = [part.key for part in parts if part.key and part.key not in keys]
    delete_many(store, [key for key in single if _shard_in(key) in live] + old)


def _rolled_anew(parts: Sequence[Part], live: Set[str]) -> list[Part]:
    """The same records, each once, less those that are not live, in as few parts as is worth the writing."""
    kept: list[Part] = []
    gathered: list[tuple[Part, Set[str]]] = []
    seen: set[str] = set()
    for part in parts:
        mine = {shard for shard in part.ids if shard in live and shard not in seen}
        seen |= mine
        if len(mine) == len(part.ids) >= SMALL_PART:
            kept.append(part)
        elif mine:
            gathered.append((part, mine))
    # One that has nothing to be put together with stays, too.
    if all(len(mine) == len(part.ids) for part, mine in gathered) and len(gathered) < 2:
        return kept + [part for part, _ in gathered]
    return kept + list(parts_of([part.table(mine) for part, mine in gathered]))
