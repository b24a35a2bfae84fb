"""A BERT encoder on the CPU: what it makes of the tokens of a text, and the mean over them. It does not know what that is used for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


class Bert:
    """The encoder in a folder (safetensors, read as float32) with its tokenizer.json. `max_tokens`: of a longer text the first so many."""

    def __init__(self, folder: Path, max_tokens: int | None = None) -> None:
        import torch
        from tokenizers import Tokenizer
        from transformers import AutoModel, logging

        logging.disable_progress_bar()
        safe = {"local_files_only": True, "use_safetensors": True, "trust_remote_code": False}
        self._model = AutoModel.from_pretrained(folder, dtype=torch.float32, **safe).eval()
        self.tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        if max_tokens:
            self.tokenizer.enable_truncation(max_tokens)
        else:
            self.tokenizer.no_truncation()

    def states(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """Last states, [rows, longest row, width], of token ids, special tokens included; and a mask of the same rows, 0 for padding."""
        import torch

        longest = max(map(len, rows))
        ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        with torch.inference_mode():
            return self._model(input_ids=ids, attention_mask=mask).last_hidden_state, mask

    def means(self, texts: Sequence[str], at_once: int) -> NDArray[np.float32]:
        """The mean state over each text's tokens, special ones included: [texts, width]. So many texts are read at once."""
        found = np.zeros((len(texts), self._model.config.hidden_size), np.float32)
        # Those of like length together, so that little is padding.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(order), at_once):
            places = order[start : start + at_once]
            states, mask = self.states([each.ids for each in self.tokenizer.encode_batch([texts[i] for i in places])])
            found[places] = ((states * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)).numpy()
        return found
