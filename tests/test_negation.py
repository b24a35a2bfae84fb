"""What a text denies and leaves open, and summaries that turn it round."""

from __future__ import annotations

import pytest

from transforms.checks import Case, run_checks
from transforms.checks.wording import Wording, stem
from transforms.negation import Span, find_scopes


def scopes(text: str) -> tuple[list[str], list[str]]:
    wording = Wording(text.lower())
    found = find_scopes(text.lower(), wording.words, wording.starts)

    def said(spans: tuple[Span, ...]) -> list[str]:
        return [text[start:end].strip() for start, end in spans if text[start:end].strip()]

    return said(found.denied), said(found.open)


def flagged(note: str, summary: str) -> list[tuple[str, str]]:
    """What the summary says and what the note says there."""
    return [
        (summary[flag.start : flag.end], note[flag.source_start : flag.source_end])
        for flag in run_checks(Case(note, summary), ["negation"])
    ]


@pytest.mark.parametrize(
    ("text", "denied"),
    [
        ("He denies fever, chills and chest pain but reports a cough.", ["fever", "chills", "chest pain"]),
        ("There was no evidence of a fracture or dislocation.", ["fracture", "dislocation"]),
        ("No fever, cough since Monday.", ["fever"]),
        ("Pneumonia was ruled out.", ["Pneumonia was"]),
        ("The scan ruled out a fracture.", ["fracture"]),
        ("A mass was not seen.", ["A mass was"]),
        ("She did not have any chest pain.", ["chest pain"]),
        ("He doesn't smoke.", ["smoke"]),
        ("Without fever, and the wound was clean.", ["fever"]),
    ],
)
def test_denied(text: str, denied: list[str]) -> None:
    assert scopes(text)[0] == denied


@pytest.mark.parametrize(
    "text",
    [
        "Any fever?",
        "Possible pneumonia.",
        "No further bleeding.",
        "Her mother had a stroke.",
        "Return if fever comes.",
        "The rash resolved.",
    ],
)
def test_left_open(text: str) -> None:
    denied, left_open = scopes(text)
    assert not denied and left_open


def test_the_answer_of_another_speaker_leaves_open() -> None:
    assert scopes("Doctor: And the chest, pain there\nPatient: No, none.")[1][0].endswith("pain there")


NOTE = (
    "A welder came with a swollen right hand after a fall at work. He denies numbness of the fingers. "
    "X-ray of the hand showed a fracture of the fifth metacarpal bone and no dislocation of the joint. "
    "He was treated with a plaster splint."
)


@pytest.mark.parametrize(
    ("summary", "said"),
    [
        ("X-ray of the hand showed no fracture of the fifth metacarpal bone.", "fracture"),
        ("X-ray of the hand showed a dislocation of the joint.", "dislocation"),
        ("He has numbness of the fingers.", "numbness"),
        ("He was not treated with a plaster splint.", "treated"),
    ],
)
def test_a_turned_finding_is_flagged_with_its_place_in_the_note(summary: str, said: str) -> None:
    assert flagged(NOTE, summary) == [(said, said)]


@pytest.mark.parametrize(
    "summary",
    [
        "X-ray of the hand showed a fracture of the fifth metacarpal bone without dislocation of the joint.",
        "There was no numbness of the fingers.",
        "He was treated with a plaster splint after a fall at work.",
        "Possible dislocation of the joint.",
        "No infection of the hand.",
    ],
)
def test_a_finding_told_alike_or_left_open_or_new_is_not(summary: str) -> None:
    assert flagged(NOTE, summary) == []


def test_the_mention_in_like_surroundings_decides() -> None:
    note = "On Monday the left lung showed an effusion. After drainage of the pleura the follow-up scan showed no effusion."
    assert flagged(note, "The follow-up scan showed no effusion after drainage of the pleura.") == []
    assert flagged(note, "After drainage of the pleura, the follow-up scan showed an effusion.") == [("effusion", "effusion")]


def test_stems() -> None:
    assert [stem(word) for word in ("treated", "treats", "mass", "virus", "used", "findings")] == [
        "treat",
        "treat",
        "mass",
        "virus",
        "used",
        "find",
    ]
