"""Stand-ins for modules: gone when they should be, and the module itself as soon as it is used."""

from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.stand_ins import standing_in

_NAMES = ("stood_in_for", "stood_in_for.part")


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package that nobody has imported yet, with one module in it."""
    folder = tmp_path / "stood_in_for"
    folder.mkdir()
    (folder / "__init__.py").write_text("VALUE = 1\n")
    (folder / "part.py").write_text("VALUE = 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in _NAMES:
        sys.modules.pop(name, None)


def bound() -> dict[str, object]:
    """What a module holds that imports the package while stand-ins are there."""
    names: dict[str, object] = {}
    with standing_in("stood_in_for"):
        exec("import stood_in_for", names)
    return names


def test_nothing_is_imported_until_it_is_used() -> None:
    held = bound()["stood_in_for"]
    assert "stood_in_for" not in sys.modules
    assert held.VALUE == 1  # type: ignore[attr-defined]
    assert sys.modules["stood_in_for"] is not held


def test_a_later_import_gives_the_module_itself() -> None:
    held = bound()["stood_in_for"]
    import stood_in_for  # type: ignore[import-not-found]

    assert stood_in_for is not held
    assert stood_in_for.__file__ == held.__file__  # type: ignore[attr-defined]


def test_use_while_it_stands_in_imports_the_module() -> None:
    with standing_in("stood_in_for"):
        assert importlib.import_module("stood_in_for.part").VALUE == 2
    assert sys.modules["stood_in_for"].part is sys.modules["stood_in_for.part"]


def test_what_is_imported_already_stays() -> None:
    import stood_in_for

    with standing_in("stood_in_for"):
        assert sys.modules["stood_in_for"] is stood_in_for
    assert sys.modules["stood_in_for"] is stood_in_for


def test_a_failing_import_leaves_no_stand_in() -> None:
    with pytest.raises(ZeroDivisionError), standing_in(*_NAMES):
        _ = 1 / 0
    assert not sys.modules.keys() & set(_NAMES)


def test_what_the_module_lacks_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError):
        _ = bound()["stood_in_for"].no_such_name  # type: ignore[attr-defined]


_FRESH = """
import sys
from schemas.expectations import register_expectations
register_expectations()
assert not {"scipy.stats", "altair"} & sys.modules.keys(), "imported after all"
import great_expectations.expectations.core.expect_column_kl_divergence_to_be_less_than as with_both
assert with_both.stats.entropy([1, 0]) == 0 and with_both.alt.Chart
"""


@pytest.mark.slow
def test_great_expectations_does_without_statistics_and_charts() -> None:
    subprocess.run([sys.executable, "-c", _FRESH], check=True, timeout=120)
