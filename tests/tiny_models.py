"""Tiny random sequence-to-sequence models with real tokenizers, built on the fly: real parts, no network.

Weights are drawn wide, so that the best token leads clearly and greedy output does not hang on the last bits of a sum. Biases, gains
and the bias of the logits are drawn too: an engine that forgets one of them writes other tokens.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

# The four that most tests run.
FAMILIES = ("bart", "t5", "marian", "pegasus")
# What published checkpoints of the same architectures vary: normalisation, activations, scaling, ties, depth, heads, vocabulary.
VARIANTS = ("bart-odd", "bart-heads", "bart-scaled", "mbart", "t5-odd", "t5-v1.1", "mt5", "opus", "marian-separate", "pegasus-large")
# Attention of their own.
OTHERS = ("led", "longt5")
SOURCE_LIMIT = 160
END = 2
# mBART's language marks: before each source, and forced as the first token of each output.
SOURCE_LANGUAGE, TARGET_LANGUAGE = 4, 5

_SUBJECTS = ("The patient", "She", "He", "The nurse", "A cough", "The wound", "Her sister", "The clinic")
_VERBS = ("reports", "denies", "was given", "improved after", "returned with", "asked about", "slept through", "brought")
_OBJECTS = ("mild pain", "a low fever", "two tablets", "warm tea", "a new bandage", "the results", "her walker", "nothing else")


def mostly_slow(names: Sequence[str], fast: Sequence[str] = ("bart", "t5")) -> list[Any]:
    """Parameters for pytest: all of them in the slow tests, a few in the fast ones too."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in names]


def sentences(count: int) -> list[str]:
    """Different short sentences of our own making."""
    triples = itertools.product(_SUBJECTS, _VERBS, _OBJECTS)
    # A stride without a common factor with 8 * 8 * 8 walks through all of them out of order.
    pool = [" ".join(triple) + "." for triple in triples]
    return [pool[(i * 37) % len(pool)] for i in range(count)]


def make_model(family: str, folder: Path, seed: int = 0, tokenizer: Any = None) -> Path:
    """Write a model of this family with its own or this tokenizer into the folder, as `save_pretrained` does, and return it."""
    import torch

    if tokenizer is not None:
        return _write_model(family, folder, seed, tokenizer)
    shutil.copytree(_made(family, seed).name, folder, dirs_exist_ok=True)
    torch.manual_seed(seed)
    return folder


@cache
def _made(family: str, seed: int) -> TemporaryDirectory[str]:
    """Each model is made once per process; tests get copies, which they may change."""
    folder = TemporaryDirectory(prefix="tiny-model-")
    _write_model(family, Path(folder.name), seed, None)
    return folder


def _write_model(family: str, folder: Path, seed: int, tokenizer: Any) -> Path:
    import torch

    torch.manual_seed(seed)
    tokenizer = _tokenizer(family) if tokenizer is None else tokenizer
    # Published vocabularies are often rounded up to more ids than the tokenizer knows.
    model = _model(family, len(tokenizer) + (11 if family.endswith("odd") else 0))
    with torch.no_grad():
        _draw(model, family)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    if family in _FORCED:
        edit_json(folder / "generation_config.json", forced_bos_token_id=_FORCED[family])
    if family in _UNTIED:
        # As the published checkpoints say it. transformers writes true, whatever the weights are.
        edit_json(folder / "config.json", tie_word_embeddings=False)
    return folder


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# T5 v1.1 and its kin have an output layer of their own.
_UNTIED = ("t5-v1.1", "mt5")
# The first token that the checkpoint's own settings force.
_FORCED = {"bart-scaled": 0, "mbart": TARGET_LANGUAGE}
_LOGIT_BIASES = ("bart-odd", "mbart", "opus")


def _draw(model: Any, family: str) -> None:
    """Random weights in place."""
    if family in _UNTIED:
        model.lm_head.weight = type(model.lm_head.weight)(model.lm_head.weight.detach().clone())
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:
            parameter.normal_(std=_spread(name, family))
        else:
            parameter.normal_(mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=0.1)
    # A long embedding (tied to the output layer) makes the end of a sequence likely now and then.
    model.get_output_embeddings().weight[END] *= 2
    if family in _LOGIT_BIASES:
        model.final_logits_bias.normal_(std=0.5)


def _spread(name: str, family: str) -> float:
    # Cross-attention (EncDecAttention in T5) and positions drawn wider: output has to depend on the source and on how far it is.
    if "encoder_attn" in name or "EncDec" in name or "relative" in name or ("positions" in name and family != "pegasus"):
        return 1.0
    # T5 divides what it compares with these embeddings by the square root of their length.
    return 1.0 if family in ("t5", "t5-odd", "longt5") and "shared" in name else 0.3


def _tokenizer(family: str) -> Any:
    """Byte-level BPE with <s> ... </s> for BART and LED; Unigram with a final </s> for the others, in mBART after a language mark."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<s>", "<pad>", "</s>", "<unk>", *(["<from>", "<to>"] if family == "mbart" else [])]
    if family == "led" or family.startswith("bart"):
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
        template = "<from> $A </s>" if family == "mbart" else "$A </s>"
    backend.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[(token, backend.token_to_id(token)) for token in special if token in template]
    )
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=SOURCE_LIMIT, additional_special_tokens=special[4:], **names)


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
    t5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 1, **ids}
    # Five heads of 16 beside 24 channels; unlike depths; distances that fall into few, short buckets.
    odd_t5 = {"d_model": 24, "num_layers": 3, "num_decoder_layers": 1, "num_heads": 5, "relative_attention_num_buckets": 12}
    # Four heads of 8 channels, the encoder deeper than the decoder, and a width that no vector register likes.
    odd_bart = {"encoder_layers": 3, "decoder_layers": 1, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 50}
    gated = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    scaled = {"scale_embedding": True}
    match family:
        case "bart":
            return tf.BartForConditionalGeneration(tf.BartConfig(**shape, decoder_start_token_id=2, forced_eos_token_id=2))
        case "bart-odd":
            return tf.BartForConditionalGeneration(
                tf.BartConfig(**(shape | odd_bart), decoder_start_token_id=2, activation_function="relu")
            )
        case "bart-heads":
            # More heads in the encoder than in the decoder, as models have that were pruned or grown after training.
            return tf.BartForConditionalGeneration(tf.BartConfig(**(shape | {"encoder_attention_heads": 4}), decoder_start_token_id=2))
        case "bart-scaled":
            return tf.BartForConditionalGeneration(tf.BartConfig(**shape, **scaled, decoder_start_token_id=2))
        case "mbart":
            config = tf.MBartConfig(**shape, **scaled, decoder_start_token_id=2, forced_eos_token_id=2)
            return tf.MBartForConditionalGeneration(config)
        case "marian":
            return tf.MarianMTModel(tf.MarianConfig(**shape, decoder_start_token_id=1, forced_eos_token_id=2))
        case "opus":
            return tf.MarianMTModel(tf.MarianConfig(**shape, **scaled, activation_function="swish", decoder_start_token_id=1))
        case "marian-separate":
            config = tf.MarianConfig(
                **shape, decoder_vocab_size=vocab_size, share_encoder_decoder_embeddings=False, decoder_start_token_id=1
            )
            return tf.MarianMTModel(config)
        case "pegasus":
            return tf.PegasusForConditionalGeneration(tf.PegasusConfig(**shape, decoder_start_token_id=1, forced_eos_token_id=2))
        case "pegasus-large":
            config = tf.PegasusConfig(**(shape | {"encoder_layers": 3}), **scaled, activation_function="relu", decoder_start_token_id=1)
            return tf.PegasusForConditionalGeneration(config)
        case "t5":
            return tf.T5ForConditionalGeneration(tf.T5Config(**t5, n_positions=SOURCE_LIMIT))
        case "t5-odd":
            config = tf.T5Config(**(t5 | odd_t5), relative_attention_max_distance=20, n_positions=SOURCE_LIMIT)
            return tf.T5ForConditionalGeneration(config)
        case "t5-v1.1":
            return tf.T5ForConditionalGeneration(tf.T5Config(**t5, **gated, n_positions=SOURCE_LIMIT))
        case "mt5":
            return tf.MT5ForConditionalGeneration(tf.MT5Config(**(t5 | {"num_heads": 4, "d_kv": 8}), **gated))
        case "led":
            places = {f"max_{side}_position_embeddings": SOURCE_LIMIT for side in ("encoder", "decoder")}
            return tf.LEDForConditionalGeneration(tf.LEDConfig(**layers, **ids, **places, d_model=32, attention_window=16))
        case "longt5":
            return tf.LongT5ForConditionalGeneration(tf.LongT5Config(**t5, local_radius=8))
        case other:
            raise ValueError(f"family {other!r} is not one of {', '.join(FAMILIES + VARIANTS + OTHERS)}")
