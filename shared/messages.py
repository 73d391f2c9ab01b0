"""The values that travel between stages, and their bytes.

A message is frozen, holds the header of its Instance while that is small, and never holds Pixel
Data. Its bytes are JSON with bytes fields in base64; unknown fields are ignored, so that two
versions can run side by side during a rollout.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar, get_args

import msgspec
from msgspec import Struct, field

from shared.dicom.body_elements import BodyElement
from shared.dicom.changes import Change, Transcoding
from shared.dicom.standardized import Standardized
from shared.errors import Category, MalformedMessageError

# A header up to this many bytes travels in the message; a larger one is read again from the
# received file. Base64 adds a third, and Eventarc takes events of up to 512 KB.
MAX_INLINE_HEADER_BYTES = 192 * 1024


class Topic(StrEnum):
    """The topics, named for what has happened or is asked for."""

    INSTANCE_RECEIVED = "instance-received"
    INSTANCE_ACCEPTED = "instance-accepted"
    STANDARDIZATION_REQUESTED = "standardization-requested"
    DELIVERY_REQUESTED = "delivery-requested"
    EXCEPTION_RAISED = "exception-raised"
    JOB_REQUESTED = "job-requested"
    COMMITMENT_REQUESTED = "commitment-requested"


class Stage(StrEnum):
    """Where in the flow something happened."""

    POLL = "poll_sources"
    RECEIVE = "receive"
    VALIDATE = "validate_instance"
    RULES = "apply_rules"
    STANDARDIZE = "standardize_attributes"
    DELIVER = "deliver_instance"
    RECORD = "record_exception"
    JOB = "run_job"
    COMMITMENT = "report_commitment"


class ReceivedFile(Struct, frozen=True):
    """The Part 10 bytes as staged; the object never changes."""

    object_name: str
    size: int
    crc32c: int
    # Where the Body starts: bytes from the start of the Part 10 file, after inflating the data set
    # if the Transfer Syntax deflates it.
    body_offset: int
    # Equal for files that differ in File Meta Information or padding alone; "" until it is checked.
    data_set_mark: str = ""
    # What the Body holds beside Pixel Data; empty until it is checked.
    beside_pixels: tuple[BodyElement, ...] = ()


class Source(Struct, frozen=True):
    """Where an Instance came from."""

    type: str  # "dimse", "stow", ...
    name: str  # the listener's or source's name in the configuration
    calling_ae_title: str = ""
    called_ae_title: str = ""
    peer_address: str = ""  # IP address without the port
    principal: str = ""  # who was authenticated, "" for nobody


class Receipt(Struct, frozen=True):
    """What is known of one received Instance. Every later message carries it unchanged."""

    receipt_id: str
    trace_id: str
    received_at: datetime
    source: Source
    file: ReceivedFile
    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    # All bytes before the Body, inflated; None if larger than MAX_INLINE_HEADER_BYTES.
    header: bytes | None


class InstanceReceived(Struct, frozen=True):
    """An Instance is durable; its sender has been, or is about to be, told so."""

    receipt: Receipt


class InstanceAccepted(Struct, frozen=True):
    """Validation let the Instance pass, with these warnings.

    `decision` counts how often the rules were asked: a recorded decision is repeated for the same
    number and for smaller ones. With `released`, a person has said that what rules hold may go.
    `standardized` are the answers that rules have asked standardizers for.
    """

    receipt: Receipt
    warnings: tuple[str, ...] = ()
    decision: int = 0
    released: bool = False
    standardized: tuple[Standardized, ...] = ()
    # A person has corrected a term: what was delivered of this Instance gives way to what comes.
    corrects: bool = False


class StandardizationRequested(Struct, frozen=True):
    """Rules cannot go on before this standardizer has looked at the Instance with these Changes.

    Its answer goes with those of `accepted`, and then the rules begin anew.
    """

    accepted: InstanceAccepted
    standardizer: str
    changes: tuple[Change, ...] = ()

    @property
    def receipt(self) -> Receipt:
        """What is known of the Instance."""
        return self.accepted.receipt


class DeliveryRequested(Struct, frozen=True):
    """One Delivery: this Instance, with these Changes, to this destination.

    It is void once a later `decision` is recorded. `order` counts how often a person asked for it
    since, so that one that was given up can be asked for again.
    """

    receipt: Receipt
    destination: str
    changes: tuple[Change, ...] = ()
    matched_rules: tuple[str, ...] = ()
    decision: int = 0
    order: int = 0
    transcoding: Transcoding | None = None
    # It takes the place of what the destination has of this Instance from an earlier decision.
    corrects: bool = False


class ExceptionRaised(Struct, frozen=True):
    """An entry for the exception log: what happened, to what, and what a person can do.

    `retry_topic` and `retry_message` are what to publish to try the failed stage again; empty when
    nothing was accepted (the sender was refused).
    """

    exception_id: str
    occurred_at: datetime
    stage: Stage
    category: Category
    code: str
    message: str
    hint: str = ""
    peer_message: str = ""
    receipt_id: str = ""
    trace_id: str = ""
    source: Source | None = None
    destination: str = ""
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    study_instance_uid: str = ""
    attempts: int = 1
    retry_topic: str = ""
    retry_message: bytes = b""
    details: tuple[str, ...] = field(default=())
    transfer_syntax_uid: str = ""  # as it was received


class JobRequested(Struct, frozen=True):
    """A job, whose document says what it is, is to be begun or to go on."""

    job_id: str


class CommitmentRequested(Struct, frozen=True):
    """Storage commitment, whose document says for what, is to be reported to whoever asked."""

    key: str


AnyMessage = (
    InstanceReceived
    | InstanceAccepted
    | StandardizationRequested
    | DeliveryRequested
    | ExceptionRaised
    | JobRequested
    | CommitmentRequested
)
M = TypeVar("M", bound=AnyMessage)

# Made here, where one thread runs: msgspec prepares a type at its first use, and two threads
# that do so at once can crash the process.
_DECODERS: Mapping[type, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind) for kind in get_args(AnyMessage)
}


def encode(message: object) -> bytes:
    """The message as JSON, UTF-8."""
    return msgspec.json.encode(message)


def decode(data: bytes, kind: type[M]) -> M:
    """Read a message back. Raises: MalformedMessageError, without quoting the message."""
    try:
        found: M = _DECODERS[kind].decode(data)
        return found
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # msgspec names the path and the types, never the values.
        raise MalformedMessageError(f"not {kind.__name__}: {error}") from None
