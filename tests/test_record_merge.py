"""Records of one note made one: nothing said is lost, the same is said once, contradictions stay."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.record import parse_record
from transforms.record_merge import HEADS, merge_entities, merge_records


def leaf(text: str, start: int, assertion: str = "present", normal: str | None = None) -> dict[str, Any]:
    given = {"text": text, "start": start, "end": start + len(text), "section": None, "assertion": assertion}
    return given | {"normal": normal, "number": None, "ucum": None}


def drug(
    name: str, start: int, dose: str | None = None, readers: tuple[str, ...] = ("rules",), assertion: str = "present"
) -> dict[str, Any]:
    parts = dict.fromkeys(("route", "frequency", "duration", "reason"))
    dosed = leaf(dose, start + len(name) + 1) if dose else None
    return {"name": leaf(name, start, assertion), "dose": dosed, **parts, "codes": [], "readers": list(readers)}


def test_the_same_is_said_once_and_both_readers_are_named() -> None:
    (merged,) = merge_entities("medications", [drug("aspirin", 4), drug("Aspirin", 4, "81 mg", ("model",)), drug("ASPIRIN", 90)])
    assert (merged["name"]["text"], merged["dose"]["text"], merged["readers"]) == ("aspirin", "81 mg", ["rules", "model"])


def test_what_contradicts_stays_with_its_evidence() -> None:
    doses = merge_entities("medications", [drug("aspirin", 4, "81 mg"), drug("aspirin", 60, "325 mg")])
    assert [one["dose"]["text"] for one in doses] == ["81 mg", "325 mg"]
    said = merge_entities("medications", [drug("aspirin", 4), drug("aspirin", 4, assertion="historical")])
    assert [one["name"]["assertion"] for one in said] == ["present", "historical"]


def test_of_two_names_in_one_place_the_longer_stays() -> None:
    (merged,) = merge_entities("medications", [drug("aspirin", 10), drug("buffered aspirin", 1)])
    assert merged["name"]["text"] == "buffered aspirin"


def test_a_reading_taken_twice_stays_twice() -> None:
    again = parse_record("BP 120/80. BP 120/80.")["observations"]
    assert len(merge_entities("observations", [*again, *again])) == 2


def test_of_ages_the_one_that_most_windows_give() -> None:
    records = [parse_record(text) for text in ("A 45-year-old man.", "A 54-year-old man.", "A 54-year-old man.")]
    merged = merge_records(records)
    assert (merged["age"]["normal"], merged["sex"]["normal"]) == ("P54Y", "male")
    with pytest.raises(ValueError, match="no records"):
        merge_records([])


NOTES = [
    "",
    "PMH: gout, asthma. rx: aspirin 81 mg daily",
    "Denies fever. BP 120/80, Na 140 mmol/L, K 4.0 mmol/L",
    "s/p biopsy on 2019-01-02",
]


@pytest.mark.parametrize("text", NOTES)
def test_a_record_merged_with_itself_is_itself(text: str) -> None:
    record = parse_record(text)
    assert merge_records([record, record]) == merge_records([record]) == record


SAID = st.tuples(
    st.sampled_from(["aspirin", "Aspirin", "insulin"]), st.sampled_from([None, "5 mg", "10 mg"]), st.sampled_from(["present", "historical"])
)


@settings(max_examples=100, deadline=None)
@given(st.lists(SAID, max_size=12))
def test_no_statement_is_lost_or_invented(statements: list[tuple[str, str | None, str]]) -> None:
    entities = [drug(name, 40 * place, dose, assertion=assertion) for place, (name, dose, assertion) in enumerate(statements)]
    merged = merge_entities("medications", entities)
    stated = {(one["name"]["text"].lower(), one["name"]["assertion"], one["dose"] and one["dose"]["text"]) for one in merged}
    assert {said for said in stated if said[2]} == {(name.lower(), assertion, dose) for name, dose, assertion in statements if dose}
    assert {said[:2] for said in stated} == {(name.lower(), assertion) for name, _, assertion in statements}
    assert merge_entities("medications", [*merged, *merged]) == merged
    starts = [one[HEADS["medications"]]["start"] for one in merged]
    assert starts == sorted(starts)
