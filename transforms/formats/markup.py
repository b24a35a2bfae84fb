"""HTML, and narrative blocks of clinical documents that resemble it, to text that keeps lines, lists and tables apart.

lxml mends broken HTML; the flattening is ours, for the same walk reads C-CDA narrative, and table cells must not be padded or lost.
What it does not know: style sheets, scripts, images and forms.
"""

from __future__ import annotations

import html
import re
from typing import Any

from lxml import etree

_HEADINGS = frozenset(f"h{level}" for level in range(1, 7))
_LISTS = frozenset(("ul", "ol", "dl", "list"))
_ITEMS = frozenset(("li", "item"))
_CELLS = frozenset(("td", "th"))
# Set apart by blank lines, and those that only begin and end a line. Names of HTML and of the narrative block of CDA Release 2 (4.3.5).
_PARAGRAPHS = _HEADINGS | frozenset(("p", "table", "blockquote", "article", "section", "hr", "paragraph", "pre"))
_LINES = frozenset(
    "address aside body button caption dd details div dt fieldset figcaption figure footer form header html legend main nav option summary"
    " textarea title tr".split()
)
_BLOCKS = _PARAGRAPHS | _LINES | _LISTS | _ITEMS | _CELLS
_VERBATIM = frozenset(("pre", "textarea"))
_UNSEEN = frozenset(("head", "script", "style", "template", "object", "svg", "math", "iframe", "del", "audio", "video", "canvas"))

# Beyond it, hostile nesting would make far more text than there is.
_DEEPEST_INDENT = 6
_TAG = re.compile(r"<[a-zA-Z!/?]")
_RAISED_NUMBER = re.compile(r"\s*[-+\u2212]?\d")
_HIDDEN_STYLE = re.compile(r"display\s*:\s*none", re.IGNORECASE)
_VERBATIM_STYLE = re.compile(r"white-space\s*:\s*pre", re.IGNORECASE)


def html_to_text(page: str) -> str:
    """What a reader of an HTML or XHTML page, or a piece of one, sees, as lines of text.

    Headings, paragraphs, list items and table rows stand on lines of their own, cells are separated by " | ". Text without a single tag
    keeps its lines. Raises ValueError when elements are nested too deep (2,048 levels in libxml2) to be read to the end.
    """
    if not _TAG.search(page):
        return html.unescape(page)
    parser = etree.HTMLParser(encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True, huge_tree=True)
    root = etree.fromstring(page.encode("utf-8", "replace"), parser)
    # The parser stops there without an exception, and what follows would be lost.
    if any(error.type_name == "ERR_RESOURCE_LIMIT" for error in parser.error_log):
        raise ValueError("the page is nested too deep")
    return "" if root is None else narrative_text(root)


def narrative_text(root: Any) -> str:
    """The lines of an lxml element of HTML or of a C-CDA narrative block. An element without children keeps its own line breaks."""
    if len(root) == 0:
        return "\n".join(line.rstrip() for line in (root.text or "").split("\n")).strip()
    walk = _Walk(_layout_tables(root))
    events = etree.iterwalk(root, events=("start", "end"))
    for event, element in events:
        if event == "end":
            walk.close(element, tail=element is not root)
        elif not walk.open(element):
            events.skip_subtree()
    return walk.lines.text()


def local_name(element: Any) -> str:
    """The name of an element without its namespace, in lower case; "" for entities and the like."""
    return element.tag.rpartition("}")[2].lower() if isinstance(element.tag, str) else ""


def _layout_tables(root: Any) -> set[Any]:
    """Tables that hold headings, lists or other tables: they place text on a page, so their cells are not the cells of a record."""
    layout: set[Any] = set()
    tables: list[Any] = []
    for event, element in etree.iterwalk(root, events=("start", "end")):
        name = local_name(element)
        if event == "start" and tables and (name == "table" or name in _LISTS or name in _HEADINGS):
            layout.add(tables[-1])
        if name == "table":
            tables.append(element) if event == "start" else tables.pop()
    return layout


class _Lines:
    """Lines of text under construction."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._parts: list[str] = []
        # Stands before the next text that comes: the mark of a list item.
        self.mark = ""

    def add(self, text: str) -> None:
        self._parts.append(text)

    def end(self, verbatim: bool = False) -> None:
        """End the line. Blanks become one space each unless `verbatim`; a line without text is dropped."""
        joined = "".join(self._parts)
        self._parts.clear()
        line = joined.rstrip() if verbatim else " ".join(joined.split())
        # A table row whose cells are all empty says nothing.
        if verbatim or line.strip("| "):
            self._lines.append(self.mark + line)
            self.mark = ""

    def blank(self) -> None:
        """Leave one empty line, except at the beginning."""
        self.end()
        if self._lines and self._lines[-1]:
            self._lines.append("")

    def text(self) -> str:
        self.end()
        return "\n".join(self._lines).strip("\n")


class _Walk:
    """Where in the tree the walk stands: in a table row (whose breaks are spaces), in preformatted text, in which lists."""

    def __init__(self, layout: set[Any]) -> None:
        self.lines = _Lines()
        self._layout = layout
        self._tables: list[bool] = []
        self._row: Any = None
        self._cells = 0
        self._verbatim: list[Any] = []
        # Per open list the number of its last item, None when it is not numbered.
        self._lists: list[int | None] = []

    def open(self, element: Any) -> bool:
        """Begin an element; False when what it holds is not shown."""
        name = local_name(element)
        if _unseen(element, name):
            return False
        self._open_block(element, name)
        if name == "br":
            self._break()
        if name == "sup" and _RAISED_NUMBER.match(element.text or ""):
            # Without a mark, 10 to the power of 9 would read as 109.
            self.lines.add("^")
        if name in _VERBATIM or _VERBATIM_STYLE.search(element.get("style") or ""):
            self._verbatim.append(element)
        self._text(element.text)
        return True

    def _open_block(self, element: Any, name: str) -> None:
        if name in _BLOCKS:
            self._break(name)
        if name == "table":
            self._tables.append(element in self._layout)
        elif name == "tr" and self._row is None and self._is_record(element):
            self._row, self._cells = element, 0
        elif name in _CELLS and self._row is not None:
            self.lines.add(" | " if self._cells else "")
            self._cells += 1
        elif name in _LISTS:
            self._lists.append(0 if name == "ol" or element.get("listType") == "ordered" else None)
        elif name in _ITEMS:
            self.lines.mark = self._item_mark()

    def close(self, element: Any, tail: bool) -> None:
        """End an element, and go on with the text after it."""
        name = local_name(element)
        if not _unseen(element, name):
            self._close_block(element, name)
        if tail:
            self._text(element.tail)

    def _close_block(self, element: Any, name: str) -> None:
        if element is self._row:
            self._row = None
        if self._verbatim and self._verbatim[-1] is element:
            self.lines.end(verbatim=self._row is None)
            self._verbatim.pop()
        if name in _BLOCKS:
            self._break(name)
        if name == "table":
            self._tables.pop()
        elif name in _LISTS:
            self._lists.pop()
        elif name in _ITEMS:
            self.lines.mark = ""

    def _is_record(self, row: Any) -> bool:
        """Whether a table row holds several cells of data."""
        layout = self._tables[-1] if self._tables else False
        return not layout and sum(local_name(cell) in _CELLS for cell in row) > 1

    def _item_mark(self) -> str:
        indent = "  " * min(len(self._lists) - 1, _DEEPEST_INDENT)
        if not self._lists or self._lists[-1] is None:
            return indent + "- "
        self._lists[-1] += 1
        return f"{indent}{self._lists[-1]}. "

    def _break(self, name: str = "br") -> None:
        if self._row is not None:
            self.lines.add(" ")
        elif name in _PARAGRAPHS and not self._lists:
            self.lines.blank()
        else:
            self.lines.end()

    def _text(self, text: str | None) -> None:
        if not text:
            return
        if not self._verbatim or self._row is not None:
            self.lines.add(text)
            return
        first, *rest = text.split("\n")
        self.lines.add(first)
        for line in rest:
            self.lines.end(verbatim=True)
            self.lines.add(line)


def _unseen(element: Any, name: str) -> bool:
    """Not shown by a browser, or struck out in a revision of a C-CDA document."""
    if name in _UNSEEN or element.get("hidden") is not None or element.get("revised") == "delete":
        return True
    return bool(_HIDDEN_STYLE.search(element.get("style") or ""))
