"""An evaluation of records from beginning to end: notes and gold in, figures out. It prints nothing, and its figures hold no text."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.bench_machine import describe_machine
from pipeline.config import Job, OutputSection
from pipeline.evaluation.bootstrap import RESAMPLES
from pipeline.evaluation.notes import ReferencedNote, collect_notes
from pipeline.evaluation.record_formats import GoldFormat, UnreadableGold, gold_format
from pipeline.evaluation.record_gold_file import read_gold_file
from pipeline.evaluation.record_matching import match_note
from pipeline.evaluation.record_outputs import join_records
from pipeline.evaluation.record_scores import record_figures
from pipeline.evaluation.record_stage import Recorded, read_records
from pipeline.evaluation.record_values import Value
from pipeline.prepare import prepare
from schemas.errors import ConfigurationError
from transforms.record import RecordSettings
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
    settings = _record_settings(job)
    golden, not_read, left_out = _collect(job, options, form)
    say(f"{len(golden):,} notes with gold")
    started = time.perf_counter()
    notes, recorded, joined_out = _records(settings, options, [one.note for one in golden])
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
        "settings": {"column": options.column, "resamples": options.resamples, "seed": options.seed},
        "seconds": {"read": round(read - started, 2), "compare": round(time.perf_counter() - read, 2)},
        "machine": describe_machine(),
    }


def _record_settings(job: Job) -> RecordSettings:
    """What the job would read records with. No summary is written, so no model is looked for."""
    with tempfile.TemporaryDirectory() as folder:
        update = {"output": OutputSection(uri=folder), "engine": job.engine.model_copy(update={"backend": "echo"})}
        return prepare(job.model_copy(update=update)).record


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
    settings: RecordSettings, options: RecordOptions, notes: Sequence[ReferencedNote]
) -> tuple[Sequence[ReferencedNote], Sequence[Recorded], Mapping[str, int]]:
    """The notes that count, their records, and how many the finished run does not know, by why."""
    if options.output is None:
        return notes, read_records([note.text for note in notes], settings), {}
    joined = join_records(open_to_read(options.output), notes)
    return joined.notes, joined.records, joined.left_out


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
