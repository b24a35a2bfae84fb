"""Whether a text is a conversation whose lines say who speaks: `Doctor: ...`, `[patient] ...`, `D: ...`.

Rule-based and linear in the length of the text. It does not know conversations without such tags.
"""

from __future__ import annotations

import re

# Who may speak, alone or with a number or an addition ("Guest_family_1"). A single letter counts only before a colon.
_TAG = re.compile(
    r"[ \t]{0,8}(?:\[\s?(?P<bracketed>(?:doctor|patient|clinician|physician|nurse|provider|interviewer|speaker|family|caregiver|guest)"
    r"[a-z_ 0-9]{0,16})\]|(?P<named>(?:doctor|dr|patient|pt|clinician|physician|nurse|provider|interviewer|speaker|family|caregiver|guest)"
    r"[a-z_0-9]{0,16}|[dp])[ \t]?:)",
    re.IGNORECASE,
)
_MIN_SPEAKERS = 2
_MIN_SHARE = 0.5


def is_dialogue(text: str) -> bool:
    """Whether at least half of the lines that are not blank begin with a speaker's tag, and at least two speakers take turns."""
    lines = [line for line in text.splitlines() if line.strip()]
    tags = [match["bracketed"] or match["named"] for match in map(_TAG.match, lines) if match]
    return len(tags) >= _MIN_SHARE * len(lines) and len({tag.strip().lower() for tag in tags}) >= _MIN_SPEAKERS
