"""Formats: reading may begin at any row; the same notes read the same from every format; no file is ever too damaged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.planning import PlanSettings, plan_run
from schemas.commit import Layout, Segment
from schemas.errors import ConfigurationError
from schemas.rejection import Reason
from tests.conftest import note_rows, write_notes
from tests.formats import COMPRESS, Rows, as_csv, as_fhir, as_jsonl, damaged, layout_of, read_rows_of, rows_of, write_bytes
from transforms.columns import ColumnMap
from transforms.formats import FORMATS, stem_of, suffix_of
from transforms.formats.first_object import first_object
from transforms.formats.layout import ReadOptions
from transforms.inputs import list_inputs
from transforms.ledger import load_ledger
from transforms.plan import RowPlaces, current_shards, cut_files, cut_segments
from transforms.read import read_segment
from transforms.scan import scan_file
from transforms.store import LocalStore

NOTES = [{**row, "text": row["text"].replace("; ", ";\n").replace(". ", '.\n"quoted", he said é ')} for row in note_rows(12)]
LINE_FORMATS: dict[str, Callable[[Rows], bytes]] = {"x.jsonl": as_jsonl, "x.csv": as_csv, "x.fhir.ndjson": as_fhir}


def segments_of(folder: Path | str, shard_notes: int, columns: ColumnMap, options: ReadOptions) -> list[Segment]:
    found = list_inputs([str(folder)], options.format).files
    scans = [scan_file(file, i, columns, options) for i, file in enumerate(found)]
    files = {s.file.number: s.file for s in scans}
    places = {s.file.number: RowPlaces(s.row_groups, s.offsets, s.lines) for s in scans}
    shards = current_shards(cut_files(list(files.values()), places, shard_notes), set(), {})
    return cut_segments(shards, files, {i: f.location for i, f in enumerate(found)})


def read_folder(
    folder: Path | str, shard_notes: int = 5, columns: ColumnMap | None = None, options: ReadOptions | None = None
) -> tuple[list[dict[str, Any]], list[tuple[int, int | None, int | None, str]]]:
    """All notes, and (file, row, line, reason) of all rejections; checks that every planned row came out once."""
    mapping, said = columns or ColumnMap(), options or ReadOptions()
    notes: list[dict[str, Any]] = []
    rejected = []
    for segment in segments_of(folder, shard_notes, mapping, said):
        for batch in read_segment(segment, mapping):
            notes += batch.notes.to_pylist()
            rejected += [(r.source_file, r.source_row, r.source_line, str(r.reason)) for r in batch.rejections]
            assert batch.notes.num_rows + sum(r.source_row is not None for r in batch.rejections) == batch.shard.rows
    return notes, rejected


def essence(notes: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return sorted((n["note_id"], n["text"], n["patient_id"], n["written_at"], n["in:ward"]) for n in notes)


@pytest.mark.parametrize("name", LINE_FORMATS)
@given(st.data())
def test_reading_may_begin_at_any_row(name: str, data: st.DataObject) -> None:
    whole = LINE_FORMATS[name](NOTES)
    [wrong] = damaged(whole, whole, data.draw(st.integers(0, 10_000)), 1)
    layout = layout_of(wrong, name)
    everything = read_rows_of(wrong, layout)
    if layout.whole:
        return
    for position, row in enumerate(everything):
        if row.problem not in (Reason.FILE_TRUNCATED, Reason.FILE_CORRUPT):
            assert read_rows_of(wrong, layout, row.offset, row.line) == everything[position:]


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("shard_notes", [1, 5, 100])
@pytest.mark.parametrize("form", ["jsonl", "csv", "tsv"])
def test_every_format_compression_and_shard_size_gives_the_same_notes(tmp_path: Path, suffix: str, shard_notes: int, form: str) -> None:
    data = {"jsonl": as_jsonl(NOTES), "csv": as_csv(NOTES), "tsv": as_csv(NOTES, "\t", end="\n")}[form]
    write_bytes(tmp_path / "a" / f"x.{form}{suffix}", COMPRESS[suffix](data))
    write_notes(tmp_path / "b" / "x.parquet", NOTES)
    notes, rejected = read_folder(tmp_path / "a", shard_notes)
    assert not rejected
    assert essence(notes) == essence(read_folder(tmp_path / "b")[0])


def test_a_fhir_export_gives_its_notes_and_passes_over_other_resources(tmp_path: Path) -> None:
    lines = as_fhir(NOTES).splitlines(keepends=True)
    patient = json.dumps({"resourceType": "Patient", "id": "p"}).encode() + b"\n"
    write_bytes(tmp_path / "x.ndjson", patient + b"".join(line + patient for line in lines))
    notes, rejected = read_folder(tmp_path)
    assert not rejected
    assert [(n["note_id"], n["text"], n["patient_id"], n["source_line"]) for n in notes] == [
        (n["note_id"], n["text"], n["patient_id"], 2 + 2 * i) for i, n in enumerate(NOTES)
    ]


def test_text_files_are_called_by_their_paths(tmp_path: Path) -> None:
    write_bytes(tmp_path / "ward" / "kind=ED" / "a.v2.txt", "Café, seen today.\r\nNo fever.".encode("cp1252"))
    write_bytes(tmp_path / "b.TXT.gz", COMPRESS[".gz"](b"Second note."))
    notes, rejected = read_folder(tmp_path, columns=ColumnMap({"note_id": "id", "note_type": "kind"}))
    assert not rejected
    assert [(n["note_id"], n["text"], n["note_type"]) for n in notes] == [
        ("b", "Second note.", None),
        ("ward/kind=ED/a.v2", "Café, seen today.\nNo fever.", "ED"),
    ]


def test_json_files_may_be_lists_or_single_objects(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a.json", json.dumps([dict(n) for n in NOTES[:3]], indent=2).encode())
    write_bytes(tmp_path / "b.json", json.dumps(NOTES[3], indent=2).encode())
    write_bytes(tmp_path / "c.json", as_jsonl(NOTES[4:6]))
    notes, rejected = read_folder(tmp_path)
    assert not rejected
    assert [n["note_id"] for n in notes] == [n["note_id"] for n in NOTES[:6]]
    assert [n["source_line"] for n in notes] == [2, 9, 16, 1, 1, 2]


def test_nested_columns_and_lists_of_strings(tmp_path: Path) -> None:
    rows = [{"id": i, "doc": {"body": ["First line.", f"Line {i}."], "by": "x"}, "n": [1, {"a": None}], "b": True} for i in range(3)]
    columns = ColumnMap({"note_id": "id", "text": "doc.body"})
    write_bytes(tmp_path / "a" / "x.jsonl", as_jsonl(rows))
    write_notes(tmp_path / "b" / "x.parquet", [{"id": r["id"], "doc": r["doc"]} for r in rows])
    for folder in ("a", "b"):
        notes, rejected = read_folder(tmp_path / folder, columns=columns)
        assert not rejected
        assert [(n["note_id"], n["text"]) for n in notes] == [(str(i), f"First line.\nLine {i}.") for i in range(3)]
        assert all("in:doc" not in n for n in notes)
    notes, _ = read_folder(tmp_path / "a", columns=columns)
    assert [(n["in:n"], n["in:b"]) for n in notes] == [('[1,{"a":null}]', "true")] * 3


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"note_id": "x", "text": ', Reason.LINE_MALFORMED),
        (b'["a", "b"]', Reason.LINE_MALFORMED),
        (b'{"note_id": "x", "text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", Reason.LINE_MALFORMED),
        (b'{"note_id": ' + b"9" * 5000 + b', "text": "t"}', Reason.LINE_MALFORMED),
        (b'{"note_id": "x", "text": "bad \xff byte"}', Reason.ROW_UNREADABLE),
        (b'{"note_id": "x", "text": "half \\ud83d"}', Reason.ROW_UNREADABLE),
        (b'{"note_id": "x", "text": {"a": 1}}', Reason.ROW_UNREADABLE),
        (b"\x00\x00", Reason.LINE_MALFORMED),
    ],
)
def test_a_bad_line_is_set_aside_with_its_number(tmp_path: Path, line: bytes, reason: Reason) -> None:
    good = as_jsonl([{**note, "text": "é " + note["text"]} for note in NOTES])
    good = good.replace(b"\\u00e9", "é".encode())
    write_bytes(tmp_path / "x.jsonl", good + b"\n \r\n" + line + b"\n" + as_jsonl(note_rows(1, 50)).rstrip())
    notes, rejected = read_folder(tmp_path)
    assert rejected == [(0, 12, 15, str(reason))]
    assert len(notes) == 13 and notes[-1]["source_line"] == 16


@pytest.mark.parametrize("suffix", [".gz", pytest.param(".bz2", marks=pytest.mark.slow), ".zst"])
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_broken_stream_keeps_what_came_before(tmp_path: Path, suffix: str, damage: str) -> None:
    notes = [{**row, "noise": hashlib.sha256(str(i).encode()).hexdigest()} for i, row in enumerate(note_rows(20_000))]
    data = bytearray(COMPRESS[suffix](as_jsonl(notes)))
    if damage == "cut":
        del data[-40:]
    else:
        data[-200] ^= 0xFF
    write_bytes(tmp_path / f"x.jsonl{suffix}", bytes(data))
    found, rejected = read_folder(tmp_path, 1000)
    assert len(found) > 10_000
    assert [n["note_id"] for n in found] == [n["note_id"] for n in notes[: len(found)]]
    last = rejected[-1]
    assert last[1] == len(found) + len(rejected) - 1
    assert last[3] == (Reason.FILE_TRUNCATED if damage == "cut" else Reason.FILE_CORRUPT)


def test_a_file_without_the_columns_is_one_rejection_beside_others(tmp_path: Path) -> None:
    write_bytes(tmp_path / "dictionary.csv", b"column,meaning\nward,where the patient lies\n")
    write_bytes(tmp_path / "notes.csv", as_csv(NOTES))
    notes, rejected = read_folder(tmp_path)
    assert rejected == [(0, None, None, Reason.COLUMNS_MISSING)] and len(notes) == len(NOTES)


def test_names_say_format_and_compression() -> None:
    assert (suffix_of("a/b.CSV.GZ").format, suffix_of("a/b.CSV.GZ").compression) == ("csv", "gzip")
    assert suffix_of("a.parquet.gz").format is None and suffix_of("a.zst").format is None and suffix_of("a").format is None
    assert stem_of("a.b/c.d.txt.bz2") == "a.b/c.d" and stem_of("c") == "c" and stem_of("c.txt.csv") == "c.txt"


@pytest.mark.parametrize(
    ("head", "form"),
    [
        ('{"resourceType": "Bundle"', "fhir"),
        ('\ufeff [ {"id": "1", "meta": {"a": "{"}, "resourceType":', "fhir"),
        ('{"note_id": "1", "text": "\\"resourceType\\": x"}', "jsonl"),
        ('{"note_id": "1", "text": {"resourceType": "x"}}\n{"resourceType": 1}', "jsonl"),
        ('{"note_id": "resourceType", "text": "a \\\\"}', "jsonl"),
        ('{"entry": [{"resource": {}}], "id": "\\\\\\"", "resourceType', "jsonl"),
        ('{"entry": [{"resource": {}}], "id": "\\\\\\"", "resourceType"', "fhir"),
        ("", "jsonl"),
    ],
)
def test_fhir_is_told_by_its_first_object(head: str, form: str) -> None:
    assert first_object(head).format == form and form in FORMATS


DAMAGE_SOURCES: dict[str, Callable[[Rows], bytes]] = {
    **LINE_FORMATS,
    "x.json": lambda notes: json.dumps(list(notes)).encode(),
    "x.txt": lambda notes: notes[0]["text"].encode(),
}


def survive(tmp_path: Path, name: str, suffix: str, count: int) -> None:
    """Files damaged in any way are read to the last row, without an exception; `read_folder` checks the sums."""
    whole = DAMAGE_SOURCES[name](NOTES)
    sound = COMPRESS[suffix](whole)
    for number, wrong in enumerate(damaged(sound, as_csv(NOTES) + as_jsonl(NOTES), len(name + suffix), count)):
        write_bytes(tmp_path / str(number // 200) / f"{number}{name}{suffix}", wrong)
    for batch in sorted(tmp_path.iterdir()):
        notes, rejected = read_folder(batch, 7)
        assert len(notes) + len(rejected) >= len(list(batch.iterdir()))


@pytest.mark.parametrize("name", DAMAGE_SOURCES)
def test_no_damage_stops_the_reading(tmp_path: Path, name: str) -> None:
    survive(tmp_path, name, "", 60)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("name", DAMAGE_SOURCES)
def test_a_thousand_damaged_files_of_each_kind(tmp_path: Path, name: str, suffix: str) -> None:
    survive(tmp_path, name, suffix, 1000)


@pytest.mark.s3
def test_every_format_is_read_from_s3(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transforms.store import s3_client

    for suffix, compress in COMPRESS.items():
        write_bytes(tmp_path / f"x.jsonl{suffix}", compress(as_jsonl(NOTES)))
    write_bytes(tmp_path / "y.csv", as_csv(NOTES))
    write_bytes(tmp_path / "z" / "note.txt", b"A note of its own.")
    for path in tmp_path.rglob("*.*"):
        s3_client().upload_file(str(path), bucket, f"in/{path.relative_to(tmp_path).as_posix()}")
    here = read_folder(tmp_path)
    assert len(here[0]) == 5 * len(NOTES) + 1
    assert read_folder(f"s3://{bucket}/in/") == here
    monkeypatch.setattr("transforms.inputs._SMALL_BYTES", 0)  # streamed, as large objects are
    assert read_folder(f"s3://{bucket}/in/") == here


def test_rows_of_nothing(tmp_path: Path) -> None:
    assert rows_of(b"", "x.jsonl") == [] == rows_of(b"\n \r\n\r", "x.jsonl") == rows_of(b"note_id,text\n", "x.csv")


def test_one_odd_file_stops_no_run_but_a_job_that_fits_no_file_is_an_error(tmp_path: Path) -> None:
    dictionary = write_bytes(tmp_path / "in" / "dictionary.csv", b"column,meaning\nward,where the patient lies\n")
    settings = PlanSettings((str(tmp_path / "in"),), ColumnMap(), "first", 5)
    store = LocalStore(tmp_path / "out")
    with pytest.raises(ConfigurationError, match="file 0 has no column 'note_id' for note_id; found: column, meaning"):
        plan_run(store, "v", "one", settings, {})
    write_bytes(dictionary.with_name("notes.tsv.gz"), COMPRESS[".gz"](as_csv(NOTES, "\t")))
    write_bytes(dictionary.with_name("note.txt"), "Café.".encode("cp1252"))
    plan = plan_run(store, "v", "two", settings, {}).plan
    assert plan.files == {"listed": 3, "planned": 3, "unreadable": 1, "without_notes": 0, "ignored": 0}
    assert plan.settings["formats"] == {"csv, tab, utf-8, gzip": 1, "text, latin-1": 1}
    assert [file.layout for file in load_ledger(store, "v").files][1:] == [
        Layout("text", encoding="latin-1", columns=("text",), whole=True),
        Layout("csv", "gzip", "utf-8", "\t", '"', tuple(NOTES[0])),
    ]
    write_bytes(dictionary.with_name("another.csv"), b"column,meaning\n1,2\n")
    assert plan_run(store, "v", "three", settings, {}).plan.files["unreadable"] == 2
