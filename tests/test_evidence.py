"""From a quotation to its place, and from a summary to what stands behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
from apache_beam.testing.util import assert_that
from hypothesis import given
from hypothesis import strategies as st

from pipeline.prepare import prepare
from schemas.commit import Piece, Shard
from schemas.errors import ConfigurationError
from schemas.note import BATCH_SCHEMA
from schemas.rejection import Reason, Stage
from schemas.summary import EVIDENCE_TYPE
from tests.conftest import echo_job
from transforms.alignment import MAX_SOURCES, lexical_support
from transforms.batch import NoteBatch
from transforms.evidence import Aligner, LocateEvidence, evidence_batch, locate, trace_summary
from transforms.segment import segment_batch
from transforms.sentences import split_sentences
from transforms.similarity import SentenceEncoder

TEXT = "Cold feet.\nThe old  shoe\nfits. HR 80, Pain none. An OLD hat."


@pytest.mark.parametrize(
    ("quote", "found"),
    [
        ("Cold feet", "Cold feet"),
        ("old", "old"),
        ("the old shoe fits", "The old  shoe\nfits"),
        ("an old hat.", "An OLD hat."),
        ("hr 80", "HR 80"),
        ("ain", "ain"),
        (" feet ", "feet"),
    ],
)
def test_found(quote: str, found: str) -> None:
    span = locate(quote, TEXT)
    assert span is not None and TEXT[slice(*span)] == found


def test_whole_words_come_before_parts_of_words() -> None:
    assert locate("old", TEXT) == (15, 18)  # not the "old" of "Cold"
    assert locate("pain", "spain, Pain") == (7, 11)


@pytest.mark.parametrize("quote", ["", "  \n", "shoes", "the new shoe"])
def test_not_found(quote: str) -> None:
    assert locate(quote, TEXT) is None


@given(st.text(max_size=60), st.data())
def test_any_part_is_found_in_its_own_text(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    quote = text[start:end]
    span = locate(quote, text)
    if not quote.strip():
        assert span is None
    else:
        assert span is not None
        assert " ".join(text[slice(*span)].replace("\u0130", "I").lower().split()) == " ".join(quote.replace("\u0130", "I").lower().split())


def test_length_changing_characters_do_not_shift_offsets() -> None:
    text = "\u0130\u0130\u0130 then  Aspirin"
    assert locate("THEN aspirin", text) == (4, len(text))


NOTE = (
    "HISTORY: Seen for a swollen left knee after a fall. Denies fever or chills.\n"
    "Takes warfarin 5 mg daily and lisinopril 10 mg\nonce daily.\n"
    "Aspirated 40 mL of clear fluid from the left knee. Cultures were sent.\n"
    "Stop warfarin for three days. Review on Friday with INR."
)
SENTENCES = split_sentences(NOTE)


def traced(summary: str, known: list[dict[str, Any]] | None = None) -> list[tuple[str, str, str | None, float]]:
    """(kind, words of the summary, words of the note, score) of each row."""
    rows = trace_summary(NOTE, SENTENCES, summary, known or ())
    return [
        (
            row["kind"],
            summary[row["summary_start"] : row["summary_end"]],
            None if row["source_start"] is None else NOTE[row["source_start"] : row["source_end"]],
            row["score"],
        )
        for row in rows
    ]


def test_words_that_stand_in_the_note_are_exact_even_across_a_line_break() -> None:
    summary = "Cultures were sent. Takes warfarin 5 mg daily and lisinopril 10 mg once daily."
    assert traced(summary) == [
        ("exact", "Cultures were sent.", "Cultures were sent.", 1.0),
        ("exact", summary[20:], "Takes warfarin 5 mg daily and lisinopril 10 mg\nonce daily.", 1.0),
    ]


def test_a_summary_that_is_a_piece_of_the_note_is_cut_as_the_note_is() -> None:
    summary = NOTE[9 : NOTE.index("\n")]
    assert [row[:2] for row in traced(f"  {summary}\n")] == [
        ("exact", "Seen for a swollen left knee after a fall."),
        ("exact", "Denies fever or chills."),
    ]


def test_a_number_is_not_found_inside_another_number() -> None:
    note = "Given 0.5 mg."
    [row] = trace_summary(note, [(0, len(note))], "5 mg.")
    assert row["kind"] != "exact"


def test_a_rewritten_sentence_is_traced_to_its_sources_the_best_first() -> None:
    rows = traced("Clear fluid (40 mL) was aspirated from the swollen left knee and warfarin stopped for three days.")
    assert {row[0] for row in rows} == {"lexical"}
    assert [row[2] for row in rows][:2] == ["Aspirated 40 mL of clear fluid from the left knee.", "Stop warfarin for three days."]
    scores = [row[3] for row in rows]
    assert scores == sorted(scores, reverse=True) and all(0 < score <= 1 for score in scores)


def test_what_nothing_in_the_note_speaks_of_is_unsupported() -> None:
    assert traced("An echocardiogram excluded endocarditis.") == [("unsupported", "An echocardiogram excluded endocarditis.", None, 0.0)]
    assert traced("He did so. ...") == []  # says nothing


def test_exact_rows_stay_and_the_rest_is_traced() -> None:
    summary = "Denies fever or chills. Warfarin is stopped for three days."
    start = NOTE.index("Denies")
    known = [{"summary_start": 0, "summary_end": 23, "source_start": start, "source_end": start + 23, "score": 1.0, "kind": "exact"}]
    rows = trace_summary(NOTE, SENTENCES, summary, known)
    assert rows[0] == known[0]
    assert [(row["kind"], row["summary_start"]) for row in rows[1:2]] == [("lexical", 24)]


WORDS = st.sampled_from("knee fever warfarin 5 mg 0.5 daily İ the . left\n swollen ; \r\n no 40".split(" "))


@given(st.lists(WORDS, max_size=40), st.lists(WORDS, max_size=20))
def test_rows_point_into_both_texts_and_exact_means_the_same_words(note_words: list[str], summary_words: list[str]) -> None:
    note, summary = " ".join(note_words), " ".join(summary_words)
    rows = trace_summary(note, split_sentences(note), summary)
    for row in rows:
        said = summary[row["summary_start"] : row["summary_end"]]
        assert said.strip() == said != ""
        assert 0 <= row["score"] <= 1
        if row["kind"] == "unsupported":
            assert row["source_start"] is None and row["source_end"] is None
            continue
        source = note[row["source_start"] : row["source_end"]]
        assert source.strip() == source != ""
        if row["kind"] == "exact":
            assert said.split() == source.split()
    assert [row["summary_start"] for row in rows] == sorted(row["summary_start"] for row in rows)
    most = Counter((row["summary_start"], row["summary_end"]) for row in rows)
    assert all(count <= MAX_SOURCES for count in most.values())


@given(st.integers(0, len(SENTENCES) - 1), st.integers(1, len(SENTENCES)))
def test_any_run_of_the_notes_own_sentences_is_exact(first: int, count: int) -> None:
    chosen = SENTENCES[first : first + count]
    rows = trace_summary(NOTE, SENTENCES, " ".join(NOTE[start:end] for start, end in chosen))
    assert [(row["kind"], row["source_start"], row["source_end"]) for row in rows] == [("exact", *span) for span in chosen]


def test_sharing_only_everyday_words_is_no_support() -> None:
    note = "The patient was admitted to hospital and diagnosed with gout. History of asthma."
    rewritten = ["The patient was admitted and underwent appendicectomy for perforation.", "Asthma in the history."]
    assert lexical_support(note, split_sentences(note), rewritten) == [[], [(1, 1.0)]]


def batch_of(notes: list[str], summaries: list[str], evidence: list[list[dict[str, Any]]] | None = None) -> NoteBatch:
    rows = {
        "note_id": [str(i) for i in range(len(notes))],
        "text": notes,
        "source_file": [0] * len(notes),
        "source_row": list(range(len(notes))),
        "source_line": [None] * len(notes),
    }
    table = pa.table({name: pa.array(values, BATCH_SCHEMA.field(name).type) for name, values in rows.items()})
    table = table.append_column("summary", pa.array(summaries, pa.string()))
    table = table.append_column("evidence", pa.array(evidence or [[] for _ in notes], EVIDENCE_TYPE))
    shard = Shard("s", "s", (Piece(0, 0, len(notes)),))
    return segment_batch(NoteBatch(shard, table))


def test_a_batch_is_its_notes_one_by_one() -> None:
    summaries = ["Denies fever or chills.", "Warfarin was stopped.", "Nothing of the kind happened anywhere."]
    done = evidence_batch(batch_of([NOTE] * 3, summaries))
    assert done.column("evidence") == [
        [row | {"score": pytest.approx(row["score"])} for row in trace_summary(NOTE, SENTENCES, summary)] for summary in summaries
    ]
    assert done.notes.schema.field("evidence").type == EVIDENCE_TYPE


def test_a_batch_of_copies_is_left_as_it_is() -> None:
    exact = trace_summary(NOTE, SENTENCES, "Cultures were sent. Denies fever or chills.")
    batch = batch_of([NOTE], ["Cultures were sent. Denies fever or chills."], [exact])
    done = evidence_batch(batch)
    assert done.notes is batch.notes
    assert done.stats.sentences == {"exact": 2}
    longer = batch_of([NOTE], ["Cultures were sent. Denies fever or chills. Warfarin was stopped."], [exact])
    assert [row["kind"] for row in evidence_batch(longer).column("evidence")[0]][:3] == ["exact", "exact", "lexical"]
    assert evidence_batch(longer).stats.sentences == {"exact": 2, "lexical": 1}
    assert evidence_batch(batch_of([], [])).stats.sentences == {}


def test_a_note_that_fails_is_set_aside_alone() -> None:
    def fails_on_b(text: str, sentences: Sequence[tuple[int, int]], rewritten: Sequence[str]) -> list[Any]:
        if text.startswith("B"):
            raise ValueError(text)
        return [[] for _ in rewritten]

    done = evidence_batch(batch_of(["A note.", "B note.", "C note."], ["Rewritten text."] * 3), Aligner("lexical", fails_on_b))
    assert done.column("note_id") == ["0", "2"]
    [rejection] = done.rejections
    assert (rejection.stage, rejection.reason, rejection.source_row) == (Stage.EVIDENCE, Reason.EVIDENCE_FAILED, 1)


def test_the_mode_is_checked_when_the_graph_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="choices: lexical, semantic"):
        LocateEvidence("lexicl")
    monkeypatch.setattr("transforms.similarity.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"chartmill\[semantic\]"):
        LocateEvidence("semantic")


def test_the_mode_is_part_of_the_version(tmp_path: Path) -> None:
    versions = [prepare(echo_job(tmp_path, tmp_path / "out", f"verify.evidence={mode}")).version for mode in ("lexical", "semantic")]
    assert len(set(versions)) == 2


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    return SentenceEncoder()


def test_embeddings_find_what_words_do_not(encoder: SentenceEncoder) -> None:
    summary = "Liquid was drained from the joint."
    assert traced(summary)[0][0] == "unsupported"
    [first, *_] = trace_summary(NOTE, SENTENCES, summary, (), Aligner("semantic", encoder.support))
    assert first["kind"] == "semantic" and 0.4 < first["score"] < 1
    assert NOTE[first["source_start"] : first["source_end"]].startswith("Aspirated")


def test_embeddings_do_not_depend_on_company_or_order(encoder: SentenceEncoder) -> None:
    texts = [NOTE[start:end] for start, end in SENTENCES] * 6
    together = encoder.encode(texts)
    assert together.shape == (len(texts), 384)
    for index in (0, 3, 17):
        np.testing.assert_allclose(together[index], encoder.encode([texts[index]])[0], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)


def test_embeddings_do_not_see_a_negation(encoder: SentenceEncoder) -> None:
    """Why they are evidence and never a check: the opposite is nearer than a paraphrase."""
    said, denied, paraphrased = encoder.encode(["He has a fever.", "He has no fever.", "His temperature is raised."])
    assert said @ denied > said @ paraphrased


def test_beam_gives_what_the_function_gives(encoder: SentenceEncoder) -> None:
    batch = batch_of([NOTE], ["Liquid was drained from the joint. Cultures were sent."])
    expected = evidence_batch(batch, Aligner("semantic", encoder.support)).column("evidence")

    def check(found: list[NoteBatch]) -> None:
        assert [done.column("evidence") for done in found] == [expected]
        assert set(found[0].stats.seconds) == {"evidence"}

    with beam.Pipeline(runner="FnApiRunner") as pipeline:
        assert_that(pipeline | beam.Create([batch]) | LocateEvidence("semantic"), check)
