"""What a failing storage means for whoever runs the job: a plain sentence by error code. It quotes nothing of an error's own message."""

from __future__ import annotations

import errno
from typing import Any

_GO_ON = "What is committed stays; running again goes on"
_EXPIRED = "the credentials have expired; renew them"
_UNKNOWN_KEYS = "S3 does not accept the credentials; see the role or the profile"
_SLOW = "S3 kept asking for fewer requests; run later, or with fewer workers"
_CLOCK = "this machine's clock is more than 15 minutes off; set it"
_UNREACHABLE = "S3 cannot be reached from here now; see the network and AWS_ENDPOINT_URL"
_BROKEN = "S3's answers keep breaking off; see the network"
_NO_CREDENTIALS = "no credentials can be had; give the machine a role, or set up a profile"
_DENIED = "the right to do that is missing, on the bucket, the prefix or the KMS key; or the credentials have expired"

_ERRNO = {
    errno.ENOSPC: "the disk is full; free some space",
    errno.EDQUOT: "the quota on the disk is used up; free some space",
    errno.EFBIG: "a file may not be that large here; see `ulimit -f`",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "this account has no right to do that there",
    errno.EPERM: "this account has no right to do that there",
    errno.EIO: "the disk, or the network share, fails",
    errno.ESTALE: "the network share has gone away; mount it again",
}
# Codes of S3: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_CODES = {
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "RequestExpired": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "InvalidAccessKeyId": _UNKNOWN_KEYS,
    "InvalidToken": _UNKNOWN_KEYS,
    "SignatureDoesNotMatch": _UNKNOWN_KEYS,
    "RequestTimeTooSkewed": _CLOCK,
    "AccessDenied": _DENIED,
    "NoSuchBucket": "there is no such bucket",
    "SlowDown": _SLOW,
    "ServiceUnavailable": _SLOW,
    "InternalError": "S3 fails inside; run later",
    "RequestTimeout": _UNREACHABLE,
}
_STATUS = {400: _DENIED, 403: _DENIED, 500: _CODES["InternalError"], 503: _SLOW}
# By the names of botocore's exceptions and their bases, the first that fits, so that nothing of it has to be imported here.
_KINDS = {
    "NoCredentialsError": _NO_CREDENTIALS,
    "PartialCredentialsError": _NO_CREDENTIALS,
    "CredentialRetrievalError": _NO_CREDENTIALS,
    "MetadataRetrievalError": _NO_CREDENTIALS,
    "TokenRetrievalError": _NO_CREDENTIALS,
    "UnauthorizedSSOTokenError": _EXPIRED,
    "SSLError": "the endpoint's certificate is not trusted here; see AWS_CA_BUNDLE",
    "ResponseStreamingError": _BROKEN,
    "IncompleteReadError": _BROKEN,
    "FlexibleChecksumError": _BROKEN,
    "HTTPClientError": _UNREACHABLE,
    "ConnectionError": _UNREACHABLE,
}
# Nothing is wrong with the job: the same command may do later.
_PASSING = {_EXPIRED, _CLOCK, _SLOW, _CODES["InternalError"], _UNREACHABLE, _BROKEN}


def advice(error: BaseException) -> str:
    """What to do about a storage that failed like this; empty where that is not known, or where it was no storage."""
    what = _meaning(error)
    return f"{what}. {_GO_ON}" if what else ""


def is_passing(error: BaseException) -> bool:
    """Whether the storage may do the same later, with nothing changed in the job."""
    return _meaning(error) in _PASSING


def _meaning(error: BaseException) -> str:
    response: Any = getattr(error, "response", None)  # botocore's ClientError
    if isinstance(response, dict):
        code = response.get("Error", {}).get("Code", "")
        return _CODES.get(code) or _STATUS.get(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0), "")
    # Before the system's errors: botocore's have some of those among their bases.
    for kind in type(error).__mro__:
        if kind.__module__.startswith("botocore") and kind.__name__ in _KINDS:
            return _KINDS[kind.__name__]
    return _ERRNO.get(error.errno or 0, "") if isinstance(error, OSError) else ""
