"""The audit trail: who committed what, when, in lines chained by their hashes. It knows no patient text, only shard ids, hashes and counts.

Lines are objects `_audit/<version>/<run id>/<chain>/000001.json`, …, each put once and never changed. Each process that writes has a chain
of its own, so writers need not agree on an order. A line holds the hash of the line before it, and its own. A shard's line is put before
its commit record: a commit without a line is a fault, a line without a commit is work that was killed, lost a race or was superseded.

The folder stands beside `_runs/`, not in it: `_runs/` is listed by every run, and of `_audit/` deletion can be denied as a whole.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from schemas.commit import CommitRecord
from transforms.store import Store

AUDIT = "_audit"
# With this variable set, hashes are HMACs: who has no key can then neither change a line nor make up a chain.
KEY_VARIABLE = "CHARTMILL_AUDIT_KEY"
FIRST = "0" * 64
COUNTS = ("notes_in", "notes_summarized", "notes_quarantined", "files_quarantined")
_FORMAT = 1
_opening = threading.Lock()


@dataclass(slots=True)
class Chain:
    """One writer's lines. `lines`: how many there are; `head`: the last one's hash, FIRST for none."""

    store: Store = field(repr=False)
    version: str
    run_id: str
    id: str
    lines: int = 0
    head: str = FIRST
    _writing: Any = field(default_factory=threading.Lock, repr=False)

    def append(self, event: str, at: str, said: Mapping[str, Any]) -> None:
        """Put one more line; `at` is the time, ISO 8601 in UTC. Raises what the store raises; the line then may or may not be there."""
        with self._writing:
            while not self._appended({"event": event, "at": at, **said}):
                pass

    def _appended(self, said: Mapping[str, Any]) -> bool:
        """False when a line stands there already: an earlier put of ours whose answer was lost. It is then taken into the chain."""
        key = f"{run_folder(self.version, self.run_id)}{self.id}/{self.lines + 1:06d}.json"
        place = {"chain": self.id, "number": self.lines + 1, "version": self.version, "run_id": self.run_id, "previous": self.head}
        line = sealed({"format": _FORMAT, "who": who(), **place, **said})
        data = json.dumps(line, sort_keys=True).encode()
        won = self.store.put_once(key, data)
        standing = data if won else self.store.get(key)
        self.lines, self.head = self.lines + 1, json.loads(standing)["hash"]
        return standing == data


_chains: dict[tuple[Store, str, str, int], Chain] = {}


def open_chain(store: Store, version: str, run_id: str) -> Chain:
    """This process' chain of a run: a forked child gets another than its parent."""
    with _opening:
        place = (store, version, run_id, os.getpid())
        return _chains.setdefault(place, Chain(store, version, run_id, secrets.token_hex(8)))


def log_commit(store: Store, record: CommitRecord, model_sha256: str) -> None:
    """The line of a shard that is about to be committed. `model_sha256` is empty where no model was asked."""
    said = {
        **commit_said(record),
        "shard": record.shard.id,
        "model_sha256": model_sha256,
        "code_version": record.code_version,
        "revised": record.revised,
    }
    open_chain(store, record.version, record.run_id).append("shard-committed", record.committed_at, said)


def commit_said(record: CommitRecord) -> dict[str, Any]:
    """What a line and the commit record that it announces must agree on."""
    files = {kind: file.sha256 for kind, file in record.files.items()}
    return {"files": files, "counts": {name: getattr(record.stats, name) for name in COUNTS}}


def chain_heads(store: Store, version: str, run_id: str) -> dict[str, list[Any]]:
    """The number and the hash of the last line of each of a run's chains, by the chain's id."""
    last: dict[str, str] = {}
    for entry in store.list(run_folder(version, run_id)):
        chain = entry.key.split("/")[-2]
        last[chain] = max(entry.key, last.get(chain, ""))
    return {chain: [int(key[-11:-5]), json.loads(store.get(key))["hash"]] for chain, key in sorted(last.items())}


def run_folder(version: str, run_id: str) -> str:
    return f"{AUDIT}/{version}/{run_id}/"


def sealed(line: Mapping[str, Any]) -> dict[str, Any]:
    """The line with its hash, and whether that needs the key."""
    key = os.environ.get(KEY_VARIABLE, "")
    said = {**line, "keyed": bool(key)}
    return {**said, "hash": line_hash(said, key)}


def line_hash(line: Mapping[str, Any], key: str = "") -> str:
    """sha256, or HMAC-SHA256 with a key, over the canonical JSON of a line without its own hash."""
    payload = json.dumps({name: value for name, value in line.items() if name != "hash"}, sort_keys=True, separators=(",", ":")).encode()
    return hmac.new(key.encode(), payload, "sha256").hexdigest() if key else hashlib.sha256(payload).hexdigest()


@cache
def who() -> dict[str, str]:
    """The account that this process runs as, and its AWS role where that is known without asking anybody."""
    role = os.environ.get("AWS_ROLE_ARN") or _role_of_the_container()
    return {"user": _user(), **({"role": role} if role else {})}


def _user() -> str:
    """Not from the environment, where anybody may write another name. In a container a uid may have none."""
    if not hasattr(os, "geteuid"):
        return "unknown"
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"


def _role_of_the_container() -> str:
    """The role of a SageMaker Processing job, which SageMaker writes beside the job's other settings."""
    path = Path(os.environ.get("CHARTMILL_ML_ROOT", "/opt/ml")) / "config" / "processingjobconfig.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8")).get("RoleArn", ""))
    except (OSError, ValueError, AttributeError):
        return ""
