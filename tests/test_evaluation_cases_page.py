"""The page of best and worst cases: what it shows, that it is safe to open, and where it may be written."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import load_job
from pipeline.evaluation.cases_page import CASES, histogram, page_of, render_cases, write_cases
from pipeline.evaluation.measure import Evaluated, Options, measure
from schemas.errors import ConfigurationError
from tests.conftest import SENTENCES, note_rows, write_notes

HOSTILE = '<script>alert(1)</script> & \u202e"quoted" {{ 7 * 7 }}'


def evaluated(folder: Path, rows: list[dict[str, Any]]) -> Evaluated:
    path = write_notes(folder / "pairs.parquet", rows)
    job = load_job(None, ("tasks.summary.decode.max_new_tokens=12",), {"input.uris": [str(path)], "engine.backend": "echo"})
    return measure(job, Options(resamples=200, baseline_words=16))


def rows(count: int) -> list[dict[str, Any]]:
    made = [{**row, "reference": SENTENCES[i % 8]} for i, row in enumerate(note_rows(count))]
    made[0]["text"] += " " + HOSTILE
    made[0]["reference"] = HOSTILE
    return made


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    return evaluated(tmp_path_factory.mktemp("many"), rows(40))


def test_the_worst_come_first_and_the_best_are_others(many: Evaluated) -> None:
    worst, best = (group["cases"] for group in page_of(many)["groups"])
    assert len(worst) == len(best) == CASES
    assert not {case["number"] for case in worst} & {case["number"] for case in best}
    low, high = ([float(case["scores"][0]) for case in cases] for cases in (worst, best))
    assert low == sorted(low)
    assert high == sorted(high, reverse=True)
    assert low[-1] <= high[-1]


@pytest.mark.parametrize(("count", "shown"), [(1, (1, 0)), (2, (1, 1)), (5, (3, 2)), (25, (10, 10))])
def test_few_notes_are_shown_once(tmp_path: Path, count: int, shown: tuple[int, int]) -> None:
    groups = page_of(evaluated(tmp_path, rows(count)))["groups"]
    assert tuple(len(group["cases"]) for group in groups) == shown


def test_texts_are_escaped_and_the_policy_lets_nothing_in(many: Evaluated) -> None:
    html = render_cases(many)
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "{{ 7 * 7 }}" in html
    assert "default-src &#39;none&#39;; style-src &#39;sha256-" in html
    assert "http" not in html.replace("http-equiv", "")
    assert "Contains patient text" in html


def test_a_failed_note_says_why(tmp_path: Path) -> None:
    made = rows(3)
    done = evaluated(tmp_path, made)
    failed = Evaluated(done.notes, (type(done.summaries[0])(failed="OUT_OF_MEMORY"), *done.summaries[1:]), done.scored, done.figures)
    assert "OUT_OF_MEMORY: The note did not fit into memory" in render_cases(failed)


def test_the_histogram_counts_every_note_once() -> None:
    drawn = histogram([0, 2.5, 5, 99.9, 100], [("mean", 41.5, "ours"), ("other", 80.0, "theirs")])
    assert [(bar["low"], bar["count"]) for bar in drawn["bars"] if bar["count"]] == [(0, 2), (5, 1), (95, 2)]
    assert all(0 <= bar["y"] <= drawn["base"] for bar in drawn["bars"])
    assert [line["anchor"] for line in drawn["lines"]] == ["start", "end"]


def test_only_its_own_page_is_replaced_and_only_its_owner_reads_it(many: Evaluated, tmp_path: Path) -> None:
    page = tmp_path / "cases.html"
    write_cases(many, page, None)
    write_cases(many, page, None)
    assert stat.S_IMODE(page.stat().st_mode) == 0o600
    page.write_text("<p>something else</p>")
    with pytest.raises(ConfigurationError, match="not overwritten"):
        write_cases(many, page, None)
    with pytest.raises(ConfigurationError, match="not written into the output folder"):
        write_cases(many, tmp_path / "out" / "cases.html", str(tmp_path / "out"))
