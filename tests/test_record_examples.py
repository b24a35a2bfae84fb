"""Examples for a model that writes records: what a collection says is kept, the rules say the rest, and all of it stands in the text."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.default_model.record_examples import Example, main, passages, read_entities, read_phee, read_spans
from pipeline.sample import write_sample
from schemas.errors import ConfigurationError
from tests.tiny_tokenizers import make_tokenizer
from transforms.engine.constraint import Constraint
from transforms.engine.constraint_plan import Planner
from transforms.engine.tokens import SourceTokenizer
from transforms.record import page_context, parse_record
from transforms.record_lines import RECORD_GRAMMAR, RECORD_TAGS, record_lines, record_of
from transforms.sections import read_page
from transforms.sentences import split_sentences

# Sentences of our own, in the public shapes of the collections.
CASE = "A 52-year-old man with gout took oral zaltidone 20 mg twice daily for ten days. He denies asthma."
EVENT = {
    "age": ["52-year-old"], "sex": ["man"], "drug": ["zaltidone"], "dosage": ["20 mg"], "route": ["oral"], "frequency": ["twice daily"],
    "duration": ["ten days"], "indication": ["gout"], "effect": ["rash"], "negated": False,
}  # fmt: skip
LINE = "Start morvidol 0.25% one drop nightly, stop telazine, rinse daily"
LABELS = [("morvidol", "DRUG"), ("0.25%", "STRENGTH"), ("nightly", "FREQUENCY"), ("telazine", "DRUG"), ("rinse", "DRUG USE")]
SENTENCE = "Quinarex and warfarin were given for gout; gout and hives had come back after quinarex."
ENTITIES = [("Quinarex", "Chemical"), ("warfarin", "Chemical"), ("gout", "Disease"), ("gout", "Disease"), ("hives", "Disease")]


def spans() -> list[dict[str, Any]]:
    return [{"start": LINE.index(text), "end": LINE.index(text) + len(text), "label": label, "text": text} for text, label in LABELS]


def phee_row(**changes: Any) -> dict[str, Any]:
    return {"text": CASE, "gold": json.dumps({"events": [EVENT | changes]})}


def entities_row(*found: tuple[str, str]) -> dict[str, Any]:
    return {"text": SENTENCE, "gold": json.dumps({"entities": [{"text": text, "type": kind} for text, kind in found or ENTITIES]})}


ROWS: dict[str, list[dict[str, Any]]] = {
    "phee": [phee_row()],
    "spans": [{"text": LINE, "spans": spans()}],
    "entities": [entities_row()],
    "read": [{"text": f"{CASE} Note {number}."} for number in range(12)],
}


def leaves(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict) and "start" in value:
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from leaves(part)


def assert_literal(text: str, record: dict[str, Any]) -> None:
    for leaf in leaves(record):
        assert text[leaf["start"] : leaf["end"]] == leaf["text"] != ""


def said(record: dict[str, Any], name: str) -> list[dict[str, str]]:
    """The texts of the entities of a list, with what they leave out left out."""
    return [{part: leaf["text"] for part, leaf in entity.items() if isinstance(leaf, dict)} for entity in record[name]]


def write(folder: Path, rows: list[dict[str, Any]], name: str = "rows.parquet") -> Path:
    pq.write_table(pa.Table.from_pylist(rows), folder / name)
    return folder / name


def made(folder: Path, name: str) -> list[Example]:
    rows = pq.read_table(folder / f"{name}.parquet").to_pylist()
    return [(row["text"], json.loads(row["record"])) for row in rows]


def made_of(folder: Path, name: str, *options: str) -> list[Example]:
    path = write(folder, ROWS[name])
    main([f"--{name}", str(path), "--output", str(folder / "made"), *options])
    return made(folder / "made", name)


def test_a_case_has_the_drug_that_the_collection_names_with_its_attributes() -> None:
    [(text, record)] = read_phee([phee_row()])
    assert_literal(text, record)
    assert (record["age"]["text"], record["sex"]["text"]) == ("52-year-old", "man")
    assert said(record, "medications") == [
        {"name": "zaltidone", "dose": "20 mg", "route": "oral", "frequency": "twice daily", "duration": "ten days", "reason": "gout"}
    ]


def test_of_two_drugs_the_one_named_first_has_the_attributes() -> None:
    [(_, record)] = read_phee([phee_row(drug=["warfarin", "zaltidone", "not there"]) | {"text": f"{CASE} He took warfarin."}])
    first, second = said(record, "medications")
    assert first == {"name": "zaltidone"}
    assert second["name"] == "warfarin" and second["dose"] == "20 mg"


def test_the_rules_say_what_the_collection_does_not() -> None:
    by_rules = parse_record(CASE)
    [(_, record)] = read_phee([phee_row(age=[], drug=[])])
    assert record["age"] is None and record["medications"] == []
    assert said(record, "problems") == said(by_rules, "problems") != []
    for name in ("allergies", "observations", "procedures", "follow_up"):
        assert record[name] == by_rules[name]


def test_no_problem_of_the_rules_stands_where_the_collection_has_a_drug() -> None:
    [(_, record)] = read_phee([phee_row(drug=["gout"])])
    assert "gout" in [problem["name"] for problem in said(parse_record(CASE), "problems")]
    assert "gout" not in [problem["name"] for problem in said(record, "problems")]


def test_an_attribute_belongs_to_the_drug_before_it() -> None:
    for held in (spans(), json.dumps(spans())):
        [(text, record)] = read_spans([{"text": LINE, "spans": held}])
        assert_literal(text, record)
        assert said(record, "medications") == [{"name": "morvidol", "dose": "0.25%", "frequency": "nightly"}, {"name": "telazine"}]


def test_an_attribute_before_all_drugs_belongs_to_the_first() -> None:
    rows = [{"text": LINE, "spans": [span for span in spans() if span["text"] in ("0.25%", "telazine")]}]
    [(_, record)] = read_spans(rows)
    assert said(record, "medications") == [{"name": "telazine", "dose": "0.25%"}]


def test_a_name_that_is_said_again_is_one_entity() -> None:
    [(text, record)] = read_entities([entities_row()])
    assert_literal(text, record)
    assert said(record, "problems") == [{"name": "gout"}, {"name": "hives"}]
    assert [drug["name"] for drug in said(record, "medications")] == ["Quinarex", "warfarin"]


def test_without_drugs_of_the_collection_those_of_the_rules_stay() -> None:
    [(_, record)] = read_entities([entities_row(("hives", "Disease"))])
    assert record["medications"] == parse_record(SENTENCE)["medications"] != []
    assert said(record, "problems") == [{"name": "hives"}]


@cache
def planner() -> Planner:
    tokenizer = make_tokenizer("bpe")
    tokenizer.add_tokens(list(RECORD_TAGS))
    return Planner(SourceTokenizer(tokenizer), [tokenizer.eos_token_id], len(tokenizer))


@pytest.mark.parametrize("name", ROWS)
def test_the_lines_of_an_example_read_back_are_its_record(tmp_path: Path, name: str) -> None:
    for text, record in made_of(tmp_path, name):
        assert_literal(text, record)
        lines = record_lines(record)
        assert lines
        target = planner().automaton(RECORD_GRAMMAR).written(lines)
        reading = planner().plan(text, Constraint(RECORD_GRAMMAR), 1_000, len(target) + 1).close(target)
        page = read_page(text)
        assert record_lines(record_of(reading.values, 0, page, page_context(page))) == lines


def test_the_same_seed_draws_the_same_texts(tmp_path: Path) -> None:
    once, again = (made_of(tmp_path, "read", "--read-limit", "5") for _ in range(2))
    assert once == again
    assert len(once) == 5 and once != made_of(tmp_path, "read")[:5]


def test_synthetic_notes_keep_their_gold(tmp_path: Path) -> None:
    write_sample(4, tmp_path / "sample", seed=1, dirty_share=0.0, files=1)
    main(["--gold", str(tmp_path / "sample"), "--output", str(tmp_path / "made")])
    found = made(tmp_path / "made", "gold")
    assert found
    for text, record in found:
        assert_literal(text, record)


@given(
    st.lists(st.sampled_from(["Gout came back. ", "He took 5 mg of warfarin daily. ", "No asthma. ", "BP 120/80. ", "\n"]), max_size=12),
    st.integers(1, 30),
)
def test_pieces_keep_what_lies_within_them(parts: list[str], words: int) -> None:
    text = "".join(parts)
    record = parse_record(text)
    pieces = list(passages(text, record, words))
    for piece, inner in pieces:
        assert_literal(piece, inner)
        assert piece in text
        assert len(piece.split()) <= words or len(split_sentences(piece)) == 1
    kept = [problem["name"]["text"] for _, inner in pieces for problem in inner["problems"]]
    assert kept == [problem["name"]["text"] for problem in record["problems"]]


CANARY = "Xanthippe-4711"
BAD: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "gold that is no JSON": ("phee", [phee_row(), {"text": CASE, "gold": f"{{{CANARY}"}]),
    "an event without its keys": ("phee", [{"text": CASE, "gold": json.dumps({"events": [{CANARY: 1}]})}]),
    "gold of another shape": ("entities", [{"text": SENTENCE, "gold": json.dumps([CANARY])}]),
    "a span without an end": ("spans", [{"text": LINE, "spans": json.dumps([{"start": 1, "label": "DRUG", "text": CANARY}])}]),
    "no text": ("read", [{"text": CANARY}, {"text": None}]),
    "no such column": ("phee", [{"text": CANARY}]),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_row_is_told_by_its_number_and_not_quoted(tmp_path: Path, what: str) -> None:
    name, rows = BAD[what]
    with pytest.raises(ConfigurationError, match=f"--{name}: (row|file) {1 if 'column' in what else len(rows)} ") as caught:
        main([f"--{name}", str(write(tmp_path, rows)), "--output", str(tmp_path / "made")])
    assert CANARY not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize("option", ["--phee", "--spans", "--entities", "--read"])
def test_what_is_no_parquet_is_told_without_its_name(tmp_path: Path, option: str) -> None:
    path = tmp_path / f"{CANARY}.parquet"
    path.write_text(CANARY)
    for given_path in (path, tmp_path / f"{CANARY}-gone"):
        with pytest.raises(ConfigurationError, match=f"{option}: file 1 cannot be read") as caught:
            main([option, str(given_path), "--output", str(tmp_path / "made")])
        assert CANARY not in str(caught.value)


def test_a_folder_that_is_no_sample_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--gold"):
        main(["--gold", str(tmp_path), "--output", str(tmp_path / "made")])
