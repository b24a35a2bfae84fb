"""What greedy and beam decoding forbid or force at a step: transformers' logits processors for rows that are at different lengths.

It knows nothing of models, requests or text: scores and token ids in, scores out. Meanings and order are those of transformers 5
(`generation/utils.py`, `_get_logits_processor`). Only the columns that a rule names are touched, and nothing waits for a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from transforms.engine.decode import DecodeSettings

_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a step. `tokens` int64 [R, T]: ids so far with the start token and the prefix, anything from `lengths` on.

    int64 [R] each: `lengths`, ids in the row; `prefix`, those of them that were given (start token and prefix); `minimum` and `limit`, the
    least and most tokens to generate, the end of the sequence included.
    """

    tokens: Tensor = field(repr=False)
    lengths: Tensor
    prefix: Tensor
    minimum: Tensor
    limit: Tensor


Rule = Callable[[Tensor, Rows], None]


class Processors:
    """The rules of one run of requests, which share their decode settings but for the least and most new tokens.

    `eos_ids`: every token that ends a sequence. `minimums`: False promises that no request of the run has a minimum. The settings' own
    `min_new_tokens` and `max_new_tokens` are not read: each row has its own. One object serves one vocabulary.
    """

    def __init__(self, decode: DecodeSettings, eos_ids: Sequence[int], device: torch.device | str, minimums: bool = True) -> None:
        self._decode = decode
        self._eos = tuple(eos_ids)
        self._device = torch.device(device)
        self._minimums = minimums
        self._rules: list[Rule] = []
        self._vocabulary = -1

    @property
    def history(self) -> bool:
        """Whether a rule looks at the tokens so far; if none does, `tokens` is not read."""
        decode = self._decode
        return bool(decode.repetition_penalty != 1.0 or decode.no_repeat_ngram_size or any(len(word) > 1 for word in decode.bad_words_ids))

    @property
    def idle(self) -> bool:
        """Nothing to do at any step: the caller may skip the call."""
        decode = self._decode
        forced = decode.forced_bos_token_id is not None or decode.forced_eos_token_id is not None
        banned = decode.bad_words_ids or decode.suppress_tokens or decode.begin_suppress_tokens
        return not (self.history or forced or banned or self._minimums or decode.renormalize_logits)

    def __call__(self, scores: Tensor, tokens: Tensor, lengths: Tensor, prefix: Tensor, minimum: Tensor, limit: Tensor) -> Tensor:
        """Change `scores`, float32 [R, V], in place and return them; the other arguments are those of `Rows`.

        Raises ValueError if the settings force or ban a token outside the vocabulary, or suppress one that they force.
        """
        if scores.shape[1] != self._vocabulary:
            self._rules = self._compiled(scores.shape[1])
            self._vocabulary = scores.shape[1]
        rows = Rows(tokens, lengths, prefix, minimum, limit)
        for rule in self._rules:
            rule(scores, rows)
        return scores

    def _compiled(self, vocabulary: int) -> list[Rule]:
        """The rules that the settings ask for, in transformers' order."""
        decode = self._decode
        bos, eos = decode.forced_bos_token_id, decode.forced_eos_token_id
        words = list(dict.fromkeys(word for word in decode.bad_words_ids if word not in {(end,) for end in self._eos}))
        forced = [token for token in (bos, eos) if token is not None]
        _check(vocabulary, forced, words, decode.suppress_tokens)
        ends = self._columns(self._eos, vocabulary)
        suppressed = self._columns(decode.suppress_tokens, vocabulary)
        suppressed_first = self._columns(decode.begin_suppress_tokens, vocabulary)
        asked: list[tuple[object, Rule]] = [
            (decode.repetition_penalty != 1.0, partial(penalize_repetition, penalty=decode.repetition_penalty)),
            (decode.no_repeat_ngram_size, partial(ban_repeated_ngrams, size=decode.no_repeat_ngram_size)),
            *((True, rule) for rule in self._word_rules(words, vocabulary)),
            (self._minimums, partial(ban_early_end, ends=ends)),
            (bos is not None, partial(force_first, token=bos or 0)),
            (eos is not None, partial(force_last, token=eos or 0)),
            (len(suppressed), partial(ban_always, columns=suppressed)),
            (len(suppressed_first), partial(ban_first, columns=suppressed_first, after_forced=bos is not None)),
            (decode.renormalize_logits, renormalize),
        ]
        return [rule for wanted, rule in asked if wanted]

    def _word_rules(self, words: Iterable[tuple[int, ...]], vocabulary: int) -> list[Rule]:
        """One rule for all banned single tokens, one per longer length."""
        by_length: dict[int, list[tuple[int, ...]]] = {}
        for word in words:
            by_length.setdefault(len(word), []).append(word)
        rules: list[Rule] = [partial(ban_always, columns=self._columns([word[0] for word in by_length.pop(1, [])], vocabulary))]
        for group in by_length.values():
            table = torch.tensor(group, device=self._device)
            rules.append(partial(ban_endings, heads=table[:, :-1], lasts=table[:, -1]))
        return rules

    def _columns(self, tokens: Iterable[int], vocabulary: int) -> Tensor:
        """Token ids as a tensor; those that the model cannot generate anyway are left out."""
        return torch.tensor(sorted({token for token in tokens if 0 <= token < vocabulary}), dtype=torch.int64, device=self._device)


def penalize_repetition(scores: Tensor, rows: Rows, penalty: float) -> None:
    """Divide positive and multiply negative scores of the tokens so far by the penalty (CTRL, arXiv 1909.05858)."""
    columns, valid = _known(rows.tokens, rows.lengths, scores.shape[1])
    found = scores.gather(1, columns)
    changed = torch.where(found < 0, found * penalty, found / penalty)
    # A penalty moves all scores the same way, so the changed score of a token wins over its unchanged stand-ins in padding.
    lower = penalty > 1
    neutral = -_NEVER if lower else _NEVER
    scores.scatter_reduce_(1, columns, changed.masked_fill(~valid, neutral), "amin" if lower else "amax")


def ban_repeated_ngrams(scores: Tensor, rows: Rows, size: int) -> None:
    """No `size` tokens in a row may come twice: ban what followed each earlier occurrence of the last size - 1 tokens."""
    tokens, lengths = rows.tokens, rows.lengths
    windows = tokens.shape[1] - size + 1
    if windows < 1:
        return
    columns, complete = _known(tokens, lengths, scores.shape[1])
    repeated = complete[:, size - 1 :]
    for i in range(size - 1):
        latest = tokens.gather(1, (lengths - size + 1 + i).clamp(min=0)[:, None])
        repeated = repeated & (tokens[:, i : i + windows] == latest)
    _ban_where(scores, columns[:, size - 1 :], repeated)


def ban_endings(scores: Tensor, rows: Rows, heads: Tensor, lasts: Tensor) -> None:
    """Ban `lasts`[i] where the row ends with `heads`[i]. int64 [words] and [words, n]."""
    size = heads.shape[1]
    if rows.tokens.shape[1] < size:
        return
    back = torch.arange(size, device=heads.device) - size
    latest = rows.tokens.gather(1, (rows.lengths[:, None] + back).clamp(min=0))
    ends = (latest[:, None, :] == heads).all(-1) & (rows.lengths >= size)[:, None]
    _ban_where(scores, lasts.expand(len(scores), -1), ends)


def ban_always(scores: Tensor, rows: Rows, columns: Tensor) -> None:
    scores.index_fill_(1, columns, _NEVER)


def ban_early_end(scores: Tensor, rows: Rows, ends: Tensor) -> None:
    """No end of sequence before the row's minimum of new tokens."""
    _ban_columns(scores, ends, rows.lengths - rows.prefix < rows.minimum)


def ban_first(scores: Tensor, rows: Rows, columns: Tensor, after_forced: bool) -> None:
    """Ban tokens at the first step that is free: with a forced first token the second one, but after a prefix nothing is forced."""
    begin = torch.where(rows.prefix == 1, 2, rows.prefix) if after_forced else rows.prefix
    _ban_columns(scores, columns, rows.lengths == begin)


def force_first(scores: Tensor, rows: Rows, token: int) -> None:
    """Leave only this token after the start token; with a prefix there is no such step."""
    _force(scores, rows.lengths == 1, token)


def force_last(scores: Tensor, rows: Rows, token: int) -> None:
    """Leave only this token at the last step that the row's limit allows."""
    _force(scores, rows.lengths - rows.prefix == rows.limit - 1, token)


def renormalize(scores: Tensor, rows: Rows) -> None:
    scores.copy_(scores.log_softmax(-1))


def _check(vocabulary: int, forced: Sequence[int], words: Sequence[tuple[int, ...]], suppressed: Sequence[int]) -> None:
    for token in [*forced, *(token for word in words for token in word)]:
        if not 0 <= token < vocabulary:
            raise ValueError(f"the decode settings force or ban token {token}; the model scores tokens 0 to {vocabulary - 1}")
    for token in set(forced) & set(suppressed):
        raise ValueError(f"the decode settings force token {token} and suppress it: that step would have no token left")


def _known(tokens: Tensor, lengths: Tensor, vocabulary: int) -> tuple[Tensor, Tensor]:
    """Tokens as columns of the scores, and which of them count. Embeddings may be more than scores; padding may hold anything."""
    within = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
    return tokens.clamp(0, vocabulary - 1), within & (tokens < vocabulary)


def _ban_where(scores: Tensor, columns: Tensor, banned: Tensor) -> None:
    """Ban the column at [row, i] where `banned` says so. A column may come several times in a row: one ban is enough."""
    keep = torch.full_like(banned, -_NEVER, dtype=scores.dtype)
    scores.scatter_reduce_(1, columns, keep.masked_fill_(banned, _NEVER), "amin")


def _ban_columns(scores: Tensor, columns: Tensor, rows: Tensor) -> None:
    scores[:, columns] = scores[:, columns].masked_fill(rows[:, None], _NEVER)


def _force(scores: Tensor, rows: Tensor, token: int) -> None:
    if scores.device.type == "cpu":
        # To look is free here, and few steps have such a row. On a GPU looking means waiting, and the fill is cheap.
        if not rows.any():
            return
        scores.index_fill_(0, rows.nonzero()[:, 0], _NEVER)
    else:
        scores.masked_fill_(rows[:, None], _NEVER)
    scores[:, token].masked_fill_(rows, 0.0)
