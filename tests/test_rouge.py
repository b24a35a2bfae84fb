"""ROUGE as the field reports it."""

import pytest

from pipeline.rouge import first_and_last, lead, score_pairs, score_rouge
from schemas.errors import ConfigurationError


def test_known_counts() -> None:
    # 3 of 4 words and 1 of 3 bigrams on both sides; longest common subsequence of 2.
    (rouge1, rouge2, rouge_l), *_ = score_pairs(["cold hands warm heart"], ["warm heart and hands"])
    assert (rouge1, rouge2, rouge_l) == pytest.approx((75.0, 100 / 3, 50.0))


def test_there_is_no_stemming() -> None:
    assert score_rouge(["coughs"], ["cough"]).rouge1 == 0.0


def test_lines_are_the_sentences_of_rouge_lsum() -> None:
    reference = "a b c\nd e f"
    assert score_rouge(["d e f\na b c"], [reference]).rouge_lsum == pytest.approx(100.0)
    assert score_rouge(["d e f a b c"], [reference.replace("\n", " ")]).rouge_lsum == pytest.approx(50.0)


def test_scores_are_means_over_pairs() -> None:
    scores = score_rouge(["a b", "x"], ["a b", "y"])
    assert (scores.rouge1, scores.rouge2, scores.n) == pytest.approx((50.0, 50.0, 2))
    assert str(scores) == "50.0 / 50.0 / 50.0 (n=2)"


@pytest.mark.parametrize(("candidates", "references"), [([], []), (["a"], []), (["a"], ["a", "b"])])
def test_unequal_or_empty_lists_are_refused(candidates: list[str], references: list[str]) -> None:
    with pytest.raises(ValueError, match="equally many"):
        score_rouge(candidates, references)


def test_baselines() -> None:
    assert lead("a b c d e", 2) == "a b"
    assert first_and_last("a b c d e", 2) == "a b d e"
    assert first_and_last("a  b c", 2) == "a b c"


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.rouge.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"pip install chartmill\[evaluate\]"):
        score_rouge(["a"], ["a"])
