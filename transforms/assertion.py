"""What a note says of a finding: present, absent, possible, of the family, or past.

Trigger phrases around a finding, after NegEx (Chapman et al. 2001, doi 10.1006/jbin.2001.1029) and its extension to possible,
historical and family findings, ConText (Harkema et al. 2009, doi 10.1016/j.jbi.2009.05.002). Only the triggers that a list item or a
short clause needs; a trigger's scope is the item, not the sentence.
"""

from __future__ import annotations

import re

from schemas.record import Assertion

_BEFORE = (
    (
        Assertion.ABSENT,
        r"no evidence of|no signs? of|no history of|negative for|absence of|free of|ruled out|denies|denied|without|never had|not|no",
    ),
    (Assertion.FAMILY, r"family history of|family hx of|fhx? of"),
    (
        Assertion.HISTORICAL,
        r"(?:past |prior |previous |remote )?(?:history|hx) of|h/o|s/p|status post|previous|prior|former|remote|resolved|old",
    ),
    (
        Assertion.POSSIBLE,
        r"possible|possibly|probable|probably|suspected|suspicion of|suspicious for|likely|questionable|concern for|rule out|r/o|\?"
        r"|(?:the )?differential(?: diagnosis)?(?: includes?|:)",
    ),
)
_AFTER = (
    (Assertion.ABSENT, r"(?:was |were |is |has been )?(?:ruled out|excluded|not (?:present|found|seen))|unlikely|negative"),
    (
        Assertion.HISTORICAL,
        r"(?:was |is |now |has )?(?:resolved|stopped|discontinued|d/c'?e?d|dc'd|completed|no longer taking|not taking|self-discontinued)",
    ),
    (Assertion.POSSIBLE, r"(?:(?:is |are )?(?:possible|suspected|questionable|likely|probable)|not ruled out|\?)\)?$"),
)


def _compiled(triggers: tuple[tuple[Assertion, str], ...], shape: str) -> re.Pattern[str]:
    return re.compile(shape % "|".join(f"(?P<{assertion}>{phrases})" for assertion, phrases in triggers))


_LEADING = _compiled(_BEFORE, r"\s*(?:%s)(?:(?<=\?)|\b)\s*")
_TRAILING = _compiled(_AFTER, r"(?:^|[\s,;:(\-\u2013])(?:%s)(?:(?<=\?)|\b)")


def leading_trigger(folded: str, start: int, end: int) -> tuple[Assertion | None, int]:
    """The assertion that a trigger at the head of [start, end) makes, and where the finding begins after it."""
    match = _LEADING.match(folded, start, end)
    if match is None or match.end() >= end:
        return None, start
    return Assertion(str(match.lastgroup)), match.end()


def trailing_trigger(folded: str, start: int, end: int) -> tuple[Assertion | None, int]:
    """The assertion that the first trigger within [start, end) makes, and where it begins (`end` without one)."""
    match = _TRAILING.search(folded, start, end)
    if match is None:
        return None, end
    return Assertion(str(match.lastgroup)), match.start()
