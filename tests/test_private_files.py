"""Files that a kill, a full disk or a power failure leaves whole or absent, and that nobody else can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from transforms.private_files import TEMPORARY, make_private_folder, replace_file, write_temporary


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_replaced_and_is_its_owner_s_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    path.chmod(0o644)
    replace_file(path, lambda file: file.write(b"after"))
    assert (path.read_bytes(), mode(path), os.listdir(tmp_path)) == (b"after", 0o600, ["file"])


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")

    def half(file: BinaryIO) -> None:
        file.write(b"aft")
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        replace_file(path, half)
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(tmp_path / "folder", lambda file: file.write(b"after"))
    assert path.read_bytes() == b"before" and sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_the_content_is_on_the_disk_before_the_name_and_the_name_before_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    rename = os.replace

    def synced(descriptor: int) -> None:
        found = os.fstat(descriptor)
        steps.append("names" if stat.S_ISDIR(found.st_mode) else f"{found.st_size} bytes")

    def renamed(*paths: Any) -> None:
        steps.append("rename")
        rename(*paths)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    replace_file(tmp_path / "file", lambda file: file.write(b"12345"))
    assert steps == ["5 bytes", "rename", "names"]


def test_temporary_files_tell_whose_they_are(tmp_path: Path) -> None:
    names = {write_temporary(tmp_path, lambda file: file.write(b"")).name for _ in range(3)}
    assert len(names) == 3 and all(name.startswith(f"{TEMPORARY}{os.getpid()}-") for name in names)


def test_folders_are_private_and_those_that_were_there_stay_as_they_were(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    make_private_folder(tmp_path / "a" / "b")
    make_private_folder(tmp_path / "a" / "b")
    assert [mode(path) for path in (tmp_path, tmp_path / "a", tmp_path / "a" / "b")] == [0o755, 0o700, 0o700]
