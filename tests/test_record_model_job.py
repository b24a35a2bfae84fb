"""Jobs whose records a model reads: the same rows however they come about, one load for one model, and nothing said of any note."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Job, load_job
from pipeline.direct import run_directly
from pipeline.find_note import find_note
from pipeline.inspect_note import render_page
from pipeline.planning import plan_run
from pipeline.prepare import PreparedJob, prepare
from pipeline.publish import publish
from pipeline.run import run_job
from schemas.errors import ChartmillError, ConfigurationError
from tests.conftest import all_rows, echo_job, note_rows, write_notes
from tests.tiny_models import make_model
from tests.tiny_record_models import make_record_model
from transforms.engine import loads
from transforms.models import resolve_model
from transforms.store import open_store, open_to_read

NOTES = 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_record_model(tmp_path_factory.mktemp("records"))


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("notes")
    write_notes(path / "a.parquet", [*note_rows(NOTES), {"note_id": "blank", "text": " "}])
    return path


def torch_job(notes: Path, output: Path, folder: Path, *overrides: str, reader: str = "model", model: str = "same") -> Job:
    settings = {
        "engine.backend": "torch",
        "engine.dtype": "float32",
        "engine.device": "cpu",
        "engine.threads": 1,
        "engine.shard_notes": 4,
        "tasks.summary.model": str(folder),
        "tasks.summary.decode": {"num_beams": 1, "max_new_tokens": 8},
        "tasks.record.reader": reader,
        "tasks.record.model": model if reader in ("model", "both") else None,
        "gate.max_quarantined_share": 1,
        "gate.max_flagged_share": 1,
        "gate.contract": "ignore",
    }
    return echo_job(notes, output, *overrides, **settings)


def direct_rows(job: Job) -> dict[str, list[dict[str, Any]]]:
    prepared = prepare(job)
    plan = plan_run(prepared.store, prepared.version, "straight", prepared.plan_settings(), prepared.said_in_plan())
    run_directly(prepared, plan)
    publish(prepared.store)
    return all_rows(Path(job.output.uri))


def report_of(output: Path) -> dict[str, Any]:
    return dict(json.loads((output / "report.json").read_text()))


@pytest.mark.slow
def test_beam_equals_direct_and_one_model_is_loaded_once(notes: Path, folder: Path, tmp_path: Path) -> None:
    straight = direct_rows(torch_job(notes, tmp_path / "direct", folder))
    before = loads()
    assert run_job(torch_job(notes, tmp_path / "out", folder)).exit_code == 0
    assert loads() - before == 1
    report, rows = report_of(tmp_path / "out"), all_rows(tmp_path / "out")
    assert report["run"]["model_loads"] == 1
    assert rows == straight
    assert (len(rows["summaries"]), len(rows["records"]), len(rows["rejections"])) == (NOTES, NOTES, 1)
    assert report["notes_in"] == NOTES + 1 == report["notes_summarized"] + report["notes_quarantined"]
    assert report["records"]["notes"] == NOTES and report["records"]["windows"] >= NOTES
    assert report["model"]["record"]["sha256"] == resolve_model(str(folder)).sha256 == rows["records"][0]["model_sha256"]
    assert json.loads(rows["records"][0]["decode"])["constraint"] == "copy"
    assert str(folder.parent) not in (tmp_path / "out" / "report.json").read_text()


@pytest.mark.slow
def test_another_model_is_a_second_load(notes: Path, folder: Path, tmp_path: Path) -> None:
    other = make_model("bart", tmp_path / "summaries")
    # Nothing that a random model writes is likely.
    job = torch_job(notes, tmp_path / "out", other, "tasks.record.min_probability=0", reader="both", model=str(folder))
    assert run_job(job).exit_code == 0
    report, rows = report_of(tmp_path / "out"), all_rows(tmp_path / "out")
    assert report["run"]["model_loads"] == 2
    hashes = [resolve_model(str(path)).sha256 for path in (other, folder)]
    assert [rows[kind][0]["model_sha256"] for kind in ("summaries", "records")] == hashes
    readers = {reader for row in rows["records"] for entity in row["observations"] for reader in entity["readers"]}
    assert "rules" in readers
    page = render_page(find_note(open_to_read(str(tmp_path / "out")), rows["records"][0]["note_id"], ()))
    assert 'class="readers">' in page and f"The record was read by: {rows['records'][0]['model_id']}." in page


@pytest.mark.slow
def test_a_run_that_went_on_equals_a_straight_one(notes: Path, folder: Path, tmp_path: Path) -> None:
    straight = torch_job(notes, tmp_path / "straight", folder, "tasks.record.min_probability=0", reader="both")
    resumed = torch_job(notes, tmp_path / "resumed", folder, "tasks.record.min_probability=0", reader="both")
    assert run_job(straight).exit_code == 0
    run_job(resumed.model_copy(update={"run": resumed.run.model_copy(update={"limit": 4})}))
    assert run_job(resumed).exit_code == 0
    assert all_rows(tmp_path / "resumed") == all_rows(tmp_path / "straight")
    assert report_of(tmp_path / "resumed")["records"] == report_of(tmp_path / "straight")["records"]


@pytest.mark.slow
def test_note_by_note_in_a_child_gives_the_same(notes: Path, folder: Path, tmp_path: Path) -> None:
    from pipeline.isolate import run_isolated

    straight = direct_rows(torch_job(notes, tmp_path / "straight", folder, "engine.shard_notes=20"))
    prepared = prepare(torch_job(notes, tmp_path / "apart", folder, "engine.shard_notes=20"))
    plan = plan_run(prepared.store, prepared.version, "apart", prepared.plan_settings(), prepared.said_in_plan())
    [segment] = plan.to_do
    run_isolated(prepared, segment, "apart")
    assert all_rows(tmp_path / "apart") == straight


@pytest.mark.slow
def test_nothing_of_a_note_is_said_outside_its_rows(folder: Path, tmp_path: Path, run_cli: Callable[..., Any]) -> None:
    rows = [{**row, "text": f"Zyxquonda {row['text']} Vlimburgia."} for row in note_rows(4)]
    write_notes(tmp_path / "notes" / "a.parquet", rows)
    out = tmp_path / "out"
    sets = [
        "tasks.record.reader=both", f"tasks.record.model={folder}", "engine.backend=torch", "engine.device=cpu", "engine.dtype=float32",
        "engine.threads=1", f"tasks.summary.model={folder}", "tasks.summary.decode.max_new_tokens=8", "gate.max_flagged_share=1",
    ]  # fmt: skip
    ran = run_cli("run", "-i", str(tmp_path / "notes"), "-o", str(out), "--json", *[part for each in sets for part in ("--set", each)])
    assert ran.returncode == 0, ran.stderr
    said = ran.stdout + ran.stderr + "".join(path.read_text() for path in out.rglob("*.json")) + (out / "report.html").read_text()
    assert not [word for word in ("Zyxquonda", "Vlimburgia") if word in said]


def test_off_writes_summaries_alone(notes: Path, tmp_path: Path) -> None:
    from pipeline.exporting.job import run_export
    from transforms.exports import Target
    from transforms.exports.shard import ExportSettings

    lenient = ("gate.max_quarantined_share=1", "gate.max_flagged_share=1", "gate.contract=ignore")
    job = echo_job(notes, tmp_path / "out", "tasks.record.reader=off", *lenient)
    rows = direct_rows(job)
    assert (len(rows["summaries"]), rows["records"]) == (NOTES, [])
    assert rows["summaries"] == [
        {**row, "version": rows["summaries"][0]["version"]}
        for row in direct_rows(echo_job(notes, tmp_path / "with", "gate.max_quarantined_share=1"))["summaries"]
    ]
    report = report_of(tmp_path / "out")
    assert (report["fields"], report["records"]) == ({}, {})
    assert "No records were wanted." in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(ConfigurationError, match="wrote summaries only"):
        run_export(open_to_read(str(tmp_path / "out")), open_store(str(tmp_path / "export")), ExportSettings(Target.CSV))


def test_a_page_of_a_note_without_a_record_says_so(notes: Path, tmp_path: Path) -> None:
    direct_rows(echo_job(notes, tmp_path / "out", "tasks.record.reader=off", "gate.max_quarantined_share=1"))
    page = render_page(find_note(open_to_read(str(tmp_path / "out")), note_rows(1)[0]["note_id"], ()))
    assert "The run wrote no records." in page


def test_an_amended_note_leaves_a_run_without_records(notes: Path, tmp_path: Path) -> None:
    write_notes(tmp_path / "notes" / "a.parquet", note_rows(5))
    job = echo_job(
        tmp_path / "notes", tmp_path / "out", "tasks.record.reader=off", "input.duplicates=latest", "gate.max_quarantined_share=1"
    )
    assert len(direct_rows(job)["summaries"]) == 5
    write_notes(tmp_path / "notes" / "b.parquet", [{**note_rows(1)[0], "written_at": "2026-01-01"}])
    assert run_job(job).exit_code == 0
    report = report_of(tmp_path / "out")
    assert (report["notes_summarized"], report["reasons"]) == (5, {"DUPLICATE_ID": 1})


def test_what_changes_records_changes_the_version(notes: Path, folder: Path, tmp_path: Path) -> None:
    def version(*overrides: str, reader: str = "model", model: str = "same") -> str:
        return prepare(torch_job(notes, tmp_path / "out", folder, *overrides, reader=reader, model=model)).version

    other = make_record_model(tmp_path / "other", seed=1)
    versions = [
        version(), version(reader="both"), version(reader="rules"), version(reader="off"), version(model=str(other)),
        version("tasks.record.prefix=other "), version("tasks.record.decode.num_beams=2"), version("tasks.record.date_order=day_first"),
        version("tasks.record.min_probability=0.2"), version("tasks.record.min_probability=0.2", reader="both"),
    ]  # fmt: skip
    assert len(set(versions)) == len(versions)
    # The same model elsewhere, and what the folder says anyway, change nothing.
    copied = make_record_model(tmp_path / "copied")
    assert {version(model=str(copied)), version("tasks.record.decode.max_new_tokens=24")} == {versions[0]}
    assert version("tasks.record.min_probability=0") == versions[0]
    assert version("tasks.record.min_probability=0.5", reader="both") == versions[1]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("tasks.record.reader=both", "tasks.record.min_probability=1"), "tasks.record.min_probability.*less than 1"),
        (("tasks.record.model=same",), "reader rules uses no model"),
        (("tasks.record.reader=guess",), "'rules', 'model', 'both' or 'off'"),
        (("tasks.record.decode.top_k=3",), "choices: num_beams, max_new_tokens, length_penalty"),
    ],
)
def test_a_record_task_that_does_not_fit_together_is_told(overrides: tuple[str, ...], told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        load_job(None, overrides)


def test_what_cannot_constrain_or_write_records_is_told_before_the_run(notes: Path, folder: Path, tmp_path: Path) -> None:
    def prepared(*overrides: str, **options: Any) -> PreparedJob:
        return prepare(torch_job(notes, tmp_path / "out", folder, *overrides, **options))

    with pytest.raises(ConfigurationError, match=r"echo on cpu cannot constrain .*torch on cpu, generate on cpu.*rules or off"):
        prepared("engine.backend=echo")
    with pytest.raises(ConfigurationError, match="'default' is a selection model"):
        prepared(model="default")
    with pytest.raises(ConfigurationError, match=r"tasks\.record\.model: 'nowhere/at all' is not a folder"):
        prepared(model="nowhere/at all")
    plain = make_model("bart", tmp_path / "plain")
    with pytest.raises(ConfigurationError, match="does not say that it writes records"):
        prepare(torch_job(notes, tmp_path / "out", plain))
    with pytest.raises(ConfigurationError, match=r"lacks .* tags, such as <age>"):
        prepare(torch_job(notes, tmp_path / "out", plain, model=str(plain)))
    # Named, a model may go without a format: the job says what it has to.
    bare = make_record_model(tmp_path / "bare", None)
    assert prepare(torch_job(notes, tmp_path / "out", plain, model=str(bare))).record.task is not None


def test_doctor_looks_at_the_second_model(notes: Path, folder: Path, tmp_path: Path) -> None:
    from pipeline.doctor_model import check_record_model

    job = torch_job(notes, tmp_path / "out", folder, model=str(folder))
    assert [(found.check, found.status) for found in check_record_model(job)] == [
        ("record model", "ok"),
        ("record weights", "ok"),
        ("record model configuration", "ok"),
    ]
    with pytest.raises(ChartmillError, match="selection model"):
        list(check_record_model(torch_job(notes, tmp_path / "out", folder, model="default")))
    assert not list(check_record_model(torch_job(notes, tmp_path / "out", folder, reader="rules")))


def test_preflight_looks_at_the_second_model(notes: Path, folder: Path, tmp_path: Path) -> None:
    from pipeline.sagemaker_request import create_request
    from pipeline.sagemaker_rules import preflight

    def refused(*overrides: str, model: str = str(folder)) -> set[str]:
        job = torch_job(notes, tmp_path / "out", folder, "engine.device=auto", *overrides, model=model)
        return {finding.rule for finding in preflight(job, create_request(job, "x"), "eu-central-1") if finding.refused}

    told = {"records can be constrained", "paths exist in the image"}
    assert not refused() & told
    assert refused("sagemaker.instance_type=ml.g5.xlarge") & told == {"records can be constrained"}
    assert not refused("sagemaker.instance_type=ml.g5.xlarge", "engine.backend=generate") & told
    assert refused(model="models/records") & told == {"paths exist in the image"}
