"""What is answered where the server reads no request: a problem as everywhere, which quotes nothing
of what the peer sent.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from gunicorn.http import errors
from gunicorn.util import write_nonblock
from msgspec import Struct


class Refusal(Struct, frozen=True):
    """How a request is refused that cannot be read."""

    status: int
    code: str
    detail: str


OUR_FAULT: Final = Refusal(
    500, "internal-error", "Something is wrong on our side; the log tells more."
)
_BAD_REQUEST: Final = Refusal(400, "bad-request", "The request is not HTTP as it is taken here.")

# The first class that fits counts.
_REFUSALS: Final[tuple[tuple[type[Exception], Refusal], ...]] = (
    (errors.InvalidResponseHeader, OUR_FAULT),
    (errors.InvalidResponseHeaderName, OUR_FAULT),
    (errors.ConfigurationProblem, OUR_FAULT),
    (errors.LimitRequestLine, Refusal(414, "uri-too-long", "The request line is too long.")),
    (
        errors.LimitRequestHeaders,
        Refusal(431, "header-too-large", "There are too many header fields, or too long ones."),
    ),
    (errors.ExpectationFailed, Refusal(417, "expectation-failed", "Expect is not understood.")),
    (
        errors.UnsupportedTransferCoding,
        Refusal(501, "unsupported-transfer-coding", "The Transfer-Encoding is not understood."),
    ),
    (errors.ParseException, _BAD_REQUEST),
    (Exception, OUR_FAULT),
)


def refusal_of(error: Exception) -> Refusal:
    """What is answered to a request that failed with `error` before the application had it."""
    return next(refusal for kind, refusal in _REFUSALS if isinstance(error, kind))


def answer(sock: Any, refusal: Refusal) -> None:
    """Send it as a problem, with which the connection ends. Raises: OSError if the peer is gone."""
    # Of the web application, which not every process that serves has loaded.
    from shared.web.problems import ProblemError

    headers = {"Connection": "close"}
    problem = ProblemError(refusal.status, refusal.code, refusal.detail, headers=headers).response()
    lines = [
        f"HTTP/1.1 {refusal.status} {HTTPStatus(refusal.status).phrase}",
        *(f"{name}: {value}" for name, value in problem.headers),
        "",
        problem.get_data(as_text=True),
    ]
    write_nonblock(sock, "\r\n".join(lines).encode("ascii"))
