"""Tiny random sequence-to-sequence models with real tokenizers, built on the fly: real parts, no network.

Weights are drawn wide, so that the best token leads clearly and greedy output does not hang on the last bits of a sum.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

FAMILIES = ("bart", "t5", "marian", "pegasus")
SOURCE_LIMIT = 160
END = 2

_SUBJECTS = ("The patient", "She", "He", "The nurse", "A cough", "The wound", "Her sister", "The clinic")
_VERBS = ("reports", "denies", "was given", "improved after", "returned with", "asked about", "slept through", "brought")
_OBJECTS = ("mild pain", "a low fever", "two tablets", "warm tea", "a new bandage", "the results", "her walker", "nothing else")


def sentences(count: int) -> list[str]:
    """Different short sentences of our own making."""
    triples = itertools.product(_SUBJECTS, _VERBS, _OBJECTS)
    # A stride without a common factor with 8 * 8 * 8 walks through all of them out of order.
    pool = [" ".join(triple) + "." for triple in triples]
    return [pool[(i * 37) % len(pool)] for i in range(count)]


def make_model(family: str, folder: Path, seed: int = 0) -> Path:
    """Write a model of this family with its tokenizer into the folder, as `save_pretrained` does, and return it."""
    import torch

    torch.manual_seed(seed)
    tokenizer = _tokenizer(family)
    model = _model(family, len(tokenizer))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Cross-attention (EncDecAttention in T5) drawn wider still: output has to depend on the source.
            if parameter.dim() > 1:
                parameter.normal_(std=1.0 if "encoder_attn" in name or "EncDec" in name else 0.3)
        # A long embedding (tied to the output layer) makes the end of a sequence likely now and then.
        model.get_input_embeddings().weight[END] *= 2
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _tokenizer(family: str) -> Any:
    """Byte-level BPE with <s> ... </s> for BART; Unigram with a final </s> for the others."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    if family == "bart":
        backend = Tokenizer(models.BPE(unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
        backend.train_from_iterator(sentences(512), trainer)
        template = "<s> $A </s>"
    else:
        # Not trained: the library's Unigram trainer gives another vocabulary each time.
        backend = Tokenizer(models.Unigram([(piece, 0.0) for piece in special] + _unigram_pieces(), unk_id=special.index("<unk>")))
        backend.pre_tokenizer = pre_tokenizers.Metaspace()
        backend.decoder = decoders.Metaspace()
        template = "$A </s>"
    backend.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, backend.token_to_id(token)) for token in ("<s>", "</s>")]
    )
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=SOURCE_LIMIT, **names)


def _unigram_pieces() -> list[tuple[str, float]]:
    """Characters, the halves of words and short words, dearer (log probability) the shorter they are."""
    words = {f"\u2581{word}" for sentence in sentences(512) for word in sentence.split()}
    halves = {half for word in words for half in (word[: len(word) // 2], word[len(word) // 2 :])}
    pieces = {char for word in words for char in word} | halves | {word for word in words if len(word) < 6}
    return [(piece, -12.0 + len(piece)) for piece in sorted(pieces)]


def _model(family: str, vocab_size: int) -> Any:
    import transformers as tf

    ids = {"vocab_size": vocab_size, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": END}
    layers = {
        f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("layers", 2), ("attention_heads", 2), ("ffn_dim", 64))
    }
    shape = {"d_model": 32, "max_position_embeddings": SOURCE_LIMIT, **layers, **ids}
    match family:
        case "bart":
            return tf.BartForConditionalGeneration(tf.BartConfig(**shape, decoder_start_token_id=2, forced_eos_token_id=2))
        case "marian":
            return tf.MarianMTModel(tf.MarianConfig(**shape, decoder_start_token_id=1, forced_eos_token_id=2))
        case "pegasus":
            return tf.PegasusForConditionalGeneration(tf.PegasusConfig(**shape, decoder_start_token_id=1, forced_eos_token_id=2))
        case "t5":
            config = tf.T5Config(
                d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, decoder_start_token_id=1, n_positions=SOURCE_LIMIT, **ids
            )
            return tf.T5ForConditionalGeneration(config)
        case other:
            raise ValueError(f"family {other!r} is not one of {', '.join(FAMILIES)}")
