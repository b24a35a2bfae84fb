"""The schema page: one line per column of every table that chartmill reads or writes, as Markdown.

python -m schemas.describe > schemas/README.md
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pyarrow as pa

from schemas.note import NOTE_SCHEMA, REQUIRED_COLUMNS
from schemas.reasons import FLAGS, REASONS
from schemas.record import RECORD_SCHEMA
from schemas.rejection import REJECTED_TEXT_FIELD, REJECTION_SCHEMA
from schemas.summary import OUTPUT_SCHEMA_VERSION, SUMMARY_SCHEMA

NOTE: dict[str, str] = {
    "note_id": "The note's name, unique among all notes of the job. Required.",
    "text": "The note. Required. All offsets are characters (Python code points) of exactly this text.",
    "patient_id": "Whose note it is.",
    "encounter_id": "Of which visit or stay.",
    "note_type": "Such as Discharge summary; the contract says which are known.",
    "written_at": "When it was written: ISO 8601 of a date or timestamp, a string as it stands. `input.duplicates: latest` goes by it.",
}
PLACE: dict[str, str] = {
    "source_file": "The number of the input file in the plan (`_runs/<version>/plans/`), which knows its name.",
    "source_row": "Zero-based row in that file.",
    "note_sha256": "Hex sha256 of the UTF-8 bytes of the note's text; offsets belong to exactly that text.",
}
PROVENANCE: dict[str, str] = {
    "ai_generated": "Always true.",
    "review_status": "Always `unreviewed`: nobody has looked at it yet.",
    "model_id": "The model's name; of records `rules`, as rules fill them today.",
    "model_sha256": "Over all files of the model that can change what it writes.",
    "backend": "The engine that ran it: torch, generate, ctranslate2, echo.",
    "dtype": "Number format of the model's weights: float32, bfloat16, int8; empty or `none` where none applies.",
    "decode": "The decode settings, as JSON.",
    "version": "Hash of everything that changes rows; also the name of the folder.",
    "code_version": "The release of chartmill that wrote the row.",
}
SUMMARY: dict[str, str] = {
    **{name: text for name, text in NOTE.items() if name != "text"},
    **PLACE,
    "note_id": "The note's id. One row per id.",
    "summary": "The summary.",
    "evidence": "Which part of the note stands behind which part of the summary; of each sentence the best first.",
    "evidence.summary_start": "First character of the summary's sentence.",
    "evidence.summary_end": "The character after its last one.",
    "evidence.source_start": "First character in the note; null when nothing in the note supports the sentence.",
    "evidence.source_end": "The character after the last one; null as above.",
    "evidence.score": "How well the two agree, 0 to 1.",
    "evidence.kind": "How it was found: `exact` (copied), `lexical` (by words), `semantic` (by embeddings), `unsupported` (not at all).",
    "source_tokens": "Tokens of the note, as the model counts.",
    "generated_tokens": "Tokens of the summary.",
    "windows": "Into how many windows the note was cut to be read; 1 when it is within the model's limit.",
    "tokens_dropped": "Tokens of the note that no window held.",
    "finish": "Why generation ended: `stop` (the model was done), `length` (the limit).",
    "logprob": "Mean natural-log probability of the tokens written; greedy decoding only, else null.",
    "flags": "Reasons to look twice, see the codes below; an empty list when there are none.",
    "flags.code": "The kind of flag.",
    "flags.start": "First character of the summary that it is about; null when it is about all of it, or about what it leaves out.",
    "flags.end": "The character after the last one; null as above.",
    "flags.source_start": "First character of the note that the summary is compared with; null when there is none.",
    "flags.source_end": "The character after the last one; null as above.",
    "coverage": "Share of the summary's words in passages copied from the note, 0 to 1 (Grusky et al. 2018, arXiv 1804.11283).",
    "density": "Mean squared length of those passages, in words per summary word (same paper).",
    "compression": "Words of the note per word of the summary (same paper).",
    "omission": "Share (0-1) of the note's drugs, problems and procedures, by weight, that the summary does not name; null if it has none.",
    "contract_warnings": "Keys of the contract's warnings that the note breaks.",
    **PROVENANCE,
}
_LEAF: dict[str, str] = {
    "text": "The words, as they stand in the note.",
    "start": "First character in the note.",
    "end": "The character after the last one: `note[start:end] == text`.",
    "section": "The section of the note that it stands in; null when the note has none.",
    "assertion": "What the note says of it: `present`, `absent`, `possible`, `family`, `historical`.",
    "normal": "A normal form where one is certain: an ISO date, a number, a canonical unit; else null.",
    "number": "A number to compute with: a dose, times per day, a duration, an age, a value, and of a time such as `2 weeks ago` how far "
    "it is from the note, negative before it. Null where it is not certain.",
    "ucum": "The UCUM unit of `number`; on `observations.unit` the unit itself. `/d` of a frequency; null where the unit is not certain.",
}
RECORD: dict[str, str] = {
    "note_id": "The note's id. One row per summarized note: join on it.",
    **PLACE,
    "age": "The patient's age. A leaf, as are all parts of a record: see below.",
    "sex": "The patient's sex. A leaf.",
    "problems": "Diagnoses and complaints.",
    "problems.name": "What it is. A leaf.",
    "problems.onset": "Since when. A leaf.",
    "medications": "Drugs.",
    "medications.name": "The drug. A leaf.",
    "medications.dose": "How much at a time. A leaf.",
    "medications.route": "By which way. A leaf.",
    "medications.frequency": "How often. A leaf.",
    "medications.duration": "For how long. A leaf.",
    "medications.reason": "What for. A leaf.",
    "allergies": "Allergies and intolerances.",
    "allergies.substance": "To what. A leaf.",
    "allergies.reaction": "What happens. A leaf.",
    "observations": "Vital signs and laboratory values.",
    "observations.category": "`vital` or `lab`.",
    "observations.name": "What was measured. A leaf.",
    "observations.value": "The value. A leaf.",
    "observations.unit": "Its unit. A leaf.",
    "procedures": "Procedures and operations.",
    "procedures.name": "What was done. A leaf.",
    "procedures.date": "When. A leaf.",
    "follow_up": "What is to happen next.",
    "follow_up.what": "Who is to be seen, or what is to be done. A leaf.",
    "follow_up.when": 'When, as the note says it; a condition or "as needed" too. A leaf.',
    **PROVENANCE,
}
# Parts of every entity of a record.
_ENTITY: dict[str, str] = {
    "codes": "Codes from the terminology that the job names, each with `system`, `code` and `display`; empty for names that it lacks.",
    "readers": "Who found it: `rules`, `model`; both when they agree.",
}
REJECTION: dict[str, str] = {
    "note_id": "The note's id, where it could be read.",
    "source_file": PLACE["source_file"],
    "source_row": "Zero-based row in that file; null for a file that could not be read at all.",
    "source_line": "One-based line on which the row begins; null where the format has no lines.",
    "stage": "Where it was set aside: plan, read, validate, segment, generate, record, evidence, verify.",
    "reason": "Why, see the codes below.",
    "expectation": "The key of the contract's rule that the note breaks, if it is one.",
    "text": "The note. Only with `output.keep_rejected_text: true`.",
}

_HIVE_TYPES = {"string": "string", "large_string": "string", "int32": "int", "int64": "bigint", "bool": "boolean"}
_HIVE_TYPES |= {kind: kind for kind in ("float", "double")}
_ATHENA = """## Athena

The tables for the version that `_CURRENT.json` names. After a release with another version, `ALTER TABLE … SET LOCATION`. Columns that
travelled along can be added by name. We have not run these statements on AWS.

```sql"""

_INTRODUCTION = f"""# What the data looks like

Made by `python -m schemas.describe` from the schemas beside it; a test compares the two. Offsets are characters (Python code points),
starts inclusive, ends exclusive. Output schema version {OUTPUT_SCHEMA_VERSION}: the Parquet files of summaries and records say so in their
metadata (`chartmill_schema_version`).
"""

_OTHER_COLUMNS = (
    "Other columns travel to the summaries under their own names (`input.passthrough`); one with the name of a column of summaries gets "
    "`input_` before it."
)

TABLES = {"summaries": SUMMARY_SCHEMA, "records": RECORD_SCHEMA, "rejections": REJECTION_SCHEMA}


def schema_page() -> str:
    """The page, in Markdown. Raises KeyError for a column without a description."""
    parts = (
        _INTRODUCTION,
        _section("Notes: rows in", _OTHER_COLUMNS, _columns(NOTE_SCHEMA, NOTE)),
        _section("summaries/", "One row per summarized note; and the columns that travelled along.", _columns(SUMMARY_SCHEMA, SUMMARY)),
        _section("records/", "One row per summarized note.", _columns(RECORD_SCHEMA, RECORD)),
        "A leaf has these parts, all null when the note does not say it:\n",
        _table(("part", "meaning"), ((f"`{name}`", text) for name, text in _LEAF.items())),
        "Every problem, medication, allergy, observation, procedure and follow-up also has:\n",
        _table(("part", "meaning"), ((f"`{name}`", text) for name, text in _ENTITY.items())),
        _section("rejections/", "One row per note, or unreadable file, that was set aside.", _columns(_rejections(), REJECTION)),
        _codes("Reasons", REASONS),
        _codes("Flags", FLAGS),
        _ATHENA,
        "\n\n".join(athena_table(name, schema) for name, schema in TABLES.items()),
        "```",
    )
    return "\n".join(parts).rstrip("\n") + "\n"


def _rejections() -> pa.Schema:
    return REJECTION_SCHEMA.append(REJECTED_TEXT_FIELD)


def column_names(schema: pa.Schema) -> list[str]:
    """Columns and, after a dot, the fields nested in them; not those of leaves, nor what all entities share."""
    return [name for name, _ in _flat(schema)]


def _flat(schema: pa.Schema) -> Iterator[tuple[str, pa.DataType]]:
    for column in schema:
        yield column.name, column.type
        inner = column.type.value_type if pa.types.is_list(column.type) else column.type
        if pa.types.is_struct(inner) and not _is_leaf(inner):
            yield from ((f"{column.name}.{part.name}", part.type) for part in inner if part.name not in _ENTITY)


def _is_leaf(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and [part.name for part in kind] == list(_LEAF)


def type_name(kind: pa.DataType) -> str:
    """A short name: `leaf`, `struct`, `list of …`, else Arrow's own."""
    if pa.types.is_list(kind):
        return f"list of {type_name(kind.value_type)}"
    if pa.types.is_struct(kind):
        return "leaf" if _is_leaf(kind) else "struct"
    return str(kind)


def _columns(schema: pa.Schema, described: Mapping[str, str]) -> str:
    rows = ((f"{'**' * required}`{name}`{'**' * required}", type_name(kind), described[name]) for name, kind, required in _marked(schema))
    return _table(("column", "type", "meaning"), rows)


def _marked(schema: pa.Schema) -> Iterator[tuple[str, pa.DataType, bool]]:
    for name, kind in _flat(schema):
        yield name, kind, schema is NOTE_SCHEMA and name in REQUIRED_COLUMNS


def athena_table(name: str, schema: pa.Schema) -> str:
    """A statement that creates an Athena (Hive) table over one folder of the output."""
    columns = ",\n".join(f"  `{column.name}` {_hive_type(column.type)}" for column in schema)
    return f"CREATE EXTERNAL TABLE {name} (\n{columns}\n)\nSTORED AS PARQUET\nLOCATION 's3://BUCKET/OUT/{name}/version=VERSION/';"


def _hive_type(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"array<{_hive_type(kind.value_type)}>"
    if pa.types.is_struct(kind):
        return f"struct<{','.join(f'`{part.name}`:{_hive_type(part.type)}' for part in kind)}>"
    return _HIVE_TYPES[str(kind)]


def _codes(title: str, meanings: Mapping[str, str]) -> str:
    return _section(title, "", _table(("code", "meaning"), ((f"`{code}`", text) for code, text in meanings.items())))


def _section(title: str, text: str, table: str) -> str:
    return "\n\n".join(part for part in (f"## {title}", text, table) if part)


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    lines = (" | ".join(cells) for cells in (head, ("---",) * len(head), *rows))
    return "\n".join(f"| {line} |" for line in lines) + "\n"


if __name__ == "__main__":
    print(schema_page(), end="")
