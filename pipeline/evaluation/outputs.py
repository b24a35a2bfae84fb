"""What a finished run wrote about some notes: its summaries, joined by note id and by the hash of the very text they were made from."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.evaluation.notes import ReferencedNote
from pipeline.summarize import Summarized
from schemas.commit import CommitRecord
from schemas.errors import ConfigurationError
from schemas.rejection import Reason
from transforms.batch import guarded
from transforms.ledger import load_commits, newest_plan
from transforms.parquet import from_parquet
from transforms.store import Store

_SHOWN = ("summary", "flags", "source_tokens", "generated_tokens", "coverage", "density", "compression")
_SAID = ("model_id", "model_sha256", "backend", "dtype", "decode", "version")


@dataclass(frozen=True, slots=True)
class Joined:
    """The notes that a run knows, and what it made of each. `left_out`: those that it does not, by why. `model`: what its rows say."""

    notes: tuple[ReferencedNote, ...] = field(repr=False)
    summaries: tuple[Summarized, ...] = field(repr=False)
    left_out: Mapping[str, int]
    model: Mapping[str, Any]


def join_run(store: Store, notes: Sequence[ReferencedNote]) -> Joined:
    """Look the notes up in the newest plan of an output folder, whether or not the gate let it pass.

    A note that the run set aside has failed, with its reason. One of another text than the run read is left out as `changed`, one that is
    not in the run as `not_in_run`. Raises ConfigurationError when nothing was ever planned or no note is found.
    """
    with guarded("evaluate"):
        records = newest_commits(store)
        wanted = {note.note_id for note in notes if note.note_id is not None}
        made, model = _summaries(store, records, wanted)
        refused = refused_notes(store, records, wanted)
    kept: list[ReferencedNote] = []
    summaries: list[Summarized] = []
    left_out: Counter[str] = Counter()
    for note in notes:
        found = _found(note, made, refused)
        if isinstance(found, str):
            left_out[found] += 1
        else:
            kept.append(note)
            summaries.append(found)
    if not kept:
        raise ConfigurationError(
            "--output-folder: none of the notes with references is in this run; ids and texts are compared to the letter"
        )
    return Joined(tuple(kept), tuple(summaries), dict(sorted(left_out.items())), model)


def newest_commits(store: Store) -> list[CommitRecord]:
    """Of the newest plan, those that stand. Raises ConfigurationError when nothing was ever planned."""
    plan = newest_plan(store)
    if plan is None:
        raise ConfigurationError("--output-folder: no run has been planned in this folder; `chartmill run` makes one")
    commits = load_commits(store, plan.version)
    return [commits[shard.id] for shard in plan.current if shard.id in commits]


def rows_of(store: Store, records: Sequence[CommitRecord], kind: str, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows of the files of a kind, each file once."""
    for path in dict.fromkeys(record.files[kind].path for record in records if kind in record.files):
        yield from from_parquet(store.get(path)).select(columns).to_pylist()


def _summaries(store: Store, records: Sequence[CommitRecord], wanted: set[str]) -> tuple[dict[str, dict[str, Summarized]], dict[str, Any]]:
    """By note id and sha256 of the note's text; and the model that wrote the rows."""
    made: dict[str, dict[str, Summarized]] = defaultdict(dict)
    said: dict[str, Any] = {}
    for row in rows_of(store, records, "summaries", ("note_id", "note_sha256", *_SHOWN, *_SAID)):
        said = said or {name: row[name] for name in _SAID}
        if row["note_id"] in wanted:
            made[row["note_id"]][row["note_sha256"]] = Summarized.of_row(row)
    return made, _model(said)


def _model(said: Mapping[str, Any]) -> dict[str, Any]:
    """None throughout where the run wrote no summary at all."""
    decode = said.get("decode")
    named = {"id": said.get("model_id"), "sha256": said.get("model_sha256"), "decode": json.loads(decode) if decode else None}
    return named | {name: said.get(name) for name in ("backend", "dtype", "version")}


def refused_notes(store: Store, records: Sequence[CommitRecord], wanted: set[str]) -> dict[str, str]:
    """Reasons by note id. An earlier version of an amended note is no failure."""
    rows = rows_of(store, records, "rejections", ("note_id", "reason"))
    return {row["note_id"]: row["reason"] for row in rows if row["note_id"] in wanted and row["reason"] != Reason.DUPLICATE_ID}


def _found(note: ReferencedNote, made: Mapping[str, Mapping[str, Summarized]], refused: Mapping[str, str]) -> Summarized | str:
    """What the run made of a note, or why it is left out."""
    mine = made.get(note.note_id or "")
    if mine:
        summary = mine.get(hashlib.sha256(note.text.encode("utf-8", "surrogatepass")).hexdigest())
        return "changed" if summary is None else summary
    reason = refused.get(note.note_id or "")
    return "not_in_run" if reason is None else Summarized(failed=reason)
