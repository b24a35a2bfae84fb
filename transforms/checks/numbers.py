"""Numbers and units that the summary states and the note does not, or states of something else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from transforms.checks.case import Case, Flag
from transforms.checks.wording import FUNCTION_WORDS, stem
from transforms.lexicon import word_set
from transforms.quantities import Quantity, same_unit

# A drug or a measure stands so near to its value, in characters.
_NEAR = 40
# Words to either side of a number that show which one in the note it is.
_REACH = 6
_MAX_MENTIONS = 40
_WORD = re.compile(r"[^\W\d_][^\W_-]{2,}")
_BREAK = re.compile(r"[.;:!?\n](?=\s)|, |\b(?:and|then|for|with|by|from)\b")
# Words beside a value that do not say what it is the value of.
_NO_SUBJECT = word_set(
    "dose doses dosage total daily twice once day days level levels value values rate about approximately around nearly almost least",
    "maximum up than tablet tablets capsule capsules oral orally intravenous intravenously week month every per was were increased reduced",
    "decreased measuring size diameter given started high low normal range max min mean first second third initial initially then later",
    "tapered titrated",
)
# Values of these units belong to a drug or a measure; a duration or a distance may belong to anything.
_VALUE_UNITS = frozenset(
    ("mg", "mcg", "g", "ng", "unit", "meq", "mmol", "mmhg", "bpm", "%", "°c", "°f", "kg", "lb", "puff", "tablet", "drop")
)


def check_numbers(case: Case) -> Iterator[Flag]:
    """UNSUPPORTED_NUMBER: the summary states a number that the note does not, nor as much in another unit ("14 days" for "2 weeks").

    Also a pair such as "120/90" of which the note has both numbers, but each only in other pairs. Numbers of dates are left to `dates`.
    """
    for quantity in case.stated:
        if quantity.number not in case.supported and quantity.measure not in case.supported_measures:
            yield _beside(case, "UNSUPPORTED_NUMBER", quantity, _of_same_subject(case, quantity))
    yield from _unknown_pairs(case)


def check_units(case: Case) -> Iterator[Flag]:
    """UNSUPPORTED_UNIT: the note has the number with another unit, where its surroundings are most like those in the summary."""
    for quantity in case.stated:
        known = case.numbers.get(quantity.number, ())
        if quantity.unit is None or any(q.unit and same_unit(quantity.unit, q.unit) for q in known):
            continue
        place = _nearest(case, quantity, known)
        if place is not None and place.unit and quantity.measure not in case.supported_measures:
            yield Flag("UNSUPPORTED_UNIT", quantity.start, quantity.end, place.start, place.end)


def _nearest(case: Case, quantity: Quantity, known: Sequence[Quantity]) -> Quantity | None:
    """The one of the note's quantities with the most of the words around; None without a shared word, a bare number before others."""
    if all(q.unit for q in known):
        return known[0] if known else None
    own = case.summary_wording.near(quantity.start, quantity.end, _REACH)
    shared = [len(own & case.note_wording.near(q.start, q.end, _REACH)) for q in known[:_MAX_MENTIONS]]
    best = max(range(len(shared)), key=lambda i: (shared[i], known[i].unit is None))
    return known[best] if shared[best] else None


def check_values(case: Case) -> Iterator[Flag]:
    """VALUE_MISMATCH: the note has the number, but gives the drug or measure beside it other values in this unit and never this one."""
    for quantity in case.stated:
        if quantity.unit in _VALUE_UNITS and quantity.number in case.supported:
            known = _of_same_subject(case, quantity)
            if known and all(other.number != quantity.number and other.measure != quantity.measure for other in known):
                yield _beside(case, "VALUE_MISMATCH", quantity, known)


def _beside(case: Case, code: str, quantity: Quantity, known: Sequence[Quantity]) -> Flag:
    """A flag with the first of the note's quantities that it is compared with."""
    return Flag(code, quantity.start, quantity.end, *((known[0].start, known[0].end) if known else ()))


def _of_same_subject(case: Case, quantity: Quantity) -> list[Quantity]:
    """The note's quantities of the same unit that stand beside the same drug or measure."""
    subjects = _subjects(case.summary_lower, quantity)
    if not subjects or quantity.unit is None:
        return []
    folded = case.note_lower
    return [q for q in case.units.get(quantity.unit, ()) if q.stated and not subjects.isdisjoint(_subjects(folded, q))]


def _subjects(folded: str, quantity: Quantity) -> frozenset[str]:
    """The stem of the nearest word that may say what a quantity is of: before it in its clause, else "of" what it is."""
    window = max(0, quantity.start - _NEAR)
    while window and folded[window - 1].isalnum():
        window += 1
        if window >= quantity.start:
            break
    for match in _BREAK.finditer(folded, window, quantity.start):
        window = match.end()
    before = [word for word in _WORD.findall(folded, window, quantity.start) if _may_be_subject(word)]
    if before:
        return frozenset((stem(before[-1]),))
    behind = _WORD.search(folded, quantity.end, quantity.end + 16)
    if behind and folded[quantity.end : behind.start()].strip() in ("", "of") and _may_be_subject(behind.group()):
        return frozenset((stem(behind.group()),))
    return frozenset()


def _may_be_subject(word: str) -> bool:
    return word not in FUNCTION_WORDS and word not in _NO_SUBJECT


def _unknown_pairs(case: Case) -> Iterator[Flag]:
    """Pairs such as a blood pressure whose numbers the note has, and pairs with others, but never together."""
    known: dict[tuple[str, str], Quantity] | None = None
    for left, right in _pairs(case.summary, case.stated):
        if known is None:
            known = {(a.number, b.number): a for a, b in _pairs(case.text, case.note_quantities)}
        near = [a for (one, two), a in known.items() if one == left.number or two == right.number]
        if near and (left.number, right.number) not in known and {left.number, right.number} <= case.supported.keys():
            yield Flag("UNSUPPORTED_NUMBER", left.start, right.end, near[0].start, near[0].end)


def _pairs(text: str, found: Sequence[Quantity]) -> Iterator[tuple[Quantity, Quantity]]:
    """Neighbours joined by "/" or "over": a value of two numbers, not a date."""
    for left, right in pairwise(sorted((q for q in found if q.stated), key=lambda q: q.start)):
        joint = text[left.end : right.start].strip().lower() if 0 < right.start - left.end < 8 else ""
        if joint in ("/", "over") and text[right.end : right.end + 1] != "/" and text[left.start - 1 : left.start] != "/":
            yield left, right
