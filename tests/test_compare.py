"""`chartmill compare` as a command: real processes, contenders that fail, and not a word of any note."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pipeline.bench_turns import Contender, try_turns
from pipeline.cli import main
from pipeline.compare import read_material
from pipeline.comparison.contenders import read_entrants
from pipeline.comparison.runs import Summarizing
from schemas.errors import ConfigurationError
from tests.canaries import Canaries, Said, command
from tests.conftest import note_rows, note_text, write_notes
from tests.failing_contenders import SECRET, Failing, never
from tests.tiny_models import make_model


def test_those_that_fail_leave_the_others_to_their_work() -> None:
    makers: dict[str, Callable[[], Contender]] = {
        "good": Failing,
        "unmade": never,
        "killed": partial(Failing, "killed", 2),
        "refused": partial(Failing, "refused", 0),
        "broken": partial(Failing, "broken", 1),
    }
    turns, failures = try_turns(makers, 2)
    assert {name: len(mine) for name, mine in turns.items()} == {"good": 2}
    assert set(failures) == set(makers) - {"good"} and SECRET not in str(failures)
    assert failures["killed"].startswith("its process was killed") and failures["refused"] == "engine.dtype: choose another"
    assert failures["unmade"].startswith("ValueError") and failures["broken"].startswith("ValueError")


def test_a_contender_warms_up_on_a_few_notes_then_does_them_all() -> None:
    [echo] = read_entrants(["backend=echo"])
    contender = Summarizing(echo.job, [note_text(i, 8) for i in range(9)] + [" "])
    assert [contender.turn().notes for _ in range(3)] == [4, 10, 10]
    turn = contender.turn()
    made = turn.facts["summaries"]
    assert [one.failed for one in made] == [None] * 9 + ["MISSING_TEXT"] and all(one.text for one in made[:9])
    assert turn.seconds > 0 and turn.facts["engine"]["backend"] == "echo"


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Nine notes with references and one without, and one note without text."""
    rows = [{**row, "reference": row["text"][:40]} for row in note_rows(10)]
    rows[3]["reference"] = None
    rows.append({**rows[0], "note_id": "blank", "text": " "})
    return write_notes(tmp_path / "pairs.parquet", rows)


def test_references_are_used_where_there_are_some(pairs: Path, tmp_path: Path) -> None:
    found = read_material([str(pairs)], "text", None, None, None)
    assert found.references is not None and len(found.texts) == len(found.references) == 9
    assert found.left_out == {"no_reference": 1, "no_text": 1}
    assert read_material([str(pairs)], "text", "", None, None).references is None
    bare = write_notes(tmp_path / "bare.parquet", note_rows(3))
    assert read_material([str(bare)], "text", None, None, 2).references is None
    with pytest.raises(ConfigurationError, match="--reference: "):
        read_material([str(bare)], "text", "reference", None, None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--contender", "dtypes=int8"], "unknown key 'dtypes'"),
        (["--contender", "model=/nowhere"], "--contender: number 1: model: '/nowhere' is not a folder"),
        (["--contender", "backend=echo", "--gate", "max_flagged=1"], "--gate: NAME=SHARE"),
        (["--contender", "backend=echo", "--gate", "max_flagged_share=2"], "--gate: NAME=SHARE"),
        (["--contender", "backend=echo", "--price-per-hour", "0"], "--price-per-hour: "),
        (["--contender", "backend=echo", "--against", "other"], "--against: 'other' is not one of echo"),
        (["--contender", "backend=echo", "--by", "bleu"], "'bleu' is not one of 'rouge1', 'rouge2', 'rougeLsum'"),
        ([], "--contender: none"),
    ],
)
def test_mistakes_are_told_before_anything_runs(arguments: list[str], message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--input", "notes.parquet", *arguments]) == 2
    assert message in capfd.readouterr().err


def test_a_page_is_not_put_over_something_else(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.html").write_text("mine")
    assert main(["compare", "-i", "x", "--contender", "backend=echo", "--html", str(tmp_path / "mine.html")]) == 2
    assert "--html: something else" in capfd.readouterr().err and (tmp_path / "mine.html").read_text() == "mine"


# Each contender is a process that imports what a job does: seconds.
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_command_compares_and_says_nothing_of_the_notes(
    tmp_path: Path, canaries: Canaries, said: Said, capfd: pytest.CaptureFixture[str]
) -> None:
    c = canaries
    rows = [
        {**row, "text": f"{row['text']} Seen with {c['text']}.", "reference": f"{c['reference']} {row['text'][:60]}"}
        for row in note_rows(8)
    ]
    rows[0]["note_id"] = c["note id"]
    notes = write_notes(tmp_path / f"{c['file name']}.parquet", rows)
    model = make_model("bart", tmp_path / "tiny")
    page = tmp_path / "compare.html"
    contenders = ["backend=echo", f"model={model},dtype=float32", f"model={model},backend=ctranslate2,dtype=bfloat16,name=absent"]
    options = ["--repeats", "2", "--price-per-hour", "0.4", "--gate", "max_flagged_share=1", "--html", str(page), "--json"]
    code = command(capfd, said, "compare", "--input", str(notes), *(f"--contender={told}" for told in contenders), *options)
    said.add("page", page.read_text())
    said.assert_clean(canaries)
    assert code == 0, said.parts
    told = json.loads(dict(said.parts)["stdout of compare"].splitlines()[-1])
    echo, tiny, absent = told["contenders"]
    assert (echo["name"], tiny["name"], absent["name"]) == ("echo", "tiny float32", "absent")
    assert "no bfloat16" in absent["failure"] and absent["scores"] is None
    assert echo["scores"]["rouge1"] > 20 and echo["passes_gate"] and echo["peak_mb"] > 50 and echo["cost_per_1000"] > 0
    assert tiny["difference"]["rouge1"]["high"] < 0 and tiny["difference"]["same_share"] == 0
    assert told["cheapest"] == "echo" and told["n"] == 8 and told["verdict"].startswith("The cheapest that passes the gate")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nobody_able_to_run_is_a_failure(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    notes = write_notes(tmp_path / "notes.parquet", note_rows(3))
    model = make_model("bart", tmp_path / "tiny")
    told = f"model={model},backend=ctranslate2,dtype=bfloat16"
    assert main(["compare", "-i", str(notes), "--contender", told, "--repeats", "1", "--json"]) == 1
    said = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert said["exit_code"] == 1 and said["contenders"][0]["failure"] and said["cheapest"] is None
