"""Problems of running text: what the vocabulary names, with what the text says of it, where no list has it already.

A problem that is only talked about (a risk, a condition) is left out. It knows no grammar: see `transforms.context`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from schemas.record import Assertion
from transforms.context import Context
from transforms.lexicon import word_set
from transforms.list_items import Closed
from transforms.sections import Page
from transforms.terms import Term, fold_name
from transforms.words import Phrases

Span = tuple[int, int]
Entity = dict[str, Any]
# Folded words, and the assertion.
Name = tuple[str, str]

_MAX_WORDS = 10
# Of emergency notes.
_SHORT = Phrases(
    r"\b(?:lacs?|fbs?|abrs?|abras|frac|fracs|fxs?|amput|disloc|contu|contus|hemat|avuls)\b",
    "abr abra abrs ampu avul cont disl fb fbs frac fx fxs hema lac lacs",
)
# What stands there is no finding of the patient, or a reader of its own takes care of it.
_NOT_READ = word_set("allergies instructions immunizations discussion follow_up")


def read_problem_mentions(
    page: Page, terms: Sequence[Term], context: Context, taken: Sequence[Span], listed: Sequence[Entity]
) -> list[Entity]:
    """Problems, in order of the note. `taken`: characters in which none is looked for. `listed`: what lists name, maybe in more words."""
    mentions = list(_mentions(page, terms, context, taken))
    names, known = list(map(_name, mentions)), list(map(_name, listed))
    said = {*known, *_in_more_words([*known, *names])}
    return [mention for mention, name in zip(mentions, names, strict=True) if name not in said]


def _mentions(page: Page, terms: Sequence[Term], context: Context, taken: Sequence[Span]) -> Iterator[Entity]:
    closed = Closed(taken)
    for start, end in _problems(page, terms):
        if not closed.holds(start):
            section = page.section_at(start)
            said = None if section in _NOT_READ else _said(section, context.said(start))
            if said is not None:
                yield {"name": page.leaf(start, end, said), "onset": None, "codes": [], "readers": ["rules"]}


def _problems(page: Page, terms: Sequence[Term]) -> list[Span]:
    """Characters of what the vocabulary names and of the short forms that it leaves out, which mean other things in other texts."""
    named = [(term.start, term.end) for term in terms if term.kind == "problem"]
    starts = {start for start, _ in named}
    return sorted([*named, *(match.span() for match in _SHORT.finditer(page.words) if match.start() not in starts)])


def _name(entity: Entity) -> Name:
    leaf = entity["name"]
    return fold_name(leaf["text"].lower()), leaf["assertion"]


def _in_more_words(names: Sequence[Name]) -> Iterator[Name]:
    """Names within longer ones, with their assertion: "sinusitis" is not said anew where "chronic sinusitis" is."""
    for name, said in set(names):
        words = name.split()[:_MAX_WORDS]
        for length in range(1, len(words)):
            yield from ((" ".join(words[first : first + length]), said) for first in range(len(words) - length + 1))


def _said(section: str | None, said: Assertion | None) -> Assertion | None:
    """Under a family's heading a problem is the family's; one that the family does not have is no finding."""
    if section != "family_history" or said is None:
        return said
    return None if said is Assertion.ABSENT else Assertion.FAMILY
