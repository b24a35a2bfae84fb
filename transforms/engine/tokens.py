"""Texts to token ids with character offsets, and back: a thin layer over a transformers tokenizer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from transforms.engine import Tokenized

_WORD = re.compile(r"\S+")


class SourceTokenizer:
    """`special_count`: special tokens that frame a source. `model_limit`: the most tokens the tokenizer says a source may have.
    `special_ids`: every special token, `unknown` among them. `tells_offsets`: whether `tokenize` knows each token's own characters."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._head, self._tail = _frame(tokenizer)
        self.special_count = len(self._head) + len(self._tail)
        self.model_limit: int | None = tokenizer.model_max_length
        self.special_ids: frozenset[int] = frozenset(tokenizer.all_special_ids)
        self.unknown: int | None = tokenizer.unk_token_id
        self.tells_offsets: bool = tokenizer.is_fast

    def encode(self, texts: Sequence[str]) -> list[list[int] | Exception]:
        """Ids per text without special tokens; for a text that the tokenizer refuses, the exception."""
        if not texts:
            return []
        try:
            return list(self._call(list(texts))["input_ids"])
        except Exception as error:  # noqa: BLE001 - one refused text fails the whole call: find it, keep the others
            if len(texts) == 1:
                return [error]
        half = len(texts) // 2
        return self.encode(texts[:half]) + self.encode(texts[half:])

    def ids(self, text: str) -> list[int]:
        """Ids of one text without special tokens. Raises what the tokenizer raises."""
        return list(self._call([text])["input_ids"][0])

    def with_specials(self, ids: list[int]) -> list[int]:
        return [*self._head, *ids, *self._tail]

    def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
        """Ids with offsets. Tokenizers that know no offsets (not backed by the tokenizers library) give each token its whole word's."""
        if not texts:
            return []
        if not self._tokenizer.is_fast:
            return [self._by_word(text) for text in texts]
        encoded = self._call(list(texts), return_offsets_mapping=True)
        pairs = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        return [Tokenized(tuple(ids), tuple(map(tuple, offsets))) for ids, offsets in pairs]

    def decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        texts = self._tokenizer.batch_decode(rows, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return [text.strip() for text in texts]

    def _call(self, texts: list[str], **options: Any) -> Any:
        return self._tokenizer(texts, add_special_tokens=False, return_attention_mask=False, **options)

    def _by_word(self, text: str) -> Tokenized:
        spans = [match.span() for match in _WORD.finditer(text)]
        if not spans:
            return Tokenized((), ())
        words = self._call([text[start:end] for start, end in spans])["input_ids"]
        pairs = [(token, span) for span, ids in zip(spans, words, strict=True) for token in ids]
        return Tokenized(tuple(token for token, _ in pairs), tuple(span for _, span in pairs))


def _frame(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens that the tokenizer puts before and after a text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    start = next(i for i in range(len(full) - len(bare) + 1) if full[i : i + len(bare)] == bare)
    return full[:start], full[start + len(bare) :]
