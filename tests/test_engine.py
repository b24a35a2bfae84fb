"""The laws of an engine, one parametrized test each for every backend, and what is particular to the torch backend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tiny_models import END, FAMILIES, SOURCE_LIMIT, edit_json, make_model, mostly_slow, sentences
from transforms.engine import (
    GENERATION_FAILED,
    OUT_OF_MEMORY,
    Completion,
    DecodeSettings,
    Engine,
    EngineError,
    EngineSettings,
    Request,
    count_usage,
    decode_settings,
    load_engine,
    loads,
    resolve_dtype,
)
from transforms.models import DEFAULT_MODEL_FOLDER

DEFAULT_MODEL = pytest.param(
    "default",
    marks=[
        pytest.mark.slow,
        pytest.mark.skipif(not any(DEFAULT_MODEL_FOLDER.glob("*.safetensors")), reason="the default model is not in the tree"),
    ],
)
GREEDY = DecodeSettings(max_new_tokens=14, no_repeat_ngram_size=2)
BEAMS = DecodeSettings(num_beams=3, max_new_tokens=10, min_new_tokens=3, length_penalty=1.5, early_stopping=True, no_repeat_ngram_size=3)


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {"default": DEFAULT_MODEL_FOLDER}

    def folder(model: str) -> Path:
        if model not in made:
            made[model] = make_model(model, tmp_path_factory.mktemp(model))
        return made[model]

    return folder


@pytest.fixture(scope="session")
def load(folder_of: Callable[[str], Path]) -> Callable[..., Engine]:
    kept: dict[str, Engine] = {}

    def loaded(model: str, **settings: object) -> Engine:
        key = f"{model} {settings}"
        if key not in kept:
            where = {"backend": "echo"} if model == "echo" else {"model_folder": str(folder_of(model)), "dtype": "float32", "threads": 1}
            kept[key] = load_engine(EngineSettings(**{**where, "device": "cpu", **settings}))
        return kept[key]

    return loaded


@pytest.fixture(params=["echo", *mostly_slow(FAMILIES), DEFAULT_MODEL])
def engine(request: pytest.FixtureRequest, load: Callable[..., Engine]) -> Engine:
    return load(request.param)


def texts(count: int = 9) -> list[str]:
    """Of many lengths, in no order, one empty, the longest over the tiny models' limit."""
    lengths = [3, 1, 6, 0, 4, 2, 40, 5, 1]
    pool = sentences(sum(lengths))
    return [" ".join(pool[sum(lengths[:i]) : sum(lengths[: i + 1])]) for i in range(count)]


def same(left: Completion, right: Completion) -> bool:
    """Equal but for padding, which depends on the company."""
    close = left.logprob == right.logprob or abs((left.logprob or 0) - (right.logprob or 0)) < 1e-3
    return close and (left.text, left.token_ids, left.finish, left.source_tokens, left.source_truncated) == (
        right.text,
        right.token_ids,
        right.finish,
        right.source_tokens,
        right.source_truncated,
    )


@pytest.mark.parametrize("decode", [GREEDY, BEAMS], ids=["greedy", "beams"])
def test_batched_equals_one_by_one(engine: Engine, decode: DecodeSettings) -> None:
    requests = [Request(text, decode) for text in texts()]
    alone = [engine.generate([request])[0] for request in requests]
    together = engine.generate(requests)
    assert len({completion.token_ids for completion in together}) > 3
    assert all(map(same, together, alone))


def test_reversed_in_is_reversed_out(engine: Engine) -> None:
    requests = [Request(text, GREEDY) for text in texts()]
    assert all(map(same, engine.generate(requests[::-1])[::-1], engine.generate(requests)))


def test_limits_hold(engine: Engine) -> None:
    for limit in (1, 5):
        for completion in engine.generate([Request(text, DecodeSettings(max_new_tokens=limit)) for text in texts()]):
            assert len(completion.token_ids) <= limit
            assert completion.source_tokens <= engine.max_source_tokens
            assert completion.source_truncated == (completion.truncated_tokens > 0)
            assert completion.finish in ("stop", "length")


def test_a_source_over_the_limit_is_cut_and_says_so(load: Callable[..., Engine]) -> None:
    for family in FAMILIES:
        engine = load(family)
        long = " ".join(sentences(60))
        total = len(engine.tokenize([long])[0])
        [completion] = engine.generate([Request(long, GREEDY)])
        assert completion.source_truncated
        assert completion.source_tokens == engine.max_source_tokens
        assert completion.truncated_tokens == total - engine.max_source_tokens > 0


@pytest.mark.parametrize("bad", [Request("a lone surrogate: \ud800", GREEDY), Request("a fine text", GREEDY, constraint=object())])
def test_a_bad_request_spoils_no_neighbour(engine: Engine, bad: Request) -> None:
    good = [Request(text, GREEDY) for text in texts()]
    mixed = engine.generate([*good[:4], bad, *good[4:], bad])
    assert [c.finish == "error" for c in mixed] == [False] * 4 + [True] + [False] * 5 + [True]
    assert mixed[4].error == GENERATION_FAILED
    assert mixed[4].cause
    assert mixed[4].text == ""
    assert all(map(same, [c for c in mixed if c.finish != "error"], engine.generate(good)))


def test_mixed_decode_settings_each_keep_their_own(engine: Engine) -> None:
    requests = [Request(text, decode) for text in texts() for decode in (GREEDY, DecodeSettings(max_new_tokens=3))]
    assert all(map(same, engine.generate(requests), [engine.generate([request])[0] for request in requests]))


def test_no_requests_no_completions(engine: Engine) -> None:
    assert engine.generate([]) == []
    assert engine.tokenize([]) == []


def test_offsets_name_the_characters_behind_each_token(engine: Engine) -> None:
    text = "The  nurse\nreports 37.5 °C, mild pain.\tÄrztin: naïve?"
    [tokens] = engine.tokenize([text])
    assert len(tokens.ids) == len(tokens.offsets)
    assert list(tokens.offsets) == sorted(tokens.offsets)
    covered = {i for start, end in tokens.offsets for i in range(start, end)}
    assert {i for i, char in enumerate(text) if not char.isspace()} <= covered <= set(range(len(text)))


def test_usage_is_the_sum_of_the_completions(engine: Engine) -> None:
    completions = engine.generate([Request(text, GREEDY) for text in texts()])
    usage = count_usage(completions)
    assert usage.generated == sum(len(c.token_ids) for c in completions)
    assert usage.source + usage.truncated == sum(len(tokens) for tokens in engine.tokenize(texts()))


def test_reprs_hold_no_text(engine: Engine) -> None:
    text = sentences(1)[0]
    request = Request(text, GREEDY)
    [completion] = engine.generate([request])
    told = repr((request, completion, engine.tokenize([text])))
    assert not any(word in told for word in text.rstrip(".").split() if len(word) > 3)


def test_logprob_is_the_mean_over_generated_tokens(load: Callable[..., Engine], folder_of: Callable[[str], Path]) -> None:
    """By one pass of the plain model over what the engine wrote."""
    import torch
    import transformers

    plain = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder_of("bart"), dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder_of("bart"))
    text = texts()[0]
    for backend in ("torch", "generate"):
        [completion] = load("bart", backend=backend).generate([Request(text, DecodeSettings(max_new_tokens=6))])
        ids = torch.tensor([[plain.generation_config.decoder_start_token_id, *completion.token_ids]])
        with torch.inference_mode():
            scores = plain(**tokenizer([text], return_tensors="pt"), decoder_input_ids=ids[:, :-1]).logits.log_softmax(-1)
        expected = scores[0].gather(1, ids[0, 1:, None]).mean()
        assert completion.logprob == pytest.approx(float(expected), abs=1e-3)


def test_padding_is_counted_where_it_was_computed(load: Callable[..., Engine]) -> None:
    requests = [Request(text, GREEDY) for text in (sentences(1)[0], " ".join(sentences(3)))]
    assert [completion.padded_tokens for completion in load("t5").generate(requests)] == [0, 0]
    short, long = load("t5", backend="generate").generate(requests)
    assert long.padded_tokens == 0
    assert short.padded_tokens == long.source_tokens - short.source_tokens
    assert load("t5", backend="generate", tokens_per_batch=1).generate(requests)[0].padded_tokens == 0


def test_a_batch_that_runs_out_of_memory_is_halved_down_to_the_one_that_does_not_fit(load: Callable[..., Engine]) -> None:
    """generate()'s encoder refuses more than two rows, and any row that holds the marked word: as memory would, by error alone."""
    import torch

    engine = load("bart", backend="generate")
    marked = "zebra"
    [marker] = {engine.tokenize([marked])[0].ids[-2:]}
    batches = []

    def refuse(module: object, args: tuple[object, ...], kwargs: dict[str, torch.Tensor]) -> None:
        rows = kwargs["input_ids"].tolist()
        batches.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError("synthetic")
        if any(tuple(row[i : i + 2]) == marker for row in rows for i in range(len(row))):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    good = [Request(text, GREEDY) for text in texts()]
    expected = engine.generate(good)
    hook = engine._model.get_encoder().register_forward_pre_hook(refuse, with_kwargs=True)  # type: ignore[attr-defined]
    try:
        mixed = engine.generate([*good[:3], Request(marked, GREEDY), *good[3:]])
    finally:
        hook.remove()
    assert mixed[3] == Completion.failed(OUT_OF_MEMORY, "RuntimeError")
    assert all(map(same, mixed[:3] + mixed[4:], expected))
    assert max(batches) > 2


def test_shipped_settings_do_not_leak_into_requests(folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    """A checkpoint that forces a first token and forbids repeats: asked for plain greedy, the engine does plain greedy."""
    plain = load_engine(EngineSettings(model_folder=str(folder_of("bart"))))
    folder = make_model("bart", tmp_path)
    edit_json(folder / "generation_config.json", forced_bos_token_id=7, no_repeat_ngram_size=1, num_beams=4, do_sample=True)
    engine = load_engine(EngineSettings(model_folder=str(folder)))
    requests = [Request(text, GREEDY) for text in texts()]
    assert all(map(same, engine.generate(requests), plain.generate(requests)))
    forced = engine.generate([Request(text, decode_settings(folder, {"num_beams": 1})) for text in texts()])
    assert all(completion.token_ids[0] == 7 for completion in forced)


def test_bad_words_and_suppressed_tokens_are_never_generated(load: Callable[..., Engine]) -> None:
    engine = load("pegasus")
    first = engine.generate([Request(text, GREEDY) for text in texts()])[0].token_ids[0]
    for decode in (DecodeSettings(max_new_tokens=9, bad_words_ids=((first,),)), DecodeSettings(max_new_tokens=9, suppress_tokens=(first,))):
        assert all(first not in c.token_ids for c in engine.generate([Request(text, decode) for text in texts()]))


def test_finish_at_the_limit_with_a_forced_end_is_length(load: Callable[..., Engine]) -> None:
    decode = DecodeSettings(max_new_tokens=4, min_new_tokens=4, forced_eos_token_id=END)
    for completion in load("marian").generate([Request(text, decode) for text in texts()]):
        assert completion.token_ids[-1] == END
        assert completion.finish == "length"


def test_output_stays_within_the_decoder_positions(load: Callable[..., Engine]) -> None:
    engine = load("bart")
    [completion] = engine.generate([Request(texts()[0], DecodeSettings(max_new_tokens=5_000, min_new_tokens=5_000))])
    assert completion.finish == "length"
    assert len(completion.token_ids) == SOURCE_LIMIT


def test_bfloat16_runs_on_cpu(load: Callable[..., Engine]) -> None:
    engine = load("bart", dtype="bfloat16")
    assert engine.identity.dtype == "bfloat16"
    completions = engine.generate([Request(text, GREEDY) for text in texts()])
    assert {completion.finish for completion in completions} <= {"stop", "length"}


def test_loads_are_counted(folder_of: Callable[[str], Path]) -> None:
    before = loads()
    load_engine(EngineSettings(backend="echo"))
    load_engine(EngineSettings(model_folder=str(folder_of("t5")), device="cpu"))
    assert loads() == before + 2


def test_identity_tells_what_was_loaded(folder_of: Callable[[str], Path]) -> None:
    settings = EngineSettings(model_folder=str(folder_of("t5")), model_id="tiny", model_sha256="ab", device="cpu")
    identity = load_engine(settings).identity
    assert (identity.backend, identity.model_id, identity.model_sha256) == ("torch", "tiny", "ab")
    assert (identity.dtype, identity.device) == (resolve_dtype("auto", "cpu"), "cpu")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (EngineSettings(backend="onnx"), "'onnx' is not one of torch, generate, ctranslate2, echo"),
        (EngineSettings(dtype="float16", device="cpu"), "'float16' is not one of auto, float32, bfloat16, int8"),
        (EngineSettings(device="tpu"), "'tpu' is not one of auto, cpu, cuda"),
        (EngineSettings(model_folder="/nowhere", device="cpu"), "'/nowhere' is not a model folder"),
    ],
)
def test_what_cannot_be_had_names_value_and_choices(settings: EngineSettings, told: str) -> None:
    with pytest.raises(EngineError, match=told):
        load_engine(settings)


def test_cuda_where_there_is_none_is_an_error() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    with pytest.raises(EngineError, match="torch sees no CUDA device here; choose cpu or auto"):
        load_engine(EngineSettings(device="cuda"))


def test_a_named_dtype_is_kept_on_cpu() -> None:
    assert [resolve_dtype(dtype, "cpu") for dtype in ("float32", "bfloat16")] == ["float32", "bfloat16"]


def test_pickle_weights_are_refused(tmp_path: Path) -> None:
    folder = make_model("t5", tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(EngineError, match=r"pickle .* are never loaded"):
        load_engine(EngineSettings(model_folder=str(folder), device="cpu"))


def test_weights_that_lack_a_tensor_are_refused(tmp_path: Path) -> None:
    """transformers would fill the gap with random numbers."""
    from safetensors.torch import load_file, save_file

    weights = make_model("bart", tmp_path) / "model.safetensors"
    tensors = load_file(weights)
    del tensors["model.decoder.layers.1.fc2.weight"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(EngineError, match=r"lack 1 tensors .* model\.decoder\.layers\.1\.fc2\.weight"):
        load_engine(EngineSettings(model_folder=str(tmp_path), device="cpu"))


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    folder = make_model("t5", tmp_path)
    edit_json(folder / "config.json", model_type="bert", architectures=["BertModel"])
    with pytest.raises(EngineError, match="does not load as a sequence-to-sequence model"):
        load_engine(EngineSettings(model_folder=str(folder), device="cpu"))
