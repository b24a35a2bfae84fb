"""Numbers and units that the summary states and the note does not."""

from __future__ import annotations

from collections.abc import Iterator

from transforms.checks.case import Case, Flag
from transforms.quantities import same_unit


def check_numbers(case: Case) -> Iterator[Flag]:
    """UNSUPPORTED_NUMBER: the summary states a number that the note does not."""
    for quantity in case.stated:
        if quantity.number not in case.supported:
            yield Flag("UNSUPPORTED_NUMBER", quantity.start, quantity.end)


def check_units(case: Case) -> Iterator[Flag]:
    """UNSUPPORTED_UNIT: the note has the number, but always with another unit. A number that it also has without unit is not judged."""
    for quantity in case.stated:
        found = case.supported.get(quantity.number)
        if quantity.unit is None or not found or None in found:
            continue
        if not any(same_unit(quantity.unit, unit) for unit in found if unit):
            yield Flag("UNSUPPORTED_UNIT", quantity.start, quantity.end)
