"""The schema page says what the schemas say: every column, every reason and every flag, and no other."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from schemas import describe
from schemas.describe import NOTE, RECORD, REJECTION, SUMMARY, TABLES, athena_table, column_names, schema_page
from schemas.note import NOTE_SCHEMA
from schemas.reasons import REASONS
from schemas.record import RECORD_SCHEMA
from schemas.rejection import REJECTED_TEXT_FIELD, REJECTION_SCHEMA, Reason, Stage
from schemas.summary import SUMMARY_SCHEMA

PAGE = Path(describe.__file__).with_name("README.md")


def test_the_page_is_what_the_schemas_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == schema_page(), "run: python -m schemas.describe > schemas/README.md"


@pytest.mark.parametrize(
    ("schema", "described"),
    [
        (NOTE_SCHEMA, NOTE),
        (SUMMARY_SCHEMA, SUMMARY),
        (RECORD_SCHEMA, RECORD),
        (REJECTION_SCHEMA.append(REJECTED_TEXT_FIELD), REJECTION),
    ],
)
def test_every_column_is_described_and_nothing_else(schema: pa.Schema, described: dict[str, str]) -> None:
    assert sorted(column_names(schema)) == sorted(described)
    assert all(text.endswith(".") and len(text) > 5 and "|" not in text for text in described.values())


def test_every_reason_and_stage_is_explained() -> None:
    assert set(REASONS) == set(Reason)
    assert all(str(stage) in REJECTION["stage"] for stage in Stage)


def test_the_athena_tables_name_every_column_and_close_every_bracket() -> None:
    for name, schema in TABLES.items():
        statement = athena_table(name, schema)
        assert [line.split("`")[1] for line in statement.splitlines() if line.startswith("  `")] == schema.names
        assert statement.count("<") == statement.count(">") and statement.count("(") == statement.count(")") == 1
    assert "`flags` array<struct<`code`:string,`start`:int,`end`:int," in athena_table("summaries", SUMMARY_SCHEMA)
