"""Follow-up by the rules: what is read, with its time, and what is no follow-up."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sample import compose
from tests.records import check_offsets, leaves, said
from transforms.normalization.times import relative
from transforms.planned_times import PlannedTimes
from transforms.record import parse_record, read_record
from transforms.words import Words, word_edge

Item = tuple[str | None, ...]


def follow_up(text: str) -> list[Item]:
    check_offsets(text)
    return [said(item, "what", "when") for item in parse_record(text)["follow_up"]]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Follow up with cardiology in 2 weeks.", [("cardiology", "in 2 weeks")]),
        ("He will follow up with me in 10 days.", [("follow up", "in 10 days")]),
        ("Follow up in 3 weeks with her surgeon.", [("surgeon", "in 3 weeks")]),
        ("She should follow up with Dr. Grey on 3 March.", [("Dr. Grey", "on 3 March")]),
        ("F/U neurology 2 weeks.", [("neurology", "2 weeks")]),
        ("F/U hand clinic in 6 weeks, GP review in 10 days. Leaflet given.", [("hand clinic", "in 6 weeks"), ("GP review", "in 10 days")]),
        ("PLAN:\n- Follow up as needed", [("Follow up", "as needed")]),
        ("Follow-up is scheduled for next week.", [("Follow-up", "next week")]),
        ("Schedule a follow-up appointment in 4 months.", [("follow-up appointment", "in 4 months")]),
        ("Follow up after the scan.", [("Follow up", "after the scan")]),
        ("Return to clinic in 3 months.", [("Return to clinic", "in 3 months")]),
        ("RTC 6 months", [("RTC", "6 months")]),
        ("She will return in one week for a new cast.", [("return", "in one week")]),
        ("We will refer him to physiotherapy.", [("physiotherapy", None)]),
        ("PLAN: Referral to dermatology was placed.", [("dermatology", None)]),
        ("I have made a referral to a dietitian.", [("dietitian", None)]),
        ("Repeat CBC and ferritin level in 1 week.", [("Repeat CBC", "in 1 week"), ("ferritin level", "in 1 week")]),
        ("We will order a repeat echocardiogram.", [("repeat echocardiogram", None)]),
        ("Please see your PCP tomorrow.", [("PCP", "tomorrow")]),
        ("I would like to see her back in 3 months.", [("see her back", "in 3 months")]),
        ("Schedule colonoscopy, spirometry and a visit to urology.", [("colonoscopy", None), ("spirometry", None), ("urology", None)]),
        ("PLAN\n1. Outpatient MRI next month", [("Outpatient MRI", "next month")]),
        ("GP review in 2 weeks' time.", [("GP review", "in 2 weeks")]),
        ("wound check if no better in 3 days", [("wound check", "if no better in 3 days")]),
        ("To do: urine culture in 48 hours; eye clinic in 2 weeks.", [("urine culture", "in 48 hours"), ("eye clinic", "in 2 weeks")]),
        ("APPOINTMENTS:\n- Ear nurse on 2031-04-13\n- Physiotherapy", [("Ear nurse", "on 2031-04-13"), ("Physiotherapy", None)]),
    ],
)  # fmt: skip
def test_follow_up(text: str, found: list[Item]) -> None:
    assert follow_up(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "At follow-up 6 months later he was well.",
        "He was followed up for 2 years in cardiology.",
        "She was lost to follow-up.",
        "No follow-up needed in 2 weeks.",
        "He does not need to follow up with surgery.",
        "She declined referral to physiotherapy.",
        "Comes today for follow-up of hypertension in 2 clinics.",
        "Follow-up of chronic problems.",
        "Repeat CT in 3 months showed no growth.",
        "Repeat potassium 4.1.",
        "Repeat ECG today.",
        "If the pain goes on, she will follow up with neurology.",
        "Return if worse.",
        "He may return to work in 2 weeks.",
        "Upon referral to our clinic the lungs were clear.",
        "HPI: He was told to see a cardiologist in 2 weeks.",
        "Please refer to the chart for details.",
        "Symptoms resolved in 3 days.",
        "We will see how the wound heals in 2 weeks.",
        "Follow-up on 3/4/2031: no change.",
        "Start aspirin 81 mg daily, improvement expected in 2 weeks.",
        "PLAN:\n- skin biopsy on 2031-04-13",
    ],
)
def test_no_follow_up_is_read_from(text: str) -> None:
    assert follow_up(text) == []


def test_what_was_advised_counts_where_nothing_tells_what_came_of_it() -> None:
    advised = "She was advised to follow up with neurology in 2 weeks."
    assert follow_up(advised) == [("neurology", "in 2 weeks")]
    assert follow_up(advised + " The weeks went by without another spell." * 12) == []
    assert follow_up("PLAN:\n" + advised + " Fluids and rest." * 40) == [("neurology", "in 2 weeks")]


def test_what_is_only_considered_is_possible() -> None:
    (item,) = parse_record("Consider referral to pain clinic.")["follow_up"]
    assert (item["what"]["text"], item["what"]["assertion"]) == ("pain clinic", "possible")


def test_the_same_visit_is_one_item() -> None:
    assert follow_up("Will follow up with urology. PLAN: follow up with urology in 2 weeks.") == [("urology", "in 2 weeks")]


@pytest.mark.parametrize(
    ("written", "normal", "number", "unit"),
    [
        ("in 3 days", "2031-04-16", 3, "d"),
        ("tomorrow", "2031-04-14", 1, "d"),
        ("in 2 weeks", None, 2, "wk"),
        ("in a month", None, 1, "mo"),
        ("within 2 weeks", None, None, None),
        ("in 2-3 weeks", None, None, None),
        ("on 2 May 2031", "2031-05-02", None, None),
        ("as needed", None, None, None),
    ],
)
def test_times_have_normal_forms_where_they_are_certain(written: str, normal: str | None, number: float | None, unit: str | None) -> None:
    (item,) = read_record(f"Follow up with cardiology {written}.", "2031-04-13")["follow_up"]
    assert item["when"]["text"] == written
    assert (item["when"]["normal"], item["when"]["number"], item["when"]["ucum"]) == (normal, number, unit)


def test_every_distance_is_one_that_the_normal_forms_know() -> None:
    for count in ("1", "two", "a", "12"):
        for unit in ("day", "days", "week", "weeks", "wks", "month", "months", "year", "yrs"):
            times = PlannedTimes(Words(f"in {count} {unit}"))
            assert [match.group() for match in times.matches] == [f"in {count} {unit}"]
            assert relative(f"in {count} {unit}", ahead=True)


def test_synthetic_notes_of_every_style() -> None:
    notes = [compose(8128, number) for number in range(30)]
    for name in ("what", "when"):
        gold = [{_place(item[name]) for item in note.record["follow_up"]} for note in notes]
        found = [{_place(item[name]) for item in parse_record(note.text)["follow_up"] if item[name]} for note in notes]
        right = sum(len(one & other) for one, other in zip(gold, found, strict=True))
        assert 2 * right / (sum(map(len, gold)) + sum(map(len, found))) > 0.95


def _place(leaf: dict[str, int]) -> tuple[int, int]:
    return leaf["start"], leaf["end"]


def test_a_word_that_a_window_cuts_is_no_route() -> None:
    for gap in range(120, 175):
        text = f"She takes warfarin with {'z' * gap} positive orange imaging scores."
        assert [said(drug, "name", "route") for drug in parse_record(text)["medications"]] == [("warfarin", None)]


def test_a_list_that_is_too_long_ends_with_a_word() -> None:
    for gap in range(40):
        text = f"Procedures: {'y' * gap}, " + "hip replacement, " * 110
        for procedure in parse_record(text)["procedures"]:
            assert procedure["name"]["text"] in ("hip replacement", "hip", "y" * gap)


@given(st.text("ab1_ é.-", max_size=20), st.integers(0, 20), st.integers(0, 25))
def test_no_window_cuts_a_word(text: str, start: int, end: int) -> None:
    edge = word_edge(text, start, end)
    assert edge <= min(end, len(text))
    assert edge <= start or edge == len(text) or not (_in_word(text[edge - 1]) and _in_word(text[edge]))
    assert not any(not _in_word(character) for character in text[max(edge, start) : min(end, len(text))])


def _in_word(character: str) -> bool:
    return character.isalnum() or character == "_"


_PARTS = (
    "warfarin ", "positive ", "ivory ", "orange imaging ", "Meds: ", "5 mg ", "5mg", "po ", "b.i.d. ", "daily ", "for 7 days ", "takes ",
    "oral prednisone ", "procedures: ", "S/p biopsy ", "underwent ", "past medical history of gout, ", "allergic to cats ", "BP 120/80 ",
    "weight 70kg", "T 98.6F", "Na 138 mmol/L", "denies pain ", "follow up with ", "F/U ", "refer to ", "podiatry ", "repeat CBC ",
    "GP review in 10 days", "in 2 weeks", "on 3 March", "see PCP", "return to clinic ", "FOLLOW-UP:\n", "PLAN:\n- ", "management ", "male ",
    "a 45-year-old woman ", "45YOM ", "x", "é", "ß", "_", ".", ", ", ". ", "; ", "\n", " ", "(", ")",
)  # fmt: skip
_padding = st.integers(90, 170).map(lambda length: ("lorem ipsu " * 16)[:length])
_notes = st.lists(st.one_of(st.sampled_from(_PARTS), _padding, st.text(max_size=3)), max_size=18).map("".join)


# Windows end somewhere in these.
_cut = st.builds(
    lambda lead, gap, word: lead + "z" * gap + f" {word}" * 90,
    st.sampled_from(("takes warfarin ", "oral prednisone ", "S/p ", "procedures: ", "follow up with ", "past medical history of gout, ")),
    st.integers(1, 12),
    st.sampled_from(("positive", "imaging", "ivory", "scope, hip-replacement")),
)


@settings(max_examples=100)
@given(st.one_of(_notes, _cut))
def test_no_leaf_begins_or_ends_within_a_word(text: str) -> None:
    record = parse_record(text)
    sexes = {record["sex"]["start"]} if record["sex"] else set()  # "45YOM" is an age and a sex
    for offset in set(_edges(record)) - sexes:
        assert not (text[offset - 1 : offset].isalpha() and text[offset : offset + 1].isalpha())


def _edges(record: dict[str, object]) -> Iterator[int]:
    for leaf in leaves(record):
        yield from (leaf["start"], leaf["end"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit",
    [
        "follow up ", "follow up with ", "F/U x in 2 weeks, ", "refer to a ", "repeat ", "in 2 weeks ", "if no better in 2 days ",
        "and cardiology, ", "schedule MRI and ", "FOLLOW-UP:\n- clinic\n", "follow-up: clinic. ", "see him again ", "on 3 ", "12 ",
    ],
)  # fmt: skip
def test_time_is_linear(unit: str) -> None:
    text = unit * (60_000 // len(unit))
    started = time.process_time()
    parse_record(text)
    assert time.process_time() - started < 4
