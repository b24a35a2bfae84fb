"""Bad jobs, inputs without the needed columns and contracts that fail: what is refused is not quoted."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from tests.canaries import Canaries, Said, assert_files_clean, command, every_log_record, plant, plant_unusable, write_table


def test_bad_jobs_are_not_quoted(tmp_path: Path, canaries: Canaries, said: Said, capfd: pytest.CaptureFixture[str]) -> None:
    bad = canaries["value of the job"]
    yaml = tmp_path / "job.yaml"
    files = [
        f"input: {{uris: [{bad}",
        f"gate: {{max_flagged_share: {bad}}}",
        f"input:\n\tcolumns: {bad}",
        f"- {bad}",
        f"run: {{limit: {bad}}}\nengine: {{backend: {bad}}}",
        f"gate: {bad}",
    ]
    for text in files:
        yaml.write_text(text)
        assert command(capfd, said, "run", "--config", str(yaml), "--json") == 2
    yaml.write_bytes(b"\xff" + bad.encode())
    assert command(capfd, said, "run", "--config", str(yaml)) == 2
    for arguments in (
        ("run", f"/data/{bad}.parquet"),
        ("run", "--input", f"/data/{bad}.parquet", "--output", "out", "--engine", "echo"),
        ("run", "--input", f"s3x://{bad}/", "--output", "out", "--engine", "echo"),
        ("run", "--input", f"/data/{bad}*.parquet", "--output", "out", "--engine", "echo"),
        ("run", "--limit", bad),
        ("run", "--set", bad),
        ("run", "--set", f"run.limit={bad}"),
        ("run", "--set", f"run.limit=[{bad}"),
        ("run", "--config", f"/data/{bad}.yaml"),
        ("plan", "--config", str(tmp_path / bad)),
        ("init", str(yaml), bad),
    ):
        assert command(capfd, said, *arguments) == 2, arguments[0]
    said.assert_clean(canaries)


def test_a_column_of_the_wrong_type_is_not_quoted(
    tmp_path: Path, canaries: Canaries, said: Said, capfd: pytest.CaptureFixture[str]
) -> None:
    column = pa.array([{"part": canaries["nested text"]}])
    for folder, columns in {
        "text": {"note_id": [canaries["note id"]], "text": column},
        "id": {"note_id": column, "text": ["A note."]},
    }.items():
        (tmp_path / folder).mkdir()
        write_table(tmp_path / folder / "a.parquet", columns)
        code = command(capfd, said, "run", "--input", str(tmp_path / folder), "--output", str(tmp_path / "out"), "--engine", "echo")
        assert code == 2 and "a plain column is needed" in said.parts[-1][1]
    said.assert_clean(canaries)


def test_what_stands_where_names_of_columns_should_is_not_quoted(
    tmp_path: Path, canaries: Canaries, said: Said, capfd: pytest.CaptureFixture[str]
) -> None:
    with every_log_record(said):
        for folder in plant_unusable(tmp_path, canaries):
            job = ("--input", str(folder), "--output", str(tmp_path / "out"), "--engine", "echo")
            assert command(capfd, said, "plan", *job) == 2, folder.name
            assert command(capfd, said, "run", *job, "--json") == 2, folder.name
    said.assert_clean(canaries)
    assert_files_clean(tmp_path / "out", canaries)


def test_a_suite_that_fails_is_not_quoted(tmp_path: Path, canaries: Canaries, said: Said, capfd: pytest.CaptureFixture[str]) -> None:
    """A user's contract whose checks fail on values, or crash on them, in every result format that Great Expectations has."""
    rules = [
        {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "ward", "value_set": ["a"], "result_format": "COMPLETE"}},
        {"type": "expect_column_values_to_match_regex", "kwargs": {"column": "text", "regex": "^never$"}, "severity": "warning"},
        {"type": "expect_column_values_to_be_between", "kwargs": {"column": "patient_id", "min_value": 3}, "severity": "warning"},
        {"type": "expect_column_values_to_match_strftime_format", "kwargs": {"column": "written_at", "strftime_format": "%Y"}},
        {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "no_such_column", "value_set": ["a"]}, "severity": "warning"},
    ]
    suite = tmp_path / "suite.json"
    suite.write_text(json.dumps({"name": "mine", "expectations": rules}))
    notes, output = plant(tmp_path / "notes", canaries), tmp_path / "out"
    with every_log_record(said):
        job = ("--input", str(notes), "--output", str(output), "--engine", "echo", "--set", f"contract.suite={suite}")
        assert command(capfd, said, "run", *job, "--json") == 3
    said.assert_clean(canaries)
    assert_files_clean(output, canaries)
