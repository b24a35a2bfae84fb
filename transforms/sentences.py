"""Where the sentences of a clinical text begin and end.

Rule-based, deterministic and linear in the length of the text: one pass of regular expressions that cannot backtrack
over more than a run of punctuation. It knows the shapes of clinical English (titles, dosing abbreviations, decimals,
initials, numbered lists, headings, hard-wrapped lines). It does not know grammar: a sentence that ends in an
abbreviation and is followed by a lowercase word is joined to the next one.

The abbreviation lists were compiled for this project from common clinical and scholarly usage; none is borrowed.
"""

import re
from collections.abc import Iterator

# Longest span, in characters: a machine-written note without any punctuation must still be cut somewhere.
MAX_SENTENCE_CHARS = 1_500

# Abbreviations that are practically always followed by what they belong to ("Dr. Smith", "vs. placebo").
_NEVER_FINAL = frozenset(
    """
    dr drs mr mrs ms prof st rev hon capt sgt lt col gen rn
    vs v cf e.g i.e eg ie viz approx ca circa incl excl resp
    fig figs tab ref refs eq eqs sec vol pp ed eds
    temp wt ht hx pt pts dx rx tx sx fx s/p h/o c/o w/o
    inj tabs cap caps susp sol supp oint
    al dept univ assoc
    """.split()
)

# Abbreviations that may also close a sentence: they end one only before a capital letter, a list mark or a quote.
_MAYBE_FINAL = frozenset(
    """
    etc jr sr inc ltd co corp md do phd dds dvm
    hr hrs min mins sec secs wk wks mo mos yr yrs
    mg mcg kg gm ml dl cc cm mm oz lb lbs mmol meq iu bpm
    po iv im sc sq sl pr prn qd bid tid qid qhs qam qpm ac pc hs stat od os ou
    jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun
    """.split()
)

# Abbreviations only before a number ("No. 3"); otherwise an ordinary word ("no.").
_BEFORE_NUMBER = frozenset("no nos nr p para art grade".split())

_LINE_BREAK = re.compile(r"\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
# A run of terminal marks, its closing quotes and brackets, then white space or the end. The look-behind starts a match
# only at the head of a run and the possessive quantifiers never give back, so long runs stay linear.
_TERMINAL = re.compile(r"(?<![.!?\u2026])[.!?\u2026]++[\"'\u201d\u2019)\]}]*+(?=\s|\Z)")
# A missing space after a full stop: "no fever.The patient".
_GLUED = re.compile(r"(?<=[a-z]{3})\.(?=[A-Z][a-z]+\s)")
_BULLET_NUMBER = re.compile(r"[(\[]?(?:\d{1,3}|[A-Za-z]|[ivxIVX]{1,4})")
_DOTTED = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")
_OPENERS = "\"'\u201c\u2018([{"
_TOKEN_WINDOW = 24  # characters looked at before a full stop: longer than any abbreviation
# Who speaks next, as transcripts tag it; after an end mark it opens a sentence whatever its case.
_SPEAKER = re.compile(
    r"\s{0,8}\[(?:doctor|patient|clinician|physician|nurse|provider|interviewer|speaker|family|caregiver)[a-z_ 0-9]{0,12}\]"
)
_WRAP_MIN_CHARS = 50  # a shorter line is taken as a finished line, not as a hard-wrapped one


def split_sentences(text: str, max_chars: int = MAX_SENTENCE_CHARS) -> list[tuple[int, int]]:
    """Return the character spans [start, end) of the sentences of `text`, in order.

    Spans do not overlap, start and end with a character that is not white space, and together cover every such
    character. A line break ends a sentence unless the line looks hard-wrapped (long, no closing mark, next line
    begins in lower case). A span is at most `max_chars` characters long: longer ones are cut at white space if there is
    some in their second half, else hard. An empty or blank text has no sentences. Raises ValueError if `max_chars` < 2.
    """
    if max_chars < 2:
        raise ValueError(f"max_chars must be at least 2, got {max_chars}")
    spans: list[tuple[int, int]] = []
    for block_start, block_end in _blocks(text):
        start = block_start
        for cut in _cuts(text, block_start, block_end):
            _append(spans, text, start, cut, max_chars)
            start = cut
        _append(spans, text, start, block_end, max_chars)
    return spans


def _blocks(text: str) -> Iterator[tuple[int, int]]:
    """Yield spans of lines, hard-wrapped ones joined."""
    start = line_start = 0
    for match in _LINE_BREAK.finditer(text):
        if not _is_wrapped(text, line_start, match.start(), match.end()):
            yield start, match.start()
            start = match.end()
        line_start = match.end()
    yield start, len(text)


def _is_wrapped(text: str, line_start: int, line_end: int, next_start: int) -> bool:
    if line_end - line_start < _WRAP_MIN_CHARS or next_start >= len(text):
        return False
    before, after = text[line_end - 1], text[next_start]
    return after.islower() and (before.isalnum() or before in ",-")


def _cuts(text: str, start: int, end: int) -> Iterator[int]:
    """Yield the offsets inside [start, end) at which a sentence ends, ascending."""
    sentence_start = start
    for match in _ends(text, start, end):
        if match.end() < end and _ends_sentence(text, sentence_start, match, end):
            yield match.end()
            sentence_start = match.end()


def _ends(text: str, start: int, end: int) -> Iterator[re.Match[str]]:
    """Yield the candidate ends of both patterns in order of position."""
    glued = _GLUED.finditer(text, start, end)
    pending = next(glued, None)
    for match in _TERMINAL.finditer(text, start, end):
        while pending is not None and pending.start() < match.start():
            yield pending
            pending = next(glued, None)
        yield match
    while pending is not None:
        yield pending
        pending = next(glued, None)


def _ends_sentence(text: str, sentence_start: int, match: re.Match[str], end: int) -> bool:
    """Tell whether the terminal mark of `match` closes the sentence that began at `sentence_start`."""
    if _SPEAKER.match(text, match.end(), end):
        return True
    if match.group() != ".":  # "?", "!", "...", or a full stop before a closing quote or bracket
        return not _next_char(text, match.end(), end).islower()
    token_start = max(sentence_start, match.start() - _TOKEN_WINDOW)
    before = text[token_start : match.start()]
    token = before.split()[-1] if before.strip() and not before[-1].isspace() else ""
    if _is_list_mark(text, sentence_start, match.start(), token):
        return False
    following = _next_char(text, match.end(), end)
    word = token.lstrip(_OPENERS)
    lower = word.lower()
    if lower in _NEVER_FINAL:
        return False
    if lower in _BEFORE_NUMBER:
        return not following.isdigit()
    if len(word) == 1 and word.isalpha() and word.isupper():  # an initial, or the E of E. coli
        return False
    if lower in _MAYBE_FINAL or _DOTTED.fullmatch(word):
        return not (following.islower() or following.isdigit())
    return True


def _is_list_mark(text: str, sentence_start: int, dot: int, token: str) -> bool:
    """Tell whether the full stop belongs to a list mark such as "3." at the head of the sentence."""
    if not token or not _BULLET_NUMBER.fullmatch(token):
        return False
    head = text[max(sentence_start, dot - len(token) - _TOKEN_WINDOW) : dot - len(token)]
    return not any(char.isalnum() for char in head)


def _next_char(text: str, start: int, end: int) -> str:
    """Return the first character after white space and opening quotes, or an empty string."""
    for index in range(start, min(end, start + _TOKEN_WINDOW)):
        char = text[index]
        if not char.isspace() and char not in _OPENERS:
            return char
    return ""


def _append(spans: list[tuple[int, int]], text: str, start: int, end: int, max_chars: int) -> None:
    """Trim [start, end) and append it, cut into pieces of at most `max_chars` characters."""
    while True:
        while start < end and text[start].isspace():
            start += 1
        while end > start and text[end - 1].isspace():
            end -= 1
        if start == end:
            return
        if end - start <= max_chars:
            spans.append((start, end))
            return
        cut = _space_before(text, start + max_chars // 2, start + max_chars)
        last = cut
        while text[last - 1].isspace():
            last -= 1
        spans.append((start, last))
        start = cut


def _space_before(text: str, low: int, high: int) -> int:
    """Return the last offset in (low, high] that has white space on either side, or `high`."""
    for index in range(high, low, -1):
        if text[index - 1].isspace() or text[index].isspace():
            return index
    return high
