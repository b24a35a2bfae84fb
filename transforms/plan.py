"""What a run has to do: files cut into shards once and for all, duplicates decided exactly, segments for the workers. Pure functions.

A *cut* is a stretch of rows, fixed when its file is first planned. A *shard* is a cut as it stands today: less the
pieces of superseded files, and with the rows that lost to a duplicate id marked. `transforms.ledger` keeps the cuts; this file decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from schemas.commit import InputFile, Piece, Segment, Shard, digest
from schemas.errors import ConfigurationError
from transforms.formats.stream import can_be_entered

DUPLICATE_POLICIES = ("first", "latest", "all")
NEVER_WRITTEN = np.iinfo(np.int64).min
# A longer stretch of one row group is given to several workers, each of which reads past the rows before its own.
MAX_SEGMENT_SHARDS = 64


@dataclass(frozen=True, slots=True)
class Cut:
    """Rows that are done together. `id` is the hash of the files' paths and identities and of the row ranges, so it
    means the same anywhere.
    """

    id: str
    pieces: tuple[Piece, ...]

    @property
    def rows(self) -> int:
        return sum(piece.rows for piece in self.pieces)


@dataclass(frozen=True, slots=True)
class NoteIds:
    """Hashed ids of planned rows, one entry per row whose id is not null.

    `hashes`: (n, 2) uint64, the 16 bytes of a blake2b; `written_at`: (n,) int64, milliseconds since 1970, NEVER_WRITTEN when unknown;
    `files`, `rows`: (n,) the file number and the zero-based row in it.
    """

    hashes: npt.NDArray[np.uint64] = field(repr=False)
    written_at: npt.NDArray[np.int64] = field(repr=False)
    files: npt.NDArray[np.int32] = field(repr=False)
    rows: npt.NDArray[np.int64] = field(repr=False)

    def __len__(self) -> int:
        return len(self.files)

    @staticmethod
    def concatenate(parts: Sequence[NoteIds]) -> NoteIds:
        if not parts:
            return NO_IDS
        return NoteIds(
            np.concatenate([p.hashes for p in parts]),
            np.concatenate([p.written_at for p in parts]),
            np.concatenate([p.files for p in parts]),
            np.concatenate([p.rows for p in parts]),
        )


NO_IDS = NoteIds(np.empty((0, 2), np.uint64), np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int64))


@dataclass(frozen=True, slots=True)
class RowPlaces:
    """Where a file's rows are: the rows of each row group of Parquet; of text, (rows,) int64 byte offsets and one-based lines.

    All three are empty for files that are read whole.
    """

    row_groups: Sequence[int] = ()
    offsets: npt.NDArray[np.int64] = field(default_factory=lambda: NO_PLACES, repr=False)
    lines: npt.NDArray[np.int64] = field(default_factory=lambda: NO_PLACES, repr=False)


NO_PLACES: npt.NDArray[np.int64] = np.empty(0, np.int64)


def cut_files(files: Sequence[InputFile], places: Mapping[int, RowPlaces], shard_notes: int) -> list[Cut]:
    """Cut new files into stretches of `shard_notes` rows; files smaller than that are put together, in order.

    `places` is by file number. A file with a problem is a cut of its own with no rows.
    """
    if shard_notes < 1:
        raise ConfigurationError(f"engine.shard_notes: {shard_notes}; must be at least 1")
    by_number = {file.number: file for file in files}
    cuts: list[Cut] = []
    small: list[Piece] = []
    gathered = 0
    for file in files:
        if file.problem or file.rows >= shard_notes:
            pieces = [Piece(file.number, 0, 0)] if file.problem else list(_file_pieces(file, places[file.number], shard_notes))
            cuts.extend(_cut((piece,), by_number) for piece in pieces)
            continue
        if gathered + file.rows > shard_notes:
            cuts.append(_cut(tuple(small), by_number))
            small, gathered = [], 0
        gathered += file.rows
        small.append(next(_file_pieces(file, places[file.number], shard_notes)))
    if small:
        cuts.append(_cut(tuple(small), by_number))
    return cuts


def _cut(pieces: tuple[Piece, ...], files: Mapping[int, InputFile]) -> Cut:
    what = [[files[p.file].path, files[p.file].identity, p.start, p.stop] for p in pieces]
    return Cut(digest("cut", what), pieces)


def _file_pieces(file: InputFile, places: RowPlaces, shard_notes: int) -> Iterator[Piece]:
    ends = np.cumsum(np.asarray(places.row_groups, dtype=np.int64))
    for start in range(0, file.rows, shard_notes):
        stop = min(start + shard_notes, file.rows)
        if len(ends):
            first, last = np.searchsorted(ends, [start, stop - 1], side="right")
            yield Piece(file.number, start, stop, tuple(range(int(first), int(last) + 1)))
        elif len(places.offsets):
            yield Piece(file.number, start, stop, (), int(places.offsets[start]), int(places.lines[start]))
        else:
            yield Piece(file.number, start, stop)


def superseded_files(files: Iterable[InputFile]) -> set[int]:
    """Numbers of the files whose path has been planned again with another identity. A path that is merely gone keeps its output."""
    newest: dict[str, int] = {}
    numbers = set()
    for file in files:  # in the order of planning: a file that came back is listed again under its old number
        numbers.add(file.number)
        newest[file.path] = file.number
    return numbers - set(newest.values())


def decide_duplicates(
    ids: NoteIds, policy: str, ignore_files: Set[int] = frozenset(), ignore_rows: Mapping[int, Set[int]] | None = None
) -> dict[int, tuple[int, ...]]:
    """Rows to reject as DUPLICATE_ID: file number -> sorted rows. Exact, whatever the number of files and runs.

    `first` keeps the row planned first (file number, then row), `latest` the greatest `written_at` and among equals the row planned last,
    `all` keeps every row.
    """
    if policy not in DUPLICATE_POLICIES:
        raise ConfigurationError(f"input.duplicates: {policy!r}; choices: {', '.join(DUPLICATE_POLICIES)}")
    if policy == "all" or not len(ids):
        return {}
    dead = np.isin(ids.files, list(ignore_files))
    places = [(file << 40) + row for file, rows in (ignore_rows or {}).items() for row in rows]
    if places:
        dead |= np.isin((ids.files.astype(np.int64) << 40) + ids.rows, places)
    alive = np.flatnonzero(~dead)
    # Of a million ids few are there twice, and only those have to be put in order.
    alive = alive[_repeated(ids.hashes[alive, 0])]
    hashes, files, rows = ids.hashes[alive], ids.files[alive], ids.rows[alive]
    if policy == "first":
        order = np.lexsort((rows, files, hashes[:, 1], hashes[:, 0]))
    else:
        order = np.lexsort((-rows, -files.astype(np.int64), -ids.written_at[alive].astype(np.float64), hashes[:, 1], hashes[:, 0]))
    ordered = hashes[order]
    # In each run of equal hashes the first row wins.
    losers = order[1:][(ordered[1:] == ordered[:-1]).all(axis=1)]
    rejected: dict[int, list[int]] = {}
    for position in losers:
        rejected.setdefault(int(files[position]), []).append(int(rows[position]))
    return {file: tuple(sorted(lost)) for file, lost in rejected.items()}


def _repeated(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """(n,) whether each value is there more than once."""
    order = np.argsort(values)
    ordered = values[order]
    same = ordered[1:] == ordered[:-1]
    repeated = np.zeros(len(values), np.bool_)
    repeated[order[1:][same]] = True
    repeated[order[:-1][same]] = True
    return repeated


def current_shards(cuts: Iterable[Cut], superseded: Set[int], duplicates: Mapping[int, tuple[int, ...]]) -> list[Shard]:
    """The cuts as they stand today, in ledger order; a cut whose files are all superseded is gone."""
    shards = []
    for cut in cuts:
        pieces = tuple(p for p in cut.pieces if p.file not in superseded)
        if pieces:
            shards.append(_shard(cut, pieces, duplicates))
    return shards


def _shard(cut: Cut, pieces: tuple[Piece, ...], duplicates: Mapping[int, tuple[int, ...]]) -> Shard:
    lost: dict[int, tuple[int, ...]] = {}
    for piece in pieces:
        rows = duplicates.get(piece.file)
        if rows:
            low, high = np.searchsorted(rows, [piece.start, piece.stop])
            if low < high:
                lost[piece.file] = rows[low:high]
    if not lost and len(pieces) == len(cut.pieces):
        return Shard(cut.id, cut.id, pieces)
    left = set(pieces)
    positions = [i for i, p in enumerate(cut.pieces) if p in left]
    by_position = {i: lost[cut.pieces[i].file] for i in positions if cut.pieces[i].file in lost}
    # By position in the cut, not by file number, so that the id means the same in another output folder.
    return Shard(digest("shard", cut.id, positions, by_position), cut.id, pieces, lost)


def limit_shards(shards: Sequence[Shard], limit: int | None) -> list[Shard]:
    """The first shards that hold at least `limit` rows together: whole shards only, so that a later full run finds them done."""
    if limit is None:
        return list(shards)
    if limit < 1:
        raise ConfigurationError(f"--limit {limit}: must be at least 1")
    chosen, rows = [], 0
    for shard in shards:
        if rows >= limit:
            break
        chosen.append(shard)
        rows += shard.rows
    return chosen


def cut_segments(shards: Sequence[Shard], files: Mapping[int, InputFile], locations: Mapping[int, str]) -> list[Segment]:
    """Group shards into what one worker streams once: neighbours that have to be read from the same place on, up to MAX_SEGMENT_SHARDS."""
    groups: list[list[Shard]] = []
    for shard in shards:
        if groups and len(groups[-1]) < MAX_SEGMENT_SHARDS and _are_read_together(groups[-1][-1], shard, files):
            groups[-1].append(shard)
        else:
            groups.append([shard])
    return [_segment(index, group, files, locations) for index, group in enumerate(groups)]


def _segment(index: int, shards: Sequence[Shard], files: Mapping[int, InputFile], locations: Mapping[int, str]) -> Segment:
    numbers = sorted({piece.file for shard in shards for piece in shard.pieces})
    return Segment(index, tuple(shards), tuple(files[n] for n in numbers), {n: locations[n] for n in numbers if n in locations})


def _are_read_together(left: Shard, right: Shard, files: Mapping[int, InputFile]) -> bool:
    last, first = left.pieces[-1], right.pieces[0]
    if last.file != first.file:
        return False
    layout = files[last.file].layout
    if layout.format == "parquet":
        return bool(set(last.row_groups) & set(first.row_groups))
    # Who enters such a file goes through all that is before.
    return not can_be_entered(layout)
