from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from tests.tiny_models import sentences
from transforms.engine import Completion, DecodeSettings, Request
from transforms.engine.echo import EchoEngine
from transforms.prompts import Passage, Prompt, Prompts, language_of, window_prompts
from transforms.reduce import Answer, summarize
from transforms.selection import SelectionFormat
from transforms.sentences import split_sentences


def answers_of(counts: list[int], limit: int, new_tokens: int, overlap: int = 1) -> tuple[list[Answer], list[int]]:
    """Answers for notes of so many sentences, by the echo engine, and the prompts per call."""
    engine, calls = EchoEngine(max_source_tokens=limit), []
    language = language_of("", None, None, engine)

    def cut(passage: Passage) -> Prompts:
        return window_prompts(passage, language, overlap, engine)

    def ask(prompts: list[Prompt]) -> list[Completion]:
        calls.append(len(prompts))
        return engine.generate([Request(prompt.source, DecodeSettings(max_new_tokens=new_tokens)) for prompt in prompts])

    texts = [" ".join(sentences(count)) for count in counts]
    passages = [Passage(text, 0, len(text), tuple(split_sentences(text))) for text in texts]
    return summarize(passages, language, cut, ask), calls  # type: ignore[arg-type]


@given(st.lists(st.integers(1, 80), max_size=4), st.integers(8, 60), st.integers(1, 70), st.integers(0, 3))
def test_it_ends_and_drops_nothing_whatever_the_lengths(counts: list[int], limit: int, new_tokens: int, overlap: int) -> None:
    answers, calls = answers_of(counts, limit, new_tokens, overlap)
    assert [answer.dropped for answer in answers] == [0] * len(counts)
    assert all(answer.summary.text and answer.error is None for answer in answers)
    assert sum(calls) == sum(len(answer.completions) for answer in answers)
    assert sum(calls) <= 6 * sum(answer.windows for answer in answers)
    for answer in answers:
        assert " ".join(completion.text for completion in answer.final).split() == answer.summary.text.split()


def test_a_note_gets_the_same_answer_alone_and_among_others() -> None:
    together, _ = answers_of([50, 2, 30], 40, 12)
    alone = [answers_of([count], 40, 12)[0][0] for count in (50, 2, 30)]
    assert together == alone


def test_no_passages_no_call() -> None:
    assert answers_of([], 10, 10) == ([], [])


def test_windows_without_a_word_to_say_give_an_empty_summary() -> None:
    text = " ".join(sentences(20))
    engine = EchoEngine(max_source_tokens=20)
    language = language_of("", None, None, engine)
    passage = Passage(text, 0, len(text), tuple(split_sentences(text)))

    def silent(prompts: list[Prompt]) -> list[Completion]:
        return [Completion("  ") for _ in prompts]

    [answer] = summarize([passage], language, lambda p: window_prompts(p, language, 0, engine), silent)  # type: ignore[arg-type]
    assert (answer.summary.text, answer.error) == ("", None)
    assert answer.windows == len(answer.completions) > 1


def test_chosen_lines_of_many_windows_are_chosen_among_without_what_stands_between_them() -> None:
    """More lines than markers, and between them text that no window chose: each level asks for fewer windows than the one before."""
    lines = [f"Line {number} of the chart says six." for number in range(400)]
    text = "\n".join(lines)
    fmt = SelectionFormat(8, 4, (), budget_words=30, budget_share=0.5, max_source_tokens=120, max_new_tokens=8)
    engine, calls = EchoEngine(), []
    language = language_of("", None, fmt, engine)

    def choose_every_other(prompts: list[Prompt]) -> list[Completion]:
        calls.append(len(prompts))
        return [Completion("<m1> <m3> <m5> <m7>") for _ in prompts]

    passage = Passage(text, 0, len(text), tuple(split_sentences(text)))
    [answer] = summarize([passage], language, lambda p: window_prompts(p, language, 1, engine), choose_every_other)  # type: ignore[arg-type]
    assert len(calls) > 2 and all(later < earlier for earlier, later in pairwise(calls))
    assert answer.dropped == 0
    assert set(answer.summary.text.split(". ")) <= {line.removesuffix(".") for line in lines} | set(lines)
