"""How a model writes records, as `chartmill.json` in its folder says: its prefix, and how much it reads and writes at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from transforms.model_format import FORMAT_FILE, read_format, write_format

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
    values = read_format(folder, OBJECTIVE, FORMAT_VERSION)
    if values is None:
        return None
    try:
        return RecordFormat(**values)
    except TypeError as error:
        raise ValueError(f"{folder / FORMAT_FILE}: {error}") from None


def save_record_format(fmt: RecordFormat, folder: Path) -> None:
    """Write `chartmill.json` into a model folder."""
    write_format(folder, OBJECTIVE, FORMAT_VERSION, asdict(fmt))
