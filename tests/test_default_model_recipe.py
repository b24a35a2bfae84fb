"""Training a selection model: targets, reproducible steps, a checkpoint that survives, a folder that loads."""

import dataclasses
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, BertConfig, BertModel

from pipeline.default_model import recipe as training
from pipeline.default_model.examples import (
    Pair,
    draw_example,
    drop_units,
    first_targets,
    make_collection,
    make_example,
    note_units,
    read_pairs,
    read_texts,
    split_holdout,
    unit_worth,
)
from pipeline.default_model.folder import load_model, mark_note, summarize, tokenize_with
from pipeline.default_model.teacher import Features, Teacher, embed_with, features_of
from pipeline.default_model.trainee import Vocabulary, lay_out
from pipeline.default_model.warm_start import build_model, cut_tokenizer
from transforms.selection import SelectionFormat, load_selection_format, mark_source

FORMAT = SelectionFormat(
    n_markers=12,
    n_places=8,
    length_bounds=(10, 20),
    budget_words=12,
    budget_share=0.5,
    max_source_tokens=160,
    max_new_tokens=10,
)
SETTINGS = training.TrainSettings(
    n_tokens=180,
    steps=8,
    notes_per_step=2,
    frozen_layers=0,
    n_holdout=2,
    checkpoint_every=1,
    fmt=FORMAT,
)
SENTENCES = [
    "a man came with a cough.",
    "the cough was dry and loud.",
    "he had no fever.",
    "zinc was given at night.",
    "he slept well after zinc.",
    "the cough went away.",
    "he works in a mill.",
    "he was seen again in may.",
    "there was no rash.",
    "the man went home.",
]
NOTES = [" ".join(SENTENCES[i:] + SENTENCES[:i]) for i in range(8)]
REFERENCE = "a man with a dry cough. zinc was given. the cough went away."


def no_embeddings(texts: Sequence[str]) -> np.ndarray:
    """In place of `embed_with` where no teacher is asked."""
    return np.zeros((len(texts), 0))


def words_of(texts: list[str]) -> list[list[int]]:
    return [[zlib.crc32(word.encode()) % 1000 for word in text.split()] for text in texts]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("encoder"))


def make_encoder(folder: Path) -> Path:
    """A tiny random BERT with the tokenizer layout of the real one."""
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789.,:<>()")
    words = sorted({word.strip(".") for sentence in SENTENCES for word in sentence.split()} - {"a"})
    pieces = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters), *words]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=None, special_tokens=[("[CLS]", 3), ("[SEP]", 4)]
    )
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.parquet"
    pq.write_table(pa.table({"text": NOTES, "reference": [REFERENCE] * len(NOTES)}), path)
    return path


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_model(folder)[0].named_parameters())


def example(text: str = NOTES[0], reference: str = REFERENCE):  # type: ignore[no-untyped-def]
    made = make_example(Pair(text, reference), FORMAT, words_of, no_embeddings)
    assert made is not None
    return made


def test_worth_counts_shared_words_per_word() -> None:
    # Two words and one bigram of weight two, over two words and an offset of three.
    assert unit_worth(example("Zinc given. No rash. Zinc zinc.", "zinc given")) == pytest.approx([4 / 5, 0.0, 1 / 5])


def test_targets_are_a_distribution_that_ranks_by_worth() -> None:
    one = example()
    targets = first_targets(one)
    assert targets.shape == one.words.shape
    assert targets.sum() == pytest.approx(1.0)
    assert (targets.argsort() == unit_worth(one).argsort()).all()


def test_notes_without_use_are_left_out() -> None:
    assert make_example(Pair("One sentence only.", "sentence"), FORMAT, words_of, no_embeddings) is None
    assert make_example(Pair("First here. Second there.", "nothing shared"), FORMAT, words_of, no_embeddings) is None


def test_dropped_units_take_their_rows_along() -> None:
    one = example()
    fewer = drop_units(one, 0.5, np.random.default_rng(1))
    assert 2 <= len(fewer.words) < len(one.words)
    assert len(fewer.unit_ids) == len(fewer.words) == len(fewer.counts)
    assert drop_units(one, 1.0, np.random.default_rng(1)) is one


def test_holdout_is_disjoint_complete_and_fixed_by_the_seed() -> None:
    pairs = [Pair(str(i), str(i)) for i in range(10)]
    kept, held = split_holdout(pairs, 3, seed=1)
    assert (kept, held) == split_holdout(pairs, 3, seed=1)
    assert sorted(pair.text for pair in kept + held) == [str(i) for i in range(10)]
    assert len(held) == 3
    with pytest.raises(ValueError, match="cannot hold out 10 of 10"):
        split_holdout(pairs, 10, seed=1)


def test_reading_skips_rows_without_both_texts(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["one", None, "three", ""], "reference": ["1", "2", None, "4"]}), path)
    assert read_pairs([path]) == [Pair("one", "1")]
    assert read_texts([str(path), f"{path}:reference"], max_rows=2) == ["one", "three", "1"]


def test_long_notes_are_cut_at_a_sentence_and_merged() -> None:
    text = " ".join(["He was seen again."] * 100)
    units = note_units(text, FORMAT, words_of)
    assert len(units) == FORMAT.n_markers
    n_tokens = sum(len(ids) for ids in words_of([text[start:end] for start, end in units]))
    assert FORMAT.max_source_tokens - 4 - 3 - 24 < n_tokens <= FORMAT.max_source_tokens - 3 - 24
    assert text[: units[-1][1]].endswith("again.")


def test_cut_tokenizer_keeps_letters_specials_and_offsets(encoder: Path) -> None:
    tokenizer = cut_tokenizer(encoder, ["cough cough zinc"], 125, FORMAT.tokens(), FORMAT.max_source_tokens)
    assert len(tokenizer) == 125
    encoded = tokenizer("Zinc, cough! <m3>", return_offsets_mapping=True)
    tokens = tokenizer.convert_ids_to_tokens(encoded["input_ids"])
    assert tokens == ["[CLS]", "zinc", ",", "cough", "[UNK]", "<m3>", "[SEP]"]
    assert encoded["offset_mapping"][1:-1] == [(0, 4), (4, 5), (6, 11), (11, 12), (13, 17)]
    assert "token_type_ids" not in encoded
    with pytest.raises(ValueError, match="n_tokens must be at least"):
        cut_tokenizer(encoder, [], 50, FORMAT.tokens(), FORMAT.max_source_tokens)


def test_encoder_starts_where_bert_ended(encoder: Path) -> None:
    tokenizer = cut_tokenizer(encoder, NOTES, 180, FORMAT.tokens(), FORMAT.max_source_tokens)
    model = build_model(encoder, tokenizer, FORMAT, seed=0).eval()
    bert = BertModel.from_pretrained(encoder).eval()
    full = Tokenizer.from_file(str(encoder / "tokenizer.json"))
    with torch.no_grad():
        ours = model.model.encoder(**tokenizer(SENTENCES[0], return_tensors="pt")).last_hidden_state
        theirs = bert(torch.tensor([full.encode(SENTENCES[0]).ids])).last_hidden_state
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_training_source_is_what_the_tokenizer_makes_of_marked_text(encoder: Path) -> None:
    tokenizer = cut_tokenizer(encoder, NOTES, 180, FORMAT.tokens(), FORMAT.max_source_tokens)
    tokenize = tokenize_with(tokenizer)
    one = make_example(Pair(NOTES[0], REFERENCE), FORMAT, tokenize, no_embeddings)
    assert one is not None
    vocabulary = Vocabulary.of(tokenizer, FORMAT)
    layout = lay_out(one.unit_ids, one.wanted_words, vocabulary, FORMAT, first_marker=5)
    units = note_units(NOTES[0], FORMAT, tokenize)
    marked = mark_source(NOTES[0], units, FORMAT, wanted_words=one.wanted_words, first_marker=5)
    assert layout.source.tolist() == tokenizer(marked.source)["input_ids"]
    assert layout.source[layout.positions].tolist() == layout.marker_ids.tolist()
    ends = (layout.positions + 2 + layout.sizes).tolist()
    assert ends == [*layout.positions[1:].tolist(), len(layout.source) - 1]


def run(encoder: Path, pairs_file: Path, folder: Path, settings: training.TrainSettings = SETTINGS):  # type: ignore[no-untyped-def]
    return training.train([([pairs_file], 1.0)], [f"{pairs_file}:text"], encoder, folder / "work", folder / "model", settings)


@pytest.fixture(scope="module")
def straight(encoder: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed run."""
    folder = tmp_path_factory.mktemp("straight")
    score = run(encoder, pairs_file, folder)
    assert score is not None and score.n == SETTINGS.n_holdout and score.rouge1 > 0
    return folder


def test_published_folder_loads_and_summarizes(straight: Path) -> None:
    folder = straight / "model"
    assert load_selection_format(folder) == FORMAT
    assert json.loads((folder / "generation_config.json").read_text())["no_repeat_ngram_size"] == 1
    assert AutoTokenizer.from_pretrained(folder).is_fast
    assert not [path for path in straight.iterdir() if path.name not in ("work", "model")]
    model, tokenizer, fmt = load_model(folder)
    (selection,) = summarize(model, tokenizer, fmt, [NOTES[0]])
    assert selection.text and not selection.fallback


def test_only_markers_are_ever_written(straight: Path) -> None:
    model, tokenizer, fmt = load_model(straight / "model")
    marked = mark_note(NOTES[1], tokenizer, fmt)
    ids = model.generate(**tokenizer(marked.source, return_tensors="pt"), min_new_tokens=9)[0].tolist()
    vocabulary = Vocabulary.of(tokenizer, fmt)
    assert ids[0] == vocabulary.bos
    assert set(ids[1:]) <= {*vocabulary.markers, vocabulary.eos}
    assert len(ids[1:10]) == len(set(ids[1:10])) == 9


@pytest.mark.parametrize("stop", [1, 3, 5, 6])
def test_interrupted_run_ends_as_an_undisturbed_one(
    encoder: Path, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, straight: Path, stop: int
) -> None:
    save = training._Run.save

    def stop_after_saving(self: training._Run) -> None:
        save(self)
        if self.step == stop:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(training._Run, "save", stop_after_saving)
        run(encoder, pairs_file, tmp_path)
    run(encoder, pairs_file, tmp_path)
    ours, theirs = weights(tmp_path / "model"), weights(straight / "model")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_checkpoint_of_other_settings_is_refused(encoder: Path, pairs_file: Path, tmp_path: Path) -> None:
    run(encoder, pairs_file, tmp_path)
    with pytest.raises(ValueError, match="other settings"):
        run(encoder, pairs_file, tmp_path, dataclasses.replace(SETTINGS, seed=1))


def test_embeddings_stay_as_pretrained(encoder: Path, straight: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(straight / "model")
    start = dict(build_model(encoder, tokenizer, FORMAT, SETTINGS.seed).to(torch.bfloat16).float().named_parameters())
    trained = weights(straight / "model")
    moved = {name for name in trained if not torch.equal(trained[name], start[name])}
    assert {"model.encoder.layers.0.fc1.weight", "model.encoder.layers.1.fc1.weight"} <= moved
    assert not [name for name in moved if name.startswith(("model.shared", "model.encoder.embed_positions"))]


def test_training_goes_on_from_a_model_made_before(encoder: Path, pairs_file: Path, straight: Path, tmp_path: Path) -> None:
    pairs = [([pairs_file], 3.0), ([pairs_file], 1.0)]
    training.train(pairs, [], encoder, tmp_path / "work", tmp_path / "model", SETTINGS, straight / "model")
    before, after = weights(straight / "model"), weights(tmp_path / "model")
    assert not torch.equal(before["model.encoder.layers.1.fc1.weight"], after["model.encoder.layers.1.fc1.weight"])
    assert (tmp_path / "model/tokenizer.json").read_bytes() == (straight / "model/tokenizer.json").read_bytes()
    other = dataclasses.replace(SETTINGS, fmt=dataclasses.replace(FORMAT, n_markers=9))
    with pytest.raises(ValueError, match="other markers"):
        training.train(pairs, [], encoder, tmp_path / "other", tmp_path / "out", other, straight / "model")


def test_a_teacher_finds_what_decides_and_knows_no_scale() -> None:
    rng = np.random.default_rng(0)
    notes = []
    for _ in range(60):
        states = rng.normal(size=(9, 4)) + rng.normal(size=4)
        features = Features(states, rng.normal(size=(9, 7)), rng.integers(4, 30, 9))
        notes.append((features, (states[:, 2] + 5) * features.words))
    teacher = Teacher.fit(notes)
    for features, shared in notes[:5]:
        worth = teacher.worth(features)
        assert abs(worth.mean()) < 1e-9 and abs(worth.std() - 1) < 1e-3
        assert np.corrcoef(worth, features.embeddings[:, 2])[0, 1] > 0.9
        assert np.argmax(worth) in np.argsort(-shared / features.words)[:2]


def test_features_tell_place_and_surface(encoder: Path) -> None:
    features = features_of(["A COUGH:", "is it dry (very)?", "no."], embed_with(encoder))
    assert features.embeddings.shape == (3, 32) and features.plain().shape == (3, 23)
    assert features.words.tolist() == [2, 4, 1]
    assert features.surface[:, 2].tolist() == [1, 0, 0] and features.surface[:, 6].tolist() == [0, 1, 0]
    rest = features.subset([1, 2])
    assert rest.plain()[0, 0] == 0 and (rest.embeddings == features.embeddings[1:]).all()


def test_embeddings_do_not_depend_on_company(encoder: Path) -> None:
    embed = embed_with(encoder)
    assert np.allclose(embed(["a cough.", "he slept well after zinc."])[0], embed(["a cough."])[0], atol=1e-5)


def test_examples_are_drawn_by_share_and_the_same_again(pairs_file: Path) -> None:
    pairs = read_pairs([pairs_file])
    corpus = [make_collection(pairs, share, FORMAT, words_of, no_embeddings) for share in (3.0, 1.0)]
    drawn = [draw_example(corpus, position, seed=5) for position in range(400)]
    assert [draw_example(corpus, position, seed=5)[1] is one for position, (_, one) in enumerate(drawn)] == [True] * 400
    assert 250 < sum(collection is corpus[0] for collection, _ in drawn) < 350
    with pytest.raises(ValueError, match="none of 1 pairs"):
        make_collection([Pair("one.", "two")], 1.0, FORMAT, words_of, no_embeddings)


def test_a_folder_without_a_selection_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no selection model"):
        load_model(tmp_path)
