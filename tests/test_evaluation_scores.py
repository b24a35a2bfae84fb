"""Scores of several systems over notes with one or several references."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.evaluation.notes import ReferencedNote
from pipeline.evaluation.scores import BASELINES, MEASURES, ORACLE, OURS, baseline_texts, score_systems, summed_up
from pipeline.rouge import score_rouge

NOTES = [
    ReferencedNote("Has a dry cough. Sleeps badly. Wants to go home.", {"subjective": "dry cough", "plan": "home"}),
    ReferencedNote("The knee hurts on stairs. An icepack helps.", {"plan": "icepack for the knee"}),
    ReferencedNote("Rash on the left arm since Sunday.", {"subjective": "rash on the arm", "plan": "cream"}),
]
TEXTS = ["Has a dry cough.", "The knee hurts.", ""]


def test_baselines() -> None:
    made = baseline_texts(NOTES[:1], 4)
    assert made == {"lead": ["Has a dry cough."], "first_last": ["Has a go home."], "copy": [NOTES[0].text]}
    assert tuple(made) == BASELINES


def test_every_reference_is_a_pair_and_each_column_can_be_told_apart() -> None:
    found = score_systems(NOTES, {OURS: TEXTS, **baseline_texts(NOTES, 4)})
    assert found.places == ((0, "subjective"), (0, "plan"), (1, "plan"), (2, "subjective"), (2, "plan"))
    alone = found.of_column("plan")
    wanted = score_rouge(TEXTS, [note.references["plan"] for note in NOTES])
    assert alone.scores[OURS].mean(0) == pytest.approx((wanted.rouge1, wanted.rouge2, wanted.rouge_lsum))
    assert summed_up(alone, 100).means[OURS]["rouge1"] == pytest.approx(wanted.rouge1)


def test_pooled_scores_are_means_over_pairs_and_of_notes_over_their_references() -> None:
    found = score_systems(NOTES, {OURS: TEXTS})
    assert summed_up(found, 100).means[OURS]["rouge1"] == pytest.approx(found.scores[OURS][:, 0].mean())
    assert np.allclose(found.of_notes(OURS)[0], found.scores[OURS][:2].mean(0))
    assert set(found.of_notes(OURS)) == {0, 1, 2}


def test_an_empty_text_scores_nothing() -> None:
    assert score_systems(NOTES, {OURS: TEXTS}).scores[OURS][3:].tolist() == [[0.0] * 3] * 2


def test_differences_are_ours_less_theirs_over_the_same_resamples() -> None:
    found = summed_up(score_systems(NOTES, {OURS: TEXTS, "same": TEXTS, **baseline_texts(NOTES, 4)}), 500)
    for name in (*BASELINES, ORACLE):
        for measure in MEASURES:
            assert found.differences[name][measure].interval.value == pytest.approx(found.means[OURS][measure] - found.means[name][measure])
    same = found.differences["same"]["rouge1"]
    assert (same.interval.low, same.interval.high, same.share_above) == (0.0, 0.0, 0.0)
    assert OURS not in found.differences


def test_texts_stay_out_of_reprs() -> None:
    assert "cough" not in repr(NOTES) + repr(score_systems(NOTES, {OURS: TEXTS}))
