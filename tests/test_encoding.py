"""Encodings are told from the bytes, whatever the chunks they come in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.formats.encoding import detect_encoding


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (b"", "utf-8"),
        (b"plain text", "utf-8"),
        ("fièvre 38 °C, température".encode(), "utf-8"),
        ("日本語のテキスト".encode(), "utf-8"),
        ("fièvre 38 °C, température".encode() + b" \xff", "utf-8"),
        ("fièvre 38 °C".encode("latin-1"), "latin-1"),
        ("“fièvre” – 38 °C €".encode("cp1252"), "cp1252"),
        ("fièvre 38 °C".encode("latin-1") + b"\x81\x92", "latin-1"),
        ("\ufefffièvre".encode(), "utf-8"),
        ("fièvre".encode("utf-16"), "utf-16"),
        ("fièvre et toux".encode("utf-16-le"), "utf-16-le"),
        ("fièvre et toux".encode("utf-16-be"), "utf-16-be"),
    ],
)
def test_known_encodings(data: bytes, encoding: str) -> None:
    assert detect_encoding([data]) == encoding


@given(
    st.lists(
        st.sampled_from([b"a", b"\xc3\xa9", b"\xe9", b"\xe2\x82\xac", b"\x80", b"\x93", b"\x81", b"\xf0\x9f\x98\x80", b"\xc3"]), max_size=30
    ),
    st.data(),
)
def test_chunks_do_not_matter(parts: list[bytes], data: st.DataObject) -> None:
    whole = b"start " + b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(1, len(whole)), max_size=5)))
    chunks = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert detect_encoding(chunks) == detect_encoding([whole])


@given(st.text())
def test_utf8_is_always_known(text: str) -> None:
    if "\0" not in text:
        assert detect_encoding([text.encode()]) == "utf-8" or text.encode().startswith((b"\xff\xfe", b"\xfe\xff"))
