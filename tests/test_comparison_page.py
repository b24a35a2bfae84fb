"""The page and the plot: nothing overlaps, everything is inside, nothing can run, and no text of a note is in it."""

from __future__ import annotations

import io
import re
import stat
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from pipeline.comparison.figures import Terms, rows_of
from pipeline.comparison.page import plot_of, render_page, write_page
from pipeline.comparison.plot import HEIGHT, WIDTH, Point, lay_out
from pipeline.comparison.runs import Written
from pipeline.comparison.tables import print_comparison
from schemas.errors import ConfigurationError
from tests.browser import open_browser
from tests.canaries import Canaries
from tests.comparisons import LIMITS, comparison, entrants, ran, written

COSTS, SCORES = st.floats(0.01, 50), st.floats(0, 100)


@st.composite
def points(draw: st.DrawFn) -> list[Point]:
    """One to eight, some of them alike."""
    found = []
    for i in range(draw(st.integers(1, 8))):
        x, y = draw(COSTS), draw(SCORES)
        spread = draw(st.floats(0, 5))
        ends = ((0.9 * x, 1.1 * x), (y - spread, y + spread))
        found.append(
            Point("contender " * draw(st.integers(1, 3)) + str(i), x, ends[0], y, ends[1], draw(st.booleans()), draw(st.booleans()))
        )
    return found


@given(points())
def test_labels_are_inside_and_do_not_overlap(given_points: list[Point]) -> None:
    plot = lay_out(given_points)
    for mark in plot.marks:
        box = mark.label.box
        assert 0 <= box.left < box.right <= WIDTH and 0 <= box.top < box.bottom <= HEIGHT
        assert plot.frame.left < mark.left <= mark.x <= mark.right < plot.frame.right
        assert plot.frame.top < mark.top <= mark.y <= mark.bottom < plot.frame.bottom
    assert not [1 for one, other in combinations(plot.marks, 2) if one.label.box.overlap(other.label.box) > 1e-6]


@given(points())
def test_more_cost_is_further_right_and_more_quality_higher(given_points: list[Point]) -> None:
    marks = lay_out(given_points).marks
    for one, other in combinations(marks, 2):
        if one.point.x < other.point.x:
            assert one.x <= other.x
        if one.point.y < other.point.y:
            assert one.y >= other.y


def test_ticks_are_few_and_round() -> None:
    plot = lay_out([Point("a", 0.03, (0.03, 0.03), 36.6, (34.0, 39.0), True, True), Point("b", 2, (2, 2), 38, (36, 40), True, True)])
    assert [text for _, text in plot.x_ticks] == ["0.05", "0.1", "0.2", "0.5", "1", "2"]
    assert [text for _, text in plot.y_ticks] == ["34", "35", "36", "37", "38", "39", "40"]
    assert plot.front.count("V") == 1


def some(canary: str = "") -> dict[str, object]:
    values = [40.0 + i % 9 for i in range(40)]
    return {
        "float32": ran(written(values), rate=1.0),
        "int8": ran(written([value - 0.1 for value in values], mark=canary), rate=2.0),
        "slow": ran(written([value - 0.2 for value in values]), rate=0.5),
        "held <script>alert(1)</script>": ran(written(values, flagged=20), rate=3.0),
        "absent": "engine.dtype: int8 needs another CPU",
    }


def test_the_page_shows_who_passes_and_who_is_on_the_front() -> None:
    html = render_page(comparison(some()))
    drawn = re.findall(r'<circle class="([^"]*)".*?/>\s*<text class="name"[^>]*>([^<]*)<', html)
    assert [style for style, _ in drawn] == ["dot", "dot", "dot inner", "dot off"]
    assert [name for _, name in drawn][:3] == ["float32", "int8", "slow"]
    assert "<script>" not in html and "&lt;script&gt;" in html
    assert "could not run:</span> engine.dtype: int8 needs another CPU" in html
    assert "http" not in html.replace("http-equiv", "")


def test_a_comparison_without_anybody_has_a_page_too() -> None:
    found = comparison({"a": "its process died"})
    assert plot_of(found) is None and "<svg" not in render_page(found)


def test_no_summary_gets_into_page_table_or_repr(canaries: Canaries) -> None:
    texts = tuple(Written(f"{canaries['summary']} {i}", ("LEAD_COPY",)) for i in range(5))
    given = entrants("a", "b")
    rows = rows_of(given, {"a": ran(texts), "b": ran(texts)}, {}, None, Terms("a", "rouge1", 1.0, LIMITS, 3), None)
    canaries.assert_absent("rows", repr(rows) + repr(texts))
    found = replace(comparison({"a": ran(written([1.0])), "b": ran(written([1.0]))}, references=False), rows=rows)
    page = io.StringIO()
    print_comparison(found, Console(file=page, width=100))
    canaries.assert_absent("page, table and JSON", render_page(found) + page.getvalue() + str(found.as_json()))


@pytest.mark.parametrize("references", [True, False])
@pytest.mark.parametrize("price", [0.36, None])
def test_the_tables_fit_a_terminal(references: bool, price: float | None) -> None:
    page = io.StringIO()
    print_comparison(comparison(some(), references, price=price), Console(file=page, width=80))
    lines = page.getvalue().splitlines()
    assert "…" not in page.getvalue()
    assert any("* int8" in line and ("-0.1 [-0.1, -0.1]" in line or "0 %" in line) for line in lines)
    assert any("absent could not run" in line for line in lines)


def test_the_page_is_private_and_replaces_only_its_own_kind(tmp_path: Path) -> None:
    path = tmp_path / "compare.html"
    for _ in range(2):
        write_page(render_page(comparison(some())), path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("my own")
    with pytest.raises(ConfigurationError, match="--html: something else"):
        write_page("", path)
    with pytest.raises(ConfigurationError, match="no such folder"):
        write_page("", tmp_path / "absent" / "x.html")


@pytest.mark.slow
def test_a_browser_has_nothing_to_complain_about(tmp_path: Path) -> None:
    path = tmp_path / "compare.html"
    path.write_text(render_page(comparison(some())))
    with open_browser(tmp_path / "profile") as browser:
        for width in (360, 1440):
            browser.open(path, width=width)
            assert browser.ask("document.documentElement.scrollWidth") <= width
        boxes = browser.ask(
            "[...document.querySelectorAll('svg .name')].map(n => (b => [b.x, b.y, b.right, b.bottom])(n.getBoundingClientRect()))"
        )
        overlaps = [1 for a, b in combinations(boxes, 2) if a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]]
        assert len(boxes) == 4 and not overlaps and not browser.complaints
