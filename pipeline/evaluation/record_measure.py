"""An evaluation of records from beginning to end: notes and gold in, figures out. It prints nothing, and its figures hold no text."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.bench_machine import describe_machine
from pipeline.config import Job
from pipeline.evaluation.bootstrap import RESAMPLES
from pipeline.evaluation.notes import ReferencedNote, collect_notes
from pipeline.evaluation.record_formats import GoldFormat, UnreadableGold, gold_format
from pipeline.evaluation.record_gold_file import read_gold_file
from pipeline.evaluation.record_matching import match_note
from pipeline.evaluation.record_outputs import join_records
from pipeline.evaluation.record_scores import record_figures
from pipeline.evaluation.record_stage import Recorded, RecordedTexts, read_records
from pipeline.evaluation.record_values import Value
from pipeline.prepare import PreparedRecords, model_said, prepare_records
from pipeline.record_alarm import written_figures
from schemas.errors import ConfigurationError
from transforms.shared_engine import load_model
from transforms.store import open_to_read


@dataclass(frozen=True, slots=True)
class RecordOptions:
    """What to evaluate and how.

    `gold_format`: a name of FORMATS. `column`: holds gold; unless `gold_file` does, by note id. `limit`: notes at most. `output`: a
    finished run whose records are scored; None to read them anew. `resamples`, `seed`: of the bootstrap.
    """

    gold_format: str
    column: str = "gold"
    gold_file: str | None = field(default=None, repr=False)
    limit: int | None = None
    output: str | None = field(default=None, repr=False)
    resamples: int = RESAMPLES
    seed: int = 0


@dataclass(frozen=True, slots=True)
class _GoldNote:
    note: ReferencedNote = field(repr=False)
    gold: tuple[Value, ...] = field(repr=False)


def measure_records(job: Job, options: RecordOptions, say: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Collect, read or look up, compare. `say` is told what goes on, in counts. Raises ConfigurationError for what cannot be done."""
    form = gold_format(options.gold_format)
    prepared = None if options.output is not None else _prepared(job)
    golden, not_read, left_out = _collect(job, options, form)
    say(f"{len(golden):,} notes with gold")
    started = time.perf_counter()
    notes, read_out, joined_out = _records(prepared, options, [one.note for one in golden])
    recorded = read_out.records
    read = time.perf_counter()
    say(f"{len(recorded):,} records; comparing")
    golds = {id(one.note): one.gold for one in golden}
    pairs = [(golds[id(note)], one.record) for note, one in zip(notes, recorded, strict=True)]
    matched = [match_note(gold, form.said_values(record, gold)) for gold, record in pairs]
    reasons = Counter(one.failed for one in recorded if one.failed)
    return {
        "task": "record",
        "gold_format": options.gold_format,
        "n": len(notes),
        **record_figures(matched, form.fields, options.resamples, options.seed),
        **_grounding(notes, recorded),
        "left_out": {**left_out, **joined_out},
        "stopped_at_limit": not_read,
        "failed": sum(reasons.values()),
        "failed_reasons": dict(sorted(reasons.items())),
        "reader": job.tasks.record.reader if options.output is None else None,
        "model": _model_said(prepared),
        "written": written_figures(read_out.written),
        "settings": {"column": options.column, "resamples": options.resamples, "seed": options.seed},
        "seconds": {"read": round(read - started, 2), "compare": round(time.perf_counter() - read, 2)},
        "machine": describe_machine(),
    }


def _prepared(job: Job) -> PreparedRecords:
    """What the job would read records with. No summary is written, so no model for that is looked for."""
    if job.tasks.record.reader == "off":
        raise ConfigurationError("tasks.record.reader: off reads no records; choose rules, model or both")
    return prepare_records(job)


def _model_said(prepared: PreparedRecords | None) -> dict[str, Any] | None:
    """The model that was asked; None where none was, or a finished run is scored."""
    if prepared is None or prepared.record.task is None or prepared.maker is None:
        return None
    return model_said(prepared.maker)


def _collect(job: Job, options: RecordOptions, form: GoldFormat) -> tuple[list[_GoldNote], bool, Mapping[str, int]]:
    """Those whose gold can be read, whether there were more after the limit, and how many were left out, by why."""
    golds = None if options.gold_file is None else read_gold_file(options.gold_file, options.column)
    columns = () if golds is not None else (options.column,)
    collected = collect_notes(job, columns, options.limit, with_ids=bool(golds or options.output), option="--gold-column")
    golden: list[_GoldNote] = []
    left_out = Counter({reason.replace("no_reference", "no_gold"): count for reason, count in collected.left_out.items()})
    for note in collected.notes:
        gold = golds.get(note.note_id or "") if golds is not None else note.references[options.column]
        if gold is None:
            left_out["no_gold"] += 1
            continue
        try:
            golden.append(_GoldNote(note, tuple(form.gold_values(gold))))
        except UnreadableGold:
            left_out["unreadable_gold"] += 1
    if not golden:
        told = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in sorted(left_out.items()))
        raise ConfigurationError(f"--gold-format: no note has gold in the form of {options.gold_format} ({told})")
    return golden, collected.not_read, dict(sorted(left_out.items()))


def _records(
    prepared: PreparedRecords | None, options: RecordOptions, notes: Sequence[ReferencedNote]
) -> tuple[Sequence[ReferencedNote], RecordedTexts, Mapping[str, int]]:
    """The notes that count, their records, and how many the finished run does not know, by why."""
    if prepared is None:
        assert options.output is not None, "either a job reads the records, or a finished run has them"
        joined = join_records(open_to_read(options.output), notes)
        return joined.notes, RecordedTexts(joined.records), joined.left_out
    task = prepared.record.task
    loaded = load_model(task.model, prepared.engine) if task else None
    return notes, read_records([note.text for note in notes], prepared.record, loaded), {}


def _grounding(notes: Sequence[ReferencedNote], recorded: Sequence[Recorded]) -> dict[str, Any]:
    """`grounded_share`: of all values of all records, scored or not, those that are the note's characters at their offsets (0-1)."""
    grounded = values = 0
    for note, one in zip(notes, recorded, strict=True):
        for leaf in _leaves(one.record):
            values += 1
            start, end = leaf["start"], leaf["end"]
            grounded += start is not None and end is not None and 0 <= start < end and note.text[start:end] == leaf["text"]
    return {"values": values, "grounded_share": round(grounded / values, 6) if values else None}


def _leaves(value: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(value, Mapping):
        if "text" in value and "start" in value:
            yield value
        else:
            for inner in value.values():
                yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
