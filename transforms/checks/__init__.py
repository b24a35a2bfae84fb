"""The checks: each a pure function of one note and its summary, Case -> Flags. None needs a model or a reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from transforms.checks.case import Case, Flag
from transforms.checks.coverage import check_coverage
from transforms.checks.dates import check_dates
from transforms.checks.laterality import check_laterality
from transforms.checks.lead import check_lead
from transforms.checks.negation import check_negation
from transforms.checks.numbers import check_numbers, check_units, check_values
from transforms.checks.omission import check_omission
from transforms.checks.patient import check_patient
from transforms.checks.repetition import check_repetition
from transforms.checks.terms import check_terms
from transforms.checks.truncation import check_truncation

__all__ = ["CHECKS", "INFORMATIVE", "Case", "Flag", "known_checks", "run_checks"]

_CHECKS: dict[str, Callable[[Case], Iterator[Flag]]] = {
    "numbers": check_numbers,
    "units": check_units,
    "values": check_values,
    "dates": check_dates,
    "negation": check_negation,
    "laterality": check_laterality,
    "patient": check_patient,
    "terms": check_terms,
    "repetition": check_repetition,
    "truncation": check_truncation,
    "omission": check_omission,
    "coverage": check_coverage,
    "lead": check_lead,
}
CHECKS = tuple(_CHECKS)

# Flags that inform without counting against a run: they tell what happened or what the input was like, not that the summary is wrong.
INFORMATIVE = frozenset(
    {
        "SOURCE_CUT",
        "NO_COMPRESSION",
        "LEAD_COPY",
        "NEGATION",
        "UNSUPPORTED_PROBLEM",
        "OMITTED_ALLERGY",
        "OMITTED_DRUG",
        "OMITTED_PROBLEM",
        "OMITTED_PROCEDURE",
    }
)


def known_checks(checks: Sequence[str]) -> tuple[str, ...]:
    """The names as a tuple; ValueError for one that is no check."""
    for name in checks:
        if name not in _CHECKS:
            raise ValueError(f"unknown check {name!r}; choices: {', '.join(CHECKS)}")
    return tuple(checks)


def run_checks(case: Case, checks: Sequence[str]) -> tuple[Flag, ...]:
    """The flags of the named checks, in their order. Raises ValueError for an unknown one."""
    return tuple(flag for name in known_checks(checks) for flag in _CHECKS[name](case))
