"""Files that may hold patient data: readable by their owner alone, each whole or absent. It knows no keys and no formats."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

# How the names of files begin that are not whole yet; the process id follows.
TEMPORARY = ".tmp-"


def replace_file(path: Path, save: Callable[[BinaryIO], Any]) -> None:
    """Let `save` write a file with mode 0600, then give it its name: a kill at any moment leaves the old file or the new one.

    Where `save` or the storage fails nothing is left behind. The folder must be there. Raises OSError, and what `save` raises.
    """
    temporary = write_temporary(path.parent, save)
    try:
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_path(path.parent)


def write_temporary(folder: Path, save: Callable[[BinaryIO], Any]) -> Path:
    """A file of mode 0600 that `save` has written, on the disk itself, under a name that nobody else has."""
    temporary = folder / f"{TEMPORARY}{os.getpid()}-{secrets.token_hex(8)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            save(file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def make_private_folder(folder: Path) -> None:
    """Create a folder and its missing parents with mode 0700."""
    if folder.is_dir():
        return
    make_private_folder(folder.parent)
    folder.mkdir(mode=0o700, exist_ok=True)
    fsync_path(folder.parent)


def fsync_path(path: Path) -> None:
    """Bring a file's content, or a folder's names, to the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
