"""Rows out: one per summarized note, with evidence, flags and provenance; the note's text itself never (its sha256 instead)."""

from __future__ import annotations

import pyarrow as pa

OUTPUT_SCHEMA_VERSION = 3

# Which characters of the note stand behind which sentence of the summary, the best first. `kind`: exact (copied), lexical (aligned by its
# words), semantic (aligned by sentence embeddings), unsupported (nothing in the note: source_start and source_end are null). `score`: 0-1.
EVIDENCE_TYPE = pa.list_(
    pa.struct(
        [
            pa.field("summary_start", pa.int32()),
            pa.field("summary_end", pa.int32()),
            pa.field("source_start", pa.int32()),
            pa.field("source_end", pa.int32()),
            pa.field("score", pa.float32()),
            pa.field("kind", pa.string()),
        ]
    )
)

# A reason to look twice. `start`/`end` are characters of the summary, null when the flag is about the whole or about what it leaves out;
# `source_start`/`source_end` the characters of the note that it is compared with, null when there are none.
FLAG_TYPE = pa.list_(
    pa.struct(
        [
            pa.field("code", pa.string()),
            pa.field("start", pa.int32()),
            pa.field("end", pa.int32()),
            pa.field("source_start", pa.int32()),
            pa.field("source_end", pa.int32()),
        ]
    )
)

# What the stages add to the notes table, by the stage that adds it.
VALIDATE_FIELDS = [pa.field("contract_warnings", pa.list_(pa.string()))]
SEGMENT_FIELDS = [
    pa.field("sentences", pa.list_(pa.struct([pa.field("start", pa.int32()), pa.field("end", pa.int32())]))),
]
GENERATE_FIELDS = [
    pa.field("summary", pa.string()),
    pa.field("evidence", EVIDENCE_TYPE),
    # Tokens that the model read and wrote in all its passes over the note: prefixes and what windows share count each time they are read,
    # and so do summaries that are summarized again.
    pa.field("source_tokens", pa.int32()),
    pa.field("generated_tokens", pa.int32()),
    # Windows of the note that the model read one by one; 1 for a note within its limit, 0 if no section was long enough to need a model.
    pa.field("windows", pa.int32()),
    # Tokens of the note that stand wholly in no window, and those of any pass that the engine cut off. Measured; it should be 0.
    pa.field("tokens_dropped", pa.int32()),
    pa.field("finish", pa.string()),
    pa.field("logprob", pa.float32()),
]
VERIFY_FIELDS = [
    pa.field("flags", FLAG_TYPE),
    # Grusky et al. 2018 (arXiv 1804.11283): share of summary words in extractive fragments; mean squared fragment length; words ratio.
    pa.field("coverage", pa.float32()),
    pa.field("density", pa.float32()),
    pa.field("compression", pa.float32()),
    # Share (0-1) of the weight of the note's drugs, problems and procedures that the summary does not name; null for a note without any, or
    # without the check.
    pa.field("omission", pa.float32()),
]

# Said on every row: who made it, from what, and that nobody has reviewed it.
PROVENANCE_FIELDS = [
    pa.field("ai_generated", pa.bool_()),
    pa.field("review_status", pa.string()),
    pa.field("model_id", pa.string()),
    pa.field("model_sha256", pa.string()),
    pa.field("backend", pa.string()),
    pa.field("dtype", pa.string()),
    pa.field("decode", pa.string()),
    pa.field("version", pa.string()),
    pa.field("code_version", pa.string()),
]

IDENTITY_FIELDS = [
    pa.field("note_id", pa.string()),
    pa.field("patient_id", pa.string()),
    pa.field("encounter_id", pa.string()),
    pa.field("note_type", pa.string()),
    pa.field("written_at", pa.string()),
    pa.field("source_file", pa.int32()),
    pa.field("source_row", pa.int64()),
    # Of the UTF-8 bytes of the text as read; the offsets in evidence and records belong to exactly that text.
    pa.field("note_sha256", pa.string()),
]

SUMMARY_SCHEMA = pa.schema(
    [*IDENTITY_FIELDS, *GENERATE_FIELDS, *VERIFY_FIELDS, *VALIDATE_FIELDS, *PROVENANCE_FIELDS],
    metadata={"chartmill_schema_version": str(OUTPUT_SCHEMA_VERSION)},
)
