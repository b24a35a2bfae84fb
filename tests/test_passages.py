from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_generate import ECHO_TASK, make_batch, rows_of
from tests.tiny_models import sentences
from transforms.engine.echo import EchoEngine
from transforms.generate import generate_batch
from transforms.passages import KEPT_WORDS, assembled, kept_summary, note_sections, whole_note
from transforms.prompts import Passage, Summary
from transforms.segment import segment_batch
from transforms.sentences import split_sentences

NOTE = f"""Seen at home.

ALLERGIES: latex  gloves. Also
 walnuts.
**Hospital Course:**
{" ".join(sentences(30))}
Plan:

"""

lines = st.sampled_from(
    ["ALLERGIES:", "Plan: rest. Walk daily.", "HOSPITAL COURSE", "She slept well.", "", "  ", "Meds: none", "No fever, no", "cough. "]
)


def parts_of(text: str):  # type: ignore[no-untyped-def]
    return note_sections(text, split_sentences(text))


def test_a_note_is_parted_at_its_headings() -> None:
    parts = parts_of(NOTE)
    assert [(part.title, part.kept) for part in parts] == [("", True), ("ALLERGIES", True), ("Hospital Course", False)]
    texts = [[NOTE[start:end] for start, end in part.passage.sentences] for part in parts]
    assert texts[:2] == [["Seen at home."], ["latex  gloves.", "Also", "walnuts."]]
    assert texts[2] == sentences(30)


def test_a_note_without_headings_is_its_only_part() -> None:
    text = "She slept well. No fever."
    assert parts_of(text) == whole_note(text, split_sentences(text))
    assert not parts_of(text)[0].kept


@settings(deadline=None)
@given(st.lists(lines, max_size=25).map("\n".join))
def test_parts_hold_every_word_but_headings_and_evidence_is_exact(text: str) -> None:
    parts = parts_of(text)
    inside = [text[start:end] for part in parts for start, end in part.passage.sentences]
    for word in ("rest", "slept", "fever", "cough", "daily", "none"):
        assert sum(piece.count(word) for piece in inside) == text.count(word)
    spans = [span for part in parts for span in part.passage.sentences]
    assert spans == sorted(set(spans))
    summary = assembled(parts, [kept_summary(part.passage) for part in parts])
    for start, end, source_start, source_end in summary.evidence:
        assert summary.text[start:end] == " ".join(text[source_start:source_end].split())


def test_summaries_become_titled_lines_and_empty_ones_none() -> None:
    parts = parts_of(NOTE)
    summary = assembled(parts, [Summary("First.", ((0, 6, 0, 13),)), Summary("  "), Summary("Third.", ((0, 6, 90, 99),))])
    assert summary.text == "First.\nHospital Course: Third."
    assert [summary.text[start:end] for start, end, _, _ in summary.evidence] == ["First.", "Third."]
    assert summary.evidence[1][2:] == (90, 99)


def test_sections_are_summarized_alone_and_short_ones_taken_over() -> None:
    task = replace(ECHO_TASK, by="section")
    batch = generate_batch(segment_batch(make_batch([NOTE, "ALLERGIES: latex.\nMeds: none."])), EchoEngine(), task)
    long, short = rows_of(batch)
    assert long["summary"] == f"Seen at home.\nALLERGIES: latex gloves. Also walnuts.\nHospital Course: {' '.join(sentences(2))}"
    assert [NOTE[e["source_start"] : e["source_end"]] for e in long["evidence"]] == ["Seen at home.", "latex  gloves.", "Also", "walnuts."]
    assert (long["windows"], long["finish"]) == (1, "stop")
    assert short["summary"] == "ALLERGIES: latex.\nMeds: none."
    assert (short["windows"], short["source_tokens"], short["generated_tokens"], short["logprob"], short["finish"]) == (
        0,
        0,
        0,
        None,
        "stop",
    )
    assert batch.stats.histograms["windows"][:2] == [1, 1]


def test_without_headings_by_section_is_by_note() -> None:
    notes = [" ".join(sentences(n)) for n in (3, 50)]
    by_note, by_section = (
        generate_batch(segment_batch(make_batch(notes)), EchoEngine(), replace(ECHO_TASK, by=by)) for by in ("note", "section")
    )
    assert rows_of(by_note) == rows_of(by_section)


def test_kept_words_are_the_bound() -> None:
    for words, kept in ((KEPT_WORDS - 1, True), (KEPT_WORDS, False)):
        text = "Plan: " + "walk " * words
        [part] = note_sections(text, split_sentences(text))
        assert part.kept is kept


def test_kept_summary_of_nothing_is_empty() -> None:
    assert kept_summary(Passage("  ", 0, 2, ())) == Summary("")
