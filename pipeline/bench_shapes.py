"""Model folders of real dimensions with random weights, and texts for them, for measuring engines. It knows no engine.

The weights are random and dense but for a few dimensions that make every output as long as its source tells. So every engine meets the
model's own end-of-sequence token, and none has to be told lengths in a way of its own:

- each word's embedding carries, in a few reserved dimensions ("told"), the code of the output length that it asks for; all words of one
  text carry the same code, and nothing else writes there, so it comes through the encoder;
- one head of the last decoder layer's cross-attention copies that code into other reserved dimensions ("state");
- the last feed-forward layer turns the state one step on: ReLU(x) - ReLU(-x) = x, so pairs of its units compute a rotation; GELU likewise;
- output token number i of a fixed chain, and the end token after the chain's last, have the code of step i in their embedding (which is
  also the output layer), so the next token after i is i + 1. As the decoder's input the token's own code is the state, and outweighs
  what cross-attention adds, which therefore decides the first token only: the place in the chain to start from.

A code is a point on a circle for each of some frequencies, so a step is a rotation and codes far apart are all but orthogonal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

# Special tokens, the same for both families. BART's own start token is its end token, which the chain cannot have.
START, PAD, END, UNKNOWN = 0, 1, 2, 3
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")

# Score of the right next token over those that have nothing in common with it. Softmax makes certainty of it.
_LEAD = 40.0
# How much stronger the state is after its last rotation than before: what was random there no longer matters.
_GAIN = {"bart": 20.0, "t5": 100.0}
# Strength of what cross-attention adds to the state, in parts of a token's own code.
_HINT = {"bart": 0.2, "t5": 1.0}
# Chain steps of rotation at the highest frequency, in radians.
_FASTEST = 2.0


@dataclass(frozen=True, slots=True)
class Shape:
    """Dimensions of a model, under the names of BART's configuration, and how long its texts and outputs are.

    `source` and `output`: mean and 90th percentile, in tokens, of a log-normal distribution. `longest_source`, special tokens included;
    `longest_output`, end token included: where it is cut.
    """

    family: str
    width: int
    layers: tuple[int, int]
    heads: int
    inner: int
    vocabulary: int
    longest_source: int = 1024
    longest_output: int = 160
    source: tuple[float, float] = (444, 752)
    output: tuple[float, float] = (69, 108)

    @property
    def head_width(self) -> int:
        return self.width // self.heads


# t5-small, t5-base: Raffel et al. 2020 (arXiv 1910.10683). bart-large: Lewis et al. 2020 (arXiv 1910.13461). distilbart: Shleifer and
# Rush 2020 (arXiv 2010.13002).
SHAPES = {
    "distilbart-6-6": Shape("bart", 1024, (6, 6), 16, 4096, 50264),
    "distilbart-12-6": Shape("bart", 1024, (12, 6), 16, 4096, 50264),
    "bart-large": Shape("bart", 1024, (12, 12), 16, 4096, 50264),
    "t5-small": Shape("t5", 512, (6, 6), 8, 2048, 32128, longest_source=512),
    "t5-base": Shape("t5", 768, (12, 12), 12, 3072, 32128, longest_source=512),
    "tiny": Shape("bart", 64, (2, 2), 4, 128, 500, 96, 24, (30, 60), (8, 14)),
    "tiny-t5": Shape("t5", 64, (2, 2), 4, 128, 500, 96, 24, (30, 60), (8, 14)),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """One text, its tokens (special ones included), and the tokens of the output that it asks for (the end token included)."""

    text: str = field(repr=False)
    source_tokens: int
    output_tokens: int


def make_samples(shape: Shape, count: int, seed: int = 0) -> list[Sample]:
    """Texts of made-up words whose lengths follow the shape's distributions: equal quantiles of each, paired and ordered at random."""
    rng = np.random.default_rng(seed)
    framing = 2 if shape.family == "bart" else 1
    sources = rng.permutation(_quantiles(shape.source, count, framing + 1, shape.longest_source))
    outputs = rng.permutation(_quantiles(shape.output, count, 2, shape.longest_output))
    per_length = _words_per_length(shape)
    return [
        Sample(" ".join(f"w{output}x{k}" for k in rng.integers(0, per_length, source - framing)), int(source), int(output))
        for source, output in zip(sources, outputs, strict=True)
    ]


def make_model(shape: Shape, folder: Path, seed: int = 0) -> Path:
    """Write a model of the shape with its tokenizer into the folder, as `save_pretrained` does, and return it. float32 safetensors."""
    import torch

    torch.manual_seed(seed)
    model = _model(shape).eval()
    with torch.no_grad():
        _write_codes(model, shape)
    # The length asked for is always met first.
    model.generation_config.max_length = None
    model.generation_config.max_new_tokens = shape.longest_output + 1
    model.save_pretrained(folder)
    _tokenizer(shape).save_pretrained(folder)
    return folder


def _quantiles(mean_and_p90: tuple[float, float], count: int, least: int, most: int) -> Any:
    """`count` equal quantiles of the log-normal distribution with this mean and 90th percentile, whole numbers in [least, most]."""
    mean, p90 = mean_and_p90
    z90 = NormalDist().inv_cdf(0.9)
    # mean = exp(mu + sigma^2 / 2) and p90 = exp(mu + z90 sigma), solved for sigma.
    sigma = z90 - math.sqrt(z90**2 - 2 * math.log(p90 / mean))
    mu = math.log(mean) - sigma**2 / 2
    values = [math.exp(NormalDist(mu, sigma).inv_cdf((i + 0.5) / count)) for i in range(count)]
    return np.clip(np.rint(values), least, most).astype(int)


def _words_per_length(shape: Shape) -> int:
    return min(64, (shape.vocabulary - len(SPECIALS) - shape.longest_output) // shape.longest_output)


def _vocabulary(shape: Shape) -> list[str]:
    """Special tokens, the chain s1, s2, ..., the words w<output length>x<number>, and filling up to the size."""
    chain = [f"s{i}" for i in range(1, shape.longest_output + 1)]
    words = [f"w{length}x{k}" for length in range(1, shape.longest_output + 1) for k in range(_words_per_length(shape))]
    known = [*SPECIALS, *chain, *words]
    return known + [f"f{i}" for i in range(shape.vocabulary - len(known))]


def _tokenizer(shape: Shape) -> Any:
    """One word, one token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {token: i for i, token in enumerate(_vocabulary(shape))}
    backend = Tokenizer(models.WordLevel(ids, unk_token=SPECIALS[UNKNOWN]))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    framed = "<s> $A </s>" if shape.family == "bart" else "$A </s>"
    backend.post_processor = processors.TemplateProcessing(single=framed, special_tokens=[("<s>", START), ("</s>", END)])
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token"), SPECIALS, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=shape.longest_source, **names)


def _model(shape: Shape) -> Any:
    import transformers as tf

    ids = {
        "vocab_size": shape.vocabulary,
        "bos_token_id": START,
        "pad_token_id": PAD,
        "eos_token_id": END,
        "decoder_start_token_id": START,
    }
    encoder, decoder = shape.layers
    if shape.family == "t5":
        sizes = {"d_model": shape.width, "d_kv": shape.head_width, "d_ff": shape.inner, "num_heads": shape.heads}
        layers = {"num_layers": encoder, "num_decoder_layers": decoder}
        return tf.T5ForConditionalGeneration(tf.T5Config(**sizes, **layers, **ids, n_positions=shape.longest_source))
    sides = {
        f"{side}_{name}": n for side in ("encoder", "decoder") for name, n in (("attention_heads", shape.heads), ("ffn_dim", shape.inner))
    }
    layers = {"encoder_layers": encoder, "decoder_layers": decoder, "max_position_embeddings": shape.longest_source}
    return tf.BartForConditionalGeneration(tf.BartConfig(d_model=shape.width, **sides, **layers, **ids, forced_eos_token_id=None))


def codes(shape: Shape) -> Any:
    """float64 [longest_output + 2, head width]: the code of each step, cosines then sines. Different steps are far from alike."""
    steps = np.arange(shape.longest_output + 2)
    rng = np.random.default_rng(0)
    draws = [rng.uniform(0, _FASTEST, shape.head_width // 2) for _ in range(256)]
    # Likeness of two codes depends on their distance alone; the draw counts whose most alike two are least so.
    best = min(draws, key=lambda frequencies: float(np.cos(np.outer(steps[1:], frequencies)).mean(1).max()))
    angles = np.outer(steps, best)
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


def _rotation(table: Any) -> Any:
    """The matrix that turns the code of any step into that of the next, as the column vector it multiplies."""
    pairs = table.shape[1] // 2
    cosines, sines = np.diag(table[1, :pairs]), np.diag(table[1, pairs:])
    return np.block([[cosines, -sines], [sines, cosines]])


def _write_codes(model: Any, shape: Shape) -> None:
    """Put codes and their handling (see the module) into a model's random weights, in place."""
    import torch

    table = codes(shape)
    size = table.shape[1]
    for name, parameter in model.named_parameters():
        if name.endswith(("out_proj.weight", "fc2.weight", ".o.weight", ".wo.weight")):
            parameter[: 2 * size] = 0
        elif "embed_positions" in name:
            parameter[:, : 2 * size] = 0
    _write_embedding(model.get_input_embeddings().weight, torch.from_numpy(table).float(), shape)
    _write_last_layer(model, torch.from_numpy(_rotation(table)).float(), shape.family)


def _write_embedding(embedding: Any, table: Any, shape: Shape) -> None:
    """State of the chain's tokens in the first dimensions, what words tell in the next; nothing there for all other tokens."""
    size, steps, words = table.shape[1], shape.longest_output, _words_per_length(shape)
    # The last layer's output has about the length sqrt(width); T5 divides the logits by that.
    reach = 1.0 if shape.family == "t5" else math.sqrt(shape.width)
    scaled = table * (_LEAD / (reach * math.sqrt(size / 2)))
    embedding[:, : 2 * size] = 0
    chain = len(SPECIALS) + steps
    embedding[len(SPECIALS) : chain, :size] = scaled[1 : steps + 1]
    embedding[END, :size] = scaled[steps + 1]
    # An output of one token is the end token alone: it starts from the chain's last step.
    starts = scaled[1 : steps + 1].flip(0).repeat_interleave(words, dim=0)
    embedding[chain : chain + len(starts), size : 2 * size] = starts
    embedding[UNKNOWN, size : 2 * size] = scaled[steps + 1 - round(shape.output[0])]


def _write_last_layer(model: Any, rotation: Any, family: str) -> None:
    """The decoder's last layer: cross-attention's first head copies what the words tell to the state, feed-forward turns the state."""
    import torch

    value, output, wide, narrow = _last_layer(model, family)
    size = len(rotation)
    one = torch.eye(size)
    value[:size] = 0
    value[:size, size : 2 * size] = one
    output[:size, :size] = _HINT[family] * one
    wide[: 2 * size] = 0
    wide[: 2 * size, :size] = torch.cat([one, -one])
    narrow[:, : 2 * size] = 0
    narrow[:size, : 2 * size] = _GAIN[family] * torch.cat([rotation, -rotation], dim=1)


def _last_layer(model: Any, family: str) -> Sequence[Any]:
    """Weights [out, in] of the decoder's last layer: cross-attention value and output, feed-forward in and out."""
    if family == "t5":
        _, cross, forward = model.decoder.block[-1].layer
        return [m.weight for m in (cross.EncDecAttention.v, cross.EncDecAttention.o, forward.DenseReluDense.wi, forward.DenseReluDense.wo)]
    layer = model.model.decoder.layers[-1]
    return [m.weight for m in (layer.encoder_attn.v_proj, layer.encoder_attn.out_proj, layer.fc1, layer.fc2)]
