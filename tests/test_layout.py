"""The house rules that tools can check: names, packages, imports, file sizes, what tracked files may mention, what a wheel carries."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from fnmatch import fnmatch
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("pipeline", "transforms", "schemas")
LONGEST_FILE = 400
FOLDERS = {*SOURCES, "tests", "deploy", ".ci", ".github"}


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def our_files() -> list[Path]:
    """What git tracks or would track; everything in a tree without git."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def test_the_top_level_names_are_ours_alone() -> None:
    owners = metadata.packages_distributions()
    for name in SOURCES:
        assert set(owners.get(name, ())) <= {"chartmill"}, f"another distribution installs a package called {name}"
        assert Path(__import__(name).__path__[0]).resolve() == ROOT / name
    assert "Private :: Do Not Upload" in metadata.metadata("chartmill").get_all("Classifier", [])


def test_packages_are_listed_as_they_stand() -> None:
    folders = {".".join(path.parent.relative_to(ROOT).parts) for source in SOURCES for path in (ROOT / source).rglob("__init__.py")}
    assert set(pyproject()["tool"]["setuptools"]["packages"]) == folders
    without_init = {path.parent for path in python_files(*SOURCES) if not (path.parent / "__init__.py").exists()}
    assert not without_init


def test_sources_live_in_their_folders_only() -> None:
    strays = {path.relative_to(ROOT).parts[0] for path in our_files() if len(path.relative_to(ROOT).parts) > 1} - FOLDERS
    assert not strays
    assert not [path for path in our_files() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] not in (*SOURCES, "tests")]


def test_no_file_is_too_long() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in python_files(*SOURCES, "tests")}
    too_long = {name: length for name, length in lengths.items() if length > LONGEST_FILE}
    assert not too_long


def test_every_module_says_what_it_is() -> None:
    silent = [str(p.relative_to(ROOT)) for p in python_files(*SOURCES) if not ast.get_docstring(ast.parse(p.read_text("utf-8")))]
    assert not silent


def test_imports_go_one_way() -> None:
    # In a process of its own: it switches off every logger of the one it runs in.
    lint = [sys.executable, "-c", "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(cache_dir=None))"]
    assert subprocess.run(lint, cwd=ROOT, capture_output=True, check=False).returncode == 0


def test_the_console_script_is_the_command_line() -> None:
    from pipeline.cli import main

    [script] = metadata.entry_points(group="console_scripts", name="chartmill")
    assert script.load() is main and pyproject()["project"]["scripts"] == {"chartmill": "pipeline.cli:main"}


def test_the_library_versions_in_use_are_the_pinned_ones() -> None:
    for requirement in pyproject()["project"]["dependencies"]:
        name, _, pin = requirement.partition("==")
        if pin:
            # A local build says so behind a plus sign.
            assert metadata.version(name).partition("+")[0] == pin


# Hosts that the project may name, and files that quote a licence with its addresses.
PUBLIC_HOSTS = {
    "download.pytorch.org", "pypi.org", "github.com", "huggingface.co", "doi.org", "arxiv.org", "aclanthology.org", "www.apache.org",
    "beam.apache.org", "docs.aws.amazon.com", "www.w3.org", "hl7.org", "www.nlm.nih.gov", "creativecommons.org", "127.0.0.1", "localhost",
    "terminology.hl7.org", "unitsofmeasure.org", "loinc.org", "snomed.info", "www.whocc.no", "ohdsi.github.io",
    "docs.greatexpectations.io", "img.shields.io", "schema.management.azure.com", "json-schema.org", "public.ecr.aws",
    "raw.githubusercontent.com", "prometheus.io",
}  # fmt: skip
# A mirror's name or address, and a path of somebody's own machine (not SageMaker's own).
PRIVATE = re.compile(
    r"(?i)(?:artifactory|nexus|devpi|codeartifact|pypi[-.]?mirror|mirrors?\.[a-z])|--?(?:extra-)?index-url[ =]+https?://(?!download\.pytorch\.org)"
    r"|(?<![\w.}/])/(?:home|root|Users|work|mnt|opt(?!/ml\b))/[\w.-]+"
)
TEXT = (".py", ".toml", ".md", ".yaml", ".yml", ".json", ".html", ".cfg", ".txt", "")


def text_files() -> list[Path]:
    files = [path for path in our_files() if path.suffix in TEXT and path != Path(__file__).resolve()]
    return [path for path in files if {"default_model", "default_record_model"}.isdisjoint(path.parts) or path.suffix == ".md"]


def test_no_file_names_a_mirror_or_a_path_of_one_machine() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{number}": match.group()
        for path in text_files()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if (match := PRIVATE.search(line))
    }
    assert not found


def test_every_host_that_is_named_is_a_public_one() -> None:
    hosts: dict[str, str] = {}
    for path in text_files():
        for host in re.findall(r"https?://([A-Za-z0-9.-]+)", path.read_text("utf-8")):
            hosts.setdefault(host.rstrip("."), str(path.relative_to(ROOT)))
    unknown = {host: path for host, path in hosts.items() if host not in PUBLIC_HOSTS and not host.endswith((".example", "example.com"))}
    assert not unknown


def package_data() -> set[str]:
    """Everything beside the code in our packages, as a wheel would name it."""
    patterns = pyproject()["tool"]["setuptools"]["package-data"]
    return {
        str(path.relative_to(ROOT))
        for package, globs in patterns.items()
        for path in (ROOT / package.replace(".", "/")).rglob("*")
        if path.is_file() and any(fnmatch(str(path.relative_to(ROOT / package.replace(".", "/"))), glob) for glob in globs)
    }


def test_package_data_is_all_declared() -> None:
    declared = package_data()
    assert {"pipeline/job.yaml", "pipeline/report.html", "schemas/suites/notes.json"} <= declared
    beside = {str(p.relative_to(ROOT)) for p in our_files() if p.relative_to(ROOT).parts[0] in SOURCES and p.suffix != ".py"}
    assert beside <= declared


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*Package .* is absent:Warning")
def test_a_wheel_carries_everything(tmp_path: Path) -> None:
    """Built by the backend that pip uses, from a copy, so that nothing is left in the tree."""
    import shutil

    from setuptools import build_meta

    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    if not (source / "README.md").exists():
        (source / "README.md").touch()
    for name in SOURCES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(source)
        wheel = build_meta.build_wheel(str(tmp_path))
    names = set(zipfile.ZipFile(tmp_path / wheel).namelist())
    code = {str(path.relative_to(ROOT)) for path in python_files(*SOURCES)}
    assert code | package_data() <= names
    assert {name.split("/")[0] for name in names} - set(SOURCES) == {f"chartmill-{pyproject()['project']['version']}.dist-info"}
