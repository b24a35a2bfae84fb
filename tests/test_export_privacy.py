"""An export holds patient text in its data files, by design, and nowhere else: not in names, manifests, records, output, logs, errors."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipeline.run import run_job
from tests.canaries import Canaries, Said, assert_private, command, every_log_record, plant
from tests.conftest import echo_job
from transforms.exports import Target
from transforms.parquet import from_parquet


def test_nothing_of_a_patient_stands_outside_the_files(
    tmp_path: Path, canaries: Canaries, said: Said, capfd: pytest.CaptureFixture[str]
) -> None:
    notes, out, new = plant(tmp_path / "notes", canaries), tmp_path / "out", tmp_path / "new"
    lenient = {"gate.max_quarantined_share": 1, "gate.max_flagged_share": 1, "gate.contract": "ignore"}
    assert run_job(echo_job(notes, out, **lenient)).published.released
    with every_log_record(said):
        for target in Target:
            arguments = ("export", str(out), "--to", target, "--output", str(new / "export"), "--validate", "--json")
            assert command(capfd, said, *arguments) == 0
        break_a_file(out)
        for target in Target:
            assert command(capfd, said, "export", str(out), "--to", target, "--output", str(tmp_path / "broken"), "--json") == 1
    said.assert_clean(canaries)
    for target, held in searched(new / "export", canaries).items():
        assert canaries["note id"] in held and canaries["patient id"] in held, f"{target}: they must be somewhere, or this proves nothing"
    assert_private(new)


def searched(destination: Path, canaries: Canaries) -> dict[str, str]:
    """What the data files of each target hold, once all else was searched for canaries."""
    held: dict[str, str] = {}
    for path in sorted(destination.rglob("*")):
        relative = path.relative_to(destination)
        canaries.assert_absent("a file name", str(relative))
        if path.is_dir():
            continue
        raw = path.read_bytes()
        if path.name == "manifest.json" or relative.parts[0] == "_exports":
            canaries.assert_absent(path.name, raw)
            continue
        text = json.dumps(from_parquet(raw).to_pylist(), default=str) if path.suffix == ".parquet" else raw.decode()
        held[relative.parts[0]] = held.get(relative.parts[0], "") + text
    assert held.keys() == set(Target)
    return held


def break_a_file(out: Path) -> None:
    """A summaries file whose footer is damaged: what the reader says of it may quote it."""
    path = next((out / "summaries").glob("version=*/*.parquet"))
    os.chmod(path, 0o600)
    path.write_bytes(path.read_bytes()[:-6] + b"broken")
