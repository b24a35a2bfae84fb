"""How a model writes records, as `chartmill.json` in its folder says: its prefix, and how much it reads and writes at once."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from transforms.selection import FORMAT_FILE

OBJECTIVE = "record"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class RecordFormat:
    """`prefix`: stands before every passage. `max_source_tokens`: of prefix and passage, special tokens included. `max_new_tokens`: of the
    lines of a passage, the end included. Raises ValueError for numbers too small to say anything."""

    prefix: str = ""
    max_source_tokens: int = 192
    max_new_tokens: int = 256

    def __post_init__(self) -> None:
        if self.max_source_tokens < 16 or self.max_new_tokens < 2:
            raise ValueError(
                f"max_source_tokens is {self.max_source_tokens}, at least 16; max_new_tokens {self.max_new_tokens}, at least 2"
            )


def load_record_format(folder: Path) -> RecordFormat | None:
    """None if the folder does not say that its model writes records. Raises ValueError for a file that cannot be read or of a version that
    is not known."""
    path = folder / FORMAT_FILE
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise ValueError(f"{path} is not valid JSON") from None
    if not isinstance(values, dict) or values.pop("objective", None) != OBJECTIVE:
        return None
    version = values.pop("format_version", None)
    if version != FORMAT_VERSION:
        raise ValueError(f"{path}: format_version {version!r} is not supported, only {FORMAT_VERSION}")
    try:
        return RecordFormat(**values)
    except TypeError as error:
        raise ValueError(f"{path}: {error}") from None


def save_record_format(fmt: RecordFormat, folder: Path) -> None:
    """Write `chartmill.json` into a model folder."""
    values = {"objective": OBJECTIVE, "format_version": FORMAT_VERSION, **asdict(fmt)}
    (folder / FORMAT_FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
