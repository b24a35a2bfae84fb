"""Summaries that stop before their end, and notes of which the model did not see the whole."""

from __future__ import annotations

import re
from collections.abc import Iterator

from transforms.checks.case import Case, Flag

_CLOSED = re.compile(r"[.!?\u2026:;][\"'\u201d\u2019)\]]*\s*\Z")


def check_truncation(case: Case) -> Iterator[Flag]:
    """TRUNCATED_SUMMARY: generation ran into its limit, or the last sentence is open. SOURCE_CUT: the model did not see the whole note."""
    if case.finish == "length" or (case.summary.strip() and not _CLOSED.search(case.summary) and not _ends_like_source(case)):
        yield Flag("TRUNCATED_SUMMARY")
    if case.tokens_dropped > 0:
        yield Flag("SOURCE_CUT")


def _ends_like_source(case: Case) -> bool:
    """Whether the summary ends where a sentence of the note does: an item of a list has no full stop in the note either."""
    end = len(case.summary.rstrip())
    copied = {source_end for _, stop, source_end in case.copies if stop >= end}
    if copied:
        return any(stop in copied for _, stop in case.sentences)
    line = case.summary.rstrip()[-24:].rpartition("\n")[2]
    at = case.text.find(line)
    return at >= 0 and not case.text[at + len(line) : at + len(line) + 2].strip(" \t\r")[:1].strip()
