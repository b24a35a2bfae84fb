"""Gold of medication lines of glaucoma notes (OHSU; Chen et al. 2022, doi 10.1167/tvst.11.11.20): drugs with what belongs to each.

Also its span form, a list of `start, end, label, text`: then attributes stand alone, and offsets count too. Names that de-identification
has masked hold no words and are left out. Assertions are not judged: the collection marks some stopped drugs, not all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.evaluation.record_values import Value, span_of, text_keys

FIELDS = ("medications", "medications.dose", "medications.route", "medications.frequency", "medications.duration")
_ATTRIBUTES = {"strength": "dose", "dosage": "dose", "route": "route", "frequency": "frequency", "duration": "duration"}
_LABELS = {"DRUG": "medications"} | {name.upper(): f"medications.{ours}" for name, ours in _ATTRIBUTES.items()}


def read(gold: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Iterable[Value]:
    """The gold of one line, in either form."""
    if not isinstance(gold, Mapping):
        return _spans(gold)
    if set(gold) != {"medications"}:
        raise ValueError("not a line of medications")
    return _drugs(gold["medications"])


def _drugs(medications: Sequence[Mapping[str, Any]]) -> Iterator[Value]:
    for drug in medications:
        keys = text_keys(drug["name"])
        yield Value("medications", keys)
        for name, ours in _ATTRIBUTES.items():
            for text in drug.get(name) or ():
                yield Value(f"medications.{ours}", text_keys(text), keys)


def _spans(spans: Sequence[Mapping[str, Any]]) -> Iterator[Value]:
    for span in spans:
        if span["label"] in _LABELS:
            yield Value(_LABELS[span["label"]], text_keys(span["text"]), span=span_of(span))
