"""Runs over text files that are killed, limited or cut otherwise in between, and go on from the byte at which a row begins."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.run import run_job
from tests.conftest import all_rows, echo_job, note_rows
from tests.formats import COMPRESS, as_csv, as_jsonl, write_bytes
from tests.test_formats import read_folder
from tests.test_mixed_histories import as_bundle
from tests.test_resume import LENIENT, SEED, hits, kill_and_rerun

_COUNT = 10


def write_inputs(folder: Path) -> Path:
    """Files of several shards each, some of whose notes hold line ends; one breaks off, one is none."""
    notes = [{**note, "text": note["text"].replace(". ", '.\r\n"', 2)} for note in note_rows(5 * _COUNT)]
    parts = [notes[i : i + _COUNT] for i in range(0, len(notes), _COUNT)]
    write_bytes(folder / "a.csv", as_csv(parts[0]))
    write_bytes(folder / "b.csv.gz", COMPRESS[".gz"](as_csv(parts[1], ";", "cp1252")))
    write_bytes(folder / "c.jsonl", as_jsonl(parts[2]) + b'{"note_id": "cut')
    write_bytes(folder / "d.json", as_bundle(parts[3]))
    write_bytes(folder / "e.tsv", as_csv(parts[4], "\t", "utf-16"))
    write_bytes(folder / "f" / "g.txt", b"Walks with a stick since spring.")
    write_bytes(folder / "h.csv", b"column,meaning\nward,where the patient lies\n")
    return folder


def settings(folder: Path | str) -> dict[str, Any]:
    return {"input.uris": [str(folder)], "engine.backend": "echo", "engine.shard_notes": 4, "run.sweep_after_minutes": 0, **LENIENT}


def check_rows(rows: dict[str, list[dict[str, Any]]]) -> None:
    assert [row["reason"] for row in rows["rejections"]] == ["LINE_MALFORMED", "COLUMNS_MISSING"]
    ids = [row["note_id"] for row in rows["summaries"]]
    assert len(ids) == len(set(ids)) == 5 * _COUNT + 1 and "f/g" in ids


@pytest.mark.slow
def test_killed_runs_go_on_within_text_files(tmp_path: Path) -> None:
    folder = write_inputs(tmp_path / "notes")
    [told] = kill_and_rerun({"settings": settings(folder), "outputs": str(tmp_path / "outs"), "kills": 3})
    straight, *others = (all_rows(Path(output)) for output in told["outputs"])
    check_rows(straight)
    for rows in others:
        assert rows == straight, SEED
    assert hits(told).total() >= 3, (SEED, told["kills"])


def test_limits_and_other_shard_sizes_change_no_row(tmp_path: Path) -> None:
    folder = write_inputs(tmp_path / "notes")
    given = settings(folder)
    assert run_job(echo_job(folder, tmp_path / "straight", **given)).exit_code == 0
    for limit, shard_notes in ((1, 5), (20, 50), (None, 3)):
        run_job(echo_job(folder, tmp_path / "bit by bit", **{**given, "engine.shard_notes": shard_notes, "run.limit": limit}))
    straight, bits = (all_rows(tmp_path / name) for name in ("straight", "bit by bit"))
    check_rows(straight)
    assert [row["note_id"] for row in bits["summaries"]] == [row["note_id"] for row in straight["summaries"]]
    assert [row["source_row"] for row in bits["summaries"]] == [row["source_row"] for row in straight["summaries"]]
    assert bits["rejections"] == straight["rejections"]
    report = json.loads((tmp_path / "bit by bit" / "report.json").read_text())
    assert report["notes_in"] == report["notes_summarized"] + report["notes_quarantined"]


@pytest.mark.s3
def test_ranges_of_text_files_are_read_from_s3(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where objects are too large for one request, and shards begin in their middle."""
    from transforms.store import s3_client

    folder = write_inputs(tmp_path / "notes")
    for path in filter(Path.is_file, folder.rglob("*")):
        s3_client().upload_file(str(path), bucket, f"in/{path.relative_to(folder).as_posix()}")
    here = read_folder(folder, 4)
    assert len(here[0]) == 5 * _COUNT + 1
    for small in (8 << 20, 0):
        monkeypatch.setattr("transforms.inputs._SMALL_BYTES", small)
        assert read_folder(f"s3://{bucket}/in/", 4) == here
