"""Random histories of a drop folder: whatever happens to the files between runs, a release holds each live note once.

Files are written, replaced, deleted, renamed and put back; runs are full, limited, stopped half-way or held; the shard size changes and the
policy for duplicates may. After each full run every id that is in the folder is in the listing, and no id ever is there twice.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.direct import run_directly
from pipeline.planning import plan_run
from pipeline.prepare import prepare
from pipeline.publish import SUCCESS, Published, publish
from pipeline.run import new_run_id
from tests.conftest import echo_job, read_rows, write_notes
from transforms.revise import revise_commit


class DropFolder:
    """A folder of note files that things happen to."""

    def __init__(self, folder: Path, dice: random.Random) -> None:
        self.folder = folder
        self._dice = dice
        self._clock = 0
        self._earlier: list[tuple[str, bytes]] = []
        folder.mkdir()

    def change(self) -> None:
        self._clock += 1
        files = sorted(self.folder.glob("*.parquet"))
        what = self._dice.choice(("write", "write", "write", "write", "delete", "rename", "revert", "revert"))
        if what == "write" or len(files) < 2:
            self._write(self.folder / f"{self._dice.choice('abcdefg')}.parquet")
        elif what == "delete":
            self._remember(self._dice.choice(files)).unlink()
        elif what == "rename":
            self._dice.choice(files).rename(self.folder / f"renamed-{self._clock}.parquet")
        elif self._earlier:
            name, content = self._dice.choice(self._earlier)
            (self.folder / name).write_bytes(content)

    def _write(self, path: Path) -> None:
        if path.exists():
            self._remember(path)
        written_at = f"2025-{1 + self._clock // 28 % 12:02d}-{1 + self._clock % 28:02d}"
        numbers = self._dice.sample(range(25), self._dice.randint(1, 9))
        write_notes(path, [self._row(number, written_at) for number in numbers])

    def _row(self, number: int, written_at: str) -> dict[str, Any]:
        return {"note_id": f"n{number}", "text": f"Note {number} seen at time {self._clock} and well.", "written_at": written_at}

    def _remember(self, path: Path) -> Path:
        self._earlier.append((path.name, path.read_bytes()))
        return path

    def ids(self) -> set[str]:
        return {i for f in self.folder.glob("*.parquet") for i in pq.read_table(f, columns=["note_id"]).column(0).to_pylist()}


def run_once(folder: Path, output: Path, kind: str, dice: random.Random, policy: str) -> Published:
    """One run without Beam; `stopped` does at most two segments of it, `held` is held by its gate if anything is set aside."""
    settings: dict[str, Any] = {"input.duplicates": policy, "engine.shard_notes": dice.choice((4, 6, 12)), "gate.contract": "ignore"}
    settings["gate.max_quarantined_share"] = 0.0 if kind == "held" else 1.0
    if kind == "limited":
        settings["run.limit"] = dice.randint(1, 12)
    prepared = prepare(echo_job(folder, output, **settings))
    plan = plan_run(prepared.store, prepared.version, new_run_id(), prepared.plan_settings(), prepared.said_in_plan())
    if plan.to_do or plan.revisions:
        prepared.store.delete(SUCCESS)
    for record, shard in plan.revisions:
        revise_commit(record, shard, prepared.store, plan.plan.run_id)
    run_directly(prepared, replace(plan, to_do=plan.to_do[: dice.randint(0, 2)]) if kind == "stopped" else plan)
    return publish(prepared.store, prepared.version, sweep_after_s=0)


def check_release(folder: DropFolder, output: Path, published: Published) -> None:
    """After a full run: everything is there, once, and the figures add up."""
    report, rows = published.report, {kind: read_rows(output, kind) for kind in ("summaries", "records", "rejections")}
    assert published.released
    assert folder.ids() <= {row["note_id"] for row in rows["summaries"]}
    assert [r["note_id"] for r in rows["records"]] == [r["note_id"] for r in rows["summaries"]]
    assert report["notes_in"] == len(rows["summaries"]) + len(rows["rejections"])
    assert all(count >= 0 for histogram in report["histograms"].values() for count in histogram["counts"])
    assert sum(report["histograms"]["summary_words"]["counts"]) == report["notes_summarized"]
    assert all(count > 0 for name in ("reasons", "flags", "fields") for count in report[name].values())
    live = json.loads((output / json.loads((output / "_CURRENT.json").read_text())["live"]).read_text())
    named = {path for paths in live["shards"].values() for path in paths.values()}
    assert {str(f.relative_to(output)) for f in output.glob("*/version=*/*.parquet") if "-empty" not in f.name} == named


def check_history(seed: int, place: Path) -> None:
    dice = random.Random(seed)
    folder, output = DropFolder(place / "in", dice), place / "out"
    policy, switches = dice.choice(("first", "latest")), dice.random() < 0.4
    for _ in range(dice.randint(4, 9)):
        for _ in range(dice.randint(1, 3)):
            folder.change()
        policy = dice.choice(("first", "latest")) if switches else policy
        kind = dice.choice(("full", "full", "limited", "held", "stopped"))
        published = run_once(folder.folder, output, kind, dice, policy)
        if published.released:
            counts = Counter(row["note_id"] for row in read_rows(output, "summaries"))
            assert set(counts.values()) <= {1}
        if kind == "full":
            check_release(folder, output, published)


@pytest.mark.parametrize("seed", [1])
def test_a_release_holds_each_live_note_once(seed: int, tmp_path: Path) -> None:
    check_history(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *range(2, 18)])
def test_many_histories(seed: int, tmp_path: Path) -> None:
    check_history(seed, tmp_path)
