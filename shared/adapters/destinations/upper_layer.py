"""The DICOM Upper Layer's bytes (PS3.8 2024e 9.3), as far as a Storage SCU needs them.

Pure functions from values to bytes and back. pynetdicom could do this too, but importing it costs a
second, and its association keeps two threads that wake a thousand times a second, also while the
association waits for work.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from shared.adapters.destinations.user_identity import UserIdentity

# PDU types
A_ASSOCIATE_RQ = 0x01
A_ASSOCIATE_AC = 0x02
A_ASSOCIATE_RJ = 0x03
P_DATA_TF = 0x04
A_RELEASE_RQ = 0x05
A_RELEASE_RP = 0x06
A_ABORT = 0x07

PDU_HEADER_BYTES = 6  # type, reserved, length of what follows
PDV_HEADER_BYTES = 6  # length of what follows, Presentation Context ID, control header

# Message control header (PS3.8 E.2)
COMMAND = 0x01
LAST = 0x02

MAX_CONTEXTS = 128  # the odd numbers of one byte

APPLICATION_CONTEXT_NAME = "1.2.840.10008.3.1.1.1"  # PS3.7 A.2.1
# Under the UUID-derived root of PS3.5 B.2, which needs no registration.
IMPLEMENTATION_CLASS_UID = "2.25.141857167106027800474810961522680149700"
IMPLEMENTATION_VERSION_NAME = "AXIOM_FLOW_0_1"

_ITEM = struct.Struct(">BxH")
_PDU_HEADER = struct.Struct(">BxL")
_PDATA_HEADER = struct.Struct(">BxLLBB")
_ASSOCIATE_FIXED = struct.Struct(">HH16s16s32x")

RELEASE_RQ = _PDU_HEADER.pack(A_RELEASE_RQ, 4) + bytes(4)
RELEASE_RP = _PDU_HEADER.pack(A_RELEASE_RP, 4) + bytes(4)
# Source 0: the service user, that is, we decided to (PS3.8 9.3.8).
ABORT = _PDU_HEADER.pack(A_ABORT, 4) + bytes(4)

# PS3.8 Table 9-26, for source 2 (service provider)
_ABORT_REASONS = {
    0: "reason not specified",
    1: "unrecognized PDU",
    2: "unexpected PDU",
    4: "unrecognized PDU parameter",
    5: "unexpected PDU parameter",
    6: "invalid PDU parameter value",
}


class ProtocolError(Exception):
    """The peer sent bytes that PS3.8 or PS3.7 does not allow here."""


class Context(Struct, frozen=True):
    """A Presentation Context with one Transfer Syntax, so that accepting it leaves no doubt."""

    abstract_syntax: str
    transfer_syntax: str


class Accepted(Struct, frozen=True):
    """What an A-ASSOCIATE-AC says.

    `transfer_syntaxes` has the accepted Presentation Contexts alone, by ID. `max_pdu_size` limits
    what the peer takes in the length field of one P-DATA-TF; 0 is no limit (PS3.8 D.1).
    """

    transfer_syntaxes: Mapping[int, str]
    max_pdu_size: int
    implementation: str


class Rejected(Struct, frozen=True):
    """What an A-ASSOCIATE-RJ says (PS3.8 Table 9-21)."""

    result: int
    source: int
    reason: int


def associate_request(
    called_ae_title: str,
    calling_ae_title: str,
    contexts: Sequence[Context],
    max_pdu_size: int,
    scp_of: Sequence[str] = (),
    user_identity: UserIdentity | None = None,
) -> bytes:
    """An A-ASSOCIATE-RQ; the contexts get the IDs `context_id(0)`, `context_id(1)`, ...

    Of the SOP Classes `scp_of` we are to be SCP, not SCU (PS3.7 D.3.3.4).
    """
    body = _ASSOCIATE_FIXED.pack(1, 0, _ae_title(called_ae_title), _ae_title(calling_ae_title))
    body += _item(0x10, APPLICATION_CONTEXT_NAME.encode())
    for index, context in enumerate(contexts):
        body += _item(
            0x20,
            bytes((context_id(index), 0, 0, 0))
            + _item(0x30, context.abstract_syntax.encode())
            + _item(0x40, context.transfer_syntax.encode()),
        )
    body += _item(
        0x50,
        _item(0x51, struct.pack(">L", max_pdu_size))
        + _item(0x52, IMPLEMENTATION_CLASS_UID.encode())
        + b"".join(
            _item(0x54, struct.pack(">H", len(uid)) + uid.encode() + bytes((0, 1)))
            for uid in scp_of
        )
        + _item(0x55, IMPLEMENTATION_VERSION_NAME.encode())
        + (_user_identity(user_identity) if user_identity is not None else b""),
    )
    return _PDU_HEADER.pack(A_ASSOCIATE_RQ, len(body)) + body


def context_id(index: int) -> int:
    """The ID of the Presentation Context at `index`: odd, 1 to 255 (PS3.8 9.3.2.2)."""
    return 2 * index + 1


def parse_associate_accept(body: bytes) -> Accepted:
    """Read an A-ASSOCIATE-AC after its PDU header. Raises: ProtocolError."""
    transfer_syntaxes: dict[int, str] = {}
    max_pdu_size, implementation = 0, ""
    for kind, value in _items(body, _ASSOCIATE_FIXED.size):
        if kind == 0x21:
            if len(value) < 4:
                raise ProtocolError("a Presentation Context Item is cut short")
            number, result = value[0], value[2]
            # The Transfer Syntax of a context that was not accepted has no meaning.
            if result == 0:
                syntaxes = [_uid(v) for k, v in _items(value, 4) if k == 0x40]
                if len(syntaxes) != 1:
                    raise ProtocolError("an accepted context has not one Transfer Syntax")
                transfer_syntaxes[number] = syntaxes[0]
        elif kind == 0x50:
            for sub_kind, sub_value in _items(value, 0):
                if sub_kind == 0x51 and len(sub_value) == 4:
                    max_pdu_size = int.from_bytes(sub_value, "big")
                elif sub_kind == 0x55:
                    implementation = sub_value.decode("ascii", "replace").strip()
    return Accepted(transfer_syntaxes, max_pdu_size, implementation)


def parse_associate_reject(body: bytes) -> Rejected:
    """Read an A-ASSOCIATE-RJ after its PDU header. Raises: ProtocolError."""
    if len(body) < 4:
        raise ProtocolError("an A-ASSOCIATE-RJ is cut short")
    return Rejected(*body[1:4])


def abort_reason(body: bytes) -> str:
    """What an A-ABORT says, after its PDU header, in words."""
    source, reason = (body[2], body[3]) if len(body) >= 4 else (0, 0)
    if source == 2:
        return _ABORT_REASONS.get(reason, f"reason {reason}")
    return "by its application"


def pdata_header(context: int, control: int, size: int) -> bytes:
    """The 12 bytes before `size` bytes of one PDV that fills its PDU."""
    return _PDATA_HEADER.pack(P_DATA_TF, size + PDV_HEADER_BYTES, size + 2, context, control)


def parse_pdu_header(header: bytes) -> tuple[int, int]:
    """PDU type, and how many bytes follow."""
    kind, length = _PDU_HEADER.unpack(header)
    return kind, length


def pdvs(body: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Context ID, control header and fragment of each PDV of a P-DATA-TF. Raises: ProtocolError."""
    offset = 0
    while offset < len(body):
        length = int.from_bytes(body[offset : offset + 4], "big")
        end = offset + 4 + length
        if length < 2 or end > len(body):
            raise ProtocolError("a PDV does not fit its PDU")
        yield body[offset + 4], body[offset + 5], body[offset + 6 : end]
        offset = end


def _user_identity(given: UserIdentity) -> bytes:
    """Without asking for a positive response, which peers that do not know the Item cannot give."""
    fields = b"".join(struct.pack(">H", len(f)) + f for f in (given.primary, given.secondary))
    return _item(0x58, bytes((given.kind, 0)) + fields)


def _item(kind: int, value: bytes) -> bytes:
    return _ITEM.pack(kind, len(value)) + value


def _items(data: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    while offset < len(data):
        if offset + _ITEM.size > len(data):
            raise ProtocolError("an item is cut short")
        kind, length = _ITEM.unpack_from(data, offset)
        offset += _ITEM.size
        if offset + length > len(data):
            raise ProtocolError("an item is longer than what holds it")
        yield kind, data[offset : offset + length]
        offset += length


def _ae_title(text: str) -> bytes:
    return text.encode("ascii").ljust(16)


def _uid(value: bytes) -> str:
    return value.decode("ascii", "replace").rstrip("\0 ")
