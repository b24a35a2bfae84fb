"""HL7 version 2 messages as notes: documents and reports, their text with its escapes, and how messages stand in files."""

from __future__ import annotations

import time
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.rejection import Reason
from tests.damage import damaged
from transforms.formats import Document
from transforms.formats.hl7v2 import documents, parse
from transforms.formats.timestamps import iso_time

MSH = r"MSH|^~\&|EHR|H|X|Y|20310405||MDM^T02^MDM_T02|c-1|P|2.5.1||||||"
PID = "PID|1||mrn-4^^^H^MR~other^^^X||Invented^Ann"
PV1 = "PV1|1|I|||||||||||||||||enc-6^^^H"
TXA = "TXA|1|DS^Discharge summary|TX|20310405060708+0100||||||||doc-5^H||||| LA||AV".replace(" LA", "LA")
MDM = "\r".join(
    (
        MSH,
        PID,
        PV1,
        TXA,
        "OBX|1|TX|11^Text||ALLERGIES: none known.||||||F",
        r"OBX|2|FT|11^Text||PLAN:\.br\rest \T\ fluids~then 5\S\9||||||F",
    )
)
MDM_TEXT = "ALLERGIES: none known.\nPLAN:\nrest & fluids\nthen 5^9"
ORU = "\r".join(
    (
        MSH.replace("MDM^T02^MDM_T02", "ORU^R01"),
        PID,
        "OBR|1||f-1^LAB|2345-7^Basic panel|||20310405",
        "OBX|1|NM|2345-7^Glucose||99|mg/dL|||||F",
        "OBX|2|ST|1^Colour||yellow||||||F",
        "OBR|2||f-2^RAD|36643-5^Chest film|||203104050607||||||||||||||||||F",
        "OBX|1|TX|1^FINDINGS||The lungs are clear.||||||F",
        "OBX|2|TX|1^FINDINGS||No effusion.||||||F",
        "OBX|3|TX|2^IMPRESSION||Normal film.||||||F",
        "OBX|4|NM|3^Heart width||11|cm|||||F",
        "NTE|1||Read twice.",
    )
)


def obx(kind: str, value: str, status: str = "F", segments: str = "") -> bytes:
    return "\r".join((MSH, PID, TXA, f"OBX|1|{kind}|11^Text||{value}||||||{status}" + segments)).encode()


def only(data: bytes | str) -> Document:
    [note] = documents(data.encode() if isinstance(data, str) else data)
    return note


def text_of(data: bytes | str) -> str | None:
    note = only(data)
    assert note.problem is None
    return note.values["text"]


def test_a_document_message_is_a_note() -> None:
    assert only(MDM) == Document(
        {
            "note_id": "doc-5",
            "text": MDM_TEXT,
            "patient_id": "mrn-4",
            "encounter_id": "enc-6",
            "note_type": "Discharge summary",
            "written_at": "2031-04-05T06:07:08+01:00",
            "status": "LA",
            "message_type": "MDM^T02",
        }
    )


def test_a_report_is_a_note_and_a_panel_of_numbers_is_none() -> None:
    note = only(ORU)
    assert note.values["text"] == (
        "FINDINGS:\nThe lungs are clear.\nNo effusion.\nIMPRESSION:\nNormal film.\nHeart width: 11 cm\nRead twice."
    )
    assert [note.values[key] for key in ("note_id", "note_type", "written_at", "status", "patient_id")] == [
        "f-2", "Chest film", "2031-04-05T06:07:00", "F", "mrn-4",
    ]  # fmt: skip


def test_a_report_without_a_number_is_named_by_its_message() -> None:
    assert only(ORU.replace("f-2^RAD", "")).values["note_id"] == "c-1-2"
    assert only(MDM.replace("doc-5^H", "")).values["note_id"] == "c-1"


def test_a_string_is_a_report_when_it_is_a_sentence() -> None:
    start = "\r".join((MSH.replace("MDM^T02^MDM_T02", "ORU^R01"), "OBR|1||f-1|x^Film", ""))
    assert list(documents((start + "OBX|1|ST|1^Film||negative||||||F").encode())) == []
    assert text_of(start + "OBX|1|ST|1^Film||No acute disease is seen.||||||F") == "No acute disease is seen."


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (r"a\.br\b\.sp2\c\.sp 3\d", "a\nb\n\nc\n\n\nd"),
        (r"\F\\S\\T\\R\\E\ ", "|^&~\\"),
        (r"x\X0D\y\X0D0A\z", "x\ny\nz"),
        (r"\H\bold\N\ \.in+4\\.ti-2\in", "bold in"),
        (r"and\or \.br\ and 5\6", "and\\or \n and 5\\6"),
        (r"\Zabc\\C2842\\M244242\end", "end"),
        (r"\X636166C3A9\ ", "café"),
        ("one~two", "one\ntwo"),
        (r"\.sp9999\x", "x"),
        (r"{\E\rtf1 caf\E\'e9\E\par two}", "café\ntwo"),
    ],
)
def test_escapes(value: str, text: str) -> None:
    assert text_of(obx("FT", value)) == text.strip()


@pytest.mark.parametrize(
    ("components", "text"),
    [
        ("^TEXT^plain^Base64^" + b64encode(b"in base64").decode(), "in base64"),
        ("^text/html^^BASE64^" + b64encode(b"<p>page</p>").decode(), "page"),
        ("^TEXT^RTF^Base64^" + b64encode(b"{\\rtf1 rich}").decode(), "rich"),
        ("^AP^rtf^Base64^" + b64encode(b"{\\rtf1 rich}").decode(), "rich"),
        ("^TEXT^plain^A^as it stands", "as it stands"),
    ],
)
def test_encapsulated_text(components: str, text: str) -> None:
    assert text_of(obx("ED", components)) == text


def test_running_text_is_preferred_to_a_file_beside_it() -> None:
    scan = "\rOBX|2|ED|12^Scan||^application^pdf^Base64^JVBERi0=||||||F\rOBX|3|RP|13^Link||http://files.example||||||F"
    assert text_of(obx("TX", "the text", segments=scan)) == "the text"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (obx("ED", "^application^pdf^Base64^JVBERi0="), Reason.CONTENT_TYPE),
        (obx("ED", "^TEXT^plain^Base64^!!"), Reason.CONTENT_UNREADABLE),
        (obx("ED", ""), Reason.CONTENT_MISSING),
        (obx("RP", "http://elsewhere.example"), Reason.CONTENT_MISSING),
        (obx("TX", ""), Reason.CONTENT_MISSING),
        (MDM.partition("\rOBX")[0].encode(), Reason.CONTENT_MISSING),
        (obx("TX", "wrong patient", "W"), Reason.WITHDRAWN),
        (MDM.replace("T02", "T11", 1).encode(), Reason.WITHDRAWN),
        (MDM.replace("|AV", "|CA").encode(), Reason.WITHDRAWN),
    ],
)
def test_what_cannot_be_used_has_a_reason_and_its_id(data: bytes, problem: Reason) -> None:
    note = only(data)
    assert (note.problem, note.values["note_id"], note.values["text"]) == (problem, "doc-5", None)


def test_void_results_are_left_out_of_a_document() -> None:
    assert text_of(obx("TX", "posted as wrong", "W", "\rOBX|2|TX|11^Text||right||||||C")) == "right"


def test_text_is_a_note_even_where_its_header_segment_is_missing() -> None:
    lost = only("\r".join(line for line in MDM.split("\r") if not line.startswith("TXA")))
    assert (lost.values["note_id"], lost.values["text"]) == ("c-1", MDM_TEXT)
    lost = only(ORU.partition("\rOBR")[0] + "\rOBX|1|TX|1^FINDINGS||Clear lungs.||||||F")
    assert (lost.values["note_id"], lost.values["text"]) == ("c-1-0", "Clear lungs.")


def test_notices_and_other_messages_are_no_notes() -> None:
    notice = MDM.partition("\rOBX")[0].replace("T02", "T01", 1)
    admission = "\r".join((MSH.replace("MDM^T02^MDM_T02", "ADT^A01"), PID, PV1))
    assert list(documents((notice + "\r" + admission).encode())) == []


@pytest.mark.parametrize("end", ["\r", "\n", "\r\n", "\r\n\r\n"])
@pytest.mark.parametrize(
    ("before", "after"), [("", ""), ("\x0b", "\x1c\r"), ("FHS|^~\\&\rBHS|^~\\&\r", "BTS|2\rFTS|1\r"), ("\ufeff", ""), ("\n  ", "\n")]
)
def test_messages_in_files(end: str, before: str, after: str) -> None:
    second = MDM.replace("doc-5", "doc-6")
    file = before + (MDM + "\r").replace("\r", end) + after + before.strip("\ufeff") + (second + "\r").replace("\r", end) + after
    found = list(documents(file.encode()))
    assert [note.values["note_id"] for note in found] == ["doc-5", "doc-6"]
    assert [note.values["text"] for note in found] == [MDM_TEXT, MDM_TEXT]


def test_reprs_hold_nothing_of_the_message() -> None:
    shown = repr([only(MDM), parse(MDM.encode()), parse(MDM.encode()).segments])
    assert not [word for word in ("ALLERGIES", "mrn-4", "doc-5", "Invented") if word in shown]


def escaped(text: str) -> str:
    marks = {"\\": "E", "|": "F", "^": "S", "&": "T", "~": "R", "\n": ".br"}
    return "".join(f"\\{marks[mark]}\\" if mark in marks else mark for mark in text)


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r\x0b\x1c\x00\ufeff"), min_size=1, max_size=60))
def test_what_was_escaped_is_read_back(text: str) -> None:
    note = only(obx("FT", escaped("begin " + text + " end")))
    assert note.values["text"] == "begin " + text + " end"


def test_a_line_break_inside_a_field_is_kept() -> None:
    assert text_of(obx("TX", "first\nHPI\nMSH is a word here\n\nlast")) == "first\nHPI\nMSH is a word here\n\nlast"


def test_other_separators() -> None:
    other = MDM.replace("~", "!").replace(r"MSH|^!\&|", "MSH|^!@&|").replace("\\", "@").replace("|", "#")
    assert text_of(other) == MDM_TEXT


@pytest.mark.parametrize(
    ("declared", "encoding"),
    [("UNICODE UTF-8", "utf-8"), ("8859/1", "latin-1"), ("8859/2", "iso8859-2"), ("", "cp1252"), ("ASCII", "utf-8")],
)
def test_character_sets(declared: str, encoding: str) -> None:
    word = "łąka" if encoding == "iso8859-2" else "café"
    message = MDM.replace("2.5.1||||||", f"2.5.1||||||{declared}").replace("none known", word)
    assert text_of(message.encode(encoding)) == MDM_TEXT.replace("none known", word)


def test_zero_bytes_do_not_make_a_message_vanish() -> None:
    text = "".join(letter + "\0" for letter in "stored in the wrong form" * 20)
    assert text_of(obx("TX", text)) == text
    assert text_of(obx("TX", text + "é").decode().encode("latin-1")) == text + "é"


def test_sixteen_bits() -> None:
    assert text_of(MDM.replace("known", "connues — café").encode("utf-16")) == MDM_TEXT.replace("known", "connues — café")


@pytest.mark.parametrize("data", [b"no message", b"MSHA|^", b"\x00", b"PID|1||x"])
def test_a_file_without_messages_is_one_document_set_aside(data: bytes) -> None:
    assert list(documents(data)) == [Document({}, Reason.CONTENT_UNREADABLE)]
    assert list(documents(b" \n")) == []


@given(st.binary(max_size=200), st.text(alphabet="|^~\\&\r\n\x0bMSHOBXT25.", max_size=60))
def test_any_bytes_are_survived(data: bytes, header: str) -> None:
    for file in (data, b"MSH|" + data, b"MSH" + header.encode() + data, MDM.encode() + data, obx("ED", "^TEXT^RTF^^") + data):
        list(documents(file))


@pytest.mark.slow
def test_damaged_messages_are_survived() -> None:
    samples = [MDM.encode(), ORU.encode(), obx("ED", "^TEXT^RTF^Base64^" + b64encode(b"{\\rtf1 rich}").decode())]
    for data in damaged(samples, 1_000):
        for note in documents(data):
            assert (note.problem is None) == bool(note.values.get("text"))


@pytest.mark.parametrize("unit", ["OBX|1|TX|1||words here\r", "OBR|1||a|b\rOBX|1|TX|1||words\r", r"\.br\x", "\\X", "a\n", MSH + "\r", "~"])
def test_time_grows_with_the_length(unit: str) -> None:
    def seconds(count: int) -> float:
        start = time.process_time()
        list(documents((ORU + "\rOBX|1|TX|1||" + unit * count).encode()))
        return time.process_time() - start

    seconds(10)
    assert min(seconds(4_000) for _ in range(3)) < 40 * seconds(400) + 0.2


@pytest.mark.parametrize(
    ("value", "iso"),
    [
        ("2031", "2031"),
        ("203104", "2031-04"),
        ("20310405", "2031-04-05"),
        ("2031040506", "2031-04-05T06:00:00"),
        ("203104050607-0500", "2031-04-05T06:07:00-05:00"),
        ("20310405060708.123", "2031-04-05T06:07:08.123"),
        ("last spring", "last spring"),
        ("20310499", "2031-04-99"),
        (" ", None),
        (None, None),
    ],
)
def test_points_in_time(value: str | None, iso: str | None) -> None:
    assert iso_time(value) == iso
