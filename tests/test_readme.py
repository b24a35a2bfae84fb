"""The README's code runs: its blocks are executed as they stand, over a real run's output."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipeline.run import run_job
from pipeline.sample import write_sample
from schemas.reasons import FLAGS
from tests.conftest import echo_job, read_rows
from tests.tiny_models import make_model
from transforms.checks import CHECKS, INFORMATIVE
from transforms.formats import SUFFIXES
from transforms.sentences import split_sentences

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(section: str, language: str) -> list[str]:
    """The code blocks of one language under a heading of the second level."""
    text = README.split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    return [code for kind, code in BLOCK.findall(text) if kind == language]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds `out`, a released run over synthetic notes; cut short, so that its summaries have flags."""
    folder = tmp_path_factory.mktemp("readme")
    write_sample(60, folder / "sample", seed=3)
    settings = {"gate.max_quarantined_share": 1, "gate.max_flagged_share": 1, "gate.contract": "ignore", "engine.shard_notes": 25}
    assert run_job(echo_job(folder / "sample" / "notes", folder / "out", **settings)).published.released
    return folder


@pytest.fixture
def answers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[dict[str, Any]]]:
    """What each block of SQL under "Reading the output" gives."""
    monkeypatch.chdir(folder)
    found = []
    with duckdb.connect() as connection:
        for code in blocks("Reading the output", "sql"):
            code = code.replace("'UNSUPPORTED_NUMBER'", f"'{a_flag(folder)}'")
            rows = connection.execute(code)
            names = [column[0] for column in rows.description]
            found.append([dict(zip(names, row, strict=True)) for row in rows.fetchall()])
    return found


def a_flag(folder: Path) -> str:
    """A code that this run has: the echo engine copies, so it invents no number."""
    return min(flag["code"] for row in read_rows(folder / "out", "summaries") for flag in row["flags"])


def test_flags_by_sql(folder: Path, answers: list[list[dict[str, Any]]]) -> None:
    rows, code = read_rows(folder / "out", "summaries"), a_flag(folder)
    wanted = [
        {"note_id": row["note_id"], "number": None if flag["start"] is None else row["summary"][flag["start"] : flag["end"]]}
        for row in sorted(rows, key=lambda row: row["note_id"])
        for flag in row["flags"]
        if flag["code"] == code
    ]
    assert wanted and answers[1] == wanted


def test_evidence_by_sql(folder: Path, answers: list[list[dict[str, Any]]]) -> None:
    weak = [
        e for row in read_rows(folder / "out", "summaries") for e in row["evidence"] or () if e["kind"] == "unsupported" or e["score"] < 0.5
    ]
    assert len(answers[2]) == len(weak)


def test_records_by_sql(folder: Path, answers: list[list[dict[str, Any]]]) -> None:
    summaries = {row["note_id"]: row["summary"] for row in read_rows(folder / "out", "summaries")}
    wanted = [
        (row["note_id"], drug["name"]["text"], summaries[row["note_id"]])
        for row in read_rows(folder / "out", "records")
        for drug in row["medications"]
    ]
    assert sorted((row["note_id"], row["drug"], row["summary"]) for row in answers[3]) == sorted(wanted) != []


def test_pandas(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    [code] = blocks("Reading the output", "python")
    exec(code, names)
    rows = read_rows(folder / "out", "summaries")
    assert sorted(names["summaries"]["note_id"]) == sorted(row["note_id"] for row in rows)
    assert len(names["flagged"]) == sum(len(row["flags"]) for row in rows)


def test_only_released_files_are_read(folder: Path) -> None:
    """What the recipes rely on: live.json and the folder's listing agree while `_SUCCESS` stands."""
    out = folder / "out"
    current = json.loads((out / "_CURRENT.json").read_text())
    live = json.loads((out / current["live"]).read_text())["shards"].values()
    assert (out / "_SUCCESS").exists()
    assert {files["summaries"] for files in live} == {path.relative_to(out).as_posix() for path in (out / current["summaries"]).iterdir()}


def printed(code: str) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(code, {})
    return said.getvalue().strip()


def test_the_engine_with_any_model(tmp_path: Path) -> None:
    code = blocks("The engine without Beam", "python")[0]
    assert len([line for line in code.splitlines() if line]) <= 5
    assert printed(code.replace("path/to/model", str(make_model("t5", tmp_path / "model"))))


def test_the_engine_with_the_default_model() -> None:
    code = blocks("The engine without Beam", "python")[1]
    names: dict[str, Any] = {}
    exec(code, names)
    sentences = [names["note"][start:end] for start, end in split_sentences(names["note"])]
    assert set(printed(code).split(". ")) <= {part for sentence in sentences for part in (sentence, sentence.rstrip("."))}


def test_every_command_is_listed() -> None:
    from pipeline.cli import app

    commands = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    assert sorted(name for name in commands if f"`chartmill {name}" not in README) == []


def test_every_check_its_flags_and_what_counts_are_listed() -> None:
    table = README.split("\n## What is checked\n", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| `(\w+)` \| ([A-Z_, ]+) \| .* \| (yes|no) \|$", table, re.MULTILINE)
    assert tuple(dict.fromkeys(check for check, _, _ in rows)) == CHECKS
    counts = {code: counts for _, codes, counts in rows for code in codes.split(", ")}
    assert counts == {code: "no" if code in INFORMATIVE else "yes" for code in FLAGS}


def test_every_suffix_is_listed() -> None:
    table = README.split("\n## Inputs\n", 1)[1].split("\n## ", 1)[0]
    assert {suffix for suffix in SUFFIXES if f"`{suffix}`" not in table} == set()
