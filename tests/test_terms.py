from __future__ import annotations

import re
import time
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.checks import Case, Flag, run_checks
from transforms.terms import KINDS, Term, find_terms, fold_name, parse_vocabulary, parts, places, vocabulary

SOME_NAMES = [
    "metformin",
    "HTN",
    "heart attack",
    "type 2 diabetes",
    "MI",
    "x ray",
    "the",
    "of",
    "left",
    ".",
    ",",
    "\n",
    "\u0130",
    "'s",
    "-",
]


def concepts(text: str) -> list[str]:
    return [term.concept for term in find_terms(text)]


def flags(note: str, summary: str) -> list[tuple[str, str, str | None]]:
    """(code, words of the summary, words of the note) of what check_terms says."""
    found = run_checks(Case(note, summary), ["terms"])
    return [(flag.code, summary[flag.start : flag.end], source_words(note, flag)) for flag in found]


def source_words(note: str, flag: Flag) -> str | None:
    return None if flag.source_start is None else note[flag.source_start : flag.source_end]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Tylenol", "acetaminophen"),
        ("paracetamol", "acetaminophen"),
        ("Lasix", "furosemide"),
        ("Glucophage", "metformin"),
        ("HCTZ", "hydrochlorothiazide"),
        ("heart attack", "myocardial infarctions"),
        ("high blood pressure", "htn"),
        ("T2DM", "type II diabetes"),
        ("anaemia", "anemic"),
        ("shortness of breath", "dyspnoea"),
        ("kidney stones", "nephrolithiasis"),
        ("Alzheimer's disease", "alzheimer disease"),
        ("fractured", "fractures"),
        ("C-section", "caesarean section"),
    ],
)
def test_names_of_one_thing_have_one_concept(one: str, other: str) -> None:
    assert concepts(one) == concepts(other) != []


def test_the_longest_name_wins_and_nothing_overlaps() -> None:
    text = "Congestive heart failure, heart attack; takes insulin glargine."
    assert [text[t.start : t.end] for t in find_terms(text)] == ["Congestive heart failure", "heart attack", "insulin glargine"]
    assert [t.kind for t in find_terms(text)] == ["problem", "problem", "drug"]


def test_a_name_does_not_reach_over_a_stop() -> None:
    assert concepts("He felt chest. Pain came later.") != concepts("He felt chest pain.")


def test_short_names_count_in_capitals_only() -> None:
    assert concepts("Old MI.") == ["myocardial infarction"]
    assert concepts("mi casa") == []


def test_a_combination_has_its_parts() -> None:
    (term,) = find_terms("Percocet")
    assert parts(term.concept) == ["acetaminophen", "oxycodone"]


def test_everyday_words_are_no_terms() -> None:
    assert find_terms("She came to the office today with her son, who will call about the results of the test next week.") == []


def test_a_term_shows_no_name() -> None:
    assert "metformin" not in repr(find_terms("metformin"))


@given(st.one_of(st.text(), st.lists(st.sampled_from(SOME_NAMES)).map(" ".join)))
def test_terms_are_in_order_and_within_the_text(text: str) -> None:
    reach = 0
    for term in find_terms(text):
        assert reach <= term.start < term.end <= len(text)
        assert term.kind in KINDS
        assert text[term.start : term.end].strip() == text[term.start : term.end]
        reach = term.end


@given(st.lists(st.sampled_from(SOME_NAMES), max_size=12))
def test_what_stands_around_does_not_move_a_term(pieces: list[str]) -> None:
    text = " ".join(pieces)
    assert find_terms(f"He knew. {text} . Then he left.") == [
        Term(t.start + 9, t.end + 9, t.kind, t.concept) for t in find_terms(f"{text} . Then he left.")
    ]


def test_time_grows_with_the_length_of_the_text() -> None:
    text = "congestive heart failure and type 2 diabetes of the left heart " * 2_000
    started = time.process_time()
    assert len(find_terms(text)) == 4_000
    assert time.process_time() - started < 2


def test_the_first_line_keeps_a_name() -> None:
    known = parse_vocabulary("# a comment\ndrug|one||same|two word\ntest|other||same\nproblem|third|C01.1 C02|third\n")
    assert known.names["same"] == ("drug", "one")
    assert known.heads["two"] and not known.heads["same"]
    assert known.trees == {"third": ("C01.1", "C02")}


def test_the_shipped_file_is_sorted_small_and_well_formed() -> None:
    text = resources.files("transforms").joinpath("vocabulary", "terms.txt").read_text("utf-8")
    assert len(text) < 1_500_000
    rows = [line.split("|") for line in text.splitlines()[1:]]
    assert [(KINDS.index(row[0]), row[1]) for row in rows] == sorted((KINDS.index(row[0]), row[1]) for row in rows)
    assert all(re.fullmatch(r"(?:[A-Z]\d\d[\d.]*(?: |$))*", row[2]) and row[3:] == sorted(row[3:]) for row in rows)
    names = [name for row in rows for name in row[3:]]
    assert len(names) == len(set(names))


def test_nearly_every_shipped_name_finds_its_concept() -> None:
    names = vocabulary().names
    missed = [name for name, (_, concept) in names.items() if concept not in concepts(name)]
    assert len(missed) < 0.01 * len(names)


def test_the_tree_tells_kinds() -> None:
    ((broad,), (narrow,)) = concepts("hypertension"), concepts("renal hypertension")
    assert any(inner.startswith(outer + ".") for outer in places(broad) for inner in places(narrow))
    assert places("no such problem") == ()


def test_names_are_folded() -> None:
    assert fold_name("Haemorrhages") == "hemorrhage"
    assert fold_name("Crohn's Diseases") == "crohn disease"


# --- the check ------------------------------------------------------------------------------------------------------

NOTE = "The patient takes metformin 500 mg for type 2 diabetes. He had an adenocarcinoma of the colon resected. Denies chest pain."


def test_a_drug_that_the_note_lacks() -> None:
    assert flags(NOTE, "He was put on metoprolol 500 mg for diabetes.") == [("UNSUPPORTED_DRUG", "metoprolol", "metformin")]


def test_the_place_in_the_note_needs_something_in_common() -> None:
    assert flags(NOTE, "Warfarin began.") == [("UNSUPPORTED_DRUG", "Warfarin", None)]


def test_another_name_of_the_drug_is_the_drug() -> None:
    assert flags(NOTE, "Glucophage was continued.") == []
    assert flags("Norco as needed.", "Hydrocodone was given.") == []
    assert flags("Hydrocodone and acetaminophen as needed.", "Norco was given.") == []
    assert flags("Hydrocodone as needed.", "Norco was given.") != []


@pytest.mark.parametrize("typo", ["metfornin", "metformn", "metforminn", "metfromin"])
def test_a_slip_of_the_pen_is_the_drug(typo: str) -> None:
    assert flags(f"Takes {typo} daily.", "Takes metformin daily.") == []


def test_a_problem_that_the_note_lacks() -> None:
    assert flags(NOTE, "He suffers from pneumonia.") == [("UNSUPPORTED_PROBLEM", "pneumonia", None)]


@pytest.mark.parametrize("summary", ["A tumor was removed.", "He is diabetic.", "No pain of the chest.", "Colon cancer was treated."])
def test_a_problem_in_other_words(summary: str) -> None:
    assert flags(NOTE, summary) == []


@given(st.one_of(st.text(), st.lists(st.sampled_from(SOME_NAMES)).map(" ".join)))
def test_a_note_supports_itself(text: str) -> None:
    case = Case(text, text)
    case.__dict__["is_verbatim"] = False
    assert run_checks(case, ["terms"]) == ()


def test_a_copied_sentence_is_not_judged() -> None:
    note = "Seen in clinic.\nGiven warfarin."
    row = {"summary_start": 0, "summary_end": 15, "source_start": 16, "source_end": 31, "score": 1.0, "kind": "exact"}
    assert run_checks(Case(note, "Given warfarin. Heparin too.", [row]), ["terms"]) == (Flag("UNSUPPORTED_DRUG", 16, 23),)
