"""Sides of the body."""

from __future__ import annotations

import pytest

from transforms.checks import Case, run_checks

NOTE = "Pain in the left knee. The right lower lobe is clear, the left upper lobe is not. RV dilated. He left the ward. Both hips hurt."


@pytest.mark.parametrize(
    ("summary", "said", "known"),
    [
        ("Right knee pain.", "Right knee", "left knee"),
        ("Bilateral lower lobe findings.", "", ""),
        ("The left lower lobe.", "left lower lobe", "right lower lobe"),
        ("The left ventricle is dilated.", "left ventricle", "RV"),
        ("Right-sided knee pain.", "Right-sided knee", "left knee"),
    ],
)
def test_the_other_side_is_flagged(summary: str, said: str, known: str) -> None:
    flags = run_checks(Case(NOTE, summary), ["laterality"])
    assert [(summary[f.start : f.end], NOTE[f.source_start : f.source_end]) for f in flags] == ([(said, known)] if said else [])


@pytest.mark.parametrize(
    "summary",
    [
        "The left knee.",
        "Left hip pain.",
        "Right hip.",
        "Bilateral hip pain.",
        "Left elbow.",
        "He left hospital.",
        "The right ventricle.",
        "All right now.",
    ],
)
def test_known_or_unmentioned_sides_are_not(summary: str) -> None:
    assert run_checks(Case(NOTE, summary), ["laterality"]) == ()
