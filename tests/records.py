"""Looking at records in tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from schemas.record import Assertion
from transforms.record import parse_record


def leaves(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict) and "assertion" in value:
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner)


def said(entity: dict[str, Any], *names: str) -> tuple[str | None, ...]:
    return tuple(entity[name] and entity[name]["text"] for name in names)


def check_offsets(text: str) -> None:
    for leaf in leaves(parse_record(text)):
        assert leaf["text"] and text[leaf["start"] : leaf["end"]] == leaf["text"] == leaf["text"].strip()
        assert leaf["assertion"] in set(Assertion)


def vitals(text: str) -> dict[str, tuple[str, str | None]]:
    """Reading by canonical name: value normal and unit normal."""
    return {o["name"]["normal"]: (o["value"]["normal"], o["unit"] and o["unit"]["normal"]) for o in parse_record(text)["observations"]}
