"""Novelty and the greedy extract, by hand-counted examples and by what must hold for any texts."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.evaluation.ngrams import novelty, oracle
from pipeline.rouge import score_pairs
from transforms.sentences import split_sentences

words = st.lists(st.sampled_from("cough fever rash knee left right mild".split()), min_size=1, max_size=12).map(" ".join)


def test_novelty_counts_what_the_note_does_not_say() -> None:
    # Of 4 words "severe" is new; of 3 pairs "severe cough" and "cough at"; of 2 triples both; the one run of four.
    assert novelty("A dry cough at night.", "Severe cough at night") == pytest.approx([1 / 4, 1 / 3, 1 / 2, 1.0])


def test_what_comes_twice_counts_twice() -> None:
    assert novelty("knee", "hip hip knee")[0] == pytest.approx(2 / 3)


def test_too_few_words_have_no_share() -> None:
    assert novelty("a b c", "a b") == [0.0, 0.0, None, None]
    assert novelty("a b c", "!") == [None] * 4


@given(words, words, words)
def test_a_copy_has_nothing_new(before: str, copied: str, after: str) -> None:
    assert set(novelty(f"{before} {copied.upper()} {after}", copied)) <= {0.0, None}


NOTE = "Slept well. Has a dry cough since Monday. Likes the garden. No fever was measured. Back on Friday."


def test_the_oracle_takes_the_sentences_that_the_reference_is_made_of() -> None:
    assert oracle(NOTE, "no fever; dry cough since Monday") == "Has a dry cough since Monday. No fever was measured."


def test_the_oracle_takes_nothing_where_nothing_is_shared() -> None:
    assert oracle(NOTE, "unrelated entirely") == ""
    assert oracle("", "anything") == oracle(NOTE, "") == ""


@settings(deadline=None)  # the first score imports nltk
@given(st.lists(words, min_size=1, max_size=5), words)
def test_no_single_sentence_beats_the_oracle(sentences: list[str], reference: str) -> None:
    note = " ".join(f"{sentence.capitalize()}." for sentence in sentences)
    singles = [note[start:end] for start, end in split_sentences(note)]
    found, *others = (sum(score_pairs([text], [reference])[0][:2]) for text in (oracle(note, reference), *singles))
    assert found >= max(others) - 1e-9
