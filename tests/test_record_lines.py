"""Records as tagged lines and back: what a model is to write, and what its constrained output says."""

from __future__ import annotations

from math import log
from pathlib import Path
from typing import Any

import pytest

from schemas.record import RECORD_TYPE
from tests.records import leaves, said
from tests.tiny_models import make_model
from transforms.context import read_context
from transforms.engine.constraint import Constraint, Value
from transforms.engine.constraint_plan import Planner
from transforms.engine.loading import load_tokenizer
from transforms.engine.tokens import SourceTokenizer
from transforms.record import parse_record
from transforms.record_format import RecordFormat, load_record_format, save_record_format
from transforms.record_lines import RECORD_GRAMMAR, RECORD_TAGS, Written, likely_lines, record_lines, record_of
from transforms.sections import read_page

NOTE = (
    "HISTORY: A 54-year-old man with gout and asthma. No diabetes. His mother had gout.\n"
    "MEDICATIONS:\n- allopurinol 100 mg by mouth once daily\n- salbutamol inhaler as needed\n"
    "VITALS: BP 128/76, pulse 72\nLABS: sodium 139 mmol/L\nALLERGIES: penicillin (rash)\n"
)


@pytest.fixture(scope="module")
def planner(tmp_path_factory: pytest.TempPathFactory) -> Planner:
    tokenizer = load_tokenizer(make_model("bart", tmp_path_factory.mktemp("model")))
    tokenizer.add_tokens(list(RECORD_TAGS))
    return Planner(SourceTokenizer(tokenizer), [2], len(tokenizer))


def read_back(planner: Planner, note: str, lines: list[Written], offset: int = 0) -> dict[str, Any]:
    """The record that the lines say when they are written under the constraint of this part of the note."""
    text = note[offset:]
    plan = planner.plan(text, Constraint(RECORD_GRAMMAR), 1000, 1000)
    reading = plan.close(planner.automaton(RECORD_GRAMMAR).written(lines))
    page = read_page(note)
    return record_of(reading.values, offset, page, read_context(page.words))


def test_what_the_rules_read_comes_back_with_its_places(planner: Planner) -> None:
    read = parse_record(NOTE)
    back = read_back(planner, NOTE, record_lines(read))
    assert {name: len(back[name]) for name in ("problems", "medications", "observations", "allergies")} == {
        "problems": len(read["problems"]), "medications": 2, "observations": 3, "allergies": 1,
    }  # fmt: skip
    assert [said(drug, "name", "dose", "route", "frequency") for drug in back["medications"]] == [
        said(drug, "name", "dose", "route", "frequency") for drug in read["medications"]
    ]
    assert all(NOTE[leaf["start"] : leaf["end"]] == leaf["text"] for leaf in leaves(back))
    assert {reader for field in ("problems", "medications") for entity in back[field] for reader in entity["readers"]} == {"model"}


def test_it_has_the_shape_of_the_schema(planner: Planner) -> None:
    import pyarrow as pa

    back = read_back(planner, NOTE, record_lines(parse_record(NOTE)))
    [row] = pa.array([back], RECORD_TYPE).to_pylist()
    assert {name: row[name] for name in back} == back


def test_lines_come_in_the_order_of_the_note() -> None:
    assert [name for name, _ in record_lines(parse_record(NOTE))][:2] == ["age", "sex"]
    assert [name for name, _ in record_lines(parse_record(NOTE))][-1] == "allergy"


def test_where_a_line_does_not_say_the_context_does(planner: Planner) -> None:
    note = "No gout. Possible asthma. Return for fever."
    back = read_back(planner, note, [("problem", {"name": name}) for name in ("gout", "asthma", "fever")])
    # What is only talked about is no finding.
    assert [(p["name"]["text"], p["name"]["assertion"]) for p in back["problems"]] == [("gout", "absent"), ("asthma", "possible")]


def test_what_a_line_says_goes_before_the_context(planner: Planner) -> None:
    [problem] = read_back(planner, "No gout.", [("problem", {"name": "gout", "assertion": "family"})])["problems"]
    assert problem["name"]["assertion"] == "family"


def test_what_is_present_is_not_said(planner: Planner) -> None:
    record = parse_record("No diabetes. Gout is well controlled.")
    lines = record_lines(record)
    assert ("problem", {"name": "Gout"}) in lines
    assert ("problem", {"name": "diabetes", "assertion": "absent"}) in lines


def test_places_are_those_of_the_note_not_of_the_window(planner: Planner) -> None:
    offset = NOTE.index("MEDICATIONS")
    [drug] = read_back(planner, NOTE, [("medication", {"name": "salbutamol"})], offset)["medications"]
    assert drug["name"]["start"] == NOTE.index("salbutamol")
    assert drug["name"]["section"] == "medications"


def test_the_first_age_counts(planner: Planner) -> None:
    record = read_back(planner, NOTE, [("age", {"age": "54-year-old"}), ("age", {"age": "100"})])
    assert record["age"]["text"] == "54-year-old"
    assert record["sex"] is None


def test_a_reading_without_a_value_is_not_written() -> None:
    record = parse_record("BP 128/76")
    record["observations"][0]["value"] = None
    assert record_lines(record) == []


def test_a_format_is_what_was_saved(tmp_path: Path) -> None:
    fmt = RecordFormat("records: ", 128, 64)
    save_record_format(fmt, tmp_path)
    assert load_record_format(tmp_path) == fmt


def test_other_folders_have_no_format(tmp_path: Path) -> None:
    assert load_record_format(tmp_path) is None
    (tmp_path / "chartmill.json").write_text('{"objective": "selection", "format_version": 1}')
    assert load_record_format(tmp_path) is None


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "not valid JSON"),
        ('{"objective": "record", "format_version": 9}', "format_version 9"),
        ('{"objective": "record", "format_version": 1, "colour": "red"}', "colour"),
        ('{"objective": "record", "format_version": 1, "max_source_tokens": 3}', "at least 16"),
    ],
)
def test_a_bad_format_is_refused(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "chartmill.json").write_text(content)
    with pytest.raises(ValueError, match=complaint):
        load_record_format(tmp_path)


def test_no_line_is_written_twice_of_one_place(planner: Planner) -> None:
    note = "gout. asthma."
    first = [("problem", {"name": "gout"})]
    plan = planner.plan(note, Constraint(RECORD_GRAMMAR), 1000, 1000)
    automaton = planner.automaton(RECORD_GRAMMAR)
    with pytest.raises(ValueError, match="not what its constraint allows"):
        plan.close(automaton.written([*first, *first]))
    # Of another kind it may be.
    read_back(planner, note, [*first, ("medication", {"name": "gout"})])


def test_what_is_said_twice_may_be_written_twice_at_its_own_places(planner: Planner) -> None:
    note = "gout. asthma. gout."
    lines: list[Written] = [("problem", {"name": "gout"})] * 2
    assert [problem["name"]["start"] for problem in read_back(planner, note, lines)["problems"]] == [0, note.rindex("gout")]


def test_where_every_place_is_taken_a_line_can_still_be_ended(planner: Planner) -> None:
    lines: list[Written] = [("problem", {"name": "gout"})] * 3
    [first, *_] = read_back(planner, "gout", lines)["problems"]
    assert first["name"]["text"] == "gout"


def test_of_entities_that_begin_at_one_place_the_first_is_written() -> None:
    record = parse_record("No diabetes. Gout is well controlled.")
    assert record_lines(record | {"problems": record["problems"] * 2}) == record_lines(record)


def test_a_line_is_as_likely_as_all_its_tokens_together() -> None:
    """Its tag counts, and what stands between a field and the next; what comes after the last line does not."""
    dose = Value(0, "medication", "dose", (4, 6), 10, 16)
    values = [Value(0, "medication", "name", (1, 3), 0, 9), dose, Value(1, "problem", "name", (7, 9), 20, 24)]
    chances = [0.9, 1.0, 1.0, 0.9, 0.8, 1.0, 0.7, 0.9, 1.0, 0.1]
    logprobs = [log(chance) for chance in chances]
    first, second = 0.9 * 0.9 * 0.8, 0.7 * 0.9
    assert likely_lines(values, logprobs, second - 0.01) == values
    assert likely_lines(values, logprobs, second + 0.01) == values[:2]
    assert likely_lines(values, logprobs, first + 0.01) == []
    assert likely_lines([], logprobs, 0.5) == []
