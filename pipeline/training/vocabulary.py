"""A smaller vocabulary for a model: the tokens that a corpus uses most, with their embeddings.

For tokenizers with a tokenizer.json of type WordPiece, Unigram, or BPE; no others (SentencePiece files without one, WordLevel). Whatever is
dropped falls apart into smaller pieces: single characters (bytes of byte-level BPE) always stay, so nothing becomes unknown that was not.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import torch
from torch import nn

from schemas.errors import ConfigurationError

_TEXTS_AT_ONCE = 256
_SPECIAL_NAMES = ("bos_token", "eos_token", "pad_token", "unk_token", "mask_token", "cls_token", "sep_token")
# Keys of configs that hold token ids, alone or in lists.
_ID_KEYS = (
    "bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id",
    "bad_words_ids", "suppress_tokens", "begin_suppress_tokens",
)  # fmt: skip
Spec = dict[str, Any]


def cut_vocabulary(model: Any, tokenizer: Any, tokens: int, texts: Iterable[str]) -> Any:
    """Cut the model's embeddings in place and return its new tokenizer, of at most `tokens` tokens.

    Raises ConfigurationError for other kinds of tokenizers, and where `tokens` is too few for what must stay.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ConfigurationError("model.vocabulary: the start's tokenizer has no tokenizer.json; choices: null, or convert it first")
    spec: Spec = json.loads(tokenizer.backend_tokenizer.to_str())
    kept = kept_pieces(spec, tokens, _usage(tokenizer, texts))
    old = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=True)
    _cut_embeddings(model, [old[piece] for piece in kept])
    ids = {piece: index for index, piece in enumerate(kept)}
    _renumber(model, {old[piece]: index for piece, index in ids.items()})
    return _rebuilt(tokenizer, cut_spec(spec, ids))


def kept_pieces(spec: Spec, tokens: int, usage: Mapping[str, int]) -> list[str]:
    """The pieces that stay, in the order of their ids: added tokens, single characters, then by use."""
    pieces = _pieces(spec)
    added = [token["content"] for token in spec["added_tokens"]]
    prefix = spec["model"].get("continuing_subword_prefix") or ""
    must = dict.fromkeys([*added, *(piece for piece in pieces if len(piece.removeprefix(prefix)) <= 1), *_unknown(spec)])
    if len(must) > tokens:
        raise ConfigurationError(f"model.vocabulary: {len(must)} tokens at least, for special tokens and single characters; got {tokens}")
    kept, parts = dict(must), _parts(spec)
    for piece in sorted(pieces, key=lambda piece: -usage.get(piece, 0)):
        if usage.get(piece, 0) and piece not in kept:
            needed = dict.fromkeys(_closure(piece, parts, kept))
            if len(kept) + len(needed) <= tokens:
                kept |= needed
    every = dict.fromkeys([*pieces, *added])
    return [piece for piece in every if piece in kept]


def cut_spec(spec: Spec, ids: Mapping[str, int]) -> Spec:
    """The tokenizer.json with only these pieces, under these ids."""
    model = spec["model"]
    match model["type"]:
        case "WordPiece":
            vocabulary: Any = {piece: index for piece, index in ids.items() if piece in model["vocab"]}
            changed = {**model, "vocab": vocabulary}
        case "BPE":
            vocabulary = {piece: index for piece, index in ids.items() if piece in model["vocab"]}
            merges = [merge for merge in model["merges"] if all(part in ids for part in (*_merge(merge), "".join(_merge(merge))))]
            changed = {**model, "vocab": vocabulary, "merges": merges}
        case _:
            # Ids are places in this list, so tokens that were added behind it go behind it again.
            scores = dict(map(tuple, model["vocab"]))
            rows = [[piece, scores[piece]] for piece in ids if piece in scores]
            unknown = None if model["unk_id"] is None else ids[model["vocab"][model["unk_id"]][0]]
            changed = {**model, "vocab": rows, "unk_id": unknown}
    added = [{**token, "id": ids[token["content"]]} for token in spec["added_tokens"]]
    padding = spec.get("padding")
    return {
        **spec,
        "model": changed,
        "added_tokens": sorted(added, key=lambda token: token["id"]),
        "post_processor": _processor(spec.get("post_processor"), ids),
        "padding": {**padding, "pad_id": ids[padding["pad_token"]]} if padding else None,
        "truncation": None,
    }


def _usage(tokenizer: Any, texts: Iterable[str]) -> Counter[str]:
    used: Counter[str] = Counter()
    stream = iter(texts)
    while batch := list(islice(stream, _TEXTS_AT_ONCE)):
        for row in tokenizer(batch, add_special_tokens=False)["input_ids"]:
            used.update(row)
    return Counter({tokenizer.convert_ids_to_tokens(index): count for index, count in used.items()})


def _pieces(spec: Spec) -> list[str]:
    """The model's own vocabulary, by id."""
    model = spec["model"]
    match model["type"]:
        case "WordPiece" | "BPE":
            return sorted(model["vocab"], key=model["vocab"].__getitem__)
        case "Unigram":
            return [piece for piece, _ in model["vocab"]]
        case other:
            raise ConfigurationError(f"model.vocabulary: a tokenizer of type {other} cannot be cut, only WordPiece, BPE and Unigram")


def _unknown(spec: Spec) -> list[str]:
    model = spec["model"]
    if model["type"] == "Unigram":
        return [] if model["unk_id"] is None else [model["vocab"][model["unk_id"]][0]]
    return [model["unk_token"]] if model.get("unk_token") in model["vocab"] else []


def _merge(merge: str | Sequence[str]) -> tuple[str, str]:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _parts(spec: Spec) -> dict[str, tuple[str, ...]]:
    """What each piece of a BPE is merged from, in all ways."""
    found: dict[str, tuple[str, ...]] = {}
    for merge in spec["model"].get("merges", ()):
        pair = _merge(merge)
        found["".join(pair)] = (*found.get("".join(pair), ()), *pair)
    return found


def _closure(piece: str, parts: Mapping[str, tuple[str, ...]], kept: Mapping[str, Any]) -> list[str]:
    """The piece and all it is made of that is not kept yet."""
    needed, waiting = [], [piece]
    seen = set()
    while waiting:
        one = waiting.pop()
        if one not in kept and one not in seen:
            seen.add(one)
            needed.append(one)
            waiting += parts.get(one, ())
    return needed


def _processor(spec: Spec | None, ids: Mapping[str, int]) -> Spec | None:
    """The post-processor with new ids."""
    if spec is None:
        return None
    match spec["type"]:
        case "TemplateProcessing":
            special = {name: {**token, "ids": [ids[piece] for piece in token["tokens"]]} for name, token in spec["special_tokens"].items()}
            return {**spec, "special_tokens": special}
        case "BertProcessing" | "RobertaProcessing":
            return {**spec, **{name: [spec[name][0], ids[spec[name][0]]] for name in ("sep", "cls")}}
        case "Sequence":
            return {**spec, "processors": [_processor(part, ids) for part in spec["processors"]]}
        case "ByteLevel":
            return spec
        case other:
            raise ConfigurationError(f"model.vocabulary: a tokenizer with the post-processor {other} cannot be cut; leave it null")


def _rebuilt(old: Any, spec: Spec) -> Any:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    named = {name: str(getattr(old, name)) for name in _SPECIAL_NAMES if getattr(old, name, None) is not None}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(spec)),
        model_max_length=old.model_max_length,
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        **named,
    )


@torch.no_grad()
def _cut_embeddings(model: Any, rows: Sequence[int]) -> None:
    """Keep these rows of every matrix with a row per token."""
    size = model.get_input_embeddings().weight.shape[0]
    index = torch.tensor(list(rows))
    _each_embedding(model, size, lambda weight: nn.Parameter(weight[index].clone()))
    bias = getattr(model, "final_logits_bias", None)
    if bias is not None:
        model.final_logits_bias = nn.Buffer(bias[:, index].clone())
    for name in ("vocab_size", "decoder_vocab_size"):
        if getattr(model.config, name, None):
            setattr(model.config, name, len(rows))


def _each_embedding(model: Any, size: int, change: Callable[[Any], nn.Parameter]) -> None:
    """Change shared matrices once, so that what was tied stays tied."""
    changed: list[tuple[Any, nn.Parameter]] = []
    for module in _token_modules(model):
        weight = module.weight
        if weight.shape[0] != size:
            continue
        new = next((new for old, new in changed if old is weight), None)
        if new is None:
            new = change(weight)
            changed.append((weight, new))
        module.weight = new
        if isinstance(module, nn.Embedding):
            module.num_embeddings, module.padding_idx = len(new), None
        else:
            module.out_features = len(new)


def _token_modules(model: Any) -> list[Any]:
    """The embeddings of tokens and the output layer, each once."""
    parts = (model, model.get_encoder(), model.get_decoder())
    found = [*(part.get_input_embeddings() for part in parts), model.get_output_embeddings(), getattr(model.base_model, "shared", None)]
    return list({id(module): module for module in found if module is not None}.values())


def _renumber(model: Any, ids: Mapping[int, int]) -> None:
    def new(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [new(item) for item in value if not isinstance(item, int) or item in ids]
        return ids.get(value) if isinstance(value, int) else value

    for config in (model.config, model.generation_config):
        for name in _ID_KEYS:
            if getattr(config, name, None) is not None:
                setattr(config, name, new(getattr(config, name)))
