"""Contenders as they are told: keys, names, prices, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.comparison.contenders import JOB_KEYS, read_entrants, reference_of
from pipeline.config import Job
from schemas.errors import ConfigurationError


def test_a_contender_is_the_job_with_its_keys_changed(tmp_path: Path) -> None:
    job_file = tmp_path / "job.yaml"
    job_file.write_text("tasks: {summary: {decode: {max_new_tokens: 77}}}\nsegment: {by: section}\n")
    [entrant] = read_entrants(["model = m/bart-a , backend=ctranslate2,beams=4,threads=2"], config=job_file)
    job = entrant.job
    assert (job.tasks.summary.model, job.engine.backend, job.engine.threads) == ("m/bart-a", "ctranslate2", 2)
    assert (job.tasks.summary.decode.num_beams, job.tasks.summary.decode.max_new_tokens, job.segment.by) == (4, 77, "section")


def test_every_short_key_is_a_key_of_a_job() -> None:
    for dotted in JOB_KEYS.values():
        *sections, last = dotted.split(".")
        section = Job()
        for name in sections:
            section = getattr(section, name)
        assert last in type(section).model_fields


@pytest.mark.parametrize(
    ("told", "names"),
    [
        (["model=default,dtype=int8", "model=default,backend=ctranslate2,beams=4"], ["int8", "ctranslate2 beams 4"]),
        (["dtype=int8", "model=m/large/,dtype=int8"], ["default", "large"]),
        (["threads=1", "threads=1,dtype=int8", "threads=1,max_new_tokens=9"], ["default", "int8", "max new tokens 9"]),
        (["model=default", "dtype=int8,name=small"], ["default", "small"]),
        (["backend=echo", "model=a/b"], ["echo", "b"]),
    ],
)
def test_names_tell_what_differs(told: list[str], names: list[str]) -> None:
    assert [entrant.name for entrant in read_entrants(told)] == names


def test_a_file_names_them_and_may_hold_values_with_commas(tmp_path: Path) -> None:
    listed = tmp_path / "contenders.yaml"
    listed.write_text('contenders:\n  plain: {dtype: float32}\n  asked: {prefix: "summarize, please: ", price_per_hour: 2}\n')
    entrants = read_entrants(["dtype=int8"], listed, price_per_hour=0.5)
    assert [entrant.name for entrant in entrants] == ["int8", "plain", "asked"]
    assert entrants[2].job.tasks.summary.prefix == "summarize, please: "
    assert [entrant.price_per_hour for entrant in entrants] == [0.5, 0.5, 2.0]
    assert reference_of(entrants, None).name == "int8" and reference_of(entrants, "plain").name == "plain"


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ([], "none; give at least one"),
        (["int8"], "KEY=VALUE with commas between"),
        (["dtype=int8", "dtypes=int8"], "number 2 has the unknown key 'dtypes'; choices: model, backend"),
        (["dtype=float8"], "number 1: engine.dtype: should be 'auto', 'float32', 'bfloat16' or 'int8'"),
        (["beams=0"], "number 1: tasks.summary.decode.num_beams"),
        (["dtype=int8", "dtype=int8"], "numbers 1 and 2 have one name, 'default'"),
        (["dtype=int8,price_per_hour=-1"], "price_per_hour is not a number above 0"),
        (["dtype=int8,price_per_hour=1", "dtype=float32"], "price_per_hour is given for some only"),
    ],
)
def test_mistakes_are_named_with_the_choices(told: list[str], message: str) -> None:
    with pytest.raises(ConfigurationError) as failure:
        read_entrants(told)
    assert message in str(failure.value)


@pytest.mark.parametrize("content", ["contenders: [a, b]", "contenders: {a: 1}", "a: {", "- 1"])
def test_a_file_of_another_form_is_refused(content: str, tmp_path: Path) -> None:
    listed = tmp_path / "contenders.yaml"
    listed.write_text(content)
    with pytest.raises(ConfigurationError, match="--contenders: "):
        read_entrants([], listed)


def test_an_unknown_reference_point_is_told_with_the_choices() -> None:
    with pytest.raises(ConfigurationError, match="--against: 'x' is not one of int8, float32"):
        reference_of(read_entrants(["dtype=int8", "dtype=float32"]), "x")
