"""`chartmill inspect`: one note found again, its page, and real clicks in it."""

from __future__ import annotations

import csv
import errno
import io
import json
import re
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli import main
from pipeline.config import Job
from pipeline.direct import run_directly
from pipeline.find_note import FoundNote, find_note
from pipeline.inspect_note import Mark, cut_at_marks, page_of, render_page, write_page
from pipeline.planning import plan_run
from pipeline.prepare import prepare
from pipeline.run import new_run_id, run_job
from schemas.errors import ChartmillError, ConfigurationError
from tests.browser import Browser, open_browser
from tests.canaries import Canaries, Said, assert_files_clean, every_log_record
from tests.conftest import echo_job, note_rows, note_text, write_notes
from transforms.evidence import trace_summary
from transforms.record import parse_record
from transforms.sentences import split_sentences
from transforms.store import LocalStore, open_store

NOTE = (
    "HISTORY: Seen for a swollen left knee after a fall. Denies fever or chills.\n\n"
    "MEDICATIONS:\n- warfarin 5 mg daily\n- lisinopril 10 mg once daily\n\n"
    "ALLERGIES: penicillin (rash)\n\n"
    "PLAN: Aspirated 40 mL of clear fluid from the left knee. Stop warfarin for three days. Review on Friday with INR."
)
SUMMARY = "Denies fever or chills. 60 mL of clear fluid was aspirated from the knee and warfarin stopped. An echocardiogram was normal."


def found_note(text: str = NOTE, summary: str = SUMMARY, **changes: Any) -> FoundNote:
    """A note as `find_note` gives it, with a wrong number, an omission and a sentence from nowhere."""
    wrong, right, left_out = summary.find("60 mL"), text.find("40 mL"), text.find("penicillin")
    flags = [
        {"code": "UNSUPPORTED_NUMBER", "start": wrong, "end": wrong + 5, "source_start": right, "source_end": right + 5},
        {"code": "OMITTED_ALLERGY", "start": None, "end": None, "source_start": left_out, "source_end": left_out + 10},
        {"code": "LOW_COVERAGE", "start": None, "end": None, "source_start": None, "source_end": None},
    ]
    row = {
        "note_id": "A-17", "patient_id": "P-4", "encounter_id": None, "note_type": "clinic", "written_at": "2025-03-04", "source_file": 0,
        "source_row": 3, "note_sha256": "ab" * 32, "summary": summary, "evidence": trace_summary(text, split_sentences(text), summary),
        "flags": flags, "contract_warnings": ["written_at_plausible"], "coverage": 0.81, "density": 4.0, "compression": 2.5, "windows": 2,
        "tokens_dropped": 0, "ai_generated": True, "review_status": "unreviewed", "model_id": "default", "model_sha256": "cd" * 32,
        "backend": "torch", "dtype": "float32", "decode": "{}", "version": "v0", "code_version": "0.1.0", "ward": "7 <b>West</b>",
    }  # fmt: skip
    return FoundNote(text, row | changes, {**parse_record(text), "model_id": "rules"})


@given(
    st.text(max_size=40), st.lists(st.tuples(st.integers(-3, 45), st.integers(-3, 45)), max_size=8), st.integers(0, 20), st.integers(0, 40)
)
def test_stretches_are_the_text_and_hold_their_marks(text: str, spans: list[tuple[int, int]], start: int, end: int) -> None:
    start = min(start, len(text))
    end = max(start, min(end, len(text)))
    marks = [Mark(f"m{i}", "cited", *span) for i, span in enumerate(spans)]
    stretches = cut_at_marks(text, marks, start, end)
    assert "".join(stretch.text for stretch in stretches) == text[start:end]
    for mark in marks:
        held = [stretch for stretch in stretches if mark in stretch.marks]
        low, high = max(mark.start, start), min(mark.end, end)
        assert "".join(stretch.text for stretch in held) == (text[low:high] if low < high else "")
        assert not held or held[0].first


def test_the_page_shows_every_part_and_runs_nothing_foreign() -> None:
    note = found_note("Plan: <img src=x onerror=alert(1)> & </script> rest.", "Plan </style>.")
    html = render_page(note)
    assert "<img" not in html and html.count("</script>") == 1 and html.count("</style>") == 1
    assert "7 &lt;b&gt;West&lt;/b&gt;" in html and "written_at_plausible" in html
    assert not re.findall(r"(?:src|href|url\()\s*[=(]?\s*[\"']?https?:", html)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', html)
    assert policy and "default-src &#39;none&#39;" in policy[1] and "unsafe" not in policy[1]


def test_empty_parts_are_said_to_be_empty() -> None:
    nothing = {"evidence": [], "flags": [], "contract_warnings": None, "coverage": None, "compression": None}
    html = render_page(found_note("Nothing to read here", "Rest.", **nothing))
    assert "The record is empty." in html and 'class="reasons"' not in html


def test_the_page_names_sections_and_scores() -> None:
    sentences = page_of(found_note())["sentences"]
    assert [sentence["kind"] for sentence in sentences] == ["exact", "lexical", "unsupported"]
    assert sentences[0]["sources"][0]["score"] == "100 %" and sentences[1]["sources"][0]["section"] == "plan"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Iterator[Browser]:
    """The example's page in a browser; whatever the browser complains of fails the test."""
    file = tmp_path / "page.html"
    file.write_text(render_page(found_note()), encoding="utf-8")
    browser.open(file)
    yield browser
    assert not browser.complaints


# What breaks out of a page that escapes by halves, and what turns or hides text.
HOSTILE = (
    "</title></style></script><script>document.title='broken'</script> <!-- --> <img src=x onerror=\"document.title='broken'\"> "
    "'\" onclick=document.title='broken' {{ 7*7 }} {% raw %} &lt; &#0; \u2028\u2029\u202eturned\u202c \u05d0\u05d1 \x00\x0b\ufffe"
)


def test_nothing_in_a_note_breaks_out_of_the_page(browser: Browser, tmp_path: Path) -> None:
    names = ("note_id", "patient_id", "encounter_id", "note_type", "written_at", "model_id", "decode", "source_file")
    text = f"{HOSTILE}: rest.\nMEDICATIONS:\n- {HOSTILE} 5 mg daily\nALLERGIES: {HOSTILE}\n{NOTE}"
    note = found_note(text, f"{HOSTILE}. {SUMMARY}", **dict.fromkeys(names, HOSTILE), contract_warnings=[HOSTILE], **{HOSTILE: HOSTILE})
    file = tmp_path / "page.html"
    file.write_bytes(render_page(note).encode("utf-8", "replace"))
    browser.open(file)
    assert browser.ask("document.title") == "chartmill: a note and its summary"
    assert browser.ask("[document.scripts.length, document.images.length, document.querySelectorAll('[onclick]').length]") == [1, 0, 0]
    # HTML has no NUL; all else stands as it was.
    assert browser.ask("document.querySelector('#text').textContent") == text.replace("\x00", "")
    assert browser.ask("document.querySelector('h1').textContent") == HOSTILE.replace("\x00", "")
    assert not browser.complaints


def test_half_a_character_stops_no_page(tmp_path: Path) -> None:
    write_page(render_page(found_note(f"{NOTE} \ud800", ward="\udfff")), tmp_path / "page.html", "out")
    assert "INR. ?" in (tmp_path / "page.html").read_text(encoding="utf-8")


def lit(page: Browser, within: str = "#text") -> str:
    return str(page.ask(f"[...document.querySelectorAll('{within} .lit')].map(e => e.textContent).join('')"))


def test_the_note_is_shown_to_the_letter(page: Browser) -> None:
    assert page.ask("document.querySelector('#text').textContent") == NOTE


def test_a_summary_sentence_lights_its_evidence(page: Browser) -> None:
    assert lit(page) == ""
    page.click(".sentences > .exact .sentence")
    assert lit(page) == "Denies fever or chills."
    assert page.ask("document.querySelector('.sentences .sources').checkVisibility()")
    page.click(".sentences > .lexical .sentence")
    assert lit(page) == "PLAN: Aspirated 40 mL of clear fluid from the left knee.Stop warfarin for three days."
    assert page.ask("document.querySelector('#status span').textContent") == "2 places in the note lit"
    page.click(".sentences > .lexical .sources li:nth-child(2) button")
    assert lit(page) == "Stop warfarin for three days."
    assert page.ask("document.querySelector('.sentences > .unsupported button')") is None


def test_evidence_is_scrolled_into_view(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "long.html"
    file.write_text(render_page(found_note(text=("Slept well. " * 900) + NOTE)), encoding="utf-8")
    for size in ((1440, 900), (390, 844)):
        browser.open(file, *size)
        browser.click(".sentences > .lexical .sentence")
        top = browser.ask("document.querySelector('#text .lit').getBoundingClientRect().top")
        assert 0 < top < size[1]
        browser.press("Escape", 27)
        assert lit(browser) == ""
        assert browser.ask("document.activeElement.className") == "sentence"
        assert browser.ask("(r => r.top >= 0 && r.bottom <= innerHeight)(document.activeElement.getBoundingClientRect())")


def test_a_value_of_the_record_lights_its_place(page: Browser) -> None:
    leaves = page.ask("[...document.querySelectorAll('.leaf')].map(e => e.dataset.cites)")
    assert len(leaves) >= 4
    for cites in leaves:
        page.click(f'.leaf[data-cites="{cites}"]')
        shown = page.ask(f"[...document.querySelector('.leaf[data-cites=\"{cites}\"]').childNodes].at(-1).textContent")
        assert lit(page) == shown.strip()


def test_a_place_in_the_note_tells_what_cites_it(page: Browser) -> None:
    page.click("#text .cited:not(.flagged)")
    assert page.ask("document.querySelector('.citing').textContent") == "Denies fever or chills."
    assert page.ask("document.querySelector('#status span').textContent") == "Cited by sentence 1 of the summary"
    page.click("#text .value")
    assert page.ask("document.querySelector('.leaf.citing').textContent") == lit(page)


def test_the_keyboard_is_enough(page: Browser) -> None:
    for _ in range(60):
        page.press("Tab", 9)
        if page.ask("document.activeElement.matches('.sentence')"):
            break
    page.press("Enter", 13)
    assert lit(page) == "Denies fever or chills."
    page.ask("document.querySelector('#text .cited[data-first]').focus()")
    page.press("Enter", 13)
    assert page.ask("document.querySelectorAll('.citing').length") == 1


def test_flags_show_on_both_sides(page: Browser) -> None:
    page.click(".reasons .place")
    assert (lit(page), lit(page, "#summary")) == ("40 mL", "60 mL")
    page.click(".asides .place")
    assert (lit(page), lit(page, "#summary")) == ("penicillin", "")
    assert page.ask("document.querySelectorAll('.flag').length") == 4
    assert page.ask("document.querySelectorAll('.place').length") == 2  # one is about the whole and one is a warning


def test_flags_of_one_code_stand_together_with_their_words() -> None:
    flags = [
        {"code": code, "start": None, "end": None, "source_start": NOTE.find(word), "source_end": NOTE.find(word) + len(word)}
        for code, word in (("OMITTED_DRUG", "warfarin"), ("UNSUPPORTED_NUMBER", "40 mL"), ("OMITTED_DRUG", "lisinopril"))
    ]
    shown = page_of(found_note(flags=flags))
    assert [group["code"] for group in shown["reasons"]] == ["UNSUPPORTED_NUMBER"]
    assert [[place["words"] for place in group["places"]] for group in shown["asides"]] == [["warfarin", "lisinopril"]]


def test_a_denial_with_a_name_is_shown_by_it() -> None:
    [row] = next(group for group in page_of(found_note("ALLERGIES: NKDA"))["entities"] if group["title"] == "Allergies")["rows"]
    assert row["assertion"] == "no known allergies"


def run_here(job: Job) -> None:
    """Plan and do a job without Beam, and without publishing it."""
    prepared = prepare(job)
    run_directly(prepared, plan_run(prepared.store, prepared.version, new_run_id(), prepared.plan_settings(), prepared.said_in_plan()))


def test_a_note_is_found_with_all_that_was_made_of_it(notes_folder: Path, tmp_path: Path) -> None:
    assert run_job(echo_job(notes_folder, tmp_path / "out")).published.released
    for number in (0, 24, 41, 69):
        note = find_note(LocalStore(tmp_path / "out"), f"n{number:06d}")
        assert note.text == note_text(number)
        assert note.summary["note_id"] == f"n{number:06d}" and note.summary["summary"] in note.text
        assert note.record["age"]["text"] in note.text and note.versions == 1
        assert render_page(note)


def test_inputs_that_moved_or_changed_are_told_apart(notes_folder: Path, tmp_path: Path) -> None:
    run_here(echo_job(notes_folder, tmp_path / "out"))
    shutil.move(notes_folder, tmp_path / "moved")
    with pytest.raises(ChartmillError, match="say with --input where it is now"):
        find_note(LocalStore(tmp_path / "out"), "n000003")
    assert find_note(LocalStore(tmp_path / "out"), "n000003", [str(tmp_path / "moved")]).text == note_text(3)
    renamed = tmp_path / "moved" / "a.parquet"
    renamed = renamed.rename(tmp_path / "renamed.parquet")
    assert find_note(LocalStore(tmp_path / "out"), "n000003", [str(renamed)]).text == note_text(3)
    # A rewritten copy that still holds the text will do; one that does not will not.
    copy = write_notes(tmp_path / "moved" / "a.parquet", note_rows(24))
    assert find_note(LocalStore(tmp_path / "out"), "n000003", [str(copy)]).text == note_text(3)
    write_notes(copy, note_rows(24, 1))
    for number in (3, 24):
        with pytest.raises(ChartmillError, match="has changed since"):
            find_note(LocalStore(tmp_path / "out"), f"n{number:06d}", [str(copy)])


def test_a_later_run_from_elsewhere_hides_nothing(notes_folder: Path, tmp_path: Path) -> None:
    run_here(echo_job(notes_folder, tmp_path / "out"))
    write_notes(tmp_path / "more" / "d.parquet", note_rows(3, 100))
    run_here(echo_job(tmp_path / "more", tmp_path / "out"))
    for number in (3, 101):
        assert find_note(LocalStore(tmp_path / "out"), f"n{number:06d}").text == note_text(number)


@pytest.mark.parametrize("name", ["notes.jsonl", "notes.csv"])
def test_notes_of_other_formats(name: str, tmp_path: Path) -> None:
    rows = [{"note_id": row["note_id"], "text": f'{row["text"]}\nSaid "fine", left.'} for row in note_rows(30)]
    (tmp_path / "notes").mkdir()
    with (tmp_path / "notes" / name).open("w", encoding="utf-8", newline="") as file:
        if name.endswith("csv"):
            writer = csv.DictWriter(file, ["note_id", "text"])
            writer.writeheader()
            writer.writerows(rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    run_here(echo_job(tmp_path / "notes", tmp_path / "out"))
    for number in (0, 9, 10, 29):
        assert find_note(LocalStore(tmp_path / "out"), f"n{number:06d}").text == rows[number]["text"]


def test_of_several_notes_with_one_id_the_last_is_shown(tmp_path: Path) -> None:
    first, second = note_rows(2)
    write_notes(tmp_path / "notes" / "a.parquet", [first, second | {"note_id": first["note_id"]}])
    run_here(echo_job(tmp_path / "notes", tmp_path / "all", "input.duplicates=all"))
    note = find_note(LocalStore(tmp_path / "all"), first["note_id"])
    assert (note.text, note.versions) == (second["text"], 2)
    run_here(echo_job(tmp_path / "notes", tmp_path / "first", **{"gate.max_quarantined_share": 1}))
    note = find_note(LocalStore(tmp_path / "first"), first["note_id"])
    assert (note.text, note.versions) == (first["text"], 1)


def test_what_cannot_be_shown_says_why(tmp_path: Path) -> None:
    rows = [*note_rows(25), {"note_id": "blank", "text": " "}]
    write_notes(tmp_path / "notes" / "a.parquet", rows)
    out = LocalStore(tmp_path / "out")
    with pytest.raises(ConfigurationError, match="no run has been planned"):
        find_note(out, "n000001")
    run_here(echo_job(tmp_path / "notes", tmp_path / "out", **{"run.limit": 5}))
    with pytest.raises(ChartmillError, match="planned but not done yet"):
        find_note(out, "n000024")
    run_here(echo_job(tmp_path / "notes", tmp_path / "out"))
    with pytest.raises(ChartmillError, match=r"set aside at the stage validate, by the rule .*: MISSING_TEXT"):
        find_note(out, "blank")
    with pytest.raises(ChartmillError, match="no note of that id"):
        find_note(out, "N000001")


@pytest.mark.s3
def test_notes_and_output_on_s3(bucket: str, tmp_path: Path) -> None:
    from transforms.store import s3_client

    s3_client().upload_file(str(write_notes(tmp_path / "a.parquet", note_rows(12))), bucket, "in/a.parquet")
    job = echo_job(f"s3://{bucket}/in/", f"s3://{bucket}/out/", **{"output.encryption": {"mode": "bucket"}})
    run_here(job)
    assert find_note(open_store(f"s3://{bucket}/out/", job.output.encryption.settings()), "n000007").text == note_text(7)


def test_the_file_is_private_and_replaces_only_its_like(tmp_path: Path) -> None:
    html, out = render_page(found_note()), tmp_path / "out"
    out.mkdir()
    target = tmp_path / "inspect.html"
    for _ in range(2):
        write_page(html, target, str(out))
        assert target.read_text(encoding="utf-8") == html and stat.S_IMODE(target.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inspect.html", "out"]
    target.write_text("my thesis", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="not overwritten"):
        write_page(html, target, str(out))
    with pytest.raises(ConfigurationError, match="not written into the output folder"):
        write_page(html, out / "page.html", str(out))
    with pytest.raises(ChartmillError, match="cannot be written"):
        write_page(html, tmp_path / "nowhere" / "page.html", str(out))
    with pytest.raises(ConfigurationError, match="not written into the output folder"):
        write_page(html, out / "page.html", out.as_uri())


def test_a_page_that_cannot_be_put_in_place_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "canary")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(ChartmillError, match="No space left") as caught:
        write_page(render_page(found_note()), tmp_path / "page.html", "s3://bucket/out/")
    assert not list(tmp_path.iterdir()) and "canary" not in str(caught.value)


def test_the_command_says_nothing_of_the_note(
    tmp_path: Path, canaries: Canaries, said: Said, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    c = canaries
    rows = note_rows(12)
    rows[3] |= {"note_id": c["id"], "text": f"{rows[3]['text']} {c['text']}", "patient_id": c["patient"], "ward": c["pass-through"]}
    rows[4] |= {"note_id": c["id of a blank note"], "text": " "}
    folder, out, page = tmp_path / c["folder"], tmp_path / "out", tmp_path / "page.html"
    write_notes(folder / f"{c['file']}.parquet", rows)
    assert not run_job(echo_job(folder, out)).published.released  # what the gate holds is what one wants to look at
    assert_files_clean(out, canaries)  # the plan alone knows where the notes are

    def inspect(*arguments: str, html: Path = page) -> int:
        return main(["inspect", str(out), *arguments, "--html", str(html)])

    with every_log_record(said):
        assert inspect(c["id"]) == 0
        assert c["text"] in page.read_text(encoding="utf-8")
        assert inspect(c["id of a blank note"]) == 1
        assert inspect(c["unknown id"]) == 1
        assert inspect(c["id"], html=out / f"{c['page name']}.html") == 2
        assert inspect(c["id"], c["stray argument"]) == 2
        assert inspect(c["id"], "--input", str(tmp_path / c["nowhere"])) == 2
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{c['id']}\n"))
        assert inspect("-") == 0
        shutil.rmtree(folder)
        assert inspect(c["id"]) == 1
    captured = capfd.readouterr()
    assert "It contains patient text" in captured.out
    said.add("stdout", captured.out)
    said.add("stderr", captured.err)
    said.assert_clean(canaries)
