"""Ways to the same outputs, each through its own library, for `chartmill bench engine` to measure by turns. They show no text.

All take texts and make texts: tokenising and decoding are part of their time, loading and tuning are not.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pipeline.bench_roofline import probe
from pipeline.bench_turns import Turn
from transforms.engine import DecodeSettings, EngineError, EngineSettings, Request, load_engine

# Texts that are tried when a peer looks for its best settings.
FEW = 16


@dataclass(frozen=True, slots=True)
class Work:
    """What all do. `source_limit`: tokens of a source, special ones included. `threads`: CPU threads that each may keep busy."""

    folder: Path
    texts: tuple[str, ...] = field(repr=False)
    decode: DecodeSettings
    source_limit: int
    threads: int

    def few(self) -> tuple[str, ...]:
        """Some of the texts, from all over."""
        return self.texts[:: max(1, len(self.texts) // FEW)][:FEW]


class Peer(Protocol):
    """`settings`: how it works, for people and programs to read."""

    settings: dict[str, Any]

    def tune(self, texts: Sequence[str]) -> None:
        """Warm up, and find the best settings if there is a choice."""

    def write(self, texts: Sequence[str]) -> list[int]:
        """Make the outputs; the number of tokens of each, the end token included."""


class Timed:
    """A peer as a contender. Its first turn, which does not count, is for tuning."""

    def __init__(self, kind: Any, work: Work, **options: Any) -> None:
        started = time.perf_counter()
        self._peer, self._work, self._tuned = kind(work, **options), work, False
        self._loading = time.perf_counter() - started

    def turn(self) -> Turn:
        if not self._tuned:
            self._peer.tune(self._work.few())
            self._tuned = True
            return Turn(0, self._loading, 0, 0)
        forget_peak()
        started = time.perf_counter()
        lengths = self._peer.write(self._work.texts)
        seconds = time.perf_counter() - started
        facts = {"lengths": lengths, "settings": self._peer.settings, "peak_mb": peak_mb()} | getattr(self._peer, "facts", {})
        return Turn(seconds, self._loading, len(lengths), sum(lengths), facts=facts)


class Ours:
    """chartmill's own engine: `load_engine`, backend torch."""

    def __init__(self, work: Work, dtype: str, draft: str = "off") -> None:
        settings = EngineSettings("torch", str(work.folder), dtype=dtype, device="cpu", threads=work.threads, draft=draft)
        self._engine = load_engine(settings)
        self._work = work
        self.settings: dict[str, Any] = {"dtype": self._engine.identity.dtype, "threads": work.threads, "draft": draft}
        self.facts: dict[str, Any] = {}

    def tune(self, texts: Sequence[str]) -> None:
        self.write(texts)
        self._speed = probe(self.settings["dtype"], self._work.threads)

    def write(self, texts: Sequence[str]) -> list[int]:
        # `Engine` promises no profile; a family that the loop does not know has none.
        engine: Any = self._engine
        if hasattr(engine, "reset_profile"):
            engine.reset_profile()
        completions = engine.generate([Request(text, self._work.decode) for text in texts])
        failed = sum(completion.finish == "error" for completion in completions)
        if failed:
            raise EngineError(f"{failed} of {len(texts)} requests failed")
        profile = getattr(engine, "profile", None)
        self.facts = {"profile": profile.as_dict() if profile else {}, "machine_speed": getattr(self, "_speed", {})}
        return [len(completion.token_ids) for completion in completions]


class Generate:
    """transformers' `model.generate()`: batches of `batch` texts, by length or as they come; of several dtypes the fastest."""

    def __init__(self, work: Work, batch: int, dtypes: Sequence[str], by_length: bool) -> None:
        import torch

        torch.set_num_threads(work.threads)
        self._work, self._dtypes, self._by_length = work, dtypes, by_length
        self._tokenizer = _tokenizer(work.folder)
        self._load(dtypes[0])
        self.settings: dict[str, Any] = {"batch": batch, "order": "by length" if by_length else "as they come", "dtype": dtypes[0]}

    def tune(self, texts: Sequence[str]) -> None:
        """Tries each dtype, leaves the fastest loaded."""
        tried = {}
        for dtype in self._dtypes:
            self._load(dtype)
            tried[dtype] = _seconds(self, texts)
        best = min(tried, key=lambda dtype: tried[dtype])
        self._load(best)
        self.settings |= {"dtype": best, "tried": _rates(tried, len(texts))}

    def write(self, texts: Sequence[str]) -> list[int]:
        import torch

        sources = _encoded(self._tokenizer, texts, self._work.source_limit)
        order = sorted(range(len(texts)), key=lambda i: -len(sources[i])) if self._by_length else range(len(texts))
        lengths = [0] * len(texts)
        batch = self.settings["batch"]
        for start in range(0, len(texts), batch):
            picked = order[start : start + batch]
            padded = self._tokenizer.pad({"input_ids": [sources[i] for i in picked]}, return_tensors="pt")
            with torch.inference_mode():
                output = self._model.generate(**padded, generation_config=self._config)
            self._tokenizer.batch_decode(output, skip_special_tokens=True)
            for i, row in zip(picked, output[:, 1:].tolist(), strict=True):
                lengths[i] = next((n for n, token in enumerate(row, 1) if token in self._ends), len(row))
        return lengths

    def _load(self, dtype: str) -> None:
        import torch
        from transformers import AutoModelForSeq2SeqLM

        from transforms.engine.generate_engine import generation_config
        from transforms.engine.loading import special_ids

        # The old one goes first, so that there is never memory for two.
        self._model: Any = None
        self._model = AutoModelForSeq2SeqLM.from_pretrained(self._work.folder, dtype=getattr(torch, dtype), local_files_only=True).eval()
        special = special_ids(self._model)
        self._ends = special["eos_token_id"]
        self._model.generation_config = type(self._model.generation_config)(**special)
        self._config = generation_config(self._work.decode, special, self._work.decode.max_new_tokens)


class CTranslate2:
    """CTranslate2's Translator in int8: of one worker with all threads and a worker for each, and of three batch sizes, the best."""

    def __init__(self, work: Work, converted: Path) -> None:
        self._work, self._converted, self._tokenizer = work, converted, _tokenizer(work.folder)
        self._ends = [str(token) for token in _end_ids(work.folder)]
        self.settings: dict[str, Any] = {"dtype": "int8"}
        self._split(work.threads, 16)

    def tune(self, texts: Sequence[str]) -> None:
        """First how to use the threads, then the batch; all of them would take long."""
        tried: dict[tuple[int, int], float] = {}
        for workers in dict.fromkeys((self._work.threads, 1)):
            self._split(workers, 16)
            tried[workers, 16] = _seconds(self, texts)
        workers = min(tried, key=lambda found: tried[found])[0]
        self._split(workers, 16)
        for batch in (8, 32):
            self.settings["batch"] = batch
            tried[workers, batch] = _seconds(self, texts)
        self._split(*min(tried, key=lambda found: tried[found]))
        self.settings["tried"] = _rates({f"{workers} workers, batch {batch}": s for (workers, batch), s in tried.items()}, len(texts))

    def write(self, texts: Sequence[str]) -> list[int]:
        decode = self._work.decode
        sources = [[str(token) for token in ids] for ids in _encoded(self._tokenizer, texts, self._work.source_limit)]
        forced = decode.forced_bos_token_id
        answers = self._translator.translate_batch(
            sources,
            target_prefix=None if forced is None else [[str(forced)]] * len(sources),
            max_batch_size=self.settings["batch"],
            beam_size=decode.num_beams,
            length_penalty=decode.length_penalty,
            max_decoding_length=decode.max_new_tokens,
            min_decoding_length=decode.min_new_tokens,
            no_repeat_ngram_size=decode.no_repeat_ngram_size,
            repetition_penalty=decode.repetition_penalty,
            max_input_length=0,
            end_token=self._ends,
            return_end_token=True,
        )
        outputs = [[int(token) for token in answer.hypotheses[0]] for answer in answers]
        self._tokenizer.batch_decode(outputs, skip_special_tokens=True)
        return [len(output) for output in outputs]

    def _split(self, workers: int, batch: int) -> None:
        import ctranslate2

        each = self._work.threads // workers
        self._translator: Any = None
        self._translator = ctranslate2.Translator(
            str(self._converted), device="cpu", compute_type="int8", inter_threads=workers, intra_threads=each
        )
        self.settings |= {"workers": workers, "threads_each": each, "batch": batch}


# Settings that CTranslate2 has nothing for, or something else.
_NOT_IN_CTRANSLATE2 = ("bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "renormalize_logits")


def lacks_settings(decode: DecodeSettings) -> bool:
    """Whether CTranslate2 cannot decode as asked."""
    return any(getattr(decode, name) != getattr(DecodeSettings(), name) for name in _NOT_IN_CTRANSLATE2)


def convert(folder: Path, target: Path) -> Path:
    """CTranslate2's form of a model folder, int8 weights, its tokens named by their ids; `target`: a folder for it.

    By the engine's conversion: CTranslate2's own leaves out norms of BART under transformers 5. Raises EngineError for a family that it
    does not know.
    """
    from transforms.engine.ctranslate2_model import converted_model

    return converted_model(folder, "", "int8", target)


def forget_peak() -> None:
    """Have Linux measure the most memory of this process from now on. What cannot be forgotten stays in."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_mb() -> int | None:
    """The most memory that this process has had at once, in MB (10^6 bytes), since `forget_peak`; None where that is not told."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    told = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), None)
    return int(told) * 1024 // 1_000_000 if told else None


def _tokenizer(folder: Path) -> Any:
    # Read once, when transformers is imported: nothing is downloaded.
    os.environ["HF_HUB_OFFLINE"] = "1"
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _end_ids(folder: Path) -> list[int]:
    """What ends an output, by generation_config.json, or by config.json where that is silent."""
    paths = [path for name in ("generation_config.json", "config.json") if (path := folder / name).is_file()]
    named = [json.loads(path.read_text("utf-8")).get("eos_token_id") for path in paths]
    told: Any = next((ids for ids in named if ids is not None), [])
    return told if isinstance(told, list) else [told]


def _encoded(tokenizer: Any, texts: Sequence[str], limit: int) -> list[list[int]]:
    return list(tokenizer(list(texts), truncation=True, max_length=limit)["input_ids"])


def _seconds(peer: Peer, texts: Sequence[str]) -> float:
    """Of the second of two tries; the first is one text long and warms up."""
    peer.write(texts[:1])
    started = time.perf_counter()
    peer.write(texts)
    return time.perf_counter() - started


def _rates(seconds: Mapping[str, float], texts: int) -> dict[str, float]:
    return {name: round(texts / value, 3) for name, value in seconds.items()}
