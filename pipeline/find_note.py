"""One note of an output folder with all that was made of it. Its text is read again from the input, since the output does not hold it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import InputSection
from schemas.commit import CommitRecord, InputFile, Plan, PlanHeader, Segment, Shard
from schemas.errors import ChartmillError, ConfigurationError
from schemas.reasons import REASONS
from transforms.batch import guarded
from transforms.columns import ColumnMap
from transforms.inputs import Listing, list_inputs
from transforms.ledger import Ledger, load_commits, load_ids, load_ledger, newest_plan, plan_entries
from transforms.parquet import from_parquet
from transforms.read import read_segment
from transforms.store import Store

_CHANGED = "the note's input file has changed since it was read, and with it the text; run again, then inspect"
_NO_INPUT = "the note's input file is not where it was when it was planned; say with --input where it is now"


@dataclass(frozen=True, slots=True)
class FoundNote:
    """A note's text, and its rows of SUMMARY_SCHEMA (pass-through columns included) and RECORD_SCHEMA.

    `versions`: how many summarized notes carry its id; this is the one planned last.
    """

    text: str = field(repr=False)
    summary: Mapping[str, Any] = field(repr=False)
    record: Mapping[str, Any] = field(repr=False)
    versions: int = 1


@dataclass(frozen=True, slots=True)
class _Place:
    """A planned row and the commit of its shard, None while it is not done."""

    file: int
    row: int
    commit: CommitRecord | None = field(repr=False)


def find_note(store: Store, note_id: str, uris: Sequence[str] = ()) -> FoundNote:
    """The note as the newest plan's version has it, whether or not the gate let it pass. `uris`: where its input is now, if it has moved.

    Raises ChartmillError, never naming the note, when it is unknown, not done yet or set aside, or when its input is gone or has changed;
    ConfigurationError when nothing was ever planned.
    """
    plan = newest_plan(store)
    if plan is None:
        raise ConfigurationError("no run has been planned in this output folder; `chartmill run` makes one")
    with guarded("inspect"):
        ledger = load_ledger(store, plan.version)
        places = _places(store, plan, ledger, note_id)
        summaries = [(place, row) for place in places if (row := _row(store, place, "summaries"))]
        if not summaries:
            raise ChartmillError(_why_not(store, places))
        place, summary = summaries[-1]
        text = _text(store, plan, ledger, place, summary["note_sha256"], uris)
        return FoundNote(text, summary, _row(store, place, "records") or {}, len(summaries))


def _places(store: Store, plan: Plan, ledger: Ledger, note_id: str) -> list[_Place]:
    """Every current row of that id, in the order of planning."""
    ids = load_ids(store, ledger)
    wanted = np.frombuffer(hashlib.blake2b(note_id.encode("utf-8", "surrogatepass"), digest_size=16).digest(), np.uint64)
    found = np.flatnonzero((ids.hashes == wanted).all(axis=1))
    commits = load_commits(store, plan.version) if len(found) else {}
    live = [commits[shard.id] for shard in plan.current if shard.id in commits]
    return [_Place(file, row, _holder(live, file, row)) for file, row in ((int(ids.files[i]), int(ids.rows[i])) for i in found)]


def _holder(commits: Sequence[CommitRecord], file: int, row: int) -> CommitRecord | None:
    holders = (c for c in commits if any(p.file == file and p.start <= row < p.stop for p in c.shard.pieces))
    return next(holders, None)


def _row(store: Store, place: _Place, kind: str) -> dict[str, Any] | None:
    """The place's row of that kind of output, None where it has none."""
    if place.commit is None or kind not in place.commit.files:
        return None
    table = from_parquet(store.get(place.commit.files[kind].path))
    here = pc.and_(pc.equal(table.column("source_file"), place.file), pc.equal(table.column("source_row"), place.row))
    rows = table.filter(here).to_pylist()
    return rows[0] if rows else None


def _why_not(store: Store, places: Sequence[_Place]) -> str:
    if not places:
        return "no note of that id has been planned in this output folder; ids are compared to the letter"
    for place in reversed(places):
        row = _row(store, place, "rejections")
        if row:
            rule = f", by the rule {row['expectation']}" if row["expectation"] else ""
            return f"the note was set aside at the stage {row['stage']}{rule}: {row['reason']}. {REASONS.get(row['reason'], '')}".rstrip()
    return "the note is planned but not done yet; run again to go on"


def _text(store: Store, plan: Plan, ledger: Ledger, place: _Place, sha256: str, uris: Sequence[str]) -> str:
    """The note's text from the file that holds it: the one that was planned, wherever it lies, or a copy with its path."""
    file = next(file for file in ledger.files if file.number == place.file)
    changed = False
    for section, listing in _listings(store, plan, uris):
        columns = ColumnMap(section.columns, section.passthrough)
        same = [found for found in listing.files if found.identity == file.identity]
        # A copy on another kind of storage has another identity; the text's own hash decides.
        for found in [*same, *(found for found in listing.files if found.path == file.path and found not in same)]:
            text = _read(replace(file, identity=found.identity), found.location, place, columns)
            if text is not None and _sha256(text) == sha256:
                return text
            changed = True
    raise ChartmillError(_CHANGED if changed else _NO_INPUT)


def _listings(store: Store, plan: Plan, uris: Sequence[str]) -> Iterator[tuple[InputSection, Listing]]:
    """What the inputs of this plan hold now, then those of earlier plans; or only what is at `uris`."""
    if uris:
        section = InputSection(**plan.settings.get("input", {}))
        yield section, list_inputs(uris, section.format)
        return
    for section in _sections(store, plan):
        try:
            yield section, list_inputs(section.uris, section.format)
        except ConfigurationError:  # moved; an earlier plan may name the place that still stands
            continue


def _sections(store: Store, plan: Plan) -> Iterator[InputSection]:
    seen = [InputSection(**plan.settings.get("input", {}))]
    yield seen[0]
    for entry in sorted(plan_entries(store, plan.version), key=lambda entry: -entry.modified):
        section = InputSection(**PlanHeader.from_bytes(store.get(entry.key)).settings.get("input", {}))
        if section not in seen:
            seen.append(section)
            yield section


def _read(file: InputFile, location: str, place: _Place, columns: ColumnMap) -> str | None:
    """The text of the planned row, None where the file does not hold it any more."""
    assert place.commit is not None
    piece = next(p for p in place.commit.shard.pieces if p.file == place.file and p.start <= place.row < p.stop)
    # Nothing behind the row is wanted, and duplicates are not set aside again.
    shard = Shard("inspect", "inspect", (replace(piece, stop=place.row + 1),))
    try:
        for batch in read_segment(Segment(0, (shard,), (file,), {file.number: location}), columns):
            rows = batch.notes.filter(pc.equal(batch.notes.column("source_row"), pa.scalar(place.row, pa.int64())))
            if rows.num_rows:
                return str(rows.column("text")[0].as_py())
    except ChartmillError:
        raise
    except Exception:  # noqa: BLE001 - a file that changed may break anywhere, and what a reader says may quote it
        return None
    return None


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
