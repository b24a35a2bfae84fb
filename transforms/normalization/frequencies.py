"""How often a drug is taken, as times per day: "twice daily" and "q12h" are 2, "every other day" is 0.5, "once a week" is 1/7.

The whole phrase has to be understood, else there is no number: ranges ("q4-6h"), months, meals without a count and "as directed" have none.
"As needed" does not change the number, which then is the most.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from transforms.spoken_numbers import VALUES

_PHRASES = {
    Fraction(24): "hourly|qh|every hour",
    Fraction(4): "qid|qds",
    Fraction(3): "tid|tds",
    Fraction(2): "bid|bd",
    Fraction(1): "daily|once daily|qd|od|qday|q day|q daily|every day|each day|a day|per day|qhs|hs|q hs|qam|q am|qpm|q pm|nocte|mane"
    "|nightly|with breakfast|before breakfast|with lunch|with dinner|with supper|before bed|before bedtime"
    "|in morning|in am|in pm|in the am|in the pm|q d",
    Fraction(1, 2): "qod|eod|every other day|every second day|alternate days|on alternate days",
    Fraction(1, 7): "weekly|once weekly|qweek|q week|every week|each week|qweekly|q weekly",
    Fraction(1, 14): "every other week|every second week|fortnightly",
}
_KNOWN = {phrase: times for times, phrases in _PHRASES.items() for phrase in phrases.split("|")}
_NEEDED = r"(?:as|if|when|where)[ ](?:needed|required|necessary)|prn"
_MEALS = r"(?:meals|food|breakfast|lunch|dinner|supper|milk|water)"
_WHEN = rf"(?:with|before|after)[ ]{_MEALS}|before[ ]bed(?:time)?|at[ ](?:bedtime|night)|in[ ]the[ ](?:morning|afternoon|evening)|ac|pc|hs"
_NEEDED_BEHIND = re.compile(rf"[ ,(]{{1,3}}(?:{_NEEDED})\)?$")
_WHEN_BEHIND = re.compile(rf"[ ,(]{{1,3}}(?:{_WHEN})\)?$")
_MOMENT = re.compile(r"(?:(?:every|each|in the|at|the)[ ])?(?P<moment>morning|noon|afternoon|evening|night|bedtime|midnight)")
_AND = re.compile(r"[ ]and[ ]|, ?")

_WORDS = "|".join(VALUES)
_TIMES = re.compile(
    rf"(?:(?P<adverb>once|twice|thrice)|(?P<count>\d{{1,2}}|{_WORDS})(?:[ ]times?|[ ]?x)|x[ ]?(?P<behind>\d{{1,2}}))"
    r"(?:[ ]?/[ ]?|[ ](?:an?|per|each|every|in a)[ ]|[ ]?)(?P<period>hour|day|daily|d|week|weekly|wk)"
)
_EVERY = re.compile(
    rf"(?:every|each|q)[ ]?(?P<every>\d{{1,3}}|{_WORDS})[ -]?(?P<period>h|hr|hrs|hours?|min|mins|minutes?|d|days?|w|wk|wks|weeks?)"
)
_HOURLY = re.compile(r"(?P<every>\d{1,2})[ -]?(?P<period>h)ourly")
_ADVERBS = {"once": 1, "twice": 2, "thrice": 3}
# How many of a period make a day, by its first letter.
_A_DAY = {"m": Fraction(1440), "h": Fraction(24), "d": Fraction(1), "w": Fraction(1, 7)}


@lru_cache(maxsize=4096)
def times_per_day(written: str) -> float | None:
    """Times per day, None where the phrase as a whole does not tell."""
    phrase = _plain(written)
    times = _times(_NEEDED_BEHIND.sub("", phrase))
    return None if times is None else float(times)


def _plain(written: str) -> str:
    """Lower case, single blanks, abbreviations without their points, no punctuation at either end."""
    phrase = re.sub(r"(?<=[a-z])\.", "", " ".join(written.lower().split()))
    return phrase.strip(" ,;:.()").replace("-daily", " daily").replace("times-a-day", "times a day")


def _times(phrase: str) -> Fraction | None:
    known = _KNOWN.get(phrase) or _counted(phrase) or _every(phrase) or _moments(phrase)
    if known is None and (shorter := _WHEN_BEHIND.sub("", phrase)) != phrase:
        # "twice daily with meals": when in the day does not change how often.
        known = _KNOWN.get(shorter) or _counted(shorter) or _every(shorter)
    return known


def _counted(phrase: str) -> Fraction | None:
    match = _TIMES.fullmatch(phrase)
    if match is None:
        return None
    count = _ADVERBS.get(match["adverb"]) or _whole(match["count"] or match["behind"])
    return count * _A_DAY[match["period"][0]] if count else None


def _every(phrase: str) -> Fraction | None:
    match = _EVERY.fullmatch(phrase) or _HOURLY.fullmatch(phrase)
    every = _whole(match["every"]) if match else 0
    return _A_DAY[match["period"][0]] / every if match and every else None


def _moments(phrase: str) -> Fraction | None:
    """ "every morning", "in the morning and at night": once for each moment of the day, if all differ."""
    found = [_MOMENT.fullmatch(part) for part in _AND.split(phrase)]
    moments = [match["moment"] for match in found if match]
    return Fraction(len(moments)) if len(moments) == len(found) == len(set(moments)) else None


def _whole(written: str) -> int:
    return int(written) if written.isdigit() else VALUES[written]
