"""The user's own terminology: what matches, what does not, what is said about a table that cannot be used, and a job with one."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.direct import job_steps
from pipeline.prepare import prepare
from pipeline.run import run_job
from schemas.errors import ConfigurationError
from schemas.record import RECORD_TYPE
from tests.conftest import echo_job, read_rows, write_notes
from tests.test_record import batch_of
from transforms.record import parse_record, read_record, record_batch
from transforms.terminology import (
    Terminology,
    TerminologyFile,
    code_record,
    describe_terminology,
    fold_term,
    load_terminology,
    make_terminology,
    read_terminology,
    singulars,
)

TABLE = """term,system,code,display
Gout,LOCAL,G1,Gouty arthritis
Crohn's disease,LOCAL,C1,
headache,LOCAL,H1,
Hemorrhoids,LOCAL,H2,
HER2+,LOCAL,P1,
HER2-,LOCAL,P2,
Aspirin,RxNorm,1191,
Aspirin,ATC,B01AC06,
heart rate,LOINC,8867-4,Heart rate
"""
NOTE = """\
PMH:
- gout
- GOUT
MEDICATIONS:
- aspirin 81 mg daily
- wobblestatin 5 mg daily
VITALS: HR 72
"""


def terms(*rows: tuple[str, str]) -> Terminology:
    return make_terminology([(term, "LOCAL", code, "") for term, code in rows])


def of(terminology: Terminology, name: str) -> list[str]:
    return [code for _, code, _ in terminology.codes(name)]


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("gout", ["G1"]),
        ("GOUT", ["G1"]),
        ("  Gout\n", ["G1"]),
        ("Crohn\u2019s  disease", ["C1"]),
        ("crohns disease", ["C1"]),
        ("headaches", ["H1"]),
        ("hemorrhoid", ["H2"]),
        ("HER2+", ["P1"]),
        ("her2-", ["P2"]),
        ("aspirin", ["1191", "B01AC06"]),
        *[(other, []) for other in ("HER2", "gout attack", "goat", "gouty arthritis", "", "...", "headachess", "acute gout")],
    ],
)
def test_names_match_by_their_folded_form_alone(name: str, codes: list[str]) -> None:
    assert of(read_terminology(TABLE.encode()), name) == codes


def test_punctuation_that_says_something_is_kept() -> None:
    assert fold_term("Non-Hodgkin's (B-cell) lymphoma") == "non hodgkins b cell lymphoma"
    assert fold_term("vitamin B 1.5") != fold_term("vitamin B 15") and fold_term("2,4-D") != fold_term("24-D")
    assert fold_term("rh+") != fold_term("rh-") and fold_term("<5") != fold_term(">5")


def test_a_plural_that_may_be_of_two_terms_is_of_neither() -> None:
    both = terms(("axe", "1"), ("axes", "2"))
    assert (of(both, "axe"), of(both, "axes")) == (["1"], ["2"])
    # "bases" may be of "base" and of nothing else here; "masse" and "mass" both have the plural "masses".
    assert of(terms(("masse", "1"), ("mass", "2")), "masses") == []
    assert of(terms(("mass", "2")), "masses") == ["2"] and of(terms(("allergies", "1")), "allergy") == ["1"]
    for word in ("arthritis", "lupus", "abscess", "pancreas", "osteoporosis", "aids", "gas", "its"):
        assert singulars(word) == []


names = st.text(alphabet="abcSES -'.+(", min_size=1, max_size=12).filter(fold_term)


@given(st.lists(names, min_size=1, max_size=8), names)
def test_every_term_finds_itself_and_nothing_is_invented(listed: list[str], name: str) -> None:
    table = make_terminology([(term, "S", f"c{i}", "") for i, term in enumerate(listed)])
    for i, term in enumerate(listed):
        assert f"c{i}" in of(table, term) and of(table, term) == of(table, f" {term.upper()} ")
    same = {fold_term(name), *singulars(fold_term(name))}
    for code in of(table, name):
        key = fold_term(listed[int(code[1:])])
        assert same & {key, *singulars(key)}


def test_records_get_codes_and_keep_everything_else() -> None:
    terminology = read_terminology(TABLE.encode())
    before, after = parse_record(NOTE), code_record(parse_record(NOTE), terminology)
    aspirin, unknown = after["medications"]
    assert aspirin["codes"] == [
        {"system": "RxNorm", "code": "1191", "display": None},
        {"system": "ATC", "code": "B01AC06", "display": None},
    ]
    assert unknown["codes"] == [] and after["problems"][0]["codes"] == [{"system": "LOCAL", "code": "G1", "display": "Gouty arthritis"}]
    # By its canonical name.
    assert after["observations"][0]["codes"][0]["code"] == "8867-4"
    assert code_record(after, terminology) == after
    assert [without_codes(entity) for entity in after["medications"]] == [without_codes(entity) for entity in before["medications"]]
    pa.array([after], type=RECORD_TYPE)


def without_codes(entity: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entity.items() if name != "codes"}


def test_parquet_is_read_as_csv_is(tmp_path: Path) -> None:
    table = pa.table(
        {"Code": pa.array([7, 8]), "TERM": ["gout", "asthma"], "system": ["S", "S"], "display": [None, "Asthma"], "more": [1, 2]}
    )
    kept = io.BytesIO()
    pq.write_table(table, kept)
    assert read_terminology(kept.getvalue()) == read_terminology(
        b"\xef\xbb\xbfterm,system,code,display\r\ngout,S,7,\r\nasthma,S,8,Asthma\r\n"
    )


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"term,code\nSECRET,1\n", "no column system; it needs term, system, code"),
        (b"SECRET,S,1\n", "no column term, system, code"),
        (b"", "no column"),
        (b"term,system,code\n", "no rows"),
        (b"term,system,code\nSECRET,S,1\nSECRET,,2\n...,S,3\nSECRET,S\n", "3 rows have an empty term or system or code: 2, 3, 4"),
        (b"term,system,code\n" + b"SECRET,S,\n" * 9, "9 rows .*: 1, 2, 3, 4, 5, …"),
        (b'term,system,code\n"SECRET"x,S,1\n', "neither Parquet nor CSV"),
        (b"term,system,code\nSECRET\xff,S,1\n", "neither Parquet nor CSV"),
        (b"PAR1SECRET", "not a Parquet file"),
    ],
)
def test_a_table_that_cannot_be_used_is_told_by_row_numbers(data: bytes, told: str) -> None:
    with pytest.raises(ConfigurationError, match=f"tasks.record.terminology: .*{told}") as failure:
        read_terminology(data)
    assert "SECRET" not in str(failure.value) and failure.value.__cause__ is None


def test_reprs_hold_no_terms() -> None:
    assert "gout" not in repr(read_terminology(TABLE.encode())).lower() and "secret" not in repr(TerminologyFile("/secret", "0" * 64))


def test_a_table_that_changes_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "terms.csv"
    path.write_text(TABLE)
    described = describe_terminology(str(path))
    path.write_text(TABLE + "sinusitis,LOCAL,S1,\n")
    with pytest.raises(ConfigurationError, match="has changed"):
        load_terminology(described)
    assert of(load_terminology(describe_terminology(str(path))), "sinusitis") == ["S1"]


def test_a_job_with_a_terminology(tmp_path: Path) -> None:
    path, notes = tmp_path / "terms.csv", tmp_path / "notes.parquet"
    path.write_text(TABLE)
    write_notes(notes, [{"note_id": "a", "text": NOTE}])
    job = echo_job(notes, tmp_path / "out", f"tasks.record.terminology={path}")
    outcome = run_job(job)
    (record,) = read_rows(tmp_path / "out", "records")
    assert record["medications"][0]["codes"][0] == {"system": "RxNorm", "code": "1191", "display": None}
    assert record["medications"][0]["dose"]["number"] == 81 and record["medications"][0]["frequency"]["ucum"] == "/d"
    said = outcome.published.report["settings"]["tasks"]["record"]
    assert said["terminology"] == hashlib.sha256(TABLE.encode()).hexdigest() and str(path) not in str(outcome.published.report)
    # Without Beam the same.
    assert job_steps(prepare(job))(batch_of(NOTE)).column("record")[0]["medications"] == record["medications"]


def test_the_content_is_part_of_the_version_and_the_place_is_not(tmp_path: Path) -> None:
    versions = []
    for name, data in (("a.csv", TABLE), ("b.csv", TABLE), ("c.csv", TABLE + "sinusitis,LOCAL,S1,\n")):
        (tmp_path / name).write_text(data)
        versions.append(prepare(echo_job(tmp_path, tmp_path / "out", f"tasks.record.terminology={tmp_path / name}")).version)
    versions.append(prepare(echo_job(tmp_path, tmp_path / "out")).version)
    assert versions[0] == versions[1] and len(set(versions)) == 3
    with pytest.raises(ConfigurationError, match=r"cannot be read .*FileNotFoundError") as failure:
        prepare(echo_job(tmp_path, tmp_path / "out", f"tasks.record.terminology={tmp_path}/missing.csv"))
    assert "missing" not in str(failure.value)


@pytest.mark.s3
def test_a_terminology_on_s3(bucket: str) -> None:
    from transforms.store import s3_client

    s3_client().put_object(Bucket=bucket, Key="terms/t.csv", Body=TABLE.encode())
    assert of(load_terminology(describe_terminology(f"s3://{bucket}/terms/t.csv")), "gout") == ["G1"]
    with pytest.raises(ConfigurationError, match="cannot be read"):
        describe_terminology(f"s3://{bucket}/terms/other.csv")


def test_a_record_is_the_same_with_and_without_a_batch() -> None:
    terminology = read_terminology(TABLE.encode())
    (row,) = record_batch(batch_of(NOTE), terminology=terminology).column("record")
    assert row == pa.array([read_record(NOTE, None, terminology=terminology)], type=RECORD_TYPE)[0].as_py()
