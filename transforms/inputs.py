"""Finding and opening the input files: folders, files, globs and hive partitions, on disk and on S3.

Messages name inputs by their position on the command line and files by number, because their names may hold patient names.
"""

from __future__ import annotations

import fnmatch
import glob
import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import unquote, urlparse

import pyarrow as pa
import pyarrow.parquet as pq

from schemas.errors import ChartmillError, ConfigurationError
from transforms.formats import SUFFIXES, suffix_of
from transforms.s3_file import ObjectFile, whole_object
from transforms.store import s3_client, s3_status
from transforms.store_failure import advice, is_passing

_GLOB_CHARACTERS = frozenset("*?[")
# On disk a file is known by its size and the hash of both ends: mtimes change when files are copied, whole hashes cost a full read.
_FINGERPRINT_BYTES = 64 * 1024
# Objects up to this size are fetched in one request.
_SMALL_BYTES = 8 << 20
_COMMON_SUFFIXES = frozenset(
    ".7z .arrow .avro .bz2 .dat .db .dcm .doc .docx .eml .feather .gz .htm .html .jpeg .jpg .log .md .odt .orc .pdf .png .rtf .sas7bdat"
    " .sql .sqlite .tar .tgz .tif .tiff .xls .xlsx .xpt .yaml .yml .zip .zst".split()
)
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One file as listed. `path` is relative to the input it came from; `location` is what `open_parquet` and `open_bytes` take."""

    path: str = field(repr=False)
    location: str = field(repr=False)
    size: int
    identity: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What the inputs hold: the files in path order, and how many others were passed over, by suffix."""

    files: tuple[FoundFile, ...]
    ignored: dict[str, int]


def list_inputs(uris: Sequence[str], form: str = "auto") -> Listing:
    """List every input file.

    A folder gives the files whose suffix says one of our formats, at any depth, without hidden ones (`.x`, `_x`). With a `form` other
    than `auto` it gives those of that format and those of unknown suffix; the formats of text count as one. A file or a glob gives what
    it names, whatever its suffix. Two inputs with the same relative path are told apart by the later one's folder name. Raises
    ConfigurationError when an input does not exist, cannot be read, or holds nothing to read.
    """
    if not uris:
        raise ConfigurationError("input.uris: empty; give at least one file, folder, glob or s3:// prefix")
    found: dict[str, FoundFile] = {}
    ignored: Counter[str] = Counter()
    for position, uri in enumerate(uris, start=1):
        root, files = _list_s3(uri, position, form, ignored) if uri.startswith("s3://") else _list_disk(uri, position, form, ignored)
        for file in files:
            path = _unused_path(file.path, root, position, found)
            found[path] = FoundFile(path, file.location, file.size, file.identity)
    return Listing(tuple(found[path] for path in sorted(found)), dict(ignored))


def _unused_path(path: str, root: str, position: int, taken: dict[str, FoundFile]) -> str:
    for candidate in (path, f"{PurePosixPath(root).name}/{path}", f"input-{position}/{path}"):
        if candidate not in taken:
            return candidate
    raise ConfigurationError(f"input.uris: input {position} lists a file twice")


def _is_hidden(relative: str) -> bool:
    return any(part.startswith((".", "_")) for part in PurePosixPath(relative).parts)


def _is_readable(relative: str, form: str) -> bool:
    named = suffix_of(relative).format
    if form == "auto":
        return named is not None
    # `notes.txt` may well hold delimited text: a format of text that the job forces goes for every file but Parquet.
    return named is None or (named == "parquet") == (form == "parquet")


def _wanted(relatives: Iterable[str], position: int, form: str, ignored: Counter[str]) -> list[str]:
    """The files of a folder listing that are to be read; raises ConfigurationError, saying what was found, when there are none."""
    visible = [relative for relative in relatives if not _is_hidden(relative)]
    wanted = [relative for relative in visible if _is_readable(relative, form)]
    chosen = set(wanted)
    others = Counter(_said_suffix(relative) for relative in visible if relative not in chosen)
    if not wanted:
        what = ", ".join(f"{count} × {suffix}" for suffix, count in sorted(others.items())) or "no file at all"
        raise ConfigurationError(f"input.uris: input {position} holds no file to read ({', '.join(SUFFIXES)}); found {what}")
    ignored.update(others)
    return wanted


def _said_suffix(relative: str) -> str:
    """The suffix, if it is one that may stand in a message: `visit.smith` has one, too."""
    suffix = PurePosixPath(relative).suffix.lower()
    return suffix if suffix in _COMMON_SUFFIXES or suffix in SUFFIXES else "(another suffix)" if suffix else "(none)"


def _list_disk(uri: str, position: int, form: str, ignored: Counter[str]) -> tuple[str, list[FoundFile]]:
    parsed = urlparse(uri)
    # Without slashes the colon belongs to the name of a file, which is not told.
    scheme = parsed.scheme if "://" in uri or parsed.scheme == "file" else ""
    if scheme not in ("", "file"):
        raise ConfigurationError(f"input.uris: input {position} has the unknown scheme {scheme!r}; choices: a path, file://, s3://")
    path = Path(parsed.path if scheme else uri).absolute()
    if path.is_dir():
        names = [p.relative_to(path).as_posix() for p in _walk(path, position)]
        return str(path), [_disk_file(path, name, position) for name in _wanted(names, position, form, ignored)]
    if path.is_file():
        return str(path.parent), [_disk_file(path.parent, path.name, position)]
    if _GLOB_CHARACTERS & set(str(path)):
        root = _glob_root(str(path))
        matches = [Path(p) for p in glob.glob(str(path), recursive=True) if Path(p).is_file()]
        if matches:
            return str(root), [_disk_file(Path(root), m.relative_to(root).as_posix(), position) for m in matches]
        raise ConfigurationError(f"input.uris: input {position} (a glob) matches no file")
    raise ConfigurationError(f"input.uris: input {position} does not exist (a local path)")


def _walk(folder: Path, position: int) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise ConfigurationError(f"input.uris: input {position} cannot be listed: {os.strerror(error.errno or 0)}") from None

    for directory, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        folders.sort()
        yield from (Path(directory) / name for name in sorted(names))


def _glob_root(pattern: str) -> str:
    """The part of a pattern before its first component with a wildcard."""
    parts = pattern.split("/")
    fixed = next(i for i, part in enumerate(parts) if _GLOB_CHARACTERS & set(part))
    return "/".join(parts[:fixed]) or "/"


def _disk_file(root: Path, relative: str, position: int) -> FoundFile:
    location = str(root / relative)
    try:
        size, identity = disk_identity(location)
    except OSError as error:
        raise ConfigurationError(f"input.uris: a file of input {position} cannot be opened: {os.strerror(error.errno or 0)}") from None
    return FoundFile(relative, location, size, identity)


def disk_identity(location: str) -> tuple[int, str]:
    """Size in bytes, and the identity of a file on disk: size and sha256 of its first and last 64 KiB."""
    with open(location, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        hashed = hashlib.sha256(file.read(_FINGERPRINT_BYTES))
        file.seek(max(size - _FINGERPRINT_BYTES, 0))
        hashed.update(file.read(_FINGERPRINT_BYTES))
    return size, f"{size}-{hashed.hexdigest()[:32]}"


def _list_s3(uri: str, position: int, form: str, ignored: Counter[str]) -> tuple[str, list[FoundFile]]:
    parsed = urlparse(uri, allow_fragments=False)
    bucket, key = parsed.netloc, uri.removeprefix(f"s3://{parsed.netloc}").lstrip("/")
    is_glob = bool(_GLOB_CHARACTERS & set(key))
    prefix = _glob_root(key).lstrip("/") if is_glob else key
    objects = _s3_objects(bucket, prefix, position)
    if is_glob:
        chosen = {k: v for k, v in objects.items() if fnmatch.fnmatchcase(k, key)}
        root = f"{prefix}/" if prefix else ""
    elif key in objects:
        chosen, root = {key: objects[key]}, key[: key.rfind("/") + 1]
    else:
        root = f"{prefix.rstrip('/')}/" if prefix else ""
        below = {k.removeprefix(root): k for k in objects if k.startswith(root) and not k.endswith("/")}
        chosen = {below[name]: objects[below[name]] for name in _wanted(below, position, form, ignored)}
    if not chosen:
        raise ConfigurationError(f"input.uris: input {position} (s3) matches no object")
    files = [FoundFile(k.removeprefix(root), f"s3://{bucket}/{k}", size, etag) for k, (size, etag) in chosen.items()]
    return root.rstrip("/") or bucket, files


def _s3_objects(bucket: str, prefix: str, position: int) -> dict[str, tuple[int, str]]:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        pages = s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return {o["Key"]: (o["Size"], o["ETag"].strip('"')) for page in pages for o in page.get("Contents", ())}
    except (BotoCoreError, ClientError) as error:
        if is_passing(error):
            raise ChartmillError(f"input.uris: input {position} (s3) cannot be listed now: {advice(error)}") from None
        if isinstance(error, BotoCoreError):
            raise ConfigurationError(f"input.uris: input {position} (s3) cannot be listed: {type(error).__name__}") from None
        why = {403: "access denied", 404: "no such bucket"}.get(s3_status(error), f"status {s3_status(error)}")
        raise ConfigurationError(f"input.uris: input {position} (s3) cannot be listed: {why}") from None


def current_identity(location: str) -> str | None:
    """The file's identity now; None when it is gone. Raises OSError or botocore errors when the storage cannot answer."""
    if not location.startswith("s3://"):
        try:
            return disk_identity(location)[1]
        except FileNotFoundError:
            return None
    from botocore.exceptions import ClientError

    bucket, key = location.removeprefix("s3://").split("/", 1)
    try:
        return str(s3_client().head_object(Bucket=bucket, Key=key)["ETag"]).strip('"')
    except ClientError as error:
        if s3_status(error) == 404:
            return None
        raise


def open_bytes(location: str, size: int) -> BinaryIO:
    """Open a file of any kind and of that size, local or s3://, to be read from any place. Raises OSError; of S3, as transforms.s3_file."""
    if not location.startswith("s3://"):
        return open(location, "rb")
    if size > _SMALL_BYTES:
        return io.BufferedReader(ObjectFile(location), _SMALL_BYTES or io.DEFAULT_BUFFER_SIZE)
    return io.BytesIO(whole_object(location))


def open_parquet(location: str, size: int) -> pq.ParquetFile:
    """Open a Parquet file of that size, local or s3://. Raises pa.ArrowInvalid or OSError when it is none; of S3, as transforms.s3_file."""
    if not location.startswith("s3://"):
        return pq.ParquetFile(location, memory_map=False)
    if size > _SMALL_BYTES:
        # Arrow reads ahead in ranges of its own choice.
        return pq.ParquetFile(ObjectFile(location), pre_buffer=True)
    return pq.ParquetFile(pa.BufferReader(whole_object(location)))


def partition_values(path: str) -> dict[str, str | None]:
    """Hive partition columns of a relative path: `year=2024/ward=A%20B/x.parquet` -> {year: 2024, ward: A B}."""
    pairs = (part.split("=", 1) for part in PurePosixPath(path).parts[:-1] if "=" in part)
    return {unquote(key): None if value == _HIVE_NULL else unquote(value) for key, value in pairs}


# What a damaged, truncated or non-Parquet file raises when it is opened or read.
CORRUPT_FILE_ERRORS = (pa.ArrowException, OSError, EOFError, UnicodeDecodeError)


def is_storage_failure(error: BaseException) -> bool:
    """Whether a read failed because the storage did, not because the file is damaged: then it must not be counted as damaged."""
    # Damage comes without an errno. S3's failures are no OSErrors here.
    return isinstance(error, OSError) and error.errno is not None
