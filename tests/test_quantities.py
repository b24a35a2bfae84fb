"""Numbers and units: equal quantities are equal strings."""

from __future__ import annotations

import pytest

from transforms.quantities import normal_number, quantities


@pytest.mark.parametrize("written", ["1,000", "1000", "01000", "1000.0", "1,000.00"])
def test_equal_numbers_are_equal(written: str) -> None:
    assert normal_number(written) == "1000"


def test_numbers_inside_words_are_not_stated() -> None:
    assert [q.number for q in quantities("B12 and T2 but 5mg and .5 ml, twelve") if q.stated] == ["0.5", "5", "12"]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("forty-five", {"45"}),
        ("one forty over eighty", {"140", "1", "40", "80"}),
        ("nineteen eighty four", {"1984", "19", "84"}),
        ("two thousand and eight", {"2008"}),
        ("one hundred and twenty", {"120"}),
        ("seven point two five", {"7.25"}),
        ("July thirty first", {"30", "31"}),
    ],
)
def test_numbers_in_words(text: str, numbers: set[str]) -> None:
    assert {q.number for q in quantities(text)} == numbers


@pytest.mark.parametrize(
    ("left", "right", "same"), [("14 days", "2 weeks", True), ("0.5 g", "500 mg", True), ("30 days", "1 month", False)]
)
def test_exact_conversions(left: str, right: str, same: bool) -> None:
    (one,), (other,) = quantities(left), quantities(right)
    assert (one.measure == other.measure) is same


@pytest.mark.parametrize("text", ["9" * 9000 + " mg", "one hundred and " * 3000, "point " * 3000 + "seven"])
def test_monsters_are_survived(text: str) -> None:
    assert all(quantity.measure is None or quantity.number for quantity in quantities(text))
