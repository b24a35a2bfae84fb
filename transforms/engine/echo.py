"""A real, tiny, deterministic backend: the output is the head of the text. It imports no torch and needs no model.

Good for trying a pipeline, for load tests and as the lead baseline; it knows nothing of what matters in a text.
"""

from __future__ import annotations

import re
import time
import zlib
from collections.abc import Sequence

from transforms.engine import DEADLINE, GENERATION_FAILED, Completion, EngineIdentity, Request, Tokenized
from transforms.engine.deadline import DeadlineExceeded, Stopwatch

_WORD = re.compile(r"\S+")
_STEP_S = 0.1
_TERMINAL, _CLOSING = (".", "!", "?"), "\"')]"


class EchoEngine:
    """Tokens are whitespace-separated words; a word's id is its CRC-32."""

    def __init__(
        self, model_id: str = "echo", delay_ms: float = 0.0, max_source_tokens: int = 1_000_000, text_seconds: float | None = None
    ) -> None:
        self._identity = EngineIdentity("echo", model_id, "", "none", "cpu")
        self._delay_seconds = delay_ms / 1000
        self._text_seconds = text_seconds
        self._max_source_tokens = max_source_tokens

    @property
    def identity(self) -> EngineIdentity:
        return self._identity

    @property
    def max_source_tokens(self) -> int:
        return self._max_source_tokens

    def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
        return [_tokenize(text) for text in texts]

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        return [self._complete(request) for request in requests]

    def _complete(self, request: Request) -> Completion:
        watch = Stopwatch(self._text_seconds)
        watch.start(0)
        try:
            self._work(watch)
        except DeadlineExceeded as error:
            return Completion.failed(DEADLINE, type(error).__name__)
        if request.constraint is not None:
            return Completion.failed(GENERATION_FAILED, "NotImplementedError")
        try:
            request.text.encode()
        except (AttributeError, UnicodeEncodeError) as error:
            return Completion.failed(GENERATION_FAILED, type(error).__name__)
        return self._lead(request)

    def _work(self, watch: Stopwatch) -> None:
        """Take the time that was asked for, in steps as a model does."""
        ends = time.monotonic() + self._delay_seconds
        while (left := ends - time.monotonic()) > 0:
            time.sleep(min(left, _STEP_S))
            watch.check()

    def _lead(self, request: Request) -> Completion:
        """The leading words, up to `max_new_tokens`; a longer text is cut after its last whole sentence among them, if there is one."""
        words = request.text.split()
        read = min(len(words), self._max_source_tokens)
        head = words[: min(read, request.decode.max_new_tokens)]
        whole = len(head)
        if whole < len(words):
            whole = next((i for i in range(len(head), 0, -1) if head[i - 1].rstrip(_CLOSING).endswith(_TERMINAL)), 0)
        kept = head[:whole] or head
        text = " ".join(kept)
        return Completion(
            text=text,
            token_ids=tuple(map(zlib.crc32, text.encode().split())),
            spans=(_span(request.text, len(kept), len(words)),) if kept else (),
            source_tokens=read,
            source_truncated=read < len(words),
            finish="stop" if whole or not head else "length",
            truncated_tokens=len(words) - read,
        )


def _span(text: str, kept: int, total: int) -> tuple[int, int]:
    """Characters [start, end) of the first `kept` of `total` words."""
    rest = text.split(None, kept)[-1] if kept < total else ""
    return len(text) - len(text.lstrip()), len(text[: len(text) - len(rest)].rstrip())


def _tokenize(text: str) -> Tokenized:
    offsets = tuple(match.span() for match in _WORD.finditer(text))
    return Tokenized(tuple(zlib.crc32(text[start:end].encode()) for start, end in offsets), offsets)
