"""The codec between a note and a selection model: nothing lost on the way in, only literal text on the way out."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.selection import (
    FORMAT_FILE,
    SelectionFormat,
    expand_markers,
    fit_sentences,
    load_selection_format,
    mark_source,
    merge_rankings,
    merge_sentences,
    place_of,
    save_selection_format,
    wanted_bucket,
    within_budget,
    word_budget,
)
from transforms.sentences import split_sentences


def make_format(**changes: object) -> SelectionFormat:
    values: dict[str, object] = {
        "n_markers": 8,
        "n_places": 8,
        "length_bounds": (10, 20),
        "budget_words": 12,
        "budget_share": 1.0,
        "max_source_tokens": 100,
        "max_new_tokens": 9,
    }
    return SelectionFormat(**(values | changes))  # type: ignore[arg-type]


FORMAT = make_format()
NOTE = "A cough began.\nIt was  dry.\n\nZinc was given at night. The cough went away. She returned to work."
NOTES = st.lists(st.sampled_from(["Rest.", "No fever today.", "- zinc\n", "Slept  well?", "<m3>", "\n\n"]), max_size=40).map(" ".join)


def summarize(output: str, note: str = NOTE, fmt: SelectionFormat = FORMAT, first_marker: int = 0):  # type: ignore[no-untyped-def]
    marked = mark_source(note, split_sentences(note), fmt, first_marker=first_marker)
    return expand_markers(output, marked, note, fmt)


def test_source_carries_length_markers_and_places() -> None:
    marked = mark_source(NOTE, split_sentences(NOTE), FORMAT)
    assert marked.source == (
        "<l1> <m0><p0> A cough began. <m1><p1> It was dry. <m2><p2> Zinc was given at night. "
        "<m3><p6> The cough went away. <m4><p7> She returned to work."
    )
    assert NOTE[slice(*marked.units[1])] == "It was  dry."


def test_output_comes_back_in_document_order_with_offsets() -> None:
    selection = summarize("<m3> <m0> <m1>")
    assert selection.text == "A cough began. It was dry. The cough went away."
    assert [(u.source_start, u.source_end) for u in selection.units] == [split_sentences(NOTE)[i] for i in (0, 1, 3)]
    assert (selection.fallback, selection.ignored, selection.left_out) == (False, 0, 0)


@pytest.mark.parametrize("output", ["<m3><m3> <m3>", "<m3> <m7> <m8> <m99999> <m12345678>", "x<m3 <m-1> <m> <m3> m0 <m 0>"])
def test_useless_markers_are_ignored(output: str) -> None:
    selection = summarize(output)
    assert selection.text == "The cough went away."
    assert not selection.fallback
    assert selection.ignored == {"<m3><m3> <m3>": 2}.get(output, 3 if "99999" in output else 0)


@pytest.mark.parametrize("output", ["", "nothing", "<m7>"])
def test_empty_selection_falls_back_to_the_first_unit_and_says_so(output: str) -> None:
    selection = summarize(output)
    assert selection.text == "A cough began."
    assert selection.fallback


def test_blank_note_gives_an_empty_summary() -> None:
    selection = summarize("<m0>", note=" \n")
    assert (selection.text, selection.units, selection.fallback) == ("", (), True)


def test_markers_written_in_the_note_are_harmless() -> None:
    note = "See <m1> and <P3>. Then <l0> rest."
    marked = mark_source(note, split_sentences(note), FORMAT)
    assert marked.source == "<l0> <m0><p0> See < m1> and < P3>. <m1><p1> Then < l0> rest."
    assert expand_markers("<m0>", marked, note, FORMAT).text == "See <m1> and <P3>."


def test_budget_is_a_share_of_a_short_note() -> None:
    units = split_sentences(NOTE)
    assert word_budget(NOTE, units, make_format(budget_share=0.5)) == 10
    assert word_budget(NOTE, units, make_format(budget_share=0.5, budget_words=4)) == 4
    assert word_budget("One.", [(0, 4)], make_format(budget_share=0.1)) == 1


@pytest.mark.parametrize(
    ("words", "budget", "expected"),
    [
        ([50, 10, 10], 20, [0]),
        ([10, 50, 10], 20, [0, 2]),
        ([10, 19, 10], 20, [0, 1]),
        ([5, 5, 5], 100, [0, 1, 2]),
    ],
)
def test_budget_takes_the_first_and_passes_over_what_overshoots(words: list[int], budget: int, expected: list[int]) -> None:
    units = [" ".join(f"{unit}x{word}" for word in range(count)) for unit, count in enumerate(words)]
    assert within_budget([0, 1, 2], units, budget) == expected


def test_places_name_both_ends_exactly() -> None:
    assert [place_of(i, 12, 8) for i in range(12)] == [0, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 7]
    assert [place_of(i, 3, 8) for i in range(3)] == [0, 1, 7]
    assert place_of(0, 1, 8) == 0


def test_wanted_bucket_includes_its_bound() -> None:
    assert [wanted_bucket(words, FORMAT) for words in (1, 10, 11, 20, 21, 999)] == [0, 0, 1, 1, 2, 2]


@given(NOTES, st.integers(1, 10))
def test_merging_keeps_every_sentence(note: str, n_units: int) -> None:
    sentences = split_sentences(note)
    units = merge_sentences(note, sentences, n_units)
    assert len(units) == min(n_units, len(sentences))
    starts, ends = {start for start, _ in sentences}, {end for _, end in sentences}
    assert all(start in starts and end in ends for start, end in units)
    assert all(any(a <= start and end <= b for a, b in units) for start, end in sentences)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(units))


@given(NOTES, st.text(max_size=20) | st.lists(st.integers(0, 12), max_size=12).map(lambda ms: " ".join(f"<m{m}>" for m in ms)),
       st.integers(0, 7), st.integers(1, 30))  # fmt: skip
def test_summary_is_literal_and_within_reach_of_the_budget(note: str, output: str, first: int, budget: int) -> None:
    fmt = make_format(budget_words=budget)
    selection = summarize(output, note, fmt, first_marker=first)
    pieces = [selection.text[u.summary_start : u.summary_end] for u in selection.units]
    assert " ".join(pieces) == selection.text
    assert pieces == [" ".join(note[u.source_start : u.source_end].split()) for u in selection.units]
    assert [u.source_start for u in selection.units] == sorted({u.source_start for u in selection.units})
    longest = max((len(piece.split()) for piece in pieces), default=0)
    assert len(pieces) <= 1 or len(selection.text.split()) <= budget + longest / 2
    assert bool(selection.units) == bool(note.strip())


@given(NOTES, st.integers(0, 7))
def test_moving_the_markers_changes_nothing(note: str, first: int) -> None:
    n_units = len(mark_source(note, split_sentences(note), FORMAT).units)
    plain = " ".join(f"<m{i}>" for i in reversed(range(n_units)))
    moved = " ".join(f"<m{(first + i) % 8}>" for i in reversed(range(n_units)))
    assert summarize(plain, note) == summarize(moved, note, first_marker=first)


@given(st.lists(st.integers(0, 30), max_size=60))
def test_what_fits_is_never_overestimated(counts: list[int]) -> None:
    n_fit = fit_sentences(counts, FORMAT)
    cost = [3 + sum(counts[:n]) + 2 * min(n, FORMAT.n_markers) for n in range(len(counts) + 1)]
    assert n_fit == max((n for n in range(len(counts) + 1) if cost[n] <= FORMAT.max_source_tokens), default=0) or (
        n_fit == 1 and cost[1] > FORMAT.max_source_tokens
    )


def test_format_round_trip(tmp_path: Path) -> None:
    save_selection_format(FORMAT, tmp_path)
    assert load_selection_format(tmp_path) == FORMAT


def test_folder_of_an_ordinary_model_has_no_format(tmp_path: Path) -> None:
    assert load_selection_format(tmp_path) is None
    (tmp_path / FORMAT_FILE).write_text('{"objective": "prose"}')
    assert load_selection_format(tmp_path) is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "must hold a JSON object, found list"),
        ('{"objective": "selection", "format_version": 2}', "format_version 2 is not supported, only 1"),
        ('{"objective": "selection", "format_version": 1, "n_markers": 3}', "missing"),
    ],
)
def test_unreadable_format_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / FORMAT_FILE).write_text(content)
    with pytest.raises(ValueError, match=message):
        load_selection_format(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_markers", 0),
        ("n_places", 3),
        ("budget_words", 0),
        ("budget_share", 0.0),
        ("budget_share", 1.1),
        ("max_source_tokens", 5),
        ("max_new_tokens", 0),
        ("length_bounds", (20, 10)),
    ],
)
def test_impossible_formats_are_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        make_format(**{name: value})


def test_stored_format_names_its_objective(tmp_path: Path) -> None:
    save_selection_format(FORMAT, tmp_path)
    stored = json.loads((tmp_path / FORMAT_FILE).read_text())
    assert (stored["objective"], stored["format_version"]) == ("selection", 1)


def test_reprs_hold_no_text() -> None:
    marked = mark_source(NOTE, split_sentences(NOTE), FORMAT)
    assert "cough" not in repr(marked) + repr(expand_markers("<m0>", marked, NOTE, FORMAT))


def test_rankings_take_turns_up_to_the_budget() -> None:
    text = "one two. three four. five six. seven eight. nine ten."
    spans = split_sentences(text)
    first, second = [spans[1], spans[0], spans[2]], [spans[4], spans[2]]
    merged = merge_rankings(text, [first, second], budget=6)
    assert merged.text == "one two. three four. nine ten."
    assert [text[u.source_start : u.source_end] for u in merged.units] == ["one two.", "three four.", "nine ten."]
    assert merge_rankings(text, [first, first], budget=99).text == "one two. three four. five six."
    # A unit of two sentences and one of them, as overlapping windows may name them.
    assert merge_rankings(text, [[(spans[0][0], spans[1][1])], [spans[1], spans[3]]], budget=99).text == "one two. three four. seven eight."
    assert merge_rankings(text, [[], []], budget=9).text == ""


def test_a_bare_heading_goes_with_what_it_stands_over() -> None:
    note = "HISTORY\nHPI:\nFell on Monday. No fever.\nPLAN:\nRest.\nEND OF NOTE"
    spans = split_sentences(note)
    units = [" ".join(note[start:end].split()) for start, end in merge_sentences(note, spans, 20)]
    assert units == ["HISTORY HPI: Fell on Monday.", "No fever.", "PLAN: Rest.", "END OF NOTE"]


def test_a_conversation_may_have_a_budget_of_its_own() -> None:
    talk = "Doctor: Where does it hurt today?\nPatient: In the left knee, since Monday.\nDoctor: Any fever at night?\nPatient: No."
    units = split_sentences(talk)
    fmt = make_format(budget_words=5, dialogue_words=9, dialogue_share=0.5)
    assert word_budget(talk, units, fmt) == 9
    assert word_budget(talk, units, make_format(budget_words=5)) == 5
    assert word_budget(talk.replace("Doctor: ", "").replace("Patient: ", ""), units, fmt) == 5


BAD = [("dialogue_words", 0), ("dialogue_share", 0.0), ("dialogue_share", 1.5), ("auto_dtype", "int4")]


@pytest.mark.parametrize(("name", "value"), BAD)
def test_a_bad_setting_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        make_format(**{name: value})


def test_a_sentence_that_comes_again_is_taken_once() -> None:
    note = "She fell at home on Monday. Pain in the left hip. She fell at home on  Monday! No fever."
    selection = summarize("<m0> <m2> <m3> <m1>", note, make_format(budget_words=40))
    assert selection.text == "She fell at home on Monday. Pain in the left hip. No fever."
    assert (selection.left_out, selection.ignored) == (1, 0)
    spans = split_sentences(note)
    assert selection.ranked == tuple(spans[i] for i in (0, 2, 3, 1))
    assert merge_rankings(note, [spans[:2], spans[2:]], budget=40).text == "She fell at home on Monday. Pain in the left hip. No fever."


def test_a_sentence_repeats_what_was_taken_not_what_was_passed_over() -> None:
    long = "The cough went away after a week of rest at home."
    assert within_budget([0, 1, 2], ["Zinc was given.", f"{long} " * 3, long], 9) == [0, 2]
