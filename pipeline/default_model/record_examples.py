"""Examples for a model that writes records: public collections and synthetic notes as texts with records, in Parquet.

    python -m pipeline.default_model.record_examples --output records/ --phee phee/train.parquet --spans lines.parquet \
        --entities chemicals.parquet diseases.parquet --read notes.parquet --gold sample/

Each collection annotates only some fields. For the others stands what the rules read, so that a model learns one way of writing whatever a
text comes from; it learns the rules' mistakes there with it. Texts are cut into passages of a few sentences, with what lies within them.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import ConfigurationError
from transforms.record import parse_record
from transforms.record_merge import HEADS
from transforms.sections import Page, read_page
from transforms.sentences import split_sentences

Record = dict[str, Any]
Leaf = dict[str, Any]
Example = tuple[str, Record]
Span = tuple[int, int]
Reader = Callable[[Iterable[Mapping[str, Any]]], Iterator[Example]]

_MAX_WORDS = 110
_MEDICATION_PARTS = ("dose", "route", "frequency", "duration", "reason")
_PHEE_PARTS = {"dosage": "dose", "route": "route", "frequency": "frequency", "duration": "duration", "indication": "reason"}
_SPAN_PARTS = {"STRENGTH": "dose", "DOSAGE": "dose", "ROUTE": "route", "FREQUENCY": "frequency", "DURATION": "duration"}


def read_by_rules(rows: Iterable[Mapping[str, Any]]) -> Iterator[Example]:
    """Texts with what the rules read in them."""
    for row in rows:
        yield row["text"], parse_record(row["text"])


def read_phee(rows: Iterable[Mapping[str, Any]]) -> Iterator[Example]:
    """PHEE (Sun et al. 2022, arXiv 2210.12560): drugs with their attributes, age and sex. What an event says of no drug is left out."""
    for row in rows:
        page, record = read_page(row["text"]), parse_record(row["text"])
        events = json.loads(row["gold"])["events"]
        ages, sexes = ([text for event in events for text in event[name]] for name in ("age", "sex"))
        record |= {"age": _first(page, ages), "sex": _first(page, sexes)}
        record["medications"] = _unique([drug for event in events for drug in _phee_drugs(page, event)])
        yield row["text"], _without_overlaps(record)


def _phee_drugs(page: Page, event: Mapping[str, Any]) -> Iterator[Record]:
    """Attributes go to the event's first drug."""
    parts = {ours: _first(page, event[name]) for name, ours in _PHEE_PARTS.items()}
    for text in event["drug"]:
        leaf = _first(page, [text])
        if leaf is not None:
            yield _entity(leaf, parts)
            parts = {}


def read_spans(rows: Iterable[Mapping[str, Any]]) -> Iterator[Example]:
    """Lines of medications with spans `start, end, label` (OHSU glaucoma notes, Chen et al. 2022, doi 10.1167/tvst.11.11.20).

    An attribute belongs to the drug before it, at the beginning of a line to the first.
    """
    for row in rows:
        page, record = read_page(row["text"]), parse_record(row["text"])
        spans = sorted(_listed(row["spans"]), key=lambda span: span["start"])
        drugs = [_entity(page.leaf(span["start"], span["end"]), {}) for span in spans if span["label"] == "DRUG"]
        for span in (span for span in spans if span["label"] in _SPAN_PARTS and drugs):
            owner = next((drug for drug in reversed(drugs) if drug["name"]["start"] < span["start"]), drugs[0])
            part = _SPAN_PARTS[span["label"]]
            owner[part] = owner[part] or page.leaf(span["start"], span["end"])
        yield row["text"], _without_overlaps(record | {"medications": drugs})


def _listed(spans: Any) -> Sequence[Mapping[str, Any]]:
    listed: Sequence[Mapping[str, Any]] = json.loads(spans) if isinstance(spans, str) else spans or ()
    return listed


def read_entities(rows: Iterable[Mapping[str, Any]]) -> Iterator[Example]:
    """Sentences with `entities` of type Disease and Chemical (BC5CDR, Li et al. 2016, doi 10.1093/database/baw068; NCBI disease)."""
    for row in rows:
        page, record = read_page(row["text"]), parse_record(row["text"])
        found: dict[str, list[Leaf]] = {"Disease": [], "Chemical": []}
        behind: dict[str, int] = {}
        for entity in json.loads(row["gold"])["entities"]:
            leaf = _placed(page, entity["text"], behind.get(entity["text"], 0))
            if leaf is not None and entity["type"] in found:
                found[entity["type"]].append(leaf)
                behind[entity["text"]] = leaf["end"]
        record["problems"] = _unique([{"name": leaf, "onset": None} for leaf in found["Disease"]])
        if found["Chemical"]:
            record["medications"] = _unique([_entity(leaf, {}) for leaf in found["Chemical"]])
        yield row["text"], _without_overlaps(record)


def read_gold(folder: Path) -> Iterator[Example]:
    """The notes of a folder of `chartmill sample` with their records. Raises ConfigurationError for any other folder."""
    try:
        records = {row["note_id"]: row["record"] for row in pq.read_table(folder / "gold").to_pylist()}
        notes = pq.read_table(folder / "notes", columns=["note_id", "text"]).to_pylist()
    except (OSError, LookupError, pa.ArrowException):
        raise ConfigurationError("--gold: a folder without the notes/ and gold/ that `chartmill sample` writes") from None
    for row in notes:
        if row["note_id"] in records and row["text"]:
            yield row["text"], records[row["note_id"]]


# By option: how its rows are read, and the columns that they need.
READERS: Mapping[str, tuple[Reader, Sequence[str]]] = {
    "phee": (read_phee, ("text", "gold")),
    "spans": (read_spans, ("text", "spans")),
    "entities": (read_entities, ("text", "gold")),
    "read": (read_by_rules, ("text",)),
}


def _first(page: Page, texts: Sequence[str]) -> Leaf | None:
    return next((leaf for text in texts if (leaf := _placed(page, text, 0)) is not None), None)


def _placed(page: Page, text: str, behind: int) -> Leaf | None:
    """The first place of these words behind an offset; else the first of all."""
    words = rf"(?<!\w){re.escape(text.strip())}(?!\w)"
    match = re.compile(words).search(page.text, behind) or re.search(words, page.text)
    return page.leaf(*match.span()) if match and text.strip() else None


def _entity(name: Leaf, parts: Mapping[str, Leaf | None]) -> Record:
    return {"name": name} | {part: parts.get(part) for part in _MEDICATION_PARTS}


def _unique(entities: Sequence[Record]) -> list[Record]:
    """One per name, in the order of the text: a name that is said again says nothing new."""
    kept: dict[str, Record] = {}
    for entity in sorted(entities, key=lambda one: int(one["name"]["start"])):
        key = entity["name"]["text"].casefold()
        kept[key] = {part: value or kept.get(key, {}).get(part) for part, value in entity.items()}
    return list(kept.values())


def _without_overlaps(record: Record) -> Record:
    """Without problems of the rules where a drug stands that the collection has marked."""
    taken = [(drug["name"]["start"], drug["name"]["end"]) for drug in record["medications"]]

    def free(leaf: Leaf) -> bool:
        return not any(leaf["start"] < end and start < leaf["end"] for start, end in taken)

    return record | {"problems": [problem for problem in record["problems"] if free(problem["name"])]}


def passages(text: str, record: Record, max_words: int = _MAX_WORDS) -> Iterator[Example]:
    """The text in pieces of whole sentences, each with what lies within it; offsets are the piece's."""
    for start, end in _pieces(text, max_words):
        yield text[start:end], _within(record, start, end)


def _pieces(text: str, max_words: int) -> Iterator[Span]:
    begin = end = words = 0
    for start, stop in split_sentences(text):
        count = len(text[start:stop].split())
        if words and words + count > max_words:
            yield begin, end
            words = 0
        begin, end, words = start if not words else begin, stop, words + count
    if words:
        yield begin, end


def _within(record: Record, start: int, end: int) -> Record:
    def moved(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        inside = start <= value["start"] and value["end"] <= end
        return {**value, "start": value["start"] - start, "end": value["end"] - start} if inside else None

    lists = {
        name: [piece for entity in record[name] if (piece := {part: moved(value) for part, value in entity.items()})[head] is not None]
        for name, head in HEADS.items()
    }
    return {name: moved(record[name]) for name in ("age", "sex")} | lists


def write_examples(examples: Iterable[Example], path: Path) -> int:
    """Parquet with `text` and `record`, JSON in the shape of RECORD_TYPE; returns how many rows."""
    rows = [(piece, json.dumps(inner)) for text, record in examples for piece, inner in passages(text, record) if piece.strip()]
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": [text for text, _ in rows], "record": [record for _, record in rows]}), path, compression="zstd")
    return len(rows)


def _rows(name: str, paths: Sequence[Path], columns: Sequence[str], limit: int | None = None, seed: int = 0) -> list[dict[str, Any]]:
    """The rows of Parquet files, of each at most `limit`, drawn. Raises ConfigurationError for a file that is none or lacks a column."""
    rows: list[dict[str, Any]] = []
    for number, path in enumerate(paths, 1):
        try:
            table = pq.read_table(path)
        except (OSError, pa.ArrowException):
            raise ConfigurationError(f"--{name}: file {number} cannot be read as Parquet") from None
        if missing := [column for column in columns if column not in table.column_names]:
            raise ConfigurationError(f"--{name}: file {number} has no column {missing[0]!r}; needed: {', '.join(columns)}")
        found = table.select(columns).to_pylist()
        is_all = limit is None or limit >= len(found)
        rows += found if is_all else [found[i] for i in np.random.default_rng(seed).permutation(len(found))[:limit].tolist()]
    return rows


def _read(name: str, reader: Reader, rows: Sequence[Mapping[str, Any]]) -> Iterator[Example]:
    """What a reader makes of the rows. Raises ConfigurationError for one that is not as its collection has it."""
    for number, row in enumerate(rows, 1):
        try:
            yield from reader([row])
        except (ValueError, LookupError, TypeError, AttributeError):
            raise ConfigurationError(f"--{name}: row {number} of all is not as the collection has it") from None


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="pipeline.default_model.record_examples", description="Texts with records, to train with.")
    for name, what in (
        ("phee", "PHEE"),
        ("spans", "lines with spans"),
        ("entities", "sentences with entities"),
        ("read", "texts for the rules"),
    ):
        parser.add_argument(f"--{name}", type=Path, nargs="*", default=[], help=f"Parquet files of {what}")
    parser.add_argument("--gold", type=Path, nargs="*", default=[], help="folders of chartmill sample")
    parser.add_argument("--read-limit", type=int, default=1000, help="texts of each file for the rules, at most")
    parser.add_argument("--output", type=Path, required=True, help="folder for a file per kind")
    given = parser.parse_args(argv)
    limits = {"read": given.read_limit}
    kinds = {
        name: _read(name, reader, _rows(name, getattr(given, name), columns, limits.get(name)))
        for name, (reader, columns) in READERS.items()
    }
    kinds["gold"] = (example for folder in given.gold for example in read_gold(folder))
    for name, examples in kinds.items():
        if getattr(given, name):
            print(name, write_examples(examples, given.output / f"{name}.parquet"))


if __name__ == "__main__":
    main()
