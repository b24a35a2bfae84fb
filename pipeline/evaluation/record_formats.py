"""What collections call a right record: for each a reader of its gold into values, and the fields that it annotates."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.evaluation import record_coded, record_glaucoma, record_phee, record_synthea
from pipeline.evaluation.record_values import FIELDS, Value, record_values
from schemas.errors import ChartmillError, ConfigurationError


def _as_they_are(values: Sequence[Value]) -> Iterable[Value]:
    return values


@dataclass(frozen=True, slots=True)
class GoldFormat:
    """A collection's gold.

    `fields`: those it annotates; no other is scored. `read`: its JSON, parsed, as values; it raises LookupError, TypeError, ValueError or
    AttributeError for what is no such JSON. `comparable`: of our values those that it would have annotated, in its terms. `coded`: a note's
    gold may lack a field that its text tells; that field is then not scored in that note.
    """

    fields: tuple[str, ...]
    read: Callable[[Any], Iterable[Value]]
    comparable: Callable[[Sequence[Value]], Iterable[Value]] = _as_they_are
    coded: bool = False

    def gold_values(self, gold: str | Mapping[str, Any]) -> list[Value]:
        """Raises UnreadableGold, which quotes nothing."""
        try:
            parsed = json.loads(gold) if isinstance(gold, str) else gold
            return self._scored(self.read(parsed))
        except (LookupError, TypeError, ValueError, AttributeError):
            raise UnreadableGold("gold of another form") from None

    def said_values(self, record: Mapping[str, Any], gold: Sequence[Value]) -> list[Value]:
        """What a record of ours says that can be compared with this gold."""
        told = {value.field for value in gold}
        return [value for value in self._scored(self.comparable(record_values(record))) if not self.coded or value.field in told]

    def _scored(self, values: Iterable[Value]) -> list[Value]:
        return [value for value in values if value.field in self.fields and value.keys]


class UnreadableGold(ChartmillError):
    """Gold that is no JSON or not of the format's shape."""


def _read_record(gold: Mapping[str, Any]) -> list[Value]:
    """RECORD_SCHEMA as JSON: what `chartmill sample` writes; leaves may be missing."""
    record = gold.get("record", gold)
    if not set(record) & {"age", "problems", "medications", "observations"}:
        raise ValueError("no record")
    return record_values(record)


FORMATS = {
    "chartmill": GoldFormat(FIELDS, _read_record),
    "synthea": GoldFormat(record_synthea.FIELDS, record_synthea.read, record_synthea.comparable),
    "glaucoma": GoldFormat(record_glaucoma.FIELDS, record_glaucoma.read),
    "phee": GoldFormat(record_phee.FIELDS, record_phee.read),
    "neiss": GoldFormat(record_coded.NEISS_FIELDS, record_coded.read_neiss, record_coded.diagnosis_classes, coded=True),
    "vaers": GoldFormat(record_coded.VAERS_FIELDS, record_coded.read_vaers, coded=True),
}


def gold_format(name: str) -> GoldFormat:
    """Raises ConfigurationError for an unknown name."""
    if name not in FORMATS:
        raise ConfigurationError(f"--gold-format: {name!r} is none of them; choices: {', '.join(FORMATS)}")
    return FORMATS[name]
