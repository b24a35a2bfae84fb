from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pytest import approx

from transforms.checks import Case, run_checks
from transforms.checks.omission import SALIENT_FACTS, omission

NOTE = """ALLERGIES: penicillin.

HPI: Asthma since childhood. Denies chest pain.

ASSESSMENT:
1. Pneumonia.
2. Atrial fibrillation, on warfarin. Had a cholecystectomy.
"""
WORDS = ["asthma", "pneumonia", "warfarin", "no", "denies", "fever", "Assessment:\n", "Allergies:\n", "penicillin", "surgery", ".", "the"]


def left_out(note: str, summary: str) -> list[tuple[str, str]]:
    found = run_checks(Case(note, summary), ["omission"])
    assert all(flag.start is None and flag.end is None for flag in found)
    return [(flag.code, note[flag.source_start : flag.source_end]) for flag in found]


def test_every_kind_of_fact_is_missed() -> None:
    assert left_out(NOTE, "The patient was seen.") == [
        ("OMITTED_ALLERGY", "penicillin"),
        ("OMITTED_PROBLEM", "Asthma"),
        ("OMITTED_PROBLEM", "chest pain"),
        ("OMITTED_PROBLEM", "Pneumonia"),
        ("OMITTED_PROBLEM", "Atrial fibrillation"),
        ("OMITTED_DRUG", "warfarin"),
        ("OMITTED_PROCEDURE", "cholecystectomy"),
    ]


def test_other_names_will_do() -> None:
    summary = "PCN allergy. Asthmatic, without pain in the chest. Has pneumonias and afib, takes Coumadin; gallbladder removal."
    assert left_out(NOTE, summary) == []
    assert omission(Case(NOTE, summary)) == 0


def test_what_the_note_makes_much_of_weighs_more() -> None:
    weights = {NOTE[fact.term.start : fact.term.end]: fact.weight for fact in Case(NOTE, "").facts}
    assert weights["Pneumonia"] > weights["Asthma"] > weights["chest pain"]
    twice, once = Case("Asthma. Gout. Asthma again.", "").facts
    assert twice.weight == 2 * once.weight


def test_the_score_is_the_share_of_the_weight() -> None:
    assert omission(Case("Asthma and gout.", "Asthma.")) == approx(0.5)
    assert omission(Case("Asthma and gout.", "Nothing.")) == 1
    assert omission(Case("Came in today.", "Came in.")) is None


def test_a_long_note_has_few_salient_facts() -> None:
    many = "asthma gout pneumonia psoriasis migraine epilepsy glaucoma hepatitis cirrhosis influenza warfarin heparin insulin".split()
    found = left_out(", ".join(many) + ". Heparin was stopped.", "Seen.")
    assert len(found) == SALIENT_FACTS
    assert ("OMITTED_DRUG", "heparin") in found


@given(st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join), st.lists(st.sampled_from(WORDS), max_size=10).map(" ".join))
def test_flags_and_score_agree(note: str, summary: str) -> None:
    case = Case(note, summary)
    score = omission(case)
    assert score is None or 0 <= score <= 1
    found = run_checks(case, ["omission"])
    assert len(found) <= SALIENT_FACTS
    assert all(0 <= (flag.source_start or 0) < (flag.source_end or 0) <= len(note) for flag in found)
    assert not found or score


@given(st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join))
def test_a_note_leaves_nothing_of_itself_out(note: str) -> None:
    assert run_checks(Case(note, note), ["omission"]) == ()
    assert not omission(Case(note, note))
