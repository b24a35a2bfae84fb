"""HTML and RTF to text, and the bytes of an attachment to characters."""

from __future__ import annotations

import base64
import html
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.rejection import Reason
from tests.damage import damaged
from transforms.formats.content import UnusableError, charset_of, clean, decode, kind_of, text_of, unbase64
from transforms.formats.markup import html_to_text
from transforms.formats.rtf import rtf_to_text

PAGE = """<!DOCTYPE html><html><head><title>Export 7</title><style>p {color: red}</style></head><body>
<h2>Allergies</h2><p>None&nbsp;known.<br/>Asked   twice.</p>
<ul><li>first</li><li><p>second</p><ol><li>inner one</li><li>inner two</li></ol></li></ul>
<table><tr><th>Drug</th><th>Dose</th></tr><tr><td>Lisinopril</td><td>10 mg<br>daily</td></tr><tr><td></td><td> </td></tr></table>
done<script>var hidden = 1 < 2;</script>, bye<!-- a comment -->.</body></html>"""
PAGE_TEXT = """Allergies

None known.
Asked twice.

- first
- second
  1. inner one
  2. inner two

Drug | Dose
Lisinopril | 10 mg daily

done, bye."""

RTF = rb"""{\rtf1\ansi\ansicpg1252\deff0{\fonttbl{\f0\fswiss Arial;}{\f1\froman\fcharset204 Times;}}{\*\generator Writer 3;}
{\info{\title A title}{\author Someone}}{\header Page 1}\viewkind4\uc1\pard\f0\fs20\b ALLERGIES:\b0  none known\par
caf\'e9 \u233 ? \u-10179?\u-8704? {\f1 \'cf\'f0}{\pict\wmetafile8 0102030405}{\object{\*\objdata 0105}{\result seen}}\par
\trowd\cellx1\cellx2\pard\intbl Drug\cell Dose\cell\row
\trowd\cellx1\cellx2\pard\intbl Lisinopril\cell 10 mg\par daily\cell\row
\pard 5 x10{\super 9}/L {\v unseen}\v not this\v0 but this {\field{\*\fldinst HYPERLINK "x"}{\fldrslt a link}}\par
a \{brace\} and a \\ stroke\~here\par}"""
RTF_TEXT = """ALLERGIES: none known
café é 😀 Прseen
Drug | Dose
Lisinopril | 10 mg daily
5 x10^9/L but this a link
a {brace} and a \\ stroke\u00a0here"""


def test_a_page_becomes_lines() -> None:
    assert html_to_text(PAGE) == PAGE_TEXT


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("no tags at all:\n  temp &gt; 38", "no tags at all:\n  temp > 38"),
        ("<p>a<p>b", "a\n\nb"),
        ("<b>one</b><i>two</i>", "onetwo"),
        ("<p>BP <120 and O2<95%, temp>38</p>", "BP <120 and O2<95%, temp>38"),
        ("<pre>a  b\n  c\n\nd</pre>e", "a  b\n  c\n\nd\n\ne"),
        ('<div style="white-space: pre-wrap">a\n b</div>', "a\n b"),
        ("<p>10<sup>9</sup>/L on the 1<sup>st</sup>, H<sub>2</sub>O</p>", "10^9/L on the 1st, H2O"),
        ('<p>kept <del>gone</del><span style="display: none">gone</span><span hidden>gone</span>too</p>', "kept too"),
        ("<table><tr><td>menu</td><td><h3>Plan</h3><p>Go home.</p></td></tr></table>", "menu\n\nPlan\n\nGo home."),
        ("<table><tr><td><p>one</p><p>two</p></td></tr></table>", "one\n\ntwo"),
        ("<table><tr><td>x<table><tr><td>a</td><td>b</td></tr></table></td></tr></table>", "x\n\na | b"),
        ("<table><tr><td>a</td><td></td><td>c</td></tr></table>", "a | | c"),
        ("<ol><li>a</li></ol><ol><li>b</li></ol>", "1. a\n1. b"),
        ("<p>&#xD800;&#0;&amp;&unknown;</p>", "\ufffd\ufffd&&unknown;"),
        ("<html></html>", ""),
        ("<!-- never closed", ""),
        ("</p></table></ul></li>stray", "stray"),
    ],
)
def test_html(page: str, text: str) -> None:
    assert html_to_text(page) == text


def test_a_page_that_is_nested_too_deep_is_refused_rather_than_cut() -> None:
    assert html_to_text("<div>" * 1_000 + "kept") == "kept"
    with pytest.raises(ValueError, match="deep"):
        html_to_text("<div>" * 5_000 + "lost")


def test_deep_lists_make_little_text_of_much() -> None:
    assert len(html_to_text("<ul><li>a" * 900)) < 900 * 20


def test_rtf_becomes_lines() -> None:
    assert text_of(RTF, "rtf") == text_of(RTF, "plain") == RTF_TEXT


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (rb"a\line b\tab c\par\par\par\par d", "a\nb\tc\n\nd"),
        (rb"\uc2\u8364 EUx{\uc0\u8364}y", "\u20acx\u20acy"),
        (rb"\u99999999? \u-99999?", "\ufffd \ufffd"),
        (rb"\bin3 {{{a", "a"),
        (rb"\bin9999999999 lost", ""),
        (rb"{\*\unknown {nested} x}a", "a"),
        (rb"\mac caf\'8e", "café"),
        (rb"\ansicpg65001 caf\'c3\'a9", "café"),
        (rb"\ansicpg99999 caf\'e9", "café"),
        (rb"{\fonttbl{\f2\fcharset128 Gothic;}}{\f2 \'82\'a0}", "\u3042"),
        (rb"\pard\intbl left open\cell", "left open"),
        (rb"\intbl one\par two\par three\par four\par five\cell side\cell\row", "one\ntwo\nthree\nfour\nfive\nside"),
        (rb"\'zz \ ", "'zz"),
        (rb"a}b{\rtf1 c}", "a" + "c"),
    ],
)
def test_rtf(body: bytes, text: str) -> None:
    assert clean(rtf_to_text(rb"{\rtf1\ansi " + body + b"}")) == text


def test_rtf_that_was_cut_short_or_is_none_is_refused() -> None:
    for data in (b"plain", RTF[: RTF.index(b"Writer")], b""):
        with pytest.raises(ValueError):
            rtf_to_text(data)


PRINTABLE = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")) | st.just("\n"), max_size=60)


def as_rtf(text: str) -> bytes:
    units = text.encode("utf-16-le", "surrogatepass")
    numbers = [int.from_bytes(units[place : place + 2], "little", signed=True) for place in range(0, len(units), 2)]
    marks = {10: "\\par ", 92: "\\\\", 123: "\\{", 125: "\\}"}
    body = "".join(marks.get(n) or (chr(n) if 32 <= n < 127 else f"\\u{n}?") for n in numbers)
    return f"{{\\rtf1\\ansi {body}}}".encode("ascii")


@given(PRINTABLE)
def test_what_was_written_as_rtf_is_read_back(text: str) -> None:
    lines = "\n".join(line.rstrip() for line in f"begin{text}end".split("\n"))
    assert clean(rtf_to_text(as_rtf(f"begin{text}end"))) == re.sub(r"\n{3,}", "\n\n", lines)


@given(PRINTABLE)
def test_what_was_written_as_html_is_read_back(text: str) -> None:
    lines = (" ".join(line.split()) for line in f"begin{text}end".split("\n"))
    page = html.escape(f"begin{text}end").replace("\n", "<br>")
    assert html_to_text(f"<div>{page}</div>") == "\n".join(line for line in lines if line.strip("| "))


@given(st.binary(max_size=300))
def test_any_bytes_give_text_that_can_be_stored_or_a_reason(data: bytes) -> None:
    for kind in ("plain", "html", "rtf"):
        for content in (data, b"{\\rtf1 " + data + b"}", b"<p>" + data):
            survives(content, kind)


def survives(data: bytes, kind: str) -> None:
    try:
        text_of(data, kind, None).encode("utf-8")
    except UnusableError as error:
        assert error.reason in (Reason.CONTENT_UNREADABLE, Reason.CONTENT_MISSING)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "sample"), [("html", PAGE.encode()), ("rtf", RTF)])
def test_damaged_markup_survives(kind: str, sample: bytes) -> None:
    for data in damaged([sample], 1_000):
        survives(data, kind)


@pytest.mark.parametrize(
    ("kind", "unit"),
    [
        ("rtf", b"{\\field{\\*\\fldinst{}}}"),
        ("rtf", b"\\cell x"),
        ("rtf", b"\\u8364?"),
        ("html", b"<td>a"),
        ("html", b"<table><tr><td>"),
        ("html", b"<li>a"),
        ("html", b"<pre>\n"),
        ("html", b"<!--"),
        ("html", b"&#"),
    ],
)
def test_time_grows_with_the_length(kind: str, unit: bytes) -> None:
    def seconds(count: int) -> float:
        start = time.process_time()
        survives((b"{\\rtf1 " if kind == "rtf" else b"<p>") + unit * count, kind)
        return time.process_time() - start

    seconds(10)
    # Ten times the input in a hundred times the time would be quadratic.
    assert seconds(20_000) < 40 * seconds(2_000) + 0.2


def test_media_types() -> None:
    assert [kind_of(name) for name in ("text/plain;charset=x", "TEXT/HTML", "application/rtf", "text/xml", None)] == [
        "plain", "html", "rtf", "xml", "plain",
    ]  # fmt: skip
    assert kind_of("application/pdf") is None and kind_of("image/png") is None
    assert charset_of('text/html; Charset="ISO-8859-1"') == "ISO-8859-1" and charset_of("text/plain") is None


@pytest.mark.parametrize(
    ("data", "charset", "text"),
    [
        ("é".encode(), None, "é"),
        ("é".encode("latin-1"), "iso-8859-1", "é"),
        ("\u201cé\u201d".encode("cp1252"), None, "\u201cé\u201d"),
        ("é, à".encode("utf-16"), "utf-8", "é, à"),
        ("\ufeffé".encode(), "latin-1", "é"),
        ("é".encode(), "no such charset", "é"),
        ("é".encode(), "ascii", "é"),
        ("é".encode(), "\x00", "é"),
        (b"a\\x41", "unicode_escape", "a\\x41"),
        (b"abc", "idna", "abc"),
        (b"abc", "hex", "abc"),
    ],
)
def test_bytes_are_decoded_as_declared_if_that_fits(data: bytes, charset: str | None, text: str) -> None:
    assert decode(data, charset) == text


def test_a_page_may_name_its_encoding() -> None:
    page = '<meta charset="windows-1251"><p>Пр</p>'
    assert text_of(page.encode("cp1251"), "html") == "Пр"


def test_base64() -> None:
    assert unbase64(" aGVs\r\nbG8= ") == b"hello"
    for bad in ("aGVsbG8", "a*b=", "é", "="):
        with pytest.raises(UnusableError) as caught:
            unbase64(bad)
        assert caught.value.reason is Reason.CONTENT_UNREADABLE and str(caught.value) == "CONTENT_UNREADABLE"


@given(st.binary(max_size=60))
def test_base64_gives_the_bytes_back(data: bytes) -> None:
    assert unbase64(base64.b64encode(data).decode()) == data


@given(st.text(alphabet=st.characters(), max_size=40))
def test_cleaned_text_can_be_stored_and_stays_so(text: str) -> None:
    assert "\r" not in clean(text) and clean(clean(text)) == clean(text)
    clean(text + "\ud83d" + "\ude00\ud800").encode("utf-8")
