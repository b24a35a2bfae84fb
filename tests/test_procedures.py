"""Procedures: lists, what was done, dated names; and what was not done."""

from __future__ import annotations

import pytest

from tests.records import check_offsets, said
from transforms.record import parse_record


def procedures(text: str) -> list[tuple[str | None, ...]]:
    check_offsets(text)
    return [said(procedure, "name", "date") for procedure in parse_record(text)["procedures"]]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("S/p throat swab on 2019-04-13. S/p scan of the left wrist on 2019-05-02.", ["throat swab", "scan of the left wrist"]),
        ("Status post appendectomy and hernia repair.", ["appendectomy", "hernia repair"]),
        ("She underwent an uncomplicated knee arthroscopy for pain.", ["knee arthroscopy"]),
        ("Procedures in the last two years: spirometry (2018-02-03); skin biopsy (2018-07-09).", ["spirometry", "skin biopsy"]),
        ("BP 120/70 SpO2 97% on room air Allergy panel 2019-03-01; Stitching of wound 2019-04-01", ["Allergy panel", "Stitching of wound"]),
        ("Colonoscopy was performed and showed two polyps.", ["Colonoscopy"]),
    ],
)
def test_procedures_in_running_text(text: str, found: list[str]) -> None:
    assert [name for name, _ in procedures(text)] == found


@pytest.mark.parametrize(
    "text",
    [
        "S/p fall on 2019-04-13 with a fracture.",
        "She has never undergone surgery.",
        "Colonoscopy was recommended.",
        "BP 120/70 Last seen 2019-03-01",
        "Status post stroke.",
    ],
)
def test_no_procedure_is_read_from(text: str) -> None:
    assert procedures(text) == []


def test_dates_in_words_and_digits() -> None:
    text = "PROCEDURES:\n- Cataract surgery, 4 March 2019\n- 2018-01-02: Biopsy\n- Tonsillectomy (1999)"
    assert procedures(text) == [("Cataract surgery", "4 March 2019"), ("Biopsy", "2018-01-02"), ("Tonsillectomy", "1999")]
