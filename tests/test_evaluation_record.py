"""`chartmill evaluate --task record` from the command line: the JSON contract, whose records, and that no text gets out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.cli import main
from pipeline.run import run_job
from pipeline.sample import write_sample
from schemas.record import RECORD_TYPE
from tests.canaries import Canaries, Said, assert_files_clean, command, every_log_record
from tests.conftest import echo_job, write_notes
from transforms.record import parse_record

_TEXTS = (
    "50 year old man.\nProblems: asthma, gout\nMedications:\n- ramipril 5 mg by mouth once daily\nVital signs: BP 130/80, pulse 71\n",
    "61 year old woman.\nAllergies: latex (hives)\nFamily history: stroke\nVital signs: pulse 64, weight 60 kg\n",
    "7 year old girl with a sore throat for two days, otherwise well and drinking.\n",
)


def gold_rows(count: int) -> list[dict[str, Any]]:
    """Notes with our own reader's records as gold: every score is 100."""
    texts = [_TEXTS[i % len(_TEXTS)] for i in range(count)]
    return [{"note_id": f"n{i}", "text": text, "gold": json.dumps(parse_record(text))} for i, text in enumerate(texts)]


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["evaluate", "--task", "record", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return write_notes(tmp_path / "notes.parquet", gold_rows(9))


def test_the_line(notes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluated(capsys, "--input", str(notes), "--gold-format", "chartmill")
    assert found["n"] == 9
    assert found["fields"]["medications.dose"] == {"precision": 100.0, "recall": 100.0, "f1": 100.0, "n": 3, "said": 3}
    assert found["micro_f1"] == found["assertion_accuracy"] == found["offsets"]["micro_f1"] == 100.0
    assert found["micro_f1_interval"] == [100.0, 100.0]
    assert found["grounded_share"] == 1.0
    assert (found["failed"], found["left_out"], found["reader"], found["gold_format"]) == (0, {}, "rules", "chartmill")
    assert sum(field["n"] for field in found["fields"].values()) <= found["values"]


def test_what_is_wrong_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = gold_rows(3)
    wrong = json.loads(rows[0]["gold"])
    wrong["problems"][0]["name"] |= {"text": "eczema"}
    wrong["problems"][1]["name"] |= {"assertion": "absent", "start": 0}
    rows[0]["gold"] = json.dumps(wrong)
    found = evaluated(capsys, "--input", str(write_notes(tmp_path / "n.parquet", rows)), "--limit", "2")
    assert found["stopped_at_limit"]
    # Right are gout and the family's stroke of three each; by offsets the stroke and what gold now calls eczema.
    assert found["fields"]["problems"] == {"precision": 66.667, "recall": 66.667, "f1": 66.667, "n": 3, "said": 3}
    assert found["offsets"]["fields"]["problems"]["f1"] == 66.667
    assert found["assertions"]["absent"] == {"present": 1}
    low, high = found["micro_f1_interval"]
    assert low < found["micro_f1"] < high == 100.0


def test_gold_of_samples_lies_beside_the_notes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = write_sample(60, tmp_path, seed=3)
    found = evaluated(capsys, "--input", str(tmp_path / "notes"), "--gold", str(summary.gold))
    assert found["n"] + sum(found["left_out"].values()) == 60
    assert found["left_out"]["no_gold"]
    assert found["fields"]["age"]["f1"] > 90
    assert found["offsets"] is not None
    assert found["grounded_share"] == 1.0


def test_gold_beside_the_notes_may_be_json(notes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pq.read_table(notes, columns=["note_id", "gold"])
    pq.write_table(table, tmp_path / "gold.parquet")
    assert evaluated(capsys, "--input", str(notes), "--gold", str(tmp_path / "gold.parquet"))["micro_f1"] == 100.0


def test_a_finished_run_is_scored_as_its_reader_is(notes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_job(echo_job(notes, tmp_path / "out"))
    rows = [*gold_rows(9), {"note_id": "new", "text": _TEXTS[0], "gold": "{}"}]
    rows[9]["gold"] = rows[0]["gold"]
    rows[1]["text"] += "Amended."
    later = write_notes(tmp_path / "later.parquet", rows)
    capsys.readouterr()
    ran = evaluated(capsys, "--input", str(later), "--output-folder", str(tmp_path / "out"))
    assert ran["left_out"] == {"changed": 1, "not_in_run": 1}
    assert (ran["n"], ran["micro_f1"], ran["grounded_share"], ran["reader"]) == (8, 100.0, 1.0, None)


def test_what_the_run_set_aside_is_missed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = gold_rows(4)
    rows[3] |= {"text": "short"}
    path = write_notes(tmp_path / "notes.parquet", rows)
    run_job(echo_job(path, tmp_path / "out"))
    capsys.readouterr()
    found = evaluated(capsys, "--input", str(path), "--output-folder", str(tmp_path / "out"))
    assert (found["n"], found["failed"], found["failed_reasons"]) == (4, 1, {"TEXT_TOO_SHORT": 1})
    assert found["fields"]["medications"]["recall"] == 50.0


def test_values_that_are_not_in_the_note_are_counted(
    notes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def shifted(text: str) -> dict[str, Any]:
        record = parse_record(text)
        record["age"] |= {"start": record["age"]["start"] + 1}
        return record

    monkeypatch.setattr("transforms.record.parse_record", shifted)
    found = evaluated(capsys, "--input", str(notes))
    assert found["grounded_share"] == pytest.approx(1 - 9 / found["values"], abs=1e-5)
    assert found["fields"]["age"]["f1"] == 100.0 > found["offsets"]["fields"]["age"]["f1"] == 0.0


def test_rows_without_text_or_gold_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = gold_rows(6)
    rows[1]["gold"], rows[2]["text"], rows[3]["gold"], rows[4]["gold"] = None, " ", "[1, 2]", "{half"
    found = evaluated(capsys, "--input", str(write_notes(tmp_path / "notes.parquet", rows)))
    assert (found["n"], found["left_out"]) == (2, {"no_gold": 1, "no_text": 1, "unreadable_gold": 2})


def test_the_table(notes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--task", "record", "--input", str(notes)]) == 0
    told = capsys.readouterr()
    for words in ("medications.frequency", "F1 by offsets", "micro F1 100.0 [100.0, 100.0]", "assertion right", "at their offsets: 100.0%"):
        assert words in told.out
    assert "…" not in told.out, "cut off at 80 characters"
    assert "9 notes with gold" in told.err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--gold-format", "i2b2"), "choices: chartmill, synthea, glaucoma, phee, neiss, vaers"),
        (("--gold-column", "right"), "--gold-column: no column right"),
        (("--gold-format", "phee"), "no note has gold in the form of phee (9 unreadable gold)"),
        (("--model", "default"), "--model: belongs to --task summary"),
        (("--html", "cases.html"), "--html: belongs to --task summary"),
        (("--gold", "nowhere.parquet"), "--gold: cannot be read as a Parquet file"),
        (("--output-folder", "nowhere"), "no run has been planned"),
    ],
)
def test_what_cannot_be_done_is_named(
    notes: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], named: str
) -> None:
    monkeypatch.chdir(notes.parent)
    assert main(["evaluate", "--task", "record", "--input", str(notes), *arguments]) == 2
    assert named in " ".join(capsys.readouterr().err.split())


def test_gold_beside_the_notes_needs_its_columns(notes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(pa.table({"id": ["n0"], "record": pa.array([None], RECORD_TYPE)}), tmp_path / "gold.parquet")
    assert main(["evaluate", "--task", "record", "--input", str(notes), "--gold", str(tmp_path / "gold.parquet")]) == 2
    assert "--gold: lacks the columns note_id" in capsys.readouterr().err


def test_no_text_gets_out(tmp_path: Path, canaries: Canaries, said: Said, capfd: pytest.CaptureFixture[str]) -> None:
    c = canaries
    rows = gold_rows(6)
    for i, row in enumerate(rows):
        row["text"] = f"Allergies: {c['substance']}\nProblems: {c['problem']}\n" + row["text"]
        record = parse_record(row["text"])
        record["sex"] = {"text": c["gold sex"], "start": 0, "end": 3, "assertion": c["assertion"]}
        row["gold"] = json.dumps(record)
        row["note_id"], row["ward"] = f"{c['note id']}{i}", c["pass-through value"]
    rows[4]["gold"] = f'{{"age": "{c["broken gold"]}'
    rows[5]["gold"] = json.dumps({"age": c["odd gold"], "problems": c["odd problems"]})
    path = write_notes(tmp_path / f"{c['file name']}.parquet", rows)
    pq.write_table(pa.Table.from_pylist([{"note_id": row["note_id"], "gold": row["gold"]} for row in rows]), tmp_path / "gold.parquet")
    (tmp_path / "broken").mkdir()
    broken = tmp_path / "broken" / f"{c['corrupt file name']}.parquet"
    broken.write_bytes(f"PAR1 {c['corrupt content']}".encode())
    scored = ("evaluate", "--task", "record", "--json", "--input")
    with every_log_record(said):
        assert command(capfd, said, "run", "--input", str(path), "--output", str(tmp_path / "out"), "--engine", "echo") in (0, 3)
        assert command(capfd, said, *scored, str(path)) == 0
        assert command(capfd, said, *scored, str(path), "--gold", str(tmp_path / "gold.parquet")) == 0
        assert command(capfd, said, *scored, str(path), "--output-folder", str(tmp_path / "out")) == 0
        for name in ("synthea", "glaucoma", "phee", "neiss", "vaers"):
            assert command(capfd, said, *scored, str(path), "--gold-format", name) == 2
        assert command(capfd, said, *scored, str(path), "--gold", str(broken)) == 2
        assert command(capfd, said, *scored, str(tmp_path / "broken")) == 2
    said.assert_clean(canaries)
    assert_files_clean(tmp_path / "out", canaries)
