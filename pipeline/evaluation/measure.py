"""An evaluation from beginning to end: notes and references in, figures out. It prints nothing, and its figures hold no text."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from pipeline.bench_machine import describe_machine
from pipeline.config import Job
from pipeline.evaluation.bootstrap import RESAMPLES, Interval
from pipeline.evaluation.ngrams import ORDERS, novelty, words_of
from pipeline.evaluation.notes import ReferencedNote, collect_notes
from pipeline.evaluation.outputs import join_run
from pipeline.evaluation.scores import BASELINE_WORDS, BASELINES, ORACLE, OURS, Figures, Scored, baseline_texts, score_systems, summed_up
from pipeline.summarize import Summarized, job_summarizer
from transforms.checks import INFORMATIVE
from transforms.store import open_to_read


@dataclass(frozen=True, slots=True)
class Options:
    """What to evaluate and how.

    `columns`: those that hold references. `limit`: notes at most. `output`: a finished run whose summaries are scored; None for the job's
    model. `baseline_words`: length of the baselines lead and first_last. `resamples`, `seed`: of the bootstrap.
    """

    columns: tuple[str, ...] = ("reference",)
    limit: int | None = None
    output: str | None = field(default=None, repr=False)
    baseline_words: int = BASELINE_WORDS
    resamples: int = RESAMPLES
    seed: int = 0
    bertscore: bool = False


@dataclass(frozen=True, slots=True)
class Evaluated:
    """The figures, and what they were made of: one summary a note, and the scores of every pair of note and reference."""

    notes: tuple[ReferencedNote, ...] = field(repr=False)
    summaries: tuple[Summarized, ...] = field(repr=False)
    scored: Scored = field(repr=False)
    figures: Mapping[str, Any] = field(repr=False)


def measure(job: Job, options: Options, say: Callable[[str], None] = lambda line: None) -> Evaluated:
    """Collect, summarize or look up, score. `say` is told what goes on, in counts. Raises ConfigurationError for what cannot be done."""
    collected = collect_notes(job, options.columns, options.limit, with_ids=options.output is not None)
    say(f"{len(collected.notes):,} notes with references")
    started = time.perf_counter()
    notes, summaries, left_out, model = _summaries(job, options, collected.notes)
    summarized = time.perf_counter()
    say(f"{len(summaries):,} summaries; scoring")
    systems = {OURS: [one.text for one in summaries], **baseline_texts(notes, options.baseline_words)}
    scored = score_systems(notes, systems)
    pooled = summed_up(scored, options.resamples, options.seed)
    figures = {
        "task": "summary",
        "n": len(notes),
        "pairs": len(scored.places),
        "left_out": {**collected.left_out, **left_out},
        "stopped_at_limit": collected.not_read,
        "model": model,
        **_rouge_figures(pooled),
        "references": {column: _column_figures(scored.of_column(column), options) for column in _columns(scored)},
        **_failures(summaries),
        **_flag_figures(summaries),
        **_text_figures(notes, summaries),
        "bertscore": _bert_figures(notes, systems, options),
        "settings": {name: value for name, value in asdict(options).items() if name not in ("output", "limit")},
        "seconds": {"summarize": round(summarized - started, 2), "score": round(time.perf_counter() - summarized, 2)},
        "machine": describe_machine(),
    }
    return Evaluated(notes, summaries, scored, figures)


def _summaries(
    job: Job, options: Options, notes: tuple[ReferencedNote, ...]
) -> tuple[tuple[ReferencedNote, ...], tuple[Summarized, ...], Mapping[str, int], Mapping[str, Any]]:
    """The notes that count, their summaries, how many notes were left out and why, and whose summaries they are."""
    if options.output is not None:
        joined = join_run(open_to_read(options.output), notes)
        return joined.notes, joined.summaries, joined.left_out, joined.model
    summarizer = job_summarizer(job)
    identity, task = summarizer.engine.identity, summarizer.task
    made = tuple(summarizer.summarize([note.text for note in notes]))
    model = {"id": identity.model_id, "sha256": identity.model_sha256, "backend": identity.backend, "dtype": identity.dtype}
    return notes, made, {}, {**model, "device": identity.device, "prefix": task.prefix, "decode": asdict(task.decode_settings())}


def _columns(scored: Scored) -> list[str]:
    return list(dict.fromkeys(column for _, column in scored.places))


def _rouge_figures(found: Figures) -> dict[str, Any]:
    """Points 0-100. `differences`: ours less each other system over the same notes."""
    others = (*BASELINES, ORACLE)
    return {
        "scores": _rounded(found.means[OURS]),
        "intervals": {measure: _ends(interval) for measure, interval in found.intervals[OURS].items()},
        "baselines": {name: _rounded(found.means[name]) for name in BASELINES},
        "oracle": _rounded(found.means[ORACLE]),
        "other_intervals": {name: {m: _ends(interval) for m, interval in found.intervals[name].items()} for name in others},
        "differences": {
            name: {
                measure: {
                    "difference": round(found.interval.value, 3),
                    "interval": _ends(found.interval),
                    "share_above_zero": round(found.share_above, 4),
                }
                for measure, found in found.differences[name].items()
            }
            for name in others
        },
    }


def _column_figures(scored: Scored, options: Options) -> dict[str, Any]:
    """Of one column of references: those that one needs to read the pooled ones rightly."""
    figures = _rouge_figures(summed_up(scored, options.resamples, options.seed))
    return {"n": len(scored.places), **{name: figures[name] for name in ("scores", "intervals", "baselines", "oracle")}}


def _failures(summaries: Sequence[Summarized]) -> dict[str, Any]:
    reasons = Counter(one.failed for one in summaries if one.failed)
    return {"failed": sum(reasons.values()), "failed_reasons": dict(sorted(reasons.items()))}


def _flag_figures(summaries: Sequence[Summarized]) -> dict[str, Any]:
    """Of 100 summaries: those with a flag that counts against the gate, and those with each code; None where nothing was summarized."""
    written = [one for one in summaries if not one.failed]
    if not written:
        return {"flags_per_100": None, "flag_codes_per_100": {}, "informative_codes_per_100": {}}
    codes = Counter(code for one in written for code in one.flags)
    shares = {code: round(100 * count / len(written), 3) for code, count in sorted(codes.items())}
    return {
        "flags_per_100": round(100 * sum(bool(set(one.flags) - INFORMATIVE) for one in written) / len(written), 3),
        "flag_codes_per_100": {code: share for code, share in shares.items() if code not in INFORMATIVE},
        "informative_codes_per_100": {code: share for code, share in shares.items() if code in INFORMATIVE},
    }


def _text_figures(notes: Sequence[ReferencedNote], summaries: Sequence[Summarized]) -> dict[str, Any]:
    """Means over texts: lengths in words, novelty and coverage in percent, compression (words of the note per word), density (words)."""
    written = [(note.text, one) for note, one in zip(notes, summaries, strict=True) if not one.failed]
    references = [(note.text, reference) for note in notes for reference in note.references.values()]
    return {
        "words": {
            "note": _mean(len(words_of(note.text)) for note in notes),
            "reference": _mean(len(words_of(reference)) for _, reference in references),
            "summary": _mean(len(words_of(one.text)) for _, one in written),
        },
        "novelty": {"summary": _novelty([(text, one.text) for text, one in written]), "reference": _novelty(references)},
        "compression": _mean(one.compression for _, one in written),
        "coverage": _mean(_percent(one.coverage) for _, one in written),
        "density": _mean(one.density for _, one in written),
    }


def _novelty(pairs: Sequence[tuple[str, str]]) -> dict[str, float | None]:
    shares = [novelty(text, summary) for text, summary in pairs]
    return {f"{order}-grams": _mean(_percent(row[i]) for row in shares) for i, order in enumerate(ORDERS)}


def _bert_figures(notes: Sequence[ReferencedNote], systems: Mapping[str, Sequence[str]], options: Options) -> dict[str, Any] | None:
    if not options.bertscore:
        return None
    from pipeline.evaluation.bertscore import MODEL, score_bert

    found = summed_up(score_bert(notes, systems), options.resamples, options.seed)
    return {
        "encoder": MODEL,
        "note": "comparable with other scores of this encoder only, not with published BERTScores; says nothing about faithfulness",
        "scores": _rounded(found.means[OURS]),
        "intervals": {measure: _ends(interval) for measure, interval in found.intervals[OURS].items()},
        "baselines": {name: _rounded(found.means[name]) for name in BASELINES},
    }


def _rounded(scores: Mapping[str, float]) -> dict[str, float]:
    return {measure: round(score, 3) for measure, score in scores.items()}


def _ends(interval: Interval) -> list[float]:
    return [round(interval.low, 3), round(interval.high, 3)]


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _mean(values: Iterable[float | None]) -> float | None:
    """Of those that are known."""
    known = [value for value in values if value is not None]
    return round(float(np.mean(known)), 3) if known else None
