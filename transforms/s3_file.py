"""Objects of S3 as files that are read: whole, or in ranges of one and the same content. A range that breaks off is asked for again.

Arrow's own S3 client is not used: it takes an answer that breaks off for the end of the file, and a sound file would count as damaged.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, TypeVar

from schemas.errors import ChartmillError
from transforms.batch import failure
from transforms.store import s3_client, s3_status
from transforms.store_retries import read_object

T = TypeVar("T")
_CHANGED = (404, 412, 416)


def whole_object(location: str) -> bytes:
    """The object of an s3:// URI in one request. Raises StorageFailure, and ChartmillError for an object that is gone."""
    return bytes(_asked(lambda: read_object(s3_client(), lambda body: body.read(), **_where(location))))


def _where(location: str) -> dict[str, str]:
    bucket, key = location.removeprefix("s3://").split("/", 1)
    return {"Bucket": bucket, "Key": key}


def _asked(request: Callable[[], T]) -> T:
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        return request()
    except (BotoCoreError, ClientError) as error:
        if isinstance(error, ClientError) and s3_status(error) in _CHANGED:
            raise ChartmillError("read failed: an input changed or vanished while it was read; run again") from None
        raise failure("read", error) from None


class ObjectFile(io.RawIOBase):
    """An object of an s3:// URI, one request for each read. Raises as `whole_object` does; also where the object is replaced meanwhile."""

    def __init__(self, location: str) -> None:
        super().__init__()
        self._where = _where(location)
        head = _asked(lambda: s3_client().head_object(**self._where))
        self._size, self._etag, self._position = int(head["ContentLength"]), head["ETag"], 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """As many bytes as there is room for, fewer only at the end."""
        wanted = min(len(buffer), self._size - self._position)
        if wanted <= 0:
            return 0
        span = {"Range": f"bytes={self._position}-{self._position + wanted - 1}", "IfMatch": self._etag}
        buffer[:wanted] = _asked(lambda: read_object(s3_client(), lambda body: body.read(), **self._where, **span))
        self._position += wanted
        return wanted
