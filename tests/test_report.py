"""The report page: what it says, that it asks nothing of the network, and that it opens in a real browser."""

from __future__ import annotations

import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from pipeline.report import FLAGS, REASONS, duration, render_report, share_text
from schemas.histogram import EDGES
from schemas.rejection import Reason
from tests.browser import find_chromium


def _counts(name: str, *peaks: int) -> dict[str, Any]:
    counts = [0] * (len(EDGES[name]) + 1)
    for i, peak in enumerate(peaks):
        counts[i + 1] = peak
    return {"edges": list(EDGES[name]), "counts": counts}


def _rule(key: str, description: str, **figures: Any) -> dict[str, Any]:
    return {
        "key": key, "expectation": "expect_something", "column": "text", "severity": "critical", "reason": "MISSING_TEXT",
        "description": description, "evaluated": 1188, "unexpected": 0, "crashed": 0, "unexpected_share": 0.0, "mostly": 1.0,
        "success": True,
    } | figures  # fmt: skip


def example(**changes: Any) -> dict[str, Any]:
    """A finished run of 1,200 notes with every part filled."""
    return {
        "run_id": "20250304T101500-4f2a", "version": "v0123456789ab", "created_at": "2025-03-04T10:21:44Z", "complete": True,
        "remaining_shards": 0, "remaining_notes": 0, "notes_in": 1200, "notes_summarized": 1152, "notes_quarantined": 48,
        "files_quarantined": 1, "notes_flagged": 37, "notes_warned": 24, "shards": 2, "shards_resumed": 1,
        "reasons": {"DUPLICATE_ID": 20, "MISSING_TEXT": 12, "ENCODING_DAMAGE": 9, "MISSING_ID": 7, "FILE_CORRUPT": 1},
        "expectations": [
            _rule("text_present", "The note has a text", unexpected=12, unexpected_share=12 / 1188, success=False),
            _rule("note_id_present", "The note has an id", column="note_id", reason="MISSING_ID"),
            _rule("written_at_plausible", "The date, if any, lies in 1900-2099", severity="warning", column="written_at"),
            _rule("text_printable", "At least 95 % of the characters are printable", crashed=400),
        ],
        "flags": {"LOW_COVERAGE": 21, "UNSUPPORTED_NUMBER": 9, "SOURCE_CUT": 7, "HOUSE_RULE_7": 2},
        "fields": {"age": 1100, "sex": 1098, "problems": 700, "medications": 640, "allergies": 910,
                   "observations": 1002, "procedures": 210, "follow_up": 0},
        "tokens": {"source": 412345, "generated": 80211, "padded": 20100, "truncated": 880},
        "seconds": {"read": 0.8, "validate": 1.9, "segment": 1.1, "generate": 222.4, "record": 2.4, "verify": 3.8, "commit": 0.3},
        "notes_per_second": 5.13,
        "histograms": {
            "note_words": _counts("note_words", 3, 40, 210, 500, 260, 100, 39),
            "summary_words": _counts("summary_words", 1, 9, 40, 120, 300, 380, 220, 82),
            "coverage": _counts("coverage", 0, 0, 0, 0, 2, 10, 30, 80, 230),
            "compression": _counts("compression", 90, 260, 480, 240, 82),
        },
        "gate": {
            "passed": True, "accepted": None,
            "checks": [
                {"name": "max_quarantined_share", "limit": 0.05, "value": 0.04, "passed": True, "description": "Share of notes set aside"},
                {"name": "max_flagged_share", "limit": 0.1, "value": 37 / 1152, "passed": True, "description": "Flagged summaries"},
                {"name": "contract", "limit": "pass", "value": "pass", "passed": True, "description": "Every rule of the contract is kept"},
            ],
        },
        "model": {"id": "default", "sha256": "ab" * 32, "backend": "torch", "dtype": "bfloat16",
                  "decode": {"num_beams": 1, "max_new_tokens": 160}},
        "versions": {"chartmill": "0.1.0", "torch": "2.13.0", "python": "3.11.7"},
        "settings": {"input": {"duplicates": "first"}, "gate": {"max_quarantined_share": 0.05}},
        "total": {"notes_in": 1200, "notes_summarized": 1152, "notes_quarantined": 48, "files_quarantined": 1, "shards": 2},
        "run": {"shards": 1, "notes": 700, "seconds": 140.2, "notes_per_second": 4.99, "model_loads": 1},
        **changes,
    }  # fmt: skip


class _Page(HTMLParser):
    """Tags, attributes and the text outside of style."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def _held(**gate: Any) -> dict[str, Any]:
    checks = [{"name": "max_quarantined_share", "limit": 0.05, "value": 0.2, "passed": False, "description": "Share of notes set aside"}]
    return example(gate={"passed": False, "accepted": None, "checks": checks} | gate)


EMPTY = {
    "notes_in": 0, "notes_summarized": 0, "notes_quarantined": 0, "reasons": {}, "expectations": [], "histograms": {},
    "gate": {"passed": True, "accepted": None, "checks": []},
}  # fmt: skip
OPEN = {"complete": False, "remaining_notes": 5000, "remaining_shards": 5}
ACCEPTED = {"accepted": {"at": "2025-03-05", "reason": "checked"}}
REPORTS = {"passed": example(), "held": _held(), "accepted": _held(**ACCEPTED), "open": example(**OPEN), "nothing": {}, "no notes": EMPTY}


def test_first_screen_says_in_words_what_came_of_the_run() -> None:
    text = _Page(render_report(example())).text()
    assert "The run passed its gate" in text
    assert "Every note is accounted for: 1,152 summarized + 48 set aside = 1,200 in." in text
    assert "AI-generated, unreviewed." in text
    assert text.index("passed its gate") < text.index("accounted for") < text.index("Why notes were set aside")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "held",
            "Held by its gate 1 of 1 limits was not kept: Share of notes set aside. The results are stored but",
        ),
        (
            "accepted",
            "Released by hand 1 of 1 limits was not kept: Share of notes set aside. A person accepted the results (2025-03-05): checked",
        ),
        ("open", "Not finished yet 5,000 notes are still to do."),
        ("nothing", "No gate was evaluated"),
        ("no notes", "No notes came in, so there is nothing to account for."),
    ],
)
def test_other_outcomes_are_said_plainly(name: str, sentence: str) -> None:
    assert sentence in _Page(render_report(REPORTS[name])).text()


def test_a_gap_in_the_sum_is_shouted() -> None:
    text = _Page(render_report(example(notes_summarized=1100))).text()
    assert "The sum does not add up: 1,100 + 48 is not 1,200. Do not use these results." in text


def test_every_reason_and_known_flag_is_explained() -> None:
    assert set(REASONS) == {reason.value for reason in Reason}
    text = _Page(render_report(example(reasons=dict.fromkeys(REASONS, 1), flags=dict.fromkeys(FLAGS, 1)))).text()
    assert [meaning for meaning in (*REASONS.values(), *FLAGS.values()) if meaning not in text] == []


def test_unknown_codes_are_shown_as_themselves() -> None:
    assert "HOUSE_RULE_7" in _Page(render_report(example())).text()


def test_a_crashed_rule_never_reads_as_kept() -> None:
    text = _Page(render_report(example())).text()
    assert "not evaluated for 400" in text
    only = example(expectations=[_rule("k", "d", evaluated=0, crashed=9, success=True)], gate={})
    assert "✓ kept" not in _Page(render_report(only)).text()


def test_figures_of_every_part_are_there() -> None:
    text = _Page(render_report(example())).text()
    for figure in (
        "412,345",
        "3 min 42 s",
        "5.13 notes a second",
        "of which 1 had been done before",
        "torch 2.13.0",
        "decode.num_beams 1",
        "4.99",
    ):
        assert figure in text, figure


def test_histogram_bars_carry_each_count() -> None:
    page = _Page(render_report(example()))
    heights = [value for tag, name, value in page.attributes if (tag, name) == ("rect", "height")]
    assert "under 10: 0" in page.text() and "200 to under 300: 260" in page.text()
    assert len(heights) > sum(len(edges) + 1 for edges in EDGES.values())


@pytest.mark.parametrize("name", REPORTS)
def test_nothing_points_outside(name: str) -> None:
    html = render_report(REPORTS[name])
    page = _Page(html)
    assert {"script", "link", "img", "iframe", "object", "embed", "a", "base", "form", "use", "image"}.isdisjoint(page.tags)
    assert not {attribute for _, attribute, _ in page.attributes} & {
        "src",
        "href",
        "xlink:href",
        "srcset",
        "data",
        "action",
        "poster",
        "background",
    }
    assert not any(attribute.startswith("on") for _, attribute, _ in page.attributes)
    for sign in ("http://", "https://", "url(", "@import", "//"):
        assert sign not in html, sign


def test_everything_is_escaped() -> None:
    evil = '<script>alert("1")</script><img src=x onerror=y>'
    held = _held(accepted={"at": evil, "reason": evil})
    page = _Page(
        render_report(
            held
            | {"run_id": evil, "version": evil, "reasons": {evil: 1}, "flags": {evil: 1}, "fields": {evil: 1}}
            | {
                "model": {evil: evil},
                "settings": {evil: {evil: [evil]}},
                "versions": {evil: evil},
                "tokens": {evil: 1},
                "seconds": {evil: 1.0},
            }
            | {
                "expectations": [_rule(evil, evil, column=evil, severity=evil, reason=evil)],
                "histograms": {evil: {"edges": [1], "counts": [1, 2]}},
            }
        )
    )
    assert "script" not in page.tags and "img" not in page.tags
    assert page.text().count('alert("1")') > 10


def test_tables_name_their_columns_and_rows() -> None:
    page = _Page(render_report(example()))
    scopes = [value for tag, name, value in page.attributes if (tag, name) == ("th", "scope")]
    assert len(scopes) == page.tags.count("th") and {"col", "row"} == set(scopes)
    drawings = page.tags.count("svg")
    told = [name for tag, name, _ in page.attributes if tag == "svg" and name in ("aria-label", "aria-hidden")]
    assert len(told) == drawings
    assert page.tags.count("h1") == 1


@pytest.mark.parametrize(
    ("value", "words"),
    [(0, "0 %"), (1, "100 %"), (0.05, "5 %"), (0.00001, "< 0.01 %"), (0.99999, "> 99.99 %"), (0.12345, "12.35 %"), (None, "–")],
)
def test_a_share_never_rounds_to_none_or_all(value: float | None, words: str) -> None:
    assert share_text(value) == words


@pytest.mark.parametrize(("value", "words"), [(0.0421, "0.042 s"), (12.4, "12 s"), (60, "1 min"), (3599.9, "60 min"), (7500, "2 h 5 min")])
def test_durations(value: float, words: str) -> None:
    assert duration(value) == words


def _chromium(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage", "--no-first-run",
             "--host-resolver-rules=MAP * ~NOTFOUND", "--proxy-server=127.0.0.1:9", f"--user-data-dir={folder / 'profile'}"]  # fmt: skip
    return subprocess.run([find_chromium(), *flags, *arguments], capture_output=True, text=True, timeout=90, check=True)


@pytest.mark.slow
def test_opens_in_a_browser_without_network(tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    report.write_text(render_report(example()), encoding="utf-8")
    picture = tmp_path / "report.png"
    _chromium(tmp_path, "--window-size=1280,900", f"--screenshot={picture}", report.as_uri())
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    shown = _chromium(tmp_path, "--dump-dom", report.as_uri())
    assert _Page(shown.stdout).text() == _Page(report.read_text(encoding="utf-8")).text()
    assert "The run passed its gate" in shown.stdout
