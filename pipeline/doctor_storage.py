"""Doctor's checks of the output: can it be written, does put-once hold, is there room, is what is written on S3 encrypted as asked?

The probe is one object under `_doctor/`, written and removed as a run writes and removes its own. Nothing else is read.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.config import Job
from pipeline.doctor_finding import Finding, failed, ok, warning
from transforms.store import LocalStore, NotFound, S3Store, Store, check_endpoint, open_store, s3_client, s3_error_code

FOLDER = "_doctor"
_PROBE = b"chartmill doctor"
_GIB = 2**30
_ROOM = 10 * _GIB
_LEAST_ROOM = _GIB // 10
# What to do about the service's most frequent answers.
_TODO = {
    "403": "the role needs s3:ListBucket on the bucket and s3:GetObject, PutObject, DeleteObject on the prefix",
    "AccessDenied": "the role needs s3:PutObject, GetObject, DeleteObject on the prefix, and with kms kms:GenerateDataKey and kms:Decrypt",
    "404": "create the bucket, or correct output.uri",
    "NoSuchBucket": "create the bucket, or correct output.uri",
    "301": "set AWS_REGION to the bucket's region",
    "KMS.NotFoundException": "correct output.encryption.kms_key: there is no such key in this account and region",
    "KMS.DisabledException": "enable the KMS key",
    "NotImplemented": "this server has no conditional writes (If-None-Match), without which two runs may overwrite each other",
}


def check_output(job: Job) -> Iterator[Finding]:
    """The place that `output.uri` names. Raises ConfigurationError for settings with which a run would be refused too."""
    if not job.output.uri:
        yield warning("output", "output.uri is not set: not checked", "give --config, or --set output.uri=OUT")
        return
    section = job.output
    encryption = section.encryption.settings() if section.encryption else None
    store = open_store(section.uri, encryption, allow_insecure_endpoint=section.allow_insecure_endpoint)
    yield from _local(store) if isinstance(store, LocalStore) else _s3(store)


def _local(store: LocalStore) -> Iterator[Finding]:
    existed = store.root.is_dir()
    try:
        with _created_folders_removed(store.root):
            yield from probe(store)
    except OSError as error:
        yield failed("output", f"cannot be written: {os.strerror(error.errno or 0)}", "give another output.uri, or the right to write")
        return
    yield _room(next(folder for folder in (store.root, *store.root.parents) if folder.is_dir()))
    if existed and stat.S_IMODE(store.root.stat().st_mode) & 0o077:
        yield warning("output permissions", "others on this machine can list the output folder", "chmod 0700 on it; files in it are 0600")


@contextmanager
def _created_folders_removed(root: Path) -> Iterator[None]:
    """Remove the folders that the probe has to make, so that afterwards everything is as it was."""
    missing = [folder for folder in (root, *root.parents) if not folder.exists()]
    try:
        yield
    finally:
        for folder in (root / FOLDER, *missing):
            with suppress(OSError):
                folder.rmdir()


def _room(folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    said = f"{free / _GIB:,.1f} GiB free"
    if free < _ROOM:
        status = failed if free < _LEAST_ROOM else warning
        return status("disk space", said, f"free some: less than {_ROOM // _GIB} GiB may not do for a night's summaries and records")
    return ok("disk space", said)


def probe(store: Store) -> Iterator[Finding]:
    """Write an object once, fail to write it twice, read it, remove it. Raises what the store raises."""
    key = f"{FOLDER}/{secrets.token_hex(8)}"
    try:
        first, second = store.put_once(key, _PROBE), store.put_once(key, b"another")
        same = store.get(key) == _PROBE
        if not (first and same) or second:
            said = "what was written once could be written again, or came back changed: two runs may overwrite each other"
            yield failed("output", said, "choose a storage with hard links, or an S3 with conditional writes (If-None-Match)")
            return
        yield ok("output", "an object was written, not written twice, read, and removed")
        if isinstance(store, S3Store):
            yield _encrypted(store, s3_client().head_object(Bucket=store.bucket, Key=store.prefix + key))
    finally:
        store.delete(key)


def _encrypted(store: S3Store, head: dict[str, Any]) -> Finding:
    """What the server says of the probe, against what was asked for; a put already fails where the answer is another mode."""
    mode, algorithm, key = store.encryption.mode, head.get("ServerSideEncryption"), str(head.get("SSEKMSKeyId", ""))
    if algorithm is None:
        todo = "set output.encryption.mode=kms or aes256, or a default encryption of the bucket"
        return failed("encryption", f"output.encryption.mode {mode}: the server does not say that the object is encrypted", todo)
    asked = store.encryption.kms_key or ""
    # An alias is answered with the key that it names, so only a key's own id can be compared.
    if mode == "kms" and "alias/" not in asked and key.rsplit("/", 1)[-1] != asked.rsplit("/", 1)[-1]:
        return failed("encryption", "the object was encrypted with another KMS key than asked for", "see the bucket's policy and defaults")
    return ok("encryption", f"output.encryption.mode {mode}: the server answers {algorithm}, and what it encrypted can be read")


def _s3(store: S3Store) -> Iterator[Finding]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield _endpoint()
        yield _credentials()
        s3_client().head_bucket(Bucket=store.bucket)
        yield ok("bucket", "answers")
        yield from _settings_of(store.bucket)
        yield from probe(store)
    except ClientError as error:
        code = s3_error_code(error)
        yield failed("output", f"S3 answers {code}", _TODO.get(code, "look this code up in the S3 API's list of errors"))
    except NotFound:
        yield failed("output", "what was written was not there when it was read", "choose a storage with read-after-write consistency")
    except BotoCoreError as error:
        todo = "see AWS_REGION, AWS_ENDPOINT_URL, the credentials, and whether a VPC endpoint for S3 is there"
        yield failed("output", f"S3 cannot be asked: {type(error).__name__}", todo)


def _endpoint() -> Finding:
    """Raises ConfigurationError for plain http, other than to this machine, unless that is allowed."""
    endpoint = str(s3_client().meta.endpoint_url)
    check_endpoint(endpoint)
    if endpoint.startswith("https://"):
        return ok("endpoint", "https; certificates are checked")
    return warning("endpoint", "plain http: to this machine, or allowed by the job", "never send notes over a network in the clear")


def _credentials() -> Finding:
    import boto3

    found = boto3.Session().get_credentials()
    if found is None:
        return failed("credentials", "none found", "give the machine a role, or set up a profile")
    if found.method in ("env", "shared-credentials-file", "config-file") and found.token is None:
        said = f"long-lived keys ({found.method})"
        return warning("credentials", said, "use a role, whose credentials expire by themselves")
    return ok("credentials", f"found: {found.method}")


def _settings_of(bucket: str) -> Iterator[Finding]:
    """The bucket's own settings, as far as the role may ask for them; a job does not need that right."""
    rule = _asked("get_bucket_encryption", bucket)
    if isinstance(rule, dict):
        rules = rule["ServerSideEncryptionConfiguration"]["Rules"]
        algorithms = {r.get("ApplyServerSideEncryptionByDefault", {}).get("SSEAlgorithm") for r in rules}
        yield ok("bucket encryption", f"default: {', '.join(sorted(filter(None, algorithms))) or 'not named'}")
    elif rule == "ServerSideEncryptionConfigurationNotFoundError":
        yield warning("bucket encryption", "the bucket has no default", "set one, for objects that others write into it")
    else:
        yield ok("bucket encryption", f"may not be asked ({rule}); the probe tells what counts")
    public = _asked("get_public_access_block", bucket)
    if isinstance(public, dict) and all(public["PublicAccessBlockConfiguration"].values()):
        yield ok("public access", "blocked")
    elif isinstance(public, dict) or public == "NoSuchPublicAccessBlockConfiguration":
        yield warning("public access", "the bucket does not block all of it", "put a public access block on the bucket, all four settings")
    else:
        yield ok("public access", f"may not be asked ({public})")


def _asked(operation: str, bucket: str) -> dict[str, Any] | str:
    """The answer, or the code of the refusal."""
    from botocore.exceptions import ClientError

    try:
        return dict(getattr(s3_client(), operation)(Bucket=bucket))
    except ClientError as error:
        return s3_error_code(error)
