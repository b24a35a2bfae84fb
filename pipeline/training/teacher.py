"""References written by a larger model: sequence-level distillation (Kim and Rush 2016, arXiv 1606.07947).

What it wrote is kept in the run folder, so that a killed run need not ask again. That file is patient data.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from pipeline.training.folder import RunFolder
from pipeline.training.rows import Row
from pipeline.training.settings import TeacherSection
from schemas.errors import ConfigurationError
from transforms.models import resolve_model

_AT_ONCE = 64


def taught(name: str, rows: Sequence[Row], teacher: TeacherSection, folder: RunFolder, device: str, threads: int | None) -> list[Row]:
    """The rows with what the teacher writes as their references, greedily or as its decode settings say. Rows it fails on are left out.

    Raises ConfigurationError if the teacher cannot be had or writes nothing at all.
    """
    files = resolve_model(teacher.model)
    cache = f"taught/{name}.jsonl"
    asked = {_key(files.sha256, teacher, row.text): row for row in rows}
    known = {line["key"]: line["text"] for line in folder.read_lines(cache)}
    missing = [key for key in asked if key not in known]
    if missing:
        known |= _ask({key: asked[key].text for key in missing}, teacher, folder, cache, device, threads)
    answered = [replace(row, reference=text) for row in rows if (text := known[_key(files.sha256, teacher, row.text)])]
    if not answered:
        raise ConfigurationError(f"tasks.{name}.teacher: it wrote nothing for any of {len(rows)} texts")
    return answered


def _ask(texts: dict[str, str], teacher: TeacherSection, folder: RunFolder, cache: str, device: str, threads: int | None) -> dict[str, str]:
    from pipeline.summarize import load_summarizer

    decode = teacher.decode.model_dump(exclude_none=True)
    summarizer = load_summarizer(teacher.model, device=device, threads=threads, prefix=teacher.prefix, decode=decode, checks=())
    folder.write(cache, folder.path(cache).read_bytes() if folder.path(cache).is_file() else b"")
    keys = list(texts)
    written: dict[str, str] = {}
    for start in range(0, len(keys), _AT_ONCE):
        some = keys[start : start + _AT_ONCE]
        for key, summary in zip(some, summarizer.summarize([texts[key] for key in some]), strict=True):
            written[key] = summary.text
            folder.append(cache, {"key": key, "text": summary.text})
    return written


def _key(teacher_sha256: str, teacher: TeacherSection, text: str) -> str:
    asked = f"{teacher_sha256}\n{teacher.prefix}\n{teacher.decode.model_dump_json()}\n{text}"
    return hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()
