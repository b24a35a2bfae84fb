"""Each family that the engine runs itself, in the shapes that published checkpoints have, and those that it leaves to transformers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.near_ties import Reference, Tally, assert_agree
from tests.tiny_models import FAMILIES, OTHERS, SOURCE_LIMIT, TARGET_LANGUAGE, VARIANTS, make_model, mostly_slow, sentences
from transforms.engine import DecodeSettings, Engine, EngineError, EngineSettings, Request, decode_settings, load_engine, resolve_dtype
from transforms.models import DEFAULT_MODEL_FOLDER

NATIVE = FAMILIES + VARIANTS
# The model that ships, as its own file says it decodes.
DEFAULT = pytest.param(
    "default", marks=pytest.mark.skipif(not any(DEFAULT_MODEL_FOLDER.glob("*.safetensors")), reason="the default model is not in the tree")
)
GREEDY = {"num_beams": 1, "max_new_tokens": 9, "min_new_tokens": 2, "no_repeat_ngram_size": 2}
BEAMS = GREEDY | {"num_beams": 3, "max_new_tokens": 8, "length_penalty": 1.5, "early_stopping": True}
TEXTS = [" ".join(sentences(60)[start : start + count]) for start, count in ((0, 2), (5, 0), (50, 5), (9, 40))]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made = {"default": DEFAULT_MODEL_FOLDER}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = make_model(family, tmp_path_factory.mktemp(family))
        return made[family]

    return folder


# No beams of the default model: it writes markers by worth whatever came before, so all orders of the same markers tie.
SHIPPED = (([*map(pytest.param, NATIVE + OTHERS), DEFAULT], GREEDY), ([*map(pytest.param, FAMILIES + OTHERS)], BEAMS))


def load(folder: Path, **settings: Any) -> Engine:
    return load_engine(
        EngineSettings(**{"model_folder": str(folder), "device": "cpu", "dtype": "float32", "threads": 1, "slots": 4, **settings})
    )


def plain_rows(folder: Path, options: dict[str, Any]) -> list[tuple[int, ...]]:
    """What a user of transformers gets who reads no further than its first page: the checkpoint's own settings, with these on top."""
    import torch
    import transformers

    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    rows = []
    for text in TEXTS:
        inputs = tokenizer([text], return_tensors="pt", truncation=True)
        ids = model.generate(inputs["input_ids"], attention_mask=inputs["attention_mask"], do_sample=False, **options)[0, 1:].tolist()
        end = model.generation_config.eos_token_id
        rows.append(tuple(ids[: ids.index(end) + 1] if end in ids else ids))
    return rows


@pytest.mark.parametrize(
    ("family", "options"),
    # The variants' beams are left to the laws.
    [pytest.param(*family.values, options, marks=family.marks) for families, options in SHIPPED for family in families],
)
def test_shipped_settings_equal_plain_generate(family: str, options: dict[str, Any], folder_of: Callable[[str], Path]) -> None:
    folder = folder_of(family)
    decode = decode_settings(folder, options)
    requests = [Request(text, decode) for text in TEXTS]
    completions = load(folder).generate(requests)
    assert len({completion.token_ids for completion in completions}) > 2
    if [completion.token_ids for completion in completions] != plain_rows(folder, options):
        counted = Tally()
        assert_agree(Reference(folder, longest=1_500 if family == "default" else SOURCE_LIMIT), requests, completions, counted)
        assert counted.ties == 1
    if family == "mbart":
        assert {completion.token_ids[0] for completion in completions} == {TARGET_LANGUAGE}


@pytest.mark.parametrize("family", mostly_slow(NATIVE))
def test_int8_answers_are_the_same_in_any_company(family: str, folder_of: Callable[[str], Path]) -> None:
    try:
        resolve_dtype("int8", "cpu")
    except EngineError as error:
        pytest.skip(str(error))
    requests = [Request(text, DecodeSettings(max_new_tokens=9, no_repeat_ngram_size=1)) for text in TEXTS]
    engine = load(folder_of(family), dtype="int8")
    together = engine.generate(requests)
    assert engine.generate(requests[::-1])[::-1] == together
    assert [engine.generate([request])[0] for request in requests] == together
    assert {completion.finish for completion in together} <= {"stop", "length"}


def test_untied_output_layers_are_not_tied(folder_of: Callable[[str], Path]) -> None:
    """The configuration that transformers 5 makes of T5 v1.1 says tied and scaled; the file holds two matrices, and nothing is scaled."""
    from transforms.engine.architecture import pack
    from transforms.engine.loading import load_model

    model = load_model(folder_of("t5-v1.1"), "float32")
    assert model.lm_head.weight is not model.shared.weight
    assert not model.config.scale_decoder_outputs
    assert pack(model, "float32", "cpu").head_scale == 1.0
    assert pack(load_model(folder_of("t5"), "float32"), "float32", "cpu").head_scale == pytest.approx(32**-0.5)


@pytest.mark.parametrize("family", ["bart-odd", "t5-odd"])
def test_ids_that_the_tokenizer_does_not_know_are_no_text(family: str, folder_of: Callable[[str], Path]) -> None:
    import transformers

    folder = folder_of(family)
    known = len(transformers.AutoTokenizer.from_pretrained(folder))
    unknown = DecodeSettings(max_new_tokens=3, forced_bos_token_id=known + 5)
    for completion in load(folder).generate([Request(text, unknown) for text in TEXTS]):
        assert completion.token_ids[0] == known + 5
        assert completion.error is None


@pytest.mark.parametrize("family", ["led", "longt5"])
def test_a_family_that_is_left_to_generate_says_so_once(
    family: str, folder_of: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="transforms"):
        engine = load(folder_of(family))
        for _ in range(2):
            engine.generate([Request(TEXTS[0], DecodeSettings(max_new_tokens=3))])
    [said] = [record.getMessage() for record in caplog.records if record.name.startswith("transforms")]
    assert family in said
    assert "generate()" in said


@pytest.mark.parametrize("family", NATIVE)
def test_a_family_that_is_run_here_is_not_left_to_generate(
    family: str, folder_of: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="transforms"):
        engine = load(folder_of(family))
        engine.generate([Request(TEXTS[0], DecodeSettings(max_new_tokens=3))])
    assert not caplog.records
    assert type(engine).__name__ == "TorchEngine"
