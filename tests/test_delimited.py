"""Delimited text: dialects, records over several lines, and faults that cost one line each."""

from __future__ import annotations

import csv
import io
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.commit import Layout
from schemas.rejection import Reason
from tests.conftest import note_rows
from tests.formats import as_csv, layout_of, read_rows_of, rows_of
from transforms.formats import Row

PLAIN = Layout("csv", encoding="utf-8", delimiter=",", quote='"', columns=("note_id", "text"))


def told(rows: list[Row]) -> list[tuple[int | None, object]]:
    return [(row.line, row.problem or (row.values or {}).get("note_id")) for row in rows]


def body(*lines: str) -> bytes:
    return "\n".join(("note_id,text", *lines)).encode()


cells = st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12), min_size=3, max_size=3)


@given(st.lists(cells, min_size=1, max_size=6), st.sampled_from(",;\t|"), st.sampled_from(["\n", "\r\n", "\r"]))
def test_what_the_csv_module_writes_is_read_back(table: list[list[str]], delimiter: str, end: str) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([["note_id", "text", "ward"], *table])
    data = text.getvalue().encode()
    layout = Layout("csv", encoding="utf-8", delimiter=delimiter, quote='"', columns=("note_id", "text", "ward"))
    assert [list((row.values or {}).values()) for row in read_rows_of(data, layout)] == [[cell or None for cell in row] for row in table]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "latin-1", "utf-16", "utf-16-le", "utf-16-be"])
def test_dialect_and_encoding_are_found_out(delimiter: str, encoding: str) -> None:
    notes = [
        {**row, "text": f"{row['text']}, wound – dry; “fine” | é\tà." if "latin" not in encoding else row["text"] + " é; x"}
        for row in note_rows(9)
    ]
    data = as_csv(notes, delimiter, encoding)
    layout = layout_of(data, "x.csv")
    assert (layout.delimiter, layout.columns) == (delimiter, tuple(notes[0]))
    assert [row.values for row in read_rows_of(data, layout)] == notes


def test_the_header_the_job_asks_for_tells_the_delimiter() -> None:
    data = b"id|body, free text\n1|a, b, c\n2|d, e, f\n"
    assert layout_of(data, "x.csv", ["id", "body, free text"]).delimiter == "|"
    assert layout_of(data, "x.csv", delimiter=",").columns == ("id|body", "free text")
    quoted = b"id;body\n'1';'a;b'\n'2';'c;d'\n"
    assert [row.values for row in rows_of(quoted, "x.csv")] == [{"id": "1", "body": "a;b"}, {"id": "2", "body": "c;d"}]


def test_names_that_are_empty_or_stand_twice_get_numbers() -> None:
    assert layout_of(b"a,,a, b ,a\n1,2,3,4,5\n", "x.csv").columns == ("a", "column_2", "a_2", "b", "a_3")


def test_a_header_that_cannot_be_read_is_no_header() -> None:
    data = b"note_id,te\xffxt\n1,caf\xc3\xa9 \xc3\xa0\n"
    assert layout_of(data, "x.csv").columns == ()
    assert told(rows_of(data, "x.csv"))[0] == (1, Reason.ROW_UNREADABLE)


def test_ragged_rows_are_set_aside_and_padding_is_not() -> None:
    rows = rows_of(body("1,a", "2", "3,b,c", "4,d,,", '5,"e', 'f"', "6,g"), "x.csv")
    assert told(rows) == [(2, "1"), (3, Reason.FIELD_COUNT), (4, Reason.FIELD_COUNT), (5, "4"), (6, "5"), (8, "6")]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["1,a", '2,"open', "3,b", "4,c"], ["1", Reason.LINE_MALFORMED, "3", "4"]),
        (["1,a", '2,"open', "3,b", '4,"shut"', "5,c"], ["1", Reason.LINE_MALFORMED, "3", "4", "5"]),
        (["1,a", '2,"he said "no" again"', "3,b"], ["1", Reason.LINE_MALFORMED, "3"]),
        (["1,a", '2,"open'], ["1", Reason.LINE_MALFORMED]),
        # The file is cut within a note of several lines: its lines are no records.
        (["1,a", '2,"first', "second line", "third, line", "fourth"], ["1", Reason.FILE_TRUNCATED]),
    ],
)
def test_a_quote_left_open_costs_one_line(lines: list[str], expected: list[object]) -> None:
    assert [what for _, what in told(rows_of(body(*lines), "x.csv"))] == expected


def test_bytes_that_are_no_text_cost_one_record() -> None:
    data = b'note_id,text\n1,caf\xc3\xa9 \xc3\xa0\n2,"two\nlines \xff"\n3,c\xc3\xa9\n4,\x00\n'
    assert told(rows_of(data, "x.csv")) == [(2, "1"), (3, Reason.ROW_UNREADABLE), (5, "3"), (6, "4")]


def test_long_fields_and_odd_line_ends() -> None:
    long = "word " * 1_000_000
    rows = rows_of(f'note_id,text\r\n1,"{long}"\r2,b\n\n\r\n3,c'.encode(), "x.csv")
    assert told(rows) == [(2, "1"), (3, "2"), (6, "3")]
    assert (rows[0].values or {})["text"] == long


@pytest.mark.parametrize("line", [b'y","z\n', b'1,"open\n', b'"""\n', b'a,"b""c\nd""e\n', b'"",\n', b'",""\n'])
def test_the_work_is_linear_in_the_length(line: bytes) -> None:
    def seconds(count: int) -> float:
        data = b"note_id,text\n" + line * count
        started = time.process_time()
        read_rows_of(data, PLAIN)
        return time.process_time() - started

    short, long = (min(seconds(count) for _ in range(3)) for count in (4_000, 16_000))
    assert long < 12 * max(short, 0.02)
