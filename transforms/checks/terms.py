"""Drugs and problems that the summary names and the note does not."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

from transforms.checks.case import Case, Flag, Span
from transforms.checks.wording import Wording
from transforms.terms import Term, fold_word, parts

_CODES = {"drug": "UNSUPPORTED_DRUG", "problem": "UNSUPPORTED_PROBLEM"}
# Words to either side of a name that show which name of the note it may have been confused with.
_REACH = 8


def check_terms(case: Case) -> Iterator[Flag]:
    """UNSUPPORTED_DRUG, UNSUPPORTED_PROBLEM: the summary names a drug or a problem that the note has under no name that is known.

    A problem is also supported by a kind of it (a carcinoma makes a neoplasm), by what it is a kind of, and by a telling word of its name
    anywhere in the note. Beside it stands the name in the note that is used most alike and that the summary lacks, if there is one.
    """
    if case.is_all_copied:
        return
    for term in case.summary_terms:
        if term.kind in _CODES and not case.is_copied(term.start) and not _is_supported(case, term):
            yield Flag(_CODES[term.kind], term.start, term.end, *(_likeliest(case, term) or (None, None)))


def _is_supported(case: Case, term: Term) -> bool:
    if term.kind == "drug":
        return case.note_naming.concepts.issuperset(parts(term.concept)) or _is_misspelt(case, term)
    return case.note_naming.has(term.concept, case.summary[term.start : term.end])


def _is_misspelt(case: Case, term: Term) -> bool:
    """Whether the note has the name with one letter wrong, missing, too many, or two exchanged."""
    name = fold_word(case.summary[term.start : term.end])
    return any(word[0] == name[0] and _is_one_apart(name, word) for word in case.note_naming.words if abs(len(word) - len(name)) < 2)


def _is_one_apart(one: str, other: str) -> bool:
    short, long = sorted((one, other), key=len)
    same = next((i for i, letter in enumerate(short) if letter != long[i]), len(short))
    if len(short) < len(long):
        return short[same:] == long[same + 1 :]
    exchanged = short[same : same + 2] == long[same : same + 2][::-1] and short[same + 2 :] == long[same + 2 :]
    return exchanged or short[same + 1 :] == long[same + 1 :]


def _likeliest(case: Case, term: Term) -> Span | None:
    """The name in the note, of the same kind and not in the summary, whose surroundings share the most words, if any."""
    said = {other.concept for other in case.summary_terms}
    own = _around(case.summary_wording, term)
    others = [other for other in case.note_terms if other.kind == term.kind and other.concept not in said]
    shared, place = max(((len(own & _around(case.note_wording, other)), -other.start) for other in others), default=(0, 0))
    return next(((other.start, other.end) for other in others if other.start == -place), None) if shared else None


def _around(wording: Wording, term: Term) -> frozenset[str]:
    first, stop = bisect_left(wording.starts, term.start), bisect_left(wording.starts, term.end)
    return wording.around(first, max(1, stop - first), _REACH)
