"""Scanning: what the plan believes of a file is what a worker will read."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from schemas.rejection import Reason
from tests.conftest import note_rows
from tests.formats import as_csv, as_fhir, as_jsonl, write_bytes
from tests.test_formats import read_folder
from transforms.columns import ColumnMap
from transforms.inputs import list_inputs
from transforms.plan import NEVER_WRITTEN
from transforms.scan import ScannedFile, scan_file

NOTES = note_rows(4)


def scanned(path: Path, data: bytes, columns: ColumnMap | None = None) -> ScannedFile:
    [found] = list_inputs([str(write_bytes(path, data))]).files
    return scan_file(found, 0, columns or ColumnMap())


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("2025-02", "2025-02-02"),
        ("2024", "2024-01-02T00:00:00Z"),
        (" 2025-03-01 ", "2025-03-01T00:00:01Z"),
        ("2025-03-01T00:30:00+02:00", "2025-02-28T23:00:00Z"),
        ("20250301", "2025-03-01T00:00:00.001Z"),
        ("last spring", "0001-01-02"),
        ("2025-13", "0001-01-02"),
    ],
)
def test_dates_are_compared_as_moments(tmp_path: Path, earlier: str, later: str) -> None:
    data = as_jsonl([{"note_id": "a", "text": "t", "written_at": date} for date in (earlier, later)])
    first, second = scanned(tmp_path / "x.jsonl", data).ids.written_at
    assert first < second


@pytest.mark.parametrize("date", ["", "2025-3", "12025", "25", None])
def test_what_is_no_date_is_never(tmp_path: Path, date: str | None) -> None:
    data = as_jsonl([{"note_id": "a", "text": "t", "written_at": date}])
    assert scanned(tmp_path / "x.jsonl", data).ids.written_at[0] == NEVER_WRITTEN


def test_only_the_id_that_is_read_counts(tmp_path: Path) -> None:
    """A row whose id is missing has no id, even where another key has the name that ids have by default."""
    data = as_jsonl([{"note_id": "A", "id": None, "text": "one"}, {"id": "A", "text": "two"}])
    ids = scanned(tmp_path / "x.jsonl", data, ColumnMap({"note_id": "id"})).ids
    assert ids.rows.tolist() == [1]


def test_names_of_the_job_and_of_the_format(tmp_path: Path) -> None:
    """A mapped name goes first where a document has it, and is passed over where it has not."""
    for source, expected in (("patient_id", 4), ("nowhere", 4), ("type_code", 0)):
        scan = scanned(tmp_path / "x.ndjson", as_fhir(NOTES), ColumnMap({"note_id": source}))
        assert len(scan.ids) == expected


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("x.csv", b"\n \r\n".replace(b" ", b"")),
        ("x.csv.gz", gzip.compress(b"", mtime=0)),
        ("x.csv", b"note_id,text\r\n"),
        ("x.csv", b"\xef\xbb\xbf"),
        ("x.tsv.gz", gzip.compress(b"\n", mtime=0)),
        ("x.jsonl.gz", gzip.compress(b"", mtime=0)),
        ("x.json", b" []\n"),
    ],
)
def test_files_of_nothing_are_empty(tmp_path: Path, name: str, data: bytes) -> None:
    assert scanned(tmp_path / name, data).file.problem is Reason.FILE_EMPTY


def test_rows_without_a_text_are_set_aside_one_by_one_but_a_wrong_column_as_a_file(tmp_path: Path) -> None:
    assert scanned(tmp_path / "x.csv", b"note_id,text\na,\nb,\n").file.rows == 2
    assert scanned(tmp_path / "x.jsonl", b'{"note_id": "a", "text": null}').file.rows == 1
    wrong = scanned(tmp_path / "y.jsonl", b'{"note_id": "a", "text": {"body": "t"}}\n{"note_id": "b", "text": null}')
    assert wrong.file.problem is Reason.COLUMNS_MISSING and "makes a text" in wrong.missing


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_quoted_line_ends_and_odd_characters_never_shift_a_row(tmp_path: Path, end: str) -> None:
    odd = ["a\nb", "c\r\nd\r\n", "e\u2028f\x85g\x0bh\x0ci\x1cj", 'k "l", m', "n\0o", "p\n\nq"]
    notes = [{"note_id": f"n{i}", "text": f"Seen today. {odd[i % 6]}", "ward": f"{i % 3}"} for i in range(61)]
    write_bytes(tmp_path / "x.csv", as_csv(notes, end=end))
    for shard_notes in (1, 7, 60, 61, 62):
        found, rejected = read_folder(tmp_path, shard_notes)
        assert not rejected
        assert [(note["note_id"], note["text"], note["in:ward"]) for note in found] == [(n["note_id"], n["text"], n["ward"]) for n in notes]
        assert [note["source_row"] for note in found] == list(range(61))


@pytest.mark.parametrize("late", ["cp1252", "utf-8"])
def test_the_encoding_is_that_of_the_whole_file(tmp_path: Path, late: str) -> None:
    """The first megabytes may well be ASCII."""
    notes = [*note_rows(12_000), {**note_rows(1, 12_000)[0], "text": "Says “fine”, naïve – but well."}]
    data = as_csv(notes, encoding=late)
    assert data[: 1 << 20].isascii()
    write_bytes(tmp_path / "x.csv", data)
    found, rejected = read_folder(tmp_path, 5000)
    assert not rejected and len(found) == 12_001
    assert found[-1]["text"] == notes[-1]["text"]


def test_a_byte_order_mark_may_lie_across_members_of_gzip(tmp_path: Path) -> None:
    data = as_csv(NOTES, encoding="utf-16")
    write_bytes(tmp_path / "x.csv.gz", b"".join(gzip.compress(data[i : i + 1]) for i in range(len(data))))
    assert [note["note_id"] for note in read_folder(tmp_path)[0]] == [note["note_id"] for note in NOTES]
