"""`chartmill bench records`: records a second by rules and by a model, beside summaries a second, on the same notes. It shows no text.

Each contender has a process of its own; they do all notes by turns:

- `summaries`: what a job does for its summaries, with its model (by default the packaged one): segment, generate, evidence, verify.
- `rules`: the record stage with reader rules.
- `model`: the record stage with reader model, under the constraint.
- `drafting`: the same with `engine.draft: auto`; the same records.
- `free`: the same without the constraint: what the model writes by itself, read as the same lines. What is no such line, or copies what the
  note does not say, costs its window.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import median
from typing import Any

from pipeline.bench_machine import describe_machine
from pipeline.bench_turns import Contender, Turn, take_turns
from pipeline.record_alarm import written_figures
from transforms.engine import Completion, Engine, Request, Tokenized

CONTENDERS = ("summaries", "rules", "model", "drafting", "free")


@dataclass(frozen=True, slots=True)
class Work:
    """What every contender does. `overrides`: of the job file, `a.b=c`."""

    texts: tuple[str, ...] = field(repr=False)
    model: str = field(repr=False)
    threads: int
    overrides: tuple[str, ...] = field(default=(), repr=False)

    def job(self, **settings: Any) -> Any:
        from pipeline.config import load_job

        return load_job(None, self.overrides, {"engine.threads": self.threads, **settings})


class Summaries:
    """The stages of a job that make summaries."""

    def __init__(self, work: Work) -> None:
        from pipeline.summarize import job_summarizer

        started = time.perf_counter()
        self._texts, self._summarizer = work.texts, job_summarizer(work.job())
        self._loading = time.perf_counter() - started

    def turn(self) -> Turn:
        clock = _Clock()
        done = self._summarizer.summarize(self._texts)
        return clock.turn(len(done), sum(one.tokens for one in done), self._loading, {"failed": sum(bool(one.failed) for one in done)})


class Records:
    """The record stage of a job. `reader`: rules or model; `constrained`, `draft`: of the model."""

    def __init__(self, work: Work, reader: str, constrained: bool = True, draft: str = "off") -> None:
        from pipeline.prepare import prepare_records
        from transforms.shared_engine import load_model

        model = {"tasks.record.model": work.model, "engine.draft": draft} if reader == "model" else {}
        prepared = prepare_records(work.job(**{"tasks.record.reader": reader, **model}))
        started = time.perf_counter()
        self._texts, self._settings = work.texts, prepared.record
        self._loaded = load_model(prepared.record.task.model, prepared.engine) if prepared.record.task else None
        self._engine: Any = self._loaded.engine if self._loaded else None
        self._free: FreeEngine | None = None
        if self._loaded is not None and not constrained:
            self._loaded.engine = self._free = FreeEngine(self._loaded.engine, self._loaded.model.folder)
        self._loading = time.perf_counter() - started

    def turn(self) -> Turn:
        from pipeline.evaluation.record_stage import read_records

        # `Engine` promises no profile.
        if hasattr(self._engine, "reset_profile"):
            self._engine.reset_profile()
        clock = _Clock()
        read = read_records(self._texts, self._settings, self._loaded)
        facts: dict[str, Any] = {"written": dict(read.written), "failed": sum(bool(one.failed) for one in read.records)}
        profile = getattr(self._engine, "profile", None)
        facts["profile"] = profile.as_dict() if profile else {}
        if self._free is not None:
            facts["unreadable"] = self._free.unreadable
        return clock.turn(len(read.records), read.written.get("generated_tokens", 0), self._loading, facts)


class FreeEngine:
    """An engine that asks another without constraint, and then reads what it wrote as the constraint's lines. `unreadable`: outputs of the
    last call that are none."""

    def __init__(self, engine: Engine, folder: Any) -> None:
        from transforms.engine.constraint_plan import Planner
        from transforms.engine.loading import load_tokenizer
        from transforms.engine.tokens import SourceTokenizer

        tokenizer = load_tokenizer(folder)
        self._engine = engine
        self._planner = Planner(SourceTokenizer(tokenizer), [tokenizer.eos_token_id], len(tokenizer))
        self.identity = engine.identity
        self.max_source_tokens = engine.max_source_tokens
        self.unreadable = 0

    def tokenize(self, texts: Sequence[str]) -> list[Tokenized]:
        return self._engine.tokenize(texts)

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        self.unreadable = 0
        completions = self._engine.generate([replace(request, constraint=None) for request in requests])
        return [self._read(request, one) for request, one in zip(requests, completions, strict=True)]

    def _read(self, request: Request, completion: Completion) -> Completion:
        if completion.error:
            return completion
        plan = self._planner.plan(request.text, request.constraint, completion.source_tokens, request.decode.max_new_tokens)
        try:
            return replace(completion, values=plan.close(completion.token_ids).values)
        except ValueError:
            self.unreadable += 1
            return completion


class _Clock:
    """Wall-clock and processor seconds since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def turn(self, notes: int, tokens: int, loading: float, facts: Mapping[str, Any]) -> Turn:
        seconds, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        return Turn(seconds, loading, notes, tokens, facts={**facts, "cpu_seconds": cpu})


def bench_records(
    source: str, model: str, *, count: int, repeats: int, threads: int, text_column: str | None = None, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Figures of all contenders on the first `count` notes. Blocks for as long as that takes.

    Raises ConfigurationError for notes or a model that cannot be had, ChartmillError when a contender fails.
    """
    from pipeline.evaluation.notes import collect_notes
    from pipeline.prepare import prepare_records

    columns = {"input.columns.text": text_column} if text_column else {}
    work = Work((), model, threads, tuple(overrides))
    prepare_records(work.job(**{"tasks.record.reader": "model", "tasks.record.model": model}))
    notes = collect_notes(work.job(**{"input.uris": [source], **columns}), (), count).notes
    work = replace(work, texts=tuple(note.text for note in notes))
    turns = take_turns(contenders(work), repeats)
    found = {name: figures_of(turns[name]) for name in CONTENDERS}
    return {
        "contenders": found,
        "ratios": {name: round(found["model"]["notes_per_second"] / found[name]["notes_per_second"], 3) for name in CONTENDERS},
        "notes": len(notes),
        "repeats": repeats,
        "threads": threads,
        "machine": describe_machine(),
    }


def contenders(work: Work) -> dict[str, Callable[[], Contender]]:
    """Makers of those of CONTENDERS, in order."""
    return {
        "summaries": partial(Summaries, work),
        "rules": partial(Records, work, "rules"),
        "model": partial(Records, work, "model"),
        "drafting": partial(Records, work, "model", draft="auto"),
        "free": partial(Records, work, "model", constrained=False),
    }


def figures_of(turns: Sequence[Turn]) -> dict[str, Any]:
    """What a contender's turns come to. Rates are medians over turns, with the slowest and the fastest."""
    rates = sorted(turn.notes / turn.seconds for turn in turns)
    last, facts = turns[-1], dict(turns[-1].facts)
    figures: dict[str, Any] = {
        "notes_per_second": round(median(rates), 4),
        "spread": [round(rates[0], 4), round(rates[-1], 4)],
        "cpu_seconds_per_note": round(median(turn.facts["cpu_seconds"] for turn in turns) / last.notes, 5),
        "load_seconds": round(last.load_seconds, 2),
        "output_tokens": last.output_tokens,
        "failed": facts["failed"],
        "peak_mb": max(turn.peak_mb for turn in turns),
    }
    if (written := written_figures(facts.get("written", {}))) is not None:
        figures["written"] = written
    if "unreadable" in facts:
        figures["unreadable_windows"] = facts["unreadable"]
    if facts.get("profile"):
        figures |= _steps(facts["profile"])
    return figures


def _steps(profile: Mapping[str, float]) -> dict[str, Any]:
    """Decode steps, and drafts as in `Profile`. `acceptance`: the share (0-1) of drafted tokens that saved a step, None without drafts."""
    drafted, kept = int(profile["drafted_tokens"]), int(profile["kept_tokens"])
    acceptance = round(kept / drafted, 4) if drafted else None
    return {"steps": int(profile["steps"]), "drafted_tokens": drafted, "kept_tokens": kept, "acceptance": acceptance}


_COLUMNS = ("", "notes/s", "from", "to", "CPU s a note", "tokens out", "steps", "accepted", "empty", "cut", "unreadable")


def print_records(figures: Mapping[str, Any]) -> None:
    """Contenders as a table for people."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    for index, column in enumerate(_COLUMNS):
        table.add_column(column, justify="right" if index else "left", no_wrap=True)
    for name, found in figures["contenders"].items():
        rates = [f"{rate:.2f}" for rate in (found["notes_per_second"], *found["spread"])]
        told = [found.get("steps"), found.get("acceptance"), *(found.get("written", {}).get(part) for part in ("dead", "cut"))]
        shown = ["" if each is None else f"{each:,}" for each in (found["output_tokens"], *told, found.get("unreadable_windows"))]
        table.add_row(name, *rates, f"{found['cpu_seconds_per_note']:.4f}", *shown)
    console = Console()
    console.print(table)
    console.print(", ".join(f"{name} {value}" for name, value in figures["machine"].items()), highlight=False, markup=False)
