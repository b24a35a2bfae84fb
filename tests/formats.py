"""Files of every format that is not Parquet, made from the same rows, and the reading of them for tests."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import zstandard

from schemas.commit import Layout
from transforms.formats import Row
from transforms.formats.layout import ReadOptions, find_layout, rows
from transforms.formats.stream import chunks

Rows = Sequence[Mapping[str, Any]]


def as_jsonl(notes: Rows) -> bytes:
    return b"".join(json.dumps(note).encode() + b"\n" for note in notes)


def as_csv(notes: Rows, delimiter: str = ",", encoding: str = "utf-8", end: str = "\r\n") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(notes[0]), delimiter=delimiter, lineterminator=end)
    writer.writeheader()
    writer.writerows(notes)
    return text.getvalue().encode(encoding)


def as_fhir(notes: Rows) -> bytes:
    import base64

    def resource(note: Mapping[str, Any]) -> dict[str, Any]:
        data = base64.b64encode(str(note["text"]).encode()).decode()
        attachment = {"contentType": "text/plain", "data": data}
        return {
            "resourceType": "DocumentReference",
            "id": note["note_id"],
            "status": "current",
            "date": note.get("written_at"),
            "subject": {"reference": f"Patient/{note.get('patient_id')}"},
            "content": [{"attachment": attachment}],
        }

    return b"".join(json.dumps(resource(note)).encode() + b"\n" for note in notes)


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": partial(gzip.compress, mtime=0),
    ".bz2": bz2.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}


def layout_of(data: bytes, name: str, wanted: Sequence[str] = ("note_id", "text"), **options: str) -> Layout:
    return find_layout(io.BytesIO(data), name, ReadOptions(**options), wanted)


def read_rows_of(data: bytes, layout: Layout, offset: int = 0, line: int | None = 1) -> list[Row]:
    return list(rows(chunks(io.BytesIO(data), layout, offset), layout, offset, line))


def rows_of(data: bytes, name: str) -> list[Row]:
    return read_rows_of(data, layout_of(data, name))


def write_bytes(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def damaged(data: bytes, other: bytes, seed: int, count: int) -> Iterator[bytes]:
    """`count` wrong versions of a file: bytes flipped, cut out, put in, or spliced with another file."""
    import random

    chance = random.Random(seed)
    for _ in range(count):
        wrong = bytearray(data)
        for _ in range(chance.randint(1, 6)):
            place, length = chance.randrange(len(wrong) + 1), chance.randint(0, 1 << chance.randint(0, 9))
            kind = chance.choice("fcdis")
            if kind == "f":
                for at in range(place, min(place + length % 8 + 1, len(wrong))):
                    wrong[at] = chance.randrange(256)
            elif kind == "c":
                del wrong[place:]
            elif kind == "d":
                del wrong[place : place + length]
            elif kind == "i":
                wrong[place:place] = chance.choice(
                    (chance.randbytes(length), b'"', b"\r", b"\0" * 3, b"\n{", b'"",', b"\xff\xfe", b"\xef\xbb\xbf")
                )
            else:
                at = chance.randrange(len(other))
                wrong[place:place] = other[at : at + length]
        yield bytes(wrong)
