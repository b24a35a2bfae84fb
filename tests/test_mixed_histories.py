"""Random histories of a drop folder whose files are of every format, compared with a model that knows only rows, dates and paths."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import read_rows
from tests.formats import COMPRESS, Rows, as_csv, as_fhir, as_jsonl
from tests.test_histories import run_once

_EPOCH = datetime(2025, 3, 1, tzinfo=UTC)
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Note:
    """`moment`: when it was written, None where its format has no dates."""

    note_id: str
    text: str
    moment: datetime | None


def dated(notes: list[Note], say: Callable[[datetime], str]) -> Rows:
    return [{"note_id": n.note_id, "text": n.text, "written_at": say(n.moment) if n.moment else None} for n in notes]


def utc(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def far_east(moment: datetime) -> str:
    return moment.astimezone(timezone(timedelta(hours=14))).isoformat()


def plain(moment: datetime) -> str:
    """A bare date where that says it all."""
    return moment.strftime("%Y-%m-%d" if moment.hour == 0 else "%Y-%m-%d %H:%M")


def as_bundle(notes: Rows) -> bytes:
    entries = [{"resource": json.loads(line)} for line in as_fhir(notes).splitlines()]
    return json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}).encode()


def as_parquet(notes: Rows) -> bytes:
    out = BytesIO()
    pq.write_table(pa.Table.from_pylist(list(notes)), out, row_group_size=3)
    return out.getvalue()


def as_excel_csv(notes: Rows) -> bytes:
    return b"\xef\xbb\xbf" + as_csv(notes, ";")


def in_two_members(data: bytes) -> bytes:
    return gzip.compress(data[:100]) + gzip.compress(data[100:])


def hl7_time(moment: datetime) -> str:
    return moment.strftime("%Y%m%d%H%M%S+0000")


def as_hl7(notes: Rows) -> bytes:
    messages = (
        f"MSH|^~\\&|A|B|C|D|20310405||MDM^T02|{n['note_id']}|P|2.5.1\rTXA|1|DS|TX|{n['written_at']}||||||||{n['note_id']}^A|||||AU||AV\r"
        f"OBX|1|TX|1^Note||{n['text']}||||||F\r"
        for n in notes
    )
    return "".join(messages).encode()


def as_ccda(notes: Rows) -> bytes:
    documents = (
        f"<ClinicalDocument><id extension='{n['note_id']}'/><effectiveTime value='{n['written_at']}'/><component><structuredBody>"
        f"<component><section><text>{n['text']}</text></section></component></structuredBody></component></ClinicalDocument>"
        for n in notes
    )
    return f"<export xmlns='urn:hl7-org:v3'>{''.join(documents)}</export>".encode()


# What these formats say with marks of their own is not what is tested here.
_PLAIN_TEXT = ("hl7", "xml")

WRITERS: dict[str, Callable[[list[Note]], bytes]] = {
    "csv": lambda notes: as_csv(dated(notes, plain)),
    "semicolons.csv": lambda notes: as_excel_csv(dated(notes, plain)),
    "csv.gz": lambda notes: in_two_members(as_csv(dated(notes, utc))),
    "tsv": lambda notes: as_csv(dated(notes, utc), "\t", "utf-16", "\n"),
    "jsonl": lambda notes: as_jsonl(dated(notes, far_east)),
    "jsonl.zst": lambda notes: COMPRESS[".zst"](as_jsonl(dated(notes, utc))),
    "json": lambda notes: json.dumps(dated(notes, far_east), indent=1).encode(),
    "fhir.ndjson": lambda notes: as_fhir(dated(notes, far_east)),
    "bundle.json": lambda notes: as_bundle(dated(notes, utc)),
    "bundle.json.bz2": lambda notes: bz2.compress(as_bundle(dated(notes, far_east))),
    "parquet": lambda notes: as_parquet(dated(notes, utc)),
    "hl7": lambda notes: as_hl7(dated(notes, hl7_time)),
    "xml": lambda notes: as_ccda(dated(notes, hl7_time)),
}


class MixedFolder:
    """The folder, and the model: which rows every planned file held, in the order of planning."""

    def __init__(self, folder: Path, dice: random.Random) -> None:
        self.folder = folder
        self._dice = dice
        self._clock = 0
        self._earlier: list[tuple[str, bytes, tuple[Note, ...]]] = []
        self._now: dict[str, tuple[bytes, tuple[Note, ...]]] = {}
        self.damaged: set[str] = set()
        self._planned: list[tuple[str, bytes, tuple[Note, ...]]] = []
        folder.mkdir()

    def change(self) -> None:
        self._clock += 1
        # Where the first files have no dates, going by them is refused.
        what = self._dice.choice(("write", "write", "write", "text", "amend", "grow", "shrink", "revert")) if self._now else "write"
        name = self._dice.choice(sorted(self._now)) if self._now else ""
        if what == "text":
            note = self._note(self._dice.randrange(20), dated=False)
            self._put(f"{note.note_id}.txt", note.text.encode(), (note,))
        elif what == "revert" and self._earlier:
            self._put(*self._dice.choice(self._earlier))
        elif what in ("amend", "grow", "shrink") and name and not name.endswith(".txt"):
            self._write(name, list(self._changed(what, self._now[name][1])))
        else:
            form = self._dice.choice(sorted(WRITERS))
            count = self._dice.choice((1, 2, 5, 9))
            self._write(f"{self._dice.choice('abc')}.{form}", [self._note(number) for number in self._dice.sample(range(20), count)])

    def _changed(self, what: str, notes: tuple[Note, ...]) -> Iterator[Note]:
        if what == "shrink":
            yield from notes[: max(len(notes) // 2, 1)]
            return
        amended = self._dice.randrange(len(notes)) if what == "amend" else -1
        for position, note in enumerate(notes):
            yield self._note(int(note.note_id[1:])) if position == amended else note
        if what == "grow":
            yield self._note(20 + self._clock)

    def _note(self, number: int, dated: bool = True) -> Note:
        # Some are written before what is there already, some at the same moment.
        moment = _EPOCH + timedelta(hours=self._dice.choice((0, 6, 24)) * self._dice.randrange(30)) if dated else None
        separator = self._dice.choice(("; ", ",\t", ' "', "\u2028", "\x85", "\nand\n", "é "))
        return Note(f"n{number}", f"Note {number} seen{separator}at time {self._clock} and well.", moment)

    def _write(self, name: str, notes: list[Note]) -> None:
        if name.endswith(_PLAIN_TEXT):
            notes = [replace(note, text=" ".join("".join(c if c.isascii() else " " for c in note.text).split())) for note in notes]
        self._put(name, WRITERS[name.split(".", 1)[1]](notes), tuple(notes))

    def _put(self, name: str, data: bytes, notes: tuple[Note, ...]) -> None:
        self.damaged.discard(name)
        if name in self._now:
            self._earlier.append((name, *self._now[name]))
        self._now[name] = (data, notes)
        (self.folder / name).write_bytes(data)

    def planned(self) -> None:
        """A run has seen the folder as it is."""
        known = {(name, data) for name, data, _ in self._planned}
        self._planned += [(name, *self._now[name]) for name in sorted(self._now) if (name, self._now[name][0]) not in known]

    def expected(self, policy: str) -> dict[str, str]:
        """Text by id."""
        best: dict[str, tuple[Any, str]] = {}
        for number, (name, data, notes) in enumerate(self._planned):
            for row, note in enumerate(notes):
                if self._now[name][0] != data:
                    continue
                rank = (note.moment or _NEVER, number, row) if policy == "latest" else (-number, -row)
                if note.note_id not in best or rank > best[note.note_id][0]:
                    best[note.note_id] = (rank, note.text)
        return {note_id: text for note_id, (_, text) in best.items()}

    def rows(self) -> int:
        return sum(len(notes) for _, notes in self._now.values())

    def damage(self) -> None:
        """A file vanishes, or is cut off anywhere."""
        name = self._dice.choice(sorted(self._now))
        data, notes = self._now.pop(name)
        self._earlier.append((name, data, notes))
        self.damaged.discard(name)
        if self._dice.random() < 0.5 or len(data) < 2:
            (self.folder / name).unlink()
            return
        (self.folder / name).write_bytes(data[: self._dice.randrange(1, len(data))])
        self.damaged.add(name)

    def ids(self) -> set[str]:
        """Of the files that are whole."""
        return {note.note_id for _, notes in self._now.values() for note in notes}


def check_history(seed: int, place: Path) -> None:
    dice = random.Random(seed)
    folder, output = MixedFolder(place / "in", dice), place / "out"
    policy = dice.choice(("first", "latest"))
    folder.change()
    for _ in range(dice.randint(3, 6)):
        for _ in range(dice.randint(1, 4)):
            folder.change()
        kind = dice.choice(("full", "full", "limited", "stopped"))
        report = run_once(folder.folder, output, kind, dice, policy).report
        folder.planned()
        if kind == "full":
            summaries = read_rows(output, "summaries")
            expected = folder.expected(policy)
            assert len(summaries) == len(expected)
            sha = {note_id: hashlib.sha256(text.encode()).hexdigest() for note_id, text in expected.items()}
            assert {row["note_id"]: row["note_sha256"] for row in summaries} == sha
            rejections = read_rows(output, "rejections")
            assert {row["reason"] for row in rejections} <= {"DUPLICATE_ID"}
            assert report["notes_in"] == len(summaries) + len(rejections) == folder.rows()


def check_damaged_history(seed: int, place: Path) -> None:
    """Files vanish and break off too: no id comes out twice, none of a whole file is missing, and the figures add up."""
    dice = random.Random(seed)
    folder, output = MixedFolder(place / "in", dice), place / "out"
    folder.change()
    for _ in range(dice.randint(3, 6)):
        for _ in range(dice.randint(1, 4)):
            folder.change()
        for _ in range(dice.randint(0, 2)):
            if len(folder.ids()) > 9:
                folder.damage()
        kind = dice.choice(("full", "full", "limited", "stopped"))
        report = run_once(folder.folder, output, kind, dice, "latest").report
        if kind == "full":
            summaries, rejections = (read_rows(output, name) for name in ("summaries", "rejections"))
            ids = [row["note_id"] for row in summaries]
            assert len(ids) == len(set(ids))
            assert folder.ids() <= {*ids, *(row["note_id"] for row in rejections if row["reason"] != "DUPLICATE_ID")}
            assert report["notes_in"] == len(summaries) + sum(row["source_row"] is not None for row in rejections)


@pytest.mark.parametrize("seed", [0])
def test_formats_may_be_mixed_and_change_between_runs(seed: int, tmp_path: Path) -> None:
    check_history(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 18))
def test_many_mixed_histories(seed: int, tmp_path: Path) -> None:
    check_history(seed, tmp_path)


@pytest.mark.parametrize("seed", [0])
def test_files_may_vanish_and_break_off_between_runs(seed: int, tmp_path: Path) -> None:
    check_damaged_history(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 18))
def test_many_damaged_histories(seed: int, tmp_path: Path) -> None:
    check_damaged_history(seed, tmp_path)
