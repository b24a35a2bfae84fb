"""When something is to happen, in the words of a plan: "in 2 weeks", "on 3 March", "tomorrow", "as needed", "if no better in 3 days".

It knows words of time and nothing of what happens then. Every quantifier is bounded, and each place is tried once: linear in the length of
the note.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence

from transforms.dates import MONTH
from transforms.spoken_numbers import VALUES
from transforms.words import Phrases, Words

Span = tuple[int, int]

_COUNT = rf"(?:\d{{1,3}}|(?:a[ ])?few|(?:a[ ])?couple(?:[ ]of)?|several|{'|'.join(sorted(VALUES, key=len, reverse=True))}|an?)"
# "2/52" is how British notes write 2 weeks: days of 7, weeks of 52, months of 12.
_SPAN = (
    rf"(?:{_COUNT}(?:[ ]?(?:-|\u2013|to|or)[ ]?{_COUNT})?[ -]?"
    r"(?:hours?|hrs?|days?|weeks?|wks?|months?|mths?|mos?|years?|yrs?|(?<=\d)[hdwmy])|\d{1,2}/(?:7|52|12)(?!/))(?!\w)"
)
_MONTH = rf"{MONTH}(?!\w)"
_YEAR = r"(?:,?[ ](?:19|20)\d\d)?"
_DATE = (
    r"(?:(?:19|20)\d\d-\d\d-\d\d|\d{1,2}/\d{1,2}(?:/(?:\d{4}|\d\d))?|\d{1,2}\.\d{1,2}\.(?:\d{4}|\d\d)"
    rf"|\d{{1,2}}(?:st|nd|rd|th)?[ ](?:of[ ])?{_MONTH}{_YEAR}|{_MONTH}[ ]\d{{1,2}}(?:st|nd|rd|th)?{_YEAR})(?![\w/])"
)
_WEEKDAY = r"(?:mon|tues|wednes|thurs|fri|satur|sun)day"
_CLOCK = r"(?:[ ](?:at[ ])?(?:\d{1,2}:\d\d(?:[ ]?[ap]m)?|\d{1,2}[ ]?[ap]m))?"
_DAY = rf"(?:{_WEEKDAY}(?:,?[ ](?:the[ ])?{_DATE})?|(?:the[ ])?{_DATE}){_CLOCK}"

# `after`: a distance. `date`: a day or a month. `soon`: a day told from the note's. `unless`: a condition. `open`: no time of its own.
_WHEN = Phrases(
    r"(?<![\w/-])(?:"
    rf"(?P<after>(?:in|within|after)[ ](?:(?:the[ ](?:next|coming)|about|approximately|around|another)[ ])?{_SPAN})"
    rf"|(?P<date>(?:on|by)[ ]{_DAY}|in[ ](?:early[ ]|late[ ])?{_MONTH}(?:[ ](?:19|20)\d\d)?)"
    rf"|(?P<soon>tomorrow(?:[ ](?:morning|afternoon|evening))?|next[ ](?:week|month|year|{_WEEKDAY})"
    rf"|(?:later[ ])?this[ ](?:coming[ ])?(?:week|month|year|{_WEEKDAY}))"
    r"|(?P<unless>if[ ](?:no(?:t)?[ ](?:better|improved|improving|improvement|settled|settling|resolved|resolving)"
    rf"|(?:symptoms[ ])?(?:persists?|worsens?|persisting|worsening))(?:[ ](?:in|within|after|by)[ ]{_SPAN})?)"
    r"|(?P<open>as[ ](?:needed|required|scheduled|planned)|prn|if[ ](?:needed|required|necessary)"
    rf"|every[ ](?:other[ ])?(?:{_SPAN}|week|month|year)|annually|yearly)"
    r")(?!\w)",
    "afte annu as by ever if in late next on prn this tomo with year",
)
_BARE = re.compile(rf"[ ,:(]{{1,3}}(?P<when>{_SPAN}(?![ -](?:ago|later|old|course|history)))")
# "after the scan", "once the results are back", "if the pain returns": up to fourteen words, to the end of the clause.
_EVENT = re.compile(r"[ ](?P<when>(?:after|before|prior[ ]to|once|when|if)(?:[ ][^\s.,;:()]{1,24}){1,14})(?=[ ]?(?:[.,;:()\n]|$))")


class PlannedTimes:
    """The times that a text names, in order; characters, ends exclusive."""

    def __init__(self, words: Words) -> None:
        self._folded = words.folded
        self.matches: Sequence[re.Match[str]] = list(_WHEN.finditer(words))
        self._starts = [match.start() for match in self.matches]

    def __repr__(self) -> str:
        return f"PlannedTimes({len(self.matches)})"

    def within(self, start: int, end: int) -> Span | None:
        """The first time that lies in [start, end)."""
        index = bisect_left(self._starts, start)
        found = self.matches[index] if index < len(self.matches) else None
        return found.span() if found and found.end() <= end else None

    def behind(self, start: int, end: int) -> Span | None:
        """The time in [start, end) of what ends at `start`: also one without "in" right behind it, else what has to happen before."""
        bare = _BARE.match(self._folded, start, end)
        if bare:
            return bare.span("when")
        named, event = self.within(start, end), _EVENT.match(self._folded, start, end)
        return named if named or event is None else event.span("when")
