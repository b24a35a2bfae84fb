"""What a container learns of itself from SageMaker's files, and what it leaves behind in its message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.hosts import Host
from pipeline.publish import Published
from pipeline.run import Outcome, run_job
from pipeline.sagemaker_container import exit_message, outcome_message, this_host, write_message
from schemas.errors import ChartmillError, ConfigurationError
from tests.canaries import Canaries, Said, command, plant
from tests.conftest import echo_job


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHARTMILL_ML_ROOT", str(tmp_path / "ml"))
    (tmp_path / "ml" / "config").mkdir(parents=True)
    return tmp_path / "ml"


def configure(tree: Path, resources: Any, job: Any = None) -> None:
    (tree / "config" / "resourceconfig.json").write_text(json.dumps(resources))
    (tree / "config" / "processingjobconfig.json").write_text(json.dumps(job or {"ProcessingJobName": "night-1"}))


def hosts(count: int) -> list[str]:
    return [f"algo-{number + 1}" for number in range(count)]


def test_a_machine_that_is_not_sagemakers(tree: Path) -> None:
    assert this_host() is None
    write_message(None, "nothing")
    assert not (tree / "output").exists()


def test_hosts_are_numbered_as_people_count(tree: Path) -> None:
    for index in (0, 1, 9, 11):
        configure(tree, {"current_host": f"algo-{index + 1}", "hosts": sorted(hosts(12))})
        assert this_host() == Host(index, 12, "night-1")


@pytest.mark.parametrize(
    ("resources", "job", "told"),
    [
        ({"current_host": "algo-3", "hosts": hosts(2)}, None, "current_host is not one of hosts"),
        ({"current_host": "a", "hosts": ["a", "a"]}, None, "hosts are not different"),
        ({"current_host": "a"}, None, "current_host is not one of hosts"),
        (["a"], None, "is not a JSON object"),
        ({"current_host": "algo-1", "hosts": hosts(2)}, {"ProcessingJobArn": "x"}, "has no ProcessingJobName"),
    ],
)
def test_files_that_make_no_sense(tree: Path, resources: Any, job: Any, told: str) -> None:
    configure(tree, resources, job)
    with pytest.raises(ConfigurationError, match=told):
        this_host()


def test_a_file_that_is_no_json(tree: Path) -> None:
    (tree / "config" / "resourceconfig.json").write_text("{")
    with pytest.raises(ConfigurationError, match=r"resourceconfig\.json: cannot be read, or is not JSON"):
        this_host()


@given(words=st.lists(st.text(min_size=1, max_size=60), max_size=60), count=st.integers(1, 100))
def test_messages_of_all_hosts_fit_into_1_kb(tmp_path_factory: pytest.TempPathFactory, words: list[str], count: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("ml")
        patch.setenv("CHARTMILL_ML_ROOT", str(root))
        write_message(Host(0, count, "x"), " ".join(words))
        data = (root / "output" / "message").read_bytes()
    data.decode()
    assert len(data) <= 1024
    if count <= 16:
        assert len(data) + 48 * (count - 1) <= 1024


def test_a_message_that_cannot_be_written_changes_nothing(tree: Path) -> None:
    (tree / "output").write_text("a file")
    with pytest.raises(ChartmillError, match="the reason"), exit_message(Host()):
        raise ChartmillError("the reason")


def test_the_short_message_is_short() -> None:
    published = Published({"remaining_shards": 123456}, complete=False, released=False)
    plan: Any = None
    assert len(outcome_message(Outcome(published, plan, elsewhere=123456), Host(99, 100))) < 48


@pytest.mark.parametrize("fails", [False, True])
def test_the_message_holds_counts_and_codes_only(
    tree: Path, tmp_path: Path, canaries: Canaries, said: Said, capfd: pytest.CaptureFixture[str], fails: bool
) -> None:
    """Also when the run fails: what is wrong then stands in the log, the message has the kind only."""
    configure(tree, {"current_host": "algo-1", "hosts": hosts(1)})
    notes = plant(tmp_path / "notes", canaries)
    wrong = ("--set", f"contract.suite={canaries['name of a suite']}") if fails else ()
    out = ("--input", str(notes), "--output", str(tmp_path / "out"), "--engine", "echo", "--set", "run.metrics=emf", *wrong)
    code = command(capfd, said, "run", *out, "--json")
    message = (tree / "output" / "message").read_text()
    canaries.assert_absent("the message", message)
    if fails:
        assert code == 2 and message == "exit=failed error=ConfigurationError\n"
        return
    said.assert_clean(canaries)
    assert code == 3 and message.startswith("exit=3 host=1/1 shards_left=0 released=false notes=")
    assert "held_by=max_quarantined_share" in message and " DUPLICATE_ID=1" in message


def test_the_run_is_named_after_the_job(tree: Path, notes_folder: Path, tmp_path: Path) -> None:
    configure(tree, {"current_host": "algo-1", "hosts": hosts(1)})
    outcome = run_job(echo_job(notes_folder, tmp_path / "out"), host=this_host())
    assert outcome.plan.run_id == "night-1"
    assert outcome_message(outcome, Host()).startswith("exit=0 host=1/1 shards_left=0 released=true notes=70 summarized=70 quarantined=0")
