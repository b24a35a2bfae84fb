"""C-CDA documents as notes: the narrative in order, what is known of it, and XML that means harm."""

from __future__ import annotations

import time
from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.rejection import Reason
from tests.damage import damaged
from transforms.formats import Document
from transforms.formats.ccda import cda_text, documents

HEAD = """<?xml version="1.0" encoding="UTF-8"?><?xml-stylesheet type="text/xsl" href="http://elsewhere.example/cda.xsl"?>
<ClinicalDocument xmlns="urn:hl7-org:v3" xmlns:sdtc="urn:hl7-org:sdtc">
<typeId root="2.16.840.1.113883.1.3" extension="POCD_HD000040"/><id nullFlavor="UNK"/><id root="1.2.3" extension="doc-5"/>
<code code="34133-9" codeSystem="2.16.840.1.113883.6.1" displayName="Summarization of episode note"/>
<title>Discharge
  Summary</title><effectiveTime value="20310405060708+0100"/><languageCode code="en-US"/>
<recordTarget><patientRole><id root="9.9" nullFlavor="NI"/><id root="9.8" extension="mrn-4"/>
<patient><name><family>Invented</family></name></patient></patientRole></recordTarget>
<componentOf><encompassingEncounter><id root="8.8" extension="enc-6"/></encompassingEncounter></componentOf>"""
BODY = """<component><structuredBody>
<component><section><title>ALLERGIES</title><text><paragraph>No known <content styleCode="Bold">drug</content> allergies.</paragraph>
<!-- a comment --></text><entry><act><text>coded only</text></act></entry></section></component>
<component><section><title>Medications:</title><text><table><caption>Active</caption><thead><tr><th>Drug</th><th>Dose</th></tr></thead>
<tbody><tr ID="m1"><td>Lisinopril</td><td>10 mg<br/>daily</td></tr></tbody></table></text>
<component><section><title>Stopped</title><text><list listType="ordered"><caption>Two</caption><item>aspirin</item><item>ibuprofen</item>
</list><content revised="delete">struck out</content></text></section></component></section></component>
<component><section><text>Plan: rest.
Return in 2 weeks if &lt; 5 x10<sup>9</sup>/L.</text></section></component>
<component><section><title>Course</title><text>First line.
  Second line.
</text></section></component>
</structuredBody></component></ClinicalDocument>"""
TEXT = """ALLERGIES:
No known drug allergies.

Medications:
Active
Drug | Dose
Lisinopril | 10 mg daily

Stopped:
Two
1. aspirin
2. ibuprofen

Plan: rest. Return in 2 weeks if < 5 x10^9/L.

Course:
First line.
  Second line."""


def whole(body: str = BODY, head: str = HEAD) -> bytes:
    return (head + body).encode()


def unstructured(attributes: str, content: str) -> bytes:
    return whole(f"<component><nonXMLBody><text {attributes}>{content}</text></nonXMLBody></component></ClinicalDocument>")


def only(data: bytes) -> Document:
    [note] = documents(data)
    return note


def test_a_document_is_a_note() -> None:
    assert only(whole()) == Document(
        {
            "note_id": "1.2.3^doc-5",
            "text": TEXT,
            "patient_id": "mrn-4",
            "encounter_id": "enc-6",
            "note_type": "Discharge Summary",
            "written_at": "2031-04-05T06:07:08+01:00",
            "language": "en-US",
            "type_code": "2.16.840.1.113883.6.1|34133-9",
        }
    )
    assert cda_text(whole()) == TEXT


def test_the_code_names_a_document_without_a_title() -> None:
    untitled = HEAD.replace("<title>Discharge\n  Summary</title>", "")
    assert only(whole(head=untitled)).values["note_type"] == "Summarization of episode note"


def test_several_documents_in_one_file() -> None:
    inner = HEAD.partition("?>\n")[2] + BODY
    found = list(documents(f"<batch>{inner}{inner.replace('doc-5', 'doc-6')}</batch>".encode()))
    assert [note.values["note_id"] for note in found] == ["1.2.3^doc-5", "1.2.3^doc-6"]
    assert [note.values["text"] for note in found] == [TEXT, TEXT]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1"])
def test_the_encoding_is_the_documents_own(encoding: str) -> None:
    data = (HEAD + BODY).replace("UTF-8", encoding).replace("aspirin", "café").encode(encoding)
    assert only(data).values["text"] == TEXT.replace("aspirin", "café")


def test_sections_inside_narrative_are_not_told_twice() -> None:
    nested = "<section><text>" * 60 + "deep" + "</text></section>" * 60
    data = whole(f"<component><structuredBody><component>{nested}</component></structuredBody></component></ClinicalDocument>")
    assert only(data).values["text"] == "deep"


def test_an_unstructured_body() -> None:
    page = b64encode("<p>café</p>".encode("latin-1")).decode()
    assert only(unstructured('mediaType="text/html; charset=iso-8859-1" representation="B64"', page)).values["text"] == "café"
    assert only(unstructured('mediaType="text/plain"', "plain café\nsecond line")).values["text"] == "plain café\nsecond line"
    rich = b64encode(b"{\\rtf1 rich}").decode()
    assert only(unstructured('mediaType="text/rtf" representation="B64"', rich)).values["text"] == "rich"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (unstructured('mediaType="application/pdf" representation="B64"', "JVBERi0="), Reason.CONTENT_TYPE),
        (unstructured('mediaType="text/plain" representation="B64"', "!!"), Reason.CONTENT_UNREADABLE),
        (unstructured('mediaType="text/plain"', ""), Reason.CONTENT_MISSING),
        (whole("<component><structuredBody/></component></ClinicalDocument>"), Reason.CONTENT_MISSING),
        (whole("</ClinicalDocument>"), Reason.CONTENT_MISSING),
    ],
)
def test_what_cannot_be_used_has_a_reason_and_its_id(data: bytes, problem: Reason) -> None:
    note = only(data)
    assert (note.problem, note.values["note_id"], note.values["text"]) == (problem, "1.2.3^doc-5", None)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", Reason.CONTENT_UNREADABLE),
        (b"no xml", Reason.CONTENT_UNREADABLE),
        (whole()[:-40], Reason.CONTENT_UNREADABLE),
        (b"<ClinicalDocument>" * 300 + b"</ClinicalDocument>" * 300, Reason.CONTENT_UNREADABLE),
        (b'<?xml version="1.0" encoding="no-such"?><a/>', Reason.CONTENT_UNREADABLE),
        (b"<feed><entry/></feed>", Reason.CONTENT_TYPE),
    ],
)
def test_files_that_are_no_clinical_documents(data: bytes, problem: Reason) -> None:
    assert only(data) == Document({}, problem)


def test_no_file_is_read_and_no_entity_expanded(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("SECRET")
    lols = "".join(f'<!ENTITY l{n + 1} "{f"&l{n};" * 10}">' for n in range(9))
    doctype = f'<!DOCTYPE x [<!ENTITY file SYSTEM "{(tmp_path / "secret").as_uri()}"><!ENTITY l0 "lol">{lols}'
    doctype += '<!ENTITY % remote SYSTEM "http://nowhere.example/x.dtd"> %remote;]>'
    start = time.process_time()
    for entity in ("&file;", "&l9;", "&l0;"):
        declared = HEAD.replace("<ClinicalDocument", doctype + "<ClinicalDocument")
        assert only(whole(BODY.replace("aspirin", entity), declared)) == Document({}, Reason.CONTENT_UNREADABLE)
        # In an attribute, where entities cannot be told afterwards.
        note = only(whole(head=declared.replace("doc-5", "x" if entity == "&file;" else entity)))
        assert "SECRET" not in str(note.values) and len(str(note.values)) < 10_000
    assert time.process_time() - start < 2


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(data: bytes) -> None:
    list(documents(data))
    list(documents(b"<ClinicalDocument><component>" + data + b"</component></ClinicalDocument>"))


def test_time_grows_with_the_length() -> None:
    def seconds(count: int) -> float:
        sections = (
            "<component><section><title>t</title><text><table><tr><td>a</td><td>b</td></tr></table></text></section></component>" * count
        )
        start = time.process_time()
        only(whole(f"<component><structuredBody>{sections}</structuredBody></component></ClinicalDocument>"))
        return time.process_time() - start

    seconds(10)
    assert seconds(3_000) < 40 * seconds(300) + 0.2


@pytest.mark.slow
def test_damaged_documents_are_survived() -> None:
    samples = [whole(), unstructured('mediaType="text/rtf" representation="B64"', b64encode(b"{\\rtf1 rich}").decode())]
    for data in damaged(samples, 1_000):
        for note in documents(data):
            assert (note.problem is None) == bool(note.values.get("text"))
