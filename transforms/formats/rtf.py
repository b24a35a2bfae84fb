"""Rich Text Format to text: paragraphs as lines, table rows as lines of cells. One pass, linear in the length of the document.

Ours because striprtf 0.0.35, the kept library, takes quadratic time on field codes, leaves surrogate pairs apart and raises on large
numbers. Control words are those of the Rich Text Format Specification 1.9.1 (Microsoft, 2008).
What it does not know: pictures, embedded objects, running headers and footers, comments, and text that is hidden or marked as deleted.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, replace

_TOKEN = re.compile(
    r"\\(?P<word>[a-zA-Z]{1,32})(?P<number>-?\d{1,10})? ?|\\'(?P<hex>[0-9a-fA-F]{2})|\\(?P<symbol>[^a-zA-Z'])"
    r"|(?P<brace>[{}])|(?P<break>[\r\n\x00]+)|(?P<text>[^\\{}\r\n\x00]+)|."
)
_SKIPPED = frozenset(
    "annotation atnauthor atndate atnid author bkmkend bkmkstart colortbl comment company creatim datafield filetbl fldinst fonttbl footer"
    " footerf footerl footerr header headerf headerl headerr info keywords listoverridetable listtable nonshppict objclass objdata objname"
    " operator pict private revtbl rsidtbl stylesheet subject tc template title xe".split()
)
_CHARACTERS = {
    "par": "\n", "line": "\n", "sect": "\n\n", "page": "\n\n", "column": "\n", "nestrow": "\n", "tab": "\t", "nestcell": " | ",
    "emdash": "\u2014", "endash": "\u2013", "emspace": "\u2003", "enspace": "\u2002", "qmspace": "\u2005", "bullet": "\u2022",
    "lquote": "\u2018", "rquote": "\u2019", "ldblquote": "\u201c", "rdblquote": "\u201d",
}  # fmt: skip
_SYMBOLS = {"~": "\u00a0", "_": "-", "-": "", "\\": "\\", "{": "{", "}": "}", "\n": "\n", "\r": "\n"}
# Code pages by \fcharset (specification, "Font Table"); others are the document's own.
_FONT_CODECS = {
    77: "mac_roman", 128: "cp932", 129: "cp949", 134: "gbk", 136: "cp950", 161: "cp1253", 162: "cp1254", 163: "cp1258", 177: "cp1255",
    178: "cp1256", 186: "cp1257", 204: "cp1251", 222: "cp874", 238: "cp1250", 254: "cp437", 255: "cp850",
}  # fmt: skip
_DOCUMENT_CODECS = {"mac": "mac_roman", "pc": "cp437", "pca": "cp850"}
_SIGNATURE = re.compile(rb"[\s\x00\xef\xbb\xbf]{0,16}\{\\rtf")
# A cell with more lines than this holds running text: its table places text on the page.
_CELL_LINES = 3
_MANY_BREAKS = re.compile(r"\n{3,}")


@dataclass(frozen=True, slots=True)
class _Group:
    """What a closing brace takes back.

    `skipped`: it is no part of the text. `unseen`: text that is hidden or deleted. `fallback`: how many characters stand in for a \\u
    character.
    """

    skipped: bool = True
    unseen: bool = False
    fallback: int = 1
    font: int | None = None
    in_fonts: bool = False

    @property
    def hidden(self) -> bool:
        return self.skipped or self.unseen


def rtf_to_text(data: bytes) -> str:
    """The text of an RTF document. May hold surrogates, as the document does.

    Raises ValueError when `data` is no RTF or ends inside an inner group, that is, was cut short.
    """
    if not _SIGNATURE.match(data):
        raise ValueError("not RTF")
    reader = _Reader()
    source = data.decode("latin-1")
    position = 0
    while found := _TOKEN.match(source, position):
        position = found.end() + reader.take(found)
    if len(reader.groups) > 2:
        raise ValueError("the document ends inside a group")
    return reader.text()


class _Reader:
    """The state of reading one document."""

    def __init__(self) -> None:
        self.groups = [_Group()]
        self._out: list[str] = []
        # Bytes of the current font's code page that wait to be decoded: a character may be written as several of them.
        self._bytes = bytearray()
        self._codec = "cp1252"
        self._fonts: dict[int | None, str] = {}
        self._stand_ins = 0
        self._raised = False
        self._cells: list[str] = []
        self._cell_start = 0
        self._in_table = False

    def take(self, found: re.Match[str]) -> int:
        """Read one token; how many characters after it are binary data to pass over."""
        match found.lastgroup:
            case "word" | "number":
                return self._word(found["word"], int(found["number"]) if found["number"] else None)
            case "brace":
                self._brace(found["brace"])
            case "hex":
                self._add_bytes(bytes.fromhex(found["hex"]))
            case "symbol":
                self._symbol(found["symbol"])
            case "text":
                self._add_bytes(found["text"].encode("latin-1"))
        return 0

    def _brace(self, brace: str) -> None:
        self._flush()
        self._stand_ins, self._raised = 0, False
        if brace == "{":
            self.groups.append(self.groups[-1])
        elif len(self.groups) > 1:
            self.groups.pop()

    def _symbol(self, symbol: str) -> None:
        if symbol == "*":
            self._set(skipped=True)
        else:
            self._add(_SYMBOLS.get(symbol, ""))

    def _word(self, word: str, number: int | None) -> int:
        if word == "bin":
            return max(number or 0, 0)
        if word in _SKIPPED:
            self._set(skipped=True, in_fonts=word == "fonttbl")
        elif word in _CHARACTERS:
            self._character(word)
        elif word == "u" and number is not None:
            self._unicode(number)
        elif word in ("cell", "row"):
            self._table(word)
        else:
            self._property(word, number)
        return 0

    def _property(self, word: str, number: int | None) -> None:
        match word:
            case "rtf":
                self._set(skipped=len(self.groups) > 2)
            case "v" | "deleted":
                self._set(unseen=number != 0)
            case "uc":
                self._set(fallback=max(number or 0, 0))
            case "f":
                self._flush()
                self._set(font=number)
            case "fcharset" if self.groups[-1].in_fonts:
                self._fonts[self.groups[-1].font] = _FONT_CODECS.get(number or 0, "")
            case "super" | "nosupersub":
                self._raised = word == "super" and number != 0
            case "plain":
                self._flush()
                self._set(font=None, unseen=False)
                self._raised = False
            case "intbl" | "pard":
                self._in_table = word == "intbl"
            case "ansicpg" | "mac" | "pc" | "pca":
                self._codec = _known(_DOCUMENT_CODECS.get(word) or ("utf-8" if number == 65001 else f"cp{number}"))

    def _set(self, **changes: bool | int | None) -> None:
        group = self.groups[-1]
        if any(getattr(group, name) != value for name, value in changes.items()):
            self.groups[-1] = replace(group, **changes)  # type: ignore[arg-type]

    def _character(self, word: str) -> None:
        self._add(_CHARACTERS[word])
        if word == "par" and not self._in_table and not self._cells:
            self._cell_start = len(self._out)

    def _unicode(self, number: int) -> None:
        code = number + 0x10000 if number < 0 else number
        self._add(chr(code) if 0 <= code <= 0x10FFFF else "\ufffd")
        self._stand_ins = self.groups[-1].fallback

    def _add(self, text: str) -> None:
        self._flush()
        if self._stand_ins:
            self._stand_ins -= 1
        elif not self.groups[-1].hidden:
            self._out.append(text)

    def _add_bytes(self, data: bytes) -> None:
        passed = min(self._stand_ins, len(data))
        self._stand_ins -= passed
        if self.groups[-1].hidden or passed == len(data):
            return
        if self._raised and data[passed:][:1] in b"+-0123456789":
            # Without a mark, 10 to the power of 9 would read as 109.
            self._bytes += b"^"
        self._raised = False
        self._bytes += data[passed:]

    def _flush(self) -> None:
        if self._bytes:
            codec = self._fonts.get(self.groups[-1].font) or self._codec
            self._out.append(bytes(self._bytes).decode(codec, errors="replace"))
            self._bytes.clear()

    def _table(self, word: str) -> None:
        self._flush()
        if self.groups[-1].hidden:
            return
        if word == "cell":
            self._cells.append("".join(self._out[self._cell_start :]).strip())
            del self._out[self._cell_start :]
        else:
            self._out.append(_row(self._cells))
            self._cells = []
            self._cell_start = len(self._out)

    def text(self) -> str:
        self._flush()
        if self._cells:
            self._out.insert(self._cell_start, _row(self._cells))
        lines = "\n".join(line.rstrip() for line in "".join(self._out).split("\n"))
        return _MANY_BREAKS.sub("\n\n", lines).strip()


def _row(cells: list[str]) -> str:
    """The cells of a table row as one line, or one under the other when they hold running text."""
    if len(cells) == 1 or any(cell.count("\n") >= _CELL_LINES for cell in cells):
        return "\n".join(filter(None, cells)) + "\n"
    row = " | ".join(" ".join(cell.split()) for cell in cells)
    return row + "\n" if row.strip("| ") else ""


def _known(codec: str) -> str:
    try:
        return codecs.lookup(codec).name
    except LookupError:
        return "cp1252"
