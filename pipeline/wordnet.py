"""What the vocabulary takes from WordNet 3.0: ordinary words, which are no names of drugs, and the names of procedures."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Synsets (offsets in data.noun of WordNet 3.0) whose hyponyms are taken.
_PROCEDURES = ("00671351", "01024392", "00177127")  # surgical procedure, medical procedure, diagnostic procedure
_SUBSTANCES = ("03740161", "03247620", "14806838", "00019613")  # medicine, drug, chemical, substance


@dataclass(frozen=True, slots=True)
class WordNet:
    """`nouns`: all. `common`: words of which no sense is a substance. `drugs`: substances. `procedures`: name -> first synonym."""

    nouns: frozenset[str]
    common: frozenset[str]
    drugs: frozenset[str]
    procedures: dict[str, str]


def read_wordnet(folder: Path) -> WordNet:
    """Read the data files of WordNet's database. Raises FileNotFoundError without them."""
    lemmas, narrower = _synsets(folder / "data.noun")
    substances = frozenset(lemma for synset in _below(_SUBSTANCES, narrower) for lemma in lemmas.get(synset, ()))
    nouns = frozenset(lemma for found in lemmas.values() for lemma in found)
    others = (lemma for part in ("verb", "adj") for found in _synsets(folder / f"data.{part}")[0].values() for lemma in found)
    procedures: dict[str, str] = {}
    for synset in sorted(_below(_PROCEDURES, narrower)):
        for lemma in lemmas.get(synset, ()):
            procedures.setdefault(lemma, lemmas[synset][0])
    return WordNet(nouns, (nouns | frozenset(others)) - substances, substances, procedures)


def _synsets(path: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Offset -> its words in lower case, and offset -> offsets of its hyponyms and instances."""
    lemmas: dict[str, list[str]] = {}
    narrower: dict[str, list[str]] = defaultdict(list)
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):  # the licence
            continue
        fields = line.partition(" | ")[0].split(" ")
        count = int(fields[3], 16)
        lemmas[fields[0]] = [word.lower().replace("_", " ").partition("(")[0] for word in fields[4 : 4 + 2 * count : 2]]
        pointers = fields[5 + 2 * count :]
        narrower[fields[0]] = [pointers[i + 1] for i in range(0, len(pointers) - 3, 4) if pointers[i].startswith("~")]
    return lemmas, narrower


def _below(roots: tuple[str, ...], narrower: dict[str, list[str]]) -> frozenset[str]:
    seen: set[str] = set()
    for synset in roots:
        seen.update(_walk(synset, narrower, seen))
    return frozenset(seen)


def _walk(root: str, narrower: dict[str, list[str]], seen: set[str]) -> Iterator[str]:
    waiting = [root]
    while waiting:
        synset = waiting.pop()
        if synset not in seen:
            yield synset
            waiting.extend(narrower.get(synset, ()))
