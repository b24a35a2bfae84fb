"""`chartmill audit`: is the audit trail of an output folder whole, and does it agree with what is committed? It writes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.exits import DONE, FAILED, AsJson, finish

if TYPE_CHECKING:
    from schemas.commit import CommitRecord
    from transforms.store import Store

EPILOG = "Example: `chartmill audit out/`, or with the data files' own hashes: `chartmill audit out/ --data`"
_LINE = re.compile(r"_audit/(v[0-9a-f]{12})/([^/]+)/([0-9a-f]{16})/(\d{6,})\.json")
_SHOWN = 40


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong at one place of the trail. `line`: its number in its chain; 0 where no line is meant."""

    kind: str
    version: str
    run_id: str = ""
    chain: str = ""
    line: int = 0
    shard: str = ""


@dataclass(slots=True)
class Trail:
    """What the lines say. `ended`: runs with a line that says so. `heads`: each chain's last line, to be kept elsewhere as a proof."""

    runs: set[tuple[str, str]] = field(default_factory=set)
    ended: set[tuple[str, str]] = field(default_factory=set)
    lines: int = 0
    unchecked: int = 0
    heads: dict[str, list[Any]] = field(default_factory=dict)
    # (version, shard) -> what its lines say was committed.
    commits: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    faults: list[Fault] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        counts = {"runs": len(self.runs), "chains": len(self.heads), "lines": self.lines, "lines_unchecked": self.unchecked}
        unended = sorted(run_id for _, run_id in self.runs - self.ended)
        return {**counts, "runs_without_end": unended, "heads": self.heads, "faults": [asdict(fault) for fault in self.faults]}


def audit(
    output: Annotated[str, typer.Argument(metavar="OUT", help="Folder or s3:// prefix of a run.")],
    data: Annotated[bool, typer.Option("--data", help="Also read every data file and compare its sha256.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check the audit trail: every line unchanged and in its place, every committed shard with its line. Exit code 1 when not.

    Lines that were written with the key CHARTMILL_AUDIT_KEY are checked with it.
    """
    from transforms.store import open_to_read

    trail = check_trail(open_to_read(output), data=data)
    _print(trail)
    finish(FAILED if trail.faults else DONE, as_json, **trail.as_json())


def check_trail(store: Store, *, data: bool = False) -> Trail:
    """Read all lines and all commit records, with `data` also all data files. Raises ConfigurationError where there is no run."""
    from schemas.errors import ConfigurationError
    from transforms.audit import AUDIT, KEY_VARIABLE
    from transforms.ledger import RUNS, load_commits, read_many

    versions = sorted({entry.key.split("/")[1] for entry in store.list(f"{RUNS}/")})
    chains, foreign = _chains(entry.key for entry in store.list(f"{AUDIT}/"))
    if not versions and not chains:
        raise ConfigurationError("no run has been planned in this output folder; `chartmill run` makes one")
    trail = Trail(faults=[Fault("foreign object", "")] * foreign)
    ends: list[tuple[Fault, Mapping[str, Any]]] = []
    hashes: dict[tuple[str, int], str] = {}
    for place, keys in sorted(chains.items()):
        lines = dict(zip(keys, read_many(store, list(keys.values())), strict=True))
        ends += _check_chain(place, lines, trail, hashes, os.environ.get(KEY_VARIABLE, ""))
    trail.faults += _cut_off(ends, hashes)
    for version in versions:
        for record in load_commits(store, version).values():
            trail.faults += _check_commit(record, trail.commits.get((version, record.shard.id), ()))
            trail.faults += _check_data(record, store) if data else ()
    return trail


_Place = tuple[str, str, str]


def _chains(keys: Iterable[str]) -> tuple[dict[_Place, dict[int, str]], int]:
    """The keys of each chain's lines by number, and how many objects are no line."""
    chains: dict[_Place, dict[int, str]] = defaultdict(dict)
    foreign = 0
    for key in sorted(keys):
        named = _LINE.fullmatch(key)
        if named is None:
            foreign += 1
        else:
            chains[named[1], named[2], named[3]][int(named[4])] = key
    return chains, foreign


def _check_chain(
    place: _Place, lines: Mapping[int, bytes], trail: Trail, hashes: dict[tuple[str, int], str], key: str
) -> list[tuple[Fault, Mapping[str, Any]]]:
    """Check one chain and take what it says into the trail; what its lines say of the ends of chains, with where they stand."""
    from transforms.audit import FIRST

    version, run_id, chain = place
    previous, ends, last = FIRST, [], max(lines)
    for number in range(1, last + 1):
        here = Fault("", version, run_id, chain, number)
        line = _parsed(lines.get(number))
        problem = "line missing" if number not in lines else _problem(line, here, key)
        if problem:
            trail.faults.append(Fault(problem, version, run_id, chain, number))
        elif previous and line["previous"] != previous:
            trail.faults.append(Fault("link broken", version, run_id, chain, number))
        # After a fault the next link proves nothing; the fault itself has been told.
        previous = "" if problem else str(line["hash"])
        if not problem:
            hashes[chain, number] = previous
            trail.unchecked += bool(line["keyed"]) and not key
            ends += [(here, line)] if line["event"] == "run-ended" else []
            _take(line, trail, (version, run_id))
    trail.runs.add((version, run_id))
    trail.lines += len(lines)
    trail.heads[chain] = [last, previous]
    return ends


def _parsed(data: bytes | None) -> Any:
    try:
        return json.loads(data or b"")
    except ValueError:
        return None


def _problem(line: Any, here: Fault, key: str) -> str:
    """Why a line is not what was put there; empty if it is, as far as can be told without the key."""
    from transforms.audit import line_hash

    place = {"version": here.version, "run_id": here.run_id, "chain": here.chain, "number": here.line}
    if not isinstance(line, dict) or not {"hash", "previous", "keyed", "event"} <= line.keys():
        return "line unreadable"
    if key and not line["keyed"]:
        return "line without key"
    if (key or not line["keyed"]) and line["hash"] != line_hash(line, key if line["keyed"] else ""):
        return "line changed"
    return "line moved" if any(line.get(name) != value for name, value in place.items()) else ""


def _take(line: Mapping[str, Any], trail: Trail, run: tuple[str, str]) -> None:
    if line["event"] == "shard-committed":
        trail.commits[run[0], str(line.get("shard"))].append({"files": line.get("files"), "counts": line.get("counts")})
    elif line["event"] == "run-ended":
        trail.ended.add(run)


def _cut_off(ends: Sequence[tuple[Fault, Mapping[str, Any]]], hashes: Mapping[tuple[str, int], str]) -> Iterator[Fault]:
    """Chains of which a run's last line knows more than is there."""
    for here, line in ends:
        for chain, (number, head) in dict(line.get("chains", {})).items():
            if hashes.get((chain, number)) != head:
                yield Fault("end of chain missing or changed", here.version, here.run_id, chain, number)


def _check_commit(record: CommitRecord, told: Sequence[Mapping[str, Any]]) -> Iterator[Fault]:
    from transforms.audit import commit_said

    if not told:
        yield Fault("commit without line", record.version, record.run_id, shard=record.shard.id)
    elif commit_said(record) not in told:
        yield Fault("commit differs from its line", record.version, record.run_id, shard=record.shard.id)


def _check_data(record: CommitRecord, store: Store) -> Iterator[Fault]:
    from transforms.store import NotFound

    for file in record.files.values():
        try:
            same = hashlib.sha256(store.get(file.path)).hexdigest() == file.sha256
        except NotFound:
            yield Fault("data file missing", record.version, record.run_id, shard=record.shard.id)
        else:
            if not same:
                yield Fault("data file changed", record.version, record.run_id, shard=record.shard.id)


def _print(trail: Trail) -> None:
    said = trail.as_json()
    print(f"{said['lines']:,} lines in {said['chains']:,} chains of {said['runs']:,} runs, {len(trail.commits):,} shards")
    for run_id in said["runs_without_end"]:
        print(f"run {run_id}: no line says that it ended; it was killed or is at work")
    if trail.unchecked:
        print(f"{trail.unchecked:,} lines can only be checked with their key: set CHARTMILL_AUDIT_KEY")
    for fault in trail.faults[:_SHOWN]:
        print("FAULT  " + ", ".join(f"{name} {value}" if name != "kind" else str(value) for name, value in asdict(fault).items() if value))
    if not trail.faults:
        print("The trail is whole.")
        return
    kinds = Counter(fault.kind for fault in trail.faults)
    print(f"{len(trail.faults):,} faults: {', '.join(f'{kind}: {count:,}' for kind, count in kinds.most_common())}")
