"""Summaries of somebody else."""

from __future__ import annotations

import pytest

from transforms.checks import Case, run_checks

NOTE = "Mrs. Ostrander is a 62-year-old woman with gout since age 40. She lives with her husband, who is 70. He drives her."


@pytest.mark.parametrize(
    ("summary", "said"),
    [
        ("A 26-year-old woman with gout.", "26-year-old"),
        ("A 62-year-old man with gout.", "man"),
        ("Mrs. Pilkington has gout.", "Mrs. Pilkington"),
    ],
)
def test_another_patient_is_flagged(summary: str, said: str) -> None:
    (flag,) = run_checks(Case(NOTE, summary), ["patient"])
    assert flag.code == "PATIENT_MISMATCH" and summary[flag.start : flag.end] == said
    assert flag.source_start is not None


@pytest.mark.parametrize(
    "summary",
    [
        "A 62-year-old woman.",
        "Mrs. Ostrander has gout.",
        "Gout in a female patient.",
        "He drives her.",
        "Gout since the age of 40.",
        "She has gout.",
    ],
)
def test_the_same_patient_is_not(summary: str) -> None:
    assert run_checks(Case(NOTE, summary), ["patient"]) == ()


def test_a_note_that_contradicts_itself_tells_no_sex() -> None:
    note = "A 62-year-old woman. He has gout. He walks. His foot hurts him."
    assert run_checks(Case(note, "A 62-year-old man."), ["patient"]) == ()
