"""Dates in several spellings, and summaries that state another one."""

from __future__ import annotations

import pytest

from transforms.checks import Case, run_checks
from transforms.dates import find_dates, supports


@pytest.mark.parametrize(
    "written",
    [
        "2019-05-31",
        "31.05.2019",
        "5/31/2019",
        "31/5/19",
        "May 31, 2019",
        "31 May 2019",
        "31st of May, 2019",
        "31-May-2019",
        "May 31st 2019",
    ],
)
def test_one_date_in_many_spellings(written: str) -> None:
    (date,) = find_dates(f"He came on {written}.")
    assert (date.year, date.month, date.day) == (2019, 5, 31)


@pytest.mark.parametrize(
    ("text", "parts"), [("in May 2019", (2019, 5, None)), ("07/2007", (2007, 7, None)), ("since 1998,", (1998, None, None))]
)
def test_dates_without_a_day(text: str, parts: tuple[int | None, ...]) -> None:
    (date,) = find_dates(text)
    assert (date.year, date.month, date.day) == parts


@pytest.mark.parametrize("text", ["BP 120/80", "in 2015 patients", "in March 5 mg", "13/13/2019", "5-10 mg", "it may 5", "score 3/10"])
def test_no_dates(text: str) -> None:
    assert find_dates(text) == []


def test_day_and_month_in_figures_may_be_exchanged() -> None:
    (known,), (stated,) = find_dates("05/12/2019"), find_dates("5 December 2019")
    assert supports(known, stated) and not supports(known, find_dates("6 December 2019")[0])


NOTE = "Seen on 3 March 2021. Surgery followed on March 17, 2021, and he went home in April 2021."


@pytest.mark.parametrize("summary", ["Surgery on 17/03/2021.", "Surgery in March 2021.", "Home in April 2021.", "In 2021 he had surgery."])
def test_supported_dates(summary: str) -> None:
    assert run_checks(Case(NOTE, summary), ["dates", "numbers"]) == ()


def test_another_date_is_flagged_with_the_nearest_of_the_note() -> None:
    summary = "Surgery was on March 18, 2021."
    (flag,) = run_checks(Case(NOTE, summary), ["dates", "numbers"])
    assert flag.code == "UNSUPPORTED_DATE" and summary[flag.start : flag.end] == "March 18, 2021"
    assert NOTE[flag.source_start : flag.source_end] in ("3 March 2021", "March 17, 2021")
    assert [flag.code for flag in run_checks(Case(NOTE, "Home in May 2021."), ["dates"])] == ["UNSUPPORTED_DATE"]


def test_a_date_in_words_supports_one_in_figures() -> None:
    note = "It was july thirty first two thousand and eight when it began"
    assert run_checks(Case(note, "It began on July 31, 2008."), ["dates"]) == ()
