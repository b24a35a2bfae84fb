"""What the torch backend's decode loop does when the model itself fails: only what provokes it is lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny_models import make_model, sentences
from transforms.engine import GENERATION_FAILED, OUT_OF_MEMORY, Completion, DecodeSettings, Engine, EngineSettings, Request, load_engine
from transforms.engine.decoder import Decoder
from transforms.engine.encoder import Encoder

GREEDY = DecodeSettings(max_new_tokens=9, begin_suppress_tokens=(2,))
BEAMS = DecodeSettings(num_beams=2, max_new_tokens=6)
TEXTS = [" ".join(sentences(30)[start : start + 1 + start % 5]) for start in range(20)]
# Longer than all of them, so that the number of its tokens gives it away wherever it is worked on.
MARKED = " ".join(sentences(9))
# What a part of the model raises for sources of these many tokens, if anything; `step` counts its calls from 1.
Judge = Callable[[Sequence[int], int], Exception | None]
Break = Callable[[type, Judge], list[int]]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Engine]:
    """By number of lanes, each of five slots."""
    folder = make_model("bart", tmp_path_factory.mktemp("bart"))
    settings = {"model_folder": str(folder), "device": "cpu", "dtype": "float32", "slots": 5}
    made = {threads: load_engine(EngineSettings(**settings, threads=threads)) for threads in (1, 2)}
    return made.__getitem__


@pytest.fixture
def engine(engines: Callable[[int], Engine]) -> Engine:
    return engines(1)


@pytest.fixture
def break_(monkeypatch: pytest.MonkeyPatch) -> Break:
    """Lets a judge refuse calls of the encoder or the decoder. The list that it returns grows by the sources of each call."""

    def install(part: type, judge: Judge) -> list[int]:
        plain, calls = part.__call__, []  # type: ignore[operator]

        def judged(self: Any, *arguments: Any) -> Any:
            sizes = [len(ids) for ids in arguments[0]] if part is Encoder else [source.tokens for source in arguments[1].sources]
            calls.append(len(sizes))
            if error := judge(sizes, len(calls)):
                raise error
            return plain(self, *arguments)

        monkeypatch.setattr(part, "__call__", judged)
        return calls

    return install


def marked_size(engine: Engine) -> int:
    """Tokens of the marked source with <s> and </s>."""
    return len(engine.tokenize([MARKED])[0]) + 2


def told(completions: Sequence[Completion]) -> list[tuple[object, ...]]:
    return [(completion.token_ids, completion.text, completion.finish, completion.error) for completion in completions]


def among(good: Sequence[Request], *bad: Request) -> list[Request]:
    """The bad ones apart from each other in the middle."""
    mixed = list(good)
    for i, request in enumerate(bad):
        mixed.insert(3 + 6 * i, request)
    return mixed


@pytest.mark.parametrize("part", [Encoder, Decoder])
@pytest.mark.parametrize("decode", [GREEDY, BEAMS], ids=["greedy", "beams"])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_text_that_the_model_fails_on_is_lost_alone(
    part: type, decode: DecodeSettings, threads: int, engines: Callable[[int], Engine], break_: Break
) -> None:
    engine = engines(threads)
    good = [Request(text, decode) for text in TEXTS]
    expected = told(engine.generate(good))
    poison = marked_size(engine)
    break_(part, lambda sizes, _: IndexError(MARKED) if poison in sizes else None)
    completions = engine.generate(among(good, Request(MARKED, decode), Request(MARKED, decode, decoder_prefix=(9,))))
    assert [completions.pop(9), completions.pop(3)] == [Completion.failed(GENERATION_FAILED, "IndexError")] * 2
    assert told(completions) == expected


def test_one_that_fails_late_is_found_and_the_others_start_again(engine: Engine, break_: Break) -> None:
    """Its neighbours are halfway through when the step fails for the first time."""
    good = [Request(text, GREEDY) for text in TEXTS]
    expected = told(engine.generate(good))
    poison = marked_size(engine)
    steps = break_(Decoder, lambda sizes, step: ValueError() if poison in sizes and step > 5 else None)
    completions = engine.generate(among(good, Request(MARKED, GREEDY)))
    assert completions.pop(3) == Completion.failed(GENERATION_FAILED, "ValueError")
    assert told(completions) == expected
    # Halved from five until one stood alone, then as many at once as before.
    assert steps[5:7] == [5, 2]
    assert steps[steps.index(1) :].count(5) > 3


def test_short_memory_leaves_fewer_at_once_and_loses_none(engine: Engine, break_: Break) -> None:
    good = [Request(text, GREEDY) for text in TEXTS]
    expected = told(engine.generate(good))
    steps = break_(Decoder, lambda sizes, _: torch.OutOfMemoryError("synthetic") if len(sizes) > 2 else None)
    assert told(engine.generate(good)) == expected
    assert steps[0] == 5
    assert max(steps[1:]) == 2


def test_sources_that_do_not_fit_together_are_encoded_one_by_one(engine: Engine, break_: Break) -> None:
    good = [Request(text, GREEDY) for text in TEXTS]
    expected = told(engine.generate(good))
    poison = marked_size(engine)
    no_memory = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
    sizes = break_(Encoder, lambda sizes, _: no_memory if poison in sizes or len(sizes) > 1 else None)
    completions = engine.generate(among(good, Request(MARKED, GREEDY)))
    assert completions.pop(3) == Completion.failed(OUT_OF_MEMORY, "RuntimeError")
    assert told(completions) == expected
    assert max(sizes) > 1


@pytest.mark.parametrize("part", [Encoder, Decoder])
@pytest.mark.parametrize("backend", ["torch", "generate"])
def test_a_failure_is_named_by_class_and_never_by_message(
    backend: str, part: type, break_: Break, engine: Engine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> Exception:
        return IndexError(MARKED)

    if backend == "torch":
        break_(part, refuse)
    else:
        engine = load_engine(EngineSettings("generate", str(make_model("bart", tmp_path)), device="cpu"))
        stem: Any = engine._model.model  # type: ignore[attr-defined]

        def hook(*_: object) -> None:
            raise refuse()

        (stem.encoder if part is Encoder else stem.decoder).register_forward_pre_hook(hook)
    completions = engine.generate([Request(MARKED, GREEDY)] * 3)
    assert completions == [Completion.failed(GENERATION_FAILED, "IndexError")] * 3
    assert MARKED not in caplog.text + repr(completions)


def test_the_engine_is_as_before_after_a_failure(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    good = [Request(text, decode) for text in TEXTS for decode in (GREEDY, BEAMS)]
    expected = engine.generate(good)

    def refuse(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(Decoder, "__call__", refuse)
        assert {completion.error for completion in engine.generate(good)} == {OUT_OF_MEMORY}
    assert engine.generate(good) == expected
