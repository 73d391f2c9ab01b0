"""Whose message is it: C-STORE, storage commitment and Query/Retrieve are ours, any other is for
pynetdicom's DIMSE provider.
"""

from __future__ import annotations

from collections.abc import Callable

from scp_gateway.commitment import CommitmentScp
from scp_gateway.dimse_messages import parse_command
from scp_gateway.message_reader import AbortReason, ProtocolError
from scp_gateway.query_retrieve import QueryRetrieveScp
from scp_gateway.storage import StorageScp, Tally
from shared.dicom.command_set import C_STORE_RQ, C_STORE_RSP, MalformedCommandSetError

# An identifier, an attribute list: the data set of a message that is not stored.
_MAX_OTHER_DATA_SET_BYTES = 1 << 20

# Message Control Headers (PS3.8 E.2).
_COMMAND_LAST, _DATA, _DATA_LAST = b"\x03", b"\x00", b"\x02"


class Dispatch:
    """The MessageHandler of one association.

    `pass_on` takes a context ID and a Presentation Data Value, Message Control Header included, and
    raises ProtocolError.
    """

    def __init__(self, pass_on: Callable[[int, bytes], None]) -> None:
        self._pass_on = pass_on
        self._storage: StorageScp | None = None
        self._commitment: CommitmentScp | None = None
        self._query: QueryRetrieveScp | None = None
        self._is_store = False
        # Whose the message at hand is, if it is neither a C-STORE nor pynetdicom's.
        self._taker: CommitmentScp | QueryRetrieveScp | None = None
        self._context_id = 0
        self._has_data_set = False
        self._other_bytes = 0

    def open(
        self,
        storage: StorageScp,
        commitment: CommitmentScp | None = None,
        query: QueryRetrieveScp | None = None,
    ) -> None:
        """Presentation Contexts are agreed on: messages may come."""
        self._storage, self._commitment, self._query = storage, commitment, query

    @property
    def commitment(self) -> CommitmentScp | None:
        """Who looks after storage commitment, if anybody may ask for it here."""
        return self._commitment

    @property
    def query(self) -> QueryRetrieveScp | None:
        """Who answers Query/Retrieve, if anybody does here."""
        return self._query

    @property
    def is_store(self) -> bool:
        """The message at hand, or the last one, is a C-STORE request."""
        return self._is_store

    @property
    def tally(self) -> Tally:
        """What was stored and refused so far."""
        return self._storage.tally if self._storage is not None else Tally()

    def abandon(self) -> None:
        """The association is over; twice is once."""
        if self._storage is not None:
            self._storage.abandon()
        if self._commitment is not None:
            self._commitment.abandon()
        if self._query is not None:
            self._query.abandon()

    # ---- MessageHandler

    def command(self, context_id: int, command: bytes) -> bool:
        """Start a message. Raises: ProtocolError."""
        if self._storage is None or not self._storage.accepts(context_id):
            raise ProtocolError(
                AbortReason.INVALID_PDU_PARAMETER_VALUE,
                "a message in a Presentation Context that was not accepted",
            )
        try:
            request = parse_command(command)
        except MalformedCommandSetError as error:
            raise ProtocolError(AbortReason.NOT_SPECIFIED, f"Command Set: {error}") from None
        self._context_id, self._has_data_set = context_id, request.has_data_set
        self._taker = None
        if self._commitment is not None and self._commitment.accepts(context_id):
            self._taker = self._commitment
        elif self._query is not None and (
            self._query.accepts(context_id) or request.field == C_STORE_RSP
        ):
            self._taker = self._query
        self._is_store = request.field == C_STORE_RQ and self._taker is None
        if self._taker is not None:
            self._taker.begin(context_id, request)
        elif self._is_store:
            self._storage.begin(context_id, request)
        else:
            self._other_bytes = 0
            self._pass_on(self._context_id, _COMMAND_LAST + command)
        return request.has_data_set

    def data(self, fragments: list[memoryview]) -> None:
        """More of the data set. Raises: ProtocolError."""
        if self._is_store and self._storage is not None:
            self._storage.write(*fragments)
            return
        if self._taker is not None:
            self._taker.write(*fragments)
            return
        for fragment in fragments:
            self._other_bytes += len(fragment)
            if self._other_bytes > _MAX_OTHER_DATA_SET_BYTES:
                raise ProtocolError(AbortReason.NOT_SPECIFIED, "a data set is too long")
            self._pass_on(self._context_id, _DATA + fragment)

    def end(self) -> None:
        """Answer, or have it answered. Raises: ProtocolError, OSError."""
        if self._is_store and self._storage is not None:
            self._storage.finish()
        elif self._taker is not None:
            self._taker.finish()
        elif self._has_data_set:
            self._pass_on(self._context_id, _DATA_LAST)
