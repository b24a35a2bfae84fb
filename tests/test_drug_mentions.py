"""Medications of running text: names, what belongs to which drug, and what is said of it."""

from __future__ import annotations

import pytest

from tests.records import check_offsets, said
from transforms.record import parse_record

LEAVES = ("name", "dose", "route", "frequency")


def drugs(text: str) -> list[tuple[str | None, ...]]:
    check_offsets(text)
    return [said(drug, *LEAVES) for drug in parse_record(text)["medications"]]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("- continue Cosopt BID OS, Latanoprost qhs OD", [("Cosopt", None, "OS", "BID"), ("Latanoprost", None, "OD", "qhs")]),
        ("Restart dorzolamide/timolol 2x/day OU", [("dorzolamide/timolol", None, "OU", "2x/day")]),
        ("Brimonidine 0.2% in the right eye every morning", [("Brimonidine", "0.2%", "right eye", "every morning")]),
        ("She received 40 mg of oral prednisone.", [("prednisone", "40 mg", "oral", None)]),
        ("High-dose intravenous methotrexate weekly", [("methotrexate", "High-dose", "intravenous", "weekly")]),
        ("given cisplatin 50 mg/m2 and oral folic acid", [("cisplatin", "50 mg/m2", None, None), ("folic acid", None, "oral", None)]),
        ("metoprolol succinate XL 25 mg daily helped.", [("metoprolol succinate XL", "25 mg", None, "daily")]),
        ("warfarin 5 mg OD", [("warfarin", "5 mg", None, "OD")]),
        ("PFATs prn OU; AT qid", [("PFATs", None, "OU", "prn"), ("AT", None, None, "qid")]),
        ("Treated with zanfaprost nightly.", [("zanfaprost", None, None, "nightly")]),
        ("On steroids and antibiotics.", [("steroids", None, None, None), ("antibiotics", None, None, None)]),
    ],
)
def test_mentions(text: str, found: list[tuple[str | None, ...]]) -> None:
    assert drugs(text) == found


@pytest.mark.parametrize(
    ("text", "assertion"),
    [
        ("He takes ibuprofen.", "present"),
        ("Ibuprofen was stopped last month.", "historical"),
        ("d/c ibuprofen", "historical"),
        ("She is no longer taking ibuprofen.", "historical"),
        ("She denies ibuprofen.", "absent"),
        ("If pain comes back, ibuprofen.", "possible"),
    ],
)
def test_what_is_said_of_a_drug(text: str, assertion: str) -> None:
    (found,) = parse_record(text)["medications"]
    assert found["name"]["assertion"] == assertion


@pytest.mark.parametrize(
    "text",
    [
        "Avoid ibuprofen.",
        "ALLERGIES: penicillin (rash)",
        "He is allergic to penicillin.",
        "penicillin allergy",
        "lithium level 0.8 mmol/L",
        "drinks alcohol and cow's milk",
        "seen at bedtime",
        "Potassium 4.1 mmol/L, Sodium 140 mmol/L",
    ],
)
def test_no_medication_is_read_from(text: str) -> None:
    assert drugs(text) == []


def test_a_reason_ends_before_the_rest_of_the_sentence() -> None:
    (found,) = parse_record("Started on amoxicillin 500 mg tid for otitis media after the visit.")["medications"]
    assert found["reason"]["text"] == "otitis media"


def test_a_drug_that_is_listed_and_told_is_one() -> None:
    found = parse_record("MEDICATIONS:\n- metformin\n\nPLAN: Increase metformin to 1000 mg twice daily.")["medications"]
    assert [said(drug, *LEAVES) for drug in found] == [("metformin", "1000 mg", None, "twice daily")]
