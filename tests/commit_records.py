"""Commit records made up from numbers, for tests that need many and no run."""

from __future__ import annotations

from collections.abc import Iterable

from schemas.commit import CommitRecord, DataFile, Piece, RunStats, Shard, digest

VERSION = "v000000000000"


def shard_id(number: int) -> str:
    return digest("made up", number)


def made_up(number: int, notes: int = 10) -> CommitRecord:
    """A record that differs from every other number's; every fifth is of a revised shard, every third has rejections."""
    name = shard_id(number)
    piece = Piece(number % 7, number, number + notes, (number,))
    lost = {piece.file: (number, number + 2)} if number % 5 == 0 else {}
    shard = Shard(name, digest("cut", number) if lost else name, (piece,), lost)
    kinds = ("summaries", "records", "rejections")[: 2 + (number % 3 == 0)]
    files = {kind: DataFile(f"{kind}/version={VERSION}/{name}-0.parquet", notes, 100 + number, "f" * 64) for kind in kinds}
    stats = RunStats(
        1, notes, notes - 1, 1, reasons={"MISSING_TEXT": 1}, seconds={"read": number / 8}, histograms={"windows": [number, 0, 2]}
    )
    return CommitRecord(shard, VERSION, f"run-{number % 2}", files, stats, "0.1.0", f"2026-01-01T00:00:{number % 60:02d}", bool(lost))


def by_shard(records: Iterable[CommitRecord]) -> dict[str, CommitRecord]:
    return {record.shard.id: record for record in records}
