"""`make sbom`: the list of what is installed, as CycloneDX JSON, names every package in its version."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_every_installed_package_is_listed(tmp_path: Path) -> None:
    """Installs the tool, as the target does; skipped where it cannot be had."""
    said = {"SBOM": tmp_path / "sbom.json", "SBOM_VENV": tmp_path / "tool", "SBOM_OF": sys.executable, "PYTHON": sys.executable}
    command = ["make", "-o", ".venv/.installed", "sbom", *(f"{name}={value}" for name, value in said.items())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode and "No matching distribution" in done.stderr:
        pytest.skip("the package index does not have the tool")
    assert done.returncode == 0, done.stderr
    bom = json.loads((tmp_path / "sbom.json").read_text())
    assert bom["bomFormat"] == "CycloneDX" and bom["metadata"]["component"]["name"] == "chartmill"
    listed = {component["name"].lower().replace("_", "-"): component["version"] for component in bom["components"]}
    # Of this environment's folder alone: setuptools puts the copies that it carries on the path too.
    site = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    found = {d.name: d.version for d in metadata.distributions(path=sorted(set(site))) if d.name != "chartmill"}
    installed = {name.lower().replace("_", "-"): version for name, version in found.items()}
    assert listed == installed and "cyclonedx-bom" not in listed
    assert listed["torch"].startswith("2.13.0")
    licensed = [component for component in bom["components"] if component.get("licenses")]
    assert len(licensed) > 0.8 * len(bom["components"])
