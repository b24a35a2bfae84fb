"""`chartmill evaluate` from the command line: the JSON contract, whose summaries, what is left out, and that no text gets out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.cli import main
from pipeline.rouge import first_and_last, lead, score_rouge
from pipeline.run import run_job
from tests.canaries import Canaries, Said, assert_files_clean, command, every_log_record
from tests.conftest import SENTENCES, echo_job, note_rows, write_notes

WORDS = 16


def pair_rows(count: int) -> list[dict[str, Any]]:
    """Notes whose references are two of our sentences in other words."""
    return [
        {**row, "reference": f"{SENTENCES[i % 8].lower()} Also: {SENTENCES[(i * 5 + 3) % 8]}"} for i, row in enumerate(note_rows(count))
    ]


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_notes(tmp_path / "pairs.parquet", pair_rows(24))


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["evaluate", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def echo(path: Path) -> tuple[str, ...]:
    return "--input", str(path), "--backend", "echo", "--set", "tasks.summary.decode.max_new_tokens=12", "--baseline-words", str(WORDS)


def test_the_line_and_the_scores(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluated(capsys, "--task", "summary", *echo(pairs))
    assert found["scores"].keys() == found["intervals"].keys() == {"rouge1", "rouge2", "rougeLsum"}
    assert found["baselines"].keys() == {"lead", "first_last", "copy"}
    assert (found["n"], found["pairs"], found["failed"], found["left_out"], found["bertscore"]) == (24, 24, 0, {}, None)
    rows = pq.read_table(pairs).to_pylist()
    references = [row["reference"] for row in rows]
    for name, texts in {
        "lead": [lead(row["text"], WORDS) for row in rows],
        "first_last": [first_and_last(row["text"], WORDS // 2) for row in rows],
        "copy": [row["text"] for row in rows],
    }.items():
        wanted = score_rouge(texts, references)
        assert found["baselines"][name] == pytest.approx(
            {"rouge1": wanted.rouge1, "rouge2": wanted.rouge2, "rougeLsum": wanted.rouge_lsum}, abs=1e-3
        )
    for measure, score in found["scores"].items():
        low, high = found["intervals"][measure]
        assert low < score < high
        told = found["differences"]["copy"][measure]
        assert told["difference"] == pytest.approx(score - found["baselines"]["copy"][measure], abs=2e-3)
        assert 0 <= told["share_above_zero"] <= 1
    assert found["oracle"]["rouge1"] > found["scores"]["rouge1"]
    assert found["novelty"]["summary"]["1-grams"] == 0.0 < found["novelty"]["reference"]["1-grams"]
    assert found["flags_per_100"] >= 0
    assert found["model"]["id"] == "echo"
    assert found["machine"]["cores"] >= 1


def test_the_same_seed_gives_the_same_intervals(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    once, again, other = (evaluated(capsys, *echo(pairs), "--seed", seed)["intervals"] for seed in ("1", "1", "2"))
    assert once == again != other


def test_a_finished_run_is_scored_as_its_model_is(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_job(echo_job(pairs, tmp_path / "out", "tasks.summary.decode.max_new_tokens=12"))
    capsys.readouterr()
    ran = evaluated(capsys, "--input", str(pairs), "--output-folder", str(tmp_path / "out"), "--baseline-words", str(WORDS))
    fresh = evaluated(capsys, *echo(pairs))
    for same in ("scores", "intervals", "baselines", "flags_per_100", "novelty", "compression", "coverage", "words", "n"):
        assert ran[same] == fresh[same], same
    assert ran["model"]["id"] == "echo"


def test_what_the_run_does_not_know_is_left_out_and_what_it_set_aside_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = pair_rows(8)
    ran = [*rows[:5], {**rows[5], "text": rows[5]["text"] + " Amended."}, {**rows[6], "text": "short"}]
    run_job(echo_job(write_notes(tmp_path / "ran.parquet", ran), tmp_path / "out"))
    pairs = write_notes(tmp_path / "pairs.parquet", [*rows[:6], ran[6], rows[7]])
    capsys.readouterr()
    found = evaluated(capsys, "--input", str(pairs), "--output-folder", str(tmp_path / "out"))
    assert found["left_out"] == {"changed": 1, "not_in_run": 1}
    assert (found["n"], found["failed"], found["failed_reasons"]) == (6, 1, {"TEXT_TOO_SHORT": 1})


def test_rows_without_text_or_reference_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = pair_rows(6)
    rows[1]["reference"], rows[2]["reference"], rows[3]["text"], rows[4]["text"] = None, " \n", None, ""
    found = evaluated(capsys, *echo(write_notes(tmp_path / "pairs.parquet", rows)))
    assert (found["n"], found["left_out"]) == (2, {"no_reference": 2, "no_text": 2})


def test_several_columns_of_references(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**row, "plan": SENTENCES[7]} for row in pair_rows(5)]
    rows[4]["reference"] = None
    path = write_notes(tmp_path / "pairs.parquet", rows)
    found = evaluated(capsys, *echo(path), "--reference", "reference", "--reference", "plan")
    assert (found["n"], found["pairs"]) == (5, 9)
    assert {name: column["n"] for name, column in found["references"].items()} == {"reference": 4, "plan": 5}
    for measure, pooled in found["scores"].items():
        per_column = [column["n"] * column["scores"][measure] for column in found["references"].values()]
        assert pooled == pytest.approx(sum(per_column) / 9, abs=2e-3)


def test_the_first_so_many_notes(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluated(capsys, *echo(pairs), "--limit", "7")
    assert (found["n"], found["stopped_at_limit"]) == (7, True)
    assert not evaluated(capsys, *echo(pairs), "--limit", "24")["stopped_at_limit"]


def test_lines_of_json_without_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"body": row["text"], "summary": row["reference"]}) + "\n" for row in pair_rows(5)))
    found = evaluated(capsys, *echo(path), "--text-column", "body", "--reference", "summary")
    assert found["n"] == 5


def test_the_table(pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", *echo(pairs)]) == 0
    told = capsys.readouterr()
    for words in (
        "ROUGE-1",
        "first 8 + last 8",
        "the whole note",
        "oracle extract",
        "not in the note",
        "best baseline",
    ):
        assert words in told.out
    assert "…" not in told.out, "cut off at 80 characters"
    assert "24 notes with references" in told.err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--task", "codes"), "--task: 'codes' cannot be evaluated; choices: summary, record"),
        (("--html", "s3://bucket/cases.html"), "local file only"),
        (("--output-folder", "out", "--model", "default"), "leave out one of them"),
        (("--reference", "gold"), "--reference: no column gold"),
        (("--beams", "4", "--set", "tasks.summary.decode.beams=4"), "choices: num_beams"),
        (("--dtype", "int3"), "engine.dtype"),
    ],
)
def test_what_cannot_be_done_is_named(pairs: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], named: str) -> None:
    assert main(["evaluate", "--input", str(pairs), *arguments]) == 2
    assert named in capsys.readouterr().err


def test_no_input_and_nothing_to_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate"]) == 2
    assert "--input: nothing given" in capsys.readouterr().err
    empty = write_notes(tmp_path / "pairs.parquet", [{**row, "reference": ""} for row in note_rows(3)])
    assert main(["evaluate", *echo(empty)]) == 2
    assert "no reference: 3" in capsys.readouterr().err


def test_an_output_folder_without_a_run(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--input", str(pairs), "--output-folder", str(tmp_path / "none")]) == 2
    assert "no run has been planned" in capsys.readouterr().err


def test_a_page_is_written(pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "cases.html"
    assert main(["evaluate", *echo(pairs), "--html", str(page)]) == 0
    assert "contains patient text" in capsys.readouterr().out
    assert SENTENCES[3] in page.read_text()


def test_no_text_gets_out(tmp_path: Path, canaries: Canaries, said: Said, capfd: pytest.CaptureFixture[str]) -> None:
    c = canaries
    rows = pair_rows(6)
    for i, row in enumerate(rows):
        row["text"] += f" Seen with {c['text']} and {i + 11} mg."
        row["reference"] += f" {c['reference']} 99 mg."
        row["note_id"], row["ward"] = f"{c['note id']}{i}", c["pass-through value"]
    rows[5]["text"] = f"\x01\x02{c['unprintable text']}"
    path = write_notes(tmp_path / f"{c['file name']}.parquet", rows)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / f"{c['corrupt file name']}.parquet").write_bytes(f"PAR1 {c['corrupt content']}".encode())
    with every_log_record(said):
        assert command(capfd, said, "run", "--input", str(path), "--output", str(tmp_path / "out"), "--engine", "echo") in (0, 3)
        assert command(capfd, said, "evaluate", *echo(path), "--json", "--html", str(tmp_path / "cases.html")) == 0
        assert command(capfd, said, "evaluate", "--input", str(path), "--output-folder", str(tmp_path / "out"), "--json") == 0
        assert command(capfd, said, "evaluate", *echo(path), "--reference", "gold", "--json") == 2
        assert command(capfd, said, "evaluate", *echo(tmp_path / "broken"), "--json") == 2
        assert command(capfd, said, "evaluate", *echo(path), "--text-column", "note", "--json") == 2
    said.assert_clean(canaries)
    assert_files_clean(tmp_path / "out", canaries)
