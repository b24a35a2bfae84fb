"""Map and reduce: every window of a long passage is summarized, then the summaries together, until one window holds them.

It knows neither notes nor tokenizers. All passages go through each level together, so that an engine can sort and pack their prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from transforms.engine import Completion
from transforms.prompts import Language, Passage, Prompt, Prompts, Summary

# The next level must be shorter than this share of the one before, in characters of its sentences, or there is no next level. So levels
# end, and all levels together read at most four times what the first one reads.
SHRINK = 0.75

Ask = Callable[[Sequence[Prompt]], list[Completion]]
Cut = Callable[[Passage], Prompts]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one passage.

    `completions`: of all levels, in order; the last `last_level` of them are those of `summary`: one, or all windows of the last level if
    their summaries were joined, because that is as good or because they did not get shorter any more. `error`: that of the first
    completion that failed; then there is no summary. `windows`: of the first level. `dropped`: tokens that were in no window or that the
    engine cut off, on any level.
    """

    summary: Summary = field(repr=False)
    completions: tuple[Completion, ...] = field(repr=False)
    windows: int
    dropped: int
    error: str | None = None
    last_level: int = 1

    @property
    def final(self) -> tuple[Completion, ...]:
        """The completions that `summary` was made of."""
        return self.completions[-self.last_level :]


@dataclass(frozen=True, slots=True)
class _Level:
    """A passage on its way: its prompts, and what earlier levels have cost."""

    passage: Passage
    prompts: Prompts
    earlier: tuple[Completion, ...] = field(default=(), repr=False)
    windows: int = 0
    dropped: int = 0


def summarize(passages: Sequence[Passage], language: Language, cut: Cut, ask: Ask) -> list[Answer]:
    """One answer per passage, in order. `cut` makes its prompts; `ask` is called once per level with the prompts of all passages.

    A passage with one failed prompt has failed: nothing is summarized by half.
    """
    answers: dict[int, Answer] = {}
    levels = {index: _first(passage, cut) for index, passage in enumerate(passages)}
    while levels:
        following: dict[int, _Level] = {}
        for index, completions in _asked(levels, ask).items():
            met = _met(levels[index], completions, language, cut)
            if isinstance(met, Answer):
                answers[index] = met
            else:
                following[index] = met
        levels = following
    return [answers[index] for index in range(len(passages))]


def _first(passage: Passage, cut: Cut) -> _Level:
    prompts = cut(passage)
    return _Level(passage, prompts, windows=len(prompts.prompts))


def _asked(levels: dict[int, _Level], ask: Ask) -> dict[int, list[Completion]]:
    """Completions per passage, from one call for all."""
    completions = iter(ask([prompt for level in levels.values() for prompt in level.prompts.prompts]))
    return {index: [next(completions) for _ in level.prompts.prompts] for index, level in levels.items()}


def _met(level: _Level, completions: Sequence[Completion], language: Language, cut: Cut) -> Answer | _Level:
    """What a level's completions come to: an answer, or the next level."""
    prompts = level.prompts.prompts
    spent = (*level.earlier, *completions)
    dropped = level.dropped + level.prompts.dropped + sum(completion.truncated_tokens for completion in completions)
    error = next((completion.error for completion in completions if completion.error), None)
    if error:
        return Answer(Summary(""), spent, level.windows, dropped, error)
    parts = [language.read(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True)]
    if len(parts) == 1:
        return Answer(parts[0], spent, level.windows, dropped)
    passage, joined = language.joined(prompts, parts, level.passage)
    done = Answer(joined, spent, level.windows, dropped, last_level=len(parts))
    if passage is None or not joined.text:
        return done
    following = cut(passage)
    if len(following.prompts) > 1 and passage.size > SHRINK * level.passage.size:
        return done
    return _Level(passage, following, spent, level.windows, dropped)
