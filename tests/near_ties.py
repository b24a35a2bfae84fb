"""The rule that says when two engines agree: the same tokens, or a first difference between tokens that score nearly the same.

The order in which floating-point numbers are added differs between engines, so the better of two tokens that all but tie may differ.
The reference is transformers' own `generate()`, one text at a time, with a fresh GenerationConfig.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers

from transforms.engine import Completion, Request
from transforms.engine.generate_engine import generation_config
from transforms.engine.loading import load_model, special_ids

# Closer than this (processed logits; for beams the scores of whole hypotheses) two choices tie.
TOLERANCE = {"float32": 1e-4, "bfloat16": 0.05}
# In float32 nothing may lie further apart. In bfloat16 a logit of 4 to 8 moves in steps of 1/32 and has been rounded many times before:
# transformers in batches parts from transformers one by one beyond 0.05 in about 3 of 1,000 tokens of these models, by up to 0.16.
HIGHEST = {"float32": 1e-4, "bfloat16": 0.2}
# One tie (float32), one difference beyond the tolerance (bfloat16) in so many tokens is chance, more is a flaw.
TOKENS_PER_TIE = 1_000
TOKENS_PER_EXCESS = 100
_NO_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True)
class Answer:
    """`steps`: the processed scores [vocabulary] of each greedy step. `score`: of the best hypothesis, log probability over length to the
    power of the length penalty (beams)."""

    token_ids: tuple[int, ...]
    steps: tuple[torch.Tensor, ...] = field(default=(), repr=False)
    score: float | None = None

    @property
    def logprob(self) -> float | None:
        """Mean over the tokens of a greedy answer."""
        if not self.steps:
            return None
        return sum(float(step.log_softmax(-1).max()) for step in self.steps) / len(self.steps)


@dataclass(slots=True)
class Tally:
    """Tokens compared, answers that part from the reference at a tie, and those that part beyond the tolerance."""

    dtype: str = "float32"
    tokens: int = 0
    ties: int = 0
    beyond: int = 0

    def add(self, tokens: int, shortfall: float) -> None:
        assert abs(shortfall) < HIGHEST[self.dtype], f"the first other token scores {shortfall:.6f} below the reference's choice"
        self.tokens += tokens
        self.ties += shortfall != 0
        self.beyond += abs(shortfall) >= TOLERANCE[self.dtype]

    def check(self) -> None:
        """One is forgiven in a small sample."""
        assert self.dtype != "float32" or self.ties <= 1 + self.tokens // TOKENS_PER_TIE, f"{self.ties} ties in {self.tokens} tokens"
        assert self.beyond <= 1 + self.tokens // TOKENS_PER_EXCESS, f"{self.beyond} beyond the tolerance in {self.tokens} tokens"


def first_difference(mine: Sequence[int], theirs: Sequence[int]) -> int | None:
    """The position of the first difference, or None; where one goes on after the other's end, the length of the shorter."""
    for at, (left, right) in enumerate(zip(mine, theirs, strict=False)):
        if left != right:
            return at
    return None if len(mine) == len(theirs) else min(len(mine), len(theirs))


class Reference:
    """`generate()` for one text at a time. `longest`: tokens of a source, special tokens included. Answers are kept."""

    def __init__(self, folder: Path, dtype: str = "float32", longest: int = 160) -> None:
        self._model = load_model(folder, dtype).eval()
        self._tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        self._special = special_ids(self._model)
        self._model.generation_config = transformers.GenerationConfig(**self._special)
        self._longest = longest
        self._answers: dict[Request, Answer] = {}

    def answer(self, request: Request) -> Answer:
        if request not in self._answers:
            self._answers[request] = self._generate(request)
        return self._answers[request]

    def shortfall(self, request: Request, mine: Sequence[int]) -> float:
        """How much less than the reference's choice ours scores, where the two first part: 0 for the same tokens.

        Greedy: the best processed logit minus ours at the first difference. Beams: the reference's score of its hypothesis minus its score
        of ours. Infinite for what no rounding explains: a token that the settings forbid, an end that is none.
        """
        answer = self.answer(request)
        at = first_difference(mine, answer.token_ids)
        if at is None:
            return 0.0
        if at >= min(len(mine), len(answer.token_ids)):
            return math.inf
        if answer.score is not None:
            return answer.score - self.score(request, mine)
        step = answer.steps[at]
        # What ties exactly is told from agreement by the least number above 0.
        return max(float(step.max() - step[mine[at]]), math.ulp(0.0))

    def score(self, request: Request, hypothesis: Sequence[int]) -> float:
        """What the reference's beam search makes of exactly these tokens."""
        meter = _Forced(hypothesis, 1 + len(request.decoder_prefix), request.decode.renormalize_logits)
        self._generate(request, meter)
        return meter.total / len(hypothesis) ** request.decode.length_penalty

    @torch.inference_mode()
    def _generate(self, request: Request, meter: _Forced | None = None) -> Answer:
        start = [self._special["decoder_start_token_id"], *request.decoder_prefix]
        inputs = self._tokenizer([request.text], return_tensors="pt", truncation=True, max_length=self._longest)
        output = self._model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            decoder_input_ids=torch.tensor([start]),
            generation_config=generation_config(request.decode, self._special, _NO_LIMIT),
            logits_processor=[meter] if meter else None,
            return_dict_in_generate=True,
            output_scores=True,
        )
        row = output.sequences[0, len(start) :].tolist()
        ends = self._special["eos_token_id"]
        ids = tuple(row[: next((i + 1 for i, token in enumerate(row) if token in ends), len(row))])
        if request.decode.num_beams > 1:
            return Answer(ids, score=float(output.sequences_scores[0]))
        return Answer(ids, steps=tuple(step[0].float() for step in output.scores[: len(ids)]))


class _Forced:
    """A logits processor that lets a search follow one hypothesis only and adds up what it scores. It comes after all others."""

    def __init__(self, hypothesis: Sequence[int], prompt: int, renormalize: bool) -> None:
        self._hypothesis, self._prompt, self._renormalize = hypothesis, prompt, renormalize
        self.total = 0.0

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        step = input_ids.shape[1] - self._prompt
        if step >= len(self._hypothesis):
            return scores
        token = self._hypothesis[step]
        # The first row is the one that followed: the search sorts its beams.
        own = scores[0].log_softmax(-1) if self._renormalize else scores[0]
        self.total += float(own[token])
        # Far below any score, yet finite: minus infinity minus itself is not a number.
        forced = torch.full_like(scores, -1e6)
        forced[:, token] = 0.0
        return forced


def assert_agree(reference: Reference, requests: Sequence[Request], completions: Sequence[Completion], tally: Tally) -> None:
    """Each completion agrees with the reference under the rule for the tally's dtype."""
    for request, completion in zip(requests, completions, strict=True):
        assert completion.error is None, f"{completion.cause} for {request.decode}"
        tally.add(len(completion.token_ids), reference.shortfall(request, completion.token_ids))
