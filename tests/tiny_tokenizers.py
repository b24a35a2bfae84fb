"""Tiny tokenizers of the three kinds that published models have, with tags of their own: real parts, no network, no training but BPE's."""

from __future__ import annotations

import string
from typing import Any

from tests.tiny_models import sentences

KINDS = ("bpe", "wordpiece", "unigram")
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
TAGS = ("<item>", "<amount>", "<count>", "<state>", "<place>")
# Words and signs that notes have, in our own sentences.
SENTENCES = (
    "Took 12.5 mg (twice daily), then 1,000 units; blood pressure 120/80, 98%.",
    "Non-smoker; aspirin-induced rash on 2024-01-05. Follow-up in 2 weeks!",
    "The patient's wife reports: pain 7/10, no fever, b.i.d. dosing present.",
)


def make_tokenizer(kind: str) -> Any:
    """A transformers tokenizer of this kind: byte-level BPE as BART's, WordPiece as BERT's (lower case, no accents), Unigram as T5's."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    backend = {"bpe": _bpe, "wordpiece": _wordpiece, "unigram": _unigram}[kind]()
    template = "$A </s>" if kind == "unigram" else "<s> $A </s>"
    names = [(token, backend.token_to_id(token)) for token in SPECIAL if token in template]
    backend.post_processor = processors.TemplateProcessing(single=template, special_tokens=names)
    tokens = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=160, **tokens)
    tokenizer.add_tokens(list(TAGS))
    return tokenizer


def _bpe() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=460, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator([*sentences(128), *SENTENCES * 8], trainer)
    return backend


def _wordpiece() -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    letters = string.ascii_lowercase + string.digits
    pieces = [*SPECIAL, *string.punctuation, *letters, *(f"##{char}" for char in letters)]
    words = sorted({word for word in _words() if word.isalnum()})
    pieces += [word for word in words if word not in pieces]
    pieces += [f"##{half}" for half in sorted({word[len(word) // 2 :] for word in words}) if f"##{half}" not in pieces]
    backend = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="<unk>"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return backend


def _unigram() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    words = {f"\u2581{word}" for word in _words(keep_case=True)}
    halves = {half for word in words for half in (word[: len(word) // 2], word[len(word) // 2 :]) if half}
    # Single characters, and signs that a word may share a piece with.
    singles = {"\u2581", *string.ascii_letters, *string.digits, *string.punctuation, "),", "%.", ").", "\u2581("}
    pieces = [(piece, -12.0 + len(piece)) for piece in sorted(words | halves | singles)]
    backend = Tokenizer(models.Unigram([(piece, 0.0) for piece in SPECIAL] + pieces, unk_id=SPECIAL.index("<unk>")))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    return backend


def _words(keep_case: bool = False) -> list[str]:
    text = " ".join([*sentences(64), *SENTENCES])
    return (text if keep_case else text.lower()).split()
