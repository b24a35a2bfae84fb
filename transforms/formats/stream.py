"""Bytes of a file that is not Parquet: decompressed, recoded from UTF-16 to UTF-8, and cut into physical lines. It knows no format."""

from __future__ import annotations

import bz2
import codecs
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

import zstandard

from schemas.commit import Layout
from schemas.rejection import Reason

_READ_BYTES = 1 << 20
# Decoders are fed little at a time, so that a bomb (bz2: 1 to 20,000; zstd: 1 to 32,000) cannot fill the memory in one step.
_FEED_BYTES = 4096
# A longer line, or a longer record of delimited text, is no note: it is set aside unread.
MAX_RECORD_BYTES = 64 << 20
# A longer document is set aside unread.
MAX_DOCUMENT_BYTES = 256 << 20


class StreamBroken(Exception):
    """The file ends in the middle (FILE_TRUNCATED) or is damaged there (FILE_CORRUPT); what came before is good."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class Line(NamedTuple):
    """A physical line with its terminator. `offset`: its first byte; `number`: one-based. `data` is None for a line that is too long."""

    offset: int
    number: int
    data: bytes | None

    def __repr__(self) -> str:
        return f"Line(offset={self.offset}, number={self.number})"


def can_be_entered(layout: Layout) -> bool:
    """Whether reading can begin at a row's offset without going through what is before."""
    return layout.compression is None and not is_recoded(layout) and not layout.whole


def is_recoded(layout: Layout) -> bool:
    return (layout.encoding or "").startswith("utf-16")


def chunks(file: BinaryIO, layout: Layout, offset: int = 0) -> Iterator[bytes]:
    """The decompressed and recoded bytes of a file from `offset` on (an offset in those bytes).

    Raises StreamBroken after the last good bytes. Errors of the storage pass through.
    """
    if can_be_entered(layout):
        file.seek(offset)
        yield from _plain(file)
        return
    source = _decompressed(file, layout.compression) if layout.compression else _plain(file)
    if is_recoded(layout):
        source = _recoded(source, layout.encoding or "")
    yield from _skipped(source, offset)


def _plain(file: BinaryIO) -> Iterator[bytes]:
    while data := file.read(_READ_BYTES):
        yield data


def _skipped(source: Iterator[bytes], offset: int) -> Iterator[bytes]:
    left = offset
    for data in source:
        if left < len(data):
            yield data[left:]
        left = max(left - len(data), 0)


def _decoder(compression: str) -> Any:
    if compression == "gzip":
        return zlib.decompressobj(wbits=31)
    return bz2.BZ2Decompressor() if compression == "bz2" else zstandard.ZstdDecompressor().decompressobj()


# What the three decoders raise at damage: bz2 an OSError or ValueError, zlib and zstandard their own.
_DAMAGE = (zlib.error, zstandard.ZstdError, OSError, ValueError, EOFError)


def _decompressed(file: BinaryIO, compression: str) -> Iterator[bytes]:
    """All members one after the other, as gzip, zstd and bz2 files may be concatenated; zero padding at the end is passed over."""
    decoder, begun = _decoder(compression), False
    for block in _plain(file):
        for start in range(0, len(block), _FEED_BYTES):
            data = block[start : start + _FEED_BYTES]
            while data:
                if not begun and not (data := data.lstrip(b"\0")):
                    break
                begun = True
                yield _fed(decoder, data)
                data = decoder.unused_data if decoder.eof else b""
                if decoder.eof:
                    decoder, begun = _decoder(compression), False
    if begun:
        raise StreamBroken(Reason.FILE_TRUNCATED)


def _fed(decoder: Any, data: bytes) -> bytes:
    try:
        return bytes(decoder.decompress(data))
    except _DAMAGE:
        raise StreamBroken(Reason.FILE_CORRUPT) from None


def _recoded(source: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """UTF-16 as UTF-8. Lone surrogates and a half character at the end become bytes that are no UTF-8: their row is unreadable."""
    decoder = codecs.getincrementaldecoder(encoding)(errors="surrogatepass")
    for data in source:
        yield decoder.decode(data).encode("utf-8", "surrogatepass")
    if decoder.getstate()[0]:
        yield b"\xff"


def lines(source: Iterator[bytes], offset: int = 0, number: int = 1) -> Iterator[Line]:
    """Physical lines; LF, CR LF and CR end one. `source` begins at byte `offset`, on line `number`.

    When the stream breaks, the whole lines before are given, then StreamBroken is raised; the begun line is left out.
    """
    splitter = _Splitter(offset, number)
    for data in source:
        yield from splitter.fed(data)
    yield from splitter.ended()


class _Splitter:
    """Cuts chunks into lines; holds the begun line between chunks."""

    def __init__(self, offset: int, number: int) -> None:
        self._offset = offset
        self._number = number
        self._held = bytearray()
        self._let_go = 0

    def fed(self, data: bytes) -> Iterator[Line]:
        if self._held.endswith(b"\r"):
            # It was held because it may be half of CR LF.
            del self._held[-1:]
            data = b"\r" + data
        pieces = data.splitlines(keepends=True)
        begun = pieces.pop() if pieces and not pieces[-1].endswith(b"\n") else b""
        for piece in pieces:
            yield self._line(piece)
        self._held += begun
        if len(self._held) > MAX_RECORD_BYTES:
            # The bytes are let go; the line is counted when its end comes.
            self._let_go += len(self._held) - 1
            del self._held[:-1]

    def _line(self, last: bytes) -> Line:
        data = bytes(self._held) + last if self._held else last
        line = Line(self._offset, self._number, None if self._let_go else data)
        self._offset += self._let_go + len(data)
        self._number += 1
        self._held.clear()
        self._let_go = 0
        return line

    def ended(self) -> Iterator[Line]:
        if self._held:
            yield self._line(b"")
