"""What is compared: each contender is the job of a job file with a few keys of its own. It loads nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import yaml

from pipeline.config import Job, load_job
from schemas.errors import ConfigurationError

# Short names of the keys of a job file that contenders may differ in.
JOB_KEYS = {
    "model": "tasks.summary.model",
    "backend": "engine.backend",
    "dtype": "engine.dtype",
    "device": "engine.device",
    "threads": "engine.threads",
    "beams": "tasks.summary.decode.num_beams",
    "max_new_tokens": "tasks.summary.decode.max_new_tokens",
    "min_new_tokens": "tasks.summary.decode.min_new_tokens",
    "length_penalty": "tasks.summary.decode.length_penalty",
    "no_repeat_ngram_size": "tasks.summary.decode.no_repeat_ngram_size",
    "repetition_penalty": "tasks.summary.decode.repetition_penalty",
    "prefix": "tasks.summary.prefix",
}
OWN_KEYS = ("name", "price_per_hour")
_FORM = '--contender "model=default,dtype=int8"'


@dataclass(frozen=True, slots=True)
class Entrant:
    """One way to summarize.

    `settings`: the keys by which it differs, as given. `price_per_hour`: of the machine that it needs, in any currency; None if unknown.
    """

    name: str
    settings: Mapping[str, Any]
    job: Job
    price_per_hour: float | None = None


def read_entrants(
    told: Sequence[str], listed: Path | None = None, config: Path | None = None, price_per_hour: float | None = None
) -> tuple[Entrant, ...]:
    """Entrants from `key=value,key=value` texts, then from a YAML list of them (`contenders: {NAME: {key: value}}`).

    `config`: the job file whose keys they start from. Raises ConfigurationError that names the entrant by its number, and the choices.
    """
    given = [*map(_settings_of, told), *(_read_list(listed) if listed else ())]
    if not given:
        raise ConfigurationError(f"--contender: none; give at least one, for instance {_FORM}")
    entrants = _named([_entrant(number, settings, config, price_per_hour) for number, settings in enumerate(given, start=1)])
    for number, entrant in enumerate(entrants, start=1):
        earlier = [other.name for other in entrants[: number - 1]]
        if entrant.name in earlier:
            first = earlier.index(entrant.name) + 1
            raise ConfigurationError(f"--contender: numbers {first} and {number} have one name, {entrant.name!r}; give name= to one")
    if len({entrant.price_per_hour is None for entrant in entrants}) > 1:
        raise ConfigurationError("--contender: price_per_hour is given for some only; give --price-per-hour for the others")
    return entrants


def reference_of(entrants: Sequence[Entrant], against: str | None) -> Entrant:
    """The one that others are measured against: by its name, by default the first. Raises ConfigurationError."""
    found = next((entrant for entrant in entrants if against in (None, entrant.name)), None)
    if found is None:
        raise ConfigurationError(f"--against: {against!r} is not one of {', '.join(entrant.name for entrant in entrants)}")
    return found


def _settings_of(told: str) -> dict[str, Any]:
    """`model=default,dtype=int8` as a mapping; a value ends at the next comma."""
    parts = [part.partition("=") for part in told.split(",") if part.strip()]
    if not parts or not all(key.strip() and equals for key, equals, _ in parts):
        raise ConfigurationError(f"--contender: KEY=VALUE with commas between, for instance {_FORM}; keys: {_keys()}")
    return {key.strip(): value.strip() for key, _, value in parts}


def _read_list(path: Path) -> list[dict[str, Any]]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"--contenders: the file cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConfigurationError("--contenders: the file is not valid YAML") from None
    named = raw.get("contenders") if isinstance(raw, dict) else None
    if not isinstance(named, dict) or not all(isinstance(settings, dict) for settings in named.values()):
        raise ConfigurationError("--contenders: expected `contenders: {NAME: {model: default, dtype: int8}, …}`")
    return [{"name": str(name), **settings} for name, settings in named.items()]


def _entrant(number: int, given: Mapping[str, Any], config: Path | None, price_per_hour: float | None) -> Entrant:
    unknown = [key for key in given if key not in JOB_KEYS and key not in OWN_KEYS]
    if unknown:
        raise ConfigurationError(f"--contender: number {number} has the unknown key {unknown[0]!r}; choices: {_keys()}")
    settings = {key: value for key, value in given.items() if key in JOB_KEYS}
    try:
        job = load_job(config, (), {JOB_KEYS[key]: value for key, value in settings.items()})
    except ConfigurationError as error:
        raise ConfigurationError(f"--contender: number {number}: {error}") from None
    price = _price(number, given["price_per_hour"]) if "price_per_hour" in given else price_per_hour
    return Entrant(str(given.get("name") or ""), settings, job, price)


def _price(number: int, value: Any) -> float:
    try:
        price = float(value)
    except (TypeError, ValueError):
        price = -1.0
    if not 0 < price < float("inf"):
        raise ConfigurationError(f"--contender: number {number}: price_per_hour is not a number above 0")
    return price


def _named(entrants: Sequence[Entrant]) -> tuple[Entrant, ...]:
    """Those without a name called by what they do not all have in common: `ctranslate2 beams 4`."""
    with_model = len({_model(entrant.job) for entrant in entrants}) > 1
    first, *others = (set(entrant.settings.items()) for entrant in entrants)
    common = first.intersection(*others) if others else set()
    return tuple(entrant if entrant.name else replace(entrant, name=_name_of(entrant, common, with_model)) for entrant in entrants)


def _name_of(entrant: Entrant, common: Set[tuple[str, Any]], with_model: bool) -> str:
    plain = ("backend", "dtype", "device")
    own = [(key, value) for key, value in entrant.settings.items() if key != "model" and (key, value) not in common]
    told = [str(value) if key in plain else f"{key.replace('_', ' ')} {value}" for key, value in own]
    model = _model(entrant.job)
    return " ".join([model, *(part for part in told if part != model)] if with_model or not told else told)


def _model(job: Job) -> str:
    """Of a folder only the last part."""
    return "echo" if job.engine.backend == "echo" else PurePath(job.tasks.summary.model.rstrip("/")).name


def _keys() -> str:
    return ", ".join((*JOB_KEYS, *OWN_KEYS))
