from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path

import pytest

from pipeline.build_vocabulary import _generic, _is_drug_name, _unpickle, _usable, build
from pipeline.wordnet import WordNet, read_wordnet

WORDS = WordNet(frozenset({"gout", "choice"}), frozenset({"choice", "gout"}), frozenset({"morphine"}), {})

# Two synsets under "surgical procedure", one under "drug", and a verb, in the format of wndb(5).
NOUNS = """  1 This stands for the licence.
00671351 04 n 01 surgical_procedure 0 001 ~ 00000001 n 0000 | made up
00000001 04 n 02 cutting_out 0 excision 0 001 ~ 00000002 n 0000 | made up
00000002 04 n 01 biopsy 0 000 | made up
03247620 06 n 01 drug 0 001 ~ 00000003 n 0000 | made up
00000003 06 n 01 Morphine 0 000 | made up
00000004 04 n 01 choice 0 000 | made up
"""


def test_wordnet_gives_procedures_and_everyday_words(tmp_path: Path) -> None:
    (tmp_path / "data.noun").write_text(NOUNS)
    (tmp_path / "data.verb").write_text("00000005 30 v 01 run 0 000 01 + 01 00 | made up\n")
    (tmp_path / "data.adj").write_text("")
    words = read_wordnet(tmp_path)
    assert words.procedures == {
        "surgical procedure": "surgical procedure", "cutting out": "cutting out", "excision": "cutting out", "biopsy": "biopsy",
    }  # fmt: skip
    assert "morphine" in words.drugs and "morphine" not in words.common
    assert {"choice", "run"} <= words.common


def test_a_pickle_that_names_code_is_refused() -> None:
    assert _unpickle(pickle.dumps({"a": ["b", 1]})) == {"a": ["b", 1]}
    with pytest.raises(pickle.UnpicklingError):
        _unpickle(pickle.dumps(OrderedDict(a=1)))


def test_salts_are_left_out_unless_they_are_the_drug() -> None:
    assert _generic("metformin hydrochloride") == "metformin"
    assert _generic("amlodipine besylate") == "amlodipine"
    assert _generic("potassium chloride") == "potassium chloride"


def test_everyday_words_are_no_drugs() -> None:
    assert not _is_drug_name("choice", "bn", WORDS)
    assert not _is_drug_name("n,n-dimethyl", "of", WORDS)
    assert _is_drug_name("lasix", "bn", WORDS)


def test_titles_and_abbreviations_are_no_problems() -> None:
    assert _usable("gout", WORDS)
    assert not _usable("jmes", WORDS)
    assert not _usable("one two three four five", WORDS)


def test_a_missing_package_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        build(tmp_path, WORDS)
