"""What a summary says that its note does not, and other reasons to look twice. Flags, not verdicts.

The checks themselves are in `transforms/checks/`. Coverage, density and compression follow Grusky et al. 2018 (arXiv 1804.11283).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import apache_beam as beam

from schemas.histogram import count_values
from schemas.rejection import Reason, Stage
from schemas.summary import VERIFY_FIELDS
from transforms.batch import NoteBatch, timed
from transforms.checks import CHECKS, INFORMATIVE, Case, Flag, known_checks, run_checks
from transforms.checks.omission import omission
from transforms.segment import sentence_spans


@dataclass(frozen=True, slots=True)
class Checked:
    """The flags of one summary and how it was drawn from the note.

    `coverage`: share of summary words inside fragments shared with the note (0-1). `density`: mean squared length of these fragments, in
    words per summary word. `compression`: note words per summary word. All None for a summary without words. `omission`: share (0-1) of the
    note's facts that the summary leaves out, by their weight; None for a note without facts and when the check is not asked for.
    """

    flags: tuple[Flag, ...]
    coverage: float | None
    density: float | None
    compression: float | None
    omission: float | None
    note_words: int
    summary_words: int


def check_summary(case: Case, checks: Sequence[str] = CHECKS) -> Checked:
    """Run the named checks (of CHECKS) on one summary. Raises ValueError for an unknown check."""
    flags = run_checks(case, checks)
    coverage, density = case.extractiveness
    note_words, summary_words = len(case.note_words), len(case.summary_words)
    compression = note_words / summary_words if summary_words else None
    left_out = omission(case) if "omission" in checks else None
    return Checked(flags, coverage, density, compression, left_out, note_words, summary_words)


def verify_batch(batch: NoteBatch, checks: Sequence[str] = CHECKS) -> NoteBatch:
    """Add VERIFY_FIELDS from the columns text, summary, evidence, finish, tokens_dropped and sentences.

    Counts notes by flag, notes with a flag that is not INFORMATIVE, and the histograms. A note that a check fails on becomes a rejection.
    """
    columns = ("text", "summary", "evidence", "finish", "tokens_dropped")
    rows = zip(*map(batch.column, columns), sentence_spans(batch), strict=True)
    done, kept = batch.each(rows, lambda row: check_summary(Case(*row), checks), Stage.VERIFY, Reason.VERIFY_FAILED)
    added: dict[str, Sequence[Any]] = {
        "flags": [[asdict(flag) for flag in checked.flags] for checked in done],
        "coverage": [checked.coverage for checked in done],
        "density": [checked.density for checked in done],
        "compression": [checked.compression for checked in done],
        "omission": [checked.omission for checked in done],
    }
    return kept.with_columns(VERIFY_FIELDS, added).counted(**_figures(done))


def _figures(done: Sequence[Checked]) -> dict[str, Any]:
    flags: dict[str, int] = defaultdict(int)
    flagged = 0
    for checked in done:
        codes = {flag.code for flag in checked.flags}
        flagged += bool(codes - INFORMATIVE)
        for code in codes:
            flags[code] += 1
    histograms = {
        "note_words": count_values("note_words", (checked.note_words for checked in done)),
        "summary_words": count_values("summary_words", (checked.summary_words for checked in done)),
        "coverage": count_values("coverage", (c.coverage for c in done if c.coverage is not None)),
        "compression": count_values("compression", (c.compression for c in done if c.compression is not None)),
        "omission": count_values("omission", (c.omission for c in done if c.omission is not None)),
    }
    return {"flags": dict(flags), "notes_flagged": flagged, "histograms": histograms}


class _Verify(beam.DoFn):  # type: ignore[misc]
    def __init__(self, checks: tuple[str, ...]) -> None:
        self._checks = checks

    def process(self, batch: NoteBatch) -> Iterator[NoteBatch]:
        yield timed("verify", lambda notes: verify_batch(notes, self._checks), batch)


class VerifySummaries(beam.PTransform):  # type: ignore[misc]
    """NoteBatch -> NoteBatch with VERIFY_FIELDS. Raises ValueError for an unknown check when it is made."""

    def __init__(self, checks: Sequence[str] = CHECKS) -> None:
        super().__init__()
        self._checks = known_checks(checks)

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        return batches | beam.ParDo(_Verify(self._checks))
