"""One note, its summary and its record side by side, as one HTML page that needs no network. The page holds patient text.

Everything that comes from the note is escaped, and nothing runs but the page's own script.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipeline import html_page
from pipeline.find_note import FoundNote
from schemas.reasons import FLAGS
from schemas.record import LEAF, RECORD_FIELDS, Assertion
from schemas.summary import SUMMARY_SCHEMA
from transforms.checks import INFORMATIVE
from transforms.sections import Page, read_page

_TEMPLATE = Path(__file__).with_suffix(".html")
_KINDS = {"exact": "copied", "lexical": "traced by words", "semantic": "traced by meaning", "unsupported": "nothing found in the note"}
_EXCERPT = 90
_LONGEST_UNDERLINED = 200


@dataclass(frozen=True, slots=True)
class Mark:
    """A stretch [start, end) of a text, in characters, that something points to. `kind` is how it is drawn."""

    id: str
    kind: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """A piece of text that lies under the same marks throughout. `first`: some mark begins here."""

    text: str = field(repr=False)
    marks: tuple[Mark, ...] = ()
    first: bool = False

    @property
    def ids(self) -> str:
        return " ".join(mark.id for mark in self.marks)

    @property
    def kinds(self) -> str:
        return " ".join(sorted({mark.kind for mark in self.marks}))


def cut_at_marks(text: str, marks: Iterable[Mark], start: int = 0, end: int | None = None) -> list[Stretch]:
    """The characters [start, end) of a text in order, cut wherever a mark begins or ends; empty marks are left out."""
    end = len(text) if end is None else end
    begins, ends = defaultdict(list), defaultdict(list)
    for mark in marks:
        low, high = max(mark.start, start), min(mark.end, end)
        if low < high:
            begins[low].append(mark)
            ends[high].append(mark)
    stretches: list[Stretch] = []
    open_marks: dict[str, Mark] = {}
    for low, high in pairwise(sorted({start, end, *begins, *ends})):
        for mark in ends[low]:
            del open_marks[mark.id]
        open_marks |= {mark.id: mark for mark in begins[low]}
        stretches.append(Stretch(text[low:high], tuple(open_marks.values()), bool(begins[low])))
    return stretches


def page_of(note: FoundNote) -> dict[str, Any]:
    """What the template shows."""
    page = read_page(note.text)
    evidence = [{**row, "id": f"e{i}"} for i, row in enumerate(note.summary["evidence"] or ())]
    flags = [{**flag, "id": f"f{i}"} for i, flag in enumerate(note.summary["flags"] or ())]
    entities = list(_entities(note.record))
    groups = list(_flag_groups(note, flags))
    leaves = [leaf for group in entities for row in group["rows"] for leaf in row["leaves"]]
    marks = [
        *(Mark(f"h{i}", "heading", section.heading, section.start) for i, section in enumerate(page.sections)),
        *(Mark(row["id"], "cited", row["source_start"], row["source_end"]) for row in evidence if row["source_start"] is not None),
        *(_flag_mark(flag["id"], flag["source_start"], flag["source_end"]) for flag in flags if flag["source_start"] is not None),
        *(Mark(leaf["id"], "value", leaf["start"], leaf["end"]) for leaf in leaves),
    ]
    return {
        "note": cut_at_marks(note.text, marks),
        "sentences": list(_sentences(note, page, evidence, flags)),
        "reasons": [group for group in groups if not group["informs"]],
        "asides": [group for group in groups if group["informs"]],
        "warnings": list(note.summary["contract_warnings"] or ()),
        "entities": [group for group in entities if group["rows"]],
        "empty": [group["title"] for group in entities if not group["rows"]],
        "identity": [(name, note.summary[name]) for name in _IDENTITY if note.summary.get(name)],
        "provenance": [(name.replace("_", " "), note.summary[name]) for name in _PROVENANCE],
        "record_by": note.record.get("model_id"),
        # Where the rules alone read, there is nothing to tell apart.
        "shows_readers": any("model" in row["readers"] for group in entities for row in group["rows"]),
        "passed_through": [(name, value) for name, value in note.summary.items() if name not in SUMMARY_SCHEMA.names and value is not None],
        "versions": note.versions,
        "figures": _figures(note.summary),
    }


_IDENTITY = ("note_id", "patient_id", "encounter_id", "note_type", "written_at")
_PROVENANCE = (
    "model_id",
    "model_sha256",
    "backend",
    "dtype",
    "decode",
    "version",
    "code_version",
    "note_sha256",
    "source_file",
    "source_row",
)


def _sentences(
    note: FoundNote, page: Page, evidence: Sequence[Mapping[str, Any]], flags: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """The summary, sentence by sentence as its evidence cuts it, with what stands behind each."""
    summary = note.summary["summary"]
    marks = [_flag_mark(flag["id"], flag["start"], flag["end"]) for flag in flags if flag["start"] is not None]
    rows: dict[tuple[int, int], list[Mapping[str, Any]]] = defaultdict(list)
    for row in evidence:
        rows[row["summary_start"], row["summary_end"]].append(row)
    done = 0
    for (start, end), mine in sorted(rows.items()):
        start = max(start, done)
        if end <= start:
            continue
        if summary[done:start].strip():
            yield {"kind": "none", "stretches": cut_at_marks(summary, marks, done, start), "sources": []}
        sources = [_source(note.text, page, row) for row in mine if row["source_start"] is not None]
        yield {"kind": mine[0]["kind"], "stretches": cut_at_marks(summary, marks, start, end), "sources": sources}
        done = end
    if summary[done:].strip():
        yield {"kind": "none", "stretches": cut_at_marks(summary, marks, done), "sources": []}


def _flag_groups(note: FoundNote, flags: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """One group per code, with the words that each of its flags is about."""
    by_code: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for flag in flags:
        by_code[flag["code"]].append(flag)
    for code, mine in by_code.items():
        places = [place for flag in mine if (place := _place(note, flag))]
        yield {"code": code, "meaning": FLAGS.get(code, ""), "places": places, "informs": code in INFORMATIVE}


def _flag_mark(number: str, start: int, end: int) -> Mark:
    """Underlined where it is about some words; a flag about half the note would hide all others."""
    return Mark(number, "flagged" if end - start <= _LONGEST_UNDERLINED else "flagged-whole", start, end)


def _place(note: FoundNote, flag: Mapping[str, Any]) -> dict[str, str] | None:
    """The words of the summary, and those of the note that they should have been; None for a flag about the whole."""
    here, there = (
        "" if flag[f"{side}start"] is None else _shortened(text[flag[f"{side}start"] : flag[f"{side}end"]])
        for side, text in (("", note.summary["summary"]), ("source_", note.text))
    )
    if not here and not there:
        return None
    return {"id": flag["id"], "words": here or there, "instead": there if here and here != there else ""}


def _shortened(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= _EXCERPT else words[:_EXCERPT].rsplit(" ", 1)[0] + " …"


def _source(text: str, page: Page, row: Mapping[str, Any]) -> dict[str, Any]:
    section = page.section_at(row["source_start"])
    return {
        "id": row["id"],
        "section": section.replace("_", " ") if section else "",
        "words": _shortened(text[row["source_start"] : row["source_end"]]),
        "score": f"{100 * row['score']:.0f} %",
        "kind": _KINDS.get(row["kind"], row["kind"]),
    }


def _entities(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One group per field of the record; each row is what its leaves say, in the order of the schema."""
    number = 0
    for spec in RECORD_FIELDS:
        value = record.get(spec.name)
        rows = []
        for entity in (value if isinstance(value, list) else [{spec.name: value}]) if value else ():
            leaves = []
            for name, leaf in entity.items():
                if isinstance(leaf, dict) and leaf.keys() >= {f.name for f in LEAF}:
                    leaves.append({**leaf, "id": f"v{number}", "name": name.replace("_", " ")})
                    number += 1
            if leaves:
                rows.append({"leaves": leaves, "assertion": _said_of(leaves[0]), "readers": entity.get("readers") or []})
        yield {"title": spec.name.replace("_", " ").capitalize(), "rows": rows}


def _said_of(leaf: Mapping[str, Any]) -> str:
    """What is said of a finding, empty where it is present. A denial that has a name of its own goes by that: "NKDA" is not absent."""
    if leaf["assertion"] == Assertion.ABSENT and leaf["normal"]:
        return str(leaf["normal"])
    return "" if leaf["assertion"] in (None, Assertion.PRESENT) else str(leaf["assertion"])


def _figures(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    figures = []
    if summary["coverage"] is not None:
        figures.append(("words that stand in the note", f"{100 * summary['coverage']:.0f} %"))
    if summary["compression"] is not None:
        figures.append(("note words per summary word", f"{summary['compression']:.1f}"))
    if summary["windows"] and summary["windows"] > 1:
        figures.append(("parts in which the note was read", str(summary["windows"])))
    if summary["tokens_dropped"]:
        figures.append(("tokens of the note not read", f"{summary['tokens_dropped']:,}"))
    return figures


def render_page(note: FoundNote) -> str:
    """The page as HTML."""
    return html_page.render("inspect", _TEMPLATE, page=page_of(note), kinds=_KINDS)


def write_page(html: str, path: Path, output: str) -> None:
    """Write the page; `output`: the output folder, in which it must not lie. Raises as `html_page.write_page`."""
    html_page.write_page("inspect", html, path, output)
