"""Telling a text's encoding from its bytes, always the same way. It knows UTF-8, UTF-16 and the two Western one-byte encodings."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator

from transforms.formats.stream import StreamBroken

_BOMS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
# Well-formed sequences of several bytes (RFC 3629, the second byte's range not refined), else any byte that is not ASCII.
_SEQUENCE = re.compile(rb"([\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3})|[\x80-\xff]")
_C1 = frozenset(range(0x80, 0xA0))
# The bytes that Windows-1252 leaves open (unicode.org, CP1252.TXT).
_NOT_IN_CP1252 = frozenset((0x81, 0x8D, 0x8F, 0x90, 0x9D))
_ASCII = bytes(range(0x80))
_HEAD_BYTES = 4096


def detect_encoding(source: Iterable[bytes]) -> str:
    """`utf-8`, `utf-16`, `utf-16-le`, `utf-16-be`, `cp1252` or `latin-1`.

    A byte order mark decides. Else strict UTF-8; else UTF-8 with broken places, if its sequences of several bytes outnumber them; else
    Windows-1252 if bytes from 0x80 to 0x9f occur and it defines all of them; else Latin-1. A stream that breaks is judged by what came.
    """
    evidence = _Evidence()
    for data in _whole_sequences(source):
        if evidence.decided_by(data):
            break
    return evidence.verdict()


def bom_length(head: bytes) -> int:
    """How many bytes of a byte order mark of UTF-8 stand at the beginning."""
    return len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0


def _whole_sequences(source: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks, cut anew so that none ends within a sequence of UTF-8, and the first is no shorter than the head: what is found does not
    depend on the chunks.
    """
    held = b""
    least = _HEAD_BYTES
    try:
        for data in source:
            data = held + data
            if len(data) < least:
                held = data
                continue
            least = 0
            leads = [place for place in range(max(len(data) - 3, 0), len(data)) if data[place] >= 0xC0]
            cut = leads[0] if leads else len(data)
            held = data[cut:]
            yield data[:cut]
    except StreamBroken:
        pass
    if held:
        yield held


class _Evidence:
    """What the bytes have shown so far."""

    def __init__(self) -> None:
        self._decided: str | None = None
        self._begun = False
        self._valid = 0
        self._broken = 0
        self._high: set[int] = set()

    def decided_by(self, data: bytes) -> bool:
        """Take more bytes into account; True when the rest cannot matter."""
        if data and not self._begun:
            self._begun = True
            self._decided = _by_head(data[:_HEAD_BYTES])
        if self._decided is None and not data.isascii():
            self._count(data)
        return self._decided is not None

    def _count(self, data: bytes) -> None:
        high = data.translate(None, _ASCII)
        self._high.update(high)
        try:
            # Text that is UTF-8 throughout is counted by lengths: the expression is far slower.
            self._valid += len(data.decode("utf-8")) - (len(data) - len(high))
        except UnicodeDecodeError:
            valid = [match.lastindex == 1 for match in _SEQUENCE.finditer(data)]
            self._valid += sum(valid)
            self._broken += len(valid) - sum(valid)

    def verdict(self) -> str:
        if self._decided is not None:
            return self._decided
        if not self._broken or self._valid > self._broken:
            return "utf-8"
        controls = self._high & _C1
        return "cp1252" if controls and not controls & _NOT_IN_CP1252 else "latin-1"


def _by_head(head: bytes) -> str | None:
    for mark, encoding in _BOMS.items():
        if head.startswith(mark):
            return encoding
    # Latin text in UTF-16 has a zero in nearly every second byte.
    if len(head) >= 4 and head[1::2].count(0) > 0.4 * len(head) and head[::2].count(0) < 0.05 * len(head):
        return "utf-16-le"
    if len(head) >= 4 and head[::2].count(0) > 0.4 * len(head) and head[1::2].count(0) < 0.05 * len(head):
        return "utf-16-be"
    return None
