"""Summaries that are only the head of their note."""

from __future__ import annotations

from collections.abc import Iterator

from transforms.checks.case import Case, Flag


def check_lead(case: Case) -> Iterator[Flag]:
    """LEAD_COPY: the summary is how the note begins, word for word, and the note goes on."""
    said = case.summary.split()
    head = case.text.split(None, len(said))
    if said and len(head) > len(said) and head[: len(said)] == said:
        start = len(case.text) - len(case.text.lstrip())
        yield Flag("LEAD_COPY", None, None, start, len(case.text[: len(case.text) - len(head[-1])].rstrip()))
