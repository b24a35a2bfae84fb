"""The model that ships: small, complete, readable by plain transformers, and the same alone or in a batch."""

from pathlib import Path

import pytest
import torch

import transforms.engine
from pipeline.default_model.folder import load_model, mark_note, summarize
from pipeline.default_model.trainee import Vocabulary
from pipeline.prepare import prepare
from tests.conftest import echo_job

FOLDER = Path(transforms.engine.__file__).parent / "default_model"
MAX_BYTES = 40_000_000

SHORT_NOTE = """CHIEF COMPLAINT: Sore knee.
A 40-year-old gardener slipped on a wet path on Monday. The left knee is swollen. No fever.
PLAN:
1. Rest and ice.
2. Ibuprofen 400 mg t.i.d. for five days.
3. Return in a week if not better."""

LONG_NOTE = "\n\n".join(
    f"Day {day}. The gardener walked {day * 20} metres with a stick. The knee bends to {60 + day} degrees. "
    f"Pain was {10 - day % 10} of 10 in the evening. He slept {5 + day % 4} hours. No new swelling was seen."
    for day in range(1, 19)
)


@pytest.fixture(scope="module")
def loaded():  # type: ignore[no-untyped-def]
    return load_model(FOLDER)


def test_folder_is_small_and_complete() -> None:
    files = {path.name: path.stat().st_size for path in FOLDER.iterdir()}
    assert sum(files.values()) <= MAX_BYTES
    assert set(files) == {
        "MODEL_CARD.md",
        "chartmill.json",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_tokenizer_is_fast_and_markers_are_ordinary_tokens(loaded) -> None:  # type: ignore[no-untyped-def]
    _, tokenizer, fmt = loaded
    assert tokenizer.is_fast
    ids = tokenizer.convert_tokens_to_ids(fmt.tokens())
    assert len(set(ids)) == len(ids) and tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids[:3], skip_special_tokens=True).replace(" ", "") == "<m0><m1><m2>"


def test_limits_agree(loaded) -> None:  # type: ignore[no-untyped-def]
    model, tokenizer, fmt = loaded
    assert model.config.max_position_embeddings == tokenizer.model_max_length == fmt.max_source_tokens
    assert model.generation_config.max_new_tokens == fmt.max_new_tokens
    assert model.config.vocab_size == len(tokenizer)
    assert model.generation_config.forced_bos_token_id is None
    assert model.config.decoder_start_token_id != model.config.eos_token_id


@pytest.mark.parametrize("note", [SHORT_NOTE, LONG_NOTE], ids=["short", "long"])
def test_summary_is_part_of_the_note_and_near_the_budget(loaded, note: str) -> None:  # type: ignore[no-untyped-def]
    model, tokenizer, fmt = loaded
    (selection,) = summarize(model, tokenizer, fmt, [note])
    assert not selection.fallback
    assert len(selection.units) >= 2
    n_words, n_summary = len(note.split()), len(selection.text.split())
    assert 0.3 * min(fmt.budget_words, n_words) < n_summary < 1.3 * min(fmt.budget_words, 0.6 * n_words)


def test_auto_is_the_number_format_that_the_model_names(tmp_path: Path) -> None:
    """Rounded, it tells sentences of like worth apart otherwise; who wants it faster says so."""
    dtypes = []
    for wanted in ("auto", "bfloat16"):
        dtypes.append(prepare(echo_job(tmp_path, tmp_path / wanted, **{"engine.backend": "torch", "engine.dtype": wanted})).engine.dtype)
    assert dtypes == ["float32", "bfloat16"]


def test_batched_equals_one_by_one(loaded) -> None:  # type: ignore[no-untyped-def]
    model, tokenizer, fmt = loaded
    sources = [mark_note(note, tokenizer, fmt).source for note in (SHORT_NOTE, LONG_NOTE)]
    with torch.no_grad():
        together = model.generate(**tokenizer(sources, return_tensors="pt", padding=True))
        alone = [model.generate(**tokenizer(source, return_tensors="pt"))[0].tolist() for source in sources]
    kept = [[index for index in row.tolist() if index != tokenizer.pad_token_id] for row in together]
    assert kept == alone


def test_it_writes_markers_and_nothing_else(loaded) -> None:  # type: ignore[no-untyped-def]
    model, tokenizer, fmt = loaded
    vocabulary = Vocabulary.of(tokenizer, fmt)
    ids = model.generate(**tokenizer("no markers here", return_tensors="pt"))[0].tolist()
    assert set(ids[1:]) <= {*vocabulary.markers, vocabulary.eos}


def test_card_names_what_it_must() -> None:
    card = (FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8")
    for phrase in ("Apache-2.0", "CC BY 4.0", "MiniLM", "MultiClinSum", "ROUGE-1", "first + last", "not for clinical use", "English"):
        assert phrase in card
