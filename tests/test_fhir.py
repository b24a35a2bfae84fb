"""FHIR resources as notes: which are, what is known of them, and where their text is found."""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.run import run_job
from schemas.rejection import Reason
from tests.conftest import echo_job, note_rows
from tests.damage import damaged
from transforms.formats import Document
from transforms.formats.fhir import document, documents

TEXT = "ALLERGIES: none known.\nPLAN: return in two weeks, sooner if the café au lait spots change."
R4: dict[str, Any] = {
    "resourceType": "DocumentReference",
    "id": "d-1",
    "status": "current",
    "docStatus": "final",
    "language": "en",
    "type": {"coding": [{"system": "http://codes.example", "code": "11506-3", "display": "Progress note"}]},
    "subject": {"reference": "Patient/p-7/_history/2"},
    "date": "2031-04-05T06:07:08Z",
    "author": [{"display": "Dr. Invented"}],
    "content": [{"attachment": {"contentType": "text/plain", "data": b64encode(TEXT.encode()).decode()}}],
    "context": {"encounter": [{"reference": "EpisodeOfCare/x"}, {"reference": "Encounter/e-3"}], "period": {"start": "2031-04-05"}},
}


def with_content(*attachments: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return R4 | {"content": [{"attachment": attachment} for attachment in attachments]} | changes


def attachment(media_type: str | None, data: str | bytes) -> dict[str, Any]:
    content = {"data": b64encode(data if isinstance(data, bytes) else data.encode()).decode()}
    return content | ({"contentType": media_type} if media_type else {})


def bundle(*resources: Any, kind: str = "collection", urls: tuple[str | None, ...] = ()) -> dict[str, Any]:
    named = zip(resources, (*urls, *[None] * len(resources)), strict=False)
    return {"resourceType": "Bundle", "type": kind, "entry": [{"resource": resource, "fullUrl": url} for resource, url in named]}


def notes(resource: Any) -> list[Document]:
    return list(documents(json.dumps(resource).encode()))


def text_of(resource: Any) -> str | None:
    [note] = notes(resource)
    assert note.problem is None
    return note.values["text"]


def problem_of(resource: dict[str, Any]) -> Reason | None:
    note = document(resource)
    assert note is not None and note.values["text"] is None
    return note.problem


def test_a_document_reference_is_a_note() -> None:
    assert document(R4) == Document(
        {
            "note_id": "d-1",
            "text": TEXT,
            "patient_id": "p-7",
            "encounter_id": "e-3",
            "note_type": "Progress note",
            "written_at": "2031-04-05T06:07:08Z",
            "status": "current",
            "docStatus": "final",
            "language": "en",
            "type_code": "http://codes.example|11506-3",
        }
    )
    assert "Invented" not in str(document(R4).values.values())  # type: ignore[union-attr]


def test_releases_differ_in_where_the_encounter_stands() -> None:
    r5 = R4 | {"context": [{"reference": "Encounter/e-5"}], "period": {"start": "2032"}, "date": None}
    note = document(r5)
    assert note is not None and (note.values["encounter_id"], note.values["written_at"]) == ("e-5", "2032")


def test_a_report_needs_a_presented_form() -> None:
    report = {"resourceType": "DiagnosticReport", "id": "r-1", "code": {"text": "Chest film"}, "issued": "2031-01-01", "status": "final"}
    report |= {"encounter": {"reference": "urn:uuid:e-9"}, "subject": {"identifier": {"value": "mrn-4"}}, "conclusion": "Clear."}
    assert document(report) is None
    note = document(report | {"presentedForm": [attachment("text/html", "<h1>Chest film</h1><p>Clear lungs.</p>")]})
    assert note is not None and note.values["text"] == "Chest film\n\nClear lungs."
    assert [note.values[key] for key in ("note_type", "written_at", "encounter_id", "patient_id")] == [
        "Chest film",
        "2031-01-01",
        "e-9",
        "mrn-4",
    ]


def test_a_composition_is_read_section_by_section() -> None:
    inner = {"title": "Drugs:", "text": {"div": "<div><ul><li>aspirin</li></ul></div>"}}
    section = [{"title": "Plan", "text": {"div": "<div><p>Rest.</p></div>"}, "section": [inner]}, {"text": {"div": "<div>End.</div>"}}]
    composition = {"resourceType": "Composition", "id": "c-1", "section": section, "title": "Visit"}
    assert text_of(bundle(composition, kind="document")) == "Plan:\nRest.\n\nDrugs:\n- aspirin\n\nEnd."


def test_one_of_several_forms_of_the_same_content_is_taken() -> None:
    plain, page = attachment("text/plain", "as text"), attachment("application/xhtml+xml", "<p>as page</p>")
    rich, scan = attachment("text/rtf", "{\\rtf1 as rtf}"), attachment("application/pdf", "%PDF")
    assert text_of(with_content(scan, rich, page, plain)) == "as text"
    assert text_of(with_content(scan, rich, page)) == "as page"
    assert text_of(with_content(scan, rich)) == "as rtf"
    # The better form is only named, the other is there.
    assert text_of(with_content({"contentType": "text/plain", "url": "http://elsewhere.example/Binary/1"}, rich)) == "as rtf"


def test_the_charset_of_the_attachment_counts() -> None:
    assert text_of(with_content(attachment("text/plain; charset=iso-8859-1", "café".encode("latin-1")))) == "café"
    assert text_of(with_content(attachment(None, "café".encode()))) == "café"


@pytest.mark.parametrize("url", ["Binary/b-1", "http://server.example/fhir/Binary/b-1", "Binary/b-1/_history/3", "urn:uuid:77"])
@pytest.mark.parametrize("key", ["data", "content"])
def test_content_in_a_binary_of_the_same_bundle(url: str, key: str) -> None:
    binary = {"resourceType": "Binary", "id": "b-1", "contentType": "text/html", key: b64encode(b"<p>from the binary</p>").decode()}
    reference = with_content({"url": url})
    assert text_of(bundle(bundle(reference), binary, urls=(None, "urn:uuid:77"))) == "from the binary"
    assert notes(reference)[0].problem is Reason.CONTENT_MISSING


def test_content_in_a_contained_binary() -> None:
    contained = [{"resourceType": "Binary", "id": "in", "contentType": "text/plain", "data": b64encode(b"from inside").decode()}]
    assert text_of(with_content({"url": "#in"}, contained=contained)) == "from inside"


def test_what_cannot_be_used_has_a_reason() -> None:
    assert problem_of(with_content(attachment("application/pdf", "%PDF"), attachment("image/png", "x"))) is Reason.CONTENT_TYPE
    assert problem_of(with_content({"contentType": "text/plain", "data": "not base64!"})) is Reason.CONTENT_UNREADABLE
    assert problem_of(with_content(attachment("text/rtf", "no rtf at all"))) is Reason.CONTENT_UNREADABLE
    assert problem_of(with_content(attachment("text/xml", "<a/>"))) is Reason.CONTENT_TYPE
    assert problem_of(with_content(attachment("text/html", "<p> </p>"))) is Reason.CONTENT_MISSING
    assert problem_of(with_content()) is Reason.CONTENT_MISSING
    assert problem_of(R4 | {"status": "entered-in-error"}) is Reason.WITHDRAWN
    assert problem_of(R4 | {"docStatus": "entered-in-error"}) is Reason.WITHDRAWN


def test_the_identifier_stands_in_for_a_missing_id() -> None:
    nameless = {key: value for key, value in R4.items() if key != "id"}
    named = document(nameless | {"masterIdentifier": {"value": " m-1 "}, "identifier": [{"value": "i-1"}]})
    assert named is not None and named.values["note_id"] == "m-1"
    named = document(nameless | {"identifier": [{"system": "x"}, {"value": "i-1"}]})
    assert named is not None and named.values["note_id"] == "i-1"
    bare = document(nameless)
    assert bare is not None and bare.values["note_id"] is None and bare.problem is None


def test_bundles_keep_their_order_and_skip_other_resources() -> None:
    first, second, third = (R4 | {"id": name} for name in ("1", "2", "3"))
    found = notes(bundle(first, {"resourceType": "Patient"}, bundle(second), third, None, 7, kind="searchset"))
    assert [note.values["note_id"] for note in found] == ["1", "2", "3"]
    assert [note.values["note_id"] for note in notes([first, bundle(second), None])] == ["1", "2"]
    assert notes(bundle()) == [] == notes({"resourceType": "Patient"}) == notes([]) == notes(7)


def test_several_resources_in_a_row_are_read_up_to_the_first_that_is_broken() -> None:
    row = "\n".join(json.dumps(resource) for resource in (R4, bundle(R4, R4), R4)).encode()
    assert [note.problem for note in documents(row + b"\n\n")] == [None] * 4
    assert [note.problem for note in documents(row[:-9])] == [None] * 3 + [Reason.CONTENT_UNREADABLE]


def test_a_bundle_on_a_line_may_hold_one_note() -> None:
    assert document(bundle(R4, {"resourceType": "Patient"})) == document(R4)
    assert document(bundle({"resourceType": "Patient"})) is None
    assert document(bundle(R4, R4)) == Document({}, Reason.LINE_MALFORMED)


def test_bundles_and_sections_may_be_nested_deep() -> None:
    nested: Any = R4
    for _ in range(200):
        nested = bundle(nested)
    assert text_of(nested) == TEXT
    section: dict[str, Any] = {"title": "innermost"}
    for _ in range(5_000):
        section = {"section": [section]}
    note = document({"resourceType": "Composition", "section": [section]})
    assert note is not None and note.values["text"] == "innermost:"


@pytest.mark.parametrize("data", [b"", b"{", b'{"a":' * 100_000, b"[" * 1_000_000, b"\xff\xfe\x00", b"9" * 5_000, b" \n"])
def test_json_that_cannot_be_read_is_one_document_set_aside(data: bytes) -> None:
    assert list(documents(data)) == [Document({}, Reason.CONTENT_UNREADABLE)]


def test_a_broken_byte_spoils_its_note_only() -> None:
    broken = (
        json.dumps(bundle(with_content(attachment(None, "kept"), language="é!é"), R4), ensure_ascii=False).encode().replace(b"!", b"\xff")
    )
    first, second = documents(broken)
    assert (first.values["text"], first.values["language"], second.values["text"]) == ("kept", "é\ufffdé", TEXT)


def test_a_lone_surrogate_spoils_nothing() -> None:
    odd = json.dumps(R4).replace("d-1", "d-\\ud800").encode()
    [note] = documents(odd)
    assert note.values["note_id"] == "d-\ufffd"


KEYS = st.sampled_from(sorted({*R4, "attachment", "coding", "reference", "url", "data", "presentedForm", "section", "text", "div", "code"}))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["#a", "Binary/1", "text/html", "current"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


@given(
    st.sampled_from(["DocumentReference", "DiagnosticReport", "Composition", "Binary", "Bundle"]), st.dictionaries(KEYS, JSON, max_size=6)
)
def test_wrong_types_anywhere_are_survived(kind: str, elements: dict[str, Any]) -> None:
    for resource in (elements | {"resourceType": kind}, R4 | elements):
        for note in (*notes(resource), *notes(bundle(resource, elements))):
            assert (note.problem is None) == bool(note.values.get("text"))
            assert all(value is None or isinstance(value, str) for value in note.values.values())


@given(st.binary(max_size=200))
def test_any_bytes_are_survived(data: bytes) -> None:
    list(documents(data))
    document(with_content(attachment("text/html", data), attachment("text/xml", data)))


@pytest.mark.slow
def test_damaged_bundles_are_survived() -> None:
    samples = [json.dumps(bundle(R4, with_content({"url": "Binary/1"}), {"resourceType": "Binary", "id": "1", "data": "YQ=="})).encode()]
    for data in damaged(samples, 1_000):
        for note in documents(data):
            assert (note.problem is None) == bool(note.values.get("text"))


def numbered(number: int) -> dict[str, Any]:
    return with_content(attachment("text/plain", note_rows(number + 1)[-1]["text"]), id=f"d-{number}")


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("suffix", ["json", "json.gz"])
def test_a_bundle_is_read_whole_however_it_is_written(tmp_path: Path, indent: int | None, suffix: str) -> None:
    resources = [numbered(number) for number in range(3)]
    whole = {"entry": [{"resource": note} for note in resources], "resourceType": "Bundle", "type": "collection"}
    data = json.dumps(whole, indent=indent).encode()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / f"bundle.{suffix}").write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    outcome = run_job(echo_job(tmp_path / "notes", tmp_path / "out"))
    assert outcome.published.report["notes_summarized"] == 3


def test_a_file_of_other_resources_is_told_apart_from_a_broken_one(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "DocumentReference.ndjson").write_text(json.dumps(numbered(1)) + "\n")
    (folder / "Patient.ndjson").write_text(json.dumps({"resourceType": "Patient", "id": "p1"}) + "\n")
    report = run_job(echo_job(folder, tmp_path / "out")).published.report
    assert (report["files"]["unreadable"], report["files"]["without_notes"]) == (0, 1)
    assert report["reasons"] == {"NO_NOTES": 1}
    assert report["gate"]["passed"]
