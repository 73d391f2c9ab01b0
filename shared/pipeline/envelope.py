"""What a push brings: a message, in whichever envelope it was put on its way.

Pub/Sub pushes its own JSON (wrapped) or the message's bytes (unwrapped); Eventarc puts Pub/Sub's
JSON, or an event of another service, into a CloudEvent 1.0, whose attributes are header fields
(binary mode) or JSON about the data (structured mode).
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
from msgspec import Struct, field

from shared.errors import MalformedMessageError
from shared.tracing import TRACEPARENT

# Pub/Sub's own name for the attribute of an unwrapped push; its presence tells that the body is the
# message itself.
MESSAGE_ID_HEADER = "x-goog-pubsub-message-id"
ATTEMPT_HEADER = "x-goog-pubsub-delivery-attempt"
# Our own attributes of a message: Pub/Sub tells the attempt only beside a dead letter policy, and
# its emulator neither that nor the ordering key.
ATTEMPT, ORDERING_KEY = "axiom-attempt", "axiom-ordering-key"
# Which topic a message was published to, as we call it, and what else the publisher said of it.
TOPIC, LANE, PRIORITY = "axiom-topic", "axiom-lane", "axiom-priority"
# How the bytes of a message are written; DEFLATED (RFC 1950) is the one way besides plain.
ENCODING, DEFLATED = "axiom-encoding", "deflate"

_STRUCTURED = "application/cloudevents+json"
_MESSAGE_PUBLISHED = "google.cloud.pubsub.topic.v1.messagePublished"
_MOST_ATTEMPTS = 1_000_000
# Pub/Sub takes no message that is larger; ours are, inflated, a tenth of that.
_MOST_BYTES = 10_000_000


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


class PushedMessage(Struct, frozen=True):
    """A message out of its envelope. `attempt` counts from 1, as far as it is told."""

    data: bytes
    message_id: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    attempt: int = 1
    ordering_key: str = ""
    event_type: str = ""  # the CloudEvent's, "" if it is none
    traceparent: str = ""  # the span that it comes from, as it says itself


class _Message(msgspec.Struct, rename="camel"):
    data: str = ""
    attributes: dict[str, str] | None = None
    message_id: str = ""
    ordering_key: str = ""


class _Wrapped(msgspec.Struct, rename="camel"):
    message: _Message
    delivery_attempt: int | None = None


class _Event(msgspec.Struct):
    specversion: str
    id: str
    type: str
    data: msgspec.Raw = msgspec.Raw(b"")
    data_base64: str = ""


_WRAPPED = msgspec.json.Decoder(_Wrapped)
_EVENT = msgspec.json.Decoder(_Event)


def open_envelope(request: Pushed) -> PushedMessage:
    """The message of a push. Raises: MalformedMessageError for anything else."""
    headers, body = request.headers, request.get_data()
    message_id = headers.get(MESSAGE_ID_HEADER)
    if message_id is not None:
        attempt = number(headers.get(ATTEMPT) or headers.get(ATTEMPT_HEADER))
        traceparent = headers.get(TRACEPARENT) or ""
        data = _inflated(body, headers.get(ENCODING))
        return PushedMessage(data, message_id, attempt=attempt, traceparent=traceparent)
    try:
        if (headers.get("content-type") or "").partition(";")[0].strip() == _STRUCTURED:
            event = _EVENT.decode(body)
            data = base64.b64decode(event.data_base64, validate=True) or bytes(event.data)
            return _of_event(event.type, event.id, data)
        event_type = headers.get("ce-type")
        if event_type is not None:
            return _of_event(event_type, headers.get("ce-id") or "", body)
        return _unwrapped(body)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise MalformedMessageError("the push is not an envelope that we know") from None


def _of_event(event_type: str, event_id: str, data: bytes) -> PushedMessage:
    if event_type == _MESSAGE_PUBLISHED:
        return _unwrapped(data, event_type)
    return PushedMessage(data, event_id, event_type=event_type)


def _unwrapped(body: bytes, event_type: str = "") -> PushedMessage:
    wrapped = _WRAPPED.decode(body)
    message = wrapped.message
    attributes = message.attributes or {}
    own_attempt: Any = attributes.get(ATTEMPT)
    return PushedMessage(
        data=_inflated(base64.b64decode(message.data, validate=True), attributes.get(ENCODING)),
        message_id=message.message_id,
        attributes=attributes,
        attempt=number(own_attempt or wrapped.delivery_attempt),
        ordering_key=attributes.get(ORDERING_KEY) or message.ordering_key,
        event_type=event_type,
        traceparent=attributes.get(TRACEPARENT) or "",
    )


def _inflated(data: bytes, encoding: str | None) -> bytes:
    """Raises: MalformedMessageError."""
    if encoding != DEFLATED:
        return data
    inflating = zlib.decompressobj()
    try:
        found = inflating.decompress(data, _MOST_BYTES)
    except zlib.error:
        raise MalformedMessageError("a deflated message cannot be inflated") from None
    if not inflating.eof:
        raise MalformedMessageError("a deflated message has no end, or is too large")
    return found


def number(text: str | int | None) -> int:
    """A count of attempts, 1 for what is none: a stranger may write anything there."""
    shown = str(text)[:8]
    return min(max(1, int(shown)), _MOST_ATTEMPTS) if shown.isascii() and shown.isdigit() else 1
