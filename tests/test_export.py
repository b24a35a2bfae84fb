"""`chartmill export`: what is released and nothing else, shard by shard, the same after a kill, swept when superseded; nothing is told."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline import publish
from pipeline.exporting import release
from pipeline.exporting.job import ExportOutcome, run_export
from pipeline.exporting.validation import validate_export
from pipeline.run import run_job
from schemas.errors import AccountingError, ChartmillError, ConfigurationError
from tests.canaries import Said, assert_private, command
from tests.conftest import echo_job, note_rows, read_rows, write_notes
from transforms.exports import Absent, TableFormat, Target
from transforms.exports.shard import ExportSettings
from transforms.parquet import from_parquet
from transforms.store import Encryption, LocalStore, S3Store

LISTED = "Past medical history: asthma, gout\nFamily history: mother had glaucoma."
EVERY = [
    ExportSettings(Target.FHIR),
    ExportSettings(Target.OMOP),
    ExportSettings(Target.OMOP, table_format=TableFormat.CSV),
    ExportSettings(Target.CSV),
]
FHIR, OMOP = EVERY[0], EVERY[1]


def rows_with_lists(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [row | {"text": f"{row['text']}\n{LISTED}"} for row in note_rows(count, start)]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A released run of 25 notes in three shards, and one that is set aside."""
    folder = tmp_path_factory.mktemp("finished")
    write_notes(folder / "notes" / "a.parquet", [*rows_with_lists(25), {"note_id": "blank", "text": " "}])
    assert run_job(echo_job(folder / "notes", folder / "out", **{"gate.contract": "ignore"})).published.released
    return folder / "out"


def exported(run: Path, destination: Path, settings: ExportSettings = FHIR, **options: Any) -> ExportOutcome:
    return run_export(LocalStore(run), LocalStore(destination), settings, **options)


def tree(folder: Path) -> dict[str, str]:
    """Every file with its hash."""
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()}


def manifest(destination: Path, target: str = "fhir") -> dict[str, Any]:
    return dict(json.loads((destination / target / "manifest.json").read_text()))


def lines_of(destination: Path, kind: str) -> list[dict[str, Any]]:
    listed = [entry["url"] for entry in manifest(destination)["output"] if entry["type"] == kind]
    return [json.loads(line) for url in listed for line in (destination / "fhir" / url).read_text().splitlines()]


# --- what is exported


@pytest.mark.parametrize("settings", EVERY, ids=lambda s: f"{s.target}-{s.table_format}")
def test_every_target_is_valid_and_its_manifest_lists_its_files(finished: Path, tmp_path: Path, settings: ExportSettings) -> None:
    outcome = exported(finished, tmp_path, settings)
    figures = outcome.figures()
    assert (figures["notes"], figures["shards"], figures["shards_resumed"]) == (25, 3, 0)
    checked = validate_export(LocalStore(tmp_path), settings, outcome)
    assert checked == {"rows": sum(figures["rows"].values()), "problems": {}}
    listed = {entry["url"] for entry in manifest(tmp_path, settings.target)["output"]}
    assert listed | {"manifest.json"} == set(tree(tmp_path / settings.target))
    assert_private(tmp_path / settings.target)


def test_what_is_exported_is_what_the_run_holds(finished: Path, tmp_path: Path) -> None:
    exported(finished, tmp_path)
    summaries, records = read_rows(finished, "summaries"), read_rows(finished, "records")
    assert sorted(c["identifier"][0]["value"] for c in lines_of(tmp_path, "DocumentReference")) == sorted(s["note_id"] for s in summaries)
    told = Counter(c["code"]["text"] for c in lines_of(tmp_path, "Condition"))
    assert told == Counter(p["name"]["text"] for r in records for p in r["problems"] if p["name"]["assertion"] != "family")
    assert told["gout"] == 25 and len(lines_of(tmp_path, "FamilyMemberHistory")) == 25
    assert len(lines_of(tmp_path, "Device")) == 2
    ids = [(r["resourceType"], r["id"]) for entry in ("Condition", "Composition", "Observation") for r in lines_of(tmp_path, entry)]
    assert len(set(ids)) == len(ids)


def test_ids_hold_nothing_of_the_note(finished: Path, tmp_path: Path) -> None:
    """Neither an id nor its hash: who knows ids of notes must not be able to find them by trying."""
    exported(finished, tmp_path)
    for summary in read_rows(finished, "summaries"):
        for said in (summary["note_id"], summary["patient_id"], f"{summary['version']}{summary['note_id']}"):
            for method in ("md5", "sha1", "sha256"):
                digest = hashlib.new(method, said.encode()).hexdigest()
                assert not [r["id"] for r in lines_of(tmp_path, "Composition") if digest[:16] in r["id"]]


def test_numbers_of_notes_stay_when_files_are_added(finished: Path, tmp_path: Path) -> None:
    notes, out = tmp_path / "notes", tmp_path / "out"
    shutil.copytree(finished.parent / "notes", notes)
    shutil.copytree(finished, out)
    before = note_numbers(out, tmp_path / "first")
    write_notes(notes / "0-earlier-by-name.parquet", rows_with_lists(7, 100))
    assert run_job(echo_job(notes, out, **{"gate.contract": "ignore"})).published.released
    after = note_numbers(out, tmp_path / "second")
    assert before.items() < after.items() and len(after) == 32 == len(set(after.values()))


def note_numbers(run: Path, destination: Path) -> dict[str, int]:
    exported(run, destination, OMOP)
    tables = [from_parquet(path.read_bytes()) for path in (destination / "omop").glob("version=*/note_id_map/*.parquet")]
    return {row["note_source_value"]: row["note_id"] for table in tables for row in table.to_pylist()}


# --- stopped, repeated, superseded


def test_a_second_export_does_nothing_and_changes_nothing(finished: Path, tmp_path: Path) -> None:
    exported(finished, tmp_path)
    before = tree(tmp_path)
    again = exported(finished, tmp_path)
    assert again.resumed == 3 and tree(tmp_path) == before


class Stopped(Exception):
    pass


@dataclass(frozen=True)
class Failing(LocalStore):
    """Fails at its nth change."""

    left: list[int]

    def _change(self) -> None:
        self.left[0] -= 1
        if self.left[0] < 0:
            raise Stopped

    def put(self, key: str, data: bytes) -> None:
        self._change()
        super().put(key, data)

    def put_once(self, key: str, data: bytes) -> bool:
        self._change()
        return super().put_once(key, data)

    def delete(self, key: str) -> None:
        self._change()
        super().delete(key)


def stopped_and_run_again(finished: Path, folder: Path, changes: Sequence[int]) -> int:
    """Stop exports just before these changes, over an export of other settings, so that there is something to sweep too.

    Each must end as one that was not stopped. Returns how many were stopped before their end.
    """
    exported(finished, folder / "straight")
    straight, hits = tree(folder / "straight"), 0
    exported(finished, folder / "other", ExportSettings(Target.FHIR, canonical="https://hospital.example/fhir"))
    for change in changes:
        stopped = folder / f"stopped-{change}"
        shutil.copytree(folder / "other", stopped)
        try:
            run_export(LocalStore(finished), Failing(stopped, [change]), FHIR)
        except ChartmillError:
            hits += 1
            listed = [entry["url"] for entry in manifest(stopped)["output"]]
            assert all((stopped / "fhir" / url).exists() for url in listed), "a manifest names only what is there"
            exported(finished, stopped)
        assert tree(stopped) == straight
        shutil.rmtree(stopped)
    return hits


def test_stopped_at_some_changes_it_ends_as_if_it_had_not_been(finished: Path, tmp_path: Path) -> None:
    """Before the first file, before a record, before the manifest, in the sweep, at the end."""
    assert stopped_and_run_again(finished, tmp_path, (0, 9, 32, 40, 200)) == 4


@pytest.mark.slow
def test_stopped_at_any_change_it_ends_as_if_it_had_not_been(finished: Path, tmp_path: Path) -> None:
    assert 40 < stopped_and_run_again(finished, tmp_path, range(80)) < 80


KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline.exporting.job import run_export
from transforms.exports import Target
from transforms.exports.shard import ExportSettings
from transforms.store import LocalStore

left, real = int(sys.argv[3]), os.fsync
def fsync(descriptor):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real(descriptor)

os.fsync = fsync
run_export(LocalStore(Path(sys.argv[1])), LocalStore(Path(sys.argv[2])), ExportSettings(Target.FHIR), grace_s=0)
"""


@pytest.mark.parametrize("number", [pytest.param(3, marks=pytest.mark.slow), 37])
def test_killed_and_run_again_the_files_are_the_same(number: int, finished: Path, tmp_path: Path) -> None:
    exported(finished, tmp_path / "straight")
    killed = tmp_path / "killed"
    done = subprocess.run([sys.executable, "-c", KILLED, str(finished), str(killed), str(number)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert not (killed / "fhir" / "manifest.json").exists()
    exported(finished, killed, grace_s=0)
    assert tree(killed) == tree(tmp_path / "straight")


def test_what_a_newer_run_superseded_goes(finished: Path, tmp_path: Path) -> None:
    notes, out, destination = tmp_path / "notes", tmp_path / "out", tmp_path / "export"
    shutil.copytree(finished.parent / "notes", notes)
    shutil.copytree(finished, out)
    exported(out, destination)
    exported(out, destination, OMOP)
    of_omop = tree(destination / "omop")
    changed = [row | {"text": row["text"] + "\nPast medical history: sarcoid"} for row in note_rows(25)]
    write_notes(notes / "a.parquet", changed)
    assert run_job(echo_job(notes, out)).published.released
    outcome = exported(out, destination)
    assert outcome.resumed == 0 and outcome.swept > 0
    assert {c["code"]["text"] for c in lines_of(destination, "Condition")} == {"sarcoid", "fever", "night sweats"}
    assert {entry["url"] for entry in manifest(destination)["output"]} | {"manifest.json"} == set(tree(destination / "fhir"))
    assert len(list((destination / "_exports").glob("*/fhir-*/*.json"))) == 3
    assert tree(destination / "omop") == of_omop, "another target's export is left alone"


def test_a_file_that_is_gone_is_made_again(finished: Path, tmp_path: Path) -> None:
    exported(finished, tmp_path)
    before = tree(tmp_path)
    next((tmp_path / "fhir").glob("version=*/Condition/*.ndjson")).unlink()
    assert exported(finished, tmp_path).resumed == 2 and tree(tmp_path) == before


def test_a_young_file_of_another_export_is_left_alone(finished: Path, tmp_path: Path) -> None:
    exported(finished, tmp_path)
    young = tmp_path / "fhir" / "version=v000000000000" / "Condition" / "0123456789abcdef-0123456789ab.ndjson"
    young.parent.mkdir(parents=True)
    young.write_text("{}\n")
    exported(finished, tmp_path)
    assert young.exists()
    exported(finished, tmp_path, grace_s=0)
    assert not young.exists()


def test_damage_is_found(finished: Path, tmp_path: Path) -> None:
    outcome = exported(finished, tmp_path)
    paths = sorted((tmp_path / "fhir").glob("version=*/Condition/*.ndjson"))
    paths[0].write_bytes(paths[0].read_bytes().replace(b"gout", b"gone"))
    paths[1].unlink()
    problems = validate_export(LocalStore(tmp_path), FHIR, outcome)["problems"]
    assert problems["Condition: file is gone or damaged"] == 2
    assert problems["reference to a Condition that is not there"] > 0


# --- what is refused


def test_only_what_is_released_is_exported(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nothing is released"):
        exported(tmp_path / "nowhere", tmp_path / "export")
    with pytest.raises(ConfigurationError, match="--version v000000000000"):
        exported(finished, tmp_path / "export", version="v000000000000")
    current = json.loads((finished / publish.CURRENT).read_text())["version"]
    assert exported(finished, tmp_path / "export", version=current).figures()["notes"] == 25
    assert release.CURRENT == publish.CURRENT


def test_a_destination_within_the_run_is_refused(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(finished)
    for inside in (finished, finished / "export", finished.parent, tmp_path / "link" / "export"):
        with pytest.raises(ConfigurationError, match="within each other"):
            exported(finished, inside)


def test_records_that_do_not_match_their_summaries_stop_the_export(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    one, other = sorted((run / "records").glob("version=*/*.parquet"))[:2]
    shutil.copy(one, other)
    with pytest.raises(AccountingError, match="not those of its summaries"):
        exported(run, tmp_path / "export")


# --- the command


def test_the_command_tells_counts_and_is_repeatable(finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ("export", str(finished), "--to", "fhir", "--output", str(tmp_path), "--validate", "--json")
    for resumed in (0, 3):
        said = Said()
        assert command(capfd, said, *arguments) == 0
        last = json.loads(said.parts[0][1].splitlines()[-1])
        assert last["exit_code"] == 0 and last["export"]["shards_resumed"] == resumed
        assert last["export"]["validated"]["problems"] == {}
        assert last["export"]["rows"]["Composition"] == last["export"]["notes"] == 25


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--output", "s3://bucket/export"), "--encryption: not set"),
        (("--output", "s3://bucket/export", "--encryption", "rot13"), "choices: aes256, bucket, kms"),
        (("--output", "s3://bucket/export", "--encryption", "kms"), "needs --kms-key"),
        (("--output", "export", "--canonical", "hospital"), "--canonical: 'hospital'"),
        (("--output", "export", "--patient-system", "mrn"), "--patient-system: 'mrn'"),
        (("--output", "export", "--to", "excel"), "'fhir', 'omop', 'csv'"),
    ],
)
def test_bad_usage_names_the_value_and_the_choices(
    finished: Path, options: tuple[str, ...], told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    said = Said()
    assert command(capfd, said, "export", str(finished), *(() if "--to" in options else ("--to", "fhir")), *options) == 2
    assert told in " ".join(said.parts[1][1].replace("│", " ").split())


@pytest.mark.s3
@pytest.mark.slow
def test_an_export_on_s3_is_the_one_on_disk(finished: Path, tmp_path: Path, bucket: str) -> None:
    exported(finished, tmp_path, FHIR)
    store = S3Store(bucket, "export/", Encryption("aes256"))
    outcome = run_export(LocalStore(finished), store, FHIR)
    assert {entry.key: hashlib.sha256(store.get(entry.key)).hexdigest() for entry in store.list("")} == tree(tmp_path)
    assert validate_export(store, FHIR, outcome)["problems"] == {}
    assert run_export(LocalStore(finished), store, FHIR).resumed == 3


def test_reprs_hold_no_text(finished: Path, tmp_path: Path) -> None:
    outcome = exported(finished, tmp_path, ExportSettings(Target.FHIR, absent=Absent.OMIT))
    [commit, *_] = outcome.release.commits
    notes = release.shard_notes(LocalStore(finished), outcome.release, commit)
    assert "n0000" not in f"{notes!r} {outcome!r}" and "metformin" not in f"{notes!r} {outcome!r}"


def test_without_the_package_the_check_says_how_to_get_it(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    said = Said()
    assert command(capfd, said, "export", str(finished), "--to", "fhir", "--output", str(tmp_path), "--validate") == 2
    assert "pip install 'chartmill[fhir]'" in said.parts[1][1] and not list(tmp_path.iterdir())
