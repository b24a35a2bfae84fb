"""Where outputs live: a folder or an S3 prefix, with the few operations that the commit protocol needs.

Every write is whole or absent: on disk a temporary file is fsynced and then renamed (`put`) or hard-linked (`put_once`;
an O_EXCL create would leave an empty object after a kill), on S3 one PUT. Keys are relative paths with `/`. Files are
created 0600, folders 0700.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlparse

from schemas.errors import ChartmillError, ConfigurationError
from transforms.private_files import TEMPORARY, fsync_path, make_private_folder, write_temporary
from transforms.store_retries import count_retry, read_object, watch_retries

S3_ATTEMPTS = 8
# Seconds without an answer after which a request is sent again; botocore's own 60 would be minutes of waiting in eight attempts.
S3_CONNECT_S = 10.0
S3_READ_S = 30.0
# `output.allow_insecure_endpoint` for this process and those that it starts. Workers elsewhere have their endpoint from there, too.
INSECURE_VARIABLE = "CHARTMILL_ALLOW_INSECURE_ENDPOINT"
_CONFLICT_RETRIES = 8
_making_client = threading.Lock()


class NotFound(ChartmillError):
    """No object under that key."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One stored object. `modified` is seconds since the epoch."""

    key: str
    size: int
    modified: float


@dataclass(frozen=True, slots=True)
class Encryption:
    """How objects on S3 are encrypted: `kms` (with `kms_key`), `aes256`, or `bucket` (leave it to the bucket's default)."""

    mode: str
    kms_key: str | None = None

    def headers(self) -> dict[str, Any]:
        if self.mode == "kms":
            return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.kms_key, "BucketKeyEnabled": True}
        if self.mode == "aes256":
            return {"ServerSideEncryption": "AES256"}
        return {}


class Store(Protocol):
    """A flat, durable key-value store. All methods raise OSError or botocore errors when the storage fails."""

    @property
    def uri(self) -> str: ...

    def __hash__(self) -> int: ...

    def get(self, key: str) -> bytes:
        """The object's bytes; NotFound when there is none."""

    def put(self, key: str, data: bytes) -> None:
        """Create or replace the object, atomically."""

    def put_once(self, key: str, data: bytes) -> bool:
        """Create the object; False, changing nothing, when it exists already. A retried PUT of our own may also answer False."""

    def exists(self, key: str) -> bool: ...

    def modified(self, key: str) -> float:
        """When the object was written, by the storage's own clock (seconds since the epoch); NotFound when there is none."""

    def list(self, prefix: str) -> Iterator[Entry]:
        """Objects whose key starts with `prefix` (a folder, ending in `/`), in no particular order."""

    def folders(self, prefix: str) -> tuple[str, ...]:
        """Names of the folders right under `prefix` (a folder, ending in `/`), sorted; what is in them is not listed."""

    def delete(self, key: str) -> None:
        """Remove the object; no error when there is none."""


@dataclass(frozen=True)
class LocalStore:
    """A folder."""

    root: Path

    @property
    def uri(self) -> str:
        return str(self.root)

    def _path(self, key: str) -> Path:
        return self.root / key

    def get(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except FileNotFoundError:
            raise NotFound("no such object in the output folder") from None

    def put(self, key: str, data: bytes) -> None:
        temporary = self._written(key, data)
        os.replace(temporary, self._path(key))
        fsync_path(temporary.parent)

    def put_once(self, key: str, data: bytes) -> bool:
        temporary = self._written(key, data)
        try:
            os.link(temporary, self._path(key))
        except FileExistsError:
            return False
        finally:
            temporary.unlink()
        fsync_path(temporary.parent)
        return True

    def _written(self, key: str, data: bytes) -> Path:
        folder = self._path(key).parent
        make_private_folder(folder)
        return write_temporary(folder, lambda file: file.write(data))

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def modified(self, key: str) -> float:
        try:
            return self._path(key).stat().st_mtime
        except FileNotFoundError:
            raise NotFound("no such object in the output folder") from None

    def list(self, prefix: str) -> Iterator[Entry]:
        for directory, _, names in os.walk(self._path(prefix)):
            folder = Path(directory).relative_to(self.root)
            for name in names:
                if not name.startswith(TEMPORARY):
                    yield from self._entry(folder.as_posix(), name)

    def _entry(self, folder: str, name: str) -> Iterator[Entry]:
        # Strings rather than paths: there may be 400,000 of them.
        key = name if folder == "." else f"{folder}/{name}"
        try:
            status = os.stat(os.path.join(self.root, key))
        except FileNotFoundError:  # deleted by somebody else since the listing
            return
        yield Entry(key, status.st_size, status.st_mtime)

    def folders(self, prefix: str) -> tuple[str, ...]:
        folder = self._path(prefix)
        return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir())) if folder.is_dir() else ()

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def sweep_temporary(self, older_than_s: float) -> int:
        """Remove temporary files that a killed process left behind, not those of one that is at work here; how many."""
        removed = 0
        found = (Path(folder) / name for folder, _, names in os.walk(self.root) for name in names if name.startswith(TEMPORARY))
        for path in found:
            with suppress(FileNotFoundError):  # a writer has just renamed it
                if time.time() - path.stat().st_mtime > older_than_s and not _writer_is_alive(path):
                    path.unlink()
                    removed += 1
        return removed


def _writer_is_alive(temporary: Path) -> bool:
    """By the process id in the name; a process of another machine is judged by the file's age alone."""
    pid = re.fullmatch(rf"{re.escape(TEMPORARY)}([1-9]\d*)-[0-9a-f]{{16}}", temporary.name)
    if pid is None:
        return False
    try:
        os.kill(int(pid[1]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def s3_client() -> Any:
    """The process's one S3 client (making one costs 100 ms). Credentials, region and endpoint come from the default chain only."""
    # boto3 may make clients in one thread at a time only; all of a worker's threads begin here together.
    with _making_client:
        client = _s3_client()
    check_endpoint(client.meta.endpoint_url)
    return client


@cache
def _s3_client() -> Any:
    import boto3
    from botocore.config import Config

    retries = {"mode": "standard", "max_attempts": S3_ATTEMPTS}
    waiting = {"connect_timeout": S3_CONNECT_S, "read_timeout": S3_READ_S}
    # It warns with URLs, which hold the names of files.
    logging.getLogger("urllib3.connection").setLevel(logging.ERROR)
    client = boto3.client("s3", config=Config(retries=retries, max_pool_connections=32, **waiting))
    watch_retries(client)
    return client


def check_endpoint(url: str) -> None:
    """Raises ConfigurationError where notes would cross a network unencrypted: plain http, other than to this machine, unless allowed."""
    parsed = urlparse(url)
    if parsed.scheme != "https" and not is_this_machine(parsed.hostname or "") and os.environ.get(INSECURE_VARIABLE) != "1":
        raise ConfigurationError(
            "output.allow_insecure_endpoint: false, and the endpoint for S3 (AWS_ENDPOINT_URL) is not https. Choose one that is; or, "
            f"where nobody else can listen on that network, set it to true, and {INSECURE_VARIABLE}=1 for workers on other machines"
        )


def is_this_machine(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def s3_error_code(error: Any) -> str:
    """The service's code, or the HTTP status where there is none: `NoSuchKey`, `404`, `PreconditionFailed`, …"""
    return str(error.response.get("Error", {}).get("Code") or error.response["ResponseMetadata"]["HTTPStatusCode"])


def storage_errors() -> tuple[type[Exception], ...]:
    """What a storage that fails raises."""
    from botocore.exceptions import BotoCoreError, ClientError

    return OSError, BotoCoreError, ClientError


def s3_status(error: Any) -> int:
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


@dataclass(frozen=True)
class S3Store:
    """A prefix of a bucket. `prefix` is empty or ends in `/`."""

    bucket: str
    prefix: str
    encryption: Encryption = field(default_factory=lambda: Encryption("bucket"))

    @property
    def uri(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}"

    def _where(self, key: str) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.prefix + key}

    def get(self, key: str) -> bytes:
        from botocore.exceptions import ClientError

        try:
            return bytes(read_object(s3_client(), lambda body: body.read(), **self._where(key)))
        except ClientError as error:
            if s3_status(error) == 404:
                raise NotFound("no such object under the output prefix") from None
            raise

    def put(self, key: str, data: bytes) -> None:
        self._put(key, data)

    def _put(self, key: str, data: bytes, **conditions: str) -> None:
        """One PUT. Raises ConfigurationError, leaving nothing behind, when the server did not encrypt as asked: some ignore the header."""
        asked = self.encryption.headers()
        answer = s3_client().put_object(**self._where(key), Body=data, **conditions, **asked)
        if asked and answer.get("ServerSideEncryption") != asked["ServerSideEncryption"]:
            self.delete(key)
            raise ConfigurationError(
                f"output.encryption.mode: {self.encryption.mode}: the server ignored it; choose another of kms, aes256, "
                "or bucket to rely on the bucket's default encryption"
            )

    def put_once(self, key: str, data: bytes) -> bool:
        from botocore.exceptions import ClientError

        for attempt in range(_CONFLICT_RETRIES):
            try:
                self._put(key, data, IfNoneMatch="*")
                return True
            except ClientError as error:
                if s3_status(error) == 412:
                    return False
                # 409: another conditional write of the same key is under way; AWS asks to try again.
                if s3_status(error) != 409 or attempt == _CONFLICT_RETRIES - 1:
                    raise
                count_retry("conflict")
                time.sleep(0.05 * 2**attempt)
        raise AssertionError("unreachable")

    def exists(self, key: str) -> bool:
        try:
            self.modified(key)
        except NotFound:
            return False
        return True

    def modified(self, key: str) -> float:
        from botocore.exceptions import ClientError

        try:
            return float(s3_client().head_object(**self._where(key))["LastModified"].timestamp())
        except ClientError as error:
            if s3_status(error) == 404:
                raise NotFound("no such object under the output prefix") from None
            # The answer to a HEAD has no body, and so no reason. That of a GET, which is refused in the same way, has.
            if s3_status(error) in (400, 403):
                s3_client().get_object(Range="bytes=0-0", **self._where(key))
            raise

    def list(self, prefix: str) -> Iterator[Entry]:
        pages = s3_client().get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.prefix + prefix)
        for page in pages:
            for item in page.get("Contents", ()):
                yield Entry(item["Key"].removeprefix(self.prefix), item["Size"], item["LastModified"].timestamp())

    def folders(self, prefix: str) -> tuple[str, ...]:
        where = {"Bucket": self.bucket, "Prefix": self.prefix + prefix, "Delimiter": "/"}
        pages = s3_client().get_paginator("list_objects_v2").paginate(**where)
        found = [item["Prefix"] for page in pages for item in page.get("CommonPrefixes", ())]
        return tuple(sorted(folder.rstrip("/").rsplit("/", 1)[-1] for folder in found))

    def delete(self, key: str) -> None:
        s3_client().delete_object(**self._where(key))


def open_store(uri: str, encryption: Encryption | None = None, *, allow_insecure_endpoint: bool = False) -> LocalStore | S3Store:
    """The store behind a folder path, `file://` or `s3://bucket/prefix` URI.

    `allow_insecure_endpoint`: S3 may be spoken to over plain http, from now on in this process.
    Raises ConfigurationError for other schemes, a missing bucket name, and for S3 without encryption settings.
    """
    if allow_insecure_endpoint:
        os.environ[INSECURE_VARIABLE] = "1"
    parsed = urlparse(uri)
    if parsed.scheme == "s3":
        if not parsed.netloc:
            raise ConfigurationError("output.uri: an s3:// URI needs a bucket name: s3://bucket/prefix/")
        if encryption is None:
            raise ConfigurationError(
                "output.encryption: not set. Notes are not written to S3 without saying how they are encrypted; "
                "set output.encryption.kms_key=KEY (SSE-KMS), output.encryption.mode=aes256, "
                "or output.encryption.mode=bucket to rely on the bucket's default encryption"
            )
        prefix = parsed.path.strip("/")
        return S3Store(parsed.netloc, f"{prefix}/" if prefix else "", encryption)
    if parsed.scheme not in ("", "file"):
        raise ConfigurationError(f"output.uri: unknown scheme {parsed.scheme!r}; choices: a folder path, file://, s3://")
    root = Path(parsed.path if parsed.scheme else uri).absolute()
    if root.exists() and not root.is_dir():
        raise ConfigurationError("output.uri: is a file; give a folder")
    return LocalStore(root)


def check_writable(store: Store) -> None:
    """Raises ConfigurationError where nothing can be written at all, before any work is done. S3 tells that at the first put."""
    if isinstance(store, LocalStore):
        folder = next(folder for folder in (store.root, *store.root.parents) if folder.exists())
        if not os.access(folder, os.W_OK | os.X_OK):
            raise ConfigurationError("output.uri: cannot be written: it is read-only for this account; choose another folder")


def open_to_read(uri: str) -> LocalStore | S3Store:
    """The store behind a URI that is only read. Nothing is written there, so how S3 would encrypt it does not matter.

    Raises ConfigurationError as `open_store` does.
    """
    return open_store(uri, Encryption("bucket"))
