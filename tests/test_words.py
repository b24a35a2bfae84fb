"""Words and phrases: what is tried at few places is found as if it were tried everywhere."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

import transforms
from tests.openings import openings
from transforms import context, drug_names, labs, negation, procedures, sections
from transforms.sections import fold, read_page
from transforms.words import Phrases, Words


def all_phrases() -> Iterator[tuple[str, Phrases]]:
    for module in pkgutil.iter_modules(transforms.__path__):
        source = importlib.import_module(f"transforms.{module.name}")
        yield from ((f"{module.name}.{name}", value) for name, value in vars(source).items() if isinstance(value, Phrases))


PHRASES = dict(all_phrases())
# Parts of the phrases, whole words and cut ones, and what may stand between them.
_PARTS = sorted({part for phrases in PHRASES.values() for part in re.findall(r"[a-z]{1,20}", phrases.pattern.pattern)})
_MARKS = (" ", " ", " ", "  ", "\n", "-", "/", ".", ". ", ", ", ": ", "_", "'", "(", "2", "é", "\u0130", "\u017f", "")
texts = st.lists(st.sampled_from([*_PARTS, *_MARKS * 12]), max_size=60).map("".join)


def spans(matches: Iterator[re.Match[str]]) -> list[tuple[int, int]]:
    return [match.span() for match in matches]


@pytest.mark.parametrize("name", PHRASES)
def test_openings_are_all_that_a_match_may_begin_with(name: str) -> None:
    assert openings(PHRASES[name].pattern.pattern) == PHRASES[name].openings


def test_openings() -> None:
    assert openings(r"\b(?:st(?:op|ay)s?|a)\b") == {"stop", "stay", "a"}
    assert openings(r"(?<!\w)(?:re-?)?[kl]it{1,2}(?!\w)") == {"re", "reki", "reli", "kit", "kitt", "lit", "litt"}


@pytest.mark.parametrize("pattern", [r"\bst", r"(?:stop)?\d\b", r"\d+ days\b"])
def test_a_pattern_that_may_begin_or_end_within_a_word_has_no_openings(pattern: str) -> None:
    with pytest.raises(AssertionError):
        openings(pattern)


@given(texts, st.data())
def test_phrases_find_what_a_search_finds(text: str, data: st.DataObject) -> None:
    words = Words(fold(text))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    for phrases in PHRASES.values():
        assert spans(phrases.finditer(words)) == spans(phrases.pattern.finditer(words.folded))
        assert spans(phrases.finditer(words, start, end)) == spans(phrases.pattern.finditer(words.folded, start, end))
        first, plain = phrases.search(words, start, end), phrases.pattern.search(words.folded, start, end)
        assert (first and first.span()) == (plain and plain.span())


def test_a_word_that_the_end_cuts_is_what_stands_before_the_end() -> None:
    phrases, words = Phrases(r"\b(?:po|stop)\b", "po stop"), Words("it was positive")
    assert spans(phrases.finditer(words)) == []
    assert spans(phrases.finditer(words, 0, 9)) == spans(phrases.pattern.finditer(words.folded, 0, 9)) == [(7, 9)]


@given(texts)
def test_words_are_the_runs_of_letters(text: str) -> None:
    words = Words(fold(text))
    plain = list(re.finditer(r"[a-z]+", words.folded))
    assert (words.runs, words.starts) == ([match.group() for match in plain], [match.start() for match in plain])


def test_words_show_no_text() -> None:
    assert repr(Words("a secret")) == "Words(8 characters)"


# Patterns that open with what is rare in a text, beside the plain ones that they stand for.
_REWRITTEN = {
    "whole dates": (
        procedures._WHOLE_DATE,
        r"(?<!\d)(?:(?:19|20)\d{2}-\d{2}-\d{2}|\d{1,2}/\d{1,2}/(?:19|20)\d{2})(?!\d)",
    ),
    "results": (
        labs._NUMBER,
        r"(?<![\w.,/:+-])(?P<value>(?:[<>\u2264\u2265][ ]?)?(?:\d{1,3}(?:,\d{3})+|\d{1,7})(?:\.\d{1,4})?)"
        r"(?![\w:-]|[.,]\d|[ ]?/(?![ ]?(?:µl|μl|ul|ml|mm3|hpf|cumm)))",
    ),
    "ends of sentences": (sections.SENTENCE_END, r"(?<![. ][a-z])(?<!\bmr)(?<!\bms)(?<!\bmrs)(?<!\bdr)\.(?=\s|$)|\n"),
    "artificial tears": (drug_names._TEARS, r"(?<![\w/*.'-])(?:PF )?AT[s']?s?(?![\w/'-])"),
    "fluorouracil": (drug_names._FLUOROURACIL, r"(?<![\w/*.'-])5-?fu(?![\w'/-])"),
}
_PIECES = (
    "19 20 2019 07 1 12 345 1,234 .5 -05- /3/ / - . , : < > \u2264 ul /ml mm3 \n _ x 5-fu 5fu mr dr mrs . a .b PF AT ATs AT's ' \u0663 é"
)
pieces = st.lists(st.sampled_from([*_PIECES.split(" "), " ", " ", "\n"]), max_size=40).map("".join)


@pytest.mark.parametrize("name", _REWRITTEN)
@given(text=pieces)
def test_patterns_that_skip_fast_find_the_same(name: str, text: str) -> None:
    quick, plain = _REWRITTEN[name][0], re.compile(_REWRITTEN[name][1])
    assert [match.groupdict() | {"": match.span()} for match in quick.finditer(text)] == [
        match.groupdict() | {"": match.span()} for match in plain.finditer(text)
    ]


@given(texts.map(fold), st.integers(0, 60))
def test_the_last_start_of_a_clause_is_the_last_of_all(text: str, start: int) -> None:
    for module in (context, negation):
        every = re.compile(module._CLAUSE_START.pattern.removeprefix(".*"))
        last = [match.end() for match in every.finditer(text, min(start, len(text)))][-1:]
        found = module._CLAUSE_START.match(text, min(start, len(text)))
        assert ([found.end()] if found else []) == last


_ANSWERS = st.lists(st.sampled_from(["\n", "[patient]", "d", ":", " ", "no", "not", "yes", "i do", "[", "]", "_"]), max_size=30).map(
    "".join
)


@given(_ANSWERS)
def test_answers_are_found_by_two_patterns_as_by_one(text: str) -> None:
    one = re.compile("|".join(f"(?:{pattern.pattern})" for pattern in negation._ANSWERS))
    found = sorted(match.span() for pattern in negation._ANSWERS for match in pattern.finditer(text))
    assert found == [match.span() for match in one.finditer(text)]


@given(
    st.lists(st.sampled_from(["meto", "prolol", "caine", "sone", "mab", " ", " ", "-", "_", "5", "é", "a" * 20]), max_size=30).map("".join)
)
def test_stems_of_drugs_are_found_by_the_ends_of_words(text: str) -> None:
    folded = fold(text)
    assert spans(drug_names._with_stem(Words(folded))) == spans(drug_names._STEM.finditer(folded))


@given(st.lists(st.sampled_from(["Allergies: ", "PLAN\n", "pmh: asthma. ", "word ", "\n", "rx:", "HPI:\n"]), max_size=12).map("".join))
def test_places_in_headings(text: str) -> None:
    page = read_page(text)
    for offset in range(len(text) + 1):
        before = [[section for section in group if section.heading <= offset][-1:] for group in (page.inline, page.sections)]
        around = [section.name for (section,) in filter(None, before) if offset < section.end]
        assert page.section_at(offset) == next(iter(around), None)
        assert page.in_heading(offset) == any(s.heading <= offset < s.start for s in (*page.sections, *page.inline))
