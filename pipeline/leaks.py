"""The leak check: does anything of a patient stand outside a run's data files? It names places and kinds, never what it found.

Two tests. By pattern: what looks like an identifier (transforms.identifiers). Against the data: ids, file names and five words in a row of
the run's own data files, and of files of notes if given; this one does not depend on how an identifier is written. What stands outside
is indexed and the data streams past it, so memory does not grow with the number of notes.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from schemas.errors import ConfigurationError
from schemas.summary import PROVENANCE_FIELDS
from transforms.audit import AUDIT
from transforms.commit import KINDS
from transforms.formats import json_text, stem_of, suffix_of
from transforms.formats.layout import ReadOptions, find_layout, rows
from transforms.formats.stream import chunks
from transforms.identifiers import find_identifiers
from transforms.ledger import RUNS
from transforms.overlap import Overlap
from transforms.store import Store
from transforms.stored_texts import StoredText, read_parquet, stored_texts

# Columns of the data files that hold words of ours.
_OUR_WORDS = frozenset({"stage", "reason", "expectation", "finish", *(f.name for f in PROVENANCE_FIELDS)})
_ID_COLUMN = re.compile(r"(?:id|mrn|ssn)$", re.IGNORECASE)
# Folders of a run's ledger that have to name the input files.
_NAMING = frozenset({"plans", "ids"})
# Files of a run outside its data. Every other file is shown by its number: its name may be a patient's.
_OURS = re.compile(
    rf"report\.(?:json|html)|_SUCCESS|_CURRENT\.json|{RUNS}/v[0-9a-f]{{12}}/(?:commits/|commits/rolled/|attempts/)[0-9a-f-]+(?:\.json|\.parquet)?"
    rf"|{AUDIT}/v[0-9a-f]{{12}}/\d{{8}}T\d{{6}}Z-[0-9a-f]{{6}}/[0-9a-f]{{16}}/\d{{6}}\.json"
)


@dataclass(frozen=True, slots=True)
class Leak:
    """One kind of thing that was found in one text of one file, `count` times.

    `file`: its name, or its number in the sorted listing where the name is not ours. `line`: one-based (of Parquet the row); 0 for the
    file's name itself. `offset`: the zero-based character of the file at which the text begins (of Parquet the column).
    """

    kind: str
    file: str
    line: int
    offset: int
    count: int


@dataclass(frozen=True, slots=True)
class LeakReport:
    """What was found and how much was looked at: `files` outside the data, and `data_files` that they were compared with.

    `unread`: data files that could not be read, so that nothing was compared with them.
    """

    leaks: tuple[Leak, ...]
    files: int
    data_files: int
    unread: int

    @property
    def kinds(self) -> dict[str, int]:
        """Places by kind, the most frequent first."""
        return dict(Counter(leak.kind for leak in self.leaks).most_common())

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "kinds": self.kinds}


@dataclass(frozen=True, slots=True)
class _Said:
    """Everything that stands outside the data files: the names of all files, then file by file."""

    store: Store
    keys: Sequence[str] = field(repr=False)

    def __iter__(self) -> Iterator[tuple[str, StoredText]]:
        shown = [(key, key if _OURS.fullmatch(key) else f"file {number}") for number, key in enumerate(self.keys, start=1)]
        for key, name in shown:
            yield name, StoredText(key, 0, 0)
        for key, name in shown:
            if not holds_patient_data(key):
                yield from ((name, stored) for stored in stored_texts(key, self.store.get(key)))


def check_leaks(store: Store, against: Iterable[Store] = (), *, patterns_only: bool = False) -> LeakReport:
    """Look through everything under an output folder but its data files, and at the names of all files.

    `against`: folders whose files count as data too, such as the notes themselves, in any format that a run reads. Raises
    ConfigurationError for an output folder that holds no run, and for a folder of data that holds no file of such a format.
    """
    keys = sorted(entry.key for entry in store.list(""))
    if not any(key.startswith(f"{RUNS}/") for key in keys):
        raise ConfigurationError("check-leaks: no run was written here; give the output folder of a run")
    said, overlap, data_files, unread = _Said(store, keys), Overlap(), 0, 0
    if not patterns_only:
        for _, stored in said:
            overlap.add(stored.text)
        for was_read in _met(overlap, store, keys, against):
            data_files, unread = data_files + 1, unread + (not was_read)
        for name in _input_names(store, keys):
            overlap.meet_id(name, "file name")
    outside = sum(not holds_patient_data(key) for key in keys)
    return LeakReport(tuple(leak for name, stored in said for leak in _leaks(name, stored, overlap)), outside, data_files, unread)


def holds_patient_data(key: str) -> bool:
    """May this object hold patient data, or the names of input files? All others must not."""
    parts = key.split("/")
    if parts[0] == RUNS:
        return len(parts) > 2 and (parts[2] in _NAMING or parts[2:] == ["live.json"])
    return parts[0] in KINDS and len(parts) > 1


def _leaks(name: str, stored: StoredText, overlap: Overlap) -> list[Leak]:
    kinds = overlap.shared(stored.text)
    kinds.update(found.kind for found in find_identifiers(stored.text))
    return [Leak(kind, name, stored.line, stored.offset, count) for kind, count in sorted(kinds.items())]


def _met(overlap: Overlap, store: Store, keys: Iterable[str], against: Iterable[Store]) -> Iterator[bool]:
    """Stream every data file past; whether it could be read."""
    for key in keys:
        if key.split("/")[0] in KINDS:
            yield _meet(overlap, read_parquet(store.get(key)))
    for other in against:
        named = [entry.key for entry in other.list("") if suffix_of(entry.key).format]
        if not named:
            raise ConfigurationError("--against: a folder without files of notes")
        for key in named:
            if suffix_of(key).format == "parquet":
                yield _meet(overlap, read_parquet(other.get(key)))
            else:
                yield _meet_rows(overlap, key, other.get(key))


def _meet_rows(overlap: Overlap, name: str, data: bytes) -> bool:
    """The same for a file that is not Parquet; False when none of its rows can be read."""
    layout = find_layout(io.BytesIO(data), name, ReadOptions(), ())
    read = False
    for row in rows(chunks(io.BytesIO(data), layout), layout):
        read = read or row.values is not None
        for column, value in (row.values or {}).items():
            if value is not None:
                (overlap.meet_id if _ID_COLUMN.search(column) else overlap.meet_text)(json_text(value))
    return read


def _meet(overlap: Overlap, table: pa.Table | None) -> bool:
    """Ids by the names of their columns; of all other strings, however deeply nested, the words. False for a file that is none."""
    for name, column in zip(table.column_names, table.columns, strict=True) if table is not None else ():
        if name in _OUR_WORDS:
            continue
        if _ID_COLUMN.search(name):
            for value in column.unique().to_pylist():
                overlap.meet_id(str(value))
            continue
        for strings in _strings(column.combine_chunks()):
            for text in strings.unique().to_pylist():
                overlap.meet_text(text or "")
    return table is not None


def _strings(array: pa.Array) -> Iterator[pa.Array]:
    """The arrays of strings within an array of any type."""
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        yield array
    elif pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        yield from _strings(array.flatten())
    elif pa.types.is_struct(array.type):
        for part in array.flatten():
            yield from _strings(part)
    elif pa.types.is_dictionary(array.type):
        yield from _strings(array.dictionary)


def _input_names(store: Store, keys: Iterable[str]) -> Iterator[str]:
    """File names, without their endings, and folders of the planned inputs."""
    for key in keys:
        if key.startswith(f"{RUNS}/") and "/plans/cuts-" in key:
            entry: Mapping[str, Any] = json.loads(store.get(key))
            for file in entry["files"]:
                yield from stem_of(str(file["path"])).split("/")
