"""The job file: what is in it, what wins over what, and messages that name keys and choices but never values."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from pipeline import config
from pipeline.config import Job, load_job
from schemas.errors import ConfigurationError

SHIPPED = Path(config.__file__).parent / "job.yaml"


def sections(annotation: Any) -> list[type[BaseModel]]:
    return [kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type) and issubclass(kind, BaseModel)]


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Dotted names of all values of a job."""
    for name, field in model.model_fields.items():
        inner = sections(field.annotation)
        yield from (key for section in inner for key in keys(section, f"{prefix}{name}.")) if inner else [prefix + name]


def value_at(raw: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        raw = raw[part]
    return raw


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def refused(*overrides: str, path: Path | None = None, **settings: Any) -> str:
    with pytest.raises(ConfigurationError) as failure:
        load_job(path, overrides, settings)
    return str(failure.value)


def test_the_shipped_job_file_states_the_defaults() -> None:
    # Its URIs are examples: without any, a job has no input.
    shipped = load_job(SHIPPED, (), {"input.uris": [], "output.uri": ""})
    assert shipped == Job() and shipped.model_dump() == Job().model_dump()


def test_the_shipped_job_file_mentions_every_key() -> None:
    text = SHIPPED.read_text()
    # What is off by default stands in comments.
    raw = yaml.safe_load(
        text.replace("  # encryption: ", "  encryption: ").replace("  #   mode", "    mode").replace("  #   kms", "    kms")
    )
    named = set(keys(Job))
    missing = {key for key in named if not key.startswith("tasks.summary.decode.")} - present(raw)
    assert not missing
    decode = {key.rsplit(".", 1)[1] for key in named if key.startswith("tasks.summary.decode.")}
    assert all(key in text for key in decode)


def present(raw: Any, prefix: str = "") -> set[str]:
    """Dotted names of everything in a YAML mapping, sections included."""
    found = set()
    for name, value in raw.items():
        found |= {prefix + name} | (present(value, f"{prefix}{name}.") if isinstance(value, dict) else set())
    return found


def test_every_key_can_be_read_back_from_a_dump() -> None:
    dump = Job().model_dump(mode="json")
    for key in keys(Job):
        if not key.startswith("output.encryption."):
            value_at(dump, key)
    assert Job.model_validate(dump) == Job()


def test_later_sources_win(tmp_path: Path) -> None:
    path = written(tmp_path / "job.yaml", "gate: {max_flagged_share: 0.5, contract: ignore}\nrun: {limit: 3}\n")
    job = load_job(path, ["gate.max_flagged_share=0.7", "gate.max_flagged_share=0.8"], {"run.limit": 9, "gate.max_flagged_share": 0.6})
    assert (job.gate.max_flagged_share, job.gate.contract, job.run.limit) == (0.8, "ignore", 9)


def test_what_the_command_line_leaves_open_does_not_override(tmp_path: Path) -> None:
    path = written(tmp_path / "job.yaml", "output: {uri: here/}\n")
    assert load_job(path, (), {"output.uri": None}).output.uri == "here/"


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("input.uris=[a, b]", "input.uris", ("a", "b")),
        ("input.columns={text: body}", "input.columns", {"text": "body"}),
        ("input.columns.text=body", "input.columns", {"text": "body"}),
        ("input.passthrough=[ward]", "input.passthrough", ("ward",)),
        ("tasks.summary.decode.num_beams=4", "tasks.summary.decode.num_beams", 4),
        ('tasks.summary.prefix="summarize: "', "tasks.summary.prefix", "summarize: "),
        ("engine.threads=2", "engine.threads", 2),
        ("engine.threads=auto", "engine.threads", "auto"),
        ("engine.slots=16", "engine.slots", 16),
        ("engine.draft=off", "engine.draft", "off"),
        ("engine.draft=auto", "engine.draft", "auto"),
        ("engine.dtype=int8", "engine.dtype", "int8"),
        ("output.encryption.kms_key=alias/notes", "output.encryption.kms_key", "alias/notes"),
        ("run.max_minutes=null", "run.max_minutes", None),
        (" run.limit = 7 ", "run.limit", 7),
    ],
)
def test_overrides_are_yaml(override: str, key: str, value: Any) -> None:
    assert value_at(load_job(None, [override]).model_dump(), key) == value


def test_an_empty_section_is_its_defaults(tmp_path: Path) -> None:
    path = written(tmp_path / "job.yaml", "gate:\n  # max_flagged_share: 0.5\ntasks:\n  summary:\n")
    assert load_job(path) == Job() == load_job(written(tmp_path / "empty.yaml", ""))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        (
            "gate.max_flaged_share=1",
            "gate.max_flaged_share: unknown key (did you mean max_flagged_share?); choices: max_quarantined_share, ",
        ),
        ("gat.contract=pass", "gat: unknown key (did you mean gate?); choices: input, output, contract"),
        ("tasks.summary.decode.beams=4", "tasks.summary.decode.beams: unknown key (did you mean num_beams?); choices: num_beams"),
        ("output.encryption.key=x", "output.encryption.key: unknown key (did you mean kms_key?); choices: mode, kms_key"),
        ("engine.backend=tensorflow", "engine.backend: should be 'torch', 'generate', 'ctranslate2' or 'echo'"),
        ("engine.threads=many", "engine.threads: should be 'auto' or a valid integer"),
        ("engine.slots=0", "engine.slots: should be 'auto' or greater than or equal to 1"),
        ("engine.dtype=float16", "engine.dtype: should be 'auto', 'float32', 'bfloat16' or 'int8'"),
        ("segment.max_source_tokens=3", "segment.max_source_tokens: should be 'auto' or greater than or equal to 16"),
        ("input.duplicates=newest", "input.duplicates: should be 'first', 'latest' or 'all'"),
        ("input.passthrough=some", "input.passthrough: should be 'all' or 'none' or a list"),
        ("input.uris=notes/", "input.uris: should be a list"),
        ("input.columns.body=text", "columns: unknown field 'body'; choices: note_id, text, patient_id"),
        ("gate=strict", "gate: is a section, not a value; choices: max_quarantined_share, max_flagged_share, contract"),
        ("gate.contract.mode=pass", "gate.contract: should be 'pass' or 'ignore'"),
        ("tasks.summary.prefix=summarize: ", "tasks.summary.prefix: should be a valid string"),
        ("run.limit=0", "run.limit: should be greater than or equal to 1"),
        ("gate.max_flagged_share=.nan", "gate.max_flagged_share: "),
        ("output.encryption.mode=kms", "output.encryption: mode kms needs kms_key"),
        ("gate.contract", "--set: number 1 has no `=`; expected KEY.KEY=VALUE"),
        ("run.limit=[1", "--set run.limit: the value is not valid YAML; quote it"),
    ],
)
def test_messages_name_the_key_and_the_choices(override: str, told: str) -> None:
    assert told in refused(override)


def test_several_errors_are_told_at_once() -> None:
    message = refused("run.limit=x", "gate.contract=maybe", "engine.treads=1")
    assert all(
        told in message for told in ("run.limit: ", "gate.contract: should be", "engine.treads: unknown key (did you mean threads?)")
    )


def test_a_value_is_no_section(tmp_path: Path) -> None:
    path = written(tmp_path / "job.yaml", "gate: {contract: pass}")
    assert refused("gate.contract.more=1", path=path) == "gate.contract.more: contract is a value, not a section"


SECRET = "Quill-Ostrander-1956"


@pytest.mark.parametrize(
    "text",
    [
        f"input: {{uris: ['{SECRET}'",
        f"run: {{limit: {SECRET}}}",
        f"gate: {SECRET}",
        f"- {SECRET}",
        SECRET,
        f"input:\n\turis: {SECRET}",
        f"engine: {{backend: {SECRET}, threads: [{SECRET}], delay_ms: {SECRET}}}",
        f"verify: {{checks: {SECRET}}}",
        f"a: &x {SECRET}\nb: *y",
        f"!!python/object:{SECRET} {{}}",
    ],
)
def test_messages_never_hold_a_value(tmp_path: Path, text: str) -> None:
    message = refused(path=written(tmp_path / "job.yaml", text))
    assert message and not any(part in message for part in SECRET.split("-"))


def test_a_job_file_that_cannot_be_read_is_told_without_its_name(tmp_path: Path) -> None:
    assert refused(path=tmp_path / f"{SECRET}.yaml") == "--config: the job file cannot be read: No such file or directory"
    assert "Is a directory" in refused(path=tmp_path)
    binary = tmp_path / "job.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "not valid YAML" in refused(path=binary)


def test_a_yaml_error_names_its_place(tmp_path: Path) -> None:
    assert "at line 2, column 7" in refused(path=written(tmp_path / "job.yaml", "gate:\n  a: b: c\n"))


def test_a_job_cannot_be_changed_and_shows_no_paths() -> None:
    job = load_job(None, (), {"input.uris": [SECRET]})
    with pytest.raises(ValueError, match="frozen"):
        job.gate = None  # type: ignore[assignment]
    assert SECRET not in repr(job) and SECRET not in str(job.input)
