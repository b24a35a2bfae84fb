"""The study of the checks on small pairs: what it counts, what it leaves out, and the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import cli
from pipeline.check_study import (
    INTENDED,
    Columns,
    agreement,
    detection,
    extracts,
    false_alarms,
    leads,
    newly_raised,
    rewordings,
    speed,
    study_file,
    wrong_versions,
)
from pipeline.planted import PLANTERS, Pair
from schemas.errors import ConfigurationError
from schemas.reasons import FLAGS
from tests.canaries import canary
from tests.test_planted import ANNA, BORIS
from transforms.checks import CHECKS, Flag
from transforms.sentences import split_sentences

PAIRS = (ANNA, BORIS)


def write(path: Path, **columns: Sequence[Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_every_kind_of_error_has_codes_that_are_meant_to_find_it() -> None:
    assert set(INTENDED) == set(PLANTERS)
    assert not [beginning for codes in INTENDED.values() for beginning in codes if not any(code.startswith(beginning) for code in FLAGS)]


def test_a_false_alarm_counts_once_a_summary() -> None:
    strange = Pair(ANNA.text, "She is 77 years old, weighs 88 kg and takes 99 mg.")
    figures = false_alarms([ANNA, strange], ["numbers"])
    assert figures == {"summaries": 2, "flagged": 1, "codes": {"UNSUPPORTED_NUMBER": 1}}


def test_informative_flags_are_counted_but_do_not_count_against_a_summary() -> None:
    long = " ".join(f"The visit on ward {word} was calm." for word in ("north south east west upper lower inner outer " * 3).split())
    figures = false_alarms([Pair(long, long)], ["coverage"])
    assert figures["codes"] == {"NO_COMPRESSION": 1}
    assert figures["flagged"] == 0


def test_planted_errors_are_found_by_the_check_that_is_meant_to_and_by_no_other() -> None:
    found = detection(PAIRS, ["numbers"])
    assert found["changed_number"]["planted"] == found["changed_number"]["intended"] == found["changed_number"]["overlapping"] == 2
    assert found["repeated_sentence"]["planted"] == 2
    assert found["repeated_sentence"]["intended"] == 0
    repeated = detection(PAIRS, ["repetition"])
    assert repeated["changed_number"]["any"] == 0
    assert repeated["repeated_sentence"]["codes"] == {"REPEATED_TEXT": 2}


def test_a_flag_without_a_place_is_found_but_at_no_place() -> None:
    found = detection(PAIRS, ["truncation"])["cut_off"]
    assert found["intended"] == found["spanless"] == 2
    assert found["overlapping"] == 0


def test_detection_is_repeatable_by_seed() -> None:
    assert detection(PAIRS, CHECKS, seed=3) == detection(PAIRS, CHECKS, seed=3)


def test_a_flag_on_right_and_wrong_alike_is_no_find() -> None:
    flag = Flag("UNSUPPORTED_NUMBER", 3, 4)
    assert newly_raised([flag], [Flag("UNSUPPORTED_NUMBER", 9, 10)]) == set()
    assert newly_raised([flag], [flag, flag]) == {"UNSUPPORTED_NUMBER"}


def test_leads_and_extracts_are_sentences_of_the_note() -> None:
    (lead,), (extract,) = leads([ANNA]), extracts([ANNA])
    sentences = [ANNA.text[start:end].strip() for start, end in split_sentences(ANNA.text)]
    assert ANNA.text.startswith(lead.summary)
    assert all(extract.summary[start:end].strip() in sentences for start, end in split_sentences(extract.summary))
    assert 2 <= len(split_sentences(extract.summary)) < len(sentences)


def test_rewordings_are_extracts_that_no_longer_are_copies() -> None:
    (extract,), (reworded,) = extracts([ANNA]), rewordings([ANNA])
    assert reworded.summary != extract.summary
    assert "blood pressure" in reworded.summary
    assert len(split_sentences(reworded.summary)) == len(split_sentences(extract.summary))


def test_wrong_versions_are_compared_with_the_right_ones() -> None:
    found = wrong_versions([(ANNA, ANNA.summary.replace("20 mg", "200 mg")), (BORIS, BORIS.summary)], ["numbers"])
    assert found == {"pairs": 2, "found": 1, "codes": {"UNSUPPORTED_NUMBER": 1}}


@pytest.mark.slow
def test_agreement_with_people() -> None:
    texts = ["She takes 11 mg.", "She takes 6 mg and 7 mg.", "She takes 20 mg.", "She takes 8 mg, 9 mg and 10 mg."]
    figures = agreement([Pair(ANNA.text, text) for text in texts], {"wrong": [1, 2, 0, 3], "right": [2, 1, 3, 0]}, ["numbers"])
    assert figures["wrong"]["UNSUPPORTED_NUMBER"]["rho"] == pytest.approx(1)
    assert figures["right"]["flags"]["rho"] == pytest.approx(-1)
    assert figures["right"]["unsupported or contradicted"]["rho"] == pytest.approx(-1)
    assert figures["right"]["omitted"]["rho"] is None


def test_speed_is_the_median_of_every_check_and_of_all() -> None:
    ticks = iter(range(1000))
    assert speed(PAIRS, ["numbers", "units"], clock=lambda: next(ticks)) == {"numbers": 1000, "units": 1000, "all": 1000}


def test_a_file_is_studied_as_far_as_its_columns_go(tmp_path: Path) -> None:
    path = write(
        tmp_path / "pairs.parquet",
        text=[ANNA.text, BORIS.text, ANNA.text, None],
        reference=[ANNA.summary, BORIS.summary, " ", "None."],
        candidate=[ANNA.summary, "He is 99.", "She is 98.", "None."],
        score=[0.0, 1.0, None, 1.0],
        wrong=["He took 77 mg.", None, None, None],
    )
    figures = study_file(path, Columns(wrong="wrong", scores={"hallucination": "score"}))
    assert figures["rows"] == 4
    assert figures["false_alarms"]["references"]["summaries"] == 2
    assert figures["wrong"]["pairs"] == 1
    assert figures["agreement"]["hallucination"]["UNSUPPORTED_NUMBER"]["rho"] == pytest.approx(1)
    assert "agreement" not in study_file(path, Columns())
    assert study_file(path, Columns(), limit=1)["rows"] == 1


@pytest.mark.parametrize("columns", [Columns(reference="summary"), Columns(scores={"x": "no_such"}), Columns(wrong="no_such")])
def test_a_missing_column_is_told_by_the_name_that_was_asked_for(tmp_path: Path, columns: Columns) -> None:
    path = write(tmp_path / "pairs.parquet", text=["a"], reference=["a"], candidate=["a"], private=["a"])
    with pytest.raises(ConfigurationError, match=r"no column (?:summary|no_such)") as error:
        study_file(path, columns)
    assert "private" not in str(error.value)


def test_the_command_prints_counts_and_no_text(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name, noted, told = canary(), canary(), canary()
    path = write(
        tmp_path / f"{name}.parquet",
        text=[f"{noted} {pair.text}" for pair in PAIRS],
        reference=[f"{pair.summary} Seen by {told}." for pair in PAIRS],
    )
    assert cli.main(["bench", "checks", "--input", str(path), "--checks", "numbers, units", "--json"]) == 0
    out, err = capfd.readouterr()
    last = json.loads(out.splitlines()[-1])
    assert last["study"]["checks"] == ["numbers", "units"]
    assert last["study"]["detection"]["tenfold_dose"]["planted"] == 2
    assert "tenfold dose" in out
    assert not [word for word in (name, noted, told, "lisinopril", "Anna") if word in out + err]


def test_the_command_has_help_with_an_example(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "checks", "--help"]) == 0
    assert "Example: chartmill bench checks " in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--checks", "spelling"], "unknown check 'spelling'"),
        (["--human", "score"], "NAME=COLUMN"),
        (["--text-column", "body"], "no column body"),
    ],
)
def test_bad_usage_is_said(tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    path = write(tmp_path / "pairs.parquet", text=["a"], reference=["a"])
    assert cli.main(["bench", "checks", "--input", str(path), *arguments]) == 2
    assert message in capfd.readouterr().err


def test_a_file_that_is_no_parquet_is_said_without_its_name(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    name, content = canary(), canary()
    path = tmp_path / f"{name}.parquet"
    path.write_text(content)
    assert cli.main(["bench", "checks", "--input", str(path)]) == 2
    err = capfd.readouterr().err
    assert "cannot be read" in err
    assert name not in err and content not in err
