"""How good the checks are, on anybody's notes with right summaries: false alarms, planted errors found, agreement with people, speed.

Figures are counts and shares (0-1) of summaries; no text is in them. A planted error counts as found where a code is raised more often on
the wrong summary than on the right one it was made of, so that a false alarm on both is no find.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.correlation import spearman
from pipeline.planted import PLANTERS, Pair, Planted, plant
from pipeline.reworded import reword
from schemas.errors import ConfigurationError
from transforms.checks import CHECKS, INFORMATIVE, Case, Flag, run_checks
from transforms.checks.omission import omission
from transforms.evidence import trace_summary
from transforms.sentences import split_sentences

# Kind of planted error -> beginnings of the codes that are meant to find it.
INTENDED: Mapping[str, tuple[str, ...]] = {
    "tenfold_dose": ("UNSUPPORTED_NUMBER", "VALUE_MISMATCH"),
    "misplaced_dose": ("VALUE_MISMATCH",),
    "changed_number": ("UNSUPPORTED_NUMBER", "VALUE_MISMATCH", "PATIENT_MISMATCH", "UNSUPPORTED_DATE"),
    "swapped_unit": ("UNSUPPORTED_UNIT", "VALUE_MISMATCH", "PATIENT_MISMATCH"),
    "shifted_date": ("UNSUPPORTED_DATE", "UNSUPPORTED_NUMBER"),
    "changed_age": ("PATIENT_MISMATCH", "UNSUPPORTED_NUMBER"),
    "swapped_sex": ("PATIENT_MISMATCH",),
    "swapped_patient": ("LOW_COVERAGE", "PATIENT_MISMATCH", "UNSUPPORTED_"),
    "swapped_side": ("LATERALITY",),
    "added_negation": ("NEGATION",),
    "removed_negation": ("NEGATION",),
    "swapped_drug": ("UNSUPPORTED_DRUG",),
    "swapped_diagnosis": ("UNSUPPORTED_PROBLEM",),
    "repeated_sentence": ("REPEATED_TEXT",),
    "cut_off": ("TRUNCATED_SUMMARY",),
    "omitted_sentence": ("OMITTED_",),
}
# Beginnings of the codes that say the same kind of thing: what the summary says too much or wrongly, and what it says too little of.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "unsupported or contradicted": ("UNSUPPORTED_", "VALUE_MISMATCH", "PATIENT_MISMATCH", "LATERALITY", "NEGATION"),
    "omitted": ("OMITTED_",),
}
# About as long as a summary usually is.
LEAD_WORDS = 110
EXTRACT_SENTENCES = 5
TIMED_NOTES = 200


def false_alarms(pairs: Iterable[Pair], checks: Sequence[str] = CHECKS) -> dict[str, Any]:
    """Summaries, those with a flag that is not informative, and those with a flag of each code, of summaries held to be right."""
    codes: Counter[str] = Counter()
    total = flagged = 0
    for pair in pairs:
        found = {flag.code for flag in flags_of(pair, checks)}
        codes.update(found)
        total += 1
        flagged += bool(found - INFORMATIVE)
    return {"summaries": total, "flagged": flagged, "codes": dict(sorted(codes.items()))}


def case_of(pair: Pair) -> Case:
    """The pair as the pipeline shows it to the checks: with its evidence, so that copied sentences are known."""
    sentences = split_sentences(pair.text)
    return Case(pair.text, pair.summary, trace_summary(pair.text, sentences, pair.summary), sentences=sentences)


def flags_of(pair: Pair, checks: Sequence[str]) -> tuple[Flag, ...]:
    """The flags of one pair."""
    return run_checks(case_of(pair), checks)


def leads(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """The note's first sentences, up to LEAD_WORDS words, as its summary: right by construction."""
    for pair in pairs:
        end, words = 0, 0
        for start, stop in split_sentences(pair.text):
            words += len(pair.text[start:stop].split())
            if end and words > LEAD_WORDS:
                break
            end = stop
        yield Pair(pair.text, pair.text[:end])


def extracts(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """EXTRACT_SENTENCES sentences from all over the note as its summary, as a model that selects writes one."""
    for pair in pairs:
        spans = split_sentences(pair.text)
        picked = spans[:: max(1, len(spans) // EXTRACT_SENTENCES)][:EXTRACT_SENTENCES]
        yield Pair(pair.text, " ".join(pair.text[start:end].strip() for start, end in picked))


def rewordings(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """The extracts in other words: right by construction, and no copies."""
    return (Pair(pair.text, reword(pair.summary)) for pair in extracts(pairs))


def detection(pairs: Sequence[Pair], checks: Sequence[str] = CHECKS, seed: int = 0) -> dict[str, dict[str, Any]]:
    """Per kind of planted error: how many were planted, found by an intended code, found by any code that is not informative.

    `overlapping`: finds by an intended code of which a flag's span meets the error. `spanless`: finds by an intended code without a span.
    `codes`: finds by each code.
    """
    figures: dict[str, dict[str, Any]] = {
        kind: {"planted": 0, "intended": 0, "any": 0, "overlapping": 0, "spanless": 0, "codes": Counter()} for kind in PLANTERS
    }
    for index, pair in enumerate(pairs):
        before = flags_of(pair, checks)
        other = pairs[(index + len(pairs) // 2) % len(pairs)]
        for kind, figure in figures.items():
            planted = plant(kind, pair, other, f"{seed}:{index}")
            if planted is not None:
                after = flags_of(Pair(pair.text, planted.summary), checks)
                _count_find(figure, kind, planted, before, after)
    return {kind: {**figure, "codes": dict(sorted(figure["codes"].items()))} for kind, figure in figures.items()}


def _count_find(figure: dict[str, Any], kind: str, planted: Planted, before: Sequence[Flag], after: Sequence[Flag]) -> None:
    raised = newly_raised(before, after)
    hits = [flag for flag in after if flag.code in raised and flag.code.startswith(INTENDED[kind])]
    figure["planted"] += 1
    figure["any"] += bool(raised - INFORMATIVE)
    figure["intended"] += bool(hits)
    figure["spanless"] += bool(hits) and all(flag.start is None for flag in hits)
    figure["overlapping"] += any(flag.start is not None and flag.start < planted.end and planted.start < (flag.end or 0) for flag in hits)
    figure["codes"].update(raised)


def newly_raised(before: Iterable[Flag], after: Iterable[Flag]) -> set[str]:
    """Codes that come more often after than before."""
    return set(Counter(flag.code for flag in after) - Counter(flag.code for flag in before))


def wrong_versions(versions: Iterable[tuple[Pair, str]], checks: Sequence[str] = CHECKS) -> dict[str, Any]:
    """Detection in (right pair, wrong summary of the same note): codes that the wrong one raises more often than the right one."""
    codes: Counter[str] = Counter()
    total = found = 0
    for pair, wrong in versions:
        raised = newly_raised(flags_of(pair, checks), flags_of(Pair(pair.text, wrong), checks))
        total += 1
        found += bool(raised - INFORMATIVE)
        codes.update(raised)
    return {"pairs": total, "found": found, "codes": dict(sorted(codes.items()))}


def agreement(
    pairs: Sequence[Pair], scores: Mapping[str, Sequence[float]], checks: Sequence[str] = CHECKS, seed: int = 0
) -> dict[str, Any]:
    """Per human score: Spearman's rho with numbers of flags (all that count, by group, by code) and with three measures of the text."""
    cases = [case_of(pair) for pair in pairs]
    counted = [Counter(flag.code for flag in run_checks(case, checks)) for case in cases]
    measures = {"flags": [float(sum(n for code, n in codes.items() if code not in INFORMATIVE)) for codes in counted]}
    for group, beginnings in GROUPS.items():
        measures[group] = [float(sum(n for code, n in codes.items() if code.startswith(beginnings))) for codes in counted]
    measures |= {code: [float(codes[code]) for codes in counted] for code in sorted({code for codes in counted for code in codes})}
    measures["omission"] = [omission(case) or 0.0 for case in cases]
    measures["1 - coverage"] = [1.0 - (case.extractiveness[0] or 0.0) for case in cases]
    measures["note words / summary words"] = [len(case.note_words) / max(1, len(case.summary_words)) for case in cases]
    return {
        name: {measure: asdict(spearman(values, human, seed=seed)) for measure, values in measures.items()}
        for name, human in scores.items()
    }


def speed(pairs: Sequence[Pair], checks: Sequence[str] = CHECKS, clock: Callable[[], float] = time.process_time) -> dict[str, float]:
    """Median processor time in milliseconds a note over the first TIMED_NOTES pairs: of each check alone, and of all in one go.

    All together cost less than their sum: they share the reading of the note.
    """
    timed: dict[str, list[float]] = {name: [] for name in (*checks, "all")}
    for pair in pairs[:TIMED_NOTES]:
        for name in timed:
            case = case_of(pair)
            started = clock()
            run_checks(case, checks if name == "all" else (name,))
            timed[name].append(1000 * (clock() - started))
    return {name: median(values) for name, values in timed.items() if values}


def study(pairs: Sequence[Pair], checks: Sequence[str] = CHECKS, seed: int = 0) -> dict[str, Any]:
    """False alarms on the references, on leads, extracts and rewordings; detection of planted errors; speed."""
    return {
        "false_alarms": {
            "references": false_alarms(pairs, checks),
            "leads": false_alarms(leads(pairs), checks),
            "extracts": false_alarms(extracts(pairs), checks),
            "rewordings": false_alarms(rewordings(pairs), checks),
        },
        "detection": detection(pairs, checks, seed),
        "milliseconds": speed(pairs, checks),
    }


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns to study; `scores` maps the name of a human score to its column."""

    text: str = "text"
    reference: str = "reference"
    candidate: str = "candidate"
    wrong: str | None = None
    scores: Mapping[str, str] = field(default_factory=dict)


def study_file(path: Path, columns: Columns, checks: Sequence[str] = CHECKS, limit: int | None = None, seed: int = 0) -> dict[str, Any]:
    """The study of a Parquet file, as far as its columns go. Raises ConfigurationError when it is unreadable or lacks a column asked for.

    Rows with a blank text or summary are left out, rows with a missing human score from the agreement only.
    """
    rows = _read_rows(path, columns, limit)
    figures: dict[str, Any] = {"checks": list(checks), "informative": sorted(INFORMATIVE), "rows": len(rows)}
    pairs = [Pair(row[columns.text], row[columns.reference]) for row in rows if _has(row, columns.text, columns.reference)]
    if pairs:
        figures |= study(pairs, checks, seed)
    if columns.wrong:
        told = [row for row in rows if _has(row, columns.text, columns.reference, columns.wrong)]
        versions = [(Pair(row[columns.text], row[columns.reference]), row[columns.wrong]) for row in told]
        figures["wrong"] = wrong_versions([(pair, wrong) for pair, wrong in versions if wrong != pair.summary], checks)
    if columns.scores:
        scored = [row for row in rows if _has(row, columns.text, columns.candidate) and _is_scored(row, columns.scores.values())]
        candidates = [Pair(row[columns.text], row[columns.candidate]) for row in scored]
        scores = {name: [float(row[column]) for row in scored] for name, column in columns.scores.items()}
        figures["agreement"] = agreement(candidates, scores, checks, seed)
    return figures


def _read_rows(path: Path, columns: Columns, limit: int | None) -> list[dict[str, Any]]:
    """The columns that the file has. Names of columns are the caller's own words; the file's are not shown."""
    needed = {columns.text, *([columns.wrong, columns.reference] if columns.wrong else ())}
    needed |= {columns.candidate, *columns.scores.values()} if columns.scores else {columns.reference}
    wanted = needed | {columns.reference}
    try:
        with pq.ParquetFile(path) as file:
            missing = sorted(needed - set(file.schema_arrow.names))
            if missing:
                raise ConfigurationError(f"--input: no column {', '.join(missing)}")
            table = file.read(columns=[name for name in file.schema_arrow.names if name in wanted])
    except (OSError, pa.ArrowException):
        raise ConfigurationError("--input: cannot be read as a Parquet file") from None
    return table.slice(0, limit).to_pylist()


def _has(row: Mapping[str, Any], *columns: str) -> bool:
    """Whether all of them hold text that is not blank."""
    return all(isinstance(row.get(column), str) and row[column].strip() for column in columns)


def _is_scored(row: Mapping[str, Any], columns: Iterable[str]) -> bool:
    return all(isinstance(row[column], int | float) and math.isfinite(row[column]) for column in columns)
