"""Files of JSON as real exports write them: lists one after the other, bundles on one line, a broken beginning, deep nesting."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from schemas.rejection import Reason
from tests.conftest import note_rows
from tests.formats import COMPRESS, as_fhir, as_jsonl, layout_of, read_rows_of, rows_of, write_bytes
from tests.test_formats import read_folder
from transforms.formats.nesting import on_free_stack

NOTES = note_rows(6)
IDS = [note["note_id"] for note in NOTES]
RESOURCES = [json.loads(line) for line in as_fhir(NOTES).splitlines()]


def bundle_of(resources: Sequence[Any]) -> dict[str, Any]:
    return {"id": "b", "entry": [{"resource": resource} for resource in resources], "resourceType": "Bundle"}


def on_one_line(value: Any) -> bytes:
    return json.dumps(value).encode()


ONE_BUNDLE = bundle_of(RESOURCES)
TWO_BUNDLES = [bundle_of(RESOURCES[:2]), bundle_of(RESOURCES[2:])]


LONG = {"resourceType": "Basic", "x": "y" * 300_000}
TYPE_LAST = bundle_of([LONG, *RESOURCES])
BUNDLES = {
    "one line": on_one_line(ONE_BUNDLE),
    "byte order mark": b"\xef\xbb\xbf" + on_one_line(ONE_BUNDLE) + b"\r\n",
    "utf-16": json.dumps(ONE_BUNDLE).encode("utf-16"),
    "indented": json.dumps(ONE_BUNDLE, indent=2).encode(),
    "bundles in a bundle": on_one_line(bundle_of(TWO_BUNDLES)),
    "a bundle a line": b"\n".join(map(on_one_line, TWO_BUNDLES)),
    "a list": on_one_line(RESOURCES),
    "type last": on_one_line(TYPE_LAST),
    "type last, indented": json.dumps(TYPE_LAST, indent=1).encode(),
    "no bundle, type last": b"\n".join(json.dumps({"a": LONG["x"], **resource}, sort_keys=True).encode() for resource in RESOURCES),
}


@pytest.mark.parametrize("data", BUNDLES.values(), ids=BUNDLES)
@pytest.mark.parametrize("suffix", COMPRESS)
def test_every_note_of_a_bundle_is_a_row(tmp_path: Path, data: bytes, suffix: str) -> None:
    write_bytes(tmp_path / f"x.json{suffix}", COMPRESS[suffix](data))
    notes, rejected = read_folder(tmp_path, 2)
    assert [note["note_id"] for note in notes] == IDS and not rejected


def test_a_broken_line_of_bundles_costs_that_line() -> None:
    data = b"\n".join((on_one_line(TWO_BUNDLES[0]), on_one_line(ONE_BUNDLE)[:-90], on_one_line(TWO_BUNDLES[1]), b""))
    found = rows_of(data, "x.ndjson")
    assert [row.problem for row in found] == [None, None, Reason.CONTENT_UNREADABLE, None, None, None, None]
    assert [row.values["note_id"] for row in found if row.values] == IDS


@pytest.mark.parametrize("between", [b"\n", b", ", b"", b"\r\n\r\n"])
def test_lists_may_follow_each_other(between: bytes) -> None:
    data = on_one_line(NOTES[:2]) + between + on_one_line(NOTES[2:5]) + between + on_one_line(NOTES[5])
    assert [dict(row.values or {}) for row in rows_of(data, "x.json")] == NOTES


@pytest.mark.parametrize(
    ("end", "reason"),
    [(b"]\nrubbish", Reason.FILE_CORRUPT), (b",", Reason.FILE_TRUNCATED), (b"", Reason.FILE_TRUNCATED), (b"]]", Reason.FILE_CORRUPT)],
)
def test_a_list_says_so_when_it_does_not_end_well(end: bytes, reason: Reason) -> None:
    *good, last = rows_of(on_one_line(NOTES)[:-1] + end, "x.json")
    assert len(good) == len(NOTES) and last.problem is reason


@pytest.mark.parametrize(
    "first",
    [b'{"note_id": "x", "text": "cut of', b'{"note_id": "x",', b'{"note_id": "x" "text": 1}', b"{", '{"text": "a\u2028b"'.encode()],
)
def test_a_broken_first_line_costs_that_line(first: bytes) -> None:
    found = rows_of(first + b"\n" + as_jsonl(NOTES), "x.jsonl")
    assert [(row.line, row.problem) for row in found] == [(1, Reason.LINE_MALFORMED), *((line, None) for line in range(2, 8))]


@pytest.mark.parametrize("odd", ["\u2028", "\u2029", "\x85", "\x0b", "\x1c"])
def test_only_line_ends_end_lines(odd: str) -> None:
    notes = [{**note, "text": f"before{odd}after"} for note in NOTES]
    data = b"".join(json.dumps(note, ensure_ascii=False).encode() + b"\n" for note in notes)
    if odd >= " ":  # JSON itself wants the others escaped
        assert b"\\" not in data
    found = rows_of(data, "x.jsonl")
    assert not layout_of(data, "x.jsonl").whole
    assert [(row.line, dict(row.values or {})) for row in found] == list(enumerate(notes, start=1))


def test_an_object_over_several_lines_is_no_list_of_lines() -> None:
    data = b'{"entry": [\n{"a": 1},\n{"a": 2}\n]}'
    assert layout_of(data, "x.json").whole and len(rows_of(data, "x.json")) == 1
    assert layout_of(data[:-2], "x.json").whole and layout_of(data + b"\n" * 3, "x.json").whole


def from_depth(calls: int, function: Callable[[], Any]) -> Any:
    return function() if calls == 0 else from_depth(calls - 1, function)


@pytest.mark.parametrize("levels", [100, 700, 940, 990])
def test_how_deep_json_may_be_does_not_depend_on_who_reads_it(levels: int) -> None:
    """A worker reads from within many calls, a plan from within few; both must see the same rows."""
    patient = '{"resourceType": "Patient", "x": ' + "[" * levels + "]" * levels + "}\n"
    for name, data in {
        "x.ndjson": as_fhir(NOTES[:1]) + patient.encode() + as_fhir(NOTES[1:]),
        "x.jsonl": as_jsonl([{"note_id": "x", "text": "t"}]) + b'{"note_id": ' + b"[" * levels + b"]" * levels + b"}\n",
    }.items():
        layout = layout_of(data, name)
        here, there = read_rows_of(data, layout), from_depth(500, partial(read_rows_of, data, layout))
        assert [(row.offset, row.problem) for row in there] == [(row.offset, row.problem) for row in here]


def test_what_is_too_deep_for_any_stack_is_said_to_be() -> None:
    with pytest.raises(RecursionError):
        on_free_stack(json.loads, "[" * 5000)
