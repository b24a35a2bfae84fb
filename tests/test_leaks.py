"""The leak check: what is planted outside the data files is found, a run as it stands is clean, and nothing found is ever told."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.leaks import LeakReport, check_leaks, holds_patient_data
from pipeline.run import run_job
from schemas.errors import ConfigurationError
from tests.conftest import echo_job, note_rows, read_rows, write_notes
from tests.invented_identifiers import INVENTED
from transforms.identifiers import KINDS, find_identifiers
from transforms.overlap import Overlap
from transforms.store import Encryption, LocalStore, open_store
from transforms.stored_texts import stored_texts

FILE_NAME = "berg-anna-1950.parquet"
# The text of a duplicate that is set aside.
ONLY_IN_THE_NOTES = "Sleeps badly since the move and asks for a letter to the landlord."


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: duplicates, a blank note, a corrupt file, several shards."""
    folder = tmp_path_factory.mktemp("clean")
    rows = note_rows(60)
    write_notes(
        folder / "notes" / FILE_NAME, [*rows, {**rows[3], "text": ONLY_IN_THE_NOTES}, {**rows[4], "note_id": "blank-0001", "text": " "}]
    )
    (folder / "notes" / "corrupt.parquet").write_bytes(b"PAR1 nothing")
    lenient = {"gate.max_quarantined_share": 1, "gate.contract": "ignore"}
    assert run_job(echo_job(folder / "notes", folder / "out", **lenient)).published.released
    return folder


@pytest.fixture
def output(clean: Path, tmp_path: Path) -> Path:
    """A copy to plant leaks in."""
    return Path(shutil.copytree(clean / "out", tmp_path / "out"))


def checked(output: Path, **options: Any) -> LeakReport:
    return check_leaks(LocalStore(output), **options)


def found_in(report: LeakReport) -> set[tuple[str, str]]:
    return {(leak.file, leak.kind) for leak in report.leaks}


def test_a_run_as_it_stands_is_clean(clean: Path) -> None:
    report = checked(clean / "out", against=[LocalStore(clean / "notes")])
    assert report.leaks == ()
    audit_lines = len(list((clean / "out" / "_audit").rglob("*.json")))
    assert (report.files, report.unread) == (5 + audit_lines, 1)  # the corrupt file among the notes
    assert report.data_files == len(list((clean / "out").glob("*/version=*/*.parquet"))) + 2


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def into_report_json(output: Path, said: str) -> str:
    report = json.loads((output / "report.json").read_text())
    (output / "report.json").write_text(json.dumps(report | {"note": said}, indent=1))
    return "report.json"


def into_report_html(output: Path, said: str) -> str:
    append(output / "report.html", f"\n<p title=x>{html.escape(said)}</p>")
    return "report.html"


def into_commit_record(output: Path, said: str) -> str:
    rolled = next(output.glob("_runs/*/commits/rolled/*.parquet"))
    rows = pq.read_table(rolled).to_pylist()
    rows[-1]["stats"] = json.dumps({**json.loads(rows[-1]["stats"]), "error": said})
    write_notes(rolled, rows)
    return rolled.relative_to(output).as_posix()


def into_unknown_file(output: Path, said: str) -> str:
    (output / "zz.log").write_text(f"INFO done\nWARNING {said}\n")
    return f"file {sum(path.is_file() for path in output.rglob('*'))}"


PLACES = (into_report_json, into_report_html, into_commit_record, into_unknown_file)
Place = Callable[[Path, str], str]


# Each place and each kind in the fast tests, each place with each kind in the slow ones.
KINDS_OF_DATA = ("id", "text", "file name")
PLANTED = [
    pytest.param(place, kind, marks=[] if row % 3 == column else pytest.mark.slow)
    for row, place in enumerate(PLACES)
    for column, kind in enumerate(KINDS_OF_DATA)
]


@pytest.mark.parametrize(("place", "kind"), PLANTED)
def test_what_the_data_files_hold_is_found_anywhere_else(output: Path, place: Place, kind: str) -> None:
    words = read_rows(output, "summaries")[7]["summary"].split()
    said = {"id": "n000041", "text": " ".join(words[3:9]).upper(), "file name": "berg-anna-1950"}[kind]
    file = place(output, f"row ({said}) failed")
    assert found_in(checked(output)) == {(file, kind)}
    assert checked(output, patterns_only=True).leaks == ()


def test_hashes_of_ids_are_found(output: Path) -> None:
    into_report_json(output, f"key {hashlib.sha256(b'n000012').hexdigest()[:20]}")
    assert found_in(checked(output)) == {("report.json", "hash of an id")}


def test_words_of_the_notes_are_found_when_the_notes_are_given(clean: Path, output: Path) -> None:
    into_report_html(output, "blank-0001 asks for a letter to the landlord")
    assert found_in(checked(output)) == {("report.html", "id")}
    told = found_in(checked(output, against=[LocalStore(clean / "notes")]))
    assert told == {("report.html", "id"), ("report.html", "text")}


@pytest.mark.parametrize("name", ["notes.csv", "notes.jsonl.gz", "notes.fhir.json", "asks.txt"])
def test_notes_of_any_format_can_be_given(output: Path, tmp_path: Path, name: str) -> None:
    said = "She asks for a letter to the landlord."
    attachment = {"contentType": "text/plain", "data": base64.b64encode(said.encode()).decode()}
    resource = {"resourceType": "DocumentReference", "id": "report-77881", "content": [{"attachment": attachment}]}
    content = {
        "csv": f"note_id,text\nreport-77881,{said}\n",
        "gz": json.dumps({"note_id": "report-77881", "text": said}),
        "json": json.dumps(resource),
        "txt": said,
    }[name.rpartition(".")[2]].encode()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    (tmp_path / "notes" / "broken.jsonl.gz").write_bytes(content)
    into_report_json(output, "report-77881: a letter to the landlord")
    report = checked(output, against=[LocalStore(tmp_path / "notes")])
    assert found_in(report) == {("report.json", "text")} | ({("report.json", "id")} if name != "asks.txt" else set())
    assert report.unread == 1


def test_names_of_files_are_looked_at(output: Path) -> None:
    shard = next(output.glob("summaries/*/*.parquet"))
    shutil.copy(shard, shard.with_name("n000005.parquet"))
    (output / "_runs" / "Dr Okonkwo.tmp").write_text("")
    report = checked(output)
    assert {(leak.kind, leak.line) for leak in report.leaks} == {("id", 0), ("name", 0)}
    assert all(leak.file.startswith("file ") for leak in report.leaks)


def test_places_are_told_and_nothing_else(output: Path) -> None:
    into_unknown_file(output, "Dr Okonkwo, SSN 219-09-9999, n000041 of berg-anna-1950")
    report = checked(output)
    assert {(leak.kind, leak.line) for leak in report.leaks} == {("name", 2), ("social security number", 2), ("id", 2), ("file name", 2)}
    told = json.dumps(report.as_json()) + repr(report)
    assert not [said for said in ("Okonkwo", "219-09", "n000041", "berg", "zz.log") if said in told]


@pytest.mark.parametrize("kind", INVENTED)
def test_invented_identifiers_are_found(output: Path, kind: str) -> None:
    """Of 200 of each kind, 19 of 20 have to be found as what they are; planted, they are found in every place."""
    draw = random.Random(7)
    invented = [INVENTED[kind](draw) for _ in range(200)]
    found = sum(any(part.kind == kind for part in find_identifiers(f"row failed: {said}, see above")) for said in invented)
    print(f"{kind}: {found} of 200")
    assert found >= 190
    files = {place(output, f"row failed: {draw.choice(invented)}, see above") for place in PLACES}
    assert {leak.file for leak in checked(output, patterns_only=True).leaks if leak.kind == kind} == files


def test_every_kind_is_tried() -> None:
    assert set(INVENTED) == set(KINDS)


HARMLESS = st.one_of(
    st.binary(min_size=4, max_size=32).map(bytes.hex),
    st.uuids().map(str),
    st.datetimes().map(lambda moment: moment.isoformat()),
    st.dates().map(str),
    st.floats().map(str),
    st.integers().map("{:,}".format),
    st.from_regex(r"\d{8}T\d{6}Z-[0-9a-f]{6}", fullmatch=True),
    st.from_regex(r"v?\d{1,3}\.\d{1,4}\.\d{1,4}(\+cpu|rc\d)?", fullmatch=True),
    st.from_regex(r"[a-z_]{1,20}(\.[a-z_]{1,20}){0,3}", fullmatch=True),
)


@given(st.lists(HARMLESS, max_size=6))
def test_hashes_times_versions_and_figures_are_no_identifiers(parts: list[str]) -> None:
    assert [found.kind for found in find_identifiers("; ".join(parts))] == []


@given(st.text(max_size=60), st.text(max_size=60))
def test_an_identifier_is_found_in_any_surroundings(before: str, after: str) -> None:
    said = f"{before} \nMr Okonkwo\n {after}"
    assert any(found.kind == "name" for found in find_identifiers(said))


WORDS = st.lists(st.sampled_from("seen today with cough and fever since monday 12 mg".split()), min_size=1, max_size=12)


@given(WORDS, WORDS)
def test_texts_share_what_five_words_in_a_row_say(one: list[str], other: list[str]) -> None:
    overlap = Overlap()
    overlap.add(" ".join(one))
    overlap.meet_text(", ".join(other).title())
    runs = [{tuple(words[i : i + 5]) for i in range(len(words) - 4)} for words in (one, other)]
    shared = {run for run in runs[0] & runs[1] if sum(word.isalpha() for word in run) >= 2}
    assert bool(overlap.shared(" ".join(one))) == bool(shared)


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_gives_all_its_strings_and_where_they_begin(content: Any) -> None:
    raw = json.dumps({"x": content}, indent=1)
    found = list(stored_texts("report.json", raw.encode()))

    def strings(part: Any) -> list[str]:
        if isinstance(part, str):
            return [part]
        return [s for key in part for s in ((key, *strings(part[key])) if isinstance(part, dict) else strings(key))]

    assert [stored.text for stored in found] == [s for s in ("x", *strings(content)) if s.strip()]
    for stored in found:
        assert raw.startswith(json.dumps(stored.text), stored.offset)
        assert raw.count("\n", 0, stored.offset) + 1 == stored.line


@pytest.mark.parametrize("unit", ["a.", "1-", "12 ", "(212) ", "Mr ", "patient ", "a@", "A1 ", "12 A ", "mrn:", '"\\', "<", "d-"])
def test_time_is_linear(unit: str) -> None:
    def seconds(times: int) -> float:
        text = unit * times
        started = time.process_time()
        list(find_identifiers(text))
        list(stored_texts("x.json", text.encode()))
        list(stored_texts("x.html", text.encode()))
        return time.process_time() - started

    # Another process may take the time of one measurement, not of three.
    assert any(seconds(20_000) < 20 * seconds(2_000) + 0.2 for _ in range(3))


def test_which_objects_may_hold_patient_data() -> None:
    run = "_runs/v0123456789ab"
    data = ["summaries/version=v0/a.parquet", "rejections/x", f"{run}/plans/cuts-000001.json", f"{run}/ids/a.parquet", f"{run}/live.json"]
    open_to_all = ["report.json", "summaries", f"{run}/commits/a.json", f"{run}/commits/live.json", "notes/summaries/a", "_runs/plans"]
    assert [key for key in data + open_to_all if holds_patient_data(key)] == data


def test_a_folder_without_a_run_is_an_error(tmp_path: Path, clean: Path) -> None:
    with pytest.raises(ConfigurationError, match="no run was written here"):
        checked(tmp_path)
    with pytest.raises(ConfigurationError, match="without files of notes"):
        checked(clean / "out", against=[LocalStore(tmp_path)])


def test_exit_codes(clean: Path, output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from pipeline.cli import main

    assert main(["check-leaks", str(clean / "out")]) == 0
    into_report_html(output, "Patient: Okonkwo")
    assert main(["check-leaks", str(output), "--json"]) == 1
    said = capsys.readouterr().out
    assert "report.html" in said and "Okonkwo" not in said
    assert json.loads(said.splitlines()[-1])["kinds"] == {"name": 1}


@pytest.mark.slow
def test_a_run_on_s3_is_looked_through(clean: Path, bucket: str) -> None:
    store = open_store(f"s3://{bucket}/out", Encryption("bucket"))
    for path in (clean / "out").rglob("*"):
        if path.is_file():
            store.put(path.relative_to(clean / "out").as_posix(), path.read_bytes())
    assert check_leaks(store) == checked(clean / "out")
    store.put("_SUCCESS", b"n000041")
    assert found_in(check_leaks(store)) == {("_SUCCESS", "id")}
