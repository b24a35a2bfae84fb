"""Conversations are told from notes by who speaks at the start of their lines."""

import pytest

from transforms.dialogue import is_dialogue


@pytest.mark.parametrize(
    "text",
    [
        "Doctor: Good morning.\nPatient: Morning.",
        "[doctor] any cough ?\n[patient] at night .\nit keeps me awake .\n[doctor] since when ?",
        "D: Sleep?\n\nP: Badly.\n\nD: Since when?\n\nP: A week.",
        "Guest_family_1: She fell.\nDr. : When?\nDoctor : At noon?\n",
    ],
)
def test_a_conversation_is_known_by_its_speakers(text: str) -> None:
    assert is_dialogue(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Patient: 40 F\nHistory: cough\nPlan: rest",
        "Doctor: Jones\nA cough for a week.\nNo fever.\nLungs clear.\nRest and fluids.",
        "Doctor: one voice.\nDoctor: only.",
        "The doctor said: rest. The patient said: no.",
    ],
)
def test_notes_are_no_conversations(text: str) -> None:
    assert not is_dialogue(text)
