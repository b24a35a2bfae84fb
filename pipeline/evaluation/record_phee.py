"""Gold of PHEE, adverse and therapeutic events in case reports (Sun et al. 2022, arXiv 2210.12560): treatment and subject of each event.

Scored are the sub-arguments that a record has a field for. Not scored: effects and disorders of the subject, which are arguments of an
event and not all problems that a sentence names. An event does not say which drug an attribute is of, so attributes stand alone.
Two forms: `events` with texts, and the published `annotations`, which have offsets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pipeline.evaluation.record_values import Keys, Value, age_keys, sex_keys, text_keys

FIELDS = (
    "age",
    "sex",
    "medications",
    "medications.dose",
    "medications.route",
    "medications.frequency",
    "medications.duration",
    "medications.reason",
)
_EVENT = {
    "age": "age",
    "sex": "sex",
    "drug": "medications",
    "dosage": "medications.dose",
    "route": "medications.route",
    "frequency": "medications.frequency",
    "duration": "medications.duration",
    "indication": "medications.reason",
}
_PUBLISHED = {
    ("Subject", "Age"): "age",
    ("Subject", "Gender"): "sex",
    ("Treatment", "Drug"): "medications",
    ("Treatment", "Dosage"): "medications.dose",
    ("Treatment", "Route"): "medications.route",
    ("Treatment", "Freq"): "medications.frequency",
    ("Treatment", "Duration"): "medications.duration",
    ("Treatment", "Disorder"): "medications.reason",
}
_KEYS: dict[str, Callable[[str], Keys]] = {"age": age_keys, "sex": sex_keys}


def read(gold: Mapping[str, Any]) -> Iterable[Value]:
    """The gold of one sentence, in either form."""
    return _published(gold["annotations"]) if "annotations" in gold else _events(gold["events"])


def _value(field: str, text: str, span: tuple[int, int] | None = None) -> Value:
    return Value(field, _KEYS.get(field, text_keys)(text), span=span)


def _events(events: Iterable[Mapping[str, Any]]) -> Iterator[Value]:
    for event in events:
        for name, ours in _EVENT.items():
            for text in event.get(name) or ():
                yield _value(ours, text)


def _published(annotations: Iterable[Mapping[str, Any]]) -> Iterator[Value]:
    for annotation in annotations:
        for event in annotation["events"]:
            for (argument, name), ours in _PUBLISHED.items():
                found = event.get(argument, {}).get(name)
                if found:
                    yield from _mentions(ours, found)


def _mentions(field: str, found: Mapping[str, Any]) -> Iterator[Value]:
    """A mention in several pieces is one value; it reaches from the first of them to the last."""
    for pieces, starts in zip(found["text"], found["start"], strict=True):
        span = min(starts), max(start + len(piece) for piece, start in zip(pieces, starts, strict=True))
        yield _value(field, " ".join(pieces), span)
