"""Sentence spans: what ends one, what does not, and what always holds."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.sentences import split_sentences

ALPHABET = st.sampled_from(list("aB1.!? \n\r\t\"')(-,:;\u2026\u201d\u2028\x85\u00a0\u00e9\U0001f600"))


def pieces(text: str) -> list[str]:
    return [text[start:end] for start, end in split_sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He coughs. She sneezes.", ["He coughs.", "She sneezes."]),
        ("Seen by Dr. Grey and Mrs. Hall. Both agree.", ["Seen by Dr. Grey and Mrs. Hall.", "Both agree."]),
        ("Drops q.i.d. for a week. Then stop.", ["Drops q.i.d. for a week.", "Then stop."]),
        ("Drops b.i.d. Review soon.", ["Drops b.i.d.", "Review soon."]),
        ("Drug vs. placebo, e.g. Zinc. Fine.", ["Drug vs. placebo, e.g. Zinc.", "Fine."]),
        ("Room No. 4 is cold. No. It is warm.", ["Room No. 4 is cold.", "No.", "It is warm."]),
        ("Took approx. 5 ml. Slept.", ["Took approx. 5 ml.", "Slept."]),
        ("A dose of 2.5 mg was given. Well tolerated.", ["A dose of 2.5 mg was given.", "Well tolerated."]),
        ("Grew E. coli again. Treated.", ["Grew E. coli again.", "Treated."]),
        ("J. R. Finch called. No answer.", ["J. R. Finch called.", "No answer."]),
        ('She said "stop." Then she left.', ['She said "stop."', "Then she left."]),
        ("Any pain? None! Good...", ["Any pain?", "None!", "Good..."]),
        ("no rash.The skin is dry.", ["no rash.", "The skin is dry."]),
        ("stable. denies pain.", ["stable.", "denies pain."]),
    ],
)
def test_full_stops(text: str, expected: list[str]) -> None:
    assert pieces(text) == expected


def test_lines_lists_and_headings_end_sentences() -> None:
    text = "PLAN\n1. Rest at home.\n2. Fluids\n- call us\n\nFOLLOW-UP:\nin a week"
    assert pieces(text) == ["PLAN", "1. Rest at home.", "2. Fluids", "- call us", "FOLLOW-UP:", "in a week"]


def test_numbered_items_in_one_line() -> None:
    assert pieces("1. Zinc daily. 2. Iron at night.") == ["1. Zinc daily.", "2. Iron at night."]


def test_hard_wrapped_lines_are_joined() -> None:
    text = "The cough began after a long walk in the cold rain and\nlasted for two weeks. It then\nstopped."
    assert pieces(text) == [
        "The cough began after a long walk in the cold rain and\nlasted for two weeks.",
        "It then",
        "stopped.",
    ]


@pytest.mark.parametrize("text", ["", " ", "\n\n", "\t \x85"])
def test_blank_text_has_no_sentences(text: str) -> None:
    assert split_sentences(text) == []


def test_long_span_is_cut_at_white_space() -> None:
    text = "word " * 100
    cut = [text[start:end] for start, end in split_sentences(text, max_chars=22)]
    assert set(cut) == {"word word word word"}


def test_bad_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="max_chars must be at least 2, got 1"):
        split_sentences("a", max_chars=1)


@given(st.text(ALPHABET, max_size=200) | st.text(max_size=200), st.integers(2, 60))
def test_spans_cover_everything_in_order(text: str, max_chars: int) -> None:
    spans = split_sentences(text, max_chars)
    covered: list[int] = []
    for start, end in spans:
        assert 0 < end - start <= max_chars
        assert text[start:end] == text[start:end].strip()
        covered += range(start, end)
    assert covered == sorted(set(covered))
    missing = set(range(len(text))) - set(covered)
    assert all(text[i].isspace() for i in missing)


@given(st.text(ALPHABET, max_size=80), st.text(ALPHABET, max_size=80))
def test_an_empty_line_separates(first: str, second: str) -> None:
    whole = split_sentences(f"{first}\n\n{second}")
    shift = len(first) + 2
    assert whole == split_sentences(first) + [(start + shift, end + shift) for start, end in split_sentences(second)]


@pytest.mark.parametrize("piece", [".", "a", "a. ", "\n", " ", ")", ". ", '."', "abc.Ab ", "1. ", "'. a"])
def test_time_is_linear(piece: str) -> None:
    def seconds(n_chars: int) -> float:
        text = piece * (n_chars // len(piece))
        start = time.process_time()
        split_sentences(text)
        return time.process_time() - start

    seconds(1_000)
    # Quadratic time would take the factor 20 squared: 400 times as long.
    assert seconds(200_000) < 120 * max(seconds(10_000), 0.002)


def test_a_speaker_tag_opens_a_sentence() -> None:
    text = "[doctor] any pain ? [patient] not today . [doctor] i see [sic] ! good"
    assert [text[a:b] for a, b in split_sentences(text)] == ["[doctor] any pain ?", "[patient] not today .", "[doctor] i see [sic] ! good"]
    turns = "D: Any fever?\nP: no\n[patient_guest]: she had one"
    assert turns.splitlines() == [turns[a:b] for a, b in split_sentences(turns)]
