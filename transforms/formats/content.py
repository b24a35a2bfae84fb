"""The content of a clinical document: its bytes and media type to text. It does not know where the bytes came from."""

from __future__ import annotations

import base64
import binascii
import codecs
import re

from schemas.rejection import Reason
from transforms.formats.encoding import detect_encoding
from transforms.formats.markup import html_to_text
from transforms.formats.rtf import rtf_to_text

_HTML = frozenset(("text/html", "application/xhtml+xml"))
_RTF = frozenset(("text/rtf", "application/rtf", "text/richtext", "application/x-rtf"))
_PLAIN = frozenset(("text/plain", "text"))
_XML = frozenset(("application/xml", "text/xml", "application/hl7-sdwg+xml", "application/cda+xml", "application/hl7-cda+xml"))

# Best first, where a document comes in several forms: the fewer guesses a form needs to become text, the better.
KINDS = ("plain", "html", "rtf", "xml")

_CHARSET = re.compile(r"charset\s*=\s*[\"']?([\w.:-]+)", re.IGNORECASE)
BYTE_ORDER_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# Codecs of Python that are no character sets of documents; some take quadratic time.
_NO_CHARSETS = frozenset(
    ("idna", "punycode", "raw-unicode-escape", "raw_unicode_escape", "undefined", "unicode-escape", "unicode_escape", "utf-7")
)
# Where a page may name its own encoding, in bytes (HTML Standard, "prescan a byte stream to determine its encoding").
_PRESCAN = 1024
_BLANKS = b" \t\r\n\f\v"


class UnusableError(ValueError):
    """The content cannot be turned into text; `reason` says why. Its message holds nothing of the document."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(str(reason))
        self.reason = reason


def kind_of(media_type: str | None) -> str | None:
    """One of KINDS for a MIME type (parameters are ignored; none at all means plain text), None when it is not read."""
    essence = (media_type or "text/plain").partition(";")[0].strip().lower()
    for kind, types in zip(KINDS, (_PLAIN, _HTML, _RTF, _XML), strict=True):
        if essence in types:
            return kind
    return None


def charset_of(media_type: str | None) -> str | None:
    """The charset parameter of a MIME type."""
    found = _CHARSET.search(media_type or "")
    return found[1] if found else None


def decode(data: bytes, charset: str | None = None) -> str:
    """Bytes to characters: in the declared charset if that fits and no byte order mark speaks against it, else by detect_encoding."""
    text = None if data.startswith(BYTE_ORDER_MARKS) else _strictly(data, charset)
    if text is None:
        text = data.decode(detect_encoding([data]), errors="replace")
    return text.removeprefix("\ufeff")


def _strictly(data: bytes, encoding: str | None) -> str | None:
    """`data` in `encoding`, None when the encoding is unknown, is no text encoding or does not fit."""
    try:
        if not encoding or codecs.lookup(encoding).name in _NO_CHARSETS:
            return None
        return data.decode(encoding)
    except (LookupError, ValueError):  # ValueError: UnicodeError and names with a NUL
        return None


def unbase64(value: str) -> bytes:
    """The bytes of base64 text; blanks between its characters are allowed. Raises UnusableError."""
    try:
        return base64.b64decode(value.encode("ascii").translate(None, _BLANKS), validate=True)
    except (binascii.Error, ValueError):
        raise UnusableError(Reason.CONTENT_UNREADABLE) from None


def text_of(data: bytes, kind: str, charset: str | None = None) -> str:
    """The text of plain text, HTML or RTF. Raises UnusableError when there is none or the markup cannot be read."""
    if not data.strip(_BLANKS):
        raise UnusableError(Reason.CONTENT_MISSING)
    try:
        text = _read(data, kind, charset)
    except ValueError:
        raise UnusableError(Reason.CONTENT_UNREADABLE) from None
    if not text.strip():
        raise UnusableError(Reason.CONTENT_MISSING)
    return text


def _read(data: bytes, kind: str, charset: str | None) -> str:
    # Rich text is often declared as plain.
    if kind == "rtf" or (kind == "plain" and data.startswith(b"{\\rtf")):
        return clean(rtf_to_text(data))
    if kind == "html":
        return html_to_text(clean(decode(data, charset or charset_of(data[:_PRESCAN].decode("latin-1")))))
    return clean(decode(data, charset))


def clean(text: str) -> str:
    """`text` with line ends as line feeds, surrogate pairs joined and lone surrogates, which no file can store, as U+FFFD."""
    if not text.isascii():
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n")
