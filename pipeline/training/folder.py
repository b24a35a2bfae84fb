"""The run folder: what training writes, each file whole or absent, readable by its owner alone, without a word of any note.

config.yaml  data.json  log.jsonl  curves.svg  MODEL_CARD.md  result.json  model/       what is told, and the model
checkpoint.pt  best-*.pt                                                                   to go on from
taught/                                                                                    what a teacher wrote: patient data
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from schemas.errors import ConfigurationError
from transforms.private_files import TEMPORARY, fsync_path, make_private_folder, replace_file

CHECKPOINT, RESULT, LOG, MODEL = "checkpoint.pt", "result.json", "log.jsonl", "model"


class RunFolder:
    """Paths and durable writes. A write replaces the file before it only once it is on the disk itself (rename after fsync)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        return self.root / name

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder for one run; a kill lets go of it. Raises ConfigurationError if another run has it."""
        make_private_folder(self.root)
        descriptor = os.open(self.path(".lock"), os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise ConfigurationError("output: another training run is at work in this folder") from None
        try:
            self._sweep()
            yield
        finally:
            os.close(descriptor)

    def write(self, name: str, content: str | bytes) -> None:
        data = content.encode() if isinstance(content, str) else content
        self.write_with(name, lambda file: file.write(data))

    def write_with(self, name: str, save: Callable[[BinaryIO], Any]) -> None:
        """Let `save` write a temporary file, then give it its name."""
        target = self.path(name)
        make_private_folder(target.parent)
        replace_file(target, save)

    def write_json(self, name: str, content: Any) -> None:
        self.write(name, json.dumps(content, indent=2, sort_keys=True) + "\n")

    def write_folder(self, name: str, save: Callable[[Path], Any]) -> None:
        """Let `save` fill a temporary folder, then give it its name. The one before is gone for the moment between two renames."""
        target = self.path(name)
        temporary, old = (self.root / f"{TEMPORARY}{secrets.token_hex(8)}" for _ in range(2))
        temporary.mkdir(mode=0o700)
        save(temporary)
        for path in temporary.iterdir():
            path.chmod(0o600)
            fsync_path(path)
        fsync_path(temporary)
        if target.exists():
            target.rename(old)
        temporary.rename(target)
        fsync_path(self.root)
        shutil.rmtree(old, ignore_errors=True)

    def remove(self, name: str) -> None:
        """Remove a folder, if it is there."""
        shutil.rmtree(self.path(name), ignore_errors=True)

    def read_json(self, name: str) -> Any:
        """The file's content, None where there is none."""
        path = self.path(name)
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def read_lines(self, name: str) -> list[dict[str, Any]]:
        """Lines of JSON; a last one that a kill cut short is left out."""
        path = self.path(name)
        if not path.is_file():
            return []
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]

    def append(self, name: str, record: dict[str, Any]) -> None:
        descriptor = os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")

    def _sweep(self) -> None:
        """Remove what killed runs left unfinished."""
        for path in self.root.rglob(f"{TEMPORARY}*"):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
