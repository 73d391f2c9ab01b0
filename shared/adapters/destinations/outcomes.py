"""What an answer of a destination means for its Delivery, as tables.

Every answer falls into one of six outcomes: DIMSE Statuses, association rejections, HTTP status
codes, and the errors of the client libraries and the operating system. The tables are the whole
policy; `failure` turns an outcome into the error that `shared.errors` has for it.
"""

from __future__ import annotations

import errno
import ssl
from collections.abc import Mapping
from enum import StrEnum

from msgspec import Struct

from shared.errors import (
    AxiomError,
    DestinationMisconfiguredError,
    DestinationRefusedError,
    DestinationUnavailableError,
)

_LONGEST_WORDS = 256


class Outcome(StrEnum):
    """What becomes of a Delivery."""

    SUCCESS = "success"
    WARNING = "warning"  # stored, with a remark worth keeping
    TRANSIENT = "transient"  # the same again may succeed later
    PERMANENT = "permanent"  # a person has to look at the Instance or the peer
    CONFLICT = "conflict"  # this SOP Instance UID is taken
    MISCONFIGURED = "misconfigured"  # a person has to look at the destination's configuration

    @property
    def is_stored(self) -> bool:
        return self in (Outcome.SUCCESS, Outcome.WARNING)


class Verdict(Struct, frozen=True):
    """An outcome, and in words what the answer says."""

    outcome: Outcome
    meaning: str


class _Codes(Struct, frozen=True):
    first: int
    last: int
    outcome: Outcome
    meaning: str


# DIMSE Status of C-STORE: PS3.4 2024e Table B.2-1 first, then PS3.7 2024e Annex C. The first row
# that holds a status counts. The Failure Reason (0008,1197) of STOW-RS takes the same values.
DIMSE_STATUSES = (
    _Codes(0x0000, 0x0000, Outcome.SUCCESS, "Success"),
    _Codes(0xB000, 0xB000, Outcome.WARNING, "Coercion of Data Elements"),
    _Codes(0xB006, 0xB006, Outcome.WARNING, "Elements discarded"),
    _Codes(0xB007, 0xB007, Outcome.WARNING, "Data Set does not match SOP Class"),
    _Codes(0xA700, 0xA7FF, Outcome.TRANSIENT, "Refused: out of resources"),
    _Codes(0xA900, 0xA9FF, Outcome.PERMANENT, "Data Set does not match SOP Class"),
    _Codes(0xC000, 0xCFFF, Outcome.PERMANENT, "Cannot understand"),
    _Codes(0x0001, 0x0001, Outcome.WARNING, "Requested optional Attributes are not supported"),
    _Codes(0x0107, 0x0107, Outcome.WARNING, "Attribute list error"),
    _Codes(0x0116, 0x0116, Outcome.WARNING, "Attribute value out of range"),
    _Codes(0xB000, 0xBFFF, Outcome.WARNING, "Warning"),
    # Peers say 0110H for a database that is locked as well as for what they will never take.
    _Codes(0x0110, 0x0110, Outcome.TRANSIENT, "Processing failure"),
    _Codes(0x0111, 0x0111, Outcome.CONFLICT, "Duplicate SOP Instance"),
    _Codes(0x0117, 0x0117, Outcome.PERMANENT, "Invalid SOP Instance"),
    _Codes(0x0118, 0x0118, Outcome.PERMANENT, "No such SOP Class"),
    _Codes(0x0119, 0x0119, Outcome.PERMANENT, "Class-Instance conflict"),
    _Codes(0x0122, 0x0122, Outcome.PERMANENT, "SOP Class not supported"),
    _Codes(0x0124, 0x0124, Outcome.PERMANENT, "Not authorized"),
    _Codes(0x0210, 0x0210, Outcome.TRANSIENT, "Duplicate invocation"),
    _Codes(0x0211, 0x0211, Outcome.PERMANENT, "Unrecognized operation"),
    _Codes(0x0212, 0x0212, Outcome.PERMANENT, "Mistyped argument"),
    _Codes(0x0213, 0x0213, Outcome.TRANSIENT, "Resource limitation"),
    _Codes(0xA800, 0xA8FF, Outcome.PERMANENT, "Refused: SOP Class not supported"),
    _Codes(0xFE00, 0xFE00, Outcome.TRANSIENT, "Cancel"),
    _Codes(0x0000, 0xFFFF, Outcome.PERMANENT, "Failure"),
)

# (source, reason) of A-ASSOCIATE-RJ: PS3.8 2024e Table 9-21. A result of 2, rejected-transient,
# makes each of them transient.
ASSOCIATION_REJECTIONS: Mapping[tuple[int, int], Verdict] = {
    (1, 1): Verdict(Outcome.PERMANENT, "no reason given"),
    (1, 2): Verdict(Outcome.PERMANENT, "application context name not supported"),
    (1, 3): Verdict(Outcome.MISCONFIGURED, "calling AE Title not recognized"),
    (1, 7): Verdict(Outcome.MISCONFIGURED, "called AE Title not recognized"),
    (2, 1): Verdict(Outcome.PERMANENT, "no reason given (ACSE)"),
    (2, 2): Verdict(Outcome.PERMANENT, "protocol version not supported"),
    (3, 1): Verdict(Outcome.TRANSIENT, "temporary congestion"),
    (3, 2): Verdict(Outcome.TRANSIENT, "local limit exceeded"),
}
_REJECTED_TRANSIENT = 2

# HTTP status codes of STOW-RS: PS3.18 2024e Table 10.5.3-1, then RFC 9110. The first row that
# holds a code counts.
HTTP_STATUSES = (
    _Codes(200, 200, Outcome.SUCCESS, "OK"),
    _Codes(202, 202, Outcome.WARNING, "Accepted"),
    _Codes(300, 399, Outcome.MISCONFIGURED, "redirects elsewhere"),
    _Codes(400, 400, Outcome.PERMANENT, "Bad Request"),
    _Codes(401, 401, Outcome.MISCONFIGURED, "Unauthorized"),
    _Codes(403, 403, Outcome.MISCONFIGURED, "Forbidden"),
    _Codes(404, 404, Outcome.MISCONFIGURED, "Not Found"),
    _Codes(405, 405, Outcome.MISCONFIGURED, "Method Not Allowed"),
    _Codes(407, 407, Outcome.MISCONFIGURED, "Proxy Authentication Required"),
    _Codes(408, 408, Outcome.TRANSIENT, "Request Timeout"),
    # What was refused is in the answer's Failed SOP Sequence, if the server says.
    _Codes(409, 409, Outcome.PERMANENT, "Conflict"),
    _Codes(413, 413, Outcome.PERMANENT, "Content Too Large"),
    _Codes(415, 415, Outcome.PERMANENT, "Unsupported Media Type"),
    _Codes(425, 425, Outcome.TRANSIENT, "Too Early"),
    _Codes(429, 429, Outcome.TRANSIENT, "Too Many Requests"),
    _Codes(501, 501, Outcome.MISCONFIGURED, "Not Implemented"),
    _Codes(505, 505, Outcome.PERMANENT, "HTTP Version Not Supported"),
    _Codes(500, 599, Outcome.TRANSIENT, "server error"),
    _Codes(0, 999, Outcome.PERMANENT, "unexpected answer"),
)

# Errors of the client libraries, by the full name of the class or of one it inherits from, so that
# no library is imported to be asked. The nearest ancestor counts.
CLIENT_ERRORS: Mapping[str, Verdict] = {
    f"{__package__}.authorization.UnusableSecretError": Verdict(
        Outcome.MISCONFIGURED, "the secret cannot stand in an HTTP header"
    ),
    f"{__package__}.user_identity.UserIdentityUnusableError": Verdict(
        Outcome.MISCONFIGURED, "a secret of its credentials is missing"
    ),
    "shared.adapters.tls.TlsUnusableError": Verdict(
        Outcome.MISCONFIGURED, "its TLS certificates cannot be used"
    ),
    f"{__package__}.upper_layer.ProtocolError": Verdict(
        Outcome.TRANSIENT, "the peer does not keep to the DICOM protocol"
    ),
    f"{__package__}.association_pool.ContextRefusedError": Verdict(
        Outcome.PERMANENT, "SOP Class or Transfer Syntax not accepted"
    ),
    f"{__package__}.association_pool.NoAssociationError": Verdict(
        Outcome.TRANSIENT, "all associations that the peer takes are busy"
    ),
    f"{__package__}.association_pool.PoolClosedError": Verdict(
        Outcome.TRANSIENT, "the destination was configured anew"
    ),
    "ssl.SSLError": Verdict(Outcome.TRANSIENT, "TLS failed"),
    "socket.gaierror": Verdict(Outcome.TRANSIENT, "the host name cannot be resolved"),
    "builtins.TimeoutError": Verdict(Outcome.TRANSIENT, "no answer in time"),
    "builtins.BlockingIOError": Verdict(Outcome.TRANSIENT, "no answer in time"),
    "builtins.ConnectionRefusedError": Verdict(Outcome.TRANSIENT, "connection refused"),
    "builtins.ConnectionError": Verdict(Outcome.TRANSIENT, "connection lost"),
    "google.auth.exceptions.DefaultCredentialsError": Verdict(
        Outcome.MISCONFIGURED, "this machine has no credentials of Google Cloud"
    ),
    "google.auth.exceptions.GoogleAuthError": Verdict(
        Outcome.TRANSIENT, "no access token can be had"
    ),
    "requests.exceptions.ConnectTimeout": Verdict(Outcome.TRANSIENT, "no connection in time"),
    "requests.exceptions.Timeout": Verdict(Outcome.TRANSIENT, "no answer in time"),
    "requests.exceptions.ConnectionError": Verdict(Outcome.TRANSIENT, "connection failed"),
    "requests.exceptions.ChunkedEncodingError": Verdict(Outcome.TRANSIENT, "answer cut short"),
    "requests.exceptions.ContentDecodingError": Verdict(Outcome.TRANSIENT, "answer is damaged"),
    "requests.exceptions.InvalidURL": Verdict(Outcome.MISCONFIGURED, "not a usable URL"),
    "requests.exceptions.MissingSchema": Verdict(Outcome.MISCONFIGURED, "not a usable URL"),
    "requests.exceptions.InvalidSchema": Verdict(Outcome.MISCONFIGURED, "not a usable URL"),
    "requests.exceptions.InvalidHeader": Verdict(Outcome.MISCONFIGURED, "not a usable secret"),
    "requests.exceptions.InvalidProxyURL": Verdict(Outcome.MISCONFIGURED, "not a usable proxy"),
    "requests.exceptions.RequestException": Verdict(Outcome.TRANSIENT, "request failed"),
}

# Errors of the operating system that their class does not tell apart. What is not here is
# transient: a disk, a mount or a network that may come back.
OS_ERRORS: Mapping[int, Verdict] = {
    errno.EACCES: Verdict(Outcome.MISCONFIGURED, "permission denied"),
    errno.EPERM: Verdict(Outcome.MISCONFIGURED, "operation not permitted"),
    errno.EROFS: Verdict(Outcome.MISCONFIGURED, "read-only file system"),
    errno.ENOENT: Verdict(Outcome.MISCONFIGURED, "no such folder"),
    errno.ENOTDIR: Verdict(Outcome.MISCONFIGURED, "not a folder"),
    errno.EISDIR: Verdict(Outcome.MISCONFIGURED, "a folder has that name"),
    errno.ELOOP: Verdict(Outcome.MISCONFIGURED, "a symbolic link is in the way"),
    errno.ENAMETOOLONG: Verdict(Outcome.MISCONFIGURED, "path too long"),
    errno.ENOSPC: Verdict(Outcome.TRANSIENT, "disk full"),
    errno.EDQUOT: Verdict(Outcome.TRANSIENT, "disk quota exceeded"),
    errno.EFBIG: Verdict(Outcome.PERMANENT, "larger than the file system takes"),
    errno.EHOSTUNREACH: Verdict(Outcome.TRANSIENT, "no route to host"),
    errno.ENETUNREACH: Verdict(Outcome.TRANSIENT, "network unreachable"),
}


def dimse_status(status: int) -> Verdict:
    """What a DIMSE Status of C-STORE, or a Failure Reason of STOW-RS, means."""
    return _find(DIMSE_STATUSES, status)


def association_rejection(result: int, source: int, reason: int) -> Verdict:
    """What the three numbers of an A-ASSOCIATE-RJ mean (PS3.8 9.3.4)."""
    verdict = ASSOCIATION_REJECTIONS.get(
        (source, reason), Verdict(Outcome.PERMANENT, f"source {source}, reason {reason}")
    )
    if result == _REJECTED_TRANSIENT:
        return Verdict(Outcome.TRANSIENT, verdict.meaning)
    return verdict


def http_status(code: int) -> Verdict:
    """What an HTTP status code of STOW-RS or QIDO-RS means."""
    return _find(HTTP_STATUSES, code)


# OpenSSL's X509_V_ERR_...
_CERTIFICATE_FAULTS = {
    9: "not valid yet",
    10: "expired",
    **dict.fromkeys((2, 18, 19, 20, 21), "unknown authority"),
    **dict.fromkeys((62, 64), "for another host"),
}


def client_error(error: Exception) -> Verdict:
    """What an error means that a client library or the operating system raised.

    The text of `error` is not used: it may quote a URL with a secret, or a path with a Value.
    """
    certificate = _cause(error, ssl.SSLCertVerificationError)
    if certificate is not None:
        why = _CERTIFICATE_FAULTS.get(getattr(certificate, "verify_code", 0))
        words = ": ".join(filter(None, ["the server's certificate is not trusted", why]))
        return Verdict(Outcome.MISCONFIGURED, words)
    for kind in type(error).__mro__:
        verdict = CLIENT_ERRORS.get(f"{kind.__module__}.{kind.__qualname__}")
        if verdict is not None:
            return verdict
        if kind is OSError:
            break
    if isinstance(error, OSError) and error.errno is not None:
        name = errno.errorcode.get(error.errno, str(error.errno))
        return OS_ERRORS.get(error.errno, Verdict(Outcome.TRANSIENT, name))
    return Verdict(Outcome.TRANSIENT, type(error).__name__)


def failure(
    verdict: Verdict, destination: str, words: str = "", *, retry_after_s: float | None = None
) -> AxiomError:
    """The error for an outcome that is not a success; `words` are the peer's own.

    A conflict is here a refusal: whoever knows the bytes raises InstanceConflictError instead.
    """
    text = f"{verdict.meaning}: {words}" if words else verdict.meaning
    if verdict.outcome is Outcome.TRANSIENT:
        unavailable = DestinationUnavailableError(destination, text)
        unavailable.retry_after_s = retry_after_s
        return unavailable
    if verdict.outcome is Outcome.MISCONFIGURED:
        misconfigured = DestinationMisconfiguredError(destination, text)
        misconfigured.refuses_all = True
        return misconfigured
    return DestinationRefusedError(destination, text)


def printable(words: str) -> str:
    """A peer's own words, made harmless for a terminal and a log, and not too long."""
    return "".join(c if c.isprintable() else " " for c in words[:_LONGEST_WORDS]).strip()


def _find(table: tuple[_Codes, ...], code: int) -> Verdict:
    for row in table:
        if row.first <= code <= row.last:
            return Verdict(row.outcome, row.meaning)
    return Verdict(Outcome.PERMANENT, "not a status")


def _cause(error: BaseException, kind: type[Exception]) -> Exception | None:
    # requests and urllib3 wrap the TLS library's error several times, partly only in `args`.
    seen: set[int] = set()
    pending: list[object] = [error]
    while pending:
        current = pending.pop()
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, kind):
            return current
        pending += [current.__cause__, current.__context__, getattr(current, "reason", None)]
        pending += current.args
    return None
