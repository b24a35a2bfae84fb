"""`chartmill bench engine`: chartmill's own engine against other ways to the same outputs of the same texts. It shows no text.

Each contender has a process of its own with the same number of threads; they do all requests by turns (A B C, A B C, ...), so that what
slows the machine down for a while slows all of them, and medians are compared. The first turn of each, a few texts to warm up and to find
its best settings, does not count.
"""

from __future__ import annotations

import json
import multiprocessing as mp
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from pipeline.bench_machine import describe_machine
from pipeline.bench_peers import CTranslate2, Generate, Ours, Timed, Work, convert, lacks_settings
from pipeline.bench_roofline import Layout, Traffic, floor_seconds
from pipeline.bench_shapes import SHAPES, make_model, make_samples
from pipeline.bench_turns import Contender, Turn, take_turns
from schemas.errors import ConfigurationError
from transforms.engine import DecodeSettings, EngineError, decode_settings, resolve_dtype

PEERS = {
    "generate_fp32_b8": "model.generate() as most call it: float32, batches of 8 as they come",
    "generate_best": "model.generate() at its best: by length, batches of 16, the faster of float32 and bfloat16",
    "ctranslate2_best": "CTranslate2 at its best: int8, the best batch and use of the threads",
    "one_window": "one text at a time, float32, as textsum does",
}
# Those whose ratios are always told, null where they did not run.
USUAL_PEERS = tuple(PEERS)[:3]
# Outputs may differ by a token here and there; a greater share means that not everybody did the same work.
TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class Options:
    """`beams`: None for what the model ships, 1 for a shape. `requests`: texts. `repeats`: turns that count. `float32`, `draft`: ours in
    it, and with drafts from the sources, too."""

    beams: int | None = None
    requests: int = 24
    repeats: int = 3
    threads: int = 1
    dtype: str = "auto"
    peers: tuple[str, ...] = USUAL_PEERS
    float32: bool = False
    seed: int = 0
    draft: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.peers if name not in PEERS]
        if unknown:
            raise ConfigurationError(f"--peers: {unknown[0]!r} is not one of {', '.join(PEERS)}")
        try:
            resolve_dtype(self.dtype, "cpu")
        except EngineError as error:
            raise ConfigurationError(f"--dtype: {error}") from None


@dataclass(frozen=True, slots=True)
class Told:
    """Tokens of sources and outputs as a shape's texts ask for them; None where only the engines know."""

    sources: tuple[int, ...] = field(default=(), repr=False)
    outputs: tuple[int, ...] = field(default=(), repr=False)


def bench_shapes(names: Sequence[str], options: Options) -> dict[str, Any]:
    """Figures of random models of these shapes; `ratios` are of the first. Blocks for as long as that takes. Raises ConfigurationError
    for an unknown shape, ChartmillError when a contender fails."""
    unknown = [name for name in names if name not in SHAPES]
    if unknown:
        raise ConfigurationError(f"--shape: {unknown[0]!r} is not one of {', '.join(SHAPES)}")
    found = {name: _bench_shape(name, options) for name in names}
    first = found[names[0]]
    if len(names) == 1:
        return {"shape": names[0], **first}
    return {"shapes": found, "ratios": first["ratios"], "machine": first["machine"]}


def bench_notes(model: Path, notes: Path, column: str, options: Options) -> dict[str, Any]:
    """Figures of a model folder on the first texts of a Parquet file's column. Raises ConfigurationError if either cannot be had."""
    texts = _in_child(_read_texts, model, notes, column, options.requests)
    try:
        decode = decode_settings(model, {"num_beams": options.beams})
        source_limit, target_limit = _limits(model)
    except ValueError as error:
        raise ConfigurationError(f"--model: {error}") from None
    longest = min(decode.max_new_tokens, target_limit)
    decode = replace(decode, max_new_tokens=longest, min_new_tokens=min(decode.min_new_tokens, longest))
    return _compare(Work(model, tuple(texts), decode, source_limit, options.threads), options, Told())


def _bench_shape(name: str, options: Options) -> dict[str, Any]:
    shape = SHAPES[name]
    samples = make_samples(shape, options.requests, options.seed)
    decode = DecodeSettings(num_beams=options.beams or 1, max_new_tokens=shape.longest_output + 1)
    with tempfile.TemporaryDirectory() as folder:
        model = _in_child(make_model, shape, Path(folder) / "model", options.seed)
        work = Work(model, tuple(sample.text for sample in samples), decode, shape.longest_source, options.threads)
        told = Told(tuple(s.source_tokens for s in samples), tuple(s.output_tokens for s in samples))
        return _compare(work, options, told)


def _compare(work: Work, options: Options, told: Told) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        makers, absent = _contenders(work, options, Path(folder) / "converted")
        turns = take_turns(makers, options.repeats)
    layout = Layout.of(json.loads((work.folder / "config.json").read_text("utf-8")))
    engines: dict[str, Any] = {name: _figures(mine, layout, told) for name, mine in turns.items()}
    ours = engines["ours"]["notes_per_second"]
    ratios = {name: _ratio(ours, engines.get(name)) for name in dict.fromkeys((*USUAL_PEERS, *options.peers))}
    for found in engines.values():
        found["times_generate_fp32_b8"] = _ratio(found["notes_per_second"], engines.get("generate_fp32_b8"))
    return {
        "ratios": ratios,
        "engines": engines | dict.fromkeys(absent),
        "absent": absent,
        "beams": work.decode.num_beams,
        "requests": len(work.texts),
        "repeats": options.repeats,
        "threads": work.threads,
        "warnings": _disagreements(engines),
        "machine": describe_machine(),
    }


def _contenders(work: Work, options: Options, converted: Path) -> tuple[dict[str, Callable[[], Contender]], dict[str, str]]:
    """Makers of those that can run, ours first; and why others cannot."""
    makers: dict[str, Callable[[], Contender]] = {"ours": partial(Timed, Ours, work, dtype=options.dtype)}
    if options.float32:
        makers["ours_float32"] = partial(Timed, Ours, work, dtype="float32")
    if options.draft:
        makers["ours_drafting"] = partial(Timed, Ours, work, dtype=options.dtype, draft="auto")
    known: dict[str, Callable[[], Contender]] = {
        "generate_fp32_b8": partial(Timed, Generate, work, batch=8, dtypes=("float32",), by_length=False),
        "generate_best": partial(Timed, Generate, work, batch=16, dtypes=("float32", "bfloat16"), by_length=True),
        "one_window": partial(Timed, Generate, work, batch=1, dtypes=("float32",), by_length=False),
    }
    absent = {}
    for name in options.peers:
        if name == "ctranslate2_best":
            found = _converted(work, converted)
            if isinstance(found, str):
                absent[name] = found
                continue
            makers[name] = partial(Timed, CTranslate2, work, converted=found)
        else:
            makers[name] = known[name]
    return makers, absent


def _converted(work: Work, folder: Path) -> Path | str:
    """The model in CTranslate2's form, somewhere in this folder; or why that cannot be had."""
    if find_spec("ctranslate2") is None:
        return "not installed"
    if lacks_settings(work.decode):
        return "decode settings that it does not have"
    try:
        return _in_child(convert, work.folder, folder)
    except Exception as error:  # noqa: BLE001 - whatever becomes of a peer's conversion, the others are measured
        return f"its conversion failed ({type(error).__name__})"


def _figures(turns: Sequence[Turn], layout: Layout | None, told: Told) -> dict[str, Any]:
    """What a contender's turns come to. Rates are medians over turns, with the slowest and the fastest."""
    rates = sorted(turn.notes / turn.seconds for turn in turns)
    seconds = median(turn.seconds for turn in turns)
    last = turns[-1]
    facts = dict(last.facts)
    lengths = facts.pop("lengths")
    figures: dict[str, Any] = {
        "notes_per_second": round(median(rates), 4),
        "spread": [round(rates[0], 4), round(rates[-1], 4)],
        "output_tokens_per_second": round(last.output_tokens / seconds, 2),
        "seconds": [round(turn.seconds, 3) for turn in turns],
        "load_seconds": round(last.load_seconds, 2),
        "output_tokens": last.output_tokens,
        "peak_mb": max((turn.facts["peak_mb"] or turn.peak_mb) for turn in turns),
        "settings": facts["settings"],
    }
    if told.outputs:
        figures["lengths_as_told"] = round(sum(a == b for a, b in zip(lengths, told.outputs, strict=True)) / len(lengths), 4)
    if facts.get("profile"):
        middle = min(turns, key=lambda turn: abs(turn.seconds - seconds))
        figures |= _inside(middle, layout, Traffic(told.sources, lengths, middle.facts["profile"]))
    return figures


def _inside(turn: Turn, layout: Layout | None, traffic: Traffic) -> dict[str, Any]:
    """Where our engine's time went in a turn, and the share of it that the machine needed at the least."""
    profile = traffic.profile
    spent = {part: profile[f"{part}_seconds"] for part in ("encode", "decode", "schedule")}
    idle = profile["idle_row_steps"] + profile["drained_row_steps"]
    figures: dict[str, Any] = {
        "shares": {part: _share(seconds, sum(spent.values())) for part, seconds in spent.items()},
        "padding_share": _share(profile["encoded_padding"], profile["encoded_tokens"]),
        "idle_share": _share(idle, profile["row_steps"] + idle),
        "profile": {name: round(value, 3) for name, value in profile.items()},
    }
    if turn.facts["settings"].get("draft") == "auto":
        figures["drafts"] = {
            "tokens_per_row_step": round(turn.output_tokens / max(1, turn.output_tokens - profile["kept_tokens"]), 3),
            "drafted_share": _share(profile["drafted_tokens"], turn.output_tokens),
            "acceptance": _share(profile["kept_tokens"], profile["drafted_tokens"]),
        }
    speed = turn.facts["machine_speed"]
    if layout and speed and traffic.sources:
        floor = floor_seconds(layout, traffic, turn.facts["settings"]["dtype"], speed)
        figures["roofline"] = {
            "share": round(sum(floor.values()) / turn.seconds, 3),
            "floor_seconds": {part: round(seconds, 3) for part, seconds in floor.items()},
            "tera_operations_per_second": round(speed["flops"] / 1e12, 4),
            "gigabytes_per_second": round(speed["bytes"] / 1e9, 2),
        }
    return figures


def _disagreements(engines: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence for each engine whose number of output tokens is not that of ours."""
    ours = engines["ours"]["output_tokens"]
    off = {name: found["output_tokens"] for name, found in engines.items() if abs(found["output_tokens"] - ours) > TOLERANCE * ours}
    return [f"{name} wrote {tokens:,} tokens, ours {ours:,}: the rates are not of the same work" for name, tokens in off.items()]


def _ratio(rate: float, other: Mapping[str, Any] | None) -> float | None:
    return round(rate / other["notes_per_second"], 3) if other else None


def _share(part: float, whole: float) -> float:
    return round(part / whole, 4) if whole else 0.0


def _in_child(function: Callable[..., Any], *args: Any) -> Any:
    """The function's result, from a process that takes its memory and threads with it. Raises what the function raises."""
    with ProcessPoolExecutor(1, mp_context=mp.get_context("spawn")) as pool:
        return pool.submit(_quietly, function, *args).result()


def _quietly(function: Callable[..., Any], *args: Any) -> Any:
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return function(*args)


def _limits(model: Path) -> tuple[int, int]:
    """Tokens of a source, special ones included, and of an output that the model can come to."""
    from transformers import AutoConfig

    from transforms.engine.loading import check_folder, load_tokenizer
    from transforms.engine.sources import limits_of
    from transforms.engine.tokens import SourceTokenizer

    check_folder(model)
    tokenizer = SourceTokenizer(load_tokenizer(model))
    limits = limits_of(AutoConfig.from_pretrained(model, local_files_only=True), tokenizer)
    return limits.source + tokenizer.special_count, limits.target


def _read_texts(model: Path, notes: Path, column: str, count: int) -> list[str]:
    """The first texts of the column that say anything; for a selection model, with their sentences marked, as a job does."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from transforms.selection import load_selection_format

    try:
        rows = pq.read_table(notes, columns=[column]).column(column).cast(pa.string())
    except (OSError, KeyError, pa.ArrowException):
        raise ConfigurationError("--input: it is not a Parquet file with texts in that column") from None
    texts = [text for text in rows.to_pylist() if text and text.strip()][:count]
    if not texts:
        raise ConfigurationError("--input: no text in that column")
    fmt = load_selection_format(model)
    if fmt is None:
        return texts
    from pipeline.default_model.folder import mark_note
    from transforms.engine.loading import load_tokenizer

    tokenizer = load_tokenizer(model)
    return [mark_note(text, tokenizer, fmt).source for text in texts]
