"""What a stage's entry point does with one pushed message: parse, call, record.

Pub/Sub pushes a message over HTTP; the embedded runner hands the same values to the same entry
points without HTTP. 204 acknowledges; 503 and 500 have the message delivered again.
"""

from __future__ import annotations

import base64
import binascii
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import msgspec

from shared import crash_points
from shared.errors import (
    AxiomError,
    CopyInFlightError,
    MalformedMessageError,
    NotDecidedYetError,
    PermanentError,
    TransientError,
)
from shared.messages import (
    CommitmentRequested,
    DeliveryRequested,
    ExceptionRaised,
    InstanceAccepted,
    InstanceReceived,
    JobRequested,
    Stage,
    Topic,
    decode,
)
from shared.pipeline.exceptions import exception_from
from shared.pipeline.ports import Ports

log = logging.getLogger(__name__)

# Pub/Sub's own name for the attribute of an unwrapped push; its presence tells that the body is the
# message itself.
MESSAGE_ID_HEADER = "x-goog-pubsub-message-id"
ATTEMPT_HEADER = "x-goog-pubsub-delivery-attempt"

# Body, HTTP status, headers: what Flask takes as a response.
PushResponse = tuple[str, int, dict[str, str]]


class HeaderFields(Protocol):
    """Header fields: of Flask in any case, of the embedded runner in lower case."""

    def get(self, name: str, /) -> str | None:
        """One field; None if it is absent."""


class Pushed(Protocol):
    """The part of `flask.Request` that an entry point needs."""

    @property
    def headers(self) -> HeaderFields:
        """The header fields."""

    def get_data(self) -> bytes:
        """The body."""


@dataclass(frozen=True, slots=True)
class PushRequest:
    """One unwrapped push without HTTP, as the embedded runner makes it."""

    data: bytes
    headers: Mapping[str, str]

    def get_data(self) -> bytes:
        """The message's bytes."""
        return self.data


class _Message(msgspec.Struct):
    data: str = ""


class _Wrapped(msgspec.Struct):
    message: _Message


_ENVELOPE = msgspec.json.Decoder(_Wrapped)

M = TypeVar(
    "M",
    InstanceReceived,
    InstanceAccepted,
    DeliveryRequested,
    ExceptionRaised,
    JobRequested,
    CommitmentRequested,
)


def message_bytes(request: Pushed) -> bytes:
    """The message of a push, wrapped in Pub/Sub's JSON envelope or not.

    Raises: MalformedMessageError.
    """
    body = request.get_data()
    if request.headers.get(MESSAGE_ID_HEADER) is not None:
        return body
    try:
        return base64.b64decode(_ENVELOPE.decode(body).message.data, validate=True)
    except (msgspec.DecodeError, UnicodeDecodeError, binascii.Error):
        raise MalformedMessageError("the push is not a Pub/Sub envelope") from None


def answer(
    request: Pushed,
    kind: type[M],
    stage: Stage,
    topic: Topic,
    run: Callable[[M], None],
    ports: Ports,
) -> PushResponse:
    """Run a stage on the pushed message and tell the bus what became of it.

    A PermanentError is published to the exception log with what a retry needs; if even that fails
    the message is delivered again.
    """
    attempt = int(request.headers.get(ATTEMPT_HEADER) or 1)
    data = b""
    try:
        try:
            data = message_bytes(request)
            message = decode(data, kind)
        except MalformedMessageError as error:
            return _record(error, None, data, stage, topic, attempt, ports)
        try:
            run(message)
        except PermanentError as error:
            return _record(error, message, data, stage, topic, attempt, ports)
    except TransientError as error:
        headers = {}
        if error.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
        # 503 tells of the destination, 425 (Too Early, RFC 8470) of this message alone.
        is_early = isinstance(error, CopyInFlightError | NotDecidedYetError)
        return str(error), 425 if is_early else 503, headers
    except Exception as error:
        log.exception("a stage failed", extra={"stage": stage})
        return f"internal error: {type(error).__name__}", 500, {}
    crash_points.reached(crash_points.AFTER_STAGE)
    return "", 204, {}


def _record(
    error: AxiomError,
    message: InstanceReceived
    | InstanceAccepted
    | DeliveryRequested
    | ExceptionRaised
    | JobRequested
    | CommitmentRequested
    | None,
    data: bytes,
    stage: Stage,
    topic: Topic,
    attempt: int,
    ports: Ports,
) -> PushResponse:
    raised = exception_from(
        error,
        stage=stage,
        at=ports.clock.now(),
        receipt=None
        if isinstance(message, ExceptionRaised | JobRequested | CommitmentRequested | None)
        else message.receipt,
        destination=message.destination if isinstance(message, DeliveryRequested) else "",
        attempts=attempt,
        retry_topic=topic,
        retry_message=data,
    )
    ports.exceptions.publish(raised)
    log.warning(
        "recorded in the exception log",
        extra={"stage": stage, "code": raised.code, "exception_id": raised.exception_id},
    )
    return "", 204, {}
