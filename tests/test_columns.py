"""Column mapping, and values as strings."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigurationError
from transforms.column_words import said_names
from transforms.columns import ColumnMap, as_strings, value_at


def test_mapped_named_constant_and_passed_through() -> None:
    columns = ColumnMap({"note_id": "id", "text": "body", "note_type": "kind"})
    found = columns.locate(["id", "body", "written_at", "ward"], {"kind": "ED", "year": "2024"}, 0)
    assert found.read == {"note_id": "id", "text": "body", "written_at": "written_at"}
    assert found.constant == {"note_type": "ED"}
    assert found.passthrough == ("ward",)
    assert found.passthrough_constant == {"year": "2024"}


def test_passthrough_can_be_nothing_or_some() -> None:
    names = ["note_id", "text", "a", "b"]
    assert ColumnMap({}, "none").locate(names, {"y": "1"}, 0).passthrough == ()
    assert ColumnMap({}, ("b",)).locate(names, {"y": "1"}, 0).passthrough == ("b",)


def test_a_missing_column_says_what_was_found() -> None:
    with pytest.raises(ConfigurationError, match="file 3 has no column 'text' for text; found: note_id, body, year"):
        ColumnMap().locate(["note_id", "body"], {"year": "1"}, 3)
    with pytest.raises(ConfigurationError, match="no column 'signed' for written_at"):
        ColumnMap({"written_at": "signed"}).locate(["note_id", "text"], {}, 0)


def test_unknown_fields_and_passthrough_words_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="unknown field 'body'; choices: note_id, text"):
        ColumnMap({"body": "x"})
    with pytest.raises(ConfigurationError, match="'some'; choices: all, none"):
        ColumnMap({}, "some")


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (pa.array([1, None]), ["1", None]),
        (pa.array(["a", None]).dictionary_encode(), ["a", None]),
        (pa.array([b"a\xc3\xa9"]), ["aé"]),
        (pa.array([None, None]), [None, None]),
        (pa.array([dt.date(2025, 3, 1)]), ["2025-03-01"]),
        (pa.array([dt.datetime(2025, 3, 1, 4, 5, 6, 789)]), ["2025-03-01T04:05:06"]),
        (pa.array([dt.datetime(2025, 3, 1, 4)]).cast(pa.timestamp("ms", "Europe/Paris")), ["2025-03-01T04:00:00Z"]),
    ],
)
def test_values_become_strings(array: pa.Array, expected: list[str | None]) -> None:
    assert as_strings(array, "note_id") == (expected, [])


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.binary()])
def test_invalid_utf8_is_found_by_position(kind: pa.DataType) -> None:
    raw = pa.array([b"good", b"\xff\xfe", None], pa.large_binary() if kind == pa.large_string() else pa.binary())
    array = raw if kind == pa.binary() else pa.Array.from_buffers(kind, 3, raw.buffers())
    assert as_strings(array, "text") == (["good", None, None], [1])


def test_a_list_of_strings_is_joined_and_other_nested_columns_are_refused() -> None:
    assert as_strings(pa.array([["a", "b"], None, [], ["c", None]]), "text") == (["a\nb", None, "", "c\n"], [])
    for nested in ([[1]], [{"a": 1}]):
        with pytest.raises(ConfigurationError, match="the column for text has the nested type"):
            as_strings(pa.array(nested), "text")


def test_dotted_paths_reach_into_nested_columns_but_an_exact_name_goes_first() -> None:
    columns = ColumnMap({"note_id": "doc.id", "text": "doc.body.text"})
    names, paths = ["doc", "ward"], ["doc.id", "doc.body", "doc.body.text"]
    found = columns.locate(names, {}, 0, paths)
    assert found.read == {"note_id": "doc.id", "text": "doc.body.text"}
    assert found.passthrough == ("ward",)  # the whole of doc would carry the note's text
    assert columns.locate(["doc.id", "doc", "doc.body.text"], {}, 0, []).passthrough == ("doc",)
    with pytest.raises(ConfigurationError, match=r"no column 'doc\.body\.text'"):
        columns.locate(names, {}, 0, ["doc.id"])


def test_values_at_dotted_paths() -> None:
    assert value_at({"a": {"b": 1}}, "a.b") == 1
    assert value_at({"a.b": 2, "a": {"b": 1}}, "a.b") == 2
    assert value_at({"a": "text"}, "a.b") is None and value_at({}, "a") is None


def test_what_stands_where_a_header_should_is_not_repeated() -> None:
    with pytest.raises(ConfigurationError, match="found: 2 not repeated here, since they may be data") as caught:
        ColumnMap().locate(["7", "Seen today by canary, no fever"], {}, 0)
    assert "canary" not in str(caught.value)
    with pytest.raises(ConfigurationError, match=r"found: note_id, NoteText2 and 3 not repeated here") as caught:
        ColumnMap().locate(["Ada Canary", "note_id", "NoteText2", "canary"], {"mrn.canary": "1"}, 0)
    assert "canary" not in str(caught.value).lower()


@pytest.mark.parametrize("name", ["ID", "patientIds", "doc.body", "note-text", "CHARTTIME", "author name", "HADM_ID", "column_2"])
def test_usual_names_of_columns_are_repeated(name: str) -> None:
    assert said_names([name]) == name


@given(st.text(max_size=12), st.sampled_from(["Ada", "smith", "12", "é", "\u2028", "\ud800"]), st.text(max_size=12))
def test_a_name_with_one_unknown_part_is_not_repeated(before: str, unknown: str, after: str) -> None:
    assert said_names([f"{before} {unknown} {after}"]).startswith("1 not repeated here")


def test_types_of_columns_name_no_fields() -> None:
    with pytest.raises(ConfigurationError, match="has the nested type struct; a plain column is needed"):
        as_strings(pa.array([{"canary": "x"}]), "text")
