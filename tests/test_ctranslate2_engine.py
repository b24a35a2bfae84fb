"""The CTranslate2 backend: the laws of an engine and equality with plain `generate()`."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.tiny_models import END, FAMILIES, VARIANTS, edit_json, make_model, mostly_slow, sentences
from transforms.engine import GENERATION_FAILED, OUT_OF_MEMORY, Completion, DecodeSettings, EngineError, EngineSettings, Request

pytest.importorskip("ctranslate2")

import torch
import transformers

from transforms.engine.ctranslate2_engine import CTranslate2Engine, approximations

GREEDY = DecodeSettings(max_new_tokens=14, min_new_tokens=4, no_repeat_ngram_size=2)
# As CTranslate2 searches; see `approximations`.
BEAMS = DecodeSettings(num_beams=3, max_new_tokens=10, min_new_tokens=3, length_penalty=1.5, early_stopping=True, renormalize_logits=True)
TIE = 1e-4


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(model: str) -> Path:
        if model not in made:
            made[model] = make_model(model, tmp_path_factory.mktemp(model))
        return made[model]

    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache") / "converted"


@pytest.fixture(scope="session")
def load(folder_of: Callable[[str], Path], cache: Path) -> Callable[..., CTranslate2Engine]:
    kept: dict[str, CTranslate2Engine] = {}

    def loaded(model: str, **settings: object) -> CTranslate2Engine:
        key = f"{model} {settings}"
        if key not in kept:
            kept[key] = CTranslate2Engine(_settings(folder_of(model), cache, **settings))
        return kept[key]

    return loaded


def _settings(folder: Path, cache: Path, **settings: object) -> EngineSettings:
    plain = {"backend": "ctranslate2", "dtype": "float32", "device": "cpu", "threads": 2}
    return EngineSettings(model_folder=str(folder), cache_folder=str(cache), **{**plain, **settings})  # type: ignore[arg-type]


@pytest.fixture(
    params=mostly_slow([*(f"{family}-float32" for family in FAMILIES), "bart-int8"], ("bart-float32", "bart-int8", "t5-float32"))
)
def engine(request: pytest.FixtureRequest, load: Callable[..., CTranslate2Engine]) -> CTranslate2Engine:
    family, dtype = request.param.split("-")
    return load(family, dtype=dtype)


def texts() -> list[str]:
    """Of many lengths, in no order, one empty, the longest over the tiny models' limit."""
    lengths = [3, 1, 6, 0, 4, 2, 40, 5, 1]
    pool = sentences(sum(lengths))
    return [" ".join(pool[sum(lengths[:i]) : sum(lengths[: i + 1])]) for i in range(len(lengths))]


def same(left: Completion, right: Completion) -> bool:
    """Equal but for padding, which depends on the company."""
    close = left.logprob == right.logprob or abs((left.logprob or 0) - (right.logprob or 0)) < 1e-3
    parts = ("text", "token_ids", "finish", "source_tokens", "source_truncated", "error")
    return close and all(getattr(left, part) == getattr(right, part) for part in parts)


@pytest.mark.parametrize("decode", [GREEDY, BEAMS], ids=["greedy", "beams"])
def test_batched_equals_one_by_one(engine: CTranslate2Engine, decode: DecodeSettings) -> None:
    requests = [Request(text, decode) for text in texts()]
    alone = [engine.generate([request])[0] for request in requests]
    together = engine.generate(requests)
    assert len({completion.token_ids for completion in together}) > 3
    assert all(map(same, together, alone))


def test_reversed_in_is_reversed_out(engine: CTranslate2Engine) -> None:
    requests = [Request(text, GREEDY) for text in texts()]
    assert all(map(same, engine.generate(requests[::-1])[::-1], engine.generate(requests)))


def test_limits_hold(engine: CTranslate2Engine) -> None:
    total = [len(tokens) for tokens in engine.tokenize(texts())]
    for decode in (DecodeSettings(max_new_tokens=1), DecodeSettings(max_new_tokens=5), DecodeSettings(max_new_tokens=4, min_new_tokens=4)):
        for read, completion in zip(total, engine.generate([Request(text, decode) for text in texts()]), strict=True):
            assert decode.min_new_tokens <= len(completion.token_ids) <= decode.max_new_tokens
            assert completion.source_tokens == min(read, engine.max_source_tokens)
            assert completion.source_truncated == (completion.truncated_tokens > 0)
            assert completion.source_tokens + completion.truncated_tokens == read
            assert completion.finish == ("stop" if completion.token_ids[-1] == END else "length")


@pytest.mark.parametrize(
    "bad",
    [
        Request("a lone surrogate: \ud800", GREEDY),
        Request("a fine text", GREEDY, constraint=object()),
        Request("a fine text", DecodeSettings(begin_suppress_tokens=(7,))),
        Request("a fine text", GREEDY, decoder_prefix=(1_000_000,)),
        Request("a fine text", GREEDY, decoder_prefix=(7,) * 500),
    ],
    ids=["surrogate", "constraint", "setting", "prefix-id", "prefix-length"],
)
def test_a_bad_request_spoils_no_neighbour(load: Callable[..., CTranslate2Engine], bad: Request) -> None:
    engine = load("bart")
    good = [Request(text, GREEDY) for text in texts()]
    mixed = engine.generate([*good[:4], bad, *good[4:], bad])
    assert [c.finish == "error" for c in mixed] == [False] * 4 + [True] + [False] * 5 + [True]
    assert (mixed[4].error, mixed[4].text) == (GENERATION_FAILED, "")
    assert mixed[4].cause
    assert all(map(same, [c for c in mixed if c.finish != "error"], engine.generate(good)))


def test_mixed_settings_and_prefixes_each_keep_their_own(engine: CTranslate2Engine) -> None:
    requests = [Request(text, decode) for text in texts() for decode in (GREEDY, DecodeSettings(max_new_tokens=3))]
    requests += [Request(text, GREEDY, decoder_prefix=prefix) for text in texts() for prefix in ((7,), (8,), (7, 9))]
    assert all(map(same, engine.generate(requests), [engine.generate([request])[0] for request in requests]))


def test_no_requests_no_completions(load: Callable[..., CTranslate2Engine]) -> None:
    assert load("bart").generate([]) == []
    assert load("bart").tokenize([]) == []


def test_batches_hold_the_tokens_they_may(load: Callable[..., CTranslate2Engine]) -> None:
    requests = [Request(text, GREEDY) for text in texts()]
    packed, single = load("t5").generate(requests), load("t5", tokens_per_batch=1).generate(requests)
    assert all(map(same, packed, single))
    assert sum(c.padded_tokens for c in packed) > sum(c.padded_tokens for c in single) == 0


class _Plain:
    """transformers' own `generate()`, one text at a time, with nothing that the checkpoint ships but its special tokens."""

    def __init__(self, folder: Path) -> None:
        self.model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
        self.start = self.model.generation_config.decoder_start_token_id
        names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
        ids = {name: getattr(self.model.generation_config, name) for name in names}
        self.model.generation_config = transformers.GenerationConfig(**ids)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def inputs(self, text: str, engine: CTranslate2Engine) -> torch.Tensor:
        frame = len(self.tokenizer("a")["input_ids"]) - len(self.tokenizer("a", add_special_tokens=False)["input_ids"])
        return torch.tensor([self.tokenizer(text, truncation=True, max_length=engine.max_source_tokens + frame)["input_ids"]])

    def generate(self, ids: torch.Tensor, request: Request) -> list[int]:
        options = {name: value for name, value in json.loads(json.dumps(asdict(request.decode))).items() if value}
        start = torch.tensor([[self.start, *request.decoder_prefix]])
        row = self.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), decoder_input_ids=start, do_sample=False, **options)
        return row[0, start.shape[1] :].tolist()

    @torch.inference_mode()
    def logprobs(self, ids: torch.Tensor, row: list[int]) -> torch.Tensor:
        """Of each token in the vocabulary, for each place in the row and the one after it."""
        return self.model(input_ids=ids, decoder_input_ids=torch.tensor([[self.start, *row]])).logits[0].log_softmax(-1)


@pytest.fixture(scope="session")
def plain_of(folder_of: Callable[[str], Path]) -> Callable[[str], _Plain]:
    made: dict[str, _Plain] = {}
    return lambda model: made.setdefault(model, _Plain(folder_of(model)))


def _assert_equal(plain: _Plain, engine: CTranslate2Engine, requests: list[Request]) -> None:
    """Token for token, or, greedy, up to a place where the best two tokens are as good as equal. The empty and the cut text are among
    those that are compared."""
    requests = requests[2:4] + requests[6:7]
    for request, completion in zip(requests, engine.generate(requests), strict=True):
        ids = plain.inputs(request.text, engine)
        row, mine = plain.generate(ids, request), list(completion.token_ids)
        if row != mine:
            assert request.decode.num_beams == 1
            at = next(i for i, (a, b) in enumerate(zip(row, mine, strict=False)) if a != b)
            scores = plain.logprobs(ids, [*request.decoder_prefix, *row[:at]])[-1]
            assert abs(float(scores[row[at]] - scores[mine[at]])) < TIE


SETTINGS = {
    "plain": DecodeSettings(max_new_tokens=14),
    "minimum": DecodeSettings(max_new_tokens=14, min_new_tokens=9),
    "forced": DecodeSettings(max_new_tokens=9, forced_bos_token_id=7, forced_eos_token_id=END),
    "short": DecodeSettings(max_new_tokens=1, forced_bos_token_id=7, forced_eos_token_id=END),
    "two": DecodeSettings(max_new_tokens=2, min_new_tokens=2, forced_bos_token_id=7, forced_eos_token_id=END),
    "suppressed": DecodeSettings(max_new_tokens=9, suppress_tokens=(12, 13, 14), bad_words_ids=((7, 9), (END,), (21,), (1,))),
    "beams": BEAMS,
}


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("family", mostly_slow(FAMILIES))
def test_equals_plain_generate(
    family: str, settings: str, load: Callable[..., CTranslate2Engine], plain_of: Callable[[str], _Plain]
) -> None:
    _assert_equal(plain_of(family), load(family), [Request(text, SETTINGS[settings]) for text in texts()])


@pytest.mark.parametrize("family", mostly_slow(FAMILIES))
def test_forbidden_repetitions_equal_plain_generate(
    family: str, load: Callable[..., CTranslate2Engine], plain_of: Callable[[str], _Plain]
) -> None:
    """The start token (1) is suppressed: whether it counts among what is repeated is where the two differ."""
    decode = DecodeSettings(max_new_tokens=14, no_repeat_ngram_size=2, suppress_tokens=(1,))
    _assert_equal(plain_of(family), load(family), [Request(text, decode) for text in texts()])


@pytest.mark.parametrize("family", mostly_slow(FAMILIES))
def test_a_decoder_prefix_is_continued_and_left_out(
    family: str, load: Callable[..., CTranslate2Engine], plain_of: Callable[[str], _Plain]
) -> None:
    for decode in (SETTINGS["minimum"], SETTINGS["forced"]):
        _assert_equal(plain_of(family), load(family), [Request(text, decode, decoder_prefix=(11, 9)) for text in texts()])


@pytest.mark.parametrize("model", mostly_slow(VARIANTS, ["bart-odd", "t5-v1.1"]))
@pytest.mark.parametrize("decode", [SETTINGS["plain"], BEAMS], ids=["greedy", "beams"])
def test_what_published_checkpoints_vary_equals_plain_generate(
    model: str, decode: DecodeSettings, load: Callable[..., CTranslate2Engine], plain_of: Callable[[str], _Plain]
) -> None:
    _assert_equal(plain_of(model), load(model), [Request(text, decode) for text in texts()])


def test_a_decoder_with_fewer_or_more_heads_equals_plain_generate(tmp_path: Path) -> None:
    """CTranslate2's loader gives the decoder the encoder's number of heads, and the weights fit either."""
    folder = make_model("bart", tmp_path / "model")
    edit_json(folder / "config.json", decoder_attention_heads=8)
    engine = CTranslate2Engine(_settings(folder, tmp_path / "cache"))
    _assert_equal(_Plain(folder), engine, [Request(text, SETTINGS["plain"]) for text in texts()])


@pytest.mark.parametrize("family", mostly_slow(FAMILIES))
def test_logprob_is_the_mean_over_generated_tokens(
    family: str, load: Callable[..., CTranslate2Engine], plain_of: Callable[[str], _Plain]
) -> None:
    engine, plain = load(family), plain_of(family)
    for prefix in ((), (11, 9)):
        for request in (Request(text, DecodeSettings(max_new_tokens=6), decoder_prefix=prefix) for text in texts()[2:4]):
            [completion] = engine.generate([request])
            row = [*prefix, *completion.token_ids]
            scores = plain.logprobs(plain.inputs(request.text, engine), row)[len(prefix) : -1]
            expected = scores.gather(1, torch.tensor(completion.token_ids)[:, None]).mean()
            assert completion.logprob == pytest.approx(float(expected), abs=1e-3)
    assert engine.generate([Request(texts()[0], BEAMS)])[0].logprob is None


def test_a_forced_end_counts_as_certain(load: Callable[..., CTranslate2Engine]) -> None:
    engine = load("marian")
    for limit in (1, 4):
        forced = DecodeSettings(max_new_tokens=limit, min_new_tokens=limit, forced_eos_token_id=END)
        free = DecodeSettings(max_new_tokens=max(limit - 1, 1), min_new_tokens=limit - 1)
        requests = [[Request(text, decode) for text in texts()] for decode in (forced, free)]
        for with_end, without in zip(*map(engine.generate, requests), strict=True):
            assert (with_end.token_ids[-1], len(with_end.token_ids), with_end.finish) == (END, limit, "length")
            assert with_end.logprob == pytest.approx((without.logprob or 0) * (limit - 1) / limit, abs=1e-4)


def test_int8_writes_nearly_what_float32_writes(load: Callable[..., CTranslate2Engine], plain_of: Callable[[str], _Plain]) -> None:
    """Greedy int8 output, judged by the exact model: each token is nearly as likely as the best one there."""
    engine, plain = load("bart", dtype="int8"), plain_of("bart")
    assert engine.identity.dtype == "int8"
    losses = []
    for text in texts():
        [completion] = engine.generate([Request(text, SETTINGS["plain"])])
        scores = plain.logprobs(plain.inputs(text, engine), list(completion.token_ids))[:-1]
        losses.append(scores.amax(-1) - scores.gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0])
    assert float(torch.cat(losses).mean()) < 0.1


def test_approximations_are_told_once_and_only_where_they_matter(
    load: Callable[..., CTranslate2Engine], caplog: pytest.LogCaptureFixture
) -> None:
    assert [approximations(decode) for decode in (GREEDY, BEAMS)] == [(), ()]
    loose = DecodeSettings(num_beams=2, max_new_tokens=5, repetition_penalty=1.2, no_repeat_ngram_size=3)
    told = [line.partition(":")[0] for line in approximations(loose)]
    assert told == ["repetition_penalty", "early_stopping", "renormalize_logits"]
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            load("pegasus").generate([Request(text, loose) for text in texts()])
    assert len(caplog.records) == 3
    assert not any(sentence[:20] in caplog.text for sentence in sentences(60))


class _Refusing:
    """A translator that refuses batches of more than two rows and any row that holds the marked word: as memory would, by error alone."""

    def __init__(self, translator: object, marker: tuple[str, ...]) -> None:
        self._translator, self._marker, self.batches = translator, marker, list[int]()

    def translate_batch(self, rows: list[list[str]], *args: object, **options: object) -> object:
        self.batches.append(len(rows))
        if len(rows) > 2 or any(tuple(row[i : i + 2]) == self._marker for row in rows for i in range(len(row))):
            raise RuntimeError("CUDA failed with error out of memory")
        return self._translator.translate_batch(rows, *args, **options)  # type: ignore[attr-defined]


def test_out_of_memory_halves_down_to_the_one_that_does_not_fit(
    load: Callable[..., CTranslate2Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = load("bart")
    marked = "zebra"
    good = [Request(text, GREEDY) for text in texts()]
    expected = engine.generate(good)
    first, second = map(str, engine.tokenize([marked])[0].ids[-2:])
    refusing = _Refusing(engine._translator, (first, second))
    monkeypatch.setattr(engine, "_translator", refusing)
    mixed = engine.generate([*good[:3], Request(marked, GREEDY), *good[3:]])
    assert mixed[3] == Completion.failed(OUT_OF_MEMORY, "RuntimeError")
    assert all(map(same, mixed[:3] + mixed[4:], expected))
    assert max(refusing.batches) > 2


def test_bfloat16_on_a_cpu_is_refused(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="ctranslate2 has no bfloat16 on a CPU; choices: auto, float32, int8"):
        CTranslate2Engine(_settings(folder_of("t5"), tmp_path, dtype="bfloat16"))


def test_auto_is_int8_on_a_cpu(load: Callable[..., CTranslate2Engine]) -> None:
    identity = load("marian", dtype="auto", model_id="tiny", model_sha256="ab").identity
    assert (identity.backend, identity.model_id, identity.model_sha256) == ("ctranslate2", "tiny", "ab")
    assert (identity.dtype, identity.device) == ("int8", "cpu")


def test_the_profile_counts_what_was_computed(load: Callable[..., CTranslate2Engine]) -> None:
    engine = load("t5")
    engine.reset_profile()
    completions = engine.generate([Request(text, GREEDY) for text in texts()])
    profile, lengths = engine.profile, [len(completion.token_ids) for completion in completions]
    assert profile.encoded_tokens - profile.encoded_padding == sum(c.source_tokens + 1 for c in completions)
    assert profile.encoded_padding == sum(c.padded_tokens for c in completions)
    assert (profile.steps, profile.row_steps) == (max(lengths), sum(lengths))
    assert profile.decode_seconds > 0
    engine.reset_profile()
    assert engine.profile.steps == 0
