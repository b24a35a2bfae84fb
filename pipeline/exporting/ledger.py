"""The ledger of an export: one record per shard, put once behind its files, as in a run; then a manifest, and only then the sweep.

Everything lives in the destination: `<target>/version=<v>/<table>/<shard>-<sha12>.<suffix>`, `<target>/manifest.json` and
`_exports/<v>/<settings>/<shard>.json`. Records and manifest hold counts, hashes and names of ours; the files hold patient text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Self

from pipeline.exporting.release import Release
from schemas.commit import DataFile
from transforms.exports.shard import Exported, ExportSettings, Maker, Part
from transforms.ledger import read_many
from transforms.store import LocalStore, Store

EXPORTS = "_exports"


@dataclass(frozen=True, slots=True)
class ExportRecord:
    """Proof that a shard is exported. `tables`: the table of each file, in their order."""

    shard: str
    notes: int
    tables: tuple[str, ...]
    files: tuple[DataFile, ...]
    makers: tuple[Maker, ...]
    left_out: Mapping[str, int] = field(default_factory=dict)
    altered: Mapping[str, int] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self), sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        raw = json.loads(data)
        files = tuple(DataFile(**file) for file in raw.pop("files"))
        makers = tuple(Maker(**maker) for maker in raw.pop("makers"))
        return cls(**{**raw, "tables": tuple(raw["tables"]), "files": files, "makers": makers})


def data_folder(settings: ExportSettings) -> str:
    return f"{settings.target}/"


def records_folder(settings: ExportSettings, version: str) -> str:
    return f"{EXPORTS}/{version}/{settings.name}/"


def load_records(store: Store, settings: ExportSettings, release: Release) -> dict[str, ExportRecord]:
    """The records of released shards whose files are all there, by shard id."""
    keys = [entry.key for entry in store.list(records_folder(settings, release.version))]
    records = [ExportRecord.from_bytes(data) for data in read_many(store, keys)]
    stored = {entry.key for entry in store.list(data_folder(settings))}
    whole = (r for r in records if r.shard in release.shards and all(file.path in stored for file in r.files))
    return {record.shard: record for record in whole}


def put_shard(store: Store, settings: ExportSettings, release: Release, shard: str, notes: int, exported: Exported) -> ExportRecord:
    """Write a shard's files, then its record. Who else writes them writes the same: a shard and settings have only one form."""
    files = tuple(_put_part(store, settings, release.version, shard, part) for part in exported.parts)
    tables = tuple(part.name for part in exported.parts)
    record = ExportRecord(shard, notes, tables, files, exported.makers, dict(exported.left_out), dict(exported.altered))
    key, data = f"{records_folder(settings, release.version)}{shard}.json", record.to_bytes()
    if not store.put_once(key, data) and store.get(key) != data:
        # It named files that are gone, or the shard would not have been exported again.
        store.put(key, data)
    return record


def put_devices(store: Store, settings: ExportSettings, release: Release, records: Iterable[ExportRecord]) -> DataFile | None:
    """The one file of Devices, which the resources of all shards refer to; None where the target has none."""
    from transforms.exports.fhir import device, to_line

    makers = {maker.device_id: maker for record in records for maker in record.makers}
    if not makers:
        return None
    lines = [to_line(device(makers[key])) for key in sorted(makers)]
    return _put_part(store, settings, release.version, "all", Part("Device", "ndjson", len(lines), "".join(lines).encode()))


def _put_part(store: Store, settings: ExportSettings, version: str, shard: str, part: Part) -> DataFile:
    sha256 = hashlib.sha256(part.data).hexdigest()
    path = f"{data_folder(settings)}version={version}/{part.name}/{shard}-{sha256[:12]}.{part.suffix}"
    store.put(path, part.data)
    return DataFile(path, part.rows, len(part.data), sha256)


def put_manifest(
    store: Store, settings: ExportSettings, release: Release, files: Sequence[tuple[str, DataFile]], figures: Mapping[str, object]
) -> None:
    """What a loader reads: the files, in the form of FHIR Bulk Data's manifest, with paths relative to it.

    https://hl7.org/fhir/uv/bulkdata/export.html#response---complete-status
    """
    folder = data_folder(settings)
    output = [{"type": table, "url": file.path.removeprefix(folder), "count": file.rows} for table, file in files]
    manifest = {
        "transactionTime": release.released_at,
        "request": f"chartmill export --to {settings.target}",
        "requiresAccessToken": False,
        "output": output,
        "error": [],
        "extension": {"version": release.version, "settings": settings.name, **figures},
    }
    store.put(manifest_key(settings), json.dumps(manifest, indent=1).encode())


def manifest_key(settings: ExportSettings) -> str:
    return f"{data_folder(settings)}manifest.json"


def sweep(store: Store, settings: ExportSettings, release: Release, files: Iterable[DataFile], after_s: float) -> int:
    """Delete what the manifest does not name; returns how many files.

    Records of superseded shards, versions and settings go first, so that none ever stands without its files. A file without a record may be
    one that another export is about to name: it goes only when it is older than `after_s`, unless its shard is exported here.
    """
    live = {f"{records_folder(settings, release.version)}{shard}.json" for shard in release.shards}
    target = f"/{settings.target}-"
    dead = [entry.key for entry in store.list(f"{EXPORTS}/") if target in entry.key and entry.key not in live]
    retired = {file.path for data in read_many(store, dead) for file in ExportRecord.from_bytes(data).files}
    for key in dead:
        store.delete(key)
    keep = {manifest_key(settings), *(file.path for file in files)}
    doomed = [entry for entry in store.list(data_folder(settings)) if entry.key not in keep]
    decided = {*release.shards, "all"}
    # By the storage's own clock, which ours may be ahead of: the manifest has just been put.
    now = store.modified(manifest_key(settings))
    gone = [e for e in doomed if e.key in retired or _shard_of(e.key) in decided or now - e.modified >= after_s]
    for entry in gone:
        store.delete(entry.key)
    if isinstance(store, LocalStore):
        store.sweep_temporary(after_s)
    return len(gone)


def _shard_of(key: str) -> str:
    return key.rsplit("/", 1)[1].split("-", 1)[0]
