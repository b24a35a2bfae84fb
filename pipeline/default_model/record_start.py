"""What a model that writes records starts from: a BART whose encoder and decoder are layers of a pretrained BERT, with a cut vocabulary.

    python -m pipeline.default_model.record_start --texts notes.parquet sentences.parquet --output start/

The decoder's layers are BERT's too, and what it reads the source by starts as what BERT reads its own text by (Rothe et al. 2020,
arXiv 1907.12461): heads that look for the same word or the next are there from the first step.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, BartForConditionalGeneration, GenerationConfig

from pipeline.default_model.examples import read_texts
from pipeline.default_model.warm_start import (
    POSITION_OFFSET,
    bart_config,
    copy_attention,
    copy_layer,
    copy_words,
    cut_tokenizer,
    minilm_folder,
)

_N_TOKENS = 10_000
_MAX_SOURCE_TOKENS = 256
# Of each file, to choose the vocabulary by.
_MAX_ROWS = 10_000
# Of six: the layers that the decoder starts as, one in the middle and the last.
_DECODER_FROM = (2, 5)


def build_start(encoder: Path, texts: Iterable[str], output: Path, n_tokens: int = _N_TOKENS, seed: int = 0) -> None:
    """Write the model and its tokenizer into a folder. `n_tokens`: of the vocabulary, chosen by `texts`."""
    torch.manual_seed(seed)
    tokenizer = cut_tokenizer(encoder, texts, n_tokens, (), _MAX_SOURCE_TOKENS)
    bert = AutoModel.from_pretrained(encoder, dtype=torch.float32)
    like = bert.config
    heads, width = like.num_attention_heads, like.intermediate_size
    model = BartForConditionalGeneration(bart_config(like, tokenizer, _MAX_SOURCE_TOKENS, len(_DECODER_FROM), heads, width))
    model.generation_config = GenerationConfig.from_model_config(model.config)
    with torch.no_grad():
        copy_words(model.model.shared.weight, bert, encoder, tokenizer)
        for side in (model.model.encoder, model.model.decoder):
            _copy_places(side, bert)
        for ours, theirs in zip(model.model.encoder.layers, bert.encoder.layer, strict=True):
            copy_layer(ours, theirs)
        for ours, number in zip(model.model.decoder.layers, _DECODER_FROM, strict=True):
            _copy_decoder_layer(ours, bert.encoder.layer[number])
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)


def _copy_places(side: Any, bert: Any) -> None:
    source = bert.embeddings
    positions = source.position_embeddings.weight + source.token_type_embeddings.weight[0]
    side.embed_positions.weight[POSITION_OFFSET:] = positions[:_MAX_SOURCE_TOKENS]
    side.layernorm_embedding.load_state_dict(source.LayerNorm.state_dict())


def _copy_decoder_layer(ours: Any, theirs: Any) -> None:
    copy_layer(ours, theirs)
    copy_attention(ours.encoder_attn, theirs)
    ours.encoder_attn_layer_norm.load_state_dict(theirs.attention.output.LayerNorm.state_dict())


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="pipeline.default_model.record_start", description="A start for a model that writes records.")
    parser.add_argument("--texts", nargs="+", required=True, help="FILE or FILE:COLUMN, Parquet, texts to choose the vocabulary from")
    parser.add_argument("--encoder", type=Path, default=None, help="folder of a BERT (default: the MiniLM package)")
    parser.add_argument("--n-tokens", type=int, default=_N_TOKENS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True, help="folder for the model")
    given = parser.parse_args(argv)
    build_start(given.encoder or minilm_folder(), read_texts(given.texts, max_rows=_MAX_ROWS), given.output, given.n_tokens, given.seed)


if __name__ == "__main__":
    main()
