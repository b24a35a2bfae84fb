"""Rewordings: each rule on a sentence, nothing done twice, what no rule knows untouched."""

from __future__ import annotations

import pytest

from pipeline.reworded import reword


@pytest.mark.parametrize(
    ("said", "reworded"),
    [
        ("Hypertension for three weeks.", "High blood pressure for 3 weeks."),
        ("He took Lasix 20 mg for 5 days.", "He took Furosemide 20 milligrams for five days."),
        ("She denies any fever.", "She does not report fever."),
        ("No nausea, no evidence of bleeding, without pain.", "No nausea, no sign of bleeding, with no pain."),
        ("Seen on March 4, 2019, aged 61.", "Seen on 4 Mar 2019, aged 61."),
        ("A 61-year-old woman.", "A 61 y/o woman."),
        ("Saturation 93%, dose 2.5 mg/kg.", "Saturation 93 percent, dose 2.5 mg/kg."),
        ("For 1-2 weeks, 5 to 10 days, on 3/4/19.", "For 1-2 weeks, 5 to 10 days, on 3/4/19."),
        ("At thirty six weeks, from six weeks on.", "At thirty six weeks, from 6 weeks on."),
        ("A sling was worn.", "A sling was worn."),
    ],
)
def test_the_meaning_stays(said: str, reworded: str) -> None:
    assert reword(said) == reworded
